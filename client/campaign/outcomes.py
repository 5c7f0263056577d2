"""Outcomes come back: a table of the institution's, read through a mapping, held against the campaign's members and its window.

Whatever does not fit is named with its count, never with a value. One row a customer is asked for. A member without a row, or with one
outside the window, had no outcome; a member whose row cannot be read, or who has two, is unknown and stays out of every comparison.
"""

# ruff: noqa: S608 - every name and value in a query is quoted by client.sql

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from client import sql
from client.campaign.draw import CONTROL, Member
from client.campaign.record import Window
from client.campaign.store import Outcomes
from client.config import NO, YES, Answers, CsvSource, NodeConfig, OwnName, ParquetSource, Spellings
from client.consent import Excluded
from client.sources import Session
from client.sql import MISSING, OK, Parsed
from client.validation import Findings
from federation.document import Document
from federation.errors import DataError, DocumentError

LONGEST_PATH = 256
UNLIKELY = 1e-3
FLAGS = ("conversion", "visit", "retained")
DATES = ("date", "contacted")

UNKNOWN = "rows about customers who are no members"
NAMELESS = "rows without a customer"
TWICE = "rows of members who have more than one"
NOT_READ = "rows with a value that cannot be read"
NO_DATE = "rows with an outcome and no date"
REVERSED = "rows with an outcome before the contact"
OUTSIDE = "rows with an outcome outside the window"
BEYOND = "rows with a spend beyond the bounds"
WITHDREW = "rows about customers who withdrew"
UNEVEN = "rows about members, and none about the control group"

Outcome = Literal["conversion", "visit", "retained", "spend"]
Arrays = Mapping[str, NDArray[Any]]


