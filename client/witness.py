"""The vault as a witness, and before its own: it signs its ledger's heads, compares what comes back, and cosigns other members' heads.

What the institution's ledger once signed must always be its beginning: `witness/own.note` holds the newest of its heads that came back from
others. A ledger that is smaller, or another one, was restored from an old copy or written anew, and the vault stays locked. Nobody else
can lock it: a note counts only under the vault's own signature, and a vault signs no head that its ledger does not go on from.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.home import Home
from federation.charter import Charter
from federation.errors import DocumentError, IntegrityError, PolicyError
from federation.files import atomic_write
from federation.heads import (
    Head,
    HeadShelf,
    check_order,
    check_proof,
    held_size,
    open_head,
    origin_of,
    posix_now,
    read_note,
    subject_of,
    witness_keys,
)
from federation.merkle import Proof, consistency_proof, tree_root
from federation.messages import (
    Cosignature,
    CosignedNote,
    CosignRequest,
    HeadRequest,
    LedgerHead,
    NoteKept,
    pack,
    unpack,
)
from federation.note import Checkpoint, Submission, cosign, gather, parse_note, sign_checkpoint
from privacy.ledger.state import State

logger = logging.getLogger("consilience.vault")
OWN, CONFLICT = "own.note", "conflict.note"


class ReadableLog(Protocol):
    """What a comparison with kept heads needs of the ledger."""

    def state(self) -> State:
        """Return the running totals: size, frontier, keys, restorations."""

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield leaf hashes in order."""


class Log(ReadableLog, Protocol):
    """What a witness needs of the ledger."""

    def witnessed(self, size: int, root: str, witnesses: Sequence[str]) -> None:
        """Write down that others countersigned the ledger's head."""


