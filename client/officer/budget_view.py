"""What was spent, what is reserved, what is left: the figures behind `consilience officer budget`, and their tables."""

import math
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.officer.study_view import figure
from client.outlook import enforced, used_epsilon
from client.words import moment_of
from privacy import accounting
from privacy.cost import NOTHING
from privacy.ledger import LedgerReader, Spending
from privacy.ledger.entries import Close, Reserve
from privacy.ledger.state import State

_BAR = 20
_WIDE = 110
_MOST_SECRET = 20


def budget_facts(reader: LedgerReader, now: int, tight: bool) -> dict[str, Any]:
    """Return the budget of both accounts at `now` (milliseconds since 1970) as a mapping; `tight` adds the PLD's figures.

    `budgets` is empty before a policy is in force.
    """
    state = reader.state()
    rows = [_row(item, state) for item in reader.spending(now)]
    if tight:
        for row in rows:
            if row["budget"] == "life":
                row["tight_epsilon"] = _tight(reader, row)
    policy, limits = state.policy, state.limits
    return {
        "member": state.member,
        "time": moment_of(max(now, state.ts)),
        "policy": None if policy is None else {"version": policy.version, "digest": state.policy_digest},
        "mode": None if policy is None else policy.budget.mode,
        "filter": None if limits is None else limits.filter.model_dump(),
        "exhausted": state.exhausted,
        "budgets": rows,
        "slots": slot_rows(reader, state),
        "secret": secret_rows(reader) if tight else None,
    }


def secret_rows(reader: LedgerReader) -> list[dict[str, Any]]:
    """Return the studies that were added up in secret and count, in the order in which they were granted: the epsilon that is charged,
    and apart from it what one's own noise alone would hold on each account from which something left, or may; reads the whole ledger."""
    held: dict[str, dict[str, Any]] = {}
    for entry in reader.entries(kinds=("reserve", "close")):
        body = entry.body
        if isinstance(body, Reserve) and body.data.if_broken is not None:
            broken = {claim.account: claim.epsilon for claim in body.data.if_broken}
            data = body.data
            held[body.rid] = {
                "study": data.study,
                "digest": body.rid,
                "epsilon": data.epsilon,
                "delta": data.delta,
                "if_broken": broken,
            }
        elif isinstance(body, Close) and body.rid in held:
            for account in body.data.returned:
                del held[body.rid]["if_broken"][account]
    return [row for row in held.values() if row["if_broken"]]


def _row(item: Spending, state: State) -> dict[str, Any]:
    used = used_epsilon(item, state)
    reserved = used if item.spent == NOTHING else enforced(item, item.reserved)
    return {
        "account": item.account,
        "budget": item.budget,
        "purpose": item.purpose,
        "delta": item.delta,
        "allowed_epsilon": item.epsilon,
        "spent_epsilon": enforced(item, item.spent),
        "reserved_epsilon": reserved,
        "used_epsilon": used,
        "left_epsilon": item.left_epsilon,
        "used_share": item.bound.share(item.used),
        "capacity": item.bound.capacity.model_dump(),
        "spent": item.spent.model_dump(),
        "reserved": item.reserved.model_dump(),
        "tight_epsilon": None,
    }


def _tight(reader: LedgerReader, row: dict[str, Any]) -> float:
    return accounting.epsilon(reader.events(row["account"]), row["delta"])


def slot_rows(reader: LedgerReader, state: State) -> list[dict[str, Any]]:
    """Return the slots of the plan in force, and by which open study each is filled; none in the open mode."""
    plan = state.plan
    if plan is None:
        return []
    held = {rid: reader.reservation(rid) for rid in plan.open}
    filled = {item.data.slot: item.data.study for item in held.values() if item is not None}
    return [
        {
            **slot.model_dump(),
            "taken": slot.id in plan.taken,
            "study": filled.get(slot.id),
        }
        for slot in plan.slots
    ]


