"""Checking what a pack holds: every claim of the manifest is computed anew from the files, and the files from the entries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from hashlib import sha256
from itertools import islice, zip_longest
from typing import TypeVar

from client.evidence.archive import Files
from client.evidence.gather import LAST_DAY, Gathered
from client.evidence.manifest import (
    APPROVALS,
    AROUND,
    AROUND_PROOFS,
    CONSENTS,
    EDGES,
    EDGES_PROOFS,
    ENTRIES,
    MAX_START_BYTES,
    PROOFS,
    START,
    Manifest,
    approval_line,
    consent_line,
    extract_files,
    parse_entry_line,
    parse_proof_line,
)
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.merkle import leaf_hash, verify_consistency, verify_inclusion
from federation.signing import Signature, verify
from privacy.ledger import TreeHead
from privacy.ledger.audit import Audit, Findings
from privacy.ledger.entries import (
    MILLISECONDS_A_DAY,
    NO_ENTRY,
    ROTATION_CONTEXT,
    SIGNING_PREFIX,
    Approve,
    Body,
    Consent,
    Genesis,
    PolicyEntry,
    Restore,
    Rotate,
    parse,
)
from privacy.ledger.reader import signed
from privacy.ledger.state import EPOCH, KeySince, State
from privacy.policy import Policy

D = TypeVar("D", bound=Document)
Progress = Callable[[int], None]
"""Called after each entry with how many were read."""


class Tally:
    """The digest of a file that is never held as a whole."""

    def __init__(self) -> None:
        self._found = sha256()

    def add(self, line: bytes) -> None:
        """Add a line."""
        self._found.update(line)

    @property
    def digest(self) -> str:
        """The SHA-256 so far."""
        return self._found.hexdigest()


@dataclass
class Derived:
    """What files must hold that are written from entries: whole files by digest, and two lists that grow line by line."""

    whole: dict[str, str] = field(default_factory=dict)
    approvals: Tally = field(default_factory=Tally)
    consents: Tally = field(default_factory=Tally)

    def add(self, body: Body) -> None:
        """Take up an entry."""
        if isinstance(body, Approve):
            self.approvals.add(approval_line(body))
        elif isinstance(body, Consent):
            self.consents.add(consent_line(body))
        else:
            self.whole |= {name: sha256_hex(content) for name, content in extract_files(body).items()}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file that the entries ask for, by name."""
        lists = {APPROVALS: self.approvals.digest, CONSENTS: self.consents.digest}
        return self.whole | lists


@dataclass(frozen=True)
class Outside:
    """An entry outside the run: what it says, its bytes and its signature."""

    body: Body
    content: bytes
    signature: bytes


@dataclass(frozen=True)
class Checked:
    """A pack's ledger part after it was read: the facts for the report, the totals, and the open audit."""

    audit: Audit
    gathered: Gathered
    derived: Derived
    start: State
    keys: tuple[KeySince, ...]