class Witness:
    """One vault's side of witnessing; every method may be repeated.

    Raises (all methods)
    --------------------
    StorageError
        CSL-F301, CSL-F618 when a note cannot be written or read.
    IntegrityError
        CSL-C532, CSL-C533 once the ledger was found to be an older copy or another one: then nothing is answered any more.
    """

    def __init__(
        self,
        home: Home,
        ledger: Log,
        charter: Charter,
        identity: Ed25519PrivateKey,
        member: str,
        now: Callable[[], int] = posix_now,
    ) -> None:
        self._folder = home.folder("witness")
        self._shelf = HeadShelf(home.folder("witness") / "others", charter.federation)
        self._ledger = ledger
        self._charter = charter
        self._identity = identity
        self._member = member
        self._now = now
        self._compared: str | None = None
        self._locked: IntegrityError | None = None

    def check_start(self) -> None:
        """Compare the ledger with the heads that were kept of it.

        Raises
        ------
        IntegrityError
            CSL-C531 when a kept note is damaged, CSL-C532 when the ledger is smaller than it, CSL-C533 when it is another one.
        """
        check_kept(self._folder, self._ledger, self._charter, self._member)

    @property
    def locked(self) -> bool:
        """Whether the ledger was found to be an older copy or another one; then nothing is to be written into it either."""
        return self._locked is not None

    def check_open(self) -> None:
        """Refuse while the ledger is known to be an older copy or another one."""
        if self._locked is not None:
            raise self._locked

    def compare(self, note: str | None) -> bool:
        """Compare the ledger with a head of it that somebody else kept; return whether it is one that this ledger signed.

        What this ledger's keys did not sign says nothing about it, and is passed over. A head that the ledger does not go on from is kept,
        so that the vault stays locked when it is started again.

        Raises
        ------
        IntegrityError
            CSL-C532, CSL-C533 as `check_start`.
        """
        self.check_open()
        if note is None or note == self._compared:
            return note is not None
        head = self._own(note)
        if head is None:
            logger.warning("a note was sent as this ledger's head that this ledger did not sign; it is passed over")
            return False
        try:
            _check(self._ledger, head)
        except IntegrityError as error:
            self._locked = error
            logger.critical("the vault is locked: %s", error)
            atomic_write(self._folder / CONFLICT, head.text.encode(), 0o600)
            raise
        self._keep_own(head)
        self._compared = note
        return True

    def head(self, request: RecordDict) -> RecordDict:
        """Answer `query.head`: today's signed head, or one of an earlier size, and the proof from the size that was asked for.

        Raises
        ------
        PolicyError
            CSL-C534 for a size that the ledger does not have.
        """
        header, _ = unpack(request, HeadRequest, self._charter.coordinator_key)
        note, proof = self.prove(header.old, header.size)
        hashes = tuple(node.hex() for node in proof)
        return pack(self._identity, LedgerHead(member=self._member, nonce=header.nonce, note=note, proof=hashes))

    def cosign(self, request: RecordDict) -> RecordDict:
        """Answer `query.cosign`: witness another member's head, if it continues the last one that was witnessed here.

        Raises
        ------
        IntegrityError
            CSL-C535 when the note is not the subject's, CSL-F615 to CSL-F617 as `witness`.
        """
        header, _ = unpack(request, CosignRequest, self._charter.coordinator_key)
        head = open_head(header.note, self._charter)
        if head.member != header.subject:
            raise _not_theirs()
        note, held = self._witness(head, header.old, tuple(bytes.fromhex(node) for node in header.proof))
        answer = Cosignature(member=self._member, subject=header.subject, held=held, note=note)
        return pack(self._identity, answer)

    def keep(self, request: RecordDict) -> RecordDict:
        """Answer `query.cosigned`: keep the ledger's own head with its witnesses' signatures, and write them into the ledger.

        Raises
        ------
        IntegrityError
            CSL-C536 when it is no head of this ledger.
        """
        header, _ = unpack(request, CosignedNote, self._charter.coordinator_key)
        head = self.keep_own(header.note)
        return pack(self._identity, NoteKept(member=self._member, size=head.size))

    def keep_own(self, note: str) -> Head:
        """Keep a head of this ledger that others cosigned, and write into the ledger who did. Raises as `keep` and `compare`."""
        self.check_open()
        before = self.own()
        head = self._own(note)
        if head is None or not self.compare(note):
            raise IntegrityError(
                "CSL-C536", "The note is no head that this ledger signed.", "Ask for the note of this institution."
            )
        if head.size and head.cosigners and self._is_news(before, head):
            keys = witness_keys(self._charter)
            self._ledger.witnessed(head.size, head.root, [f"{name} {keys[name]}" for name in sorted(head.cosigners)])
        return head

    def own(self) -> Head | None:
        """Return the newest head of this ledger that came back from others, or None. Raises CSL-C531 when it is damaged."""
        return _kept(self._folder / OWN, self._charter, self._member)

    def size_in(self, note: str) -> int:
        """Return the size that a note of this ledger names, from which a proof to today's head begins; 0 for a log before a restoration."""
        head = self._own(note)
        return held_size(head, self._ledger.state().restores)

    def prove(self, old: int = 0, size: int | None = None) -> tuple[str, Proof]:
        """Return the signed note of the ledger's head, today's or that of an earlier `size`, and the proof from `old` entries.

        Reads the leaves once when `old` is neither 0 nor the size, and once more for an earlier size. Raises CSL-C534 as `head`.
        """
        self.check_open()
        state = self._ledger.state()
        wanted = state.size if size is None else size
        if not old <= wanted <= state.size:
            raise PolicyError(
                "CSL-C534",
                f"A proof from {old} to {wanted} entries was asked for; the ledger has {state.size}.",
                "Ask for sizes that its notes name. A ledger with fewer entries than its note was cut off: verify it.",
            )
        checkpoint = Checkpoint(self._origin(state), wanted, _root(self._ledger, state, wanted))
        return sign_checkpoint(self._identity, checkpoint), consistency_proof(
            self._ledger.leaves(0, wanted), old, wanted
        )

    def witness(self, submission: Submission) -> str:
        """Cosign another member's head that came as a file; return the note with this vault's signature.

        Raises
        ------
        IntegrityError
            CSL-C535 when it is this ledger's own, CSL-F615 when it is older than the last that was witnessed, CSL-F616 when it contradicts
            that one (the contradicting note is kept), CSL-F617 without a proof from that one's size.
        """
        head = open_head(submission.note, self._charter)
        note, held = self._witness(head, submission.old, submission.proof)
        if note is None:
            raise IntegrityError(
                "CSL-C537",
                f"The proof begins at {submission.old} entries; this witness keeps a head of {head.member} with {held}.",
                "Ask that institution for a proof from that size: consilience officer consistency.",
            )
        return note

    def others(self) -> tuple[Head, ...]:
        """Return the last witnessed head of each other member, by name."""
        heads = (self._shelf.last(member) for member in self._shelf.members())
        return tuple(head for head in heads if head is not None)

    def _witness(self, head: Head, old: int, proof: Proof) -> tuple[str | None, int]:
        """Return the cosigned note, kept before it is given away; None with the size to prove from where `old` is another."""
        self.check_open()
        if head.member == self._member:
            raise _not_theirs()
        with self._shelf.locked():
            kept = self._shelf.last(head.member)
            held = held_size(kept, head.generation)
            try:
                check_order(kept, head)
            except IntegrityError as error:
                if error.code == "CSL-F616":
                    self._shelf.keep_conflict(head)
                raise
            if old != held:
                return None, held
            check_proof(kept, head, old, proof)
            name = origin_of(self._charter.federation, self._member)
            note = cosign(head.text, self._identity, name, self._now())
            self._shelf.keep(replace(head, text=note))
        return note, head.size

    def _origin(self, state: State) -> str:
        return origin_of(self._charter.federation, self._member, state.restores)

    def _own(self, note: str) -> Head | None:
        """Return a note as a head of this ledger, signed by its present key or an earlier one; None when it is none."""
        for item in reversed(self._ledger.state().keys):
            try:
                head = open_head(note, self._charter, key=item.key)
            except (IntegrityError, DocumentError):
                continue
            if head.member == self._member:
                return head
        return None

    def _keep_own(self, head: Head) -> None:
        """Keep a head unless a newer one is kept; another copy of the same head adds its signatures."""
        with self._shelf.locked():
            known = self.own()
            if known is not None and (known.generation, known.size) > (head.generation, head.size):
                return
            text = gather(known.text, [head.text]) if known is not None and known.is_tree_of(head) else head.text
            atomic_write(self._folder / OWN, text.encode(), 0o600)

    def _is_news(self, before: Head | None, head: Head) -> bool:
        """Return whether the ledger should hear of it: never of a head whose only new entry says that the last one was witnessed."""
        if before is None or before.generation != head.generation:
            return True
        known = self._own(before.text) if before.is_tree_of(head) else None
        return head.size > before.size + 1 or (known is not None and not set(head.cosigners) <= set(known.cosigners))


