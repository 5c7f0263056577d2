"""Plan a budget: run a study at a few epsilons on public or synthetic data, and look closer where the target is reached.

Every cell is kept in the results folder by its content, so that the same question again, or one with another target, computes only what is
not there. Nothing of an institution is read, and so a plan costs nobody any budget; it speaks of a federation like the simulated one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from federation.errors import DocumentError
from simulations.engines.simulation import Privacy, Simulation
from simulations.planner.asking import GRID
from simulations.planner.curve import BELOW, BEYOND, Crossing, crossing, fitted, level
from simulations.planner.target import Target
from simulations.sweeps.cautions import cautions
from simulations.sweeps.document import EngineName, Sweep
from simulations.sweeps.estimates import Estimate, difference, mean
from simulations.sweeps.metrics import Metric
from simulations.sweeps.reading import ALONE, POOLED, POOLED_DP, Results, read
from simulations.sweeps.running import Summary

CLOSE = 1.2
"""Neighbouring epsilons with at most this ratio are close enough."""

MOST_REFINED = 5
"""At most so many epsilons are added for one target."""

TELLS = 2.0
"""An answer's upper end is proposed where it is at most so many times the answer: budget beyond that would be spent for want of seeds."""

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
    reaching:
        How many of the margin's seeds reach the target, each by itself.
    gain:
        What it adds to the epsilon before, by seed, so turned that more is better; None for the first.
    rate:
        The same for each unit of epsilon.
    """

    epsilon: float
    value: Estimate
    margin: Estimate
    reaching: int
    gain: Estimate | None
    rate: Estimate | None


@dataclass(frozen=True)
class Answer:
    """What a target costs.

    Attributes
    ----------
    alone, pooled, bare:
        What the references, and this study without noise, reach.
    alone_margin:
        By how much training alone reaches the target (negative: misses it), by seed; without any seed where the bound changes with epsilon.
    by_themselves:
        How many institutions reach the target by training alone, and how many have a figure of their own; None where institutions cannot
        be held against the target: it counts from a reference, or its metric is no mean over them.
    """

    target: Target
    found: Crossing
    steps: tuple[Step, ...]
    alone: Estimate
    pooled: Estimate
    bare: Estimate
    alone_margin: Estimate
    by_themselves: tuple[int, int] | None

    @property
    def known(self) -> tuple[Step, ...]:
        """The steps that have figures."""
        return tuple(step for step in self.steps if step.margin.have)

    @property
    def missing(self) -> tuple[float, ...]:
        """Epsilons that were run and have no figure."""
        return tuple(step.epsilon for step in self.steps if not step.margin.have)

    @property
    def best(self) -> Step:
        """The step with the largest margin."""
        return max(self.known, key=lambda step: step.margin.value)

    @property
    def alone_reaches(self) -> bool:
        """Whether training alone reaches the target on average: then it needs no budget."""
        return self.alone_margin.have > 0 and self.alone_margin.value >= 0

    @property
    def cautious(self) -> float | None:
        """The upper end of the interval of the epsilon at which most single studies reach the target.

        None where training alone reaches it, and where there is no interval, or it ends beyond what was looked at.
        """
        high = self.found.most_high
        if self.alone_reaches or high is None or high == BEYOND:
            return None
        return max(high, self.known[0].epsilon)

    @property
    def proposed(self) -> float | None:
        """The epsilon to propose: the cautious one; None where there is none, or where it is more than TELLS times the answer."""
        high, most = self.cautious, self.found.most
        if high is None or most is None:
            return None
        return high if high <= TELLS * max(most, self.known[0].epsilon) else None

    def value_at(self, epsilon: float) -> float:
        """The metric at an epsilon, on average: means made better with epsilon, straight in its logarithm between those that were run."""
        sign, steps = self.target.metric.sign, self.known
        values = np.array([sign * step.value.value for step in steps])
        weights = np.array([step.value.have for step in steps], dtype=np.float64)
        return sign * level(np.array([step.epsilon for step in steps]), fitted(values, weights), epsilon)


@dataclass(frozen=True)
class Plan:
    """Answers of one study simulation; of its cells so many were computed now (the others were there), and so many failed.

    `cautions` is what to know before the figures.
    """

    study: Simulation
    seeds: int
    engine: str
    answers: tuple[Answer, ...]
    computed: int
    failed: int
    cautions: tuple[str, ...]


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
        Epsilons to begin with; where a target is reached between two, on average or by most studies, their geometric mean is run next,
        until they lie close.

    Raises
    ------
    DocumentError
        CSL-M249 when no run gave the metric.
    ConsilienceError
        As `look` raises them.
    """
    asking = _Asking(study, look, seeds, engine, any(target.reference == POOLED_DP for target in targets))
    answers, said = [], dict[str, None]()
    for target in targets:
        epsilons = sorted(set(grid))
        for _ in range(MOST_REFINED + 1):
            results = asking.results(epsilons)
            found = crossing(_margins(results.cells, target))
            closer = _closer(found, epsilons)
            if closer is None or len(epsilons) >= len(set(grid)) + MOST_REFINED:
                break
            epsilons = sorted([*epsilons, closer])
        answers.append(_answer(results, target, found, seeds))
        said |= dict.fromkeys(cautions(results))
    return Plan(study, seeds, engine, tuple(answers), asking.computed, asking.failed, tuple(said))


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

    def results(self, epsilons: Sequence[float]) -> Results:
        """Return the results at these epsilons, without noise, and of the references."""
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
        return results


