"""`consilience node campaign`: draw a campaign with a control group, look at it, close it. Nothing of it leaves the institution."""

import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import lists
from client.campaign import store
from client.campaign.draw import CONTROL, Member
from client.campaign.frame import (
    Frame,
    OverlapRule,
    check_name,
    draw_campaign,
    head,
    listed_by_list,
    listed_by_rank,
    running,
    segments_of,
)
from client.campaign.record import CampaignRecord, Design, Window, parse_arms, parse_day
from client.campaign.store import Campaign
from client.desk import HERE, HomeOption, JsonOption, home_at, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.node.campaign_results import open_campaign, outcomes_command, report_command, table_command
from client.node.lists import check_target
from client.node.scores import EVERYBODY, adopted, rank
from client.node.standing import standing
from client.roles import require_for
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from federation.encoding import sha256_hex
from federation.errors import DataError, DocumentError, PolicyError, StorageError
from federation.files import atomic_write
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE

NameArgument = Annotated[str, typer.Argument(help="The campaign's name.")]
PIPE = "-"
EXPORTED = ("customer", "arm", "contact_from", "contact_until")

app = typer.Typer(
    no_args_is_help=True,
    help="Campaigns with a control group: draw whom to approach, bring the outcomes in, and see what the approach changed.",
)
app.command("outcomes")(outcomes_command)
app.command("report")(report_command)
app.command("table")(table_command)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The campaign's name: small letters, digits and _.")],
    study: Annotated[str, typer.Option(help="The study whose model made the list.")],
    arms: Annotated[
        str, typer.Option(help="Arms and their shares, as mail=0.4,call=0.4; the rest is the control group.")
    ],
    contact_from: Annotated[str, typer.Option(help="The first day of contact, as 2026-04-01.")],
    contact_until: Annotated[str, typer.Option(help="The last day of contact.")],
    outcome_until: Annotated[str, typer.Option(help="The last day on which an outcome counts.")],
    cost: Annotated[
        str, typer.Option(help="What a contact costs: one number, or one for each arm as mail=0.6,call=4.")
    ],
    random_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the members drawn by chance from those not on the list.")
    ] = 0.2,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Take the first so many of today's ranking instead of the newest name list."),
    ] = None,
    seed: Annotated[str | None, typer.Option(help="What the draw is keyed by; drawn and kept unless given.")] = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            help="Your own segments, CSV customer,segment; by the delivered rules otherwise.", show_default=False
        ),
    ] = None,
    unit: Annotated[str, typer.Option(help="The unit of costs and spend.")] = "euro",
    allow_overlap: Annotated[
        bool,
        typer.Option("--allow-overlap", help="Draw customers of other running campaigns too; the record notes it."),
    ] = False,
    leave_out_running: Annotated[
        bool, typer.Option("--leave-out-running", help="Draw only from customers whom no running campaign holds.")
    ] = False,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a campaign: who is approached by which arm, and who is held back as control.

    For analysts. All customers who agreed to be contacted are scored anew;
    those on the model's list, and a share drawn by chance from the others,
    are split into arms and control within score decile and segment. The draw
    follows from name and seed, whose digest the ledger notes before it is
    kept: a draw that was tried and thrown away stands there as well.
    """
    place = home_at(home)
    actor = require_for(place, "node campaign")
    check_unlocked(place)
    when = datetime.now(UTC)
    window = (contact_from, contact_until, outcome_until)
    design = _design(name, arms, cost, random_share, seed or secrets.token_hex(16), window, unit)
    folder = place.folder(store.FOLDER)
    check_name(folder, name)
    keys = unlock(place, passphrase_file, passphrase_fd)
    frame = _frame(place, keys, study, top, segments)
    campaign = draw_campaign(design, frame, _rule(allow_overlap, leave_out_running), when)
    seeded = sha256_hex(design.seed.encode())  # the seed itself would leave with the ledger's entries
    what = f"{store.called(campaign.stem)}: draw from {frame.listed_by}, by the seed whose SHA-256 is {seeded}"
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        ledger.access("view", what, actor=actor.account, role=actor.role, count=len(campaign.members))
    store.write_campaign(folder, campaign, keys.store)
    # Whoever withdrew meanwhile is taken off by this, or by the withdrawal, which goes through the campaigns after the register.
    store.strip(folder, campaign.stem, keys.store, open_withdrawals(place, keys.store).excluded)
    _say([store.read_record(folder, campaign.stem, keys.store)], as_json)


@app.command("list")
def list_command(
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Show the campaigns: state, arms, window, how many members. Names no customer."""
    place = home_at(home)
    require_for(place, "node campaign")
    keys = unlock(place, passphrase_file, passphrase_fd)
    folder = place.folder(store.FOLDER)
    _say([store.read_record(folder, stem, keys.store) for stem in store.stems(folder)], as_json)


