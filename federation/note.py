"""Signed notes with a log's head, as witnesses exchange them: C2SP signed-note, tlog-checkpoint and tlog-cosignature, v1.0.0.

A note is three lines (origin, size, root in base64), a blank line, and one line for each signature: an em dash, the signer's name, and in
base64 the key's id and the signature. The log signs the text itself; a witness signs it under the time at which it saw it. Of the
formats this profile uses Ed25519 alone (signature types 0x01 and 0x04), and it allows no extension lines: a vault writes none, and what
a member could say there nobody would check.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from federation.errors import DocumentError, IntegrityError
from federation.merkle import HASH_BYTES, MAX_PROOF, Proof
from federation.signing import public_hex

MAX_NOTE_BYTES = 1 << 17
MAX_SIGNATURES = 64
MAX_SIZE = (1 << 53) - 1  # what the JSON of a message can carry
LOG_TYPE, COSIGNATURE_TYPE = 0x01, 0x04
_DASH = "\u2014"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_LAST_TIME = (1 << 63) - 1
_COSIGNATURE_BYTES = 8 + 64


@dataclass(frozen=True)
class Checkpoint:
    """A log's head: whose log, how many entries, and the Merkle root (64 hexadecimal digits)."""

    origin: str
    size: int
    root: str

    @property
    def body(self) -> str:
        """The text that is signed: three lines, each with its end."""
        return f"{self.origin}\n{self.size}\n{_encode(bytes.fromhex(self.root))}\n"


@dataclass(frozen=True)
class SignatureLine:
    """One signature of a note: name, 4 bytes of key id, and what the key's algorithm makes of the text."""

    name: str
    key_id: bytes
    value: bytes

    @property
    def text(self) -> str:
        """The line, without its end."""
        return f"{_DASH} {self.name} {_encode(self.key_id + self.value)}"


@dataclass(frozen=True)
class Note:
    """A well-formed note; nothing in it is verified yet."""

    checkpoint: Checkpoint
    lines: tuple[SignatureLine, ...]

    @property
    def text(self) -> str:
        """The whole note."""
        return self.checkpoint.body + "\n" + "".join(line.text + "\n" for line in self.lines)

    def with_lines(self, lines: Iterable[SignatureLine]) -> "Note":
        """Return the note with further signatures; one by the same name and key takes the earlier one's place."""
        new = {(line.name, line.key_id): line for line in lines}
        kept = [line for line in self.lines if (line.name, line.key_id) not in new]
        return Note(self.checkpoint, (*kept, *new.values()))


@dataclass(frozen=True)
class OpenedNote:
    """What a note's signatures by known keys say.

    `signers` are the names that signed the text itself, `cosigners` the witnesses with the time of each (POSIX seconds); `unknown` are the
    signatures by other keys, which prove nothing.
    """

    checkpoint: Checkpoint
    signers: frozenset[str]
    cosigners: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[SignatureLine, ...] = ()


@dataclass(frozen=True)
class Submission:
    """A note with the proof that it continues a tree of `old` entries: the body of tlog-witness's `add-checkpoint`."""

    old: int
    proof: Proof
    note: str


