"""A made-up town of customers at several institutions, for the askers of tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from client.cohort import Cohort
from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.answers import Answer
from federation.contract import FeatureContract
from federation.measures import At, Cells, Centres, sensitivity, shape_of
from server.statistics.asking import Asker, Setting, Sum

REGIONS = ("north", "south", "west")
ARMS = ("control", "letter", "call")

CONTRACT = FeatureContract.model_validate_json(
    """{"name": "town", "version": 1, "title": "A town", "source": "table",
    "columns": [
      {"kind": "numeric", "name": "age", "meaning": "Age", "unit": "years", "low": 18, "high": 98,
       "knots": [18, 30, 45, 60, 98]},
      {"kind": "numeric", "name": "income", "meaning": "Income", "unit": "euro", "low": 0, "high": 1000, "scale": "log",
       "knots": [0, 20, 50, 100, 300, 1000], "required": false},
      {"kind": "numeric", "name": "cost", "meaning": "Cost of the approach", "unit": "euro", "low": 0, "high": 10,
       "knots": [0, 5, 10]},
      {"kind": "numeric", "name": "score", "meaning": "Score", "unit": "share", "low": 0, "high": 1, "knots": [0, 1]},
      {"kind": "categorical", "name": "region", "meaning": "Region", "categories": ["north", "south", "west"]},
      {"kind": "categorical", "name": "arm", "meaning": "Arm", "categories": ["control", "letter", "call"]},
      {"kind": "flag", "name": "chosen", "meaning": "Chosen by the model"},
      {"kind": "flag", "name": "kept", "meaning": "Still a customer"}],
    "label": {"name": "bought", "meaning": "Bought"}}"""
)


@dataclass(frozen=True, eq=False)
class Town:
    """Customers as a frame (categories by name), and as cohorts of institutions."""

    frame: pd.DataFrame
    cohorts: list[dict[At, Cohort]]


def town(generator: np.random.Generator, size: int = 6000, institutions: int = 5) -> Town:
    """Draw customers: the arm is chance, its gain grows with the score; some incomes and regions are unknown."""
    region = generator.choice(4, size, p=[0.5, 0.3, 0.15, 0.05])
    arm = generator.choice(3, size)
    score, age = generator.random(size), np.clip(generator.normal(45, 15, size), 10, 99)
    income = np.where(generator.random(size) < 0.1, np.nan, np.exp(3.0 + 0.02 * age + generator.normal(0, 0.7, size)))
    bought = generator.random(size) < 0.1 + 0.1 * score + np.array([0.0, 0.06, 0.12])[arm] * score
    frame = pd.DataFrame(
        {
            "age": age,
            "income": income,
            "cost": np.array([0.0, 1.0, 6.0])[arm] + generator.random(size),
            "score": score,
            "region": np.array([*REGIONS, None], dtype=object)[region],
            "arm": np.array(ARMS, dtype=object)[arm],
            "chosen": (generator.random(size) < score).astype(float),
            "kept": (generator.random(size) < 0.7 + 0.1 * (region == 0)).astype(float),
            "bought": bought.astype(float),
        }
    )
    return Town(frame, [_cohort(frame.iloc[place::institutions]) for place in range(institutions)])


def _cohort(part: pd.DataFrame) -> dict[At, Cohort]:
    columns: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {}
    for column in CONTRACT.columns:
        values = part[column.name]
        if column.kind == "categorical":
            columns[column.name] = pd.Categorical(values, categories=list(column.categories)).codes.astype(np.int64)
        else:
            columns[column.name] = values.to_numpy(dtype=np.float64)
    ids = np.array([f"c{place}" for place in part.index], dtype=object)
    return {"start": Cohort(ids, columns, part["bought"].to_numpy(dtype=np.float64))}


def setting(sd: float = 36_000.0, customers: int = 6000, confidence: float = 0.95) -> Setting:
    """Return public numbers for the town."""
    return Setting(CONTRACT, customers, sd, confidence)


@dataclass(frozen=True, eq=False)
class Exact:
    """What an asker asked of a town, and the exact sums: to be told again and again with other noise."""

    asker: Asker
    measures: tuple[Cells | Centres, ...]
    sums: list[NDArray[np.float64]]

    @classmethod
    def of(cls, asker: Asker, people: Town, budget: float) -> "Exact":
        """Ask the only round's measures with this budget."""
        measures = asker.ask(1, budget)
        assert sensitivity(measures) <= budget * (1 + 1e-9)
        total = sum(
            measure_all(measures, People.of(CONTRACT, cohort), CONTRACT).astype(np.float64) for cohort in people.cohorts
        )
        shapes = [shape_of(item, CONTRACT) for item in measures]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = np.split(np.asarray(total), ends[:-1])
        return cls(asker, measures, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    def answer(self, generator: np.random.Generator, sd: float) -> Answer:
        """Tell the sums with noise, and return the answer."""
        noisy = [part + np.rint(generator.normal(0.0, sd, part.shape)) if sd else part for part in self.sums]
        self.asker.told(1, [Sum(item, part, sd) for item, part in zip(self.measures, noisy, strict=True)])
        return self.asker.answer()


def coverage(
    exact: Exact, table: str, truth: Mapping[tuple[str, ...], float], sd: float, draws: int
) -> dict[tuple[str, ...], float]:
    """Return in which share of the draws each row's interval held the truth; rows without a value are not judged."""
    generator = np.random.default_rng(20_261_122)
    held: dict[tuple[str, ...], list[bool]] = {key: [] for key in truth}
    for _ in range(draws):
        for row in exact.answer(generator, sd).table(table).rows:
            if row.key in held and row.low is not None and row.high is not None:
                assert row.value is not None and row.low <= row.value <= row.high
                held[row.key].append(row.low - 1e-9 <= truth[row.key] <= row.high + 1e-9)
    return {key: float(np.mean(found)) for key, found in held.items() if found}


def truth_of(answer: Answer, table: str) -> dict[tuple[str, ...], float]:
    """Return the values of an answer that was given without noise."""
    return {row.key: row.value for row in answer.table(table).rows if row.value is not None}


def tolerance(draws: int, judged: int = 1) -> float:
    """Return how far a coverage of 95% may stray in so many draws, with an error of 1 in 1,000 over all that are judged (Bonferroni)."""
    return float(ndtri(1.0 - 0.0005 / judged)) * float(np.sqrt(0.95 * 0.05 / draws))
