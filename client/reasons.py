"""A customer's reasons in words: which features moved her score most against the institution's average customer."""

import re

import numpy as np
from numpy.typing import NDArray

from federation.contract import CategoricalColumn, FlagColumn, NumericColumn

AnyColumn = NumericColumn | CategoricalColumn | FlagColumn

REASONS = 3
NOT_KNOWN = "not known"
# A movement of the logit below this is rounding, not a reason.
SMALLEST = 1e-6
PLAIN_UNITS = frozenset({"ratio", "balance", "index", "score", "share"})
_HUNDRED = 100.0


def short_meaning(column: AnyColumn) -> str:
    """Return the contract's meaning without remarks in brackets or after a semicolon."""
    text = re.sub(r"\s*\([^)]*\)", "", column.meaning).split(";")[0]
    return " ".join(text.split()) or column.name


def number(value: float) -> str:
    """Write a number as a person would: no exponent, about three significant digits, thousands apart."""
    size = abs(value)
    if size >= _HUNDRED or value == round(value):
        return f"{value + 0.0:,.0f}"  # minus zero is zero
    places = 1 if size >= 10 else 2 if size >= 0.1 else 3
    text = f"{value:.{places}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def amount(column: NumericColumn, value: float) -> str:
    """Write a value with its unit: shares as per cent, multiples as times."""
    unit = column.unit
    if unit == "share" or unit.startswith("share of "):
        return f"{number(_HUNDRED * value)}%{unit.removeprefix('share')}"
    if unit.startswith("multiples of "):
        return f"{number(value)} times {unit.removeprefix('multiples of ')}"
    if unit in PLAIN_UNITS or column.meaning.split()[0].casefold() == unit.casefold():
        return number(value)
    one = re.sub(r"^([a-z]+)s\b", r"\1", unit)
    return f"{number(value)} {one if value == 1 else unit}"


def _figure(column: NumericColumn, value: float) -> str:
    return f"{number(_HUNDRED * value)}%" if column.unit.startswith("share") else number(value)


def own_value(column: AnyColumn, value: float) -> str:
    """Write one customer's value of a column; missing and unlisted values are worded."""
    if isinstance(column, CategoricalColumn):
        return NOT_KNOWN if value < 0 else column.categories[int(value)]
    if not np.isfinite(value):
        return NOT_KNOWN
    if isinstance(column, FlagColumn):
        return "yes" if value > 0 else "no"
    return amount(column, value)


def typical_value(column: AnyColumn, values: NDArray[np.generic]) -> float:
    """Return what the middle customer has: the median of a number, the most frequent category or flag.

    NaN (or -1 for a category) where that is "not known", for a number when more than half are missing.
    """
    if isinstance(column, CategoricalColumn):
        codes, counts = np.unique(values, return_counts=True)
        return float(codes[np.argmax(counts)]) if len(codes) else -1.0
    given = np.asarray(values, dtype=np.float64)
    known = given[np.isfinite(given)]
    if 2 * len(known) < len(given) or not len(known):
        return float("nan")
    return float(np.median(known)) if isinstance(column, NumericColumn) else float(np.mean(known) > 0.5)


def sentence(column: AnyColumn, value: float, typical: float, movement: float, *, exact: bool) -> str:
    """Say what a customer has, what is typical, and which way it moves her score; an approximate reason says so.

    Example: `Time from the last day of purchase to the as-of date: 62% of the observation window (typically 21%);
    raises the score`.
    """
    usual = ""
    if isinstance(column, NumericColumn):
        usual = f" (typically {_figure(column, typical) if np.isfinite(typical) else NOT_KNOWN})"
    direction = "raises" if movement > 0 else "lowers"
    remark = "" if exact else " (approximate)"
    return f"{short_meaning(column)}: {own_value(column, value)}{usual}; {direction} the score{remark}"


def strongest(movement: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return for each row of `movement` [rows, columns] its strongest columns [rows, at most 3]; ties by position."""
    order = np.argsort(-np.abs(movement), axis=1, kind="stable")
    return order[:, :REASONS].astype(np.int64)
