"""Answers as sections of a page: a headline made from the numbers, pictures, and every table folded away.

Each kind of answer may have a headline of its own (`simulations.marketing_headlines`); a kind that is not known here is drawn all the same,
table by table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from federation.answers import Answer, AnswerTable, Row
from federation.queries import Query
from simulations import marketing_headlines as headlines
from simulations.marketing_exact import compared
from simulations.marketing_figures import Exact, bars, curve, full_table, picture
from simulations.marketing_headlines import Seen
from simulations.marketing_words import Words, first_up, is_share, known, said, short

TECHNICAL = frozenset({"rules", "points", "scaling", "covariance", "parameters", "thresholds", "ranks"})
"""Tables that programs apply and nobody sells by: named on the page, to be read in the report's file."""
_MOST_FIGURES = 3
EXPLAINED: Mapping[str, str] = {
    "rfm": "Customers are scored from 1 to 5 by how recently, how often and for how much at a time they buy; rules over the scores make "
    "segments. Champions bought recently and often; those at risk used to, and have stayed away for long.",
    "lifecycle": "A stage follows from when a customer first and last bought, and from whether her next purchase is overdue.",
    "lifetime": "A model of how purchases go on and stop (BG/NBD) and of what they are worth (Gamma-Gamma), fitted to noisy counts. What a "
    "customer is expected to buy depends on how often she bought, and on how long ago: of those who bought often, who stays away is gone.",
    "clusters": "Groups that nobody defined beforehand: customers who are alike are put together (k-means).",
    "tree": "Questions that split the customers best, one after another (a decision tree).",
    "campaign": "An approach is compared with a control group that chance held back: what differs is what the approach did.",
}
"""What a kind of answer is, for people who have never asked for one."""


@dataclass(frozen=True)
class Figure:
    """A picture and what it shows."""

    drawn: Markup
    caption: str


@dataclass(frozen=True)
class Folded:
    """A table that is folded away."""

    title: str
    table: Markup


@dataclass(frozen=True)
class Card:
    """A group of customers: its name, and lines about it."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One answer as the page shows it; `technical` are the titles of tables that stand in the report's file alone."""

    id: str
    kind: str
    title: str
    headline: tuple[str, ...]
    explained: str
    figures: tuple[Figure, ...]
    cards: tuple[Card, ...]
    folded: tuple[Folded, ...]
    technical: tuple[str, ...]
    notes: tuple[str, ...]
    gloss: tuple[tuple[str, str], ...]


def section(answer: Answer, exact: Answer, query: Query, words: Words) -> Section:
    """Return an answer as a section; `exact` is the same answer as no party sees it."""
    seen = Seen(answer, query, words)
    shown = [table for table in answer.tables if table.name not in TECHNICAL]
    truths = {table.name: compared(table, exact) for table in shown}
    draw = _DRAWN.get(answer.kind, _any_figures)
    cards = _cards(answer, words) if answer.kind == "clusters" else ()
    return Section(
        id=answer.id,
        kind=answer.kind,
        title=answer.title,
        headline=headlines.headline(seen),
        explained=EXPLAINED.get(answer.kind, ""),
        figures=tuple(figure for figure in draw(seen, truths) if figure.drawn),
        cards=cards,
        folded=tuple(Folded(words.label(table.title), full_table(table, truths[table.name], words)) for table in shown),
        technical=tuple(table.title for table in answer.tables if table.name in TECHNICAL),
        notes=answer.notes if not cards else tuple(note for note in answer.notes if not _told(note, answer)),
        gloss=tuple(
            (_named(name, words), text) for name, text in words.gloss(sorted(name for name, _ in query.columns))
        ),
    )


def _named(column: str, words: Words) -> str:
    """Return what a column is called on the page, and by the contract, as notes call it."""
    label = words.label(column)
    return label if label == column else f"{label} ({column})"