def key_id(name: str, kind: int, public: str) -> bytes:
    """Return SHA-256(name || 0x0A || type || public key)[:4], the id of a key (signed-note, tlog-cosignature)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + bytes.fromhex(public)).digest()[:4]


def sign_checkpoint(key: Ed25519PrivateKey, checkpoint: Checkpoint) -> str:
    """Return the note of a head with its log's own signature; the signer's name is the origin.

    Raises
    ------
    DocumentError
        CSL-F611 when origin, size or root cannot stand in a note.
    """
    line = SignatureLine(
        checkpoint.origin,
        key_id(checkpoint.origin, LOG_TYPE, public_hex(key)),
        key.sign(checkpoint.body.encode()),
    )
    return parse_note(Note(checkpoint, (line,)).text).text


def cosign(text: str, key: Ed25519PrivateKey, name: str, time: int) -> str:
    """Return the note with this witness's signature of `time` (POSIX seconds); an earlier one of its own is replaced.

    The caller has verified the note, and that it continues the last one that it cosigned.

    Raises
    ------
    DocumentError
        CSL-F611 for a malformed note, a name with a space or plus, or a time before 1970.
    """
    note = parse_note(text)
    if not _is_name(name) or not 0 <= time <= _LAST_TIME:
        raise _malformed("a witness has a name without spaces, and a time")
    signature = key.sign(_cosigned(note.checkpoint, time))
    line = SignatureLine(name, key_id(name, COSIGNATURE_TYPE, public_hex(key)), time.to_bytes(8, "big") + signature)
    return note.with_lines([line]).text


def gather(text: str, others: Iterable[str]) -> str:
    """Return the note with the signatures of other copies of it.

    Raises
    ------
    DocumentError
        CSL-F611 when one is malformed or is of another head.
    """
    note = parse_note(text)
    for other in map(parse_note, others):
        if other.checkpoint != note.checkpoint:
            raise _malformed("two notes of one head are to be merged, and they name different ones")
        note = note.with_lines(other.lines)
    return note.text


def open_note(text: str, keys: Mapping[str, str]) -> OpenedNote:
    """Verify every signature by a known key; signatures by others are left aside.

    Parameters
    ----------
    text:
        The note.
    keys:
        Name -> Ed25519 public key (64 hexadecimal digits); the same key serves for a log's own signatures and for cosignatures, which
        have different ids.

    Raises
    ------
    DocumentError
        CSL-F611 for a malformed note.
    IntegrityError
        CSL-F612 when a known key's signature does not fit, CSL-F613 when no known key signed.
    """
    note = parse_note(text)
    signers: set[str] = set()
    cosigners: dict[str, int] = {}
    unknown: list[SignatureLine] = []
    for line in note.lines:
        kind = _kind(line, keys)
        if kind is None:
            unknown.append(line)
        elif line.name in (signers if kind == LOG_TYPE else cosigners):
            raise _malformed("one key signed twice")
        elif kind == LOG_TYPE:
            _verify(keys[line.name], line.value, note.checkpoint.body.encode())
            signers.add(line.name)
        else:
            cosigners[line.name] = _verify_cosignature(keys[line.name], line.value, note.checkpoint)
    if not signers and not cosigners:
        raise IntegrityError(
            "CSL-F613", "The note is signed by no key that is known here.", "Check whose note it is, and its charter."
        )
    return OpenedNote(note.checkpoint, frozenset(signers), cosigners, tuple(unknown))


def parse_note(text: str) -> Note:
    """Read a note, byte for byte as the format asks for it; nothing is verified.

    Raises
    ------
    DocumentError
        CSL-F611 when it is malformed.
    """
    _check_characters(text)
    body, gap, signatures = text.rpartition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise _malformed("a blank line and signature lines, each with its end, must follow the text")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise _malformed(f"it has more than {MAX_SIGNATURES} signatures")
    return Note(_checkpoint(body + "\n"), tuple(map(_signature_line, lines)))


def dump_submission(submission: Submission) -> str:
    """Return a note with its proof as one text: `old` and the size, a base64 line for each hash, a blank line, the note."""
    hashes = "".join(_encode(node) + "\n" for node in submission.proof)
    return f"old {submission.old}\n{hashes}\n{submission.note}"


def parse_submission(text: str) -> Submission:
    """Read a note with its proof, or a note alone, which stands for a first one: `old` 0 and no proof.

    Raises
    ------
    DocumentError
        CSL-F611 when it is malformed.
    """
    head, gap, note = text.partition("\n\n")
    first, *hashes = head.split("\n")
    if not first.startswith("old "):
        return Submission(0, (), parse_note(text).text)
    if not gap or len(hashes) >= MAX_PROOF:
        raise _malformed("a size, at most 63 hashes and a blank line must stand before the note")
    proof = tuple(_decode(item, HASH_BYTES) for item in hashes)
    return Submission(_number(first.removeprefix("old ")), proof, parse_note(note).text)


def _check_characters(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _malformed("it is no Unicode text") from error
    if size > MAX_NOTE_BYTES:
        raise _malformed(f"it is larger than {MAX_NOTE_BYTES >> 10} KiB")
    if any(character < " " and character != "\n" for character in text):
        raise _malformed("it holds a control character")


def _checkpoint(body: str) -> Checkpoint:
    lines = body[:-1].split("\n")
    if len(lines) != 3:
        raise _malformed("its text must be three lines: origin, size, root")
    origin, size, head = lines
    if not _is_name(origin):
        raise _malformed("the origin must be a name without spaces")
    return Checkpoint(origin, _number(size), _decode(head, HASH_BYTES).hex())


def _signature_line(line: str) -> SignatureLine:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not _is_name(parts[1]):
        raise _malformed("a signature line is a dash, a name and a signature")
    content = _decode(parts[2])
    if len(content) <= 4:
        raise _malformed("a signature is shorter than its key's id")
    return SignatureLine(parts[1], content[:4], content[4:])


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE:
        raise _malformed("a size is a decimal number without leading zeroes")
    return int(text)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decode(text: str, count: int | None = None) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _malformed("a hash or signature is not base64") from error
    if _encode(content) != text or (count is not None and len(content) != count):
        raise _malformed("a hash or signature is not base64 of its length")
    return content


def _kind(line: SignatureLine, keys: Mapping[str, str]) -> int | None:
    """Return the signature's type where name and id are a known key's, or None."""
    public = keys.get(line.name)
    if public is None:
        return None
    kinds = (LOG_TYPE, COSIGNATURE_TYPE)
    return next((kind for kind in kinds if line.key_id == key_id(line.name, kind, public)), None)


def _cosigned(checkpoint: Checkpoint, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{checkpoint.body}".encode()


def _verify_cosignature(public: str, value: bytes, checkpoint: Checkpoint) -> int:
    time = int.from_bytes(value[:8], "big")
    if len(value) != _COSIGNATURE_BYTES or time > _LAST_TIME:
        raise _forged()
    _verify(public, value[8:], _cosigned(checkpoint, time))
    return time


def _verify(public: str, signature: bytes, content: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, content)
    except (InvalidSignature, ValueError) as error:
        raise _forged() from error


def _forged() -> IntegrityError:
    return IntegrityError(
        "CSL-F612", "A signature of the note does not fit its text.", "Do not use the note; ask its sender."
    )


def _malformed(what: str) -> DocumentError:
    return DocumentError("CSL-F611", f"The note is malformed: {what}.", "Ask its sender for it again.")
