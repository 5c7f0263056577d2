"""Lifetime value from noisy counts, against a fit to everybody's own records and against what customers did: docs/lifetime-value.md.

`python benchmarks/lifetime.py`, after `consilience data fetch`; about 10 seconds. Noise is seeded: these are not private runs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from client.cohort import Cohort  # noqa: E402
from federation.contract import FeatureContract  # noqa: E402
from federation.document import load_yaml  # noqa: E402
from federation.lifetime import (  # noqa: E402
    Purchasing,
    Spending,
    expected_purchases,
    expected_spend,
    log_likelihood,
    log_likelihood_of_mean,
)
from federation.queries import Lifetime  # noqa: E402
from server.statistics.asking import Setting  # noqa: E402
from server.statistics.lifetime import LifetimeAsker  # noqa: E402
from simulations.asker_play import play  # noqa: E402
from simulations.datasets import cdnow  # noqa: E402
from simulations.fetch import default_cache  # noqa: E402
from simulations.sites import CDNOW_WINDOW  # noqa: E402

Floats = NDArray[np.float64]
COLUMNS = ("frequency", "recency", "tenure", "monetary")
MEMBERS, SEEDS, SD = 5, 5, 16_384.0 * 5**0.5
RUNS = (
    ("cells, no noise", 0.22, 0.0),
    ("epsilon 1, alone", 0.22, SD),
    ("epsilon 1, one of twelve", 0.22 / 12**0.5, SD),
)
FIGURES = (
    "correlation with the exact fit",
    "mean error against it",
    "total against it",
    "same tier as by it",
    "days: correlation with what came",
    "days: total against what came",
    "days: share of the top fifth",
    "worth: correlation with what came",
    "worth: total against what came",
)


@dataclass(frozen=True)
class Customers:
    """Features at the cut, and days of purchase and typical purchases in the horizon after it."""

    features: pd.DataFrame
    days: Floats
    worth: Floats

    @property
    def seen(self) -> tuple[Floats, Floats, Floats]:
        """x, t_x and T."""
        tenure = self.features["tenure"].to_numpy()
        return self.features["frequency"].to_numpy() - 1.0, tenure - self.features["recency"].to_numpy(), tenure


def customers(cache: Path) -> Customers:
    """Return CDNOW's customers at the demo's cut."""
    cut, window, basket = pd.Timestamp(CDNOW_WINDOW.as_of), CDNOW_WINDOW.window_days, CDNOW_WINDOW.typical_purchase
    days = cdnow(cache).groupby(["customer", "day"], as_index=False)["amount"].sum()
    before = days[days["day"] < cut].groupby("customer")
    features = pd.DataFrame(
        {
            "frequency": before.size().astype(float),
            "recency": (cut - before["day"].max()).dt.days / window,
            "tenure": (cut - before["day"].min()).dt.days / window,
            "monetary": before["amount"].sum() / before.size() / basket,
        }
    )
    end = cut + pd.Timedelta(days=CDNOW_WINDOW.horizon_days)
    after = days[(days["day"] >= cut) & (days["day"] < end)].groupby("customer")
    bought = after.size().reindex(features.index).fillna(0.0).to_numpy(dtype=np.float64)
    spent = after["amount"].sum().reindex(features.index).fillna(0.0).to_numpy(dtype=np.float64)
    return Customers(features, bought, spent / basket)


def by_records(people: Customers) -> tuple[Purchasing, Spending]:
    """Return the maximum likelihood of everybody's own records, without privacy."""
    seen, frequency = people.seen, people.features["frequency"].to_numpy()
    mean = people.features["monetary"].to_numpy()
    paid = mean > 0

    def purchases(logs: Floats) -> float:
        return -float(np.sum(log_likelihood(Purchasing(*np.exp(logs)), *seen)))

    def amounts(logs: Floats) -> float:
        p, above, v = np.exp(logs)
        return -float(np.sum(log_likelihood_of_mean(Spending(p, 1 + above, v), frequency[paid], mean[paid])))

    options = {"xatol": 1e-5, "fatol": 1e-5, "maxiter": 4000}
    first = np.exp(minimize(purchases, np.log([0.5, 0.2, 1.0, 3.0]), method="Nelder-Mead", options=options).x)
    second = np.exp(minimize(amounts, np.log([2.0, 2.0, 1.0]), method="Nelder-Mead", options=options).x)
    return Purchasing(*first), Spending(second[0], 1.0 + second[1], second[2])


