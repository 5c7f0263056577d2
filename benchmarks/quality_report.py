"""What the quality benchmark found, as values, verdicts and tables."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from simulations.quality import KINDS, MODES, Kind, Mode

NOISE_NOTE = (
    "Noise and draws were seeded, so that figures can be repeated: this was not a private run. Everybody consents here."
)
SHARE_OF_POOLED = {"propensity": 0.99, "churn": 0.98}
LEAST_DIFFERENCE = -0.005  # additive less logistic
TARGET_EPSILON = 1.0
SHOWN: tuple[Kind, Mode] = ("additive", "fedsgd")  # what the table by institution shows: the studies' default


@dataclass(frozen=True)
class References:
    """AUC by institution, without privacy: a model of its own, and one of everybody's records."""

    model: Kind
    alone: tuple[float, ...]
    pooled: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One budget (None for no privacy): AUC by seed and institution, and the rounds that it took."""

    model: Kind
    mode: Mode
    epsilon: float | None
    rounds: int
    aucs: tuple[tuple[float, ...], ...]

    @property
    def means(self) -> list[float]:
        """By seed, the mean over institutions."""
        return [statistics.fmean(seed) for seed in self.aucs]

    @property
    def median(self) -> float:
        """Median over seeds of the mean over institutions."""
        return statistics.median(self.means)

    @property
    def error(self) -> float:
        """Standard error of `median`, as if means were normal: sqrt(pi / 2) s / sqrt(n); NaN for one seed."""
        count = len(self.aucs)
        return math.sqrt(math.pi / 2.0 / count) * statistics.stdev(self.means) if count > 1 else math.nan

    def by_institution(self) -> list[float]:
        """Median over seeds for each institution."""
        return [statistics.median(column) for column in zip(*self.aucs, strict=True)]


@dataclass(frozen=True)
class SetResult:
    """Everything found on one data set."""

    name: str
    title: str
    members: tuple[str, ...]
    declared: tuple[int, ...]
    trained: tuple[int, ...]
    tested: tuple[int, ...]
    references: tuple[References, ...]
    cells: tuple[Cell, ...]

    def pooled(self, model: Kind) -> float:
        """Mean over institutions of the pooled reference."""
        return statistics.fmean(next(item.pooled for item in self.references if item.model == model))

    def alone(self) -> list[float]:
        """For each institution, its better own model, chosen with hindsight."""
        return [max(pair) for pair in zip(*(item.alone for item in self.references), strict=True)]

    def cell(self, model: Kind, mode: Mode, epsilon: float | None) -> Cell | None:
        """Return one cell, or None where it was not run."""
        key = (model, mode, epsilon)
        return next((item for item in self.cells if (item.model, item.mode, item.epsilon) == key), None)


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured."""

    met: bool
    text: str


@dataclass(frozen=True)
class Regret:
    """The rule beside a grid of steps (factors on the rule's) and lengths (rounds that move the weights); medians over seeds."""

    name: str
    rule: float
    grid: tuple[tuple[float, int, float], ...]

    @property
    def best(self) -> tuple[float, int, float]:
        """Factor, rounds and AUC of the best point, known with hindsight only."""
        return max(self.grid, key=lambda point: point[2])

    @property
    def text(self) -> str:
        """What hindsight would have won, above the rule; a best point on the grid's edge gives a lower bound only."""
        edges = [(min(values), max(values)) for values in list(zip(*self.grid, strict=True))[:2]]
        on_edge = any(place in edge for place, edge in zip(self.best[:2], edges, strict=True))
        return f"{'at least ' if on_edge else ''}{max(0.0, self.best[2] - self.rule):.4f}"

    @property
    def worst(self) -> tuple[float, int, float]:
        """Factor, rounds and AUC of the worst point."""
        return min(self.grid, key=lambda point: point[2])


def verdicts(results: Sequence[SetResult]) -> list[Verdict]:
    """Judge every target whose cells were run."""
    return [verdict for result in results if result.name in SHARE_OF_POOLED for verdict in _judged(result)]


def _judged(result: SetResult) -> Iterator[Verdict]:
    least = SHARE_OF_POOLED[result.name]
    for mode in MODES:
        found = {model: result.cell(model, mode, TARGET_EPSILON) for model in KINDS}
        for model, cell in found.items():
            if cell is not None:
                pooled = result.pooled(model)
                share = cell.median / pooled
                text = (
                    f"{result.name}, {model}, {mode}: {cell.median:.4f} is {share:.3f} (±{cell.error / pooled:.3f}) x "
                    f"pooled {pooled:.4f}; at least {least}"
                )
                yield Verdict(share >= least, text)
        additive, logistic = found["additive"], found["logistic"]
        if additive is not None and logistic is not None:
            difference = additive.median - logistic.median
            error = math.hypot(additive.error, logistic.error)
            text = (
                f"{result.name}, {mode}: additive less logistic {difference:+.4f} (±{error:.4f}); "
                f"at least {LEAST_DIFFERENCE}"
            )
            yield Verdict(difference >= LEAST_DIFFERENCE, text)