def print_budget(console: Console, facts: dict[str, Any], left_out: str | None) -> None:
    """Print the budget as tables; `left_out` says why there is no tight figure."""
    rows = facts["budgets"]
    if not rows:
        console.print("No policy is in force in this ledger yet, so nothing can be spent.")
        return
    deltas = sorted({row["delta"] for row in rows})
    title = f"Privacy budget of {facts['member']} on {facts['time'][:10]} (UTC): epsilon"
    if len(deltas) == 1:
        title += f" at delta {deltas[0]:g}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("account", no_wrap=True)
    table.add_column("budget", overflow="fold", min_width=8)
    for column in ("allowed", "spent", "reserved", "used", "tight*", "left", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        name = row["budget"] if len(deltas) == 1 else f"{row['budget']} (delta {row['delta']:g})"
        figures = [figure(row[f"{each}_epsilon"]) for each in ("allowed", "spent", "reserved", "used")]
        tight = "" if row["tight_epsilon"] is None else f"{row['tight_epsilon']:.3f}"
        left = f"{row['left_epsilon']:.3f}"
        table.add_row(row["account"], name, *figures, tight, left, bar(row["used_share"], console.width >= _WIDE))
    console.print(table)
    if facts["exhausted"]:
        console.print("[red]Restored from a copy that may lack entries: nothing remains to spend.[/]")
    if facts["slots"]:
        console.print(slot_table(facts["slots"]))
    if facts["secret"]:
        console.print(secret_table(facts["secret"]))
        console.print(_SECRET)
    console.print(_NOTES)
    console.print(left_out or _TIGHT)


_NOTES = (
    "Used is spent and reserved together; epsilons do not add up like money, shares of a budget do. Reserved is what open "
    "studies hold until they are closed. Left is the largest that one more study could have. Nobody is in both accounts, so "
    "that each has its whole budget."
)
_TIGHT = (
    "* For information: the privacy loss distribution's figure for all that is used. What is enforced is a little above "
    "it, because it must hold whatever studies come later."
)


_SECRET = (
    "Granted is what the budget is charged, and holds as long as the protocol does. Should it fail, the own noise alone holds the other "
    "figures. The two are never added to each other."
)


def secret_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of studies that were added up in secret: the newest, where there are many."""
    more = f", the newest {_MOST_SECRET} of {len(rows)}" if len(rows) > _MOST_SECRET else ""
    table = Table(
        title=f"Studies added up in secret{more}: epsilon, and what it would be should the protocol fail",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("study", overflow="fold")
    for column in ("granted", "delta", "if it failed: training", "holdout"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows[-_MOST_SECRET:]:
        broken = [row["if_broken"].get(account) for account in ("training", "holdout")]
        figures = ["-" if value is None else f"{value:.3f}" for value in broken]
        table.add_row(escape(row["study"]), f"{row['epsilon']:g}", f"{row['delta']:g}", *figures)
    return table


def bar(share: float, drawn: bool) -> str:
    """Write the used part of a budget in per cent, rounded up; `drawn` puts a bar before it."""
    full = min(round(share * _BAR), _BAR)
    percent = f"{math.ceil(share * 100 - 1e-9)}%"
    return f"{'█' * full}{'░' * (_BAR - full)} {percent:>4}" if drawn else percent


def slot_table(slots: list[dict[str, Any]]) -> Table:
    """Return the table of a plan's slots."""
    table = Table(title="The plan's slots, paid for when it came into force", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("slot", "purpose", "contract"):
        table.add_column(column, overflow="fold")
    for column in ("noise >=", "rate <=", "steps <=", "counts' sigma >="):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("filled by", overflow="fold")
    for slot in slots:
        by = (slot["study"] or "a closed study") if slot["taken"] else "free"
        numbers = (
            f"{slot['noise_multiplier']:.3g}",
            f"{slot['sampling_rate']:g}",
            str(slot["steps"]),
            f"{slot['histogram_sigma']:.3g}",
        )
        table.add_row(slot["id"], slot["purpose"], slot["contract"], *numbers, by)
    return table