def by_counts(people: Customers, mu: float, sd: float, seed: int) -> tuple[Purchasing, Spending]:
    """Return what the federation finds."""
    contract = load_yaml(ROOT / "configs" / "contracts" / "rfm.yaml", FeatureContract)
    names = dict(zip(COLUMNS, COLUMNS, strict=True))
    asker = LifetimeAsker(Lifetime(id="worth", kind="lifetime", **names), Setting(contract, 23_500, sd, 0.95))
    part = np.random.default_rng(7).integers(0, MEMBERS, len(people.features))
    cohorts = []
    for member in range(MEMBERS):
        rows = people.features[part == member]
        cohort = Cohort(rows.index.to_numpy(dtype=object), {name: rows[name].to_numpy(dtype=float) for name in COLUMNS})
        cohorts.append({"start": cohort})
    answer = play(asker, contract, cohorts, budget=mu * SD, sd=sd, generator=np.random.default_rng(seed))
    r, alpha, a, b, p, q, v = (float(row.value or np.nan) for row in answer.table("parameters").rows)
    return Purchasing(r, alpha, a, b), Spending(p, q, v)


def predicted(people: Customers, models: tuple[Purchasing, Spending]) -> tuple[Floats, Floats]:
    """Return expected days of purchase and their worth in the horizon."""
    horizon = CDNOW_WINDOW.horizon_days / CDNOW_WINDOW.window_days
    coming = expected_purchases(models[0], *people.seen, horizon)
    amounts = expected_spend(models[1], people.features["frequency"].to_numpy(), people.features["monetary"].to_numpy())
    return coming, coming * amounts


def tiers(values: Floats) -> NDArray[np.int64]:
    """Return the default tiers: the highest fifth, the next three tenths, the lower half."""
    high, middle = np.quantile(values, [0.8, 0.5])
    return (values >= high).astype(np.int64) + (values >= middle)


def figures(people: Customers, found: tuple[Floats, Floats], exact: tuple[Floats, Floats]) -> list[float]:
    """Return one run's figures, in the table's order."""
    best = np.argsort(-found[0], kind="stable")[: len(people.days) // 5]
    return [
        float(np.corrcoef(found[0], exact[0])[0, 1]),
        float(np.abs(found[0] - exact[0]).mean() / exact[0].mean()),
        float(found[0].sum() / exact[0].sum()),
        float(np.mean(tiers(found[1]) == tiers(exact[1]))),
        float(np.corrcoef(found[0], people.days)[0, 1]),
        float(found[0].sum() / people.days.sum()),
        float(people.days[best].sum() / people.days.sum()),
        float(np.corrcoef(found[1], people.worth)[0, 1]),
        float(found[1].sum() / people.worth.sum()),
    ]


def main() -> None:
    """Print one line a figure: without privacy, then each run's mean, and its least and greatest over seeds."""
    people = customers(default_cache())
    exact = predicted(people, by_records(people))
    print(f"{'':<34}{'no privacy':>12}" + "".join(f"{name:>32}" for name, _, _ in RUNS))
    free = figures(people, exact, exact)
    found = []
    for _, mu, sd in RUNS:
        seeds = range(SEEDS if sd else 1)
        found.append(
            np.array([figures(people, predicted(people, by_counts(people, mu, sd, seed)), exact) for seed in seeds])
        )
    for place, name in enumerate(FIGURES):
        cells = [
            f"{runs[:, place].mean():.4f} ({runs[:, place].min():.4f} to {runs[:, place].max():.4f})" for runs in found
        ]
        print(f"{name:<34}{free[place]:>12.4f}" + "".join(f"{cell:>32}" for cell in cells))


if __name__ == "__main__":
    main()
