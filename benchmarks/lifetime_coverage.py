"""How often the lifetime query's 95% intervals hold the truth: customers made by the models, counted, noised and fitted again and again."""

import sys
from dataclasses import astuple

import numpy as np
from lifetime_sets import CONTRACT, SD, Customers, Floats, asker_of, by_records
from rich.console import Console
from rich.progress import track

from federation.answers import Row
from federation.lifetime import NAMES, Purchasing, Spending, expected_purchases
from simulations.asker_play import play
from simulations.lifetime_play import made_customers

MUS = (0.22, 0.06, 0.22 / 80**0.5)
"""Of one query: all of a study at epsilon 1 by five members with shared noise; about a quarter of it; one of eighty queries."""


def total(tenure: Floats, model: Purchasing) -> float:
    """Return how many days of purchase such customers have on average in the next window, all together."""
    times, counts = np.unique(tenure, return_counts=True)
    grown = [
        float(expected_purchases(model, 0, 0, 0, at + 1.0)) - float(expected_purchases(model, 0, 0, 0, at))
        for at in times
    ]
    return float(counts @ np.array(grown))


def held_once(
    tenure: Floats, models: tuple[Purchasing, Spending], truth: list[float], mu: float, rng: np.random.Generator
) -> Floats:
    """Return 1 for each interval of one study that holds the truth, 0 for the others."""
    cohort = made_customers(
        rng.choice(tenure, len(tenure)), *models, rng
    )  # the intervals hold the chance of who comes, too
    asker = asker_of(len(tenure), SD)
    answer = play(asker, CONTRACT, [{"start": cohort}], budget=mu * SD, sd=SD, generator=rng)
    rows = (*answer.table("parameters").rows, *answer.table("total").rows)
    return np.array([_holds(row, value) for row, value in zip(rows, truth, strict=True)], dtype=np.float64)


def _holds(row: Row, value: float) -> bool:
    return row.low is not None and row.high is not None and row.low <= value <= row.high


def show(people: Customers, repetitions: int) -> None:
    """Print how often each parameter's interval, and that of all expected purchases, holds the truth, for each level of noise."""
    models, tenure = by_records(people), people.features["tenure"].to_numpy(dtype=np.float64)
    purchasing, spending = models
    truth = {
        **dict(zip(NAMES, (*astuple(purchasing), *astuple(spending)), strict=True)),
        "all purchases": total(tenure, purchasing),
    }
    print(f"{len(tenure):,} customers by " + ", ".join(f"{name} {value:.3g}" for name, value in truth.items()))
    print(f"{'noise of a count':<18}" + "".join(f"{name:>10}" for name in truth) + f"{'standard error':>18}")
    console = Console(file=sys.stderr)
    for place, mu in enumerate(MUS):
        held = np.zeros(len(truth))
        asker = asker_of(len(tenure), SD)
        noise = asker.expected({1: mu * SD})[0].within / asker.setting.z
        for turn in track(range(repetitions), f"noise of {noise:.0f}", console=console, transient=True):
            held += held_once(tenure, models, list(truth.values()), mu, np.random.default_rng([place, turn]))
        error = 100 * (0.95 * 0.05 / repetitions) ** 0.5
        shares = "".join(f"{100 * share:>9.1f}%" for share in held / repetitions)
        print(f"{noise:<18.1f}{shares}{error:>16.1f} points", flush=True)