def check_kept(folder: Path, ledger: ReadableLog, charter: Charter, member: str) -> None:
    """Compare a member's ledger with the heads of it that were kept in a folder; changes nothing. Raises as `Witness.check_start`."""
    for name in (OWN, CONFLICT):
        head = _kept(folder / name, charter, member)
        if head is not None:
            _check(ledger, head)


def _check(ledger: ReadableLog, head: Head) -> None:
    """Check that a ledger goes on from a head that it signed; heads from before a restoration with losses are of another log."""
    state = ledger.state()
    if head.generation < state.restores:
        return
    if head.generation > state.restores or head.size > state.size:
        raise IntegrityError(
            "CSL-C532",
            f"The ledger has {state.size} entries; others keep a head of it with {head.size}: it is an older copy.",
            "Put the newest ledger back, or restore from the backup by consilience officer restore.",
        )
    if _root(ledger, state, head.size) != head.root:
        raise IntegrityError(
            "CSL-C533",
            f"The ledger's first {head.size} entries are not those whose head others keep: it is another one.",
            "Put the right ledger back, or restore from a backup by consilience officer restore.",
        )


def _root(ledger: ReadableLog, state: State, size: int) -> str:
    if size == state.size:
        return state.tree_root()
    return tree_root(ledger.leaves(0, size), size).hex()


def _kept(path: Path, charter: Charter, member: str) -> Head | None:
    """Read a note that was verified before it was kept."""
    if not path.exists():
        return None
    text = read_note(path)
    try:
        checkpoint = parse_note(text).checkpoint
        subject, generation = subject_of(checkpoint, charter.federation)
    except (IntegrityError, DocumentError) as error:
        raise _damaged(path) from error
    if subject != member:
        raise _damaged(path)
    return Head(member, generation, checkpoint.size, checkpoint.root, text)


def _not_theirs() -> IntegrityError:
    return IntegrityError(
        "CSL-C535",
        "The note is not the head of the member that is to be witnessed.",
        "A vault witnesses other members: check whose note it is.",
    )


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        "CSL-C531",
        f"{path} is damaged: it is no head of this ledger.",
        "Put the note back that the coordinator or another member keeps of this ledger.",
    )
