"""Signed notes, against the definitions of signed-note, tlog-checkpoint and tlog-cosignature written out by hand."""

import base64
import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    MAX_SIZE,
    Checkpoint,
    Submission,
    cosign,
    dump_submission,
    gather,
    open_note,
    parse_note,
    parse_submission,
    sign_checkpoint,
)
from federation.signing import public_hex

LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BIRCH = Ed25519PrivateKey.from_private_bytes(b"birch".ljust(32, b"."))
CEDAR = Ed25519PrivateKey.from_private_bytes(b"cedar".ljust(32, b"."))
ORIGIN = "consilience/forest/alder"
NAME = "consilience/forest/birch"
CHECKPOINT = Checkpoint(ORIGIN, 17, hashlib.sha256(b"a tree").hexdigest())
TIME = 1_767_225_600
VECTOR = "e3da24d7ee52416f604bccf727649fc6b6bff2a32382c99cfd110e7fcc1a5868"
KEYS = {ORIGIN: public_hex(LOG), NAME: public_hex(BIRCH)}


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def by_hand() -> str:
    """A checkpoint with a cosignature, from the specifications' own sentences."""
    text = f"{ORIGIN}\n17\n{base64.b64encode(hashlib.sha256(b'a tree').digest()).decode()}\n"
    log_id = hashlib.sha256(ORIGIN.encode() + b"\x0a" + b"\x01" + raw(LOG)).digest()[:4]
    log_line = base64.b64encode(log_id + LOG.sign(text.encode())).decode()
    witness_id = hashlib.sha256(NAME.encode() + b"\x0a" + b"\x04" + raw(BIRCH)).digest()[:4]
    message = b"cosignature/v1\n" + f"time {TIME}\n".encode() + text.encode()
    timestamped = struct.pack(">Q", TIME) + BIRCH.sign(message)
    witness_line = base64.b64encode(witness_id + timestamped).decode()
    return f"{text}\n\u2014 {ORIGIN} {log_line}\n\u2014 {NAME} {witness_line}\n"


def note() -> str:
    return cosign(sign_checkpoint(LOG, CHECKPOINT), BIRCH, NAME, TIME)


def test_the_bytes_are_those_of_the_specifications():
    assert note() == by_hand()
    assert hashlib.sha256(by_hand().encode()).hexdigest() == VECTOR


def test_an_opened_note_says_who_signed_and_when():
    opened = open_note(note(), KEYS)
    assert (opened.checkpoint, opened.signers) == (CHECKPOINT, {ORIGIN})
    assert (opened.cosigners, opened.unknown) == ({NAME: TIME}, ())


def test_signatures_of_unknown_keys_are_kept_and_prove_nothing():
    opened = open_note(note(), {ORIGIN: public_hex(LOG)})
    assert opened.cosigners == {} and [line.name for line in opened.unknown] == [NAME]
    # another key under a known name has another id
    opened = open_note(note(), {ORIGIN: public_hex(LOG), NAME: public_hex(CEDAR)})
    assert opened.cosigners == {} and len(opened.unknown) == 1
    # signatures of any length, by any algorithm
    strange = note() + "\u2014 strange.example/x " + base64.b64encode(b"\0\0\0\1" + b"z" * 2420).decode() + "\n"
    assert open_note(strange, KEYS).cosigners == {NAME: TIME} and parse_note(strange).text == strange


def test_without_a_known_signature_a_note_is_refused():
    with pytest.raises(IntegrityError, match="CSL-F613"):
        open_note(note(), {"someone": public_hex(CEDAR)})


def test_one_key_signs_as_log_or_as_witness_and_never_as_both():
    """The ids differ, so that a cosignature is no statement of the log's."""
    opened = open_note(cosign(sign_checkpoint(LOG, CHECKPOINT), LOG, ORIGIN, TIME), KEYS)
    assert opened.signers == {ORIGIN} and opened.cosigners == {ORIGIN: TIME}
    lines = note().splitlines(keepends=True)
    assert open_note("".join(lines[:4] + lines[5:]), KEYS).signers == frozenset()


