"""What all pictures of simulations share: style, marks that are told apart in greyscale too, labels that do not overlap, and files.

Colours are Okabe and Ito's, which colour-blind people can tell apart; every line has a marker and a label of its own besides.
"""

import io
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from federation.files import atomic_write
from simulations import figures
from simulations.figures import ALONE, FEDERATED, INK, POOLED, RULE, SOFT, inline
from simulations.sweeps.estimates import Estimate

WIDTH = 7.1
ROW = 0.25
_STYLE: Any = {**figures.STYLE, "axes.titleweight": "bold", "axes.titlecolor": INK, "xtick.minor.size": 0.0}
_LOOKS = (
    (FEDERATED, "o"),
    ("#d55e00", "s"),
    ("#009e73", "^"),
    ("#cc79a7", "D"),
    ("#56b4e9", "v"),
    (INK, "P"),
)
DISTINCT = len(_LOOKS)
"""So many lines differ in colour and marker."""

_LABEL_GAP = 0.052
_TICKS = 8
_ROOM = 0.045


def figure_of(width: float, height: float) -> AbstractContextManager[Figure]:
    """Open a figure of `width` x `height` inches under the house style."""
    return figures.figure_of(width, height, _STYLE)


def svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure fit to stand in a page; `name` makes its ids its own, `title` is read aloud."""
    content = _bytes(figure, "svg", name).decode()
    return inline(content[content.index("<svg") :], name, title)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and as PNG (200 dots an inch), each atomically. Raises StorageError CSL-F301 when it cannot."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    for path in paths:
        atomic_write(path, _bytes(figure, path.suffix[1:], name))
    return paths


def _bytes(figure: Figure, kind: str, name: str) -> bytes:
    buffer, flat = io.BytesIO(), kind == "png"
    metadata = {"Software": None} if flat else {"Date": None, "Creator": None}
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format=kind, dpi=200, transparent=not flat, metadata=metadata)
    return buffer.getvalue()


def numbers(values: Iterable[float]) -> NDArray[np.float64]:
    """Return values as an array, float64."""
    return np.fromiter(values, dtype=np.float64)


def look(place: int) -> tuple[str, str]:
    """Return the colour and the marker of the line in this place."""
    return _LOOKS[place % len(_LOOKS)]


class Epsilons:
    """Where budgets lie: an epsilon by its logarithm; right of all, one after the other, those that are no single number."""

    def __init__(self, budgets: Sequence[tuple[float | None, str]]) -> None:
        self._found = sorted({epsilon for epsilon, _ in budgets if epsilon is not None})
        self._others = list(dict.fromkeys(text for epsilon, text in budgets if epsilon is None))
        gaps = [later - earlier for earlier, later in pairwise(math.log(value) for value in self._found)]
        self.step = max(min(gaps, default=0.7), 0.05)

    def at(self, epsilon: float | None, budget: str = "") -> float:
        """Return where a budget lies on the axis."""
        if epsilon is not None:
            return math.log(epsilon)
        right = math.log(self._found[-1]) if self._found else 0.0
        return right + 0.8 * (1 + self._others.index(budget))

    def frame(self, axes: Axes) -> None:
        """Label the epsilons that were run, as many as there is room for, and what is no number."""
        shown = _roomy(self._found if len(self._found) <= _TICKS else _thin(self._found, _TICKS))
        places = [*map(math.log, shown), *(self.at(None, text) for text in self._others)]
        axes.set_xticks(places, [*(f"{value:g}" for value in shown), *self._others])
        axes.tick_params(axis="both", length=3)
        axes.grid(axis="y", color=RULE, linewidth=0.4)
        axes.set_axisbelow(True)


def _thin(values: Sequence[float], most: int) -> list[float]:
    """Return at most so many of the values, spread by their logarithm, both ends among them."""
    wanted = np.linspace(math.log(values[0]), math.log(values[-1]), most)
    return sorted({min(values, key=lambda value: abs(math.log(value) - place)) for place in wanted.tolist()})


def _roomy(values: Sequence[float]) -> list[float]:
    """Leave out values whose labels would touch the one before: both ends stay."""
    if len(values) < 3:
        return list(values)
    room = math.log(values[-1] / values[0]) * _ROOM
    kept = [values[0]]
    for value in values[1:-1]:
        if math.log(value / kept[-1]) >= room and math.log(values[-1] / value) >= room:
            kept.append(value)
    return [*kept, values[-1]]


def bands(axes: Axes, alone: Estimate | None, pooled: Estimate | None, *, upright: bool) -> None:
    """Draw the references' intervals as bands: pooled dashed, alone dotted."""
    span, rule = (axes.axvspan, axes.axvline) if upright else (axes.axhspan, axes.axhline)
    looks: tuple[tuple[Estimate | None, str, Any], ...] = ((pooled, POOLED, (0, (4, 2))), (alone, ALONE, (0, (1, 1.2))))
    for estimate, color, dashes in looks:
        if estimate is None or not estimate.have:
            continue
        if estimate.bounded:
            span(estimate.low, estimate.high, color=color, alpha=0.16, linewidth=0, zorder=0)
        rule(estimate.value, color=color, linewidth=1.1, linestyle=dashes, zorder=1)


