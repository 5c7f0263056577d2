"""Numbers, labels and units of answers, in the words of people who sell."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from federation.answers import AnswerTable, Row
from federation.contract import FeatureContract, NumericColumn
from simulations.words import THIN

MINUS = "\u2212"
DASH = "\u2013"
NOTHING = "not told"
"""Where the noise leaves nothing to say."""
PLAIN: Mapping[str, str] = {
    "recency": "time since the last purchase",
    "frequency": "days with a purchase",
    "monetary": "spending on a day of purchase",
    "tenure": "time since the first purchase",
    "job": "occupation",
    "housing": "housing loan",
    "loan": "personal loan",
    "contact": "way of contact",
    "poutcome": "result of the last campaign",
    "campaign": "calls in this campaign",
    "previous": "calls before this campaign",
    "chosen_by": "who chose the customer",
    "decile": "tenth by the score",
}
"""What columns of the shipped contracts are called on the page; others keep their names. What the contract says stands with the tables."""
OUTCOMES: Mapping[str, str] = {
    "lapsed": "buy nothing in the time that follows",
    "subscribed": "take a term deposit",
    "conversion": "buy",
}
"""What customers do for whom a label is true, as the middle of a sentence."""
_PHRASES = (
    ("very high recency", "last purchase very long ago"),
    ("high recency", "last purchase long ago"),
    ("very low recency", "last purchase very recent"),
    ("low recency", "last purchase recent"),
    ("very high frequency", "very many days with a purchase"),
    ("high frequency", "many days with a purchase"),
    ("very low frequency", "very few days with a purchase"),
    ("low frequency", "few days with a purchase"),
    ("very high monetary", "very large purchases"),
    ("high monetary", "large purchases"),
    ("very low monetary", "very small purchases"),
    ("low monetary", "small purchases"),
)
_UNITS = {
    "multiples of the institution's declared typical purchase": "typical purchases",
    "share of the observation window": "of a window",
    "days of purchase in the window": "days",
}
_OF_A_WINDOW = re.compile(r"\b(recency|tenure) (at least|below) ([0-9.]+)")
_SHARES = ("share", "share of customers", "share of the stage at start")
_WIDE = 0.3
_LEAST = 0.001


@dataclass(frozen=True)
class Words:
    """What names mean on one part of the page: the contract's columns, names given to labels such as arms, and the typical purchase."""

    contract: FeatureContract
    names: Mapping[str, str] = field(default_factory=dict)
    typical: float | None = None

    def label(self, text: str) -> str:
        """Return a label or title as people read it: columns of the contract by plain words."""
        named = self.names.get(text)
        if named is not None:
            return named
        columns = {column.name for column in self.contract.columns}
        if columns >= {"recency", "frequency", "monetary"}:
            text = _OF_A_WINDOW.sub(r"\1 \2 \3 of a window", text)
            for jargon, plain in _PHRASES:
                text = text.replace(jargon, plain)
        names = sorted(columns & PLAIN.keys())
        if names:  # all at once: what one is called may hold another's name
            text = re.sub(rf"\b({'|'.join(names)})\b", lambda found: PLAIN[found[0]], text)
        return text.replace("_", " ")

    def money(self, value: float, unit: str) -> str:
        """Return what so many typical purchases are in dollars, where all institutions declare the same; empty otherwise."""
        if self.typical is None or "typical purchase" not in unit:
            return ""
        return f", {value * self.typical:.0f} dollars where a typical purchase is {self.typical:g}"

    def labels(self, key: Sequence[str]) -> str:
        """Return all labels of a row in one line."""
        return ", ".join(self.label(text) for text in key)

    def gloss(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Return what the contract says that these columns are, with units; others are left out."""
        known = {column.name: column for column in self.contract.columns}
        found: list[tuple[str, str]] = []
        for name in dict.fromkeys(names):
            column = known.get(name)
            if isinstance(column, NumericColumn):
                found.append((name, f"{column.meaning} ({column.unit})"))
            elif column is not None:
                found.append((name, column.meaning))
            elif name == self.contract.label.name:
                found.append((name, self.contract.label.meaning))
        return found

    def unit(self, name: str) -> str:
        """Return a column's unit in few words; empty where it has none."""
        found = next((column for column in self.contract.columns if column.name == name), None)
        return short(found.unit) if isinstance(found, NumericColumn) else ""

    def meaning(self, name: str) -> str:
        """Return what a column means, in lower case as the middle of a sentence; its name where the contract has none."""
        found = next((column.meaning for column in self.contract.columns if column.name == name), None)
        if found is None and name == self.contract.label.name:
            found = self.contract.label.meaning
        return self.label(name) if found is None else found[0].lower() + found[1:]


def first_up(text: str) -> str:
    """Return a text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def short(unit: str) -> str:
    """Return a unit in few words."""
    return _UNITS.get(unit, unit)


def is_share(unit: str) -> bool:
    """Say whether values of a unit are shares, which are read as percentages."""
    return unit in _SHARES


def number(value: float | None, unit: str) -> str:
    """Write a value as its unit is read: customers whole, shares as percentages, other things with three digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if is_share(unit):
        return f"{_signed(100.0 * value, 1)}{THIN}%"
    if unit == "customers" or abs(value) >= 1000:
        return _signed(value, 0)
    if unit == "correlation":
        return _signed(value, 2)
    return _significant(value)


def points(value: float | None) -> str:
    """Write a difference of shares in percentage points, always with its sign."""
    if value is None:
        return NOTHING
    text = f"{abs(100.0 * value):.1f}"
    sign = "" if float(text) == 0.0 else ("+" if value > 0 else MINUS)
    return f"{sign}{text}"


def span(row: Row, unit: str) -> str:
    """Write a row's interval; empty where it has none."""
    if row.low is None or row.high is None:
        return ""
    low, high = number(row.low, unit), number(row.high, unit)
    return low if low == high and row.low != row.high and not low[0].isdigit() else f"{low} to {high}"


def said(row: Row, unit: str) -> str:
    """Write a row's value with its interval; where only an interval is left, that."""
    interval = span(row, unit)
    if row.value is None:
        return f"somewhere from {interval}" if interval else NOTHING
    value = number(row.value, unit)
    return f"{value} ({interval})" if interval and interval != value else value


def gained(row: Row) -> str:
    """Write a gain in percentage points with its interval."""
    if row.value is None or row.low is None or row.high is None:
        return NOTHING
    return f"{points(row.value)} percentage points ({points(row.low)} to {points(row.high)})"


def is_wide(row: Row) -> bool:
    """Say whether the interval is so wide that the value alone would mislead: more than 30% of it to either side."""
    if row.value is None or row.low is None or row.high is None:
        return True
    return (row.high - row.low) / 2.0 > _WIDE * abs(row.value)


def apart(one: Row, other: Row) -> bool:
    """Say whether two rows' intervals do not touch."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low > other.high or other.low > one.high


def known(table: AnswerTable) -> list[Row]:
    """Return the rows that have a value and an interval."""
    return [row for row in table.rows if row.value is not None and row.low is not None and row.high is not None]


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):,.{digits}f}".replace(",", THIN)
    nothing = float(f"{abs(value):.{digits}f}") == 0.0
    return f"{MINUS}{text}" if value < 0 and not nothing else text


def _significant(value: float) -> str:
    if value == 0.0:
        return "0"
    if abs(value) < _LEAST:
        return f"under {_LEAST:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return _signed(value, min(digits, 3))
