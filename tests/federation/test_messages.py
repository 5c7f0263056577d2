import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from federation.encoding import sha256_hex
from federation.errors import DocumentError, IntegrityError
from federation.messages import (
    RECORD,
    Grant,
    HeadRequest,
    Hello,
    LedgerHead,
    TrainRelease,
    dump_tensors,
    pack,
    read_tensors,
    signature_of,
    unpack,
)
from federation.signing import public_hex

from .conftest import key_of

KEY = key_of("alder")
PUBLIC = public_hex(KEY)
HELLO = Hello(charter="0" * 64, nonce="1" * 32)


def release(payload: bytes) -> TrainRelease:
    return TrainRelease(study="0" * 64, member="alder", round=1, payload=sha256_hex(payload))


def test_a_message_arrives_as_it_was_sent():
    assert unpack(pack(KEY, release(b"abc"), b"abc"), TrainRelease, PUBLIC) == (release(b"abc"), b"abc")


def altered(records: RecordDict, **fields: bytes) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord({**records[RECORD], **fields})})


def test_an_altered_header_payload_or_signature_is_refused():
    records = pack(KEY, release(b"abc"), b"abc")
    with pytest.raises(IntegrityError, match="CSL-F209"):
        unpack(altered(records, payload=b"abd"), TrainRelease, PUBLIC)
    with pytest.raises(IntegrityError, match="CSL-F202"):
        unpack(altered(records, header=release(b"abd").canonical()), TrainRelease, PUBLIC)
    with pytest.raises(IntegrityError, match="CSL-F202"):
        unpack(altered(records, signature=b"\0" * 64), TrainRelease, PUBLIC)


def test_a_message_signed_as_one_kind_does_not_pass_as_another():
    with pytest.raises(IntegrityError, match="CSL-F202"):
        unpack(pack(KEY, HELLO), Grant, PUBLIC)


def test_a_payload_beside_a_message_that_has_none_is_refused():
    with pytest.raises(IntegrityError, match="CSL-F209"):
        unpack(altered(pack(KEY, HELLO), payload=b"smuggled"), Hello, PUBLIC)


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({RECORD: ConfigRecord({"header": "text", "signature": b"", "payload": b""})}),
        RecordDict({RECORD: ConfigRecord({"header": b"", "signature": b"", "payload": b""})}),
        RecordDict({RECORD: pack(KEY, HELLO)[RECORD], "more": ConfigRecord({"x": 1})}),
        RecordDict({RECORD: ConfigRecord({**pack(KEY, HELLO)[RECORD], "more": 1})}),
    ],
)
def test_malformed_records_are_refused(records):
    with pytest.raises(IntegrityError, match="CSL-F208"):
        unpack(records, Hello, PUBLIC)


def test_a_payload_beyond_its_size_is_refused(monkeypatch):
    monkeypatch.setattr("federation.messages.MAX_PAYLOAD_BYTES", 3)
    assert unpack(pack(KEY, release(b"abc"), b"abc"), TrainRelease, PUBLIC)[1] == b"abc"
    with pytest.raises(IntegrityError, match="CSL-F208"):
        unpack(pack(KEY, release(b"abcd"), b"abcd"), TrainRelease, PUBLIC)


def test_a_signed_header_that_is_not_canonical_is_refused():
    from federation.signing import sign_bytes

    content = b" " + HELLO.canonical()
    value = bytes.fromhex(sign_bytes(KEY, "csl1/hello", content).value)
    records = RecordDict({RECORD: ConfigRecord({"header": content, "signature": value, "payload": b""})})
    with pytest.raises(DocumentError, match="CSL-F102"):
        unpack(records, Hello, PUBLIC)


def test_the_signature_of_a_message_can_be_passed_on():
    records = pack(KEY, HELLO)
    assert signature_of(records, PUBLIC).key == PUBLIC


tensors = st.dictionaries(
    st.text("abc.", min_size=1, max_size=6),
    arrays(np.float32, array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6, width=32)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=50)
@given(tensors)
def test_tensors_round_trip_by_name_shape_and_dtype(values):
    expected = {name: (value.shape, "float32") for name, value in values.items()}
    content = dump_tensors(values)
    back = read_tensors(content, expected)
    assert all(np.array_equal(back[name], values[name]) for name in values)
    assert dump_tensors(dict(reversed(list(values.items())))) == content


WEIGHTS = {"linear.weight": np.zeros((1, 3), np.float32), "linear.bias": np.zeros(1, np.float32)}
SHAPES = {name: (value.shape, "float32") for name, value in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "CSL-F205"),
        (b"\xff" * 40, "CSL-F205"),
        (dump_tensors({**WEIGHTS, "extra": np.zeros(1, np.float32)}), "CSL-F206"),
        (dump_tensors({"linear.weight": WEIGHTS["linear.weight"]}), "CSL-F206"),
        (dump_tensors({**WEIGHTS, "linear.weight": np.zeros((3, 1), np.float32)}), "CSL-F206"),
        (dump_tensors({**WEIGHTS, "linear.weight": np.zeros((1, 3), np.float64)}), "CSL-F206"),
        (dump_tensors({**WEIGHTS, "linear.bias": np.array([np.nan], np.float32)}), "CSL-F207"),
        (dump_tensors({**WEIGHTS, "linear.bias": np.array([np.inf], np.float32)}), "CSL-F207"),
    ],
)
def test_wrong_tensors_are_refused(content, code):
    with pytest.raises(IntegrityError, match=code):
        read_tensors(content, SHAPES)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_tensors(content):
    with pytest.raises(IntegrityError, match="CSL-F20"):
        read_tensors(content, SHAPES)


def test_what_witnesses_write_arrives_and_is_bounded():
    answer = LedgerHead(member="alder", nonce="1" * 32, note="a note\n\u2014 signed\n", proof=("0" * 64,))
    assert unpack(pack(KEY, answer), LedgerHead, PUBLIC) == (answer, b"")
    hello = HELLO.model_copy(update={"note": "a note"})
    assert unpack(pack(KEY, hello), Hello, PUBLIC)[0].note == "a note" and HELLO.note is None
    for wrong in ({"proof": ("0" * 64,) * 65}, {"proof": ("0" * 63,)}, {"note": ""}, {"note": "a" * (1 << 18)}):
        with pytest.raises(ValueError, match="LedgerHead"):
            LedgerHead(**{**answer.model_dump(), **wrong})
    for size in (-1, 1 << 53):
        with pytest.raises(ValueError, match="HeadRequest"):
            HeadRequest(nonce="1" * 32, old=size)
