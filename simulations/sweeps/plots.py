"""Pictures of a sweep: utility against privacy, gain by institution, the cost of dropouts, algorithms side by side."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.figures import ALONE, FEDERATED, INK, RULE, SOFT
from simulations.sweeps.canvas import (
    DISTINCT,
    ROW,
    WIDTH,
    Epsilons,
    above,
    bands,
    bare_last,
    beside,
    errorbars,
    figure_of,
    look,
    name_bands,
    note,
    row_axis,
)
from simulations.sweeps.comparing import Dropouts, Line, Panel, Point, distance
from simulations.sweeps.estimates import Estimate
from simulations.sweeps.gains import Gains
from simulations.sweeps.metrics import Metric
from simulations.sweeps.wording import MARK_NOTE, mark
from simulations.words import count

_TALLEST = 9.0
_NAMED = 45
_ACROSS = 2
_PANELS = 6
_LOSS = "#b3500a"


def frontier(lines: Sequence[Line], metric: Metric, trusted: Sequence[Line] = ()) -> Figure:
    """Draw the metric against epsilon; one panel for each set of data and partners, for each has references of its own.

    Parameters
    ----------
    trusted:
        The same with all records in one place and the budget.
    """
    drawn = (*lines, *trusted)
    grounds = list(dict.fromkeys(line.ground for line in drawn))
    across = min(_ACROSS, len(grounds))
    down = -(-len(grounds) // across)
    with figure_of(WIDTH, 0.35 + (2.9 if down == 1 else 2.35 * down)) as figure:
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        _limits(grid.ravel()[0], drawn)
        scale = Epsilons([(point.epsilon, point.budget) for line in drawn for point in line.points])
        for axes, ground in zip(grid.ravel(), grounds, strict=False):
            mine, theirs = ([line for line in part if line.ground == ground] for part in (lines, trusted))
            _context(axes, [line for line in lines if line.ground != ground], scale)
            bands(axes, (mine + theirs)[0].alone, (mine + theirs)[0].pooled, upright=False)
            title = _common([line.title for line in mine]) if len(grounds) > 1 else ""
            axes.set_title(title)
            _curves(axes, [(_less(line.title, title), line) for line in mine + theirs], scale)
            scale.frame(axes)
        bare_last(grid, len(grounds))
        figure.supylabel(metric.title, fontsize=8, color=SOFT)
        _below(figure, "ε of every institution (less is more private)", failures=any(line.failures for line in drawn))
        return figure


def _below(figure: Figure, label: str, *, failures: bool) -> None:
    """Write what all panels' x axes are, and what the mark of failed rounds means where there is one."""
    lines = [label, *([MARK_NOTE] if failures else [])]
    figure.supxlabel("\n".join(filter(None, lines)), fontsize=8, color=SOFT)


def _curves(axes: Axes, named: Sequence[tuple[str, Line]], scale: Epsilons) -> None:
    """Draw lines beside each other with their names, and name the references."""
    ends = [_curve(axes, line, place, len(named), scale) for place, (_, line) in enumerate(named)]
    labels = [(y, name, look(place)[0]) for place, (y, (name, _)) in enumerate(zip(ends, named, strict=True)) if name]
    beside(axes, labels)
    name_bands(axes, named[0][1].alone, named[0][1].pooled)


def _common(titles: Sequence[str]) -> str:
    """Return the settings that all titles name."""
    parts = [title.split(", ") for title in titles]
    return ", ".join(part for part in parts[0] if all(part in other for other in parts)) if parts else ""


def _less(title: str, common: str) -> str:
    """Return a title without the settings that stand above already."""
    known = common.split(", ")
    return ", ".join(part for part in title.split(", ") if part not in known)


def _context(axes: Axes, others: Sequence[Line], scale: Epsilons) -> None:
    """Draw the other panels' lines faintly, so that panels compare."""
    for line in others:
        points = [point for point in line.points if point.epsilon is not None]
        axes.plot([scale.at(p.epsilon) for p in points], [p.value.value for p in points], color=RULE, linewidth=1.0)


