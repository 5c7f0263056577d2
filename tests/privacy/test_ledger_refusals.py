"""Refusals that were only counted: one entry, readable, bounded, and nothing that it says can contradict itself."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.encoding import canonical
from federation.errors import DocumentError
from privacy.ledger.entries import Refuse, RefuseData, parse
from privacy.ledger.refusals import MOST_CODES, RefusalsData

OLD = (  # as every release so far wrote it
    b'{"data":{"code":"CSL-P201","study":"cross_sell","why":"unknown purpose"},"kind":"refuse",'
    b'"prev":"' + b"a" * 64 + b'","rid":null,"salt":"' + b"0" * 32 + b'","seq":5,"ts":1770000000000,"v":1}'
)


def changed(**data: object) -> bytes:
    fields = {"count": 10, "first": 1000, "last": 2000, "codes": [{"code": "CSL-C510", "times": 10}]}
    return canonical(json.loads(OLD) | {"data": fields | data})


def test_entries_of_earlier_releases_read_as_they_did():
    body = parse(OLD)
    assert isinstance(body, Refuse) and isinstance(body.data, RefuseData)
    assert (body.data.code, body.data.study) == ("CSL-P201", "cross_sell") and body.canonical() == OLD


def test_a_sum_is_written_read_and_verified(house):
    house.ledger.refuse("CSL-P201", "cross_sell", "unknown purpose")
    now = house.clock.now
    house.clock.pass_days(1)
    house.ledger.refuse_many(950, now, now + 5, {"CSL-F208": 9, "CSL-C510": 940})
    entry = house.ledger.entry(3)
    assert isinstance(entry.body, Refuse) and isinstance(entry.body.data, RefusalsData)
    assert (entry.body.data.count, entry.body.data.others) == (950, 1)
    assert [item.code for item in entry.body.data.codes] == ["CSL-C510", "CSL-F208"]
    assert parse(entry.content) == entry.body and house.verify().valid


@pytest.mark.parametrize(
    "data",
    [
        {"count": 9},
        {"count": 0},
        {"codes": []},
        {"codes": [{"code": "CSL-F208", "times": 1}, {"code": "CSL-C510", "times": 1}]},
        {"codes": [{"code": "CSL-C510", "times": 1}, {"code": "CSL-C510", "times": 1}]},
        {"codes": [{"code": "CSL-C510", "times": 0}]},
        {"codes": [{"code": "C510", "times": 1}]},
        {"first": 2001},
        {"last": 1_770_000_000_001},
        {"count": 10**13},
        {"why": "and a word more"},
    ],
)
def test_a_sum_that_contradicts_itself_is_no_entry(data):
    parse(changed())
    with pytest.raises(DocumentError, match="CSL-P611"):
        parse(changed(**data))


@given(
    st.dictionaries(st.from_regex(r"CSL-[A-Z][0-9]{3}", fullmatch=True), st.integers(1, 10**6), min_size=1),
    st.integers(0, 10**6),
    st.integers(0, 2**50),
    st.integers(0, 10**9),
)
def test_every_sum_of_at_most_a_hundred_codes_reads_back(codes, others, first, length):
    count = sum(codes.values()) + others
    if len(codes) > MOST_CODES:
        with pytest.raises(ValidationError):
            RefusalsData.of(count, first, first + length, codes)
        return
    data = RefusalsData.of(count, first, first + length, codes)
    body = Refuse(seq=1, prev="b" * 64, ts=first + length, data=data)
    read = parse(body.canonical())
    assert read == body and isinstance(read.data, RefusalsData) and read.data.others == others
