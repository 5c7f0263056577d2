"""Estimates, differences and a sweep's headlines as people read them; tables and pages say the same."""

from collections.abc import Sequence

from simulations.sweeps.comparing import NO_NOISE, Line, Point, middle
from simulations.sweeps.estimates import Estimate
from simulations.sweeps.gains import Gains
from simulations.sweeps.metrics import Metric
from simulations.sweeps.reading import Results

FAILED = "†"
FAILED_NOTE = f"{FAILED} rounds failed in some of these runs."
MARK_NOTE = f"{FAILED} n of m: in n of m finished runs rounds failed"
SAME_PLACES = (
    "Institutions are the same in every run. Which of their customers are held out at random differs by seed, and an institution is "
    "compared with itself at the same seed."
)


def finished(results: Results) -> str:
    """Say how many of the cells that were asked for are finished."""
    done, asked = results.finished()
    rest = asked - done
    missing = "" if not rest else f"; {rest} failed or {'was' if rest == 1 else 'were'} not run"
    return f"{done} of {asked} cells finished{missing}."


def span(value: Estimate, metric: Metric, *, signed: bool = False) -> str:
    """Write an estimate's interval; a dash where fewer than three seeds leave it open."""
    return (
        f"{metric.shown(value.low, signed=signed)} to {metric.shown(value.high, signed=signed)}"
        if value.bounded
        else "–"
    )


def seeds(value: Estimate) -> str:
    """Write how many seeds are in an estimate: "5", or "4 of 5"."""
    return str(value.of) if value.have == value.of else f"{value.have} of {value.of}"


def runs(value: Estimate, troubled: int) -> str:
    """Write how many seeds are in an estimate, marked where rounds failed in some of their runs."""
    return seeds(value) + (f" {FAILED}" if troubled else "")


def mark(value: Estimate, troubled: int = 0, finished: int = 0) -> str:
    """Write what a point of a picture lacks: "2 of 3 seeds", and after a dagger in how many of its finished runs rounds failed."""
    said = [value.seeds] if value.have < value.of else []
    if troubled:
        said.append(f"{FAILED} {troubled} of {finished}")
    return ", ".join(said)


def difference_text(value: Estimate | None, metric: Metric, have: int) -> str:
    """Write a difference with half of its interval, and its seeds where they are fewer than the `have` beside it; a dash without any."""
    if value is None or not value.have:
        return "–"
    half = f" ± {metric.shown((value.high - value.low) / 2)}" if value.bounded else ""
    missing = f" ({value.have} seed{'' if value.have == 1 else 's'})" if value.have < have else ""
    return metric.shown(value.value, signed=True) + half + missing


def headlines(lines: Sequence[Line], gains: Sequence[Gains], metric: Metric) -> list[str]:
    """Say in a sentence each what the metric is in the middle of the budgets, and who gains there and who loses."""
    said = [
        _at_middle(line, point, metric) for line, point in zip(lines, middle(lines), strict=False) if point.value.have
    ]
    return said + [f"{found.title}: {counted(found)}" for found in gains]


def _at_middle(line: Line, point: Point, metric: Metric) -> str:
    budget = "without noise" if point.budget == NO_NOISE else f"at ε {point.budget}"
    sentence = f"{line.title}, {budget}: {metric.short} {metric.shown(point.value.value)}"
    if point.value.bounded:
        sentence += f" ({span(point.value, metric)})"
    for to, name in ((point.to_alone, "training alone"), (point.to_pooled, "pooled records")):
        if to is not None and to.have:
            sentence += f"; against {name} {difference_text(to, metric, point.value.have)}"
    return f"{sentence}; {point.value.seeds}."


def counted(found: Gains) -> str:
    """Say how many institutions gain and how many lose; who lies is among them."""
    more, less, open_ = found.counted()
    known, of = len(found.judged), len(found.rows)
    who = f"{of} institutions" if known == of else f"{known} judged institutions"
    rest = f"; {of - known} {'has' if of - known == 1 else 'have'} no figure" if known < of else ""
    return (
        f"{more} of {who} gain, {less} lose, and of {open_} neither can be said "
        f"(95% intervals, each institution by itself){rest}."
    )
