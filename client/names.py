"""The name list: whom the institution should approach, how likely, worth how much, and why. It never leaves.

The label of a contract is the event that matters: for churn the list holds those most at risk, for propensity those
most likely to buy. Only customers who agreed to be contacted may stand on it; that is another consent than the one to
training.
"""

import csv
import hashlib
import hmac
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from client.calibration import Calibration, Floats
from client.reasons import REASONS
from client.scoring import Scores
from federation.contract import Name, Text
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import DataError
from federation.files import atomic_write
from federation.signing import Hex32

TIES = b"csl1/list\0"
DECILES = 10
PRIVATE = 0o600
COLUMNS = ("customer", "rank", "score", "decile", "expected_value", "expected_gain", "reason_1", "reason_2", "reason_3")
# A cell that begins with one of these (also in full width, also after blanks) is a formula to a spreadsheet.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = "'"


class TopCustomers(Document):
    """Capacity: the list holds so many customers, those with the highest probability."""

    kind: Literal["top"] = "top"
    customers: Annotated[int, Field(ge=1)]


class WorthWhile(Document):
    """Cost against benefit: everybody whom it pays to approach, highest expected gain first.

    probability x value x success_rate must exceed `cost` (in the money of the node's table). `success_rate` is the
    share of those approached for whom it makes the difference: the institution's own estimate. `at_most` limits the
    list as well.
    """

    kind: Literal["worthwhile"] = "worthwhile"
    cost: Annotated[float, Field(ge=0)]
    success_rate: Annotated[float, Field(gt=0, le=1)]
    at_most: Annotated[int, Field(ge=1)] | None = None


Capacity = Annotated[TopCustomers | WorthWhile, Field(discriminator="kind")]


@dataclass(frozen=True)
class Listed:
    """One line of a name list; `decile` 1 is the most probable tenth of those scored; unmapped money is None."""

    customer: str
    rank: int
    score: float
    decile: int
    expected_value: float | None
    expected_gain: float | None
    reasons: tuple[str, ...]


class Counts(Document):
    """What went into a name list: local only, as true counts are private."""

    scored: int
    listed: int
    without_value: int
    quoted_in_csv: int


class ListRecord(Document):
    """The sidecar of a name list: where it came from, by which rule, and the digests of its two files."""

    study: Name
    model: Hex32
    written: str
    contract: Name
    score_means: Text
    reasons: Literal["exact", "approximate (occlusion)"]
    calibration: Calibration
    capacity: Capacity
    counts: Counts
    parquet_sha256: Hex32
    csv_sha256: Hex32


@dataclass(frozen=True)
class Written:
    """The three files of a name list."""

    parquet: Path
    csv: Path
    record: Path


def choose(
    scores: Scores, capacity: TopCustomers | WorthWhile, contactable: Collection[str], key: bytes
) -> list[Listed]:
    """Choose whom to approach, best first.

    Customers with equal scores are ordered by HMAC-SHA256 of their identifier under `key`: the same at every run, and
    no one is favoured by her number or her place in the table.

    Parameters
    ----------
    scores:
        The scored customers.
    capacity:
        How many, or which are worth it.
    contactable:
        Identifiers of all customers who agreed to be contacted, as the consent table says.
    key:
        A secret of the vault, such as its hold-out key.

    Raises
    ------
    DataError
        CSL-C711 when a scored customer did not agree to be contacted, CSL-C712 for a customer scored twice, CSL-C713
        when the rule needs money and the node maps none.
    """
    ids = [str(customer) for customer in scores.cohort.ids]
    _check_customers(ids, contactable)
    ties = np.array([_tie(key, customer) for customer in ids], dtype=np.uint64)
    by_score = np.lexsort((ties, -scores.probability))
    decile = np.empty(len(ids), dtype=np.int64)
    decile[by_score] = 1 + np.arange(len(ids)) * DECILES // max(1, len(ids))
    value = scores.cohort.value
    expected = None if value is None else scores.probability * value
    gain: Floats | None = None
    if isinstance(capacity, TopCustomers):
        rows = by_score[: capacity.customers]
    else:
        gain = _gain(expected, capacity)
        rows = _worthwhile(gain, ties, capacity.at_most)
    return [
        Listed(
            customer=ids[row],
            rank=place + 1,
            score=float(scores.probability[row]),
            decile=int(decile[row]),
            expected_value=_money(expected, row),
            expected_gain=_money(gain, row),
            reasons=reasons,
        )
        for place, (row, reasons) in enumerate(zip(rows, scores.reasons(rows), strict=True))
    ]


