"""Lifetime value from noisy counts, against a fit to everybody's own records and against what customers did: docs/lifetime-value.md.

`python benchmarks/lifetime.py [--part fit|coverage|windows]`, after `consilience data fetch`. Noise is seeded: these are not private runs.

- *fit* (about 10 seconds): what a federation predicts for CDNOW, with and without noise, beside the fit to records and what came.
- *coverage* (`--repetitions`, 300 of each take about ten minutes): how often 95% intervals hold the truth, for customers made by
  the models with the parameters of CDNOW's own records and its own first purchases.
- *windows*: what is lost where the window begins after customers' first purchases.
"""

import argparse

import lifetime_coverage
import numpy as np
import pandas as pd
from lifetime_sets import (
    CONTRACT,
    SD,
    Customers,
    Floats,
    asker_of,
    by_records,
    customers,
    features_at,
    purchase_days,
    seen,
)
from numpy.typing import NDArray

from client.cohort import Cohort
from federation.lifetime import Purchasing, Spending, expected_purchases, expected_spend
from simulations.asker_play import play
from simulations.fetch import default_cache
from simulations.sites import CDNOW_WINDOW

MEMBERS, SEEDS = 5, 5
NEXT = pd.Timestamp("1998-01-01")
"""A later cut: its window of as many days begins after most first purchases."""
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


def by_counts(people: Customers, mu: float, sd: float, seed: int) -> tuple[Purchasing, Spending]:
    """Return what the federation finds."""
    asker = asker_of(23_500, sd)
    part = np.random.default_rng(7).integers(0, MEMBERS, len(people.features))
    cohorts = []
    for member in range(MEMBERS):
        rows = people.features[part == member]
        cohort = Cohort(rows.index.to_numpy(dtype=object), {name: rows[name].to_numpy(dtype=float) for name in rows})
        cohorts.append({"start": cohort})
    answer = play(asker, CONTRACT, cohorts, budget=mu * SD, sd=sd, generator=np.random.default_rng(seed))
    r, alpha, a, b, p, q, v = (float(row.value or np.nan) for row in answer.table("parameters").rows)
    return Purchasing(r, alpha, a, b), Spending(p, q, v)


def predicted(people: Customers, models: tuple[Purchasing, Spending]) -> tuple[Floats, Floats]:
    """Return expected days of purchase and their worth in the horizon."""
    horizon = CDNOW_WINDOW.horizon_days / CDNOW_WINDOW.window_days
    coming = expected_purchases(models[0], *seen(people.features), horizon)
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


def print_fit(people: Customers) -> None:
    """Print one line a figure: without privacy, then each run's mean, and its least and greatest over seeds."""
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


def print_windows(people: Customers, days: pd.DataFrame) -> None:
    """Print what is expected of the next window's customers by their days in it and by all their days, beside what came."""
    model, _ = by_records(people)
    begin, last = NEXT - pd.Timedelta(days=CDNOW_WINDOW.window_days), days["day"].max()
    inside, whole = features_at(days[days["day"] >= begin], NEXT), features_at(days, NEXT)
    came = days[days["day"] >= NEXT].groupby("customer").size().reindex(inside.index).fillna(0.0).to_numpy()
    ahead = (last - NEXT).days + 1
    print(
        f"{len(came):,} customers of the {CDNOW_WINDOW.window_days} days to {NEXT:%Y-%m-%d}; the {ahead} days from then on"
    )
    print(f"{'':<24}{'expected':>10}{'correlation':>13}")
    for name, features in (("by days in the window", inside), ("by all their days", whole.loc[inside.index])):
        coming = expected_purchases(model, *seen(features), ahead / CDNOW_WINDOW.window_days)
        print(f"{name:<24}{coming.sum():>10,.0f}{np.corrcoef(coming, came)[0, 1]:>13.3f}")
    print(f"{'made':<24}{came.sum():>10,.0f}")


def main() -> None:
    """Print the part that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("fit", "coverage", "windows"), default="fit")
    parser.add_argument("--repetitions", type=int, default=300, help="of each level of noise, for the coverage")
    given = parser.parse_args()
    cache = default_cache()
    people = customers(cache)
    if given.part == "fit":
        print_fit(people)
    elif given.part == "coverage":
        lifetime_coverage.show(people, given.repetitions)
    else:
        print_windows(people, purchase_days(cache))


if __name__ == "__main__":
    main()
