"""Digests in what people read: cut to their beginning, and nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.words import short_digests

DIGEST = "0123456789abcdef" * 4


def test_each_digest_of_a_text_is_cut():
    other = "f" * 64
    text = f"round 1 of 3, masked, for the sum over 5 institutions {DIGEST}, not {other}."
    assert (
        short_digests(text) == "round 1 of 3, masked, for the sum over 5 institutions 0123456789ab…, not ffffffffffff…."
    )


@pytest.mark.parametrize("text", [DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST * 2, "round 1 of 3", ""])
def test_what_is_no_digest_stays(text):
    assert short_digests(text) == text


@given(st.text(alphabet="0123456789abcdefxyz …", max_size=200))
def test_a_cut_text_has_no_digest_and_is_not_cut_twice(text):
    once = short_digests(text)
    assert short_digests(once) == once and len(once) <= len(text)
    assert (once == text) == (not any(len(word) == 64 for word in _runs(text)))


def _runs(text):
    return "".join(c if c in "0123456789abcdef" else " " for c in text).split()


@given(
    st.text(alphabet="xyz ,.", max_size=20),
    st.binary(min_size=32, max_size=32),
    st.text(alphabet="xyz ,.", max_size=20),
)
def test_a_digest_between_words(before, content, after):
    assert short_digests(before + content.hex() + after) == f"{before}{content.hex()[:12]}…{after}"
