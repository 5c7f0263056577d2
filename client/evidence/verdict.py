"""`consilience verify` for packs: everything that a stranger can know of one, from the archive's first byte to the last sum."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.evidence.archive import Archive, Files
from client.evidence.check import Checked, LedgerPart, Progress, fault, read_document
from client.evidence.manifest import (
    CHARTER,
    CONTEXT,
    GUIDE,
    MANIFEST,
    MAX_DOCUMENT_BYTES,
    MAX_MANIFEST_BYTES,
    REPORT,
    SIGNATURE,
    SIGNED_ONLY,
    Manifest,
    claims_of,
    software,
)
from client.evidence.papers import Papers, check_papers, open_by, reaches
from client.evidence.report import render_guide, render_report
from federation.charter import Charter
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, IntegrityError
from federation.heads import Head
from federation.signing import Signature, verify
from privacy.ledger import Finding, TreeHead
from privacy.ledger.audit import Findings
from privacy.ledger.verify import key_standing

ARCHIVE = "archive"


@dataclass(frozen=True)
class Trust:
    """What the verifier brings along: nothing of it comes from the pack.

    `key` is the institution's public key; `charter` one that was opened by its digest; `note` the text of a signed head;
    `head` a bare one; `remarks` what a reader must know of them.
    """

    key: str | None = None
    charter: Charter | None = None
    note: str | None = None
    head: TreeHead | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What came out: nothing wrong, or every finding; remarks are what a reader must know besides."""

    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()
    manifest: Manifest | None = None
    key: str | None = None
    witnesses: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


@dataclass
class _Notes:
    findings: Findings = field(default_factory=Findings)
    remarks: list[str] = field(default_factory=list)
    witnesses: list[str] = field(default_factory=list)


def silent(_: int) -> None:
    """Report no progress."""


def verify_pack(path: Path, trust: Trust | None = None, progress: Progress = silent) -> Verdict:
    """Check an evidence pack; memory does not grow with it.

    Parameters
    ----------
    path, trust:
        The pack, and what the verifier knows from elsewhere.
    progress:
        Called after each entry with how many were read.

    Raises
    ------
    DocumentError
        CSL-C690 when the file is no pack at all.
    StorageError
        CSL-C692 when it cannot be read.
    """
    notes = _Notes()
    try:
        archive = Archive.open(path)
    except IntegrityError as error:
        return Verdict((Finding(error.code, None, error.cause, ARCHIVE),))
    with archive:
        trust = trust or Trust()
        notes.remarks.extend(trust.remarks)
        return _verify(archive, trust, notes, progress)


def _verify(archive: Archive, trust: Trust, notes: _Notes, progress: Progress) -> Verdict:
    manifest: Manifest | None = None
    signature: Signature | None = None
    try:
        signature = read_document(archive, SIGNATURE, Signature, MAX_DOCUMENT_BYTES)
        manifest = read_document(archive, MANIFEST, Manifest, MAX_MANIFEST_BYTES)
        _check_signature(manifest, signature, notes.findings)
        _check_listed(archive, manifest, notes.findings)
        with contents(archive, manifest, signature.key, notes.findings, progress) as (checked, papers):
            _check_rendered(archive, manifest, checked, papers, notes)
            _check_trust(manifest, checked, papers, trust, notes)
    except ConsilienceError as error:
        own = error.code.startswith("CSL-P6")
        notes.findings.add(error.code if own else "CSL-C804", None, error.cause if own else fault(error), "pack")
    key = None if signature is None else signature.key
    return Verdict(notes.findings.all(), tuple(notes.remarks), manifest, key, tuple(notes.witnesses))


@contextmanager
def contents(
    files: Files, manifest: Manifest, key: str, findings: Findings, progress: Progress
) -> Iterator[tuple[Checked, Papers]]:
    """Check everything in a pack but its archive, signature and report; what was read stays open in the context.

    Raises
    ------
    ConsilienceError
        When a file cannot be read as what it must be, so that nothing further can be told.
    """
    checked = LedgerPart(files, manifest, findings, progress).run(key)
    with checked.audit:
        yield checked, check_papers(files, manifest, checked, findings)


