"""`consilience verify`: check an evidence pack or a ledger, on a machine that has never seen the institution."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from client.desk import JsonOption, print_json
from client.evidence.papers import open_by
from client.evidence.screen import Ticker, print_verdict, print_verification, verdict_json, verification_json
from client.evidence.verdict import Trust, verify_pack
from federation.charter import Charter, SealedCharter, open_charter
from federation.errors import DocumentError, ExitCode, IntegrityError, StorageError
from federation.heads import read_note
from federation.note import open_note, parse_note
from privacy.keys import read_public
from privacy.ledger import TreeHead, Verification
from privacy.ledger.audit import Audit
from privacy.ledger.verify import Witness, audited, member_of

app = typer.Typer(
    add_completion=False,
    help="Check an evidence pack or a ledger: needs public keys only, and no trust in the institution.",
)
MOST_BYTES = 4 << 20
_HEAD = re.compile(r"(\d{1,15}):([0-9a-f]{64})")
_HEX_KEY = re.compile(r"[0-9a-f]{64}")
_UNCONFIRMED = (
    "Nobody confirmed the charter's digest, {digest}: compare it with another member's, or give theirs by --digest."
)
_SQLITE = b"SQLite format 3\0"

KeyOption = Annotated[
    str | None,
    typer.Option(help="The institution's public key: 64 hexadecimal digits, or a file.", show_default=False),
]
HeadOption = Annotated[
    str | None,
    typer.Option(help="A tree head that somebody kept: SIZE:ROOT, or a signed note's file.", show_default=False),
]


@app.command()
def verify(
    target: Annotated[Path, typer.Argument(help="An evidence pack (.zip), or a ledger's file.", show_default=False)],
    key: KeyOption = None,
    charter: Annotated[
        Path | None,
        typer.Option(help="The federation's charter, as you had it from another member.", show_default=False),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="The charter's digest, confirmed with another member.", show_default=False)
    ] = None,
    note: Annotated[
        Path | None,
        typer.Option(help="A head of the ledger that others kept and signed, a note's file.", show_default=False),
    ] = None,
    head: HeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that an evidence pack or a ledger is valid, or exactly what is wrong with it.

    Chain, signatures, tree, time, rules, policies, approvals, and all
    arithmetic, computed anew from the privacy events. Exit code 6 when
    anything is wrong, 3 for a file that is no pack.

    A ledger whose last entries were cut off is consistent in itself:
    give a head that somebody else kept by --note or --head.
    """
    if note is not None and head is not None:
        raise DocumentError("CSL-C693", "Both a note and a head are given.", "Give one of --note and --head.")
    text, bare = (read_note(note), None) if note is not None else read_head(head)
    opened = read_charter(charter, digest)
    remarks = () if opened is None or digest is not None else (_UNCONFIRMED.format(digest=opened.digest()),)
    trust = Trust(key=read_key(key), charter=opened, note=text, head=bare, remarks=remarks)
    verify_file(target, trust, as_json)


def verify_file(target: Path, trust: Trust, as_json: bool) -> None:
    """Check a pack or a ledger, print what was found, and leave with exit code 6 when anything is wrong.

    Raises
    ------
    DocumentError
        CSL-C602 for a ledger without any key to hold it against; CSL-C690 for a file that is neither.
    IntegrityError
        CSL-C603 when the ledger is under another key.
    """
    valid = _show_ledger(target, trust, as_json) if is_ledger(target) else _show_pack(target, trust, as_json)
    if not valid:
        raise typer.Exit(int(ExitCode.INTEGRITY))


def _show_ledger(target: Path, trust: Trust, as_json: bool) -> bool:
    with Ticker(quiet=as_json) as ticker:
        result, seen = verify_ledger(target, trust, ticker)
    if as_json:
        print_json(verification_json(result, seen.witnesses, seen.remarks))
    else:
        print_verification(str(target), result, seen.witnesses, seen.remarks)
    return result.valid


def _show_pack(target: Path, trust: Trust, as_json: bool) -> bool:
    with Ticker(quiet=as_json) as ticker:
        verdict = verify_pack(target, trust, lambda count: ticker.step("Verifying the pack", count))
    if as_json:
        print_json(verdict_json(verdict))
    else:
        print_verdict(str(target), verdict)
    return verdict.valid


