"""Segment cards: what k-means found, in words and in the columns' own units, with what the noise leaves open.

A segment's name says what sets it apart from all customers, and its place in the answer follows from that too, so that runs which find the
same segments call them the same, whatever order their centres had.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.answers import Answer, AnswerTable, Row
from federation.contract import FeatureContract, NumericColumn
from federation.measures import Cells, Centres, Factor, column_of
from federation.queries import Clusters
from server.statistics.asking import Setting, Sum
from server.statistics.first_look import raw
from server.statistics.intervals import NOTHING, Ratio, Span, amount, share

Floats = NDArray[np.float64]

MARKED, STRONG = 0.5, 1.5
"""From how many standard deviations a segment's mean is called high or low, and very high or very low."""
_NAMED = 3
_NEARLY = 0.7
_TOLD = 3
_EVERY = "all customers"


@dataclass(frozen=True, eq=False)
class Segments:
    """The sums of one step.

    Attributes
    ----------
    names, factors:
        The columns [d].
    points:
        float64 [k, d]: a customer belongs to the nearest; in the factors' [-1, 1].
    sizes, size_sd:
        float64 [k] customers, and the standard deviation of the noise of each.
    ways, way_sd:
        float64 [k, d]: sums over the segment's customers of what leads from the point to them, and the noise of each.
    """

    names: tuple[str, ...]
    factors: tuple[Factor, ...]
    points: Floats
    sizes: Floats
    size_sd: float
    ways: Floats
    way_sd: float

    @classmethod
    def of(cls, names: tuple[str, ...], factors: tuple[Factor, ...], item: Sum) -> "Segments":
        """Read a `Centres` measure's sums."""
        measure = item.measure
        assert isinstance(measure, Centres)
        unit = measure.radius / measure.reach
        return cls(
            names,
            factors,
            np.asarray(measure.centres),
            item.values[:, 0] / measure.cap,
            item.sd / measure.cap,
            item.values[:, 1:] * unit,
            item.sd * unit,
        )

    def mean(self, segment: int, column: int, z: float) -> Span:
        """Return a segment's mean of a factor in [-1, 1]; NOTHING where the segment cannot be told from an empty one."""
        ratio = Ratio(
            float(self.ways[segment, column]), float(self.sizes[segment]), self.way_sd**2, 0.0, self.size_sd**2
        )
        return ratio.span(z).times(1.0, float(self.points[segment, column])).clipped(-1.0, 1.0)

    def overall(self, column: int, z: float) -> Span:
        """Return the mean of a factor over all customers, with the noise of all segments' sums."""
        total = float((self.points[:, column] * self.sizes + self.ways[:, column]).sum())
        count = len(self.sizes)
        size_var = self.size_sd**2
        place = self.points[:, column]
        ratio = Ratio(
            total,
            float(self.sizes.sum()),
            count * self.way_sd**2 + float((place**2).sum()) * size_var,
            float(place.sum()) * size_var,
            count * size_var,
        )
        return ratio.span(z).clipped(-1.0, 1.0)

    def inside(self, squares: Sum, z: float) -> float:
        """Return the squared distance of all customers to their segments' means, at the upper end of what the noise allows; above 0.

        `squares` holds the sums of each factor's square. The upper end makes more segments look better only where the noise cannot have.
        """
        assert isinstance(squares.measure, Cells)
        caps = np.array([term.cap for term in squares.measure.terms], dtype=np.float64)
        full = self.sizes > z * self.size_sd
        sizes, points, ways = self.sizes[full], self.points[full], self.ways[full]
        means = points + ways / sizes[:, None]
        square = (means**2).sum(axis=1)
        count, width = len(sizes), points.shape[1]
        variance = float((squares.sd**2 / caps**2).sum())
        variance += float(((2.0 * (points * means).sum(axis=1) - square) ** 2).sum()) * self.size_sd**2
        variance += 4.0 * float(square.sum()) * self.way_sd**2
        # the square of a noisy sum is larger than the square of the sum, by its variance
        found = float((squares.values / caps.reshape(squares.values.shape)).sum()) - float((sizes * square).sum())
        found += width * self.way_sd**2 * float((1.0 / sizes).sum())
        return max(found + z * math.sqrt(variance), 1e-6 * max(float(sizes.sum()), 1.0)) if count else 1.0


@dataclass(frozen=True)
class Card:
    """One segment: its number among the points, its name, size, and by column its mean and its distance from the mean of all customers.

    `means` are in the factors' [-1, 1], `apart` in standard deviations of the column.
    """

    number: int
    name: str
    size: Span
    means: tuple[Span, ...]
    apart: tuple[Span, ...]


