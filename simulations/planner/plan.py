"""Plan a budget: run a study at a few epsilons on public or synthetic data, and look closer where the target is reached.

Every cell is kept in the results folder by its content, so that the same question again, or one with another target, computes only what is
not there. Nothing of an institution is read, and so a plan costs nobody any budget; it speaks of a federation like the simulated one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from federation.errors import DocumentError
from simulations.engines.simulation import Privacy, Simulation
from simulations.planner.asking import GRID
from simulations.planner.curve import BELOW, BEYOND, Crossing, crossing
from simulations.planner.target import Target
from simulations.sweeps.document import EngineName, Sweep
from simulations.sweeps.estimates import Estimate, difference, mean
from simulations.sweeps.metrics import Metric
from simulations.sweeps.reading import ALONE, POOLED, POOLED_DP, Results, read
from simulations.sweeps.running import Summary

CLOSE = 1.2
"""Neighbouring epsilons with at most this ratio are close enough."""

MOST_REFINED = 5
"""At most so many epsilons are added for one target."""

Look = Callable[[Sweep], tuple[Summary, Results]]
"""Computes a sweep's cells, those that are not kept yet, and returns what that did and all results."""


@dataclass(frozen=True)
class Step:
    """One epsilon that was run.

    Attributes
    ----------
    value:
        The target's metric.
    margin:
        By how much the target is reached (negative: missed), so turned that more is better.
    gain:
        What it adds to the epsilon before, by seed, so turned that more is better; None for the first.
    rate:
        The same for each unit of epsilon.
    """

    epsilon: float
    value: Estimate
    margin: Estimate
    gain: Estimate | None
    rate: Estimate | None


@dataclass(frozen=True)
class Answer:
    """What a target costs; `alone`, `pooled` and `bare` (this study without noise) are what the references reach."""

    target: Target
    found: Crossing
    steps: tuple[Step, ...]
    alone: Estimate
    pooled: Estimate
    bare: Estimate

    @property
    def best(self) -> Step:
        """The step with the largest margin."""
        known = [step for step in self.steps if step.margin.have]
        return max(known, key=lambda step: step.margin.value)


@dataclass(frozen=True)
class Plan:
    """Answers of one study simulation; of its cells so many were computed now (the others were there), and so many failed."""

    study: Simulation
    seeds: int
    engine: str
    answers: tuple[Answer, ...]
    computed: int
    failed: int


def make_plan(
    study: Simulation,
    targets: Sequence[Target],
    look: Look,
    *,
    seeds: int = 5,
    grid: Sequence[float] = GRID,
    engine: EngineName = "vectorized",
) -> Plan:
    """Answer each target.

    Parameters
    ----------
    study:
        Its own epsilon is not used.
    look:
        How a sweep is computed and read; `kept_in` does both in a folder.
    grid:
        Epsilons to begin with; where a target is reached between two, their geometric mean is run next, until they lie close.

    Raises
    ------
    DocumentError
        CSL-M249 when no run gave the metric.
    ConsilienceError
        As `look` raises them.
    """
    asking = _Asking(study, look, seeds, engine, any(target.reference == POOLED_DP for target in targets))
    answers = []
    for target in targets:
        epsilons = sorted(set(grid))
        for _ in range(MOST_REFINED + 1):
            cells = asking.cells(epsilons)
            found = crossing(_margins(cells, target))
            between = None if found.bracket is None else _between(*found.bracket)
            if between is None or between in epsilons or len(epsilons) >= len(set(grid)) + MOST_REFINED:
                break
            epsilons = sorted([*epsilons, between])
        answers.append(_answer(cells, target, found, seeds))
    return Plan(study, seeds, engine, tuple(answers), asking.computed, asking.failed)


def kept_in(folder: Path, compute: Callable[[Sweep], Summary]) -> Look:
    """Return how sweeps are computed into a results folder and read from it."""

    def look(sweep: Sweep) -> tuple[Summary, Results]:
        summary = compute(sweep)
        return summary, read(folder)

    return look


