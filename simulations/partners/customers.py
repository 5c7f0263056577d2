"""Customers of a simulation in a contract's columns, and how a table's spelling of them is read."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.cohort import Columns
from client.config import NO, YES
from federation.contract import CategoricalColumn, Column, FeatureContract, FlagColumn, NumericColumn
from federation.errors import DataError

AnyArray = np.ndarray[Any, Any]

NOT_KNOWN = "unknown"
ALL = "everybody"
"""The one institution of data that do not say who holds a row."""

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Customers:
    """Everybody's customers, before anything is held out. Arrays are shared and must not be written to.

    Attributes
    ----------
    contract:
        The columns that follow, and the label.
    columns:
        By contract column, [n]: meanings as in `client.cohort.Columns` (NaN missing, -1 unknown), in the narrowest of float32, float64,
        int16 and int64 that keeps every value to the bit. A column that the data lack is absent.
    labels:
        float64 [n], 0 or 1.
    institution:
        Text [n]: who holds the row in the data; one name throughout where the data do not say.
    time:
        int64 [n]: rank in time from 0; the order of rows where the data do not say.
    extra:
        Other columns of the data, [n], which a partition may name.
    person:
        int64 [n]: equal where two rows are one person, who may be a customer of several institutions. None where the data do not say:
        each row is then taken for a person of its own.
    """

    contract: FeatureContract
    columns: Columns
    labels: NDArray[np.float64]
    institution: NDArray[np.object_]
    time: NDArray[np.int64]
    extra: Mapping[str, AnyArray]
    person: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for array in (*self.columns.values(), self.labels, self.institution, self.time, *self.extra.values()):
            array.flags.writeable = False
        if self.person is not None:
            self.person.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64], without: Iterable[str] = ()) -> Columns:
        """Return the contract columns of these rows as `client.cohort` has them (float64, int64), but for those in `without`."""
        left_out = set(without)
        return {
            name: array[rows].astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float64)
            for name, array in self.columns.items()
            if name not in left_out
        }


def compact(array: AnyArray) -> AnyArray:
    """Return numbers in float32 or int16 where that keeps every one to the bit, else as they are."""
    whole = np.issubdtype(array.dtype, np.integer)
    with np.errstate(over="ignore"):  # infinity differs from what overflowed
        narrow = array.astype(np.int16 if whole else np.float32)
    return narrow if np.array_equal(narrow, array, equal_nan=not whole) else array


def texts(series: "pd.Series[Any]", missing: str) -> NDArray[np.object_]:
    """Return a column as text, object [n]; equal values share one object, so that a million rows take 8 bytes each."""
    codes, values = pd.factorize(series)
    names = np.array([*(_text(value) for value in values), missing], dtype=object)
    found: NDArray[np.object_] = names[codes]
    return found


def single(series: "pd.Series[Any]") -> bool:
    """Say whether a column has one value a row, and not lists or records."""
    return not pd.api.types.is_object_dtype(series) or all(map(pd.api.types.is_hashable, series))


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (nearest: ...)" with the known name that is most like `name`, or nothing where none is."""
    found = difflib.get_close_matches(name.lower(), spelled := {item.lower(): item for item in known}, n=1)
    return f" (nearest: {spelled[found[0]]})" if found else ""


