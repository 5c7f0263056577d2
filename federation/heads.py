"""Heads of members' ledgers: whose they are, when one continues another, and the notes that a witness keeps.

A ledger's origin is `consilience/<federation>/<member>`. Each restore from a backup begins a new log, because what the backup lacks is
gone: `consilience/<federation>/<member>/<restores>`. Witnesses see that it happened, and never sign two histories under one origin.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from federation.charter import Charter
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.merkle import verify_consistency
from federation.note import MAX_NOTE_BYTES, Checkpoint, Note, OpenedNote, open_note, parse_note

_PREFIX = "consilience"
# A hyphen stands in no member's identifier.
_COORDINATOR = "the-coordinator"
_ORIGIN = re.compile(rf"{_PREFIX}/([a-z][a-z0-9_]{{0,47}})/([a-z][a-z0-9_]{{0,47}})(?:/([1-9][0-9]{{0,5}}))?", re.ASCII)


@dataclass(frozen=True)
class Head:
    """A member's tree head that its ledger signed: `generation` counts restores, `root` is 64 hexadecimal digits.

    `text` is the note, with the signatures that were verified. `cosigners` are the names of others in the federation that witnessed it,
    with the time of each (POSIX seconds).
    """

    member: str
    generation: int
    size: int
    root: str
    text: str
    cosigners: Mapping[str, int] = field(default_factory=dict)

    def is_tree_of(self, other: "Head") -> bool:
        """Return whether both are of the same tree, whoever cosigned them."""
        return (self.generation, self.size, self.root) == (other.generation, other.size, other.root)


def origin_of(federation: str, member: str, generation: int = 0) -> str:
    """Return the origin of a member's ledger after `generation` restores; without a generation, the member's name as a witness."""
    return f"{_PREFIX}/{federation}/{member}" + (f"/{generation}" if generation else "")


def coordinator_name(federation: str) -> str:
    """Return the coordinator's name as a witness."""
    return origin_of(federation, _COORDINATOR)


def witness_keys(charter: Charter) -> dict[str, str]:
    """Return name -> public key of everybody in the charter who may cosign: the members and the coordinator."""
    names = {origin_of(charter.federation, member.id): member.key for member in charter.members}
    return {**names, coordinator_name(charter.federation): charter.coordinator_key}


def subject_of(checkpoint: Checkpoint, federation: str) -> tuple[str, int]:
    """Return whose ledger it is, member and generation.

    Raises
    ------
    IntegrityError
        CSL-F614 when the origin is no ledger of this federation.
    """
    match = _ORIGIN.fullmatch(checkpoint.origin)
    if match is None or match[1] != federation:
        raise IntegrityError(
            "CSL-F614", "The note's origin is no ledger of this federation.", "Check whose note it is, and its charter."
        )
    return match[2], int(match[3] or 0)


def open_head(text: str, charter: Charter, *, key: str | None = None) -> Head:
    """Verify a note by the charter: signed by its member's ledger; cosignatures of others in the charter count, unknown ones do not.

    Parameters
    ----------
    text, charter:
        The note, and the charter that names the keys.
    key:
        The ledger's key, where it is another than the charter's: one from before a rotation.

    Raises
    ------
    DocumentError
        CSL-F611 for a malformed note.
    IntegrityError
        CSL-F203 for an unknown member, CSL-F612 for a signature that does not fit, CSL-F613 when the ledger's own is missing, CSL-F614
        for another federation's note.
    """
    note = parse_note(text)
    member, generation = subject_of(note.checkpoint, charter.federation)
    origin = note.checkpoint.origin
    public = key or charter.member(member).key
    opened = open_note(text, {**witness_keys(charter), origin: public})
    if origin not in opened.signers:
        raise IntegrityError(
            "CSL-F613", f"The note is not signed by the ledger of {member}.", "Check whose note it is, and its charter."
        )
    own = origin_of(charter.federation, member)
    others = {name: time for name, time in opened.cosigners.items() if name not in (own, origin)}
    # What unknown keys signed is not passed on: it would only let a note grow.
    known = Note(note.checkpoint, tuple(line for line in note.lines if line not in opened.unknown))
    return Head(member, generation, note.checkpoint.size, note.checkpoint.root, known.text, others)


def cosignature_of(text: str, charter: Charter, name: str) -> OpenedNote:
    """Verify that a note carries the cosignature of `name`, and return what it says. Raises as `open_head`."""
    opened = open_note(text, {name: witness_keys(charter)[name]})
    if name not in opened.cosigners:
        raise IntegrityError("CSL-F613", f"The note lacks the cosignature of {name}.", "Ask that witness for it again.")
    return opened


