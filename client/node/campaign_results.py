"""`consilience node campaign outcomes`, `report` and `table`: what came back, what it means, and its form for a federated count."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.campaign import store
from client.campaign.outcomes import WITHDREW, OutcomeMapping, Read, read_outcomes, refuse_problems
from client.campaign.record import OutcomeRecord
from client.campaign.report import Report, report_of
from client.campaign.store import Campaign
from client.campaign.table import mapping_lines, table_of
from client.campaign.words import lines_of, tables_of
from client.config import load_node
from client.desk import HERE, HomeOption, JsonOption, home_at, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.node.lists import check_target
from client.roles import Actor, require_for
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from federation.document import load_yaml
from federation.encoding import sha256_hex
from federation.errors import DocumentError, PolicyError
from federation.files import atomic_write
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE

NameArgument = Annotated[str, typer.Argument(help="The campaign's name.")]
Column = Annotated[str | None, typer.Option(help="The file's own column for it.", show_default=False)]
HTML = ".html"


def outcomes_command(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="What came back: .csv or .parquet, one row a customer.")],
    mapping: Annotated[Path | None, typer.Option(help="A YAML file that says which column holds what.")] = None,
    customer: Column = None,
    conversion: Column = None,
    visit: Column = None,
    retained: Column = None,
    spend: Column = None,
    date: Column = None,
    contacted: Column = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out rows that do not fit instead of refusing the file.")
    ] = False,
    replace_all: Annotated[
        bool, typer.Option("--replace", help="Take this file instead of the one that was brought in before.")
    ] = False,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the outcomes in: who converted, visited, stayed, and spent how much. The same file again changes nothing.

    For analysts. The file must speak of the control group as of everybody
    else. Rows that do not fit are named, each kind with its count, and
    the file is refused; with --leave-out they are left out and the record
    says so. A member without a row counts as one without an outcome.
    """
    place = home_at(home)
    actor = require_for(place, "node campaign")
    check_unlocked(place)
    roles = {"customer": customer, "conversion": conversion, "visit": visit, "retained": retained, "spend": spend}
    found = _mapping(mapping, roles | {"date": date, "contacted": contacted})
    keys = unlock(place, passphrase_file, passphrase_fd)
    campaign = open_campaign(place, keys, name, whole=False)
    digest = _digest(file)
    if _is_in(campaign, digest, found, replace_all):
        store.strip(
            place.folder(store.FOLDER), campaign.stem, keys.store, None
        )  # finishes a writing that was interrupted
        typer.echo(f"These outcomes of {name} are in already; nothing was changed.")
        return
    window, excluded = campaign.record.design.window, open_withdrawals(place, keys.store).excluded
    read = read_outcomes(file, found, load_node(place.node_file), campaign.members, window, excluded)
    if not leave_out:
        refuse_problems(read)
    _note(place, keys, actor, f"outcomes of {store.called(campaign.stem)}", read.matched)
    kept = _outcome_record(read, digest, found)
    record = campaign.record.model_copy(update={"outcomes": kept})
    store.write_campaign(
        place.folder(store.FOLDER), replace(campaign, record=record, outcomes=read.outcomes), keys.store
    )
    _say_read(name, kept, as_json)


def report_command(
    name: NameArgument,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page with pictures (0600).", show_default=False)
    ] = None,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Report what the campaign changed: each arm against control, by stratum, in money, and the model against chance.

    For analysts. Counts and rates of your own customers, for this
    institution alone; it names nobody. The ledger notes the look first.
    """
    place = home_at(home)
    actor = require_for(place, "node campaign")
    check_unlocked(place)
    if html is not None:
        check_target(html, (HTML,))
    keys = unlock(place, passphrase_file, passphrase_fd)
    campaign = open_campaign(place, keys, name)
    report = report_of(campaign)
    _note(place, keys, actor, f"report of {store.called(campaign.stem)}", len(campaign.members))
    if html is not None:
        # matplotlib takes seconds to import, and no other command of the group needs it
        from client.campaign.page import page_of  # noqa: PLC0415

        atomic_write(html, page_of(report), PRIVATE)
        typer.echo(f"Wrote {html}.")
    elif as_json:
        print_json(report.as_dict())
    else:
        _print_report(Console(), report)


def table_command(
    name: NameArgument,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Write a closed campaign as a table of the campaign contract, and print the lines that map it in node.yaml.

    For analysts. The table lies under the home in clear (0600), like the
    tables that node.yaml maps; what a federated study counts in it is noised
    and paid for as always. Consent is asked of node.yaml's consent table when
    it is read; customers who withdraw later are taken out of the file.
    """
    place = home_at(home)
    actor = require_for(place, "node campaign")
    check_unlocked(place)
    keys = unlock(place, passphrase_file, passphrase_fd)
    campaign = open_campaign(place, keys, name)
    table = table_of(campaign)
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        what = f"table of {store.called(campaign.stem)}"
        ledger.access("export", what, actor=actor.account, role=actor.role, count=table.num_rows)
    path = place.folder(store.FOLDER) / f"{campaign.stem}{store.TABLE}"
    atomic_write(path, store.parquet_bytes(table), PRIVATE)
    lines = mapping_lines(campaign, str(path.relative_to(place.root)))
    if as_json:
        print_json({"file": str(path), "rows": table.num_rows, "mapping": lines})
        return
    typer.echo(f"Wrote {path}: {table.num_rows} customers, in clear. Paste under `contracts:` in node.yaml:\n\n{lines}")