def test_a_witness_that_signs_again_replaces_its_signature():
    later = cosign(note(), BIRCH, NAME, TIME + 5)
    assert open_note(later, KEYS).cosigners == {NAME: TIME + 5} and len(parse_note(later).lines) == 2


def test_copies_of_a_note_are_gathered():
    bare = sign_checkpoint(LOG, CHECKPOINT)
    whole = gather(cosign(bare, CEDAR, "cedar", 5), [note(), bare])
    assert open_note(whole, {**KEYS, "cedar": public_hex(CEDAR)}).cosigners == {NAME: TIME, "cedar": 5}
    with pytest.raises(DocumentError, match="CSL-F611"):
        gather(bare, [sign_checkpoint(LOG, Checkpoint(ORIGIN, 18, CHECKPOINT.root))])


def test_one_key_does_not_sign_twice():
    twice = note() + note().split("\n")[-2] + "\n"
    with pytest.raises(DocumentError, match="CSL-F611"):
        open_note(twice, KEYS)


ORIGINS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="+"), min_size=1, max_size=30
)


@given(ORIGINS, st.integers(0, MAX_SIZE), st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1))
def test_every_checkpoint_comes_back(origin, size, head, time):
    checkpoint = Checkpoint(origin, size, head.hex())
    text = cosign(sign_checkpoint(LOG, checkpoint), BIRCH, "witness/" + origin, time)
    opened = open_note(text, {"witness/" + origin: public_hex(BIRCH), origin: public_hex(LOG)})
    assert parse_note(text).text == text and opened.checkpoint == checkpoint
    assert (opened.signers, dict(opened.cosigners)) == ({origin}, {"witness/" + origin: time})


@settings(max_examples=400)
@given(st.data())
def test_no_flipped_bit_survives(data):
    content = bytearray(note().encode())
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    try:
        opened = open_note(content.decode(), KEYS)
    except (ConsilienceError, UnicodeDecodeError):
        return
    # a changed name or id makes a signature unknown; what is left is of the very same head
    assert opened.checkpoint == CHECKPOINT and len(opened.unknown) == 1
    assert opened.signers | set(opened.cosigners) < {ORIGIN, NAME}


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for reader in (parse_note, parse_submission):
        try:
            reader(text)
        except DocumentError as error:
            assert error.code == "CSL-F611"


