"""Headline answers: sentences made from an answer's numbers, with intervals, and careful where an interval is wide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from federation.answers import Answer, AnswerTable, Row
from federation.queries import Query
from federation.segments import OTHER
from simulations.marketing_words import (
    MINUS,
    OUTCOMES,
    Words,
    apart,
    first_up,
    gained,
    is_share,
    is_wide,
    known,
    number,
    said,
    short,
    span,
)
from simulations.words import THIN

_HALF = 0.5
_ALL = "all"
_CAREFUL = "The intervals are wide: take this as a direction, not as a figure."


@dataclass(frozen=True)
class Seen:
    """An answer, its query, and the words for both."""

    answer: Answer
    query: Query
    words: Words

    def table(self, name: str) -> AnswerTable | None:
        """Return a table by name, or None."""
        return next((table for table in self.answer.tables if table.name == name), None)


def headline(seen: Seen) -> tuple[str, ...]:
    """Return what an answer says in one to four sentences; a kind that is not known here is told by its largest value."""
    found = _HEADLINES.get(seen.answer.kind, _plain)(seen)
    return tuple(sentence for sentence in found if sentence) or ("The noise leaves nothing to say here.",)


def label_of(seen: Seen) -> str:
    """Return the column that an answer is about: a tree's label, a mean's column."""
    return str(getattr(seen.query, "label", None) or getattr(seen.query, "of", ""))


def _plain(seen: Seen) -> list[str]:
    table = next((item for item in seen.answer.tables if known(item)), None)
    if table is None:
        return []
    rows = known(table)
    if len(rows) == 1:
        return [f"{table.title}: {said(rows[0], table.unit)}{_unit(table.unit)}."]
    top = max(rows, key=_value)
    return [
        f"{table.title}: the largest is {seen.words.labels(top.key)} with {said(top, table.unit)}{_unit(table.unit)}."
    ]


def _unit(unit: str) -> str:
    return "" if is_share(unit) or unit == "correlation" else f" {short(unit)}"


def _value(row: Row) -> float:
    return row.value if row.value is not None else 0.0


def _count(seen: Seen) -> list[str]:
    table = seen.answer.table("counts")
    if not table.key:
        return [f"{said(table.rows[0], 'customers')} customers agreed to be counted."]
    return _plain(seen)


def _mean(seen: Seen) -> list[str]:
    table, words = seen.answer.table("means"), seen.words
    rows, overall = known(table), seen.table("overall")
    if not table.key:
        return [_average(rows[0], table.unit, seen)] if rows else []
    lines = []
    if overall is not None and known(overall):
        lines.append(_average(overall.rows[0], overall.unit, seen))
    return [*lines, *_extremes(rows, table, words)]


def _average(row: Row, unit: str, seen: Seen) -> str:
    does = OUTCOMES.get(label_of(seen))
    if does is not None and is_share(unit):
        return f"{said(row, unit)} of all customers {does}."
    money = seen.words.money(_value(row), unit)
    return f"{first_up(seen.words.meaning(label_of(seen)))}: {said(row, unit)}{_unit(unit)} on average{money}."


def _extremes(rows: Sequence[Row], table: AnswerTable, words: Words) -> list[str]:
    """Say which group is highest and which is lowest, of those whose values are not mostly noise."""
    clear = [row for row in rows if not is_wide(row)]
    if len(clear) < 2:
        return ["The groups' intervals are too wide to compare them."]
    top, low = max(clear, key=_value), min(clear, key=_value)
    if not apart(top, low):
        return ["No group can be told from another: their intervals touch."]
    names = " and ".join(words.label(name) for name in table.key)
    left = len(table.rows) - len(clear)
    rest = f" {left} of {len(table.rows)} groups are too uncertain to be compared." if left else ""
    return [
        f"By {names} it is highest for “{words.labels(top.key)}”, {said(top, table.unit)}, and lowest for “{words.labels(low.key)}”, "
        f"{said(low, table.unit)}.{rest}"
    ]


def _histogram(seen: Seen) -> list[str]:
    table = seen.answer.table("shares")
    rows = known(table)
    if not rows:
        return []
    top = max(rows, key=_value)
    much = "more than half of all customers" if top.low is not None and top.low > _HALF else "the largest group"
    return [
        f"{first_up(seen.words.meaning(label_of(seen)))}: {much}, {said(top, table.unit)}, are at “{seen.words.labels(top.key)}”."
    ]


def _quantiles(seen: Seen) -> list[str]:
    table, words = seen.answer.table("quantiles"), seen.words
    if len(table.key) != 1:
        return _plain(seen)
    parts = [f"{level(row)} of customers are below {said(row, table.unit)}" for row in known(table)]
    return [f"{first_up(words.meaning(label_of(seen)))}: {'; '.join(parts)} {short(table.unit)}."] if parts else []


def level(row: Row) -> str:
    """Return a quantile's level as a percentage."""
    return f"{100.0 * float(row.key[0]):g}{THIN}%"