def _mapping(path: Path | None, roles: dict[str, str | None]) -> OutcomeMapping:
    """Return the mapping of a file, or the usual one, with the columns that options name."""
    before = OutcomeMapping() if path is None else load_yaml(path, OutcomeMapping)
    given = {role: own for role, own in roles.items() if own is not None}
    try:
        return OutcomeMapping.model_validate(before.model_dump() | given)
    except ValidationError as error:
        raise DocumentError("CSL-C791", "A column's name does not fit.", "Name the file's own columns.") from error


def open_campaign(home: Home, keys: Keys, name: str, *, whole: bool = True) -> Campaign:
    """Open a campaign without those who withdrew. Raises as `store.stem_named` and `store.read_campaign`."""
    folder = home.folder(store.FOLDER)
    found = store.read_campaign(folder, store.stem_named(folder, name), keys.store, whole=whole)
    return found.without(open_withdrawals(home, keys.store).excluded)


def _digest(path: Path) -> str:
    try:
        return sha256_hex(path.read_bytes())
    except OSError as error:
        raise DocumentError(
            "CSL-C791", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error


def _is_in(campaign: Campaign, digest: str, mapping: OutcomeMapping, replace_all: bool) -> bool:
    """Whether these very outcomes are in; refuses others of a closed campaign, and those that would replace some unasked."""
    before = campaign.record.outcomes
    if before is not None and (before.file_sha256, before.mapping_sha256) == (digest, mapping.digest()):
        return True
    if campaign.record.closed is not None:
        raise PolicyError(
            "CSL-C795",
            f"The campaign {campaign.name} is closed: its outcomes stay as they are.",
            "Report on it as it is.",
        )
    if before is not None and not replace_all:
        raise PolicyError(
            "CSL-C796",
            f"Other outcomes of {campaign.name} are in, read {before.read}.",
            "Say --replace to take these instead.",
        )
    return False


def _outcome_record(read: Read, digest: str, mapping: OutcomeMapping) -> OutcomeRecord:
    return OutcomeRecord(
        file_sha256=digest,
        mapping_sha256=mapping.digest(),
        read=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=read.rows,
        matched=read.matched,
        left_out=read.left_out | ({WITHDREW: read.withdrew} if read.withdrew else {}),
        noted=read.noted,
        spoken_of=read.spoken_of,
    )


def _note(home: Home, keys: Keys, actor: Actor, what: str, count: int) -> None:
    with Ledger.open(home.ledger_file, keys.identity) as ledger:
        ledger.access("view", what, actor=actor.account, role=actor.role, count=count)


def _say_read(name: str, kept: OutcomeRecord, as_json: bool) -> None:
    if as_json:
        print_json({"campaign": name, **kept.model_dump(mode="json")})
        return
    typer.echo(f"Outcomes of {name} are in: {kept.matched:,} of {kept.rows:,} rows are about members.")
    for what, count in (kept.left_out | kept.noted).items():
        typer.echo(f"  {what}: {count:,}")


def _print_report(console: Console, report: Report) -> None:
    for found in tables_of(report):
        table = Table(title=escape(found.title), title_justify="left")
        for number, cell in enumerate(found.head):
            table.add_column(escape(cell), justify="left" if number == 0 else "right")
        for row in found.rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    for line in lines_of(report):
        console.print(f"- {line}", markup=False, highlight=False)
    console.print(report.methods, style="dim", markup=False, highlight=False)