def _check_customers(ids: Sequence[str], contactable: Collection[str]) -> None:
    agreed = contactable if isinstance(contactable, (set, frozenset)) else frozenset(contactable)
    outside = sum(customer not in agreed for customer in ids)
    if outside:
        raise DataError(
            "CSL-C711",
            f"{outside} of the customers to be listed did not agree to be contacted; no list was written.",
            'Map the consent to purpose "contact" in the node\'s configuration and score again.',
        )
    twice = len(ids) - len(set(ids))
    if twice:
        raise DataError(
            "CSL-C712",
            f"{twice} customers were scored more than once; no list was written.",
            "Give the table one row a customer.",
        )


def _tie(key: bytes, customer: str) -> int:
    return int.from_bytes(hmac.digest(key, TIES + customer.encode(), hashlib.sha256)[:8], "big")


def _gain(expected: Floats | None, rule: WorthWhile) -> Floats:
    if expected is None:
        raise DataError(
            "CSL-C713",
            "A list by cost and benefit needs to know what each customer is worth, and the node maps no money.",
            "Map a value column in the node's configuration, or ask for a number of customers instead.",
        )
    gain: Floats = expected * rule.success_rate - rule.cost
    return gain


def _worthwhile(gain: Floats, ties: NDArray[np.uint64], at_most: int | None) -> NDArray[np.int64]:
    """Rows with a gain above zero, best first; a customer of unknown value (NaN) is never among them."""
    order = np.lexsort((ties, -np.nan_to_num(gain, nan=-np.inf)))
    return order[gain[order] > 0][:at_most].astype(np.int64)


def _money(amounts: Floats | None, row: int) -> float | None:
    return float(amounts[row]) if amounts is not None and np.isfinite(amounts[row]) else None


def write_list(
    folder: Path,
    listed: Sequence[Listed],
    scores: Scores,
    *,
    study: str,
    model_digest: str,
    when: datetime,
    capacity: TopCustomers | WorthWhile,
    calibration: Calibration,
) -> Written:
    """Write a name list as Parquet and CSV with its record (JSON): each whole or not at all, readable by its owner only.

    Files are called `<study>-<date>-<first 8 digits of the model's digest>`; the same again replaces them. The record
    is written last and holds the digests of the other two, so a list whose record does not fit was interrupted.

    Raises
    ------
    StorageError
        CSL-F301 when a file cannot be written.
    """
    parquet, text = _parquet(listed), _csv(listed)
    value = scores.cohort.value
    counts = Counts(
        scored=len(scores),
        listed=len(listed),
        without_value=len(scores) if value is None else int(np.count_nonzero(~np.isfinite(value))),
        quoted_in_csv=sum(safe_cell(line.customer) != line.customer for line in listed),
    )
    record = ListRecord(
        study=study,
        model=model_digest,
        written=when.isoformat(timespec="seconds"),
        contract=scores.contract.name,
        score_means=f"Probability of: {scores.contract.label.meaning}"[:400],
        reasons="exact" if scores.exact else "approximate (occlusion)",
        calibration=calibration,
        capacity=capacity,
        counts=counts,
        parquet_sha256=sha256_hex(parquet),
        csv_sha256=sha256_hex(text),
    )
    stem = f"{study}-{when:%Y-%m-%d}-{model_digest[:8]}"
    written = Written(folder / f"{stem}.parquet", folder / f"{stem}.csv", folder / f"{stem}.json")
    atomic_write(written.parquet, parquet, PRIVATE)
    atomic_write(written.csv, text, PRIVATE)
    atomic_write(written.record, record.model_dump_json(indent=2).encode(), PRIVATE)
    return written


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: one apostrophe is put before it if it looks like one.

    A text that begins with an apostrophe gets one as well, so that removing exactly one leading apostrophe always
    gives the original.
    """
    risky = text.startswith((_QUOTE, *_FORMULA_STARTS)) or text.lstrip().startswith(_FORMULA_STARTS)
    return _QUOTE + text if risky else text


def _parquet(listed: Sequence[Listed]) -> bytes:
    kinds = {
        "rank": pa.int32(),
        "decile": pa.int8(),
        "score": pa.float64(),
        "expected_value": pa.float64(),
        "expected_gain": pa.float64(),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    columns = zip(*_rows(listed), strict=True) if listed else ([] for _ in COLUMNS)
    arrays = [pa.array(list(values), type=field.type) for values, field in zip(columns, schema, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    return sink.getvalue()


def _csv(listed: Sequence[Listed]) -> bytes:
    """UTF-8, comma, all texts in quotes; numbers with a point; money that is not known is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for row in _rows(listed):
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().encode()


def _rows(listed: Iterable[Listed]) -> list[tuple[str | int | float | None, ...]]:
    return [
        (
            line.customer,
            line.rank,
            line.score,
            line.decile,
            line.expected_value,
            line.expected_gain,
            *line.reasons[:REASONS],
        )
        for line in listed
    ]