def _told(note: str, answer: Answer) -> bool:
    """Say whether a note repeats what a card or a rule's bar says."""
    return any(note.startswith(f"{row.key[0]}:") for row in answer.table("segments").rows)


Truths = Mapping[str, Exact]
Draw = Callable[[Seen, Truths], Sequence[Figure]]


def _any_figures(seen: Seen, truths: Truths) -> list[Figure]:
    found: list[Figure] = []
    for table in seen.answer.tables:
        if table.name not in TECHNICAL and len(found) < _MOST_FIGURES:
            found.append(Figure(picture(table, truths[table.name], seen.words), _caption(table, seen.words)))
    return [figure for figure in found if figure.drawn]


def _of(*names: str, gains: bool = False) -> Draw:
    """Return what draws these tables of an answer, where it has them."""

    def draw(seen: Seen, truths: Truths) -> list[Figure]:
        tables = {table.name: table for table in seen.answer.tables}
        return [
            Figure(picture(tables[name], truths[name], seen.words, gains), _caption(tables[name], seen.words))
            for name in names
            if name in tables
        ]

    return draw


def _caption(table: AnswerTable, words: Words) -> str:
    plain = is_share(table.unit) or table.unit == "correlation" or table.unit in table.title.lower()
    return f"{words.label(table.title)}.{'' if plain else f' In {short(table.unit)}.'}"


def _quantiles(seen: Seen, truths: Truths) -> list[Figure]:
    table = seen.answer.table("quantiles")
    if len(table.key) != 1:
        return _any_figures(seen, truths)
    named: dict[tuple[str, ...], tuple[str, ...]] = {
        row.key: (f"{headlines.level(row)} of customers are below",) for row in table.rows
    }
    rows = [row.model_copy(update={"key": named[row.key]}) for row in table.rows]
    exact: Exact = {named[key]: value for key, value in truths["quantiles"].items()}
    return [Figure(bars(rows, table.unit, exact, seen.words), _caption(table, seen.words))]


def _lifecycle(seen: Seen, truths: Truths) -> list[Figure]:
    shares = seen.answer.table("shares")
    at = [item for item in ("start", "end") if any(row.key[1] == item for row in shares.rows)]
    rows = sorted(
        shares.rows, key=lambda row: ([item.key[0] for item in shares.rows].index(row.key[0]), at.index(row.key[1]))
    )
    drawn = bars(rows, shares.unit, truths["shares"], seen.words)
    moves = seen.answer.table("transitions")
    return [
        Figure(
            drawn,
            "Share of each stage among the customers whom a stage takes, at the start (the day of the report) and at the end of the "
            "time that follows.",
        ),
        Figure(
            picture(moves, truths["transitions"], seen.words),
            "Where the customers of each stage (rows) stood at the end (columns): shares of the row. "
            "Stages that the noise hides are left out.",
        ),
    ]


def _rfm(seen: Seen, truths: Truths) -> list[Figure]:
    answer = seen.answer
    value, exact = headlines.value_shares(answer), headlines.value_shares_exact(truths["value"])
    return [
        Figure(
            picture(answer.table("shares"), truths["shares"], seen.words), "Share of all customers in each segment."
        ),
        Figure(
            bars(value, "share", exact, seen.words),
            "Share of the value in each segment. Value adds up each customer's average day of purchase, counted once: it says who "
            "spends more at a time, and is no turnover. These intervals are drawn wide, so that they hold at least at the confidence.",
        ),
    ]


def _tree(seen: Seen, truths: Truths) -> list[Figure]:
    leaves = seen.answer.table("leaves")
    rows = sorted(leaves.rows, key=lambda row: -(row.value if row.value is not None else -1.0))
    return [
        Figure(
            bars(rows, leaves.unit, truths["leaves"], seen.words),
            f"Each customer is under one rule. Share for whom this is true: {seen.words.meaning(headlines.label_of(seen))}.",
        )
    ]