@app.command("show")
def show(
    name: NameArgument,
    home: HomeOption = HERE,
    top: Annotated[int, typer.Option(min=1, help="How many members to show.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write in clear (0600): .csv or .parquet; - for CSV to a pipe.", show_default=False
        ),
    ] = None,
    with_control: Annotated[
        bool, typer.Option("--with-control", help="The control group as well: to measure outcomes, never to approach.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Show a campaign and whom it approaches; with --out write all of them, for the system that approaches them.

    For analysts. The control group is left out unless it is asked for. The
    ledger notes the look before a customer is shown. Customers who withdrew
    are left out; write the file anew after a withdrawal.
    """
    place = home_at(home)
    actor = require_for(place, "node campaign")
    check_unlocked(place)
    if out is not None and str(out) != PIPE:
        check_target(out, (lists.CSV, lists.PARQUET))
    keys = unlock(place, passphrase_file, passphrase_fd)
    campaign = open_campaign(place, keys, name)
    chosen = [member for member in campaign.members if with_control or member.arm != CONTROL]
    shown = chosen if out is not None else chosen[:top]
    what = store.called(campaign.stem)
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        ledger.access("view" if out is None else "export", what, actor=actor.account, role=actor.role, count=len(shown))
    if out is not None:
        _export(out, campaign, shown)
        return
    if as_json:
        rows = [{"customer": item.customer, "arm": item.arm, "decile": item.decile} for item in shown]
        print_json({"campaign": plain_record(campaign.record), "rows": rows})
        return
    _say([campaign.record], as_json=False)
    table = Table("customer", "arm", "chosen by", "decile", "segment", title=escape(campaign.name))
    for item in shown:
        table.add_row(escape(item.customer), item.arm, item.chosen_by, str(item.decile), item.segment)
    Console().print(table)


@app.command("close")
def close(
    name: NameArgument,
    without_outcomes: Annotated[
        bool, typer.Option("--without-outcomes", help="Give the campaign up, although no outcomes are in.")
    ] = False,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Close a campaign: its outcomes stay as they are, and its customers are free for others. It cannot be undone."""
    place = home_at(home)
    require_for(place, "node campaign")
    check_unlocked(place)
    keys = unlock(place, passphrase_file, passphrase_fd)
    folder = place.folder(store.FOLDER)
    campaign = open_campaign(place, keys, name)
    if campaign.record.closed is None:
        if campaign.outcomes is None and not without_outcomes:
            raise PolicyError(
                "CSL-C787",
                f"No outcomes of {name} are in.",
                "Bring them in by `consilience node campaign outcomes`, or give it up by --without-outcomes.",
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        closed = store.read_record(folder, campaign.stem, keys.store).model_copy(update={"closed": now})
        store.write_record(folder, Campaign(campaign.stem, closed, ()), keys.store)
    typer.echo(f"The campaign {name} is closed.")


def plain_record(record: CampaignRecord) -> dict[str, Any]:
    """Return a record as a mapping for JSON; counts and settings, no customer."""
    return {"status": record.status, **record.model_dump(mode="json")}


def _design(
    name: str, arms: str, cost: str, random_share: float, seed: str, days: tuple[str, str, str], unit: str
) -> Design:
    first, last, counted = (
        parse_day(text, what)
        for text, what in zip(days, ("contact-from", "contact-until", "outcome-until"), strict=True)
    )
    try:
        window = Window(contact_from=first, contact_until=last, outcome_until=counted)
        return Design(
            name=name, arms=parse_arms(arms, cost), random_share=random_share, seed=seed, window=window, unit=unit
        )
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'design'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise DocumentError(
            "CSL-C782", f"The campaign's design does not fit. {found}.", "Correct it; nothing was drawn."
        ) from error


def _rule(allow: bool, leave_out: bool) -> OverlapRule:
    if allow and leave_out:
        raise DocumentError(
            "CSL-C782",
            "The campaign's design does not fit. Both --allow-overlap and --leave-out-running are given.",
            "Give one of the two options.",
        )
    return "allow" if allow else "leave out" if leave_out else "refuse"


def _frame(home: Home, keys: Keys, study: str, top: int | None, table: Path | None) -> Frame:
    chosen, decision = adopted(home, study, keys.store)
    excluded = open_withdrawals(home, keys.store).excluded
    listed: frozenset[str] | None = None
    listed_by = ""
    if top is None:
        found = lists.newest(home.folder("lists"), keys.store, study)
        if found is None:
            raise StorageError("CSL-C613", "There is no name list yet.", "Say how many to take by --top.")
        if found.record.model != decision.model:
            raise DataError(
                "CSL-C789", "The newest name list is not by the model in use.", "Say how many to take by --top instead."
            )
        listed = frozenset(line.customer for line in found.without(excluded).listed)
        listed_by = listed_by_list(found.stem)
    ranked = rank(home, keys, chosen, decision, EVERYBODY).ranked
    if top is not None:
        listed, listed_by = head(ranked, top), listed_by_rank(top)
    assert listed is not None
    placements = standing(home, keys, chosen.spec.draft.contract, table)
    segments = segments_of(placements, (line.customer for line in ranked))
    others = running(home.folder(store.FOLDER), keys.store, excluded)
    return Frame(study, decision.model, ranked, listed, listed_by, segments, placements.placed_by, others)


def _export(out: Path, campaign: Campaign, shown: Sequence[Member]) -> None:
    window = campaign.record.design.window
    days = (window.contact_from.isoformat(), window.contact_until.isoformat())
    rows: list[lists.Row] = [(member.customer, member.arm, *days) for member in shown]
    if str(out) == PIPE:
        sys.stdout.buffer.write(lists.csv_table(EXPORTED, rows))
        return
    content = lists.csv_table(EXPORTED, rows) if out.suffix == lists.CSV else lists.parquet_table(EXPORTED, {}, rows)
    atomic_write(out, content, PRIVATE)
    typer.echo(f"Wrote {out}: {len(shown)} customers, in clear. Delete it when it was used.")


def _say(records: Sequence[CampaignRecord], as_json: bool) -> None:
    if as_json:
        print_json({"campaigns": [plain_record(record) for record in records]})
        return
    table = Table("campaign", "study", "state", "contacts", "outcomes until", "members", "seed")
    for record in records:
        window = record.design.window
        members = ", ".join(f"{name} {count:,}" for name, count in record.members.items())
        table.add_row(
            record.design.name,
            escape(record.source.study),
            record.status,
            f"{window.contact_from} to {window.contact_until}",
            str(window.outcome_until),
            members,
            escape(record.design.seed),
        )
    Console().print(table)