@dataclass
class Seen:
    """What heads that others kept showed: who signed them, and what could not be told."""

    witnesses: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def verify_ledger(path: Path, trust: Trust, ticker: Ticker) -> tuple[Verification, Seen]:
    """Check a ledger's file. Raises as `verify_file`."""
    key, seen = _ledger_key(path, trust), Seen(remarks=list(trust.remarks))
    with audited(path, key, lambda row, body, before: ticker.step("Verifying the ledger", row[0] + 1)) as found:
        if found.verification.other_key:
            raise IntegrityError(
                "CSL-C603",
                f"The ledger {path} is not under the key {key[:16]}….",
                "Give the key of the ledger's institution by --key.",
            )
        if trust.head is not None:
            found.audit.check_witness(trust.head)
        if trust.note is not None:
            _check_note(found.audit, trust.note, trust.charter, seen)
        return found.verification, seen


def _check_note(audit: Audit, text: str, charter: Charter | None, seen: Seen) -> None:
    """Hold a ledger against a signed note; who else signed it can be told with a charter only."""
    if charter is not None:
        head = open_by(text, charter, audit.state.keys)
        audit.check_witness(Witness(head.size, head.root, head.generation, "the note's witness"))
        seen.witnesses += [f"{name} (over {head.size} entries)" for name in sorted(head.cosigners)]
        return
    note = parse_note(text)
    if not any(_opens(text, note.checkpoint.origin, item.key) for item in audit.state.keys):
        raise IntegrityError("CSL-C694", "The note is not signed by this ledger.", "Check whose note it is.")
    audit.check_witness(Witness(note.checkpoint.size, note.checkpoint.root, None, "the note"))
    seen.remarks.append("Who else signed the note was not checked: give the charter and its digest.")


def _opens(text: str, origin: str, key: str) -> bool:
    try:
        open_note(text, {origin: key})
    except IntegrityError:
        return False
    return True


def _ledger_key(path: Path, trust: Trust) -> str:
    if trust.key is not None:
        return trust.key
    member = member_of(path) if trust.charter is not None else None
    if trust.charter is None or member is None:
        raise DocumentError(
            "CSL-C602",
            "A bare ledger file needs its institution's public key.",
            "Give --key; the charter names every member's.",
        )
    return trust.charter.member(member).key


def is_ledger(path: Path) -> bool:
    """Return whether a file is a ledger by its first bytes. Raises StorageError CSL-C692 when it cannot be read."""
    try:
        with path.open("rb") as handle:
            return handle.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise StorageError(
            "CSL-C692", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error


def read_key(text: str | None) -> str | None:
    """Return a public key from an option: its digits, a file with them, or a key file.

    Raises
    ------
    ConsilienceError
        CSL-P502, CSL-P506 when the file holds no key.
    """
    if text is None or _HEX_KEY.fullmatch(text):
        return text
    path = Path(text)
    try:
        with path.open("rb") as handle:
            content = handle.read(MOST_BYTES).decode("ascii", "replace").strip()
    except OSError:
        content = ""
    return content if _HEX_KEY.fullmatch(content) else read_public(path)


def read_head(text: str | None) -> tuple[str | None, TreeHead | None]:
    """Return a kept head from an option: a note's text, or a bare head.

    Raises
    ------
    DocumentError
        CSL-C601 when it is neither.
    """
    if text is None:
        return None, None
    match = _HEAD.fullmatch(text)
    if match is not None:
        return None, TreeHead(int(match[1]), match[2])
    if not Path(text).is_file():
        raise DocumentError(
            "CSL-C601",
            "A tree head is SIZE:ROOT, the root 64 hexadecimal digits, or a note's file.",
            "Copy it as verify prints it, or name the file.",
        )
    return read_note(Path(text)), None


def read_charter(path: Path | None, digest: str | None) -> Charter | None:
    """Open a charter by the digest that somebody else confirmed; without one, by its own: then only its signatures agree.

    Raises
    ------
    DocumentError
        CSL-C691 for a digest without a charter; CSL-F102 when the file is no charter.
    StorageError
        CSL-C692 when it cannot be read.
    IntegrityError
        CSL-F201, F202, F204 when it is not the one of this digest.
    """
    if path is None:
        if digest is None:
            return None
        raise DocumentError("CSL-C691", "A digest is given without its charter.", "Give the charter by --charter.")
    try:
        with path.open("rb") as handle:
            content = handle.read(MOST_BYTES)
    except OSError as error:
        raise StorageError(
            "CSL-C692", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    sealed = SealedCharter.from_canonical(content)
    return open_charter(sealed, sealed.charter.digest() if digest is None else digest.strip().lower())
