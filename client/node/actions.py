"""`consilience node actions`: every scored customer with her next action; whoever looks stands in the ledger before anything is shown."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import lists
from client.actions import COLUMNS, KINDS, ActionLine, Summary, ordered, plain_action, plan, rows_of, summarise
from client.changes import Compared, in_words
from client.decisions import Decision
from client.desk import HERE, HomeOption, JsonOption, home_at, print_json
from client.home import Home, check_unlocked
from client.node.lists import before_words, change_words, check_target, plain_compared
from client.node.scores import EVERYBODY, SHOWN, SinceOption, adopted, rank
from client.node.standing import PIPE, standing
from client.roles import Actor, require_for
from client.strategy import NOTHING, strategy_of
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from federation.files import atomic_write
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE


def actions(
    study: Annotated[str, typer.Option(help="The study's name: its newest adopted model scores.")],
    home: HomeOption = HERE,
    placed: Annotated[
        Path | None,
        typer.Option(
            help="A CSV table of your own: customer, and any of segment, stage, value; - reads it from a pipe.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        Literal["score", "value"], typer.Option(help="What comes first: probability or value at risk.")
    ] = "score",
    channel: Annotated[
        str | None, typer.Option(help="Only customers with an action through this channel.", show_default=False)
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Only so many; 10 on the screen, all in a file.", show_default=False)
    ] = None,
    since: SinceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write in clear (0600): .csv or .parquet, or .json for the sums alone; - for CSV to a pipe.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Say for every scored customer what to do next: probability, what changed, why, value at risk, and product, channel, message.

    For analysts. Everybody who agreed to be contacted is scored anew. The
    map strategies/<contract>.yaml in the home decides; without one nobody
    has an action. Segments, stages and lifetime values come from delivered
    reports, or from a table of your own; without either the money that
    node.yaml maps is what a customer is worth.
    Nothing leaves, and nothing is spent. The ledger notes who looked, and
    at how many, before anything is shown or written; customers who withdrew
    are left out. A file is yours to protect and to delete.
    """
    place = home_at(home)
    actor = require_for(place, "node actions")
    check_unlocked(place)
    if out not in (None, PIPE):
        check_target(out)
    keys = unlock(place, passphrase_file, passphrase_fd)
    chosen, decision = adopted(place, study, keys.store)
    strategy = strategy_of(place, chosen.spec.draft.contract)
    placements = standing(place, keys, chosen.spec.draft.contract, placed)
    ranking = rank(place, keys, chosen, decision, EVERYBODY, since)
    lines = plan(ranking.ranked, strategy, placements)
    summary = summarise(lines, strategy, placements)
    found = [item for item in ordered(lines, by) if channel is None or (item.action and item.action.channel == channel)]
    shown = found[: top or (SHOWN if out is None else EVERYBODY)]
    if out is None:
        _note(place, keys, actor, "view", decision, len(shown))
        _show(study, decision, shown, summary, ranking.compared, as_json)
    else:
        _export(place, keys, actor, decision, shown, summary, out, as_json)


def _note(home: Home, keys: Keys, actor: Actor, look: Literal["view", "export"], decision: Decision, rows: int) -> None:
    called = f"next actions of study {decision.study}, model {decision.model[:8]}"
    with Ledger.open(home.ledger_file, keys.identity) as ledger:
        ledger.access(look, called, actor=actor.account, role=actor.role, count=rows)


def _export(
    home: Home,
    keys: Keys,
    actor: Actor,
    decision: Decision,
    shown: list[ActionLine],
    summary: Summary,
    out: Path,
    as_json: bool,
) -> None:
    suffix = lists.CSV if out == PIPE else out.suffix
    if suffix == lists.RECORD:
        content = summary.model_dump_json(indent=2).encode()
    elif suffix == lists.PARQUET:
        content = lists.parquet_table(COLUMNS, KINDS, rows_of(shown))
    else:
        content = lists.csv_table(COLUMNS, rows_of(shown))
    rows = 0 if suffix == lists.RECORD else len(shown)
    _note(home, keys, actor, "export", decision, rows)
    if out == PIPE:
        sys.stdout.buffer.write(content)
        return
    atomic_write(out, content, PRIVATE)
    if as_json:
        print_json({"study": decision.study, "model": decision.model, "rows": rows, "file": str(out)})
    else:
        typer.echo(f"Wrote {out}: {rows} customers with their next actions, in clear. Delete it when it was used.")


