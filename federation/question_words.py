"""Queries in plain words: one sentence for each, so that whoever decides about a statistics study need not read its document.

A sentence names every column that the query looks at, the groups that it is answered for, and whose customers count. Long lists of cuts and
categories are shortened; the study's document has them whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

from federation.measures import Condition, Rule
from federation.queries import (
    Bounds,
    Campaign,
    Clusters,
    Correlation,
    Count,
    Crosstab,
    Group,
    Histogram,
    Lifecycle,
    Lifetime,
    Mean,
    Quantiles,
    Query,
    Rfm,
    Sum,
    Tree,
)

_MOST_LISTED = 12


def describe(query: Query) -> str:
    """Return in one sentence what a query asks: its columns, groups and conditions, and how exact the answer shall be."""
    text = _WORDS[type(query)](query)
    return f"{text}{_among(query.where)}{_accuracy(query)}."


def condition_words(condition: Condition) -> str:
    """Return a condition in words, such as `age from 30 to below 40`."""
    name = condition.column if condition.at == "start" else f"{condition.column} at the end of the horizon"
    if condition.missing:
        return f"{name} unknown"
    if condition.any_of is not None:
        return f"{name} {_listed(condition.any_of, 'or')}"
    if condition.ge is None:
        assert condition.lt is not None  # a condition says one thing
        return f"{name} below {_number(condition.lt)}"
    upto = "" if condition.lt is None else f" to below {_number(condition.lt)}"
    return f"{name} from {_number(condition.ge)}{upto}{'' if upto else ' on'}"


def group_words(group: Group) -> str:
    """Return a grouping in words: a column by its own groups, or cut at public points."""
    return group.column if group.cuts is None else f"{group.column} ({_cut(group.cuts)})"


def _among(where: Sequence[Condition]) -> str:
    return f"; only customers with {_joined([condition_words(item) for item in where])}" if where else ""


def _accuracy(query: Query) -> str:
    asked = query.accuracy
    if asked is None:
        return ""
    return (
        f"; the noise is to move it by {_number(asked.within)} at most, in {100 * asked.confidence:.4g}% of all cases"
    )


def _count(query: Count) -> str:
    return f"How many customers there are{_in_each(query.by)}"


def _sum(query: Sum) -> str:
    return f"The sum of {query.of}{_clip(query.clip)} over customers{_in_each(query.by)}"


def _mean(query: Mean) -> str:
    return f"The mean of {query.of}{_clip(query.clip)} over the customers for whom it is known{_in_each(query.by)}"


def _histogram(query: Histogram) -> str:
    how = "by its groups, or the contract's knots" if query.cuts is None else _cut(query.cuts)
    return f"How many customers have which {query.of} ({how}){_in_each(query.by)}"


def _quantiles(query: Quantiles) -> str:
    levels = _joined([f"{100 * level:.4g}%" for level in query.levels])
    return f"Below which {query.of} lie {levels} of the customers{_in_each(query.by)}"


def _crosstab(query: Crosstab) -> str:
    sides = f"{group_words(query.rows)} with {group_words(query.across)}"
    return f"How many customers there are in each combination of {sides}, and how strongly the two go together"


def _correlation(query: Correlation) -> str:
    return f"How far {_joined(query.of)} rise and fall together (Pearson's correlation of each pair)"


def _rfm(query: Rfm) -> str:
    columns = _joined([query.recency, query.frequency, query.monetary])
    segments = _rules(query.segments) if query.segments else "the trade's usual ones"
    return (
        f"Where {columns} (recency, frequency, monetary value) are cut to divide customers into fifths, which makes scores r, f and m "
        f"from 1 to 5, and how many customers are in which segment: {segments}"
    )


def _lifetime(query: Lifetime) -> str:
    columns = _joined([query.frequency, query.recency, query.tenure, query.monetary])
    ahead = "the next window" if query.horizon == 1 else f"the next {_number(query.horizon)} windows"
    return f"How much customers will buy in {ahead} and what they are worth, by a model fitted from counts of {columns}"


def _lifecycle(query: Lifecycle) -> str:
    return (
        "How many customers are in which stage at the as-of date and at the end of the horizon after it, and how many moved from one to "
        f"another. Stages, the first that fits: {_rules(query.stages)}; else other"
    )


def _clusters(query: Clusters) -> str:
    many = str(query.k) if query.k is not None else f"{query.between[0]} to {query.between[1]}"
    steps = "1 step" if query.steps == 1 else f"up to {query.steps} steps"
    return (
        f"Which {many} groups of alike customers there are by {_joined(query.of)}: sizes and averages, found in {steps}"
    )


def _tree(query: Tree) -> str:
    return (
        f"By which splits of {_joined(query.of)} customers with {query.label} are told from those without: a tree of {query.depth} "
        f"questions in a row at most, {query.smallest_leaf:,} customers or more in each leaf"
    )


def _campaign(query: Campaign) -> str:
    parts = [
        f"Whether a campaign worked: {_joined(query.outcomes)} in each arm of {query.arm} against the arm {query.control}"
    ]
    parts += [f"what was spent ({query.spend})"] if query.spend is not None else []
    parts += [f"what it cost ({query.cost})"] if query.cost is not None else []
    if query.score is not None and query.score_cuts is not None:
        parts.append(f"by bands of the score {query.score} ({_cut(query.score_cuts)})")
    by = [name for name in (query.segment, query.chosen_by) if name is not None]
    return ", ".join(parts) + _in_each([Group(column=name) for name in by])


def _in_each(groups: Sequence[Group]) -> str:
    return f", in each group of {_joined([group_words(group) for group in groups])}" if groups else ""


def _clip(clip: Bounds | None) -> str:
    return "" if clip is None else f" (clipped to {_number(clip.low)} to {_number(clip.high)})"


def _cut(cuts: Sequence[float]) -> str:
    if len(cuts) > _MOST_LISTED:
        return f"cut at {len(cuts):,} points from {_number(cuts[0])} to {_number(cuts[-1])}"
    return f"cut at {_joined([_number(cut) for cut in cuts])}"


def _rules(rules: Sequence[Rule]) -> str:
    shown = [
        f"{rule.name} ({_joined([condition_words(item) for item in rule.where]) or 'everybody'})" for rule in rules
    ]
    return "; ".join(shown)


def _listed(names: Sequence[str], word: str) -> str:
    if len(names) <= _MOST_LISTED:
        return _joined(names, word)
    return f"{', '.join(names[:_MOST_LISTED])} {word} {len(names) - _MOST_LISTED} more"


def _joined(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""


def _number(value: float) -> str:
    return f"{value:.12g}"


_WORDS: dict[type[Any], Callable[[Any], str]] = {
    Count: _count,
    Sum: _sum,
    Mean: _mean,
    Histogram: _histogram,
    Quantiles: _quantiles,
    Crosstab: _crosstab,
    Correlation: _correlation,
    Rfm: _rfm,
    Lifetime: _lifetime,
    Lifecycle: _lifecycle,
    Clusters: _clusters,
    Tree: _tree,
    Campaign: _campaign,
}