def _campaign(seen: Seen, truths: Truths) -> list[Figure]:
    figures: list[Figure] = []
    empty = headlines.empty_arms(seen.answer)
    for table in seen.answer.tables:
        kept = table.model_copy(update={"rows": tuple(row for row in table.rows if not empty & set(row.key))})
        if table.name in _CAMPAIGN:
            figures += _by_arm(kept, truths[table.name], seen.words)
        elif table.name == "qini":
            figures += _qini(kept, truths["qini"], seen.words)
    return figures


_GAINS = frozenset({"uplift", "uplift_by_segment", "uplift_by_chosen"})
_CAMPAIGN = _GAINS | {"conversion", "cost_per_extra", "spend"}


def _by_arm(table: AnswerTable, exact: Exact, words: Words) -> list[Figure]:
    """Draw a campaign's table with the last label as bars, one picture for each outcome, and for each arm where parts stand below it."""
    gains = table.name in _GAINS
    unit = " In percentage points." if gains else ("" if is_share(table.unit) else f" In {table.unit}.")
    found = []
    for first in dict.fromkeys(row.key[:-1] for row in table.rows):
        rows = [row for row in table.rows if row.key[:-1] == first and row.value is not None]
        if rows:
            last = {row.key: row.model_copy(update={"key": row.key[-1:]}) for row in rows}
            true = {key[-1:]: value for key, value in exact.items() if key in last}
            about = f": {words.labels(first)}" if first else ""
            found.append(
                Figure(
                    bars(list(last.values()), table.unit, true, words, gains),
                    f"{words.label(table.title)}{about}.{unit}",
                )
            )
    return found


def _qini(table: AnswerTable, exact: Exact, words: Words) -> list[Figure]:
    """Draw one curve for each outcome and arm, in the order in which the answer takes the customers."""
    found = []
    for first in dict.fromkeys(row.key[:-1] for row in table.rows):
        rows = [row for row in table.rows if row.key[:-1] == first]
        drawn = curve(rows, "share", exact, words)
        column = table.key[-1]
        found.append(
            Figure(
                drawn,
                f"Qini curve of {words.labels(first)}: extra successes, as a share of all customers of the arm, when customers are "
                f"approached in the order of {words.label(column)}, beginning with “{rows[0].key[-1]}” (1 in the picture). Above the "
                "dashed straight line this order finds those who can be moved earlier than chance would; below it, later. "
                f"{first_up(words.label(column))}: {words.meaning(column)}. The band is the interval, the thin grey line the exact curve.",
            )
        )
    return found


def _cards(answer: Answer, words: Words) -> tuple[Card, ...]:
    sizes, shares = answer.table("segments"), answer.table("shares")
    by_share = {row.key: row for row in shares.rows}
    cards = []
    for row in sizes.rows:
        lines = [f"{said(row, sizes.unit)} customers"]
        if row.key in by_share:
            lines.append(f"{said(by_share[row.key], shares.unit)} of all")
        lines += _centre_lines(answer, row, words)
        cards.append(Card(words.label(row.key[0]), tuple(lines)))
    return tuple(cards)


def _centre_lines(answer: Answer, group: Row, words: Words) -> list[str]:
    centres = answer.table("centres")
    return [
        f"{words.label(row.key[1])}: {said(row, centres.unit)} {words.unit(row.key[1])}".strip()
        for row in known(centres)
        if row.key[0] == group.key[0]
    ]


_DRAWN: Mapping[str, Draw] = {
    "count": _of("counts"),
    "mean": _of("means"),
    "histogram": _of("shares"),
    "quantiles": _quantiles,
    "crosstab": _of("row_shares"),
    "correlation": _of("correlations"),
    "rfm": _rfm,
    "lifecycle": _lifecycle,
    "lifetime": _of("value", "purchases"),
    "clusters": _of("shares"),
    "tree": _tree,
    "campaign": _campaign,
}
