"""A home is brought back from a backup: unpacked and checked, locked until two officers have signed for it, then opened by the ledger.

Nobody can tell from a copy alone what was written after it. So everything that was left to spend counts as spent, unless two officers
give their word that nothing was written after the copy, and a note shows that the last head which others countersigned is this copy's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from client.backup import Manifest, check_keys_sealed, publish_folder, read_backup, staged
from client.home import FOLDERS, Home
from client.node_key import ensure_runtime_secret
from federation.charter import Charter
from federation.document import MAX_DOCUMENT_BYTES, Document
from federation.errors import DocumentError, IntegrityError, PolicyError, StorageError
from federation.files import atomic_write, sync_folder
from federation.heads import Head, open_head
from federation.signing import Hex32, Signature, public_hex, sign, verify
from privacy.keys import read_public
from privacy.ledger import Ledger, LedgerReader, TreeHead
from privacy.ledger import verify as verify_ledger
from privacy.ledger.entries import RESTORE_CONTEXT, RestoreData, RestoreStatement
from privacy.ledger.state import State

TWO = 2
PRIVATE = 0o600
D = TypeVar("D", bound=Document)


class RestoreSignatures(Document):
    """Officers' signatures of a restoration, detached: the statement's digest, and each in the context `csl1/restore`."""

    statement: Hex32
    signatures: Annotated[tuple[Signature, ...], Field(max_length=20)]


@dataclass(frozen=True)
class Begun:
    """A home that was unpacked and waits for two officers."""

    manifest: Manifest
    statement: RestoreStatement
    file: Path


def statement_file(home: Home) -> Path:
    """Return where the statement lies that officers sign."""
    return home.root / "restore.json"


def note_file(home: Home) -> Path:
    """Return where the countersigned note lies that goes into the ledger."""
    return home.root / "restore.note"


def signatures_file(statement: Path) -> Path:
    """Return where the signatures of a statement lie: the same name, ending in `.sig`."""
    return statement.with_suffix(".sig")


def begin(
    source: Path, target: Path, reason: str, *, note: str | None = None, allowed: Callable[[Home], object]
) -> Begun:
    """Unpack a backup into a new home, check all of it, and write the statement for the officers; whole or not at all.

    Parameters
    ----------
    source, target:
        The backup, and a path where nothing is yet.
    reason:
        Why; it stands in the ledger for good.
    note:
        The ledger's last head as others countersigned it, given with the officers' word that the copy is complete; without it
        nothing remains to spend.
    allowed:
        Raises when whoever acts may not do this in the home that is being made.

    Raises
    ------
    ConsilienceError
        As `client.backup.read_backup`. CSL-C740 when something is at `target`. CSL-C750 for a ledger that does not verify or is
        not that of the backup. CSL-C751 when its policy names fewer than two officers. CSL-C753 for a note that does not show
        this copy's head.
    """
    with staged(target) as folder:
        home = Home(folder)
        manifest = read_backup(source, folder)
        for name in FOLDERS:
            home.folder(name)
        ensure_runtime_secret(home)
        allowed(home)
        check_keys_sealed(home, manifest.plain_keys)
        state = _checked_ledger(home, manifest)
        if state.policy is None or len(state.policy.officers) < TWO:
            raise PolicyError(
                "CSL-C751",
                "Two officers of the policy in force must sign a restoration, and it names fewer.",
                "The budget of this ledger cannot be used again: agree with the other members on how to go on.",
            )
        statement = RestoreStatement(
            member=manifest.member, size=state.size, root=state.tree_root(), complete=note is not None, reason=reason
        )
        if note is not None:
            _check_note(home, state, note)
            atomic_write(note_file(home), note.encode(), PRIVATE)
        atomic_write(statement_file(home), statement.canonical(), PRIVATE)
        atomic_write(home.lock_file, b"restored from a backup; officers have not signed for it yet\n", PRIVATE)
        publish_folder(folder, target)
    return Begun(manifest, statement, statement_file(Home(target)))


def read_statement(path: Path) -> RestoreStatement:
    """Read the statement of a restoration.

    Raises
    ------
    StorageError
        CSL-C754 when it cannot be read.
    DocumentError
        CSL-C755 when it is none.
    """
    return _read(path, RestoreStatement, "the statement of a restoration")


def add_signature(path: Path, key: Ed25519PrivateKey) -> tuple[Signature, ...]:
    """Add an officer's signature to those beside a statement's file, and return all of them.

    Raises
    ------
    StorageError, DocumentError
        CSL-C754, CSL-C755 when a file cannot be read, CSL-F301 when it cannot be written.
    IntegrityError
        CSL-C756 when the signatures are those of another statement; CSL-F202 for one that does not fit.
    PolicyError
        CSL-C757 when this officer signed before.
    """
    statement = read_statement(path)
    before = read_signatures(path, statement)
    for signature in before:
        verify(signature, RESTORE_CONTEXT, statement, signature.key)
    if public_hex(key) in {signature.key for signature in before}:
        raise PolicyError("CSL-C757", "This officer signed before.", "Let a second, distinct officer sign.")
    signatures = (*before, sign(key, RESTORE_CONTEXT, statement))
    document = RestoreSignatures(statement=statement.digest(), signatures=signatures)
    atomic_write(signatures_file(path), document.canonical(), PRIVATE)
    return signatures


def read_signatures(path: Path, statement: RestoreStatement) -> tuple[Signature, ...]:
    """Return the signatures beside a statement's file; none when there are none yet. Raises as `add_signature`."""
    file = signatures_file(path)
    if not file.exists():
        return ()
    document = _read(file, RestoreSignatures, "signatures of a restoration")
    if document.statement != statement.digest():
        raise IntegrityError(
            "CSL-C756",
            f"{file} signs another statement than {path}.",
            "Move the signatures away, and let the officers sign anew.",
        )
    return document.signatures


