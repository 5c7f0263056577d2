"""Pinned bytes of every derivation, each against a second way of computing it: whoever changes one speaks another protocol."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.secure import Ack, EpochKey, KeyExchange, Masked, PairKey, Ready, Reveal, SumOffer, context_of
from privacy.secure_aggregation.derivation import digest_of, expand, pair_key, pair_root, self_key, transcript
from privacy.secure_aggregation.masking import mask, to_bytes, to_words
from tests.privacy.secure_aggregation import reference

ONES, TWOS, THREES = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
ZEROS = bytes(32)
OFFER = SumOffer(
    roster="c" * 64,
    epoch="e" * 64,
    number=1,
    attempt=2,
    request="a" * 64,
    d=8,
    w=32,
    scale=100.0,
    share=16384.0,
    n_min=3,
    c=0,
)
READIES = [Ready(offer="1" * 64, id=name, nonce=digit * 64) for name, digit in (("a", "2"), ("b", "3"), ("c", "4"))]
OFFER_JSON = {
    "attempt": 2,
    "c": 0,
    "d": 8,
    "epoch": "e" * 64,
    "kind": "offer",
    "n_min": 3,
    "number": 1,
    "request": "a" * 64,
    "roster": "c" * 64,
    "scale": 100,
    "share": 16384,
    "w": 32,
}
READIES_JSON = [
    {"id": item.id, "kind": "ready", "nonce": item.nonce, "offer": item.offer} for item in READIES
]  # names and kinds as they are signed


def test_the_masked_vector_of_the_protocol_page():
    x = to_words(np.arange(8), 32)
    y = to_bytes(mask(x, THREES, ZEROS, "a", {"b": ONES, "c": TWOS}, ["b", "c"]))
    assert y.hex() == "25923a71e24ba1e565d808648cb9e5775d780c3e22e52649599bb4a1dddea94b"
    assert y == reference.mask(range(8), 32, THREES, ZEROS, "a", {"b": ONES, "c": TWOS})


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), "72330702c9f2bb30c70db5055f59900a550255c34eaf21f8febb5b289b0d6ce5"),
        ((b"",), "527fc3615ceaf6f85b953df6db53519eef9f179cab8e5cff184f31ab688a70ca"),
        ((b"ab", b"c"), "7403258b90afe8034c8429e584fc4eb575a3654a3fb9e6e94fe4e644e2049bcf"),
        ((b"a", b"bc"), "d97c37be84e157f8d5405f289e69f886f0b2cac34c01c22c20a6f5b63a1dbb9e"),
    ],
)
def test_expand(parts, expected):
    assert expand(ONES, "psa1/test", *parts).hex() == reference.expand(ONES, "psa1/test", *parts).hex() == expected


def test_the_transcript():
    slowly = hashlib.sha256(b"psa1/T" + reference.canon([OFFER_JSON, READIES_JSON])).hexdigest()
    assert (
        transcript(OFFER, READIES).hex() == slowly == "e2fd999fdb0a5fe453830fea8ba093fdf42b40efdd01f6f311948325c865e3b9"
    )


def test_the_digest_over_statements():
    slowly = hashlib.sha256(reference.canon(READIES_JSON)).hexdigest()
    assert digest_of(READIES) == slowly == "6baeb366a25e3daae5da87e7ca67cf9b52f52e0ec81d1fa6f41bb99a5f62f099"


def test_the_pairwise_root():
    keys = ("1" * 64, "2" * 64)
    info = reference.canon(["c" * 64, "e" * 64, *keys])
    slowly = reference.hkdf(ONES + TWOS, b"psa1/root", info)
    assert (
        pair_root(ONES, TWOS, "c" * 64, "e" * 64, keys).hex()
        == slowly.hex()
        == "263575ba0743143a805e9e87b12dd04e15074434751a3ddbe6d78318ad48f08a"
    )


def test_the_pairwise_key_is_the_same_on_both_sides():
    slowly = reference.expand(ONES, "psa1/pair", THREES, b"a", b"b")
    assert pair_key(ONES, THREES, "a", "b").hex() == pair_key(ONES, THREES, "b", "a").hex() == slowly.hex()
    assert slowly.hex() == "0488887cdda4f9bf0fcc82ff80d735728b8a1d751079f07d0c7db927b0b871f1"


def test_the_key_of_the_own_mask():
    slowly = reference.expand(ONES, "psa1/self", THREES, b"a")
    assert (
        self_key(ONES, THREES, "a").hex()
        == slowly.hex()
        == "04b3a1d45164ae11074ca06d66830a4007804f7d843d4f4a1859affa298755d2"
    )


@pytest.mark.parametrize(
    ("w", "d", "expected"),
    [
        (32, 65_536, "d02c7daa7e907b076b5eb59758882cff276418b766e812a07b13cf175ec3dabd"),
        (32, 65_541, "a255eb15396b9ca51b272d15490657d70a1a923c8cc6dae6489c3f0a39ba1cc4"),
        (64, 32_768, "cac2583c92015bf1d356b3ad44bb750773cc817780908cf11bacf581fb697617"),
        (64, 32_773, "6dd9f0c5662e2621b33f1b5728df43023f73833877cddea2a187d194bbcf807a"),
    ],
)
def test_vectors_that_fill_and_cross_a_piece_of_256_kib(w, d, expected):
    x = np.arange(d) * 65_537 - 2**30
    y = to_bytes(mask(to_words(x, w), THREES, ZEROS, "b", {"a": ONES, "c": TWOS}, ["a", "c"]))
    assert y == reference.mask(x.tolist(), w, THREES, ZEROS, "b", {"a": ONES, "c": TWOS})
    assert hashlib.sha256(y).hexdigest() == expected


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_two_lists_of_parts_have_the_same_key_only_when_they_are_the_same(one, other):
    assert (expand(ONES, "label", *one) == expand(ONES, "label", *other)) == (one == other)


def test_what_is_signed_begins_with_the_protocol_and_the_kind():
    kinds = {EpochKey: "ek", KeyExchange: "kx", SumOffer: "offer", Ready: "ready", Masked: "masked", Ack: "ack"}
    for model, kind in (kinds | {Reveal: "reveal"}).items():
        assert context_of(model.model_construct()) == f"psa1/{kind}"


def test_the_bytes_of_each_statement():
    """Names and spelling as they are signed: a field that is added or renamed changes a signature."""
    assert OFFER.canonical() == reference.canon(OFFER_JSON)
    assert READIES[0].canonical() == reference.canon(READIES_JSON[0])
    pair = PairKey(id="b", key="5" * 64)
    for statement, said in (
        (Masked(t="1" * 64, id="a", w=32, d=8, y="2" * 64), {"kind": "masked", "w": 32, "d": 8, "y": "2" * 64}),
        (Ack(t="1" * 64, s="2" * 64, id="a"), {"kind": "ack", "s": "2" * 64}),
        (
            Reveal(t="1" * 64, id="a", b="2" * 64, pairs=(pair,)),
            {"kind": "reveal", "b": "2" * 64, "pairs": [{"id": "b", "key": "5" * 64}]},
        ),
    ):
        assert statement.canonical() == reference.canon({"t": "1" * 64, "id": "a"} | said)
