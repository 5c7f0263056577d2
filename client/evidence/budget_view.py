"""The budget in a report: what counts against each, by purpose, and by month."""

from collections.abc import Sequence
from typing import Any

from client.evidence.gather import Gathered, MonthSpent
from client.words import percent, plain
from federation.errors import PolicyError
from privacy.cost import NOTHING, Cost
from privacy.filter import Limits, cost_epsilon
from privacy.ledger.entries import ACCOUNTS
from privacy.ledger.reader import Spending
from privacy.ledger.state import State

ACCOUNT_NAMES = {"training": "customers who train", "holdout": "customers who are held out"}


def budget_rows(spent: Sequence[Spending]) -> list[dict[str, Any]]:
    """Return one row for each account and budget."""
    return [
        {
            "account": ACCOUNT_NAMES[item.account],
            "budget": item.budget,
            "allowed": plain(item.epsilon),
            "delta": plain(item.delta),
            "spent": enforced(item, item.spent),
            "reserved": enforced(item, item.reserved),
            "used": enforced(item, item.used),
            "left": plain(item.left_epsilon),
            "share": percent(item.bound.share(item.used)),
        }
        for item in spent
    ]


def enforced(item: Spending, cost: Cost) -> str:
    """Return the epsilon that a cost enforces at a budget's delta; a plan may cost more than the filter can say."""
    try:
        return plain(item.epsilon_of(cost))
    except PolicyError:
        return "as planned"


def purpose_rows(gathered: Gathered, state: State) -> list[dict[str, Any]]:
    """Return one row for each purpose for which something was reserved in the stretch, with what it alone enforces."""
    rows = []
    for purpose, sums in sorted(gathered.purposes.items()):
        rows.append(
            {
                "purpose": purpose,
                "studies": sums.studies,
                "releases": sums.releases,
                "epsilons": [_alone(sums, name, state.limits) for name in ACCOUNTS],
                "shares": _shares(sums, state.limits),
            }
        )
    return rows


def month_rows(gathered: Gathered, state: State) -> list[dict[str, Any]]:
    """Return one row for each month in which something was reserved or left."""
    return [
        {
            "month": f"{year:04d}-{month:02d}",
            "studies": sums.studies,
            "releases": sums.releases,
            "shares": _shares(sums, state.limits),
        }
        for (year, month), sums in sorted(gathered.months.items())
    ]


def _shares(sums: MonthSpent, limits: Limits | None) -> list[str]:
    """Return what was reserved as a share of the life budget, by account."""
    if limits is None:
        return ["" for _ in ACCOUNTS]
    return [percent(limits.life.share(sums.costs[name])) for name in ACCOUNTS]


def _alone(sums: MonthSpent, account: str, limits: Limits | None) -> str:
    cost = sums.costs[account]
    if limits is None or cost == NOTHING:
        return "0"
    try:
        return plain(cost_epsilon(limits.filter, cost, limits.life.delta))
    except PolicyError:  # more than the life budget's delta covers, which only a plan's studies or a forger reach
        return "more"