class _Asking:
    """Runs the study at epsilons, and counts."""

    def __init__(self, study: Simulation, look: Look, seeds: int, engine: EngineName, pooled_dp: bool) -> None:
        self._study, self._look, self._seeds, self._engine = study, look, seeds, engine
        self._pooled_dp = pooled_dp
        self.computed = self.failed = 0

    def cells(self, epsilons: Sequence[float]) -> pd.DataFrame:
        """Return the cells at these epsilons, without noise, and of the references."""
        sweep = Sweep(
            name=self._study.name,
            title=self._study.title,
            study=self._study.model_copy(update={"privacy": Privacy(epsilon=None)}),
            over={"privacy.epsilon": (None, *epsilons)},
            seeds=self._seeds,
            engine=self._engine,
            pooled_dp=self._pooled_dp,
        )
        summary, results = self._look(sweep)
        self.computed += summary.computed
        self.failed = max(self.failed, len(summary.failed))
        if len(summary.failed) == summary.cells:
            summary.raise_failures()
        return results.cells


def _between(low: float, high: float) -> float | None:
    """Return the geometric mean, to two digits; None where the two are close."""
    if high / low <= CLOSE:
        return None
    middle = float(f"{math.sqrt(low * high):.1e}")
    return middle if low < middle < high else None


def _study_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the study's own cells: none of the references, unless the study is one party with the budget itself."""
    own = cells[~cells["reference"]]
    return own if not own.empty else cells[cells["kind"] == POOLED_DP]


def _by_seed(cells: pd.DataFrame, metric: Metric) -> dict[int, float]:
    finished = cells[cells["done"]]
    if metric.column not in finished:
        return {}
    pairs = zip(finished["seed"].tolist(), finished[metric.column].tolist(), strict=True)
    return {int(seed): float(value) for seed, value in pairs if not math.isnan(value)}


def _at(cells: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    return cells[cells["epsilon"] == epsilon]


def _epsilons(cells: pd.DataFrame) -> list[float]:
    return sorted(float(value) for value in _study_cells(cells)["epsilon"].dropna().unique())


def _bound(cells: pd.DataFrame, target: Target, epsilon: float) -> Mapping[int, float] | None:
    """Return the reference's figures by seed, None where the bound is a number."""
    if target.reference is None:
        return None
    reference = cells[cells["kind"] == target.reference]
    return _by_seed(_at(reference, epsilon) if target.reference == POOLED_DP else reference, target.metric)


def _margin(cells: pd.DataFrame, target: Target, epsilon: float) -> dict[int, float]:
    values = _by_seed(_at(_study_cells(cells), epsilon), target.metric)
    bound = _bound(cells, target, epsilon)
    return {
        seed: target.metric.sign * (value - target.offset - (0.0 if bound is None else bound[seed]))
        for seed, value in values.items()
        if bound is None or seed in bound
    }


def _margins(cells: pd.DataFrame, target: Target) -> dict[float, dict[int, float]]:
    found = {epsilon: _margin(cells, target, epsilon) for epsilon in _epsilons(cells)}
    if not any(found.values()):
        raise DocumentError(
            "CSL-M249",
            f"No finished run gave what the target {target} needs.",
            "Read why by running the study with `consilience simulate run`.",
        )
    return found


def _answer(cells: pd.DataFrame, target: Target, found: Crossing, seeds: int) -> Answer:
    metric, own = target.metric, _study_cells(cells)
    steps: list[Step] = []
    before: tuple[float, dict[int, float]] | None = None
    for epsilon in _epsilons(cells):
        values = _by_seed(_at(own, epsilon), metric)
        turned = {seed: metric.sign * value for seed, value in values.items()}
        gain = rate = None
        if before is not None:
            apart = epsilon - before[0]
            gain = difference(turned, before[1], seeds)
            rate = difference(_over(turned, apart), _over(before[1], apart), seeds)
        margin = mean(_margin(cells, target, epsilon).values(), seeds)
        steps.append(Step(epsilon, mean(values.values(), seeds), margin, gain, rate))
        before = (epsilon, turned)
    kinds = [mean(_by_seed(cells[cells["kind"] == kind], metric).values(), seeds) for kind in (ALONE, POOLED)]
    bare = mean(_by_seed(own[own["epsilon"].isna()], metric).values(), seeds)
    return Answer(target, found, tuple(steps), kinds[0], kinds[1], bare)


def _over(values: Mapping[int, float], apart: float) -> dict[int, float]:
    return {seed: value / apart for seed, value in values.items()}


def reached(epsilon: float) -> bool:
    """Return whether an epsilon was found between those that were run."""
    return BELOW < epsilon < BEYOND