class Reader:
    """Reads a table's columns by a contract, and gathers what does not fit, so that all of it is told at once."""

    def __init__(self, frame: pd.DataFrame, where: str) -> None:
        self.frame = frame
        self.where = where
        self.problems: list[str] = []

    def need(self, names: Iterable[str]) -> None:
        """Check that the table has these columns, with one value a row.

        Raises
        ------
        DataError
            CSL-M222 naming those that it lacks, each with the name that is nearest to it; CSL-M223 naming those of lists or records.
        """
        names = list(names)
        own = [str(name) for name in self.frame.columns]
        absent = [name for name in names if name not in own]
        if absent:
            listed = ", ".join(f"{name}{nearest(name, own)}" for name in absent)
            raise DataError(
                "CSL-M222", f"{self.where} has no column {listed}.", "Rename the table's columns, or correct the name."
            )
        nested = [name for name in names if not single(self.frame[name])]
        if nested:
            raise DataError(
                "CSL-M223",
                f"{self.where} has lists or records in {', '.join(nested)}.",
                "Give these columns one number or text a row, or name others.",
            )

    def columns(self, contract: FeatureContract) -> Columns:
        """Return the contract's columns; optional ones that the table lacks are left out. Raises as `need`."""
        self.need(column.name for column in contract.columns if column.required or column.name in self.frame.columns)
        return {column.name: self._column(column) for column in contract.columns if column.name in self.frame.columns}

    def label(self, name: str) -> NDArray[np.float64]:
        """Return the label, float64 [n]; every row must have one. Raises as `need`."""
        self.need([name])
        found = self._flags(name)
        self._fault(name, "no label", np.isnan(found) & self.frame[name].isna().to_numpy())
        return found

    def finish(self) -> None:
        """Stop if anything did not fit.

        Raises
        ------
        DataError
            CSL-M223 with every problem.
        """
        if self.problems:
            listing = "\n".join(f"  {problem}" for problem in self.problems)
            raise DataError(
                "CSL-M223",
                f"{self.where} does not fit:\n{listing}",
                "Correct the table or the contract, and try again.",
            )

    def times(self, name: str) -> NDArray[np.int64]:
        """Return everybody's rank by a column of numbers or dates (ISO 8601), int64 [n]; equal times in the order of rows."""
        self.need([name])
        series = self.frame[name]
        if not (pd.api.types.is_numeric_dtype(series) or pd.api.types.is_datetime64_any_dtype(series)):
            series = pd.to_datetime(series, errors="coerce", format="ISO8601", utc=True)
        self._fault(name, "neither a number nor a date (YYYY-MM-DD)", series.isna().to_numpy())
        return ranks(series.to_numpy())

    def _column(self, column: Column) -> AnyArray:
        if isinstance(column, NumericColumn):
            return compact(self._numbers(column.name))
        if isinstance(column, FlagColumn):
            return compact(self._flags(column.name))
        return compact(self._codes(column))

    def _numbers(self, name: str) -> NDArray[np.float64]:
        series = self.frame[name]
        numbers = pd.to_numeric(series, errors="coerce")
        found: NDArray[np.float64] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        self._fault(name, "not a number", np.isnan(found) & series.notna().to_numpy())
        self._fault(name, "not finite", np.isinf(found))
        return found

    def _flags(self, name: str) -> NDArray[np.float64]:
        series = self.frame[name]
        codes, values = pd.factorize(series)
        meaning = np.array([*(_yes_or_no(value) for value in values), np.nan])
        found: NDArray[np.float64] = meaning[codes]
        self._fault(name, "neither 0 or 1 nor yes or no", np.isnan(found) & series.notna().to_numpy())
        return found

    def _codes(self, column: CategoricalColumn) -> NDArray[np.int64]:
        codes, values = pd.factorize(self.frame[column.name])
        place = {category: number for number, category in enumerate(column.categories)}
        spelled = [_text(value) for value in values]
        strange = [text for text in spelled if text not in place]
        if strange:
            listed = ", ".join(f'"{text[:64]}"{nearest(text, place)}' for text in strange[:_SHOWN])
            more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
            self.problems.append(f"{column.name}: the contract has no category {listed}{more}")
        found: NDArray[np.int64] = np.array([*(place.get(text, -1) for text in spelled), -1], dtype=np.int64)[codes]
        return found

    def _fault(self, name: str, what: str, where: NDArray[np.bool_]) -> None:
        count = int(np.count_nonzero(where))
        if count:
            rows = "1 row" if count == 1 else f"{count} rows"
            self.problems.append(f"{name}: {what} in {rows}, first in row {int(np.argmax(where)) + 1}")


def ranks(values: AnyArray) -> NDArray[np.int64]:
    """Return each value's rank from 0, int64 [n]; equal values in their order."""
    found = np.empty(len(values), dtype=np.int64)
    found[np.argsort(values, kind="stable")] = np.arange(len(values))
    return found


def _yes_or_no(value: object) -> float:
    text = _text(value).strip().lower()
    if text in YES:
        return 1.0
    return 0.0 if text in NO else float("nan")
