"""`consilience officer withdraw`: consent withdrawn, from now on and for good; and what earlier studies may still hold."""

import csv
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from client import lists, scorings, withdrawal
from client.campaign import store as campaigns
from client.config import load_node
from client.consent import known_customers
from client.desk import HERE, HomeOption, JsonOption, home_at, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.influence import Influence, PastStudy, certainty, influence
from client.roles import require_for
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from client.withdrawal import Withdrawals, withdrawal_digest
from federation.errors import ConsilienceError, DataError, DocumentError
from privacy.ledger import Ledger

LARGEST_FILE = 64 << 20
LONGEST_IDENTIFIER = 256
LONGEST_REASON = 400
_DELIMITERS = (",", ";", "\t")


def register(app: typer.Typer) -> None:
    """Add the command to `consilience officer`."""
    app.command()(withdraw)


def withdraw(
    customers: Annotated[
        Path,
        typer.Option("--customers", help="The customers: one identifier a line, or CSV with --column; - for a pipe."),
    ],
    reason: Annotated[str, typer.Option(help="Why, for the ledger; name no customer.")],
    column: Annotated[
        str | None, typer.Option(help="The file is CSV with a header, and this column holds the identifiers.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the report and change nothing.")] = False,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw customers: no study, score or list ever reads them again, whatever the consent table says.

    For officers. Identifiers are those of the mapped customer column. They
    enter the vault's sealed register, the ledger notes their number and a
    salted digest, and every name list is rewritten without them; a running
    vault reads its open studies anew. It cannot be undone.

    The report says which past models saw them, and what differential privacy
    promises about those: nothing can be taken out of a released model.
    """
    place = home_at(home)
    actor = require_for(place, "officer withdraw")
    check_unlocked(place)
    if not 0 < len(reason.strip()) <= LONGEST_REASON:
        raise DocumentError(
            "CSL-C560", f"A reason has 1 to {LONGEST_REASON} characters.", "Say why in a sentence, by --reason."
        )
    ids = read_customers(customers, column)
    keys = unlock(place, passphrase_file, passphrase_fd)
    before = open_withdrawals(place, keys.store)
    again = int(before.mask(sorted(ids)).sum())
    unknown = _unknown(place, ids)
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        if dry_run:
            found = influence(place, keys.store, ledger, ids, before.plus(ids))
        else:
            # The register first: from here on nobody reads them, whatever fails later; the same command again does the rest.
            withdrawn = withdrawal.register(place, keys.store, ids)
            digest = withdrawal_digest(keys.store, ids)
            ledger.withdraw(
                count=len(ids), registered=len(withdrawn), digest=digest, reason=reason.strip(), actor=actor.account
            )
            found = influence(place, keys.store, ledger, ids, withdrawn)
    failed = [] if dry_run else _rewrite(place, keys, withdrawn)
    report = {"dry_run": dry_run, "customers": len(ids), "withdrawn_before": again, "unknown": unknown}
    if as_json:
        print_json(report | _plain(found) | {"lists_failed": failed})
    else:
        _show(report, found, failed)
    if failed:
        raise DataError(
            "CSL-C561",
            f"{len(failed)} name lists or scorings could not be rewritten; their lines about these customers are never shown.",
            "Delete them or restore them, and run the command again.",
        )


def read_customers(path: Path, column: str | None) -> frozenset[str]:
    """Read the identifiers in a file, or in standard input for `-`: one a line, or a column of a CSV file with a header (comma,
    semicolon or tab).

    Raises
    ------
    DocumentError
        CSL-C557 when it cannot be read or is larger than 64 MiB, CSL-C558 when it is no text or no such table, CSL-C559 when it names
        nobody.
    """
    text = _text(path)
    ids = _lines(text) if column is None else _column(text, column)
    if any(len(identifier) > LONGEST_IDENTIFIER for identifier in ids):
        raise _not_fit("It holds a line that is too long for an identifier.")
    if not ids:
        raise DocumentError("CSL-C559", f"{path} names no customer.", "Check the file; nothing was changed.")
    return ids


def _text(path: Path) -> str:
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with path.open("rb") as handle:
                content = handle.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DocumentError(
            "CSL-C557", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    if len(content) > LARGEST_FILE:
        raise DocumentError("CSL-C557", f"{path} is larger than 64 MiB.", "Withdraw in several files.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_fit("It is not UTF-8 text.") from error
    if any(character < " " and character not in "\t\r\n" for character in text):
        raise _not_fit("It holds control characters: it is no text file.")
    return text


def _lines(text: str) -> frozenset[str]:
    found = [line.strip() for line in text.splitlines()]
    if any(delimiter in line for line in found for delimiter in _DELIMITERS):
        raise _not_fit("It looks like a table, not like one identifier a line.")
    return frozenset(line for line in found if line)


def _column(text: str, column: str) -> frozenset[str]:
    header = text.partition("\n")[0]
    for delimiter in _DELIMITERS:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            if column in (rows.fieldnames or ()):
                cells = [row[column] for row in rows]
                break
        except csv.Error as error:
            raise _not_fit("It is not CSV to its end.") from error
    else:
        raise _not_fit(f'Its header has no column "{column}".' if header.strip() else "It has no header.")
    if any(cell is None for cell in cells):
        raise _not_fit("A line is shorter than the header.")
    return frozenset(cell.strip() for cell in cells if cell.strip())


def _not_fit(why: str) -> DocumentError:
    return DocumentError(
        "CSL-C558",
        f"The file of customers does not fit. {why}",
        "Give one identifier a line, or a CSV file with a header and the column's name by --column.",
    )


def _unknown(home: Home, ids: frozenset[str]) -> int | None:
    """Return how many identifiers stand not in the consent table; None when it cannot be read, which is no reason to wait."""
    try:
        return len(ids - known_customers(load_node(home.node_file)))
    except ConsilienceError:
        return None


def _rewrite(home: Home, keys: Keys, withdrawn: Withdrawals) -> list[str]:
    """Take whoever withdrew off every list, scoring and campaign; return those for which it failed: one must not keep the others."""
    folder = home.folder("lists")
    failed: list[str] = []
    for stem in lists.stems(folder):
        try:
            lists.strip(folder, stem, keys.store, withdrawn.excluded)
        except ConsilienceError:
            failed.append(stem)
    held = home.folder(campaigns.FOLDER)
    for stem in campaigns.stems(held):
        try:
            campaigns.strip(held, stem, keys.store, withdrawn.excluded)
        except ConsilienceError:
            failed.append(campaigns.called(stem))
    return [*failed, *scorings.forget(home, keys.store, withdrawn)]


def _plain(found: Influence) -> dict[str, Any]:
    return {
        "studies": [asdict(study) | {"certainty": study.certainty} for study in found.studies],
        "together": {
            "epsilon": found.epsilon,
            "delta": found.delta,
            "certainty": certainty(found.epsilon, found.delta),
        },
        "participation_unknown": list(found.unrecorded),
        "lists": [asdict(item) for item in found.lists],
        "lists_unreadable": list(found.unreadable),
    }


def _show(report: dict[str, Any], found: Influence, failed: list[str]) -> None:
    lines = _heading(report)
    if not found.studies:
        lines.append("No past study whose record is kept read any of them.")
    lines += [line for study in found.studies for line in _study_lines(study)]
    if len(found.studies) > 1:
        percent = _percent(certainty(found.epsilon, found.delta))
        lines.append(
            f"Whoever was in all of these: epsilon {found.epsilon:g}, delta {found.delta:.2g} together, even odds become "
            f"{percent} at most."
        )
    if found.unrecorded:
        lines.append(
            "Unknown for these studies, whose participation records retention deleted (their bound holds all the same): "
            f"{', '.join(found.unrecorded)}."
        )
    verb = "would lose" if report["dry_run"] else "lost"
    for item in found.lists:
        note = "; it was exported: whoever holds that file must take them off it" if item.exported else ""
        lines.append(f"Name list {item.stem} {verb} {item.lines} lines{note}.")
    lines += [f"Name list or scoring {stem} could not be opened." for stem in sorted({*found.unreadable, *failed})]
    console = Console()
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _heading(report: dict[str, Any]) -> list[str]:
    unknown = report["unknown"]
    known = "the consent table could not be read" if unknown is None else f"{unknown} not in the consent table"
    counts = f"{report['customers']} customers ({report['withdrawn_before']} withdrew before; {known})"
    if report["dry_run"]:
        return [f"Nothing is changed. Would be withdrawn: {counts}."]
    return [f"Withdrawn: {counts}. From now on they are in no study, score or list."]


def _study_lines(study: PastStudy) -> list[str]:
    model = "no model was delivered" if study.model is None else f"model {study.model[:12]}"
    use = ", in use" if study.in_use else ""
    return [
        f"Study {study.study} for {study.purpose} ({study.rid[:12]}), last release {study.released[:10]}, {model}{use}: "
        f"{study.seen.training} of them trained it, {study.seen.heldout} were held out to evaluate it.",
        f"  epsilon {study.epsilon:g}, delta {study.delta:g}: whoever held even odds that one of them took part ends at "
        f"{_percent(study.certainty)} at most, whatever else he knows.",
    ]


def _percent(share: float) -> str:
    """Return a share in percent, rounded up: a bound is never shown below itself."""
    tenths = -int(-share * 1000 // 1)
    return f"{min(tenths, 1000) / 10:.1f}%"