def _closer(found: Crossing, epsilons: Sequence[float]) -> float | None:
    """Return the epsilon to run next; None where both answers lie between close ones."""
    for bracket in (found.bracket, found.most_bracket):
        between = None if bracket is None else _between(*bracket)
        if between is not None and between not in epsilons:
            return between
    return None


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
    return _beyond(values, _bound(cells, target, epsilon), target)


def _beyond(values: Mapping[int, float], bound: Mapping[int, float] | None, target: Target) -> dict[int, float]:
    """Return by how much values pass a target, by seed."""
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


def _answer(results: Results, target: Target, found: Crossing, seeds: int) -> Answer:
    cells, metric = results.cells, target.metric
    own, within = _study_cells(cells), (metric.low, metric.high)
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
        margins = _margin(cells, target, epsilon).values()
        value = mean(values.values(), seeds, within=within)
        reaching = sum(margin >= 0 for margin in margins)
        steps.append(Step(epsilon, value, mean(margins, seeds), reaching, gain, rate))
        before = (epsilon, turned)
    beside = (cells[cells["kind"] == ALONE], cells[cells["kind"] == POOLED], own[own["epsilon"].isna()])
    alone, pooled, bare = (mean(_by_seed(part, metric).values(), seeds, within=within) for part in beside)
    alone_margin = mean(_alone_margin(cells, target).values(), seeds)
    return Answer(target, found, tuple(steps), alone, pooled, bare, alone_margin, _by_themselves(results, target))


def _alone_margin(cells: pd.DataFrame, target: Target) -> dict[int, float]:
    """Return by how much training alone passes the target, by seed; nothing where the bound has a budget itself."""
    if target.reference == POOLED_DP:
        return {}
    values = _by_seed(cells[cells["kind"] == ALONE], target.metric)
    return _beyond(values, _bound(cells, target, math.nan), target)


def _by_themselves(results: Results, target: Target) -> tuple[int, int] | None:
    """Return how many institutions reach a target alone, by the mean over seeds of their own figures, and how many have any."""
    metric, places = target.metric, results.institutions
    if target.reference is not None or not metric.averaged or metric.own not in places:
        return None
    alone = results.cells.loc[results.cells["kind"] == ALONE, "digest"]
    figures = places[places["digest"].isin(alone)].groupby("name")[str(metric.own)].mean().dropna()
    return None if figures.empty else (int((metric.sign * (figures - target.offset) >= 0).sum()), len(figures))


def _over(values: Mapping[int, float], apart: float) -> dict[int, float]:
    return {seed: value / apart for seed, value in values.items()}


def reached(epsilon: float) -> bool:
    """Return whether an epsilon was found between those that were run."""
    return BELOW < epsilon < BEYOND
