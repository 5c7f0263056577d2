"""Making an evidence pack: the same ledger and the same range give the same bytes.

Nothing goes in but what is named here: entries and their proofs, documents that they refer to, the charter, the witnesses' note, the
report. The ledger is verified first and the pack is checked before it gets its name, as a stranger will check it.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.evidence.archive import Folder, write_archive
from client.evidence.manifest import (
    APPROVALS,
    AROUND,
    AROUND_PROOFS,
    CHARTER,
    CONSENTS,
    CONTEXT,
    CONTRACTS,
    EDGES,
    EDGES_PROOFS,
    ENTRIES,
    GUIDE,
    MANIFEST,
    MODELS,
    NOTE,
    PROOFS,
    REPORT,
    SIGNATURE,
    START,
    STUDIES,
    FileRecord,
    Manifest,
    PackHead,
    Proven,
    approval_line,
    claims_of,
    consent_line,
    entry_line,
    extract_files,
    proof_line,
    software,
)
from client.evidence.papers import open_by
from client.evidence.report import render_guide, render_report
from client.evidence.verdict import contents
from client.home import Home
from federation.charter import Charter
from federation.errors import DataError, IntegrityError, StorageError
from federation.files import sync_folder
from federation.heads import Head, read_note
from federation.signing import public_hex, sign_bytes
from privacy.ledger import Finding
from privacy.ledger.audit import Audit, Findings
from privacy.ledger.entries import MILLISECONDS_A_DAY, Approve, Body, Consent, Reserve, parse
from privacy.ledger.state import EPOCH, State
from privacy.ledger.store import Row, Store
from privacy.ledger.verify import audited

Step = Callable[[str, int], None]
"""Told what is being done and how many entries of it are done."""
_ALWAYS = frozenset(("genesis", "policy", "rotate", "restore"))


@dataclass
class Span:
    """The run of entries whose times lie in a range of days, found while the ledger is verified."""

    since: date | None
    until: date | None
    start: State | None = None
    first: int = 0
    end: int = 0
    studies: set[str] = field(default_factory=set)

    def visit(self, row: Row, body: Body | None, before: State) -> None:
        """Look at the next entry."""
        if body is None or not self._inside(body.ts):
            return
        if self.start is None:
            self.start, self.first = before, row[0]
        self.end = row[0] + 1
        if body.rid is not None:
            self.studies.add(body.rid)

    def _inside(self, ts: int) -> bool:
        day = ts // MILLISECONDS_A_DAY
        after = self.since is None or day >= (self.since - EPOCH).days
        return after and (self.until is None or day <= (self.until - EPOCH).days)


def build_evidence(
    home: Home,
    key: Ed25519PrivateKey,
    target: Path,
    *,
    since: date | None = None,
    until: date | None = None,
    step: Step = lambda what, count: None,
) -> Manifest:
    """Write an evidence pack (0600) to `target`, whole or not at all, and return its manifest.

    Parameters
    ----------
    home, key:
        The vault's home and the institution's identity key, which signs the pack.
    target:
        Where the pack goes; nothing may be there yet.
    since, until:
        The first and the last day (UTC, by the ledger's time) whose entries go in; the whole ledger unless given.
    step:
        Told of the progress.

    Raises
    ------
    DataError
        CSL-C681 when no entry lies in the range.
    IntegrityError
        CSL-C682 when the ledger, or a document that belongs to it, does not check out; CSL-C687 when `key` is not its newest.
    StorageError
        CSL-C683 when `target` exists, CSL-C684 when the pack would be too large, CSL-C685 when it cannot be written.
    """
    if target.exists():
        raise StorageError("CSL-C683", f"{target} exists: evidence is never overwritten.", "Choose another name.")
    span = Span(since, until)

    def visit(row: Row, body: Body | None, before: State) -> None:
        span.visit(row, body, before)
        step("Verifying the ledger", row[0] + 1)

    try:
        with ExitStack() as stack:
            found = stack.enter_context(audited(home.ledger_file, public_hex(key), visit))
            _require_sound(found.verification.findings)
            _require_newest(found.verification.state, key)
            if span.start is None:
                raise DataError(
                    "CSL-C681", "No entry of the ledger lies in this range.", "Look at `consilience officer ledger`."
                )
            folder = Folder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="consilience-evidence-"))))
            manifest = _Making(home, folder, span, span.start, found.audit, step).run()
            manifest = _complete(folder, manifest, key, step)
            _publish(folder, target)
    except OSError as error:
        raise StorageError(
            "CSL-C685",
            f"{error.filename or target} cannot be written or read: {error.strerror}.",
            "Check path, rights, space.",
        ) from error
    return manifest


class _Making:
    """Writes a pack's files into a folder, all but report, guide and manifest."""

    def __init__(self, home: Home, folder: Folder, span: Span, start: State, audit: Audit, step: Step) -> None:
        self._home = home
        self._folder = folder
        self._span = span
        self._start = start
        self._audit = audit
        self._step = step
        self._size = audit.state.size
        self._reserved: set[str] = set()

    def run(self) -> Manifest:
        """Write everything and return the manifest, still without its list of files."""
        sealed = self._home.sealed_charter()
        self._folder.write(CHARTER, sealed.canonical())
        if self._span.first:
            self._folder.write(START, self._start.canonical())
        self._entries()
        self._edges()
        self._contracts(sealed.charter)
        self._studies()
        note = self._note(sealed.charter)
        return self._manifest(sealed.charter, note)

    def _entries(self) -> None:
        """Write entries, context, proofs, and what is written from entries besides."""
        with ExitStack() as stack:
            store = Store.open(self._home.ledger_file, write=False)
            stack.callback(store.close)
            names = [ENTRIES, PROOFS, APPROVALS, CONSENTS]
            outputs = {name: stack.enter_context(self._folder.create(name)) for name in names}
            for seq, kind, rid, content, _, signature in store.rows():
                if seq >= self._size:
                    break
                inside = self._span.first <= seq < self._span.end
                if not inside and not self._belongs(seq, kind, rid):
                    continue
                if not inside and AROUND not in outputs:
                    outputs |= {
                        name: stack.enter_context(self._folder.create(name)) for name in (AROUND, AROUND_PROOFS)
                    }
                outputs[ENTRIES if inside else AROUND].write(entry_line(content, signature))
                proof = self._audit.tree.inclusion(seq, self._size)
                outputs[PROOFS if inside else AROUND_PROOFS].write(proof_line(seq, proof))
                if seq < self._span.end:
                    self._derived(parse(content), outputs)
                self._step("Writing entries and proofs", seq + 1)

    def _edges(self) -> None:
        """Write the entries next to the run: their times show that it leaves nothing of its days out."""
        seqs = [seq for seq in (self._span.first - 1, self._span.end) if 0 <= seq < self._size]
        if not seqs:
            return
        with ExitStack() as stack:
            store = Store.open(self._home.ledger_file, write=False)
            stack.callback(store.close)
            entries, proofs = (stack.enter_context(self._folder.create(name)) for name in (EDGES, EDGES_PROOFS))
            for row in filter(None, map(store.at, seqs)):
                entries.write(entry_line(row[3], row[5]))
                proofs.write(proof_line(row[0], self._audit.tree.inclusion(row[0], self._size)))

    def _belongs(self, seq: int, kind: str, rid: str | None) -> bool:
        """Return whether an entry outside the run is something that the run rests on."""
        if seq >= self._span.end:
            return kind == "rotate"
        return kind in _ALWAYS or rid in self._span.studies

    def _derived(self, body: Body, outputs: dict[str, BinaryIO]) -> None:
        """Write what an entry is also written to, and remember which studies were reserved."""
        if isinstance(body, Approve):
            outputs[APPROVALS].write(approval_line(body))
        elif isinstance(body, Consent):
            outputs[CONSENTS].write(consent_line(body))
        elif isinstance(body, Reserve):
            self._reserved.add(body.rid)
        for name, content in extract_files(body).items():
            self._folder.write(name, content)

    def _contracts(self, charter: Charter) -> None:
        for item in charter.contracts:
            if (self._home.root / "contracts" / f"{item.name}.yaml").exists():
                contract = self._home.contract(charter, item.name)
                self._folder.write(f"{CONTRACTS}/{item.name}.json", contract.canonical())

    def _studies(self) -> None:
        """Copy the studies' documents and their models' cards, where they are still kept; check_papers holds each to the ledger."""
        studies, models = self._home.folder("studies"), self._home.folder("models")
        for rid in sorted(self._reserved):
            self._copy(studies / f"{rid}.json", f"{STUDIES}/{rid}.json")
            delivery, card = models / f"{rid}.delivery.json", models / f"{rid}.card.json"
            if delivery.exists():
                self._copy(delivery, f"{MODELS}/{rid}.delivery.json")
                self._copy(card, f"{MODELS}/{rid}.card.json")

    def _copy(self, source: Path, name: str) -> None:
        if source.exists():
            self._folder.write(name, source.read_bytes())

    def _note(self, charter: Charter) -> Head | None:
        """Copy the head that witnesses signed, if it is one of this ledger as it is now."""
        path = self._home.folder("witness") / "own.note"
        if not path.exists():
            return None
        text, state = read_note(path), self._audit.state
        head = open_by(text, charter, state.keys)
        found = self._audit.tree.root(head.size)
        if head.generation != state.restores or found is None or found.hex() != head.root:
            return None
        self._folder.write(NOTE, text.encode())
        return head

    def _manifest(self, charter: Charter, note: Head | None) -> Manifest:
        state, tree = self._audit.state, self._audit.tree
        assert state.member is not None
        sizes = {self._span.first, self._span.end, *([] if note is None else [note.size])} - {0, self._size}
        return Manifest(
            software=software(),
            member=state.member,
            federation=charter.federation,
            charter=charter.digest(),
            since=self._span.since,
            until=self._span.until,
            as_of=state.ts,
            first=self._span.first,
            end=self._span.end,
            head=PackHead(size=self._size, root=self._audit.head.root),
            keys=state.keys,
            consistency=tuple(self._proven(size, tree.root(size)) for size in sorted(sizes)),
            claims=claims_of(self._span.first),
            files=(),
        )

    def _proven(self, size: int, root: bytes | None) -> Proven:
        assert root is not None
        proof = self._audit.tree.consistency(size, self._size)
        return Proven(size=size, root=root.hex(), proof=tuple(node.hex() for node in proof))


def _complete(folder: Folder, manifest: Manifest, key: Ed25519PrivateKey, step: Step) -> Manifest:
    """Check the pack as a stranger will, add report and guide, and sign the list of all files."""
    findings = Findings()
    with contents(folder, manifest, public_hex(key), findings, lambda count: step("Checking the pack", count)) as (
        checked,
        papers,
    ):
        _require_sound(findings.all())
        folder.write(REPORT, render_report(manifest, checked, papers))
    folder.write(GUIDE, render_guide(manifest))
    records = []
    for name in folder.names:
        size, digest = folder.measure(name)
        records.append(FileRecord(name=name, sha256=digest, bytes=size))
    manifest = manifest.model_copy(update={"files": tuple(records)})
    content = manifest.canonical()
    folder.write(MANIFEST, content)
    folder.write(SIGNATURE, sign_bytes(key, CONTEXT, content).canonical())
    return manifest


def _publish(folder: Folder, target: Path) -> None:
    """Write the archive beside its final name and give it that name when it is whole."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            write_archive(folder, handle)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _require_newest(state: State, key: Ed25519PrivateKey) -> None:
    if state.key != public_hex(key):
        raise IntegrityError(
            "CSL-C687",
            "The home's identity key is not the ledger's newest: its key was changed.",
            "Put the new key into the home's keys, or finish the change of key.",
        )


def _require_sound(findings: tuple[Finding, ...]) -> None:
    if findings:
        first = findings[0]
        others = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise IntegrityError(
            "CSL-C682",
            f"There is no evidence to give: {first.code}, {first.where}: {first.what}{others}",
            "Run consilience officer verify, and settle what it finds first.",
        )
