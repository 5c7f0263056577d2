"""Witnessing after a study: every vault's tree head is checked against the last one, cosigned here and by two other members, and returned.

The coordinator carries the notes and can lose them, and that is all: a witness signs by the proof that it is given, a vault keeps what
it signed itself. Who does not answer is reported and left out; nothing of this ever fails a study.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, RecordDict

from federation.charter import Charter
from federation.document import Document
from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.heads import (
    Head,
    HeadShelf,
    check_order,
    check_proof,
    coordinator_name,
    cosignature_of,
    held_size,
    open_head,
    origin_of,
    posix_now,
)
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
from federation.note import cosign, gather, parse_note
from server.events import LeftOut, OnEvent, Witnessed
from server.exchange import Answer, Failure
from server.grants import declined, unreadable

PHASE = "witness"
WITNESSES = 2
Ask = Callable[[Mapping[str, Message]], dict[str, Answer]]


def witnesses_of(member: str, present: Sequence[str]) -> tuple[str, ...]:
    """Return the two members that witness one: the next ones in the cyclic order of the sorted names of those present."""
    order = sorted(present)
    place = order.index(member)
    turned = order[place + 1 :] + order[:place]
    return tuple(turned[:WITNESSES])


@dataclass
class _Case:
    """One member's head on its way: what was kept before, the head with its cosignatures, and the proofs by their first size."""

    before: Head | None
    head: Head
    proofs: dict[int, tuple[str, ...]]
    witnesses: list[str] = field(default_factory=list)


class WitnessDesk:
    """The coordinator as a witness: the last head of each member, under its home, and the exchange after a study.

    Parameters
    ----------
    charter, key:
        The charter, and the coordinator's key that it names.
    folder:
        Where `<member>.note` lies; made when it is missing.
    now:
        POSIX seconds.
    """

    def __init__(
        self, charter: Charter, key: Ed25519PrivateKey, folder: Path, now: Callable[[], int] = posix_now
    ) -> None:
        self._charter = charter
        self._key = key
        self._shelf = HeadShelf(folder, charter.federation)
        self._now = now

    def note(self, member: str) -> str | None:
        """Return the last witnessed note of a member, for its `hello`; None where there is none that can be read."""
        try:
            head = self._shelf.last(member)
        except ConsilienceError:  # says nothing of the member, and is reported when its next head is asked for
            return None
        return None if head is None else head.text

    def run(self, nodes: Mapping[str, int], ask: Ask, nonce: Callable[[], str], on_event: OnEvent) -> None:
        """Ask everybody for the head of their ledger, have each witnessed, and return it; failures are told to `on_event`."""
        _Exchange(self, dict(nodes), ask, nonce, on_event).run()

    def last(self, member: str) -> Head | None:
        """Return the last head that was kept. Raises as `HeadShelf.last`."""
        return self._shelf.last(member)

    def take(self, member: str, reply: RecordDict, asked: HeadRequest) -> tuple[Head, tuple[str, ...], Head | None]:
        """Check a member's head against the last one, cosign and keep it; return it, its proof, and the one before.

        Raises
        ------
        IntegrityError, DocumentError
            When it is unsigned, another member's (CSL-S701), older, contradicts the last one (kept as evidence), or is not proved.
        StorageError
            When it cannot be kept: it is not cosigned then.
        """
        answer, head = self._read(member, reply, asked)
        with self._shelf.locked():
            before = self._shelf.last(member)
            try:
                check_order(before, head)
            except IntegrityError as error:
                if error.code == "CSL-F616":
                    self._shelf.keep_conflict(head)
                raise
            check_proof(before, head, asked.old, [bytes.fromhex(node) for node in answer.proof])
            text = cosign(head.text, self._key, coordinator_name(self._charter.federation), self._now())
            if before is not None and before.is_tree_of(head):
                text = gather(before.text, [text])
            head = replace(head, text=text)
            self._shelf.keep(head)
        return head, answer.proof, before

    def prove(self, member: str, reply: RecordDict, asked: HeadRequest, head: Head) -> tuple[str, ...]:
        """Return a member's proof from another size to a head that was taken; its own witness checks it. Raises as `take`."""
        answer, found = self._read(member, reply, asked)
        if not found.is_tree_of(head):
            raise _other_head()
        return answer.proof

    def add(self, head: Head, reply: RecordDict, witness: str) -> tuple[Head | None, int]:
        """Keep a witness's cosignature; return the head with it, or None and the size that the witness wants a proof from.

        Raises
        ------
        IntegrityError, DocumentError
            When the answer is unsigned, about another head (CSL-S701), or not cosigned by this witness.
        StorageError
            When it cannot be kept.
        """
        answer, _ = unpack(reply, Cosignature, self._charter.member(witness).key)
        if (answer.member, answer.subject) != (witness, head.member) or answer.held > head.size:
            raise _other_head()
        if answer.note is None:
            return None, answer.held
        name = origin_of(self._charter.federation, witness)
        cosignature_of(answer.note, self._charter, name)
        own = [line for line in parse_note(answer.note).lines if line.name == name]
        text = gather(head.text, [replace(parse_note(answer.note), lines=tuple(own)).text])
        whole = open_head(text, self._charter)
        with self._shelf.locked():
            last = self._shelf.last(head.member)
            # another study may have brought a newer head meanwhile
            if last is not None and last.is_tree_of(whole):
                self._shelf.keep(replace(whole, text=gather(last.text, [whole.text])))
        return whole, head.size

    def packed(self, header: Document) -> RecordDict:
        """Return a message of the coordinator's."""
        return pack(self._key, header)

    def key_of(self, member: str) -> str:
        """Return a member's public key."""
        return self._charter.member(member).key

    @property
    def federation(self) -> str:
        """The federation's name."""
        return self._charter.federation

    def _read(self, member: str, reply: RecordDict, asked: HeadRequest) -> tuple[LedgerHead, Head]:
        answer, _ = unpack(reply, LedgerHead, self._charter.member(member).key)
        head = open_head(answer.note, self._charter)
        if (answer.member, answer.nonce, head.member) != (member, asked.nonce, member):
            raise _other_head()
        return answer, head