def _show(
    study: str,
    decision: Decision,
    shown: list[ActionLine],
    summary: Summary,
    compared: Compared | None,
    as_json: bool,
) -> None:
    if as_json:
        print_json(
            {
                "study": study,
                "model": decision.model,
                "compared": plain_compared(compared),
                "summary": summary.model_dump(mode="json"),
                "rows": [plain_action(item) for item in shown],
            }
        )
        return
    console = Console()
    console.print(_table(f"{study}, model {decision.model[:8]}", shown))
    for text in [*in_words(compared), *summary_words(summary)]:
        console.print(text, markup=False, highlight=False)


def _table(title: str, shown: list[ActionLine]) -> Table:
    table = Table(title=escape(title), show_lines=True, expand=True)
    for heading, ratio in (("customer", 3), ("score (decile)", 3), ("why, and what changed", 5), ("next action", 3)):
        table.add_column(heading, overflow="fold", ratio=ratio)
    for item in shown:
        line, action = item.line, item.action
        place = ", ".join(name for name in (item.place.segment, item.place.stage) if name) or "not placed"
        worth = "not known" if item.value_at_risk is None else f"{item.value_at_risk:,.2f} {item.tier}".rstrip()
        why = [*line.reasons, change_words(line)]
        cells = [
            f"{line.customer}\n{place}",
            f"{line.score:.3f} ({line.decile})\nbefore: {before_words(line)}\nat risk: {worth}",
            "\n".join(text for text in why if text),
            NOTHING if action is None else f"{action.product}\n{action.channel}\n{action.message}",
        ]
        table.add_row(*(escape(cell) for cell in cells))
    return table


def summary_words(summary: Summary) -> list[str]:
    """Return the sums as lines for a person."""
    lines = [_decided_words(summary)]
    for item in summary.actions:
        if item.product:
            lines.append(
                f"  {item.product} / {item.channel} / {item.message}: {item.customers} customers, value at risk "
                f"{item.value_at_risk:,.2f}"
            )
    if summary.top_decile_share is None or summary.largest_tenth_share is None:
        return [*lines, f"Value at risk: none ({summary.without_value} customers without a known worth)."]
    for what, groups in (("segment", summary.segments), ("stage", summary.stages)):
        named = [group for group in groups if group.name]
        if named:
            texts = [f"{group.name} {group.value_at_risk:,.2f} ({group.customers})" for group in named]
            lines.append(f"Value at risk (customers) by {what}: {', '.join(texts)}.")
    lines.append(f"Worth: {summary.worth_from}.")
    lines.append(
        f"Value at risk: {summary.value_at_risk:,.2f}; {summary.top_decile_share:.0%} of it in the tenth with the highest probability, "
        f"{summary.largest_tenth_share:.0%} in the tenth with the most at risk; {summary.without_value} customers without a known worth."
    )
    tiers = [f"{tier.name} {tier.customers} ({tier.value_at_risk:,.2f})" for tier in summary.tiers if tier.name]
    return [*lines, f"Tiers: {', '.join(tiers)}."]


def _decided_words(summary: Summary) -> str:
    if summary.strategy is None:
        return f"{summary.customers} customers. There is no strategy map for this contract, so nobody has an action: see docs/actions.md."
    text = (
        f"{summary.with_action} of {summary.customers} customers have an action by the map '{summary.strategy}'; "
        f"{summary.by_default} were decided by its default, {summary.placed} were placed."
    )
    if summary.placed_by:
        text = f"{text[:-1]} by {summary.placed_by}."
    if summary.unknown_place:
        text += f" {summary.unknown_place} stand in a segment or stage that the map does not list."
    return text