def name_bands(axes: Axes, alone: Estimate | None, pooled: Estimate | None) -> None:
    """Write the references' names where curves seldom run: pooled at the left, alone at the right."""
    for estimate, text, color, x in ((pooled, "pooled, no privacy", SOFT, 0.01), (alone, "alone", ALONE, 0.99)):
        if estimate is not None and estimate.have:
            axes.annotate(
                text,
                (x, estimate.value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="left" if x < 0.5 else "right",
                va="bottom",
                fontsize=7,
                color=color,
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.4},
            )


def above(axes: Axes, x: float, text: str, side: str, size: float, color: str) -> None:
    """Write a name above the axes at a place along them; `side` is how it stands to it: left, center or right."""
    axes.annotate(
        text,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha=side,
        fontsize=size,
        color=color,
    )


def note(axes: Axes, at: tuple[float, float], text: str, color: str, line: int = 0) -> None:
    """Write what a point lacks beside it; where it has no figure, at the edge of the axes, every `line` at a height of its own."""
    if not text:
        return
    x, y = at
    known = (not math.isnan(x), not math.isnan(y))
    axes.annotate(
        text,
        (x if known[0] else 0.0, y if known[1] else 0.0),
        xycoords=("data" if known[0] else "axes fraction", "data" if known[1] else "axes fraction"),
        xytext=(4, -9) if all(known) else (4, -2.5) if known[1] else (0, 2 + 7 * line),
        textcoords="offset points",
        ha="left" if known[1] else "center",
        fontsize=6.5,
        color=color,
        zorder=5,
    )


def bare_last(grid: Any, used: int) -> None:  # noqa: ANN401 - a numpy array of axes
    """Hide the axes of a grid that are not used, and label the x axis of those that stand above them."""
    across = grid.shape[1]
    for place, axes in enumerate(grid.ravel()):
        axes.set_visible(place < used)
        if place < used <= place + across:
            axes.tick_params(labelbottom=True)


def beside(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write labels right of the axes at their heights, moved apart where they would overlap."""
    low, high = _span(axes)
    known = sorted((y, text, color) for y, text, color in labels if not math.isnan(y))
    for place, (_, text, color) in zip(
        apart([(y - low) / (high - low) for y, _, _ in known], _LABEL_GAP), known, strict=True
    ):
        axes.annotate(
            text, (1.01, place), xycoords="axes fraction", va="center", fontsize=7.5, color=color, annotation_clip=False
        )


def _span(axes: Axes) -> tuple[float, float]:
    low, high = axes.get_ylim()
    return (low, high) if high > low else (low, low + 1.0)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Return rising places moved as little as needed to lie `gap` apart: overlapping ones share out around their mean."""
    groups: list[tuple[float, int]] = []
    for place in places:
        centre, size = place, 1
        while groups and groups[-1][0] + gap * (groups[-1][1] - 1) / 2 + gap > centre - gap * (size - 1) / 2 + 1e-12:
            other, members = groups.pop()
            centre, size = (other * members + centre * size) / (members + size), size + members
        groups.append((centre, size))
    return [centre + gap * (place - (size - 1) / 2) for centre, size in groups for place in range(size)]


def row_axis(axes: Axes, names: Sequence[str] | None, number: int) -> None:
    """Set up axes whose rows are things with names; without names the rows stand close."""
    axes.set_yticks(range(number) if names else [], names or [])
    axes.set_ylim(-0.8, number - 0.2)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8)
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)


def errorbars(
    axes: Axes, x: Sequence[float], values: Sequence[Estimate], aside: float, color: str, marker: str
) -> None:
    """Draw a line through means with their intervals, moved `aside` along the axis."""
    places = [value + aside for value in x]
    axes.plot(
        places, [value.value for value in values], color=color, linewidth=1.4, marker=marker, markersize=4.5, zorder=3
    )
    for place, value in zip(places, values, strict=True):
        axes.plot([place, place], [value.low, value.high], color=color, linewidth=1.1, zorder=3)