def _crosstab(seen: Seen) -> list[str]:
    strength, shares = seen.answer.table("cramers_v"), seen.answer.table("row_shares")
    names = " and ".join(seen.words.label(name) for name in shares.key)
    lines = [
        f"How closely {names} go together, from 0 (not at all) to 1 (one tells the other): {said(row, 'correlation')}."
        for row in known(strength)
    ]
    firm = [row for row in known(shares) if not is_wide(row)]
    if firm:
        top = max(firm, key=_value)
        lines.append(
            f"Of the customers with {seen.words.label(shares.key[0])} “{seen.words.label(top.key[0])}”, {said(top, shares.unit)} have "
            f"{seen.words.label(shares.key[1])} “{seen.words.label(top.key[1])}”."
        )
    return lines


def _correlation(seen: Seen) -> list[str]:
    table = seen.answer.table("correlations")
    clear = [row for row in known(table) if _beside_zero(row)]
    rest = len(table.rows) - len(clear)
    unsure = (
        f" {rest} of {len(table.rows)} pairs cannot be told from having nothing to do with each other." if rest else ""
    )
    scale = (
        "A correlation is 1 where two things rise together, 0 where one says nothing of the other, "
        f"{MINUS}1 where one falls as the other rises."
    )
    if not clear:
        return [f"No two of these can be shown to go together.{unsure}", scale]
    top = max(clear, key=lambda row: abs(_value(row)))
    firm = "" if not is_wide(top) else f" {_CAREFUL}"
    return [
        f"What goes together most: {' and '.join(seen.words.label(name) for name in top.key)}, {said(top, table.unit)}.{unsure}{firm}",
        scale,
    ]


def _beside_zero(row: Row) -> bool:
    return row.low is not None and row.high is not None and (row.low > 0.0 or row.high < 0.0)


def _rfm(seen: Seen) -> list[str]:
    shares, words = seen.answer.table("shares"), seen.words
    rows = known(shares)
    if not rows:
        return []
    top = max(rows, key=_value)
    lines = [f"The largest segment is “{words.label(top.key[0])}”, {said(top, shares.unit)} of all customers."]
    value = [row for row in value_shares(seen.answer) if row.value is not None]
    if value:
        best = max(value, key=_value)
        mine = next((row for row in rows if row.key == best.key), None)
        size = "" if mine is None else f" with {said(mine, shares.unit)} of the customers"
        lines.append(f"Most value is in “{words.label(best.key[0])}”: {said(best, 'share')} of it{size}.")
    return lines


def value_shares(answer: Answer) -> list[Row]:
    """Return each segment's share of the monetary total, with intervals that hold at least at the confidence."""
    totals = {row.key[0]: row for row in answer.table("value").rows if row.key[1] == "total"}
    whole = totals.pop(_ALL, None)
    if whole is None or not whole.value or not whole.low or not whole.high or whole.low <= 0.0:
        return []
    found = []
    for name, row in totals.items():
        if row.value is None or row.low is None or row.high is None:
            found.append(Row(key=(name,), value=None))
            continue
        share, low, high = row.value / whole.value, row.low / whole.high, row.high / whole.low
        found.append(Row(key=(name,), value=min(share, 1.0), low=max(low, 0.0), high=min(high, 1.0)))
    return found