def cards_of(segments: Segments, spread: Floats, z: float) -> tuple[Card, ...]:
    """Return the cards under names that follow from what sets the segments apart, in the order of these names."""
    overall = [segments.overall(column, z) for column in range(len(segments.names))]
    means = [
        tuple(segments.mean(number, column, z) for column in range(len(segments.names)))
        for number in range(len(segments.sizes))
    ]
    apart = [
        tuple(_apart(mean, every, float(sd)) for mean, every, sd in zip(row, overall, spread, strict=True))
        for row in means
    ]
    names = _names(apart, segments.names)
    order = sorted(range(len(names)), key=lambda number: (names[number], -float(segments.sizes[number])))
    found: list[Card] = []
    for number in order:
        twin = 1 + sum(names[card.number] == names[number] for card in found)
        name = names[number] if twin == 1 else f"{names[number]} ({twin})"
        size = amount(float(segments.sizes[number]), segments.size_sd, z)
        found.append(Card(number, name, size, means[number], apart[number]))
    return tuple(found)


def _apart(mean: Span, every: Span, sd: float) -> Span:
    if mean.value is None or every.value is None:
        return NOTHING
    return mean.times(1.0, -every.value).times(1.0 / sd)


def _strongest(apart: Sequence[Span]) -> list[int]:
    """Return the columns whose difference is marked and beside zero, the largest first."""
    marked = [
        column
        for column, span in enumerate(apart)
        if span.value is not None and abs(span.value) >= MARKED and span.beside_zero
    ]
    return sorted(marked, key=lambda column: (-abs(apart[column].value or 0.0), column))


def _phrase(name: str, span: Span) -> str:
    value = span.value or 0.0
    very = "very " if abs(value) >= STRONG else ""
    return f"{very}{'high' if value > 0 else 'low'} {name}"


def _names(all_apart: Sequence[Sequence[Span]], columns: Sequence[str]) -> list[str]:
    """Return a name for each: the columns that set it apart most, and more of them where two would be called the same."""
    depth = [len(_foremost(apart)) for apart in all_apart]
    for _ in columns:
        names = [_name(apart, columns, length) for apart, length in zip(all_apart, depth, strict=True)]
        depth = [length + (names.count(name) > 1) for name, length in zip(names, depth, strict=True)]
    return [_name(apart, columns, length) for apart, length in zip(all_apart, depth, strict=True)]


def _foremost(apart: Sequence[Span]) -> list[int]:
    """Return the columns that a name speaks of: those nearly as far apart as the farthest, so that noise seldom chooses among them."""
    marked = _strongest(apart)
    return [
        column
        for column in marked[:_NAMED]
        if abs(apart[column].value or 0.0) >= _NEARLY * abs(apart[marked[0]].value or 0.0)
    ]


def _name(apart: Sequence[Span], columns: Sequence[str], length: int) -> str:
    if apart[0].value is None:
        return "too small to describe"
    chosen = sorted(_strongest(apart)[:length])
    phrase = ", ".join(_phrase(columns[column], apart[column]) for column in chosen)
    return _cut(phrase) if chosen else "near the average"


def _cut(text: str, most: int = 180) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def answer_of(query: Clusters, segments: Segments, spread: Floats, setting: Setting) -> Answer:
    """Return tables and notes: segments, shares, centres, apart, points, scaling, and a note for each segment."""
    z, contract = setting.z, setting.contract
    cards = cards_of(segments, spread, z)
    everybody = [segments.overall(column, z) for column in range(len(segments.names))]
    tables = (
        _table(
            "segments",
            "Customers of each segment, interval for the noise",
            "customers",
            ("segment",),
            _size_rows(cards),
        ),
        _table(
            "shares",
            "Share of each segment, interval for the noise",
            "share",
            ("segment",),
            _share_rows(cards, segments, z),
        ),
        _table(
            "centres",
            "Mean of each segment, in the column's unit, interval for the noise; on a logarithmic scale where the contract has one",
            "the column's own",
            ("segment", "column"),
            _centre_rows(cards, segments, everybody),
        ),
        _table(
            "apart",
            "What sets each segment apart: mean less that of all customers, interval for the noise of the segment",
            "standard deviations",
            ("segment", "column"),
            _apart_rows(cards, segments.names),
        ),
        _table(
            "points",
            "A customer belongs to the segment whose point is nearest, after scaling",
            "from -1 to 1",
            ("segment", "column"),
            _point_rows(cards, segments),
        ),
        _table("scaling", "What counts as -1 and as 1", "the column's own", ("column", "end"), _scaling_rows(segments)),
    )
    notes = (*_notes(query, cards, segments, contract), *_card_notes(cards, segments, contract, everybody))
    return Answer(
        id=query.id, kind="clusters", title=query.title or "Groups of alike customers", tables=tables, notes=notes[:40]
    )


def _table(name: str, title: str, unit: str, key: tuple[str, ...], rows: Sequence[Row]) -> AnswerTable:
    return AnswerTable(name=name, title=title, unit=unit, key=key, rows=tuple(rows))


