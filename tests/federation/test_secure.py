"""The documents of a secure sum: signed as their own kind, in one spelling, and within what a message carries."""

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.encoding import sha256_hex
from federation.errors import DocumentError, IntegrityError
from federation.messages import MAX_HEADER_BYTES, RECORD, EvaluateRequest, TrainRequest, pack, unpack
from federation.secure import (
    MOST_MEMBERS,
    Ack,
    EpochExchanges,
    EpochKey,
    EpochKeys,
    Exchanges,
    KeyExchange,
    Masked,
    PairKey,
    Ready,
    Reveal,
    SignedAck,
    SignedEpochKey,
    SignedExchange,
    SignedMasked,
    SignedReady,
    SumAcks,
    SumHeaders,
    SumOffer,
    SumReadies,
    SumRequest,
    request_digest,
    sign_statement,
    verify_statement,
)
from federation.signing import public_hex, sign_bytes

from .conftest import key_of

KEY, OTHER = key_of("alder"), key_of("birch")
PUBLIC = public_hex(KEY)
ONE, TWO = "1" * 64, "2" * 64
HEX32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True)


def train(**terms) -> TrainRequest:
    said = {"study": ONE, "round": 3, "clip": 1.0, "learning_rate": 0.1, "payload": TWO} | terms
    return TrainRequest(**said)


def offer(**terms) -> SumOffer:
    base = {"roster": ONE, "epoch": ONE, "number": 1, "attempt": 1, "request": TWO, "d": 3, "w": 32}
    return SumOffer(**(base | {"scale": 100.0, "share": 16384.0, "n_min": 3, "c": 0} | terms))


READY = st.builds(Ready, offer=HEX32, id=NAMES, nonce=HEX32)
MASKED = st.builds(Masked, t=HEX32, id=NAMES, w=st.sampled_from([32, 64]), d=st.integers(1, 1 << 26), y=HEX32)
ACK = st.builds(Ack, t=HEX32, s=HEX32, id=NAMES)
REVEAL = st.builds(
    Reveal, t=HEX32, id=NAMES, b=HEX32, pairs=st.lists(st.builds(PairKey, id=NAMES, key=HEX32), max_size=3).map(tuple)
)
OFFER = st.builds(
    SumOffer,
    roster=HEX32,
    epoch=HEX32,
    number=st.integers(1, 1_000_000),
    attempt=st.integers(1, 1000),
    request=HEX32,
    d=st.integers(1, 1 << 24),
    w=st.sampled_from([32, 64]),
    scale=st.floats(1e-6, 1e12),
    share=st.floats(4.0, 65_536.0),
    n_min=st.integers(3, 200),
    c=st.integers(0, 200),
)


@given(st.one_of(READY, MASKED, ACK, REVEAL, OFFER))
def test_a_statement_has_one_spelling_and_its_signature_stays_good(statement):
    again = type(statement).from_canonical(statement.canonical())
    assert again == statement and again.digest() == statement.digest()
    signature = sign_statement(KEY, statement)
    verify_statement(again, signature, PUBLIC)
    with pytest.raises(IntegrityError, match="CSL-F202"):
        verify_statement(again, signature, public_hex(OTHER))


@given(st.one_of(READY, MASKED, ACK, REVEAL, OFFER), st.data())
def test_another_spelling_of_a_statement_is_refused(statement, data):
    content = statement.canonical()
    place = data.draw(st.sampled_from([i for i, byte in enumerate(content) if byte in b":,"]))
    first, second = content[: place + 1], content[place + 1 :]
    spaced = first + b" " + second
    twice = content[:-1] + b',"id":"alder"}'
    for wrong in (spaced, content + b"\n", twice, content[: place + 1]):
        with pytest.raises(DocumentError, match="CSL-F102"):
            type(statement).from_canonical(wrong)


def test_a_statement_signed_as_one_kind_does_not_pass_as_another():
    ack = Ack(t=ONE, s=TWO, id="alder")
    ready = Ready(offer=ONE, id="alder", nonce=TWO)
    for context in ("csl1/ack", "psa1/ready", "psa1/Ack", "ack"):
        signature = sign_bytes(KEY, context, ack.canonical()).value
        with pytest.raises(IntegrityError, match="CSL-F202"):
            verify_statement(ack, signature, PUBLIC)
    with pytest.raises(IntegrityError, match="CSL-F202"):
        verify_statement(ready, sign_statement(KEY, ack), PUBLIC)


def test_a_packed_statement_carries_the_signature_that_is_passed_on():
    ack = Ack(t=ONE, s=TWO, id="alder")
    records = pack(KEY, ack)
    assert unpack(records, Ack, PUBLIC) == (ack, b"")
    assert records[RECORD]["signature"].hex() == sign_statement(KEY, ack)


