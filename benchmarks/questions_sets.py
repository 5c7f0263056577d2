"""What the benchmark of questions stands on: customers of public data, the noise of five institutions in memory, tables of figures.

Sums are of integers, so it does not matter which institution holds which customer: all are kept together, and the noise is that of five.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import analytics_sets
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.cohort import Cohort, Columns
from client.tables import Want
from federation.answers import Answer
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.document import load_yaml
from federation.measures import At
from server.statistics.asking import Asker, Setting
from simulations import datasets
from simulations.asker_play import play
from simulations.sites import CDNOW_WINDOW, Window

ROOT = Path(__file__).resolve().parents[1]
Floats = NDArray[np.float64]
CONTRACTS = ROOT / "configs" / "contracts"
RFM = analytics_sets.RFM
BANK = load_yaml(CONTRACTS / "bank_campaign.yaml", FeatureContract)
RETAIL_WINDOW = Window(date(2011, 6, 1), 365, 180, 300.0)
LEARN: Mapping[At, Want] = {"start": "learn"}
AGES = (18.0, *(float(age) for age in range(25, 65, 5)), 70.0, 90.0)
MEMBERS, MU, SHARE, CONFIDENCE = 5, 0.22, 16_384.0, 0.95
SD = SHARE * math.sqrt(MEMBERS)
"""Of the noise of five together on every integer. `MU` for a whole study is epsilon 1 at delta 2e-6."""


@dataclass(frozen=True)
class Way:
    """How the noise comes about: by how many members it must suffice for, and which part of the study's squared budget the query has."""

    name: str
    bearers: int
    part: float = 1.0

    def budget(self, rounds: int) -> float:
        """Return a round's sensitivity, equal in all rounds."""
        return MU * math.sqrt(self.part * self.bearers / rounds) * SHARE


LOCAL, SHARED, TWELFTH = Way("local", 1), Way("shared", 3), Way("a twelfth", 1, 1.0 / 12.0)


@dataclass(frozen=True)
class Table:
    """A table of a part, as text, with what stands below it, the targets that were missed, and every run's figures for a machine."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    missed: Sequence[str] = ()
    figures: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return it as Markdown."""
        cells = [self.head, ["---"] * len(self.head), *self.rows]
        body = [f"| {' | '.join(row)} |" for row in cells]
        return [f"## {self.title}", "", *body, *(["", *self.notes] if self.notes else []), ""]


def setting(contract: FeatureContract, customers: int) -> Setting:
    """Return what all askers share."""
    return Setting(contract, customers, SD, CONFIDENCE)


def ask(asker: Asker, contract: FeatureContract, cohort: Cohort, way: Way | None, seed: int) -> Answer:
    """Play an asker; without a way there is no noise, and the answer is exact."""
    budget, sd = (LOCAL.budget(asker.rounds), 0.0) if way is None else (way.budget(asker.rounds), SD)
    people: list[dict[At, Cohort]] = [{"start": cohort}]
    return play(asker, contract, people, budget=budget, sd=sd, generator=np.random.default_rng(seed))


def cdnow(cache: Path) -> Cohort:
    """Return the features of CDNOW's customers as of the demo's date."""
    return analytics_sets.of_log(datasets.cdnow(cache), CDNOW_WINDOW, LEARN)["start"]


def retail(data: Path) -> Cohort:
    """Return the features of Online Retail II's customers. Raises DataError where the file is not there."""
    return analytics_sets.of_log(datasets.online_retail(data), RETAIL_WINDOW, LEARN)["start"]


def bank(cache: Path) -> tuple[FeatureContract, Cohort]:
    """Return UCI's bank-full under the contract of the campaign."""
    return BANK, _of_table(datasets.bank_full(cache), BANK)


def churn(data: Path) -> tuple[FeatureContract, Cohort]:
    """Return Churn_Modelling, with ages in fives. Raises DataError where the file is not there."""
    contract = load_yaml(ROOT / "benchmarks" / "bank_customers.yaml", FeatureContract)
    columns = [item.model_copy(update={"knots": AGES}) if item.name == "age" else item for item in contract.columns]
    contract = contract.model_copy(update={"columns": tuple(columns)})
    return contract, _of_table(datasets.churn_modelling(data), contract)


def _of_table(frame: pd.DataFrame, contract: FeatureContract) -> Cohort:
    columns: Columns = {}
    for column in contract.columns:
        values = frame[column.name]
        if isinstance(column, CategoricalColumn):
            places = {name: place for place, name in enumerate(column.categories)}
            columns[column.name] = values.map(places).fillna(-1).to_numpy(dtype=np.int64)
        else:
            columns[column.name] = values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    label = frame[contract.label.name].to_numpy(dtype=np.float64)
    return Cohort(np.array([f"c{number}" for number in range(len(frame))], dtype=object), columns, label)


def encoded(cohort: Cohort, contract: FeatureContract) -> Floats:
    """Return the columns for a tree of scikit-learn's: numbers as they are, NaN where unknown, and a column for each category."""
    found: list[Floats] = []
    for column in contract.columns:
        values = cohort.columns[column.name]
        if isinstance(column, CategoricalColumn):
            found += [(values == place).astype(np.float64) for place in range(len(column.categories))]
        else:
            clipped = np.clip(values, column.low, column.high) if isinstance(column, NumericColumn) else values
            found.append(clipped.astype(np.float64))
    return np.stack(found, axis=1)