def value_shares_exact(truth: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Return the same of exact totals."""
    whole = truth.get((_ALL, "total"))
    if not whole:
        return {}
    return {
        (key[0],): value / whole
        for key, value in truth.items()
        if len(key) == 2 and key[1] == "total" and key[0] != _ALL
    }


def _lifecycle(seen: Seen) -> list[str]:
    shares, moves, words = seen.answer.table("shares"), seen.answer.table("transitions"), seen.words
    start = [row for row in known(shares) if row.key[1] == "start"]
    if not start:
        return []
    top = max(start, key=_value)
    lines = [f"At the start most customers, {said(top, shares.unit)}, are “{words.label(top.key[0])}”."]
    for stage in dict.fromkeys(row.key[0] for row in moves.rows):
        rows = [row for row in known(moves) if row.key[0] == stage and not is_wide(row)]
        if rows and len(lines) < 4:
            where = max(rows, key=_value)
            lines.append(
                f"Of those “{words.label(stage)}” at the start, {said(where, moves.unit)} are {_destination(where, words)} at the end."
            )
    return lines


def _destination(row: Row, words: Words) -> str:
    if row.key[1] == OTHER:
        return "in no stage (no purchase in the window that ends then, or no rule takes them)"
    return "there still" if row.key[1] == row.key[0] else f"“{words.label(row.key[1])}”"


def _lifetime(seen: Seen) -> list[str]:
    total, value, words = seen.answer.table("total"), seen.answer.table("value"), seen.words
    lines = [
        f"All customers together are expected to have {said(row, total.unit)} days with a purchase in the next window."
        for row in known(total)
    ]
    firm = [row for row in known(value) if not is_wide(row) and row.key[-1]]
    if len(firm) > 1:
        top, low = max(firm, key=_value), min(firm, key=_value)
        lines.append(
            f"Worth most is a customer with {words.label(top.key[0])} days of purchase, the last one {words.label(top.key[1])} of "
            f"a window ago: {said(top, value.unit)} {value.unit}; least, one with {words.label(low.key[0])}, the last "
            f"{words.label(low.key[1])} of a window ago: {said(low, value.unit)}."
        )
    if any("misses" in note for note in seen.answer.notes):
        lines.append(
            "The model fits these customers only roughly (see the notes): good for putting them in order, not for a budget to the cent."
        )
    return lines


def _clusters(seen: Seen) -> list[str]:
    shares = seen.answer.table("shares")
    rows = known(shares)
    if not rows:
        return []
    top, low = max(rows, key=_value), min(rows, key=_value)
    return [
        f"{len(shares.rows)} groups of alike customers: the largest, “{seen.words.label(top.key[0])}”, holds "
        f"{said(top, shares.unit)} of them, the smallest, “{seen.words.label(low.key[0])}”, {said(low, shares.unit)}."
    ]


def _tree(seen: Seen) -> list[str]:
    leaves, words = seen.answer.table("leaves"), seen.words
    rows = known_leaves(leaves)
    if len(rows) < 2:
        return ["No question splits the customers more clearly than noise and chance would."]
    top, low = max(rows, key=_value), min(rows, key=_value)
    does = OUTCOMES.get(label_of(seen), f"have it ({words.meaning(label_of(seen))})")
    return [
        f"Of the customers with {words.label(rule_of(top))}, {said(top, leaves.unit)} {does}; of those with {words.label(rule_of(low))}, "
        f"{said(low, leaves.unit)}."
    ]


def known_leaves(leaves: AnswerTable) -> list[Row]:
    """Return the leaves whose share is told; a leaf of unknown values is a leaf like any other."""
    return [row for row in leaves.rows if row.value is not None and row.low is not None]


def rule_of(row: Row) -> str:
    """Return a leaf's rule without its number."""
    return row.key[0].partition(". ")[2] or row.key[0]


def _campaign(seen: Seen) -> list[str]:
    gains, words = seen.answer.table("uplift"), seen.words
    empty = empty_arms(seen.answer)
    lines = [_worked(row, words) for row in gains.rows if row.value is not None and row.key[-1] not in empty]
    cost = seen.table("cost_per_extra")
    if cost is not None:
        lines += [
            f"Each extra success of “{words.label(row.key[-1])}” cost {said(row, 'euro')} euro."
            if not is_wide(row)
            else f"Each extra success of “{words.label(row.key[-1])}” cost {span(row, 'euro')} euro: the interval is wide, the middle, "
            f"{number(row.value, 'euro')}, says little."
            for row in known(cost)
            if row.key[-1] not in empty
        ]
    chosen = seen.table("chosen_difference")
    if chosen is not None:
        lines += [_by_chance(row, words) for row in known(chosen) if row.key[1] not in empty]
    return lines


def empty_arms(answer: Answer) -> frozenset[str]:
    """Return the arms of a campaign that may have no customers at all: a contract has more arms than one campaign needs."""
    return frozenset(row.key[0] for row in answer.table("customers").rows if row.low is None or row.low <= 0.0)


def _worked(row: Row, words: Words) -> str:
    name = words.label(row.key[-1])
    if row.low is not None and row.low > 0.0:
        return f"“{name}” worked: {gained(row)} more of its customers {_does(row)} than of the control group."
    if row.high is not None and row.high < 0.0:
        return f"“{name}” did harm: {gained(row)} of its customers {_does(row)}, against the control group."
    return f"“{name}” cannot be shown to have worked: it lies {gained(row)} from the control group."


def _does(row: Row) -> str:
    return OUTCOMES.get(row.key[0], f"have {row.key[0]}")


def _by_chance(row: Row, words: Words) -> str:
    name = words.label(row.key[1])
    if not _beside_zero(row):
        return f"Whether “{name}” moved the customers whom the model chose more than those whom chance chose cannot be told: {gained(row)}."
    more = "less" if _value(row) < 0 else "more"
    return f"“{name}” moved the customers whom chance chose {more} than those whom the model chose: {gained(row)}."


_HEADLINES: dict[str, Callable[[Seen], list[str]]] = {
    "count": _count,
    "mean": _mean,
    "histogram": _histogram,
    "quantiles": _quantiles,
    "crosstab": _crosstab,
    "correlation": _correlation,
    "rfm": _rfm,
    "lifecycle": _lifecycle,
    "lifetime": _lifetime,
    "clusters": _clusters,
    "tree": _tree,
    "campaign": _campaign,
}
