"""Figures of the report, as inline SVG: drawn without pyplot's global state, with text as text, readable in greyscale."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.results import Curve, SiteResult, StudyResult

INK = "#1c2733"
SOFT = "#68737f"
RULE = "#d5dade"
FEDERATED = "#17406d"
ALONE = "#c07f16"
POOLED = "#8b949e"

STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.2,
    "path.simplify": True,
}
_LINES: dict[str, dict[str, Any]] = {
    "federated": {"color": FEDERATED, "linewidth": 1.8, "linestyle": "-", "label": "federated"},
    "pooled": {"color": POOLED, "linewidth": 1.4, "linestyle": (0, (4, 2)), "label": "pooled, no privacy"},
    "released": {
        "color": FEDERATED,
        "linewidth": 0,
        "marker": "o",
        "markersize": 4,
        "markerfacecolor": "white",
        "markeredgewidth": 1.0,
        "label": "as released, noisy",
    },
    "calibrated": {
        "color": ALONE,
        "linewidth": 1.4,
        "linestyle": (0, (1, 1.2)),
        "marker": "D",
        "markersize": 3,
        "label": "calibrated at home",
    },
}
_WIDTH = 7.1
_ROW = 0.27


@contextmanager
def figure_of(width: float, height: float, style: Any = STYLE) -> Iterator[Figure]:  # noqa: ANN401 - matplotlib's own settings
    """Yield a figure of `width` x `height` inches under the house style."""
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, name: str, title: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return inline(text[text.index("<svg") :], name, title)


def inline(svg: str, name: str, title: str) -> str:
    """Return a matplotlib SVG element fit to stand in a page: ids of its own, the page's font and width, read aloud as `title`."""
    text = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def curves(study: StudyResult) -> str:
    """Draw ROC, lift and calibration side by side."""
    with figure_of(_WIDTH, 2.65) as figure:
        roc, lift, calibration = figure.subplots(1, 3)
        roc.plot([0, 1], [0, 1], color=RULE, linewidth=0.8)
        _lines(roc, study.roc)
        _frame(roc, "Ranking (ROC)", "share of the others listed", "share of the sought found")
        lift.axhline(1.0, color=RULE, linewidth=0.8)
        _lines(lift, study.lift)
        lift.set_ylim(bottom=0)
        _frame(lift, "Lift", "share of customers listed", "times the base rate")
        top = _top(study.calibration)
        calibration.plot([0, top], [0, top], color=RULE, linewidth=0.8)
        _lines(calibration, study.calibration)
        _frame(calibration, "Calibration", "predicted probability", "observed share")
        calibration.set_xlim(0, top)
        calibration.set_ylim(0, top)
        for axes in (roc, lift):
            axes.set_xlim(0, 1)
        roc.set_ylim(0, 1)
        handles = {
            label: handle
            for axes in (roc, lift, calibration)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
        return _svg(figure, f"{study.name}-curves", "ROC, lift and calibration curves")


def _lines(axes: Axes, lines: Sequence[Curve]) -> None:
    for line in lines:
        axes.plot(line.x, line.y, **_LINES[line.role])


def _frame(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontweight="bold", color=INK, pad=8)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_box_aspect(1)


def _top(lines: Sequence[Curve]) -> float:
    values = [value for line in lines for value in (*line.x, *line.y)]
    return min(1.0, max(values, default=1.0) * 1.08)


def gains(study: StudyResult) -> str:
    """Draw one row an institution: own model -> federated model, with the pooled reference, sorted by gain."""
    sites = sorted(study.sites, key=lambda site: site.gain)
    with figure_of(_WIDTH, 0.75 + _ROW * len(sites)) as figure:
        axes = figure.subplots()
        axes.hlines(
            range(len(sites)),
            [s.alone for s in sites],
            [s.federated for s in sites],
            color=SOFT,
            linewidth=1.2,
            zorder=1,
        )
        tick: dict[str, Any] = {"marker": "|", "markersize": 11, "markeredgewidth": 1.6, "color": POOLED}
        ring: dict[str, Any] = {
            "marker": "o",
            "markerfacecolor": "white",
            "markeredgewidth": 1.5,
            "markeredgecolor": ALONE,
        }
        _marks(axes, [s.pooled for s in sites], "pooled, no privacy", **tick)
        _marks(axes, [s.alone for s in sites], "own model, no privacy", **ring)
        _marks(axes, [s.federated for s in sites], "federated, private", marker="o", color=FEDERATED)
        _named_rows(axes, sites)
        for row, site in enumerate(sites):
            _beside(axes, row, f"{_signed(site.gain)} ± {site.margin:.3f}", FEDERATED if site.gain > 0 else ALONE)
        axes.set_xlabel("AUC on the institution's own held-out customers")
        figure.legend(loc="outside upper left", ncols=3)
        return _svg(figure, f"{study.name}-gains", "Gain of each institution from federating")


def _marks(axes: Axes, values: Sequence[float], label: str, **style: Any) -> None:  # noqa: ANN401 - matplotlib's own
    axes.plot(values, range(len(values)), label=label, linestyle="none", zorder=3, **{"markersize": 5.5, **style})


def _beside(axes: Axes, row: int, text: str, color: str) -> None:
    axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=color)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\u2212")


def _named_rows(axes: Axes, sites: Sequence[SiteResult]) -> None:
    axes.set_yticks(range(len(sites)), [site.title for site in sites])
    axes.set_ylim(-0.7, len(sites) - 0.3)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8)
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)


def budgets(study: StudyResult) -> str:
    """Draw each institution's budget, what it granted the study, and what its two accounts were charged."""
    sites = list(reversed(study.sites))
    bars = [site.budget for site in sites]
    rows = range(len(sites))
    with figure_of(_WIDTH, 0.75 + _ROW * 1.15 * len(sites)) as figure:
        axes = figure.subplots()
        frame: dict[str, Any] = {"color": "white", "edgecolor": SOFT, "linewidth": 0.9, "label": "budget of the period"}
        solid: dict[str, Any] = {"color": FEDERATED, "label": "charged: training"}
        hatched: dict[str, Any] = {
            "color": ALONE,
            "alpha": 0.75,
            "hatch": "////",
            "edgecolor": "white",
            "linewidth": 0,
            "label": "charged: evaluation",
        }
        axes.barh(rows, [bar.whole for bar in bars], height=0.72, **frame)
        axes.barh([row + 0.17 for row in rows], [bar.charged_training for bar in bars], height=0.3, **solid)
        axes.barh([row - 0.17 for row in rows], [bar.charged_holdout for bar in bars], height=0.3, **hatched)
        tick: dict[str, Any] = {"marker": "|", "markersize": 15, "markeredgewidth": 1.6, "color": INK}
        _marks(axes, [bar.granted for bar in bars], "granted to this study", **tick)
        _named_rows(axes, sites)
        axes.set_xlim(left=0)
        for row, bar in enumerate(bars):
            _beside(axes, row, f"{bar.left:.2f} left", SOFT)
        axes.set_xlabel("ε of one customer (less is more private)")
        figure.legend(loc="outside upper left", ncols=4)
        return _svg(figure, f"{study.name}-budgets", "Privacy budget of each institution")
