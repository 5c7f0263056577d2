"""The report's pictures: uplift of each arm, uplift by decile, the Qini curve. Plain SVG, to stand in a page."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.typing import RcKeyType

from client.campaign.report import Report, Slice
from client.campaign.uplift import Interval, Qini

_INK, _SOFT, _RULE = "#1c2733", "#68737f", "#d5dade"
_BLUE, _PALE, _OCHRE = "#17406d", "#c3d2e2", "#b8720b"
_COLOURS = (_BLUE, _OCHRE, "#4f7f5b", "#8a4f7d", _SOFT)
_STYLE: dict[RcKeyType, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "consilience",
}


def arms_chart(report: Report) -> str:
    """Return the uplift in conversion of each arm, and of those whom the model and chance chose, with their intervals."""
    named = [(effect.arm, effect.uplift) for effect in report.effects]
    if report.contest is not None:
        named += [("chosen by the model", report.contest.model), ("chosen by chance", report.contest.random)]
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(height=0.75 + 0.3 * len(named))
        for place, (_, gap) in enumerate(reversed(named)):
            _whisker(axes, gap, place, _BLUE if gap.above_zero else _OCHRE if gap.below_zero else _SOFT)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_yticks(range(len(named)), [name for name, _ in reversed(named)])
        axes.set_ylim(-0.6, len(named) - 0.4)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("conversions more than without an approach, in points of the rate")
        return _svg(figure)


def deciles_chart(slices: Sequence[Slice]) -> str:
    """Return the uplift by score decile, one series for each arm."""
    arms = list(dict.fromkeys(item.effect.arm for item in slices))
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(height=2.8)
        for number, arm in enumerate(arms):
            mine = [item for item in slices if item.effect.arm == arm]
            shift = 0.12 * (number - (len(arms) - 1) / 2)
            places = [int(item.name) + shift for item in mine]
            gaps = [item.effect.uplift for item in mine]
            axes.errorbar(
                places,
                [gap.estimate for gap in gaps],
                yerr=[[gap.estimate - gap.low for gap in gaps], [gap.high - gap.estimate for gap in gaps]],
                fmt="o",
                markersize=4,
                linewidth=1.2,
                color=_COLOURS[number % len(_COLOURS)],
                label=arm,
            )
        axes.axhline(0, color=_INK, linewidth=0.8)
        axes.set_xlim(0.5, 10.5)
        axes.set_xticks(range(1, 11))
        axes.set_xlabel("score decile (1 is the highest)")
        axes.set_ylabel("uplift in conversion")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if len(arms) > 1:
            axes.legend(ncols=len(arms), loc="upper right")
        return _svg(figure)


def qini_chart(curve: Qini) -> str:
    """Return the Qini curve with its band, and the straight line of an order that knows nothing."""
    share, gain = curve.share, curve.gain
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(height=2.8)
        axes.fill_between(share, curve.low, curve.high, color=_PALE, linewidth=0, label="95% of the bootstrap")
        axes.plot(share, gain, "o-", color=_BLUE, markersize=3.5, linewidth=1.5, label="by the model's order")
        axes.plot(
            [0, share[-1]], [0, gain[-1]], "--", color=_OCHRE, linewidth=1.2, label="by an order without knowledge"
        )
        axes.axhline(0, color=_INK, linewidth=0.8)
        axes.set_xlim(0, 1.01)
        axes.set_xlabel("share of the customers approached, highest score first")
        axes.set_ylabel("extra conversions per customer")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(loc="upper left")
        return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    return figure, figure.add_subplot()


def _whisker(axes: Axes, gap: Interval, place: int, colour: str) -> None:
    axes.plot([gap.low, gap.high], [place, place], color=colour, linewidth=1.6)
    axes.plot([gap.estimate], [place], "o", color=colour, markersize=5)


def _svg(figure: Figure) -> str:
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue().decode()
    return text[text.index("<svg") :]
