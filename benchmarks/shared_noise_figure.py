"""The figure of the shared-noise benchmark: AUC by budget for each way to train, one row a study, one column a number of institutions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.figures import ALONE, FEDERATED, INK, POOLED, RULE, SOFT
from simulations.shared import Way

_STYLE: Any = {
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "shared-noise",
}
_LINES: dict[Way, dict[str, Any]] = {
    "central": {
        "color": INK,
        "linestyle": (0, (4, 2)),
        "linewidth": 1.3,
        "marker": "s",
        "label": "central, one trusted party",
    },
    "shared": {"color": FEDERATED, "linewidth": 1.9, "marker": "o", "label": "fedsgd, shared noise"},
    "local": {"color": ALONE, "linewidth": 1.4, "marker": "^", "label": "fedsgd, local noise"},
    "fedavg": {
        "color": ALONE,
        "linestyle": (0, (1, 1.2)),
        "linewidth": 1.4,
        "marker": "v",
        "label": "fedavg, local noise",
    },
    "alone": {"color": POOLED, "linewidth": 1.3, "marker": "D", "label": "alone"},
}
_APART = 0.012  # in log10 of epsilon: bars of spread that would lie on each other stand side by side


class Found(Protocol):
    """One number of institutions and one budget."""

    members: int
    epsilon: float
    aucs: Mapping[Way, tuple[float, ...]]


def draw(out: Path, studies: Sequence[tuple[str, float, Sequence[Found]]]) -> list[Path]:
    """Draw (name, AUC without privacy, what was found) of each study; return the files, PNG and SVG."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = sorted({cell.members for _, _, cells in studies for cell in cells})
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.1, 2.5 * len(studies) + 0.5), layout="constrained")
        grid = figure.subplots(len(studies), len(sizes), sharey="row", squeeze=False)
        for row, (name, limit, cells) in zip(grid, studies, strict=True):
            for axes, members in zip(row, sizes, strict=True):
                _panel(axes, [cell for cell in cells if cell.members == members], limit)
                axes.set_title(f"{name}, {members} institutions")
            row[0].set_ylabel("AUC, held-out customers")
        for axes in grid[-1]:
            axes.set_xlabel("ε of every customer, training")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        paths = [out / f"shared_noise.{kind}" for kind in ("png", "svg")]
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _panel(axes: Axes, cells: Sequence[Found], limit: float) -> None:
    axes.axhline(limit, color=SOFT, linewidth=0.9, linestyle=(0, (6, 2, 1, 2)), label="no privacy, all records")
    epsilons = [cell.epsilon for cell in cells]
    for place, (way, style) in enumerate(_LINES.items()):
        middle = [median(cell.aucs[way]) for cell in cells]
        shifted = [epsilon * 10 ** (_APART * (place - 2)) for epsilon in epsilons]
        axes.plot(shifted, middle, markersize=4, zorder=3, **style)
        for x, cell in zip(shifted, cells, strict=True):
            axes.plot(
                [x, x], [min(cell.aucs[way]), max(cell.aucs[way])], color=style["color"], linewidth=0.8, alpha=0.6
            )
    axes.set_xscale("log")
    axes.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axes.minorticks_off()
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