BODY = CHECKPOINT.body
LINE = f"\u2014 {ORIGIN} {base64.b64encode(b'1234' + b's' * 64).decode()}\n"
MALFORMED = {
    "empty": "",
    "no signature": BODY + "\n",
    "no blank line": BODY + LINE,
    "blank line twice": BODY + "\n\n" + LINE,
    "no end": BODY + "\n" + LINE[:-1],
    "something after": BODY + "\n" + LINE + "\n",
    "no origin": "\n17\n" + BODY.split("\n")[2] + "\n\n" + LINE,
    "origin with a space": BODY.replace("alder", "al der") + "\n" + LINE,
    "origin with a wide space": BODY.replace("alder", "al\u3000der") + "\n" + LINE,
    "origin with a plus": BODY.replace("alder", "al+der") + "\n" + LINE,
    "leading zero": BODY.replace("17", "017") + "\n" + LINE,
    "sign": BODY.replace("17", "+17") + "\n" + LINE,
    "other digits": BODY.replace("17", "\u0661\u0667") + "\n" + LINE,
    "too large": BODY.replace("17", str(MAX_SIZE + 1)) + "\n" + LINE,
    "short root": BODY.replace(BODY.split("\n")[2], base64.b64encode(b"short").decode()) + "\n" + LINE,
    "url-safe root": f"{ORIGIN}\n17\n{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}\n\n{LINE}",
    "root with loose bits": f"{ORIGIN}\n17\n{'A' * 42}B=\n\n{LINE}",
    "extension line": BODY + "extension\n\n" + LINE,
    "two lines": "\n".join(BODY.split("\n")[:2]) + "\n\n" + LINE,
    "carriage return": BODY.replace("\n", "\r\n") + "\n" + LINE,
    "tab": BODY.replace("alder", "al\tder") + "\n" + LINE,
    "hyphen for dash": BODY + "\n" + LINE.replace("\u2014", "-"),
    "two spaces": BODY + "\n" + LINE.replace(ORIGIN, ORIGIN + " "),
    "no name": BODY + "\n" + LINE.replace(ORIGIN + " ", ""),
    "signature of an id alone": BODY + "\n" + f"\u2014 {ORIGIN} {base64.b64encode(b'1234').decode()}\n",
    "signature not base64": BODY + "\n" + f"\u2014 {ORIGIN} ****\n",
    "lone surrogate": BODY.replace("alder", "\ud800") + "\n" + LINE,
    "too many signatures": BODY + "\n" + LINE * (MAX_SIGNATURES + 1),
    "too long": BODY + "\n" + f"\u2014 x {'A' * MAX_NOTE_BYTES}\n",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_notes_are_refused(text):
    with pytest.raises(DocumentError) as caught:
        parse_note(text)
    assert caught.value.code == "CSL-F611"


def test_sixteen_signatures_are_read():
    text = note()
    for number in range(16):
        text = cosign(text, CEDAR, f"witness-{number}", number)
    assert len(parse_note(text).lines) == 18


@pytest.mark.parametrize("length", [0, 8, 71, 73])
def test_a_cosignature_of_another_length_is_forged(length):
    line = parse_note(note()).lines[1]
    wrong = base64.b64encode(line.key_id + (line.value * 2)[:length]).decode() if length else None
    text = note().replace(line.text.split(" ")[2], wrong or base64.b64encode(line.key_id + b"x").decode())
    with pytest.raises(IntegrityError, match="CSL-F612"):
        open_note(text, KEYS)


def test_a_time_beyond_the_specifications_is_forged():
    time = (1 << 63).to_bytes(8, "big")
    message = f"cosignature/v1\ntime {1 << 63}\n{BODY}".encode()
    line = parse_note(note()).lines[1]
    forged = base64.b64encode(line.key_id + time + BIRCH.sign(message)).decode()
    with pytest.raises(IntegrityError, match="CSL-F612"):
        open_note(note().replace(line.text.split(" ")[2], forged), KEYS)
    for wrong in (-1, 1 << 63):
        with pytest.raises(DocumentError, match="CSL-F611"):
            cosign(note(), BIRCH, NAME, wrong)


def test_what_cannot_stand_in_a_note_is_not_signed():
    for origin in ("", "two words", "line\nbreak", "a+b"):
        with pytest.raises(DocumentError, match="CSL-F611"):
            sign_checkpoint(LOG, Checkpoint(origin, 1, CHECKPOINT.root))
    with pytest.raises(DocumentError, match="CSL-F611"):
        cosign(note(), BIRCH, "two words", 1)


@given(st.integers(0, MAX_SIZE), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_submission_comes_back(old, proof):
    submission = Submission(old, tuple(proof), note())
    assert parse_submission(dump_submission(submission)) == submission


def test_a_submission_is_the_text_of_tlog_witness():
    node = bytes(range(32))
    expected = "old 5\n" + base64.b64encode(node).decode() + "\n\n" + note()
    assert dump_submission(Submission(5, (node,), note())) == expected
    assert dump_submission(Submission(0, (), note())) == "old 0\n\n" + note()
    assert parse_submission(note()) == Submission(0, (), note())


@pytest.mark.parametrize(
    "text",
    [
        "old 5\n" + note(),
        "old 05\n\n" + note(),
        "old -1\n\n" + note(),
        "old \n\n" + note(),
        "old 5\nAAAA\n\n" + note(),
        "old 5\n" + (base64.b64encode(bytes(32)).decode() + "\n") * 64 + "\n" + note(),
        "old 5\n\n",
    ],
)
def test_malformed_submissions_are_refused(text):
    with pytest.raises(DocumentError, match="CSL-F611"):
        parse_submission(text)