def check_order(kept: Head | None, new: Head) -> None:
    """Check that a head is not older than the one that a witness keeps, and no other history of the same size.

    Parameters
    ----------
    kept:
        The last head of this member that the witness signed; None before its first.
    new:
        The head that it is asked to sign, verified.

    Raises
    ------
    IntegrityError
        CSL-F615 when it is older than the kept one, CSL-F616 when both have one size and different roots, which only a ledger that was
        written anew can sign.
    """
    if kept is None:
        return
    size = held_size(kept, new.generation)
    if new.generation < kept.generation or new.size < size:
        raise IntegrityError(
            "CSL-F615",
            f"The head of {new.member} is older than one that was witnessed before.",
            "Ask the institution whether its ledger was restored from a backup.",
        )
    if new.generation == kept.generation and new.size == size and new.root != kept.root:
        raise IntegrityError(
            "CSL-F616",
            f"The ledger of {new.member} signed two histories of {new.size} entries.",
            "Keep both notes: they prove that the ledger was written anew. Tell the federation's members.",
        )


def check_proof(kept: Head | None, new: Head, old: int, proof: Sequence[bytes]) -> None:
    """Check that a head continues the kept one, by the RFC 6962 proof from the tree of `old` entries.

    Nothing is to be proved, and `old` is 0, for the first head of a log.

    Raises
    ------
    IntegrityError
        CSL-F617 when the proof begins at another size than the kept head's, or does not fit.
    """
    size = held_size(kept, new.generation)
    if kept is None or size == 0:
        fits = not proof
    else:
        fits = verify_consistency(old, new.size, bytes.fromhex(kept.root), bytes.fromhex(new.root), proof)
    if old != size or not fits:
        raise IntegrityError(
            "CSL-F617",
            f"No proof was given that the head of {new.member} continues the one that was witnessed before.",
            "Ask the institution for a proof from that size, and verify its ledger when it has none.",
        )


def held_size(kept: Head | None, generation: int) -> int:
    """Return the size that a proof must begin at: the kept head's, or 0 where none of this generation is kept."""
    return kept.size if kept is not None and kept.generation == generation else 0


class HeadShelf:
    """The last note of each member that a witness keeps: `<member>.note` in one folder, written before a cosignature is given away.

    Comparing and keeping belong into one `with shelf.locked()`.

    Raises (all methods)
    --------------------
    StorageError
        CSL-F301 when a note cannot be written, CSL-F618 when it cannot be read.
    """

    def __init__(self, folder: Path, federation: str) -> None:
        self._folder = folder
        self._federation = federation

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from comparing and writing at the same time."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unreadable(self._folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def last(self, member: str) -> Head | None:
        """Return the last head of a member that was kept, or None. It was verified before it was kept.

        Raises
        ------
        IntegrityError
            CSL-F619 when the file is damaged or another's: a witness that forgot what it signed signs nothing.
        """
        path = self._path(member)
        try:
            content = path.read_bytes() if path.exists() else None
        except OSError as error:
            raise _unreadable(path, error) from error
        return None if content is None else self._head(path, member, content)

    def keep(self, head: Head) -> None:
        """Keep a head in place of the member's last one; the last of an earlier generation stays beside it."""
        known = self.last(head.member)
        if known is not None and known.generation != head.generation:
            self._write(self._folder / f"{head.member}.{known.generation}.note", known.text)
        self._write(self._path(head.member), head.text)

    def keep_conflict(self, head: Head) -> None:
        """Keep a head that contradicts the last one, as evidence beside it; the first that was found stays."""
        path = self._folder / f"{head.member}.conflict.note"
        if not path.exists():
            self._write(path, head.text)

    def members(self) -> tuple[str, ...]:
        """Return the members of whom a head is kept, sorted."""
        names = (path.name.removesuffix(".note") for path in self._folder.glob("*.note"))
        return tuple(sorted(name for name in names if "." not in name))

    def _path(self, member: str) -> Path:
        return self._folder / f"{member}.note"

    def _write(self, path: Path, text: str) -> None:
        atomic_write(path, text.encode(), 0o600)

    def _head(self, path: Path, member: str, content: bytes) -> Head:
        try:
            checkpoint = parse_note(content.decode("utf-8")).checkpoint
            whose, generation = subject_of(checkpoint, self._federation)
        except (DocumentError, IntegrityError, UnicodeDecodeError) as error:
            raise _damaged(path) from error
        if whose != member:
            raise _damaged(path)
        return Head(member, generation, checkpoint.size, checkpoint.root, content.decode())


def posix_now() -> int:
    """Return the time in whole seconds since 1970, as a witness signs it."""
    return int(time.time())


def read_note(path: Path) -> str:
    """Return a note's file as text.

    Raises
    ------
    StorageError
        CSL-F618 when it cannot be read.
    DocumentError
        CSL-F611 when it is too large or no text.
    """
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_NOTE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(
            "CSL-F611", f"{path} is no note: it is not UTF-8 text.", "Ask its sender for it again."
        ) from error


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError("CSL-F618", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights.")


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        "CSL-F619", f"{path} is damaged: it is no note of its member.", "Restore it from a backup of the home folder."
    )