class OutcomeMapping(Document):
    """Which own columns hold what came back; what is left out is not known to anybody.

    `conversion`, `visit` and `retained` are flags with the spellings `yes` and `no`; `spend` is money in the campaign's unit, within
    `spend_low` and `spend_high`; `date` is the day of the outcome, `contacted` that of the contact, both ISO 8601 or in `format`.
    """

    customer: OwnName = "customer"
    conversion: OwnName = "conversion"
    visit: OwnName | None = None
    retained: OwnName | None = None
    spend: OwnName | None = None
    date: OwnName | None = None
    contacted: OwnName | None = None
    yes: Answers = YES
    no: Answers = NO
    missing: Spellings = ()
    format: str | None = None
    spend_low: float = 0.0
    spend_high: float = 100_000.0
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.spend_low > self.spend_high:
            raise ValueError("spend_low must not be above spend_high")
        if {text.lower() for text in self.yes} & {text.lower() for text in self.no}:
            raise ValueError("a spelling means yes or no, not both")
        return self

    @property
    def named(self) -> dict[str, str]:
        """What is mapped, by role: own column names, the customer's left out."""
        roles = (*FLAGS, "spend", *DATES)
        return {role: own for role in roles if (own := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Read:
    """A file of outcomes, held against the members: what became of each, what was left out and why, what else is to be known, and how many
    rows were about customers who withdrew, which is no fault of the file."""

    outcomes: Outcomes
    rows: int
    matched: int
    left_out: dict[str, int]
    noted: dict[str, int]
    spoken_of: tuple[Outcome, ...]
    withdrew: int


def read_outcomes(
    path: Path,
    mapping: OutcomeMapping,
    node: NodeConfig,
    members: Sequence[Member],
    window: Window,
    excluded: Excluded | None = None,
) -> Read:
    """Read a file of outcomes (.csv or .parquet) and hold it against the members; changes nothing. `excluded` says who withdrew.

    Raises
    ------
    DocumentError
        CSL-C791 for another kind of file.
    DataError
        The faults of a source (CSL-C1xx) when the file or a mapped column cannot be read.
    """
    rows = _read_rows(path, mapping, node)
    found = Counter[str]()
    place = {member.customer: number for number, member in enumerate(members)}
    customers = np.ma.getdata(rows["customer"]).astype(object)
    nameless = np.ma.getmaskarray(rows["customer"])
    where = np.array(
        [-1 if gone else place.get(str(who), -1) for who, gone in zip(customers, nameless, strict=True)], dtype=np.int64
    )
    found[NAMELESS] = int(nameless.sum())
    strange = (where < 0) & ~nameless
    withdrew = 0 if excluded is None or not strange.any() else int(excluded(list(customers[strange])).sum())
    found[UNKNOWN] = int(strange.sum()) - withdrew
    mine = where >= 0
    twice = mine & (np.bincount(where[mine], minlength=len(members) + 1)[where] > 1)
    found[TWICE] = int(twice.sum())
    bad, outside = _judge({name: values[mine] for name, values in rows.items()}, mapping, window, found)
    known = np.ones(len(members), dtype=bool)
    known[where[mine][bad]] = False
    known[where[twice]] = False
    good = np.flatnonzero(mine)[~bad & ~outside & ~twice[mine]]
    outcomes = _outcomes(rows, mapping, where, good, known)
    noted = {UNEVEN: int(mine.sum())} if _uneven(where[mine], members) else {}
    left = {what: count for what, count in found.items() if count}
    spoken: tuple[Outcome, ...] = ("conversion", *(role for role in _OPTIONAL if getattr(mapping, role) is not None))
    return Read(outcomes, len(where), int(mine.sum()), left, noted, spoken, withdrew)


_OPTIONAL: tuple[Outcome, ...] = ("visit", "retained", "spend")


def refuse_problems(found: Read) -> None:
    """Refuse a file with rows that do not fit, each kind named with its count.

    Raises
    ------
    DataError
        CSL-C786.
    """
    problems = found.left_out | found.noted
    if problems:
        listing = "\n".join(f"  {what}: {count:,}" for what, count in problems.items())
        raise DataError(
            "CSL-C786",
            f"Of {found.rows:,} rows some do not fit; nothing was stored:\n{listing}",
            "Correct the file, or say --leave-out: then they are left out, and the campaign's record says so.",
        )


def _read_rows(path: Path, mapping: OutcomeMapping, node: NodeConfig) -> Arrays:
    """Return customer (text), and for each mapped role `v:<role>` and `s:<role>`, its value and its state."""
    source = _source(path, mapping)
    findings = Findings()
    with Session(node, [source]) as session:
        relation = session.attach("outcomes", source, [mapping.customer, *mapping.named.values()], findings)
        findings.stop_on_faults()
        parts = [f"{relation.fields[mapping.customer].text} AS customer"]
        for role, own in mapping.named.items():
            parsed = _parsed(role, relation.fields[own], mapping)
            parts += [f'{parsed.value} AS "v:{role}"', f'{parsed.state} AS "s:{role}"']
        return session.arrays(f"SELECT {', '.join(parts)} FROM {relation.name}")


def _source(path: Path, mapping: OutcomeMapping) -> CsvSource | ParquetSource:
    whole = str(path.resolve())
    if len(whole) > LONGEST_PATH or path.suffix not in (".csv", ".parquet"):
        raise DocumentError(
            "CSL-C791",
            f"{path.name} is no .csv or .parquet, or its path is longer than {LONGEST_PATH} characters.",
            "Name a file of one of these kinds.",
        )
    if path.suffix == ".parquet":
        return ParquetSource(kind="parquet", path=whole)
    return CsvSource(kind="csv", path=whole, delimiter=mapping.delimiter, encoding=mapping.encoding)


def _parsed(role: str, field: sql.Field, mapping: OutcomeMapping) -> Parsed:
    if role in FLAGS:
        return sql.flag(field, mapping.yes, mapping.no, mapping.missing)
    if role == "spend":
        return sql.number(field, mapping.missing)
    return sql.calendar_day(field, mapping.format)


def _judge(
    rows: Arrays, mapping: OutcomeMapping, window: Window, found: Counter[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for rows of members which cannot be read, and which lie outside the window; both counted in `found`."""
    size = len(rows["customer"])
    unread = np.zeros(size, dtype=bool)
    for role in mapping.named:
        state = np.ma.getdata(rows[f"s:{role}"])
        unread |= (state != OK) & ((state != MISSING) | (role == "conversion"))
    any_outcome = _hit(rows, "conversion") | _hit(rows, "visit") | _positive(rows)
    beyond = ~unread & _beyond(rows, mapping)
    when, contacted = _day(rows, "date"), _day(rows, "contacted")
    dateless = ~unread & any_outcome & np.isnat(when) & ("date" in mapping.named)
    backwards = ~unread & any_outcome & (when < contacted)
    bad = unread | beyond | dateless | backwards
    early, late = np.datetime64(window.contact_from), np.datetime64(window.outcome_until)
    outside = ~bad & any_outcome & ((when < early) | (when > late))
    counts = ((NOT_READ, unread), (BEYOND, beyond), (NO_DATE, dateless), (REVERSED, backwards), (OUTSIDE, outside))
    for what, mask in counts:
        found[what] = int(mask.sum())
    return bad, outside


def _value(rows: Arrays, role: str) -> NDArray[np.float64]:
    """The values of a role, NaN where they are missing or not mapped."""
    if f"v:{role}" not in rows:
        return np.full(len(rows["customer"]), np.nan)
    values = np.ma.getdata(rows[f"v:{role}"]).astype(np.float64)
    return np.where(np.ma.getdata(rows[f"s:{role}"]) == OK, values, np.nan)


def _hit(rows: Arrays, role: str) -> NDArray[np.bool_]:
    return np.asarray(_value(rows, role) == 1.0)


def _positive(rows: Arrays) -> NDArray[np.bool_]:
    return np.nan_to_num(_value(rows, "spend")) > 0


def _beyond(rows: Arrays, mapping: OutcomeMapping) -> NDArray[np.bool_]:
    spend = _value(rows, "spend")
    return (spend < mapping.spend_low) | (spend > mapping.spend_high)


def _day(rows: Arrays, role: str) -> NDArray[np.datetime64]:
    """The days of a role, NaT where they are missing or not mapped."""
    size = len(rows["customer"])
    if f"v:{role}" not in rows:
        return np.full(size, np.datetime64("NaT", "D"))
    days = np.ma.getdata(rows[f"v:{role}"]).astype("datetime64[D]")
    gone = np.ma.getmaskarray(rows[f"v:{role}"]) | (np.ma.getdata(rows[f"s:{role}"]) != OK)
    return np.where(gone, np.datetime64("NaT", "D"), days)


def _outcomes(
    rows: Arrays,
    mapping: OutcomeMapping,
    where: NDArray[np.int64],
    good: NDArray[np.int64],
    known: NDArray[np.bool_],
) -> Outcomes:
    """Place the good rows' values; who has none did nothing, and whether she stayed is not known.

    An empty spend of somebody who did not convert is nothing, of somebody who did it is unknown.
    """
    size = len(known)
    conversion, visit, retained, spend = (
        np.zeros(size),
        np.full(size, np.nan if mapping.visit is None else 0.0),
        np.full(size, np.nan),
        np.full(size, np.nan if mapping.spend is None else 0.0),
    )
    places = where[good]
    conversion[places] = _value(rows, "conversion")[good]
    visit[places] = _value(rows, "visit")[good]
    retained[places] = _value(rows, "retained")[good]
    spent = _value(rows, "spend")[good]
    if mapping.spend is not None:
        spend[places] = np.where(np.isnan(spent) & (conversion[places] == 0), 0.0, spent)
    for values in (conversion, visit, retained, spend):
        values[~known] = np.nan
    return Outcomes(known, conversion, visit, retained, spend)


def _uneven(where: Iterable[int], members: Sequence[Member]) -> bool:
    """Whether the file speaks of those approached alone, so that the control group would seem to have done nothing: none of its rows
    is about the control group, where as many rows spread evenly would hardly ever miss it."""
    places = list(where)
    held = sum(member.arm == CONTROL for member in members)
    if not places or any(members[place].arm == CONTROL for place in places):
        return False
    return bool((1 - held / len(members)) ** len(places) < UNLIKELY)
