"""The next action for every scored customer: what the strategy map says of her, and the value that is at risk.

Value at risk is probability x what she is worth: for churn what would go with her, for propensity what is to be won. All of it is made
at the institution, of its own customers, and stays there.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import pyarrow as pa

from client.lists import Row
from client.names import Listed
from client.placed import NOWHERE, Place, Placements
from client.strategy import DEFAULT, Decided, NextAction, Strategy
from federation.document import Document

# Tiers by cumulative share of the value at risk, the largest first: A holds the customers with its first half, B those up to
# four fifths, C the others whose value is at risk. An ABC analysis with round cuts.
TIERS = (("A", 0.5), ("B", 0.8), ("C", 1.0))
NO_TIER = ""
MAPPED = "the money that node.yaml maps"
TOP_TENTH = 10

COLUMNS = (
    *("customer", "rank", "score", "decile", "score_before", "decile_before", "risen", "fallen"),
    *("reason_1", "reason_2", "reason_3", "segment", "stage", "band", "value_at_risk", "tier"),
    *("product", "channel", "message"),
)
KINDS = {
    "rank": pa.int32(),
    "score": pa.float64(),
    "decile": pa.int8(),
    "score_before": pa.float64(),
    "decile_before": pa.int8(),
    "value_at_risk": pa.float64(),
}
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class ActionLine:
    """A scored customer with her place, what the map decided (None without a map), the value at risk and its tier."""

    line: Listed
    place: Place
    decided: Decided | None
    value_at_risk: float | None
    tier: str

    @property
    def action(self) -> NextAction | None:
        """What to do next; None to leave her in peace."""
        return None if self.decided is None else self.decided.action


class Total(Document):
    """Customers of one segment, stage, decile or tier: how many, their average probability, and the value at risk."""

    name: str
    customers: int
    mean_score: float
    value_at_risk: float


class ActionTotal(Document):
    """One action: for how many customers, and the value at risk that it reaches; without an action all three names are empty."""

    product: str
    channel: str
    message: str
    customers: int
    value_at_risk: float


class Summary(Document):
    """Counts and sums over all who were scored; local only.

    `top_decile_share` is the share of the value at risk in the tenth with the highest probability, `largest_tenth_share` that in the tenth
    with the largest value at risk; None where no value is at risk. `by_default` were decided by the map's default, `unknown_place` stand
    in a segment or stage that the map does not list, `nothing_at_risk` are worth nothing or less. `placed_by` and `worth_from` say what
    placed and valued the customers; None where nothing did.
    """

    strategy: str | None
    placed_by: str | None
    worth_from: str | None
    customers: int
    with_action: int
    by_default: int
    placed: int
    unknown_place: int
    without_value: int
    nothing_at_risk: int
    value_at_risk: float
    top_decile_share: float | None
    largest_tenth_share: float | None
    tiers: tuple[Total, ...]
    deciles: tuple[Total, ...]
    segments: tuple[Total, ...]
    stages: tuple[Total, ...]
    actions: tuple[ActionTotal, ...]


def plan(ranked: Sequence[Listed], strategy: Strategy | None, placements: Placements) -> list[ActionLine]:
    """Decide the next action of every customer, in the order given.

    Parameters
    ----------
    ranked:
        All who were scored: tiers are shares of the whole.
    strategy:
        The map; without one nobody has an action.
    placements:
        Where customers stand. Its worth, if it has any, takes the place of the money that the node maps: whoever is not in it has none.
    """
    at_risk = [_at_risk(line, placements) for line in ranked]
    return [
        ActionLine(line, place, _decided(strategy, place, line), value, tier)
        for line, value, tier in zip(ranked, at_risk, tiers(at_risk), strict=True)
        for place in (placements.place(line.customer),)
    ]


def tiers(at_risk: Sequence[float | None]) -> list[str]:
    """Return each customer's tier: A until half of the value at risk is reached, the largest first, then B until four fifths, then C.

    Whoever crosses a cut still belongs to the tier before it, so that A is never empty while there is value; equal values keep their
    order; whoever has nothing at risk has no tier.
    """
    found = [NO_TIER] * len(at_risk)
    order = sorted((row for row, value in enumerate(at_risk) if value), key=lambda row: -(at_risk[row] or 0.0))
    total = sum(value or 0.0 for value in at_risk)
    before = 0.0
    for row in order:
        share = before / total
        found[row] = next((name for name, cut in TIERS if share < cut), TIERS[-1][0])
        before += at_risk[row] or 0.0
    return found


def summarise(lines: Sequence[ActionLine], strategy: Strategy | None, placements: Placements) -> Summary:
    """Count customers and add up the value at risk by action, tier, decile, segment and stage; arguments as for `plan`."""
    total = _value(lines)
    tenth = -(-len(lines) // TOP_TENTH)
    largest = sorted((item.value_at_risk or 0.0 for item in lines), reverse=True)[:tenth]
    places = [item.place for item in lines]
    known = any(item.value_at_risk is not None for item in lines)
    return Summary(
        strategy=None if strategy is None else strategy.title,
        placed_by=placements.placed_by or None,
        worth_from=(placements.worth_from or MAPPED) if known else None,
        customers=len(lines),
        with_action=sum(item.action is not None for item in lines),
        by_default=sum(item.decided is not None and item.decided.rule == DEFAULT for item in lines),
        placed=sum(place != NOWHERE for place in places),
        unknown_place=0
        if strategy is None
        else sum(not strategy.knows(place.segment, place.stage) for place in places),
        without_value=sum(item.value_at_risk is None for item in lines),
        nothing_at_risk=sum(item.value_at_risk == 0.0 for item in lines),
        value_at_risk=total,
        top_decile_share=_value(item for item in lines if item.line.decile == 1) / total if total else None,
        largest_tenth_share=sum(largest) / total if total else None,
        tiers=_totals(lines, lambda item: item.tier),
        deciles=_totals(lines, lambda item: item.line.decile),
        segments=_totals(lines, lambda item: item.place.segment),
        stages=_totals(lines, lambda item: item.place.stage),
        actions=_actions(lines),
    )


def ordered(lines: Iterable[ActionLine], by: Literal["score", "value"]) -> list[ActionLine]:
    """Return lines by probability or by value at risk, the highest first; equal values stay by probability, unknown ones come last."""
    by_score = sorted(lines, key=lambda item: item.line.rank)
    if by == "score":
        return by_score
    return sorted(by_score, key=lambda item: (item.value_at_risk is None, -(item.value_at_risk or 0.0)))


def rows_of(lines: Iterable[ActionLine]) -> list[Row]:
    """Return lines as rows of `COLUMNS`."""
    plain = (plain_action(item) for item in lines)
    return [tuple(cells[name] for name in COLUMNS) for cells in plain]


def plain_action(item: ActionLine) -> dict[str, str | int | float | None]:
    """Return a line as a mapping with `COLUMNS` as its keys; without an action product, channel and message are empty."""
    line, action = item.line, item.action
    return {
        "customer": line.customer,
        "rank": line.rank,
        "score": line.score,
        "decile": line.decile,
        "score_before": line.score_before,
        "decile_before": line.decile_before,
        "risen": line.risen,
        "fallen": line.fallen,
        **{f"reason_{place}": reason for place, reason in enumerate(line.reasons, start=1)},
        "segment": item.place.segment,
        "stage": item.place.stage,
        "band": "" if item.decided is None else item.decided.band,
        "value_at_risk": item.value_at_risk,
        "tier": item.tier,
        "product": "" if action is None else action.product,
        "channel": "" if action is None else action.channel,
        "message": "" if action is None else action.message,
    }


def _at_risk(line: Listed, placements: Placements) -> float | None:
    """Return probability x worth, at least 0: whoever is worth nothing puts nothing at risk; None where the worth is not known."""
    if placements.worth is None:
        found = line.expected_value
    else:
        own = placements.worth_of(line.customer)
        found = None if own is None else line.score * own
    return None if found is None else max(0.0, found)


def _decided(strategy: Strategy | None, place: Place, line: Listed) -> Decided | None:
    return None if strategy is None else strategy.decide(place.segment, place.stage, line.score, line.decile)


def _value(lines: Iterable[ActionLine]) -> float:
    return sum(item.value_at_risk or 0.0 for item in lines)


def _grouped(lines: Iterable[ActionLine], key: Callable[[ActionLine], Key]) -> dict[Key, list[ActionLine]]:
    groups: dict[Key, list[ActionLine]] = defaultdict(list)
    for item in lines:
        groups[key(item)].append(item)
    return groups


def _totals(lines: Iterable[ActionLine], key: Callable[[ActionLine], str | int]) -> tuple[Total, ...]:
    groups = _grouped(lines, key)
    return tuple(
        Total(
            name=str(name),
            customers=len(groups[name]),
            mean_score=sum(item.line.score for item in groups[name]) / len(groups[name]),
            value_at_risk=_value(groups[name]),
        )
        for name in sorted(groups, key=lambda name: (name == NO_TIER, name))
    )


def _actions(lines: Iterable[ActionLine]) -> tuple[ActionTotal, ...]:
    """Add up by action, the one with most customers first; those without an action last."""
    groups = _grouped(lines, lambda item: item.action)
    order = sorted(groups, key=lambda action: (action is None, -len(groups[action]), str(action)))
    return tuple(
        ActionTotal(
            product="" if action is None else action.product,
            channel="" if action is None else action.channel,
            message="" if action is None else action.message,
            customers=len(groups[action]),
            value_at_risk=_value(groups[action]),
        )
        for action in order
    )