def finish(home: Home, identity: Ed25519PrivateKey) -> State:
    """Write the restoration that two officers signed into the ledger, and unlock the home; the same again finishes.

    Raises
    ------
    PolicyError
        CSL-C758 for a home in which no restoration waits; CSL-P315 when a signature is missing.
    ConsilienceError
        CSL-C754 to C756 for the files; as `privacy.ledger.Ledger.restore`.
    """
    statement_path = statement_file(home)
    if not home.lock_file.exists() and not statement_path.exists():
        raise PolicyError(
            "CSL-C758",
            f"No restoration waits in {home.root}.",
            "Unpack a backup by `consilience officer restore begin`.",
        )
    with Ledger.open(home.ledger_file, identity) as ledger:
        if home.lock_file.exists():
            ledger.restore(_signed(home))
            _remove(home.lock_file)
        for path in (note_file(home), signatures_file(statement_path), statement_path):
            _remove(path)
        return ledger.state()


def _signed(home: Home) -> RestoreData:
    path = statement_file(home)
    statement = read_statement(path)
    signatures = read_signatures(path, statement)
    if len(signatures) < TWO:
        raise PolicyError(
            "CSL-P315",
            f"{len(signatures)} of 2 officers have signed the restoration.",
            f"Let them sign by `consilience officer restore sign {path}`.",
        )
    note = note_file(home).read_text("utf-8", "replace") if note_file(home).exists() else ""
    return RestoreData(statement=statement, signatures=signatures, note=note)


def _checked_ledger(home: Home, manifest: Manifest) -> State:
    public = read_public(home.identity_key)
    result = verify_ledger(home.ledger_file, public)
    state = result.state
    if not result.valid:
        first = result.findings[0]
        raise IntegrityError(
            "CSL-C750", f"The backup's ledger does not verify: {first.code}  {first.what}", "Take an older backup."
        )
    if (state.member, state.key, state.size, state.tree_root()) != (
        manifest.member,
        public,
        manifest.size,
        manifest.root,
    ):
        raise IntegrityError(
            "CSL-C750", "The backup's ledger is not the one of its manifest.", "Take another copy of the backup."
        )
    return state


def _check_note(home: Home, state: State, note: str) -> None:
    """Check that others countersigned this copy's head, or the last one before they were written down."""
    head = _opened_note(home.charter(), state, note)
    if head.member != state.member or head.generation != state.restores or not head.cosigners:
        raise _other_head("it is another ledger's, from before a restoration, or nobody countersigned it")
    if not 0 < head.size <= state.size:
        raise _other_head(f"it speaks of {head.size} entries, and the copy has {state.size}")
    key = read_public(home.identity_key)
    if not verify_ledger(home.ledger_file, key, witness=TreeHead(head.size, head.root)).valid:
        raise _other_head("the copy does not begin with the entries that were countersigned")
    with LedgerReader.read(home.ledger_file, key) as reader:
        later = {entry.body.kind for entry in reader.entries(head.size)} - {"witness"}
    if later:
        raise _other_head("the copy holds later entries, which nobody countersigned")


def _opened_note(charter: Charter, state: State, note: str) -> Head:
    for item in reversed(state.keys[1:]):
        try:
            return open_head(note, charter, key=item.key)
        except IntegrityError:
            continue
    return open_head(note, charter, key=state.keys[0].key)


def _other_head(why: str) -> IntegrityError:
    return IntegrityError(
        "CSL-C753",
        f"The note does not show that the copy is complete: {why}.",
        "Ask the witnesses for the last note; or restore without one: then nothing remains to spend.",
    )


def _read(path: Path, kind: type[D], what: str) -> D:
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_DOCUMENT_BYTES)
    except OSError as error:
        raise StorageError(
            "CSL-C754", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    try:
        return kind.from_canonical(content)
    except DocumentError as error:
        raise DocumentError(
            "CSL-C755", f"{path} is not {what}.", "Name the file that `restore begin` wrote."
        ) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            "CSL-F301", f"{path} cannot be removed: {error.strerror}.", "Correct the rights, and run it again."
        ) from error