class LedgerPart:
    """Reads the ledger part of a pack: context before, the run of entries, context after, proofs, heads, keys."""

    def __init__(self, files: Files, manifest: Manifest, findings: Findings, progress: Progress) -> None:
        self._files = files
        self._manifest = manifest
        self._findings = findings
        self._progress = progress
        self._root = bytes.fromhex(manifest.head.root)
        self._gathered = Gathered()
        self._derived = Derived()
        self._keys: tuple[KeySince, ...] = ()
        self._policy: tuple[str | None, Policy | None] = (None, None)
        self._losses = 0
        self._read = 0

    def run(self, audit_key: str) -> Checked:
        """Read everything; the caller closes the audit.

        Raises
        ------
        ConsilienceError
            When a file cannot be read as what it must be: then nothing that follows could be told.
        """
        start = self._start()
        audit = Audit(audit_key, start, self._findings)
        try:
            around = self._around()
            held = next(around, None)
            while held is not None and held.body.seq < self._manifest.first:
                self._before(held, audit)
                held = next(around, None)
            self._check_start(start)
            self._entries(audit)
            keys = self._after(audit, held, around)
            self._check_edges(start, keys)
            self._check_heads(audit)
            self._check_end(audit, keys, start)
        except BaseException:
            audit.close()
            raise
        return Checked(audit, self._gathered, self._derived, start, keys)

    def _add(self, code: str, seq: int | None, what: str, file: str = ENTRIES) -> None:
        self._findings.add(code, seq, what, file)

    def _start(self) -> State:
        """Return the totals before the first entry, held against what the context says of them."""
        if self._manifest.first == 0:
            return State()
        start = read_document(self._files, START, State, MAX_START_BYTES)
        if start.size != self._manifest.first or len(start.frontier) != start.size.bit_count():
            raise IntegrityError("CSL-C812", "The totals are for another entry than the first.", _ASK)
        return start

    def _check_start(self, start: State) -> None:
        """Hold the totals at the start against what the context says of them."""
        if self._manifest.first == 0:
            return
        told = (self._keys, *self._policy, self._losses, self._losses > 0)
        if told != (start.keys, start.policy_digest, start.policy, start.restores, start.exhausted):
            self._add("CSL-C812", None, "The totals do not agree with the entries of the context.", START)
        if start.member != self._manifest.member or start.head == NO_ENTRY:
            self._add("CSL-C812", None, "The totals are another institution's.", START)

    def _around(self) -> Iterator[Outside]:
        """Yield the context's entries, each with its number and proof checked."""
        last = -1
        for outside in self._outside(AROUND, AROUND_PROOFS):
            seq = outside.body.seq
            if seq <= last or self._manifest.first <= seq < self._manifest.end:
                self._add("CSL-C810", seq, "The entry stands out of order, or belongs to the extract.", AROUND)
            last = seq
            yield outside

    def _outside(self, entries: str, proofs: str) -> Iterator[Outside]:
        """Yield the entries of a file, each with its proof checked; none where the files are not there."""
        if entries not in self._files.names or proofs not in self._files.names:
            return
        for line, proof in zip_longest(self._files.lines(entries), self._files.lines(proofs)):
            if line is None or proof is None:
                self._add("CSL-C806", None, "There are not as many proofs as entries.", proofs)
                return
            content, signature = parse_entry_line(line)
            body = parse(content)
            self._check_proof(body.seq, leaf_hash(content), proof, proofs)
            yield Outside(body, content, signature)

    def _check_edges(self, start: State, keys: tuple[KeySince, ...]) -> None:
        """Check by the entries next to the run that it leaves out nothing of the days that the manifest names."""
        found = list(islice(self._outside(EDGES, EDGES_PROOFS), 3))
        if tuple(item.body.seq for item in found) != self._manifest.edges:
            self._add("CSL-C804", None, "The entries next to the extract are not there.", EDGES)
        until = self._manifest.until
        for item in found:
            seq, ts = item.body.seq, item.body.ts
            self._check_signature(item, next((key.key for key in reversed(keys) if key.seq <= seq), None), EDGES)
            if seq < self._manifest.first and (leaf_hash(item.content).hex(), ts) != (start.head, start.ts):
                self._add("CSL-C812", seq, "The totals do not follow this entry.", START)
            if seq >= self._manifest.end and (until is None or _day(ts) <= until):
                self._add("CSL-C804", seq, "The extract ends before the days that the manifest names.", EDGES)

    def _check_signature(self, outside: Outside, key: str | None, file: str = AROUND) -> None:
        if not signed(key or "0" * 64, SIGNING_PREFIX, outside.content, outside.signature):
            self._add("CSL-P615", outside.body.seq, "The signature is not the institution's over this body.", file)

    def _key_now(self) -> str | None:
        return self._keys[-1].key if self._keys else None

    def _rotate(self, body: Rotate, file: str) -> None:
        """Check a change of key outside the run, and follow it."""
        said = body.data.statement
        chained = self._keys and (said.old, said.seq, said.member) == (
            self._keys[-1].key,
            body.seq,
            self._manifest.member,
        )
        try:
            verify(Signature(key=said.new, value=body.data.accepted), ROTATION_CONTEXT, said, said.new)
        except IntegrityError:
            chained = False
        if not chained or said.prev != body.prev:
            self._add("CSL-C810", body.seq, "The change of key does not follow from the key before.", file)
        self._keys = (*self._keys, KeySince(seq=body.seq + 1, key=said.new))

    def _before(self, outside: Outside, audit: Audit) -> None:
        """Take up an entry of the context before the run, and follow the chain of keys."""
        body = outside.body
        if isinstance(body, Genesis) and body.seq == 0:
            self._keys = (KeySince(seq=0, key=body.data.key),)
        self._check_signature(outside, self._key_now())
        if isinstance(body, Rotate):
            self._rotate(body, AROUND)
        elif isinstance(body, PolicyEntry):
            self._policy = (body.data.sha256, body.data.policy)
        elif isinstance(body, Restore):
            self._losses += body.data.exhausts
        audit.recall(body)
        self._gathered.before(body)
        self._derived.add(body)

    def _entries(self, audit: Audit) -> None:
        """Read the run of entries with their proofs."""
        seq = self._manifest.first
        for line, proof in zip_longest(self._files.lines(ENTRIES), self._files.lines(PROOFS)):
            if line is None or proof is None:
                self._add("CSL-C806", seq, "There are not as many proofs as entries.", PROOFS)
                break
            content, signature = parse_entry_line(line)
            body = audit.entry(seq, content, signature)
            self._check_proof(seq, leaf_hash(content), proof, PROOFS)
            if body is not None:
                self._gathered.entry(body, audit.state)
                self._derived.add(body)
            seq += 1
            self._read += 1
            self._progress(self._read)
        if seq != self._manifest.end:
            self._add("CSL-C804", None, f"The extract ends at entry {seq}; the manifest says {self._manifest.end}.")
        self._gathered.end(audit.state)

    def _check_proof(self, seq: int, leaf: bytes, line: bytes, file: str) -> None:
        number, proof = parse_proof_line(line)
        if number != seq or not verify_inclusion(leaf, seq, self._manifest.head.size, proof, self._root):
            self._add("CSL-C806", seq, "The proof does not show that the entry is in the tree.", file)

    def _after(self, audit: Audit, held: Outside | None, around: Iterator[Outside]) -> tuple[KeySince, ...]:
        """Follow the changes of key after the run up to the ledger's head, and return all keys."""
        self._keys = audit.state.keys
        while held is not None:
            self._check_signature(held, self._key_now())
            if isinstance(held.body, Rotate) and held.body.seq >= self._manifest.end:
                self._rotate(held.body, AROUND)
            else:
                self._add("CSL-C810", held.body.seq, "The entry is no part of what the extract rests on.", AROUND)
            held = next(around, None)
        return self._keys

    def _check_heads(self, audit: Audit) -> None:
        """Hold the tree of the entries against the pack's head, and earlier heads against both."""
        head, end = self._manifest.head, self._manifest.end
        proven = {item.size: item for item in self._manifest.consistency}
        needed = {size for size in (self._manifest.first, end) if 0 < size < head.size}
        if not needed <= proven.keys() or len(proven) != len(self._manifest.consistency):
            self._add("CSL-C806", None, "The proof from the extract to the ledger's head is missing.", "manifest.json")
        if end == head.size and audit.head != TreeHead(end, head.root):
            self._add("CSL-C806", None, "The entries do not add up to the ledger's head.")
        for item in proven.values():
            old, proof = bytes.fromhex(item.root), tuple(map(bytes.fromhex, item.proof))
            if not verify_consistency(item.size, head.size, old, self._root, proof):
                what = f"The head over {item.size} entries is not shown to be the beginning of the pack's."
                self._add("CSL-C806", None, what, "manifest.json")
            found = audit.tree.root(item.size)
            if found is not None and found != old:
                what = f"The head over {item.size} entries is not that of these entries."
                self._add("CSL-C806", None, what, "manifest.json")

    def _check_end(self, audit: Audit, keys: tuple[KeySince, ...], start: State) -> None:
        manifest, state = self._manifest, audit.state
        if keys != manifest.keys:
            self._add("CSL-C804", None, "The keys are not those of the ledger.", "manifest.json")
        if manifest.as_of < state.ts or (manifest.end == manifest.head.size and manifest.as_of != state.ts):
            self._add("CSL-C804", None, "The time is not the ledger's.", "manifest.json")
        if state.member != manifest.member:
            self._add("CSL-C804", None, "The ledger is another institution's.", "manifest.json")
        self._check_range(start, state)

    def _check_range(self, start: State, end: State) -> None:
        """Check that the run is what lies between the days that the manifest names."""
        since, until = self._manifest.since, self._manifest.until
        first = self._gathered.first_ts
        early = since is not None and first is not None and _day(first) < since
        late = until is not None and _day(end.ts) > until
        short = since is not None and start.size > 0 and _day(start.ts) >= since
        if early or late or short or (since is None and start.size > 0):
            self._add("CSL-C804", None, "The entries are not those of the days that it names.", "manifest.json")


def read_document(files: Files, name: str, model: type[D], most: int) -> D:
    """Return a file as a document in canonical form.

    Raises
    ------
    DocumentError
        CSL-C804 when it is missing, or another.
    """
    if name not in files.names:
        raise DocumentError("CSL-C804", f"{name} is missing.", _ASK)
    try:
        return model.from_canonical(files.read(name, most))
    except DocumentError as error:
        raise DocumentError("CSL-C804", f"{name}: {error.cause}", _ASK) from error


def _day(ts: int) -> date:
    return EPOCH + timedelta(days=min(ts // MILLISECONDS_A_DAY, LAST_DAY))


def fault(error: ConsilienceError) -> str:
    """Return an error in one line, for a finding that has a code of its own."""
    return f"{error.code}  {error.cause}"


_ASK = "Ask the institution for the pack again, and keep this one as evidence."
