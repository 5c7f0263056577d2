"""`consilience officer calibrate`: the noise for a wanted epsilon, and what it would cost here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from client.desk import JsonOption, home_at, open_reader, print_json
from client.roles import require_for
from federation.errors import DocumentError, PolicyError
from privacy.accounting import calibrate_histogram, calibrate_laplace, calibrate_noise
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SubsampledGaussian,
    releases,
)
from privacy.filter import Limits, price, run_epsilon

NEIGHBOURS = (0.5, 0.75, 1.0, 1.5, 2.0)
MANY_RELEASES = 20_000  # above, one answer takes a second or more, and the table is left out
LARGEST_NEIGHBOUR = 16.0  # beyond, no promise is left, and distributions are large
_NOISE = {"sgd": "noise multiplier", "counts": "sigma", "laplace": "scale b"}


@dataclass(frozen=True)
class Mechanism:
    """Something whose noise can be chosen: by name, how to find the noise for (epsilon, delta), and the event that it is."""

    name: str
    find: Callable[[float, float], float]
    event: Callable[[float], PrivacyEvent]


def register(app: typer.Typer) -> None:
    """Add the command to `consilience officer`."""
    app.command()(calibrate)


def calibrate(
    epsilon: Annotated[float, typer.Option(help="The epsilon that is wanted.", show_default=False)],
    delta: Annotated[
        float,
        typer.Option(help="Its delta: at most 1 / (100 x declared customers), such as 1e-6.", show_default=False),
    ],
    rate: Annotated[
        float | None, typer.Option(help="DP-SGD: the share of customers that a step draws.", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="DP-SGD: the number of steps.", show_default=False)] = None,
    counts: Annotated[
        int | None,
        typer.Option(help="Histograms of counts instead: how many are released.", show_default=False),
    ] = None,
    laplace: Annotated[
        bool, typer.Option("--laplace", help="With --counts: discrete Laplace noise instead of discrete Gaussian.")
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="A vault's home: shows what it would cost in its budgets.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the least noise for a wanted epsilon: of a training run, or of released counts.

    Give --rate and --steps for DP-SGD (the noise is in units of the clip), or
    --counts for histograms, where a customer changes one cell of each by one.
    The epsilon shown is that of the privacy loss distribution, rounded up.
    """
    mechanism = _mechanism(rate, steps, counts, laplace)
    rows = [_row(mechanism, epsilon, delta)]
    limits = None if home is None else _limits(home)
    few = releases(mechanism.event(rows[0]["noise"])) <= MANY_RELEASES
    for factor in NEIGHBOURS:
        if few and factor != 1.0 and factor * epsilon <= LARGEST_NEIGHBOUR:
            rows += _neighbour(mechanism, factor * epsilon, delta)
    if limits is not None:
        for row in rows:
            row["budgets"] = _shares(mechanism.event(row["noise"]), limits)
    chosen, table = rows[0], sorted(rows, key=lambda row: float(row["wanted_epsilon"]))
    if as_json:
        print_json({"mechanism": mechanism.name, **chosen, "table": table})
    else:
        _print(mechanism, chosen, table, delta)


def _mechanism(rate: float | None, steps: int | None, counts: int | None, laplace: bool) -> Mechanism:
    if counts is None and rate is not None and steps is not None and not laplace:
        return Mechanism(
            "sgd",
            lambda epsilon, delta: calibrate_noise(epsilon, delta, rate, steps),
            lambda noise: SubsampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps),
        )
    if counts is None or rate is not None or steps is not None:
        raise DocumentError(
            "CSL-C666",
            "It is not clear what is to be calibrated.",
            "Give --rate and --steps for a training run, or --counts, with --laplace or without, for histograms.",
        )
    if laplace:
        return Mechanism(
            "laplace",
            partial(calibrate_laplace, count=counts),
            lambda noise: DiscreteLaplaceHistogram(scale=noise, count=counts),
        )
    return Mechanism(
        "counts",
        partial(calibrate_histogram, count=counts),
        lambda noise: DiscreteGaussianHistogram(sigma=noise, count=counts),
    )


def _row(mechanism: Mechanism, epsilon: float, delta: float) -> dict[str, Any]:
    noise = mechanism.find(epsilon, delta)
    return {
        "wanted_epsilon": epsilon,
        "delta": delta,
        "noise": noise,
        "epsilon": run_epsilon((mechanism.event(noise),), delta),
    }


def _neighbour(mechanism: Mechanism, epsilon: float, delta: float) -> list[dict[str, Any]]:
    try:
        return [_row(mechanism, epsilon, delta)]
    except PolicyError:  # only the epsilon that was asked for must be within reach
        return []


def _limits(path: Path) -> Limits:
    home = home_at(path)
    require_for(home, "officer calibrate")
    with open_reader(home) as reader:
        limits = reader.state().limits
    if limits is None:
        raise PolicyError(
            "CSL-C667",
            "No policy is in force in this ledger: there is no budget.",
            "Leave --home away, or activate one.",
        )
    return limits


def _shares(event: PrivacyEvent, limits: Limits) -> list[dict[str, Any]]:
    """Return which part of each budget one such run takes, and how often it fits into the whole; None and 0 for too much."""
    bounds = ((f"{limits.period_days} days", limits.period), ("life", limits.life))
    try:
        cost = price((event,), limits)
    except PolicyError:  # more than any budget holds: the table goes on without it
        return [{"budget": name, "cost": None, "share": None, "fits_times": 0} for name, _ in bounds]
    rows = []
    for name, bound in bounds:
        parts = ((cost.nano, bound.capacity.nano), (cost.femto, bound.capacity.femto))
        share = max(each / max(most, 1) for each, most in parts)
        times = min(most // each for each, most in parts if each)
        rows.append({"budget": name, "cost": cost.model_dump(), "share": share, "fits_times": times})
    return rows


def _print(mechanism: Mechanism, chosen: dict[str, Any], rows: list[dict[str, Any]], delta: float) -> None:
    console = Console(highlight=False)
    console.print(
        f"[bold]{_NOISE[mechanism.name]} {chosen['noise']:.4g}[/] gives epsilon {chosen['epsilon']:.4f} at delta {delta:g}."
    )
    table = Table(title="Around it", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("wanted epsilon", _NOISE[mechanism.name], "true epsilon"):
        table.add_column(column, justify="right", no_wrap=True)
    budgets = [item["budget"] for item in chosen.get("budgets", ())]
    for name in budgets:
        table.add_column(f"takes of {name}", justify="right", no_wrap=True)
        table.add_column("fits", justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row is chosen else None
        cells = [f"{row['wanted_epsilon']:g}", f"{row['noise']:.4g}", f"{row['epsilon']:.4f}"]
        for item in row.get("budgets", ()):
            share = "more than all" if item["share"] is None else f"{item['share']:.1%}"
            cells += [share, f"{item['fits_times']} x"]
        table.add_row(*cells, style=style)
    console.print(table)
    if budgets:
        console.print(
            "Of the whole budget of one account, whatever is spent already; see `consilience officer budget`."
        )