def table(result: SetResult) -> list[str]:
    """Return a data set's tables, as Markdown."""
    epsilons = sorted({cell.epsilon for cell in result.cells}, key=lambda value: value or math.inf)
    heads = [f"ε = {_epsilon(value)}" for value in epsilons]
    lines = [
        f"## {result.name}",
        "",
        f"{_upper(result.title)}. {len(result.members)} institutions, {sum(result.trained):,} customers to train on, "
        f"{sum(result.tested):,} held out. Alone: {statistics.fmean(result.alone()):.4f}.",
        "",
        f"| model | mode | pooled | {' | '.join(heads)} |",
        f"|{' --- |' * (3 + len(heads))}",
    ]
    for model in KINDS:
        for mode in MODES:
            cells = [result.cell(model, mode, value) for value in epsilons]
            if any(cells):
                shown = " | ".join(_shown(cell, result.pooled(model)) for cell in cells)
                lines.append(f"| {model} | {mode} | {result.pooled(model):.4f} | {shown} |")
    return [*lines, "", *_institutions(result)]


def _institutions(result: SetResult) -> list[str]:
    cell = result.cell(*SHOWN, TARGET_EPSILON)
    if cell is None:
        return []
    pooled = next(item.pooled for item in result.references if item.model == SHOWN[0])
    figures = zip(
        *(result.members, result.declared, result.tested, result.alone(), cell.by_institution(), pooled), strict=True
    )
    return [
        f"| institution ({', '.join(SHOWN)}, ε = 1) | declared | held out | alone | federated | pooled | gain |",
        f"|{' --- |' * 7}",
        *(
            f"| {member} | {declared:,} | {tested:,} | {alone:.3f} | {ours:.3f} | {all_:.3f} | {ours - alone:+.3f} |"
            for member, declared, tested, alone, ours, all_ in figures
        ),
        "",
    ]


def gains(results: Sequence[SetResult]) -> list[str]:
    """Say where federating helped and where it did not: a report that keeps quiet about the latter would mislead."""
    lines = [f"Federated less alone at ε = 1 ({', '.join(SHOWN)}):"]
    for result in results:
        cell = result.cell(*SHOWN, TARGET_EPSILON)
        if cell is not None:
            alone = result.alone()
            ahead = sum(ours > own for ours, own in zip(cell.by_institution(), alone, strict=True))
            gain = cell.median - statistics.fmean(alone)
            lines.append(f"- {result.name} {gain:+.4f}; {ahead} of {len(alone)} institutions gain")
    return lines


def regret_table(found: Sequence[Regret]) -> list[str]:
    """Return the rule's regret on each data set, as Markdown; nothing where it was not asked for."""
    if not found:
        return []
    lines = [
        f"## Regret ({', '.join(SHOWN)}, ε = 1): the rule beside a grid of step (factor on the rule's) and rounds",
        "",
        "| set | rule | best of the grid | regret | worst of the grid |",
        f"|{' --- |' * 5}",
    ]
    for item in found:
        (step, rounds, best), (low_step, low_rounds, worst) = item.best, item.worst
        lines.append(
            f"| {item.name} | {item.rule:.4f} | {best:.4f} (step x {step:.2g}, {rounds} rounds) | {item.text} "
            f"| {worst:.4f} (step x {low_step:.2g}, {low_rounds} rounds) |"
        )
    return [*lines, ""]


def as_json(
    results: Sequence[SetResult], judged: Sequence[Verdict], regrets: Sequence[Regret], skipped: Sequence[str]
) -> dict[str, object]:
    """Return everything for a machine; `null` as epsilon means no privacy."""
    return {
        "note": NOISE_NOTE,
        "sets": [asdict(result) for result in results],
        "targets": [asdict(verdict) for verdict in judged],
        "regret": [asdict(item) for item in regrets],
        "skipped": list(skipped),
    }


def _epsilon(value: float | None) -> str:
    return "∞" if value is None else f"{value:g}"


def _shown(cell: Cell | None, pooled: float) -> str:
    if cell is None:
        return ""
    means = cell.means
    return f"{cell.median:.4f} ({min(means):.4f} to {max(means):.4f}) = {cell.median / pooled:.3f} x"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
