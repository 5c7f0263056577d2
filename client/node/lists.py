"""`consilience node names` and `node export`: whoever looks at a name list stands in the ledger before it is shown."""

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import lists
from client.changes import Compared, in_words
from client.desk import HERE, HomeOption, JsonOption, home_at, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.names import Listed
from client.roles import Actor, require_for
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from federation.errors import DocumentError, StorageError
from federation.files import atomic_write
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE

StudyOption = Annotated[str | None, typer.Option(help="The study's name; the newest list of all otherwise.")]
Look = Literal["view", "export"]


def names(
    home: HomeOption = HERE,
    study: StudyOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many lines to show.")] = 10,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Show the head of a name list: whom to approach, how likely, and why. It never leaves the institution.

    For analysts. The list is sealed on the disk and opened here; the ledger
    notes who looked, at which list and at how many lines, before a line is
    shown. Customers who withdrew their consent are not shown.
    """
    place = home_at(home)
    actor = require_for(place, "node names")
    check_unlocked(place)
    keys = unlock(place, passphrase_file, passphrase_fd)
    found = _open(place, keys, study)
    head = found.listed[:top]
    _note(place, keys, "view", found, actor, len(head))
    if as_json:
        rows = [plain_line(line) for line in head]
        compared = plain_compared(found.record.compared)
        print_json({"list": found.stem, "listed": len(found.listed), "compared": compared, "rows": rows})
        return
    print_lines(found.stem, head, found.record.compared)


def export(
    out: Annotated[
        Path,
        typer.Argument(help="The file to write: .csv, .parquet, or .json for the list's record; - for CSV to a pipe."),
    ],
    home: HomeOption = HERE,
    study: StudyOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Write a name list in clear to a file (0600), for the system that approaches the customers.

    For analysts. The ledger notes the export before the file is written.
    From then on the file is yours to protect and to delete: the vault's
    retention does not reach it. Customers who withdrew are left out; export
    anew after a withdrawal. A file that exists is not overwritten; it belongs
    to the account that runs the command, so behind sudo take `- > FILE`.
    """
    place = home_at(home)
    actor = require_for(place, "node export")
    check_unlocked(place)
    piped = str(out) == "-"
    suffix = lists.CSV if piped else out.suffix
    if not piped:
        check_target(out)
    keys = unlock(place, passphrase_file, passphrase_fd)
    found = _open(place, keys, study)
    record = found.record.model_dump_json(indent=2).encode()
    content = {lists.CSV: found.csv, lists.PARQUET: found.parquet, lists.RECORD: record}[suffix]
    _note(place, keys, "export", found, actor, 0 if suffix == lists.RECORD else len(found.listed))
    if piped:
        sys.stdout.buffer.write(content)
        return
    atomic_write(out, content, PRIVATE)
    if as_json:
        print_json({"list": found.stem, "rows": len(found.listed), "file": str(out)})
        return
    typer.echo(f"Wrote {out}: {found.stem}, {len(found.listed)} customers, in clear. Delete it when it was used.")


def print_lines(title: str, lines: Iterable[Listed], compared: Compared | None = None) -> None:
    """Print customers with their scores, reasons, and what changed since the scoring before."""
    table = Table("customer", "score", "decile", "reasons", title=escape(title), show_lines=True)
    if compared is not None:
        table.add_column("before")
        table.add_column("changed")
    for line in lines:
        reasons = "\n".join(reason for reason in line.reasons if reason)
        cells = [line.customer, f"{line.score:.3f}", str(line.decile), reasons]
        if compared is not None:
            cells += [before_words(line), change_words(line)]
        table.add_row(*(escape(cell) for cell in cells))
    console = Console()
    console.print(table)
    for text in in_words(compared):
        console.print(text, markup=False, highlight=False)


def before_words(line: Listed) -> str:
    """Return a customer's score and decile before, for a table."""
    return "none" if line.score_before is None else f"{line.score_before:.3f} ({line.decile_before})"


def change_words(line: Listed) -> str:
    """Return what rose and what fell, for a table."""
    parts = (("up", line.risen), ("down", line.fallen))
    return "\n".join(f"{way}: {text}" for way, text in parts if text)


def plain_compared(compared: Compared | None) -> dict[str, Any] | None:
    """Return a comparison as a mapping for JSON; null the first time."""
    return None if compared is None else compared.model_dump(mode="json")


def _open(home: Home, keys: Keys, study: str | None) -> lists.NameList:
    withdrawn = open_withdrawals(home, keys.store)
    found = lists.newest(home.folder("lists"), keys.store, study)
    if found is None:
        raise StorageError(
            "CSL-C613",
            "There is no name list yet.",
            "A list is written when a study ends; see `consilience node status`.",
        )
    return found.without(withdrawn.excluded)


def _note(home: Home, keys: Keys, look: Look, found: lists.NameList, actor: Actor, rows: int) -> None:
    with Ledger.open(home.ledger_file, keys.identity) as ledger:
        ledger.access(look, lists.called(found.stem), actor=actor.account, role=actor.role, count=rows)


def check_target(out: Path, suffixes: Collection[str] = lists.SUFFIXES) -> None:
    """Refuse to write customers to a path that exists, lies in no folder, or names no kind of file that they are written as.

    Raises
    ------
    DocumentError
        CSL-C554 for another ending than `suffixes`.
    StorageError
        CSL-C553.
    """
    if out.suffix not in suffixes:
        raise DocumentError(
            "CSL-C554", f"{out} names no kind of file that is written here.", f"Let it end in {' or '.join(suffixes)}."
        )
    if not out.parent.is_dir():
        raise StorageError("CSL-C553", f"{out.parent} is no folder.", "Make it first, for its owner alone.")
    if out.exists() or out.is_symlink():
        raise StorageError("CSL-C553", f"{out} exists.", "Choose another path, or move the file away.")


def plain_line(line: Listed) -> dict[str, object]:
    """Return a line as a mapping for JSON."""
    reasons = {f"reason_{place}": reason for place, reason in enumerate(line.reasons, start=1)}
    return {
        "customer": line.customer,
        "rank": line.rank,
        "score": line.score,
        "decile": line.decile,
        "expected_value": line.expected_value,
        "expected_gain": line.expected_gain,
        **reasons,
        "score_before": line.score_before,
        "decile_before": line.decile_before,
        "risen": line.risen,
        "fallen": line.fallen,
    }