def _curve(axes: Axes, line: Line, place: int, of: int, scale: Epsilons) -> float:
    """Draw one line with its intervals, a little aside of the others', and return where it ends."""
    color, marker = look(place)
    aside = 0.0 if of == 1 else scale.step * 0.12 * (place / (of - 1) - 0.5)
    private = [point for point in line.points if point.epsilon is not None]
    axes.plot(
        [scale.at(p.epsilon) + aside for p in private],
        [p.value.value for p in private],
        color=color,
        linewidth=1.6,
        zorder=3,
    )
    for point in line.points:
        x = scale.at(point.epsilon, point.budget) + aside
        axes.plot([x, x], [point.value.low, point.value.high], color=color, linewidth=1.1, zorder=3)
        face = "white" if point.epsilon is None else color
        axes.plot([x], [point.value.value], marker=marker, markersize=4.5, color=color, markerfacecolor=face, zorder=4)
        note(axes, (x, point.value.value), _mark(point), color, place)
    known = [point.value.value for point in (private or line.points) if point.value.have]
    return known[-1] if known else math.nan


def _mark(point: Point) -> str:
    return mark(point.value, point.troubled, point.finished)


def _limits(axes: Axes, lines: Sequence[Line]) -> None:
    values = [
        edge
        for line in lines
        for estimate in (*(point.value for point in line.points), line.alone, line.pooled)
        if estimate is not None
        for edge in (estimate.low, estimate.high, estimate.value)
        if not math.isnan(edge)
    ]
    if values:
        room = max(max(values) - min(values), 1e-6) * 0.06
        axes.set_ylim(min(values) - room, max(values) + room)


def gains(found: Gains, metric: Metric) -> Figure:
    """Draw each institution's gain from federating with its interval, the largest on top; the size of a mark grows with the institution.

    Filled circles gain, filled triangles lose, open circles may do either. Names are left out where there are more than 45 institutions.
    """
    rows = list(reversed(found.rows))
    named = len(rows) <= _NAMED
    with figure_of(WIDTH, min(0.9 + (ROW if named else 0.05) * len(rows), _TALLEST)) as figure:
        axes = figure.subplots()
        axes.axvline(0.0, color=INK, linewidth=0.9, zorder=1)
        largest = max((row.declared for row in rows), default=1)
        for place, row in enumerate(rows):
            color, marker, face = _verdict(row.gain)
            axes.plot([row.gain.low, row.gain.high], [place, place], color=color, linewidth=1.2, zorder=2)
            size = (16.0 + 60.0 * row.declared / largest) * (1.0 if named else 0.3)
            axes.scatter(
                [row.gain.value],
                [place],
                s=size,
                marker=marker,
                facecolor=face,
                edgecolor=color,
                linewidth=1.2,
                zorder=3,
            )
            if named:
                _beside_row(axes, place, row.gain, metric, color)
        row_axis(axes, [_name(row.name, poisoner=row.poisoner) for row in rows] if named else None, len(rows))
        axes.set_xlabel(
            f"gain over training alone without noise: {metric.short} on the institution's own held-out customers"
        )
        _sizes(axes, largest)
        return figure


def _beside_row(axes: Axes, place: int, gain: Estimate, metric: Metric, color: str) -> None:
    said = filter(None, (metric.shown(gain.value, signed=True), mark(gain)))
    text = ", ".join(said) if gain.have else "no figure"
    axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=color)


def _name(name: str, *, poisoner: bool) -> str:
    return f"{name} (lies)" if poisoner else name


def _verdict(gain: Estimate) -> tuple[str, str, str]:
    """Return colour, marker and face of a gain, a loss, or neither."""
    return {1: (FEDERATED, "o", FEDERATED), -1: (_LOSS, "v", _LOSS), 0: (SOFT, "o", "white")}[gain.certain]