def _check_signature(manifest: Manifest, signature: Signature, findings: Findings) -> None:
    try:
        verify(signature, CONTEXT, manifest, manifest.keys[-1].key)
    except IntegrityError as error:
        findings.add(
            "CSL-C805", None, f"The manifest is not signed by the ledger's newest key: {fault(error)}", SIGNATURE
        )
    if manifest.software == software() and manifest.claims != claims_of(manifest.first):
        findings.add("CSL-C804", None, "It claims what no pack claims.", MANIFEST)


def _check_listed(archive: Archive, manifest: Manifest, findings: Findings) -> None:
    """Compare the archive's files with the manifest's list."""
    listed = {item.name: item for item in manifest.files}
    if [item.name for item in manifest.files] != sorted(listed):
        findings.add("CSL-C804", None, "Its files stand out of order, or one stands twice.", MANIFEST)
    for name in sorted({*archive.names, *listed} - {MANIFEST, SIGNATURE}):
        stored, item = archive.files.get(name), listed.get(name)
        if stored is None:
            findings.add("CSL-C802", None, "The manifest lists this file, and it is missing.", name)
        elif item is None:
            findings.add("CSL-C802", None, "The manifest does not list this file.", name)
        elif (stored.size, stored.sha256) != (item.bytes, item.sha256):
            findings.add("CSL-C803", None, "It is not the file that the manifest lists: it was changed.", name)


def _check_rendered(archive: Archive, manifest: Manifest, checked: Checked, papers: Papers, notes: _Notes) -> None:
    """Render report and guide anew; the release that made them makes the same bytes."""
    for name in (REPORT, GUIDE):
        if name not in archive.files:
            notes.findings.add("CSL-C802", None, "The file is missing.", name)
    if manifest.software != software():
        notes.remarks.append(
            f"The report was rendered by release {manifest.software}; this is {software()}, so that it was not compared. "
            "Where they differ, the entries count."
        )
        return
    if notes.findings.count:  # what they would say then is no measure for the files that are there
        return
    for name, content in ((REPORT, render_report(manifest, checked, papers)), (GUIDE, render_guide(manifest))):
        if name in archive.files and archive.digest(name) != sha256_hex(content):
            notes.findings.add("CSL-C809", None, "It does not say what the pack's documents say.", name)


def _check_trust(manifest: Manifest, checked: Checked, papers: Papers, trust: Trust, notes: _Notes) -> None:
    """Hold the pack against what the verifier brings along."""
    keys = [item.key for item in checked.keys]
    if papers.charter.member(manifest.member).key not in keys:
        what = f"The charter in the pack names another key for {manifest.member}."
        notes.findings.add("CSL-C808", None, what, CHARTER)
    if trust.key is not None:
        _check_key(manifest, checked, trust.key, notes)
    if trust.charter is not None:
        _check_charter(manifest, checked, trust.charter, notes)
    if trust.key is None and trust.charter is None:
        notes.remarks.append(
            f"The key {manifest.keys[-1].key} is the one that the pack itself names. Compare it with the charter as another member "
            "has it, or give that charter by --charter and --digest."
        )
    if manifest.first:
        notes.remarks.append(SIGNED_ONLY)
    _check_heads(manifest, checked, papers, trust, notes)


def _check_key(manifest: Manifest, checked: Checked, key: str, notes: _Notes) -> None:
    state = checked.audit.state.model_copy(update={"keys": checked.keys})
    standing = key_standing(state, key)
    if key not in [item.key for item in checked.keys]:
        notes.findings.add(
            "CSL-P624", None, f"The pack is under another key: {manifest.keys[-1].key}, not {key}.", "pack"
        )
    elif key != manifest.keys[-1].key:
        notes.remarks.append(
            f"The key given is {standing}; signed changes of key lead from it to {manifest.keys[-1].key}."
        )


