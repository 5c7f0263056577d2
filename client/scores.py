"""Scored customers, as lists are made from them; how they are scored is in `client.scoring`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.calibration import Calibration, Floats
from client.cohort import Cohort
from client.reasons import REASONS, SMALLEST, sentence, strongest
from federation.contract import FeatureContract

AS_IT_IS = Calibration(intercept=0.0, slope=1.0, method="none", note="As the model has it.")


@dataclass(frozen=True)
class Scores:
    """Scored customers, in the cohort's order.

    `logit` and calibrated `probability` of the label are float64 [n]. `movement`, float32 [n, columns of the
    contract], is how far each column moved the logit against the average customer; `typical` holds each column's
    typical value; `exact` says whether movements add up to the logit. `average` holds each column's average term, which an exact movement
    is counted from (nothing for models without terms); `calibration` is how logits became probabilities.
    """

    contract: FeatureContract
    cohort: Cohort
    logit: Floats
    probability: Floats
    movement: NDArray[np.float32]
    typical: tuple[float, ...]
    exact: bool
    average: tuple[float, ...] = ()
    calibration: Calibration = AS_IT_IS

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.logit)

    def reasons(self, rows: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, ...]]:
        """Return each row's three strongest reasons in words, strongest first; "" where fewer moved the score."""
        chosen = np.asarray(rows, dtype=np.int64)
        moved = self.movement[chosen]
        return [
            self._words(int(row), moved[place], order)
            for place, (row, order) in enumerate(zip(chosen, strongest(moved), strict=True))
        ]

    def _words(self, row: int, moved: NDArray[np.float32], order: NDArray[np.int64]) -> tuple[str, ...]:
        texts = [
            self._sentence(row, int(place), float(moved[place])) for place in order if abs(moved[place]) > SMALLEST
        ]
        return tuple(texts + [""] * (REASONS - len(texts)))

    def _sentence(self, row: int, place: int, movement: float) -> str:
        column = self.contract.columns[place]
        values = self.cohort.columns.get(column.name)
        value = self.typical[place] if values is None else float(values[row])
        return sentence(column, value, self.typical[place], movement, exact=self.exact)
