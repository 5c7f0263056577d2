"""`consilience node segments`: how the own customers stand in the federation's segments and stages; noted in the ledger first."""

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import lists
from client.cohort import load_cohort
from client.config import load_node
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.node.lists import check_target
from client.reports import FOLDER, Reports
from client.roles import require_for
from client.segments import KINDS, Group, Placed, answer_of, place, segments, stages
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from federation.answers import StatisticsReport
from federation.errors import PolicyError, StorageError
from federation.files import atomic_write
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE

COLUMNS = ("customer", "segment", "stage", "r", "f", "m", "monetary")
PIPE = Path("-")


def segments_command(
    home: HomeOption = HERE,
    contract: Annotated[
        str | None,
        typer.Option(help="The contract; that of the newest report otherwise.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write in clear (0600), .csv; - for CSV to a pipe.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Place the own customers in the segments and life-cycle stages of the newest reports: sizes and worth beside the federation's.

    For analysts. Everybody who agreed to be contacted is placed anew, on
    today's tables; own figures are exact and stay here. With --out a line
    for each customer is written, which `node actions --placed` reads. The
    ledger notes who looked, and at how many, before anything is shown or
    written; customers who withdrew are left out. A file is yours to protect
    and to delete.
    """
    folder = home_at(home)
    actor = require_for(folder, "node segments")
    check_unlocked(folder)
    if out not in (None, PIPE):
        check_target(out, (lists.CSV,))
    keys = unlock(folder, passphrase_file, passphrase_fd)
    reports = reports_of(folder, contract)
    placed = placed_customers(folder, keys, reports)
    called = f"segments by {', '.join(report.name for report in reports)}"
    with Ledger.open(folder.ledger_file, keys.identity) as ledger:
        ledger.access(
            "view" if out is None else "export", called, actor=actor.account, role=actor.role, count=len(placed)
        )
    if out is not None:
        _export(placed, out, as_json)
    else:
        _show(placed, reports, as_json)


def reports_of(home: Home, contract: str | None) -> list[StatisticsReport]:
    """Return the newest delivered reports with segments or stages, one or two, all on one contract.

    Raises
    ------
    StorageError
        CSL-C800 when there is none; as `Reports.all`.
    """
    kept = [item.report for item in Reports(home.folder(FOLDER)).all()]
    fitting = [item for item in kept if answer_of(KINDS[0], [item]) or answer_of(KINDS[1], [item])]
    chosen = contract or next((item.contract for item in fitting), None)
    fitting = [item for item in fitting if item.contract == chosen]
    if not fitting:
        about = "" if contract is None else f" on {contract}"
        raise StorageError(
            "CSL-C800",
            f"No report with segments or life-cycle stages{about} was delivered here.",
            "Ask the coordinator to run a query of kind rfm or lifecycle; this institution must take part in it.",
        )
    newest = [next((item for item in fitting if answer_of(kind, [item])), None) for kind in KINDS]
    return list({item.study: item for item in newest if item is not None}.values())


def placed_customers(home: Home, keys: Keys, reports: list[StatisticsReport]) -> Placed:
    """Place everybody who agreed to be contacted; who withdraws meanwhile is left out.

    Raises
    ------
    PolicyError
        CSL-C431 while no policy is in force, which says which consent is needed.
    StorageError
        CSL-C800 when the charter declares no customers of this institution for the contract.
    DataError
        When the customers cannot be read.
    DocumentError
        As `client.segments.place`.
    """
    with open_reader(home) as reader:
        policy = reader.policy()
    if policy is None:
        raise PolicyError(
            "CSL-C431",
            "No policy is in force, so nothing says which consent a customer must have given.",
            "Bring a policy into force first.",
        )
    charter, node = home.charter(), load_node(home.node_file)
    contract = home.contract(charter, reports[0].contract)
    declaration = charter.member(node.member).declaration(contract.name)
    if declaration is None:
        raise StorageError(
            "CSL-C800",
            f"The charter in force declares no customers of this institution for {contract.name}.",
            "Name another contract, or accept the charter that declares them.",
        )
    withdrawn = open_withdrawals(home, keys.store)
    cohort, _ = load_cohort(node, contract, declaration, policy.contact_consent, "score", withdrawn.excluded)
    placed = place(cohort, contract, *reports)
    now = open_withdrawals(home, keys.store)
    if now.version == withdrawn.version or now.excluded is None:
        return placed
    return placed.take(~now.excluded(placed.ids.tolist()))


def _show(placed: Placed, reports: list[StatisticsReport], as_json: bool) -> None:
    found = {"segments": segments(placed, *reports), "stages": stages(placed, *reports)}
    if as_json:
        print_json(
            {
                "reports": [{"study": item.study, "name": item.name} for item in reports],
                "customers": len(placed),
                **{kind: [asdict(group) for group in groups] for kind, groups in found.items()},
            }
        )
        return
    console = Console()
    for kind, groups in found.items():
        if groups:
            console.print(_table(kind[:-1], groups))
    names = ", ".join(item.name for item in reports)
    text = f"{len(placed)} own customers, exact, placed by {names}. The federation's shares are as they were released, with noise."
    console.print(text, markup=False, highlight=False)


def _table(kind: str, groups: list[Group]) -> Table:
    table = Table(kind, "customers", "share", "federation", "interval", "mean worth", "worth")
    for group in groups:
        span = "" if group.low is None or group.high is None else f"{group.low:.1%} to {group.high:.1%}"
        table.add_row(
            escape(group.name),
            str(group.customers),
            f"{group.share:.1%}",
            "" if group.elsewhere is None else f"{group.elsewhere:.1%}",
            span,
            "" if group.worth is None else f"{group.worth:.3g}",
            f"{group.total:,.1f}",
        )
    return table


def _export(placed: Placed, out: Path, as_json: bool) -> None:
    content = lists.csv_table(COLUMNS, _rows(placed))
    if out == PIPE:
        sys.stdout.buffer.write(content)
        return
    atomic_write(out, content, PRIVATE)
    if as_json:
        print_json({"rows": len(placed), "file": str(out)})
    else:
        typer.echo(f"Wrote {out}: {len(placed)} customers with their segments, in clear. Delete it when it was used.")


def _rows(placed: Placed) -> Iterator[lists.Row]:
    """Return a line for each customer; what is not known is an empty cell."""
    for number, customer in enumerate(placed.ids):
        scores = [int(axis[number]) or None for axis in (placed.r, placed.f, placed.m)]
        worth = float(placed.worth[number])
        yield (
            str(customer),
            str(placed.segment[number]),
            str(placed.stage[number]),
            *scores,
            None if math.isnan(worth) else worth,
        )
