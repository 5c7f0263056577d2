"""Where customers stand: segment, life-cycle stage and worth, as the institution's own system or rules say; read from a CSV table."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from client.lists import safe_cell
from federation.errors import DocumentError

OWN_TABLE = "own table"
LARGEST_FILE = 1 << 28
COLUMNS = ("segment", "stage", "value")
_DELIMITERS = (",", ";", "\t")
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Place:
    """A customer's segment and life-cycle stage; empty where nobody placed her."""

    segment: str = ""
    stage: str = ""


NOWHERE = Place()
Placed = Mapping[str, Place]
"""Identifier -> place. Whoever is not in it is placed nowhere."""
Worth = Mapping[str, float]
"""Identifier -> what the customer is worth, such as a lifetime value, in one unit of money for all."""


@dataclass(frozen=True)
class Placements:
    """What is known of customers besides their scores, and what says so; `worth` None where nothing does."""

    placed: Placed = field(default_factory=dict)
    worth: Worth | None = None
    placed_by: str = ""
    worth_from: str = ""

    def place(self, customer: str) -> Place:
        """Return where a customer stands. Identifiers that a table of ours made safe for spreadsheets are known by that as well."""
        return self.placed.get(customer) or self.placed.get(safe_cell(customer), NOWHERE)

    def worth_of(self, customer: str) -> float | None:
        """Return what a customer is worth; None where it is not known."""
        worth = self.worth or {}
        return worth.get(customer, worth.get(safe_cell(customer)))


def read_placements(content: bytes) -> Placements:
    """Read a CSV table (UTF-8; comma, semicolon or tab) with a header: `customer`, and any of `segment`, `stage`, `value`.

    Segments and stages are names of the strategy map, at most 64 characters, or empty; a value is a number with a point, or empty. Other
    columns are ignored.

    Raises
    ------
    DocumentError
        CSL-C766 when it is no such table, with the number of the line and never what stands in it.
    """
    rows = _rows(content)
    names = [name for name in COLUMNS if name in rows[0]]
    if "customer" not in rows[0] or not names:
        raise _not_fit("Its header needs customer, and at least one of segment, stage and value.")
    if len(set(rows[0])) != len(rows[0]):
        raise _not_fit("Its header names a column twice.")
    at = {name: rows[0].index(name) for name in ("customer", *names)}
    placed: dict[str, Place] = {}  # every customer of the table, for each may stand in it once
    worth: dict[str, float] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(rows[0]):
            raise _not_fit(f"Row {number} has another number of cells than the header.")
        cells = {name: row[place].strip() for name, place in at.items()}
        customer = cells["customer"]
        if not customer or customer in placed:
            raise _not_fit(f"Row {number} names no customer, or one who was named before.")
        placed[customer] = Place(*(_name(cells.get(axis, ""), axis, number) for axis in ("segment", "stage")))
        if cells.get("value"):
            worth[customer] = _number(cells["value"], number)
    places = "segment" in names or "stage" in names
    return Placements(
        placed if places else {},
        worth if "value" in names else None,
        OWN_TABLE if places else "",
        OWN_TABLE if "value" in names else "",
    )


def _rows(content: bytes) -> list[list[str]]:
    if len(content) > LARGEST_FILE:
        raise _not_fit("It is larger than 256 MiB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_fit("It is not UTF-8 text.") from error
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise _not_fit("It is not CSV to its end.") from error
    if not rows or not rows[0]:
        raise _not_fit("It has no header.")
    return [[name.strip() for name in rows[0]], *rows[1:]]


def _name(cell: str, axis: str, number: int) -> str:
    if len(cell) > _LONGEST_NAME or not (cell or " ").isprintable():
        raise _not_fit(f"The {axis} in row {number} is no name: at most {_LONGEST_NAME} characters, in one line.")
    return cell


def _number(cell: str, number: int) -> float:
    try:
        value = float(cell)
    except ValueError as error:
        raise _not_fit(f"The value in row {number} is no number.") from error
    if not math.isfinite(value):
        raise _not_fit(f"The value in row {number} is not finite.")
    return value


def _not_fit(why: str) -> DocumentError:
    return DocumentError(
        "CSL-C766",
        f"The table of placed customers does not fit. {why}",
        "Give CSV with a header: customer, and any of segment, stage and value.",
    )