def test_the_words_beside_a_header_are_those_that_were_signed():
    words = bytes(range(12))
    masked = Masked(t=ONE, id="alder", w=32, d=3, y=sha256_hex(words))
    records = pack(KEY, masked, words)
    assert unpack(records, Masked, PUBLIC) == (masked, words)
    for other in (words[:-1], words + b"\0", b"", bytes(12)):
        altered = RecordDict({RECORD: ConfigRecord({**records[RECORD], "payload": other})})
        with pytest.raises(IntegrityError, match="CSL-F209"):
            unpack(altered, Masked, PUBLIC)


@pytest.mark.parametrize("statement", [Ready(offer=ONE, id="alder", nonce=TWO), Ack(t=ONE, s=TWO, id="alder"), offer()])
def test_nothing_lies_beside_the_other_statements(statement):
    with pytest.raises(IntegrityError, match="CSL-F209"):
        unpack(pack(KEY, statement, b"more"), type(statement), PUBLIC)


@pytest.mark.parametrize(
    "terms",
    [
        {"d": 0},
        {"d": 1 << 27},
        {"d": (1 << 25) + 1},
        {"d": (1 << 24) + 1, "w": 64},
        {"w": 16},
        {"w": 31},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": 1e13},
        {"share": 3.9},
        {"share": 65_537.0},
        {"n_min": 2},
        {"c": -1},
        {"number": 0},
        {"attempt": 0},
        {"attempt": 1001},
        {"request": "G" * 64},
        {"request": "A" * 64},
        {"d": True},
        {"d": 3.0},
        {"unknown": 1},
    ],
)
def test_an_offer_out_of_range_is_none(terms):
    with pytest.raises(ValidationError):
        offer(**terms)


def test_the_largest_vectors_that_a_message_carries_are_offered():
    assert offer(d=1 << 25).d == 1 << 25
    assert offer(d=1 << 24, w=64).d == 1 << 24


def test_members_with_clips_and_weights_of_their_own_agree_on_one_offer():
    assert request_digest(train()) == request_digest(train(clip=0.5)) == request_digest(train(clip=0.1, weight=0.25))
    assert request_digest(train(clip=0.1, weight=0.25)) == train(clip=1.0).digest()


@pytest.mark.parametrize(
    "other", [{"study": TWO}, {"round": 4}, {"payload": ONE}, {"learning_rate": 0.2}, {"momentum": 0.5}]
)
def test_everything_else_of_a_request_is_agreed_on(other):
    assert request_digest(train()) != request_digest(train(**other))


def test_a_request_for_counts_is_agreed_on_whole():
    one = EvaluateRequest(study=ONE, edges=(0.0, 0.5, 1.0), payload=TWO)
    assert request_digest(one) == one.digest()
    assert request_digest(one) != request_digest(one.model_copy(update={"edges": (0.0, 0.4, 1.0)}))


def test_a_sum_is_asked_for_by_one_request():
    evaluate = EvaluateRequest(study=ONE, edges=(0.0, 0.5, 1.0), payload=TWO)
    common = {"study": ONE, "offer": offer(), "signature": "3" * 128, "payload": TWO}
    assert SumRequest(**common, train=train()).asked == train()
    assert SumRequest(**common, evaluate=evaluate).asked == evaluate
    for wrong in ({}, {"train": train(), "evaluate": evaluate}):
        with pytest.raises(ValidationError, match="one request"):
            SumRequest(**common, **wrong)
    content = SumRequest(**common, train=train(weight=0.5)).canonical()
    assert SumRequest.from_canonical(content).canonical() == content


def test_statements_of_as_many_members_as_there_may_be_fit_into_a_header():
    name, seal = "m" * 48, "3" * 128
    key = EpochKey(roster=ONE, epoch=ONE, id=name, mlkem="4" * 2368, x25519=ONE)
    exchange = KeyExchange(roster=ONE, epoch=ONE, sender=name, receiver=name, ek=ONE, ct="5" * 2336)
    masked = Masked(t=ONE, id=name, w=64, d=1 << 26, y=ONE)
    where = {"study": ONE, "attempt": 1000}
    for whole in (
        EpochKeys(**where, keys=(SignedEpochKey(message=key, signature=seal),) * MOST_MEMBERS),
        Exchanges(study=ONE, member=name, exchanges=(SignedExchange(message=exchange, signature=seal),) * MOST_MEMBERS),
        EpochExchanges(**where, exchanges=(SignedExchange(message=exchange, signature=seal),) * MOST_MEMBERS),
        SumReadies(
            **where,
            number=1_000_000,
            readies=(SignedReady(message=Ready(offer=ONE, id=name, nonce=ONE), signature=seal),) * MOST_MEMBERS,
        ),
        SumHeaders(**where, number=1, headers=(SignedMasked(message=masked, signature=seal),) * MOST_MEMBERS),
        SumAcks(
            **where, number=1, acks=(SignedAck(message=Ack(t=ONE, s=ONE, id=name), signature=seal),) * MOST_MEMBERS
        ),
        Reveal(t=ONE, id=name, b=ONE, pairs=(PairKey(id=name, key=ONE),) * MOST_MEMBERS),
    ):
        content = whole.canonical()
        assert len(content) < MAX_HEADER_BYTES
        assert type(whole).from_canonical(content) == whole