class _Exchange:
    """One study's witnessing; whoever fails to answer once is asked nothing more, so that a node that hangs costs one deadline."""

    def __init__(
        self,
        desk: WitnessDesk,
        nodes: dict[str, int],
        ask: Ask,
        nonce: Callable[[], str],
        on_event: OnEvent,
    ) -> None:
        self._desk = desk
        self._nodes = nodes
        self._ask = ask
        self._nonce = nonce
        self._on_event = on_event
        self._cases: dict[str, _Case] = {}

    def run(self) -> None:
        """Collect heads, then cosignatures, and bring them home."""
        failed = self._collect({member: self._kept_size(member) for member in sorted(self._nodes)}, report=False)
        # A ledger that was restored begins a new log, and has nothing to prove; one that lies is found out again.
        self._collect(dict.fromkeys(failed, 0), report=True)
        present = sorted(self._cases)
        for turn in range(WITNESSES):
            pairs = {subject: witnesses_of(subject, present)[turn] for subject in present if turn < len(present) - 1}
            self._cosign(pairs)
        self._return()

    def _kept_size(self, member: str) -> int:
        try:
            head = self._desk.last(member)
        except ConsilienceError:
            return 0  # taking its new head fails on the same file, and reports it
        return head.size if head is not None else 0

    def _collect(self, sizes: Mapping[str, int], *, report: bool) -> list[str]:
        """Ask for heads with proofs from these sizes; return who should be asked for one without."""
        asked = {member: HeadRequest(nonce=self._nonce(), old=old) for member, old in sizes.items()}
        again: list[str] = []
        for member, answer in self._send("query.head", asked).items():
            failure = answer if isinstance(answer, Failure) else self._take(member, answer, asked[member])
            if failure is None:
                continue
            if report or sizes[member] == 0 or isinstance(answer, Failure):
                self._leave_out(member, failure)
            else:
                again.append(member)
        return again

    def _take(self, member: str, reply: RecordDict, asked: HeadRequest) -> Failure | None:
        if declined(reply, member, self._desk.key_of(member)):
            return Failure("CSL-S702", "declined to give its ledger's head; its reason stays with it")
        try:
            head, proof, before = self._desk.take(member, reply, asked)
        except ConsilienceError as error:
            return _failure(error)
        self._cases[member] = _Case(before, head, {asked.old: proof})
        return None

    def _cosign(self, pairs: Mapping[str, str]) -> None:
        """Ask each witness once, and those that keep another head a second time with the proof from theirs."""
        wanted = self._submit(pairs, {subject: self._guess(subject, witness) for subject, witness in pairs.items()})
        asked = {
            subject: HeadRequest(nonce=self._nonce(), old=old, size=self._cases[subject].head.size)
            for subject, old in wanted.items()
            if old not in self._cases[subject].proofs
        }
        for subject, answer in self._send("query.head", asked).items():
            failure = answer if isinstance(answer, Failure) else self._prove(subject, answer, asked[subject])
            if failure is not None:
                self._leave_out(subject, failure)
                wanted.pop(subject)
        self._submit({subject: pairs[subject] for subject in wanted}, wanted, last=True)

    def _guess(self, subject: str, witness: str) -> int:
        """Return the size that a witness most likely keeps: that of the last head, where its signature stands under it."""
        case = self._cases[subject]
        if case.before is None:
            return 0
        name = origin_of(self._desk.federation, witness)
        signed = any(line.name == name for line in parse_note(case.before.text).lines)
        size = held_size(case.before, case.head.generation)
        return size if signed and size in case.proofs else 0

    def _submit(self, pairs: Mapping[str, str], olds: Mapping[str, int], *, last: bool = False) -> dict[str, int]:
        """Ask witnesses for their signatures; return the sizes that they want proofs from, by subject."""
        asked = {
            witness: CosignRequest(
                subject=subject,
                note=self._cases[subject].head.text,
                old=olds[subject],
                proof=self._cases[subject].proofs.get(olds[subject], ()),
            )
            for subject, witness in pairs.items()
        }
        wanted: dict[str, int] = {}
        for witness, answer in self._send("query.cosign", asked).items():
            subject = asked[witness].subject
            held = answer if isinstance(answer, Failure) else self._add(subject, witness, answer)
            if isinstance(held, Failure):
                self._leave_out(witness, held)
            elif held is not None and last:
                self._leave_out(witness, Failure("CSL-S703", "asked for a proof from yet another size"))
            elif held is not None:
                wanted[subject] = held
        return wanted

    def _add(self, subject: str, witness: str, reply: RecordDict) -> int | Failure | None:
        case = self._cases[subject]
        if declined(reply, witness, self._desk.key_of(witness)):
            return Failure("CSL-S702", f"declined to witness the head of {subject}; its reason stays with it")
        try:
            head, held = self._desk.add(case.head, reply, witness)
        except ConsilienceError as error:
            return _failure(error)
        if head is None:
            return held
        case.head = head
        case.witnesses.append(witness)
        return None

    def _prove(self, subject: str, reply: RecordDict, asked: HeadRequest) -> Failure | None:
        if declined(reply, subject, self._desk.key_of(subject)):
            return Failure("CSL-S702", "declined to prove its ledger's head; its reason stays with it")
        try:
            self._cases[subject].proofs[asked.old] = self._desk.prove(subject, reply, asked, self._cases[subject].head)
        except ConsilienceError as error:
            return _failure(error)
        return None

    def _return(self) -> None:
        asked = {member: CosignedNote(note=case.head.text) for member, case in self._cases.items()}
        for member, answer in self._send("query.cosigned", asked).items():
            head = self._cases[member].head
            failure = answer if isinstance(answer, Failure) else self._receipt(member, answer, head)
            if failure is not None:
                self._leave_out(member, failure)
            self._on_event(Witnessed(member, head.size, tuple(self._cases[member].witnesses), failure is None))

    def _receipt(self, member: str, reply: RecordDict, head: Head) -> Failure | None:
        key = self._desk.key_of(member)
        if declined(reply, member, key):
            return Failure("CSL-S702", "declined to keep its witnessed head; its reason stays with it")
        try:
            kept, _ = unpack(reply, NoteKept, key)
        except (IntegrityError, DocumentError) as error:
            return unreadable(error)
        return None if (kept.member, kept.size) == (member, head.size) else unreadable(_other_head())

    def _send(self, message_type: str, asked: Mapping[str, Document]) -> dict[str, Answer]:
        """Ask members that answered so far, one message each."""
        messages = {
            member: Message(self._desk.packed(header), self._nodes[member], message_type)
            for member, header in asked.items()
            if member in self._nodes
        }
        answers = self._ask(messages) if messages else {}
        for member, answer in answers.items():
            if isinstance(answer, Failure):
                self._nodes.pop(member)
        return answers

    def _leave_out(self, member: str, failure: Failure) -> None:
        self._on_event(LeftOut(PHASE, 0, member, failure.code, failure.reason))


def _failure(error: ConsilienceError) -> Failure:
    """Return the failure for a head that is not accepted, or that could not be kept here; only our own code is shown."""
    if isinstance(error, IntegrityError | DocumentError):
        return Failure("CSL-S704", f"sent a head or signature that is not accepted ({error.code})")
    return Failure("CSL-S705", f"was not witnessed: its head cannot be kept here ({error.code})")


def _other_head() -> IntegrityError:
    return IntegrityError(
        "CSL-S701", "The answer is about another head, member or question.", "Ask again; it proves nothing."
    )