def _row(key: tuple[str, ...], span: Span) -> Row:
    return Row(key=key, value=span.value, low=span.low, high=span.high)


def _size_rows(cards: Sequence[Card]) -> list[Row]:
    return [_row((card.name,), card.size) for card in cards]


def _share_rows(cards: Sequence[Card], segments: Segments, z: float) -> list[Row]:
    total, variance = float(segments.sizes.sum()), segments.size_sd**2
    rows = []
    for card in cards:
        part = float(segments.sizes[card.number])
        rows.append(_row((card.name,), share(part, total - part, variance, variance * (len(cards) - 1), z)))
    return rows


def raw_span(span: Span, factor: Factor) -> Span:
    """Return a span of a factor in the column's unit: increasing, so the ends stay the ends."""
    if span.value is None or span.low is None or span.high is None:
        return NOTHING
    low, value, high = (float(item) for item in raw(np.array([span.low, span.value, span.high]), factor))
    return Span(value, low, high)


def _centre_rows(cards: Sequence[Card], segments: Segments, everybody: Sequence[Span]) -> list[Row]:
    parts = [(card.name, card.means) for card in cards] + [(_EVERY, tuple(everybody))]
    return [
        _row((name, column), raw_span(span, factor))
        for name, means in parts
        for column, span, factor in zip(segments.names, means, segments.factors, strict=True)
    ]


def _apart_rows(cards: Sequence[Card], names: Sequence[str]) -> list[Row]:
    return [_row((card.name, names[column]), card.apart[column]) for card in cards for column in _strongest(card.apart)]


def _point_rows(cards: Sequence[Card], segments: Segments) -> list[Row]:
    return [
        Row(key=(card.name, name), value=float(value))
        for card in cards
        for name, value in zip(segments.names, segments.points[card.number], strict=True)
    ]


def _scaling_rows(segments: Segments) -> list[Row]:
    ends = [
        (factor.column, end, value)
        for factor in segments.factors
        for end, value in (("-1", factor.low), ("1", factor.high))
    ]
    return [Row(key=(name, end), value=value) for name, end, value in ends]


def _notes(query: Clusters, cards: Sequence[Card], segments: Segments, contract: FeatureContract) -> list[str]:
    half = (cards[0].size.high or 0.0) - (cards[0].size.value or 0.0)
    logs = [factor.column for factor in segments.factors if factor.scale == "log"]
    notes = [
        f"{len(cards)} segments in {query.steps} steps. Customers for whom one of {', '.join(segments.names)} is unknown are in none.",
        "A value beyond the ends in the table of scaling counts as the end, in distances and in means, so that the outermost customers do "
        "not decide.",
        "Intervals hold the noise alone, for these points: where the points lie depends on noise too, so another run may draw others.",
    ]
    if query.k is None:
        notes.append("How many segments there are was chosen by Calinski and Harabasz's ratio of noisy sums.")
        if len(cards) < query.between[0]:
            notes.append(
                f"The noise lets no {query.between[0]} segments be told apart: give the query more budget, or k."
            )
    if logs:
        notes.append(
            f"{', '.join(logs)}: means are on the contract's logarithmic scale, so a typical customer's rather than the average amount."
        )
    small = [card.name for card in cards if card.means[0].value is None]
    if small:
        notes.append(f"Cannot be told from empty (noise +-{half:.0f} customers): {'; '.join(small)}."[:2000])
    return notes


def _card_notes(
    cards: Sequence[Card], segments: Segments, contract: FeatureContract, everybody: Sequence[Span]
) -> list[str]:
    return [_card_note(card, segments, contract, everybody) for card in cards if card.means[0].value is not None]


def _card_note(card: Card, segments: Segments, contract: FeatureContract, everybody: Sequence[Span]) -> str:
    parts = []
    for column in _strongest(card.apart)[:_TOLD]:
        mean, every = (
            raw_span(card.means[column], segments.factors[column]),
            raw_span(everybody[column], segments.factors[column]),
        )
        parts.append(
            f"{_meaning(segments.names[column], contract)}: {_say(mean)}, all customers {_number(every.value)}"
        )
    text = "; ".join(parts) if parts else "like customers in general"
    size = Span(*(None if item is None else round(item) for item in (card.size.value, card.size.low, card.size.high)))
    return f"{card.name}: {_say(size)} customers. {text}."[:2000]


def _meaning(name: str, contract: FeatureContract) -> str:
    column = column_of(name, contract)
    unit = f" ({column.unit})" if isinstance(column, NumericColumn) else " (share of yes)"
    return " ".join(column.meaning.split()) + unit


def _say(span: Span) -> str:
    return f"{_number(span.value)} ({_number(span.low)} to {_number(span.high)})"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
