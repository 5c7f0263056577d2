"""The customers of one statistics study, aligned over the two times at which a measure may look at them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort
from federation.contract import CategoricalColumn, FeatureContract
from federation.measures import At, column_of

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class People:
    """Customers [n], each once, with what is known of them at each time.

    `codes` and `numbers` are by (column, time): codes int64 [n] (index of the group, -1 unknown) for categorical columns and flags, numbers
    float64 [n] (NaN unknown) for numeric columns and flags; `present` bool [n] by time.
    """

    size: int
    codes: Mapping[tuple[str, At], NDArray[np.int64]]
    numbers: Mapping[tuple[str, At], NDArray[np.float64]]
    present: Mapping[At, NDArray[np.bool_]]

    @classmethod
    def of(cls, contract: FeatureContract, cohorts: Mapping[At, Cohort]) -> "People":
        """Align cohorts, whose ids are distinct each, over the union of their ids; the label belongs to `start`."""
        if len(cohorts) == 1:
            (only,) = cohorts.values()
            places = dict.fromkeys(cohorts, np.arange(len(only)))
            size = len(only)
        else:
            ids = np.array(sorted({name for cohort in cohorts.values() for name in cohort.ids}), dtype=object)
            where = {name: place for place, name in enumerate(ids)}
            places = {
                at: np.array([where[name] for name in cohort.ids], dtype=np.int64) for at, cohort in cohorts.items()
            }
            size = len(ids)
        codes: dict[tuple[str, At], NDArray[np.int64]] = {}
        numbers: dict[tuple[str, At], NDArray[np.float64]] = {}
        present: dict[At, NDArray[np.bool_]] = {}
        for at, cohort in cohorts.items():
            present[at] = _spread(np.ones(len(cohort), dtype=bool), places[at], size, False)
            known = dict(cohort.columns)
            if cohort.label is not None and at == "start":
                known[contract.label.name] = cohort.label
            for name, values in known.items():
                if isinstance(column_of(name, contract), CategoricalColumn):
                    codes[name, at] = _spread(values.astype(np.int64), places[at], size, -1)
                    continue
                number = _spread(values.astype(np.float64), places[at], size, np.nan)
                numbers[name, at] = np.where(np.isfinite(number), number, np.nan)
                codes[name, at] = _flag_codes(numbers[name, at])
        return cls(size, codes, numbers, present)

    def code(self, name: str, at: At) -> NDArray[np.int64]:
        """Return a column's group by customer, -1 where it is unknown or the institution has no such column."""
        return self.codes.get((name, at), np.full(self.size, -1, dtype=np.int64))

    def number(self, name: str, at: At) -> NDArray[np.float64]:
        """Return a column's value by customer, NaN where it is unknown or the institution has no such column."""
        return self.numbers.get((name, at), np.full(self.size, np.nan))

    def here(self, at: At) -> NDArray[np.bool_]:
        """Return who is there at a time."""
        return self.present.get(at, np.zeros(self.size, dtype=bool))


def _flag_codes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    known = np.isin(values, (0.0, 1.0))
    return np.where(known, np.where(known, values, 0.0), -1.0).astype(np.int64)


def _spread(values: NDArray[T], places: NDArray[np.int64], size: int, missing: object) -> NDArray[T]:
    result: NDArray[T] = np.full(size, missing, dtype=values.dtype)
    result[places] = values
    return result
