import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.encoding import canonical, digest, sha256_hex
from federation.errors import DocumentError

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_canonical_bytes_parse_back_and_are_a_fixed_point(value):
    content = canonical(value)
    assert canonical(json.loads(content)) == content


@given(st.dictionaries(st.text(max_size=6), st.integers(0, 9), min_size=2, max_size=6))
def test_the_order_of_keys_does_not_matter(value):
    assert canonical(value) == canonical(dict(reversed(list(value.items()))))


def test_known_answer_of_the_standard():
    # RFC 8785, section 3.2.2 (numbers) and 3.2.3 (sorting)
    value = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "literals": [None, True, False]}
    assert canonical(value) == b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}'


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**60, {"a": -math.inf}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(DocumentError, match="CSL-F101"):
        canonical(value)


def test_digest_is_sha256_of_the_canonical_bytes():
    assert digest({"b": 1, "a": 2}) == sha256_hex(b'{"a":2,"b":1}')