def _check_charter(manifest: Manifest, checked: Checked, charter: Charter, notes: _Notes) -> None:
    """Hold the pack against a charter that the verifier has from elsewhere."""
    if charter.federation != manifest.federation:
        notes.findings.add("CSL-C808", None, "The pack is of another federation than the charter given.", CHARTER)
        return
    _check_key(manifest, checked, charter.member(manifest.member).key, notes)
    if charter.digest() != manifest.charter:
        notes.remarks.append(
            f"The pack holds version {manifest.charter[:16]}… of the charter; the one given is another."
        )


def _check_heads(manifest: Manifest, checked: Checked, papers: Papers, trust: Trust, notes: _Notes) -> None:
    """Compare the ledger with heads that others kept: in the pack, and as given."""
    if papers.note is not None:
        _check_own_note(manifest, checked, papers.note, trust, notes)
    if papers.note is None and trust.note is None and trust.head is None:
        notes.remarks.append(
            "No head that others signed was compared: a ledger whose end was cut off before the pack was made would look the "
            "same. Give one by --note."
        )
    if trust.head is not None:
        _compare(manifest, checked, trust.head, None, "the head given", notes)
    if trust.note is None:
        return
    try:
        head = open_by(trust.note, trust.charter or papers.charter, checked.keys)
    except ConsilienceError as error:
        notes.findings.add("CSL-P625", None, f"The note given is not this ledger's: {fault(error)}", "note")
        return
    if head.member != manifest.member:
        notes.findings.add("CSL-P625", None, f"The note given is of {head.member}.", "note")
        return
    times = sorted(head.cosigners.values())
    if head.generation < checked.audit.state.restores:
        notes.remarks.append("The note given is from before a restoration with losses: it was not compared.")
        return
    if _compare(
        manifest, checked, TreeHead(head.size, head.root), times[0] if times else None, "the note given", notes
    ):
        notes.witnesses.extend(_named(head))


def _check_own_note(manifest: Manifest, checked: Checked, note: Head, trust: Trust, notes: _Notes) -> None:
    """Name the witnesses of the pack's own note, by the charter that the verifier has if there is one."""
    if trust.charter is not None and trust.charter.digest() != manifest.charter:
        try:
            note = open_by(note.text, trust.charter, checked.keys)
        except ConsilienceError as error:
            notes.remarks.append(f"The pack's note is not signed by keys of the charter given: {fault(error)}")
            return
    elif trust.charter is None and note.cosigners:
        notes.remarks.append(
            f"Who the witnesses are is said by the charter in the pack, {manifest.charter}: compare it with another member's."
        )
    notes.witnesses.extend(_named(note))


def _compare(manifest: Manifest, checked: Checked, head: TreeHead, when: int | None, what: str, notes: _Notes) -> bool:
    """Return whether a head that somebody kept (since `when`, POSIX seconds) is the pack's or its beginning."""
    if reaches(manifest, head.size, head.root):
        return True
    if head.size > manifest.head.size:
        if when is None or 1000 * when <= manifest.as_of:
            cut = f"{what} is over {head.size} entries, and the pack's ledger had {manifest.head.size}: its end was cut off."
            notes.findings.add("CSL-P625", None, cut, "pack")
        else:
            notes.remarks.append(f"{what} is newer than the pack: it was not compared.")
        return False
    found = checked.audit.tree.root(head.size)
    if found is None:
        notes.remarks.append(f"{what} is over {head.size} entries, which the pack cannot show: it was not compared.")
    elif found.hex() != head.root:
        other = f"The first {head.size} entries are not those of {what}: the ledger was written anew."
        notes.findings.add("CSL-P625", None, other, "pack")
    return found is not None and found.hex() == head.root


def _named(head: Head) -> list[str]:
    return [f"{name} (over {head.size} entries)" for name in sorted(head.cosigners)]