def _sizes(axes: Axes, largest: int) -> None:
    axes.annotate(
        f"area of a mark: declared size, up to {count(largest)}",
        (1.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7,
        color=SOFT,
    )


def dropouts(found: Sequence[Dropouts], metric: Metric) -> Figure:
    """Draw the metric by the share of missed rounds, and its difference to none, by seed.

    Of many settings those with epsilon nearest to 1 are drawn.
    """
    nearest = sorted(found, key=lambda line: distance(line.epsilon))[:DISTINCT]
    found = [line for line in found if line in nearest]
    with figure_of(WIDTH, 2.9) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        ends = []
        for place, line in enumerate(found):
            color, marker = look(place)
            aside = 0.0 if len(found) == 1 else 0.05 * found[0].shares[-1] * (place / (len(found) - 1) - 0.5)
            errorbars(left, line.shares, line.values, aside, color, marker)
            for share, value, *runs in zip(line.shares, line.values, line.troubled, line.finished, strict=True):
                note(left, (share + aside, value.value), mark(value, *runs), color, place)
            pairs = [(share, cost) for share, cost in zip(line.shares, line.costs, strict=True) if cost is not None]
            errorbars(right, [share for share, _ in pairs], [cost for _, cost in pairs], aside, color, marker)
            for share, cost in pairs:
                note(right, (share + aside, cost.value), mark(cost), color, place)
            known = [cost.value for _, cost in pairs if cost.have]
            ends.append((known[-1] if known else math.nan, line.title, color))
        right.axhline(0.0, color=INK, linewidth=0.9, zorder=1)
        left.set_title(metric.title)
        right.set_title("difference to no dropouts, by seed")
        shares = sorted({share for line in found for share in line.shares})
        for axes in (left, right):
            axes.set_xlim(shares[0] - 0.03, shares[-1] + 0.03)
            axes.set_xticks(shares, [f"{100 * share:g}\u202f%" for share in shares])
            axes.set_xlabel("chance that an institution misses a round")
            axes.grid(axis="y", color=RULE, linewidth=0.4)
            axes.set_axisbelow(True)
        if len(found) > 1:
            beside(right, ends)
        _below(figure, "", failures=any(line.failures for line in found))
        return figure


def algorithms(panels: Sequence[Panel], metric: Metric) -> Figure:
    """Draw algorithms as rows with their intervals, one panel for each of the other settings; the references stand upright behind them.

    Of many settings those with epsilon nearest to 1 are drawn.
    """
    nearest = sorted(panels, key=lambda panel: distance(panel.rows[0][1].epsilon))[:_PANELS]
    panels = [panel for panel in panels if panel in nearest]
    most = max(len(panel.rows) for panel in panels)
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.rows))
    with figure_of(WIDTH, down * (0.75 + ROW * most)) as figure:
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes, panel in zip(grid.ravel(), panels, strict=False):
            bands(axes, panel.alone, panel.pooled, upright=True)
            found = dict(panel.rows)
            for place, name in enumerate(reversed(names)):
                if name in found:
                    _algorithm(axes, place, found[name])
            row_axis(axes, list(reversed(names)), len(names))
            _over(axes, panel)
            axes.set_title(panel.title, pad=14)
        bare_last(grid, len(panels))
        failures = any(point.troubled for panel in panels for _, point in panel.rows)
        _below(figure, metric.title, failures=failures)
        return figure


def _algorithm(axes: Axes, place: int, point: Point) -> None:
    value = point.value
    axes.plot([value.low, value.high], [place, place], color=FEDERATED, linewidth=1.2, zorder=3)
    axes.plot([value.value], [place], marker="o", markersize=5, color=FEDERATED, zorder=4)
    note(axes, (value.value, place), _mark(point), FEDERATED)


def _over(axes: Axes, panel: Panel) -> None:
    """Write the references' names above the axes, each on its side."""
    known = [
        (e.value, t, c) for e, t, c in ((panel.alone, "alone", ALONE), (panel.pooled, "pooled", SOFT)) if e and e.have
    ]
    known.sort()
    for place, (x, text, color) in enumerate(known):
        side = "center" if len(known) == 1 else ("right" if place == 0 else "left")
        above(axes, x, text, side, 7, color)
