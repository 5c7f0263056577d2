"""Plots of an additive model's shape functions: what each feature does to the score, exactly as the model computes it.

Every panel is read off the basis, whose sum scoring uses, so the picture cannot differ from the reasons. Grey tones and markers only,
for paper. Where a model's card says how far noise may have moved its curves, they have 95% bands. Where an institution's own customers
are given, curves are centred on their average and a strip shows where they lie: such a picture stays local, and has no bands, which
hold for curves centred on the mean over their points. `client.surfaces` draws pairs.
"""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray

from client.cohort import Columns
from client.importance import own_importance, reference_importance
from client.reasons import NOT_KNOWN, PLAIN_UNITS, AnyColumn, amount, number, short_meaning
from client.surfaces import Surface, heat
from federation.basis import Basis, Kind, Pair, on_scale
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.shape_noise import BAND, ShapeNoise

Floats = NDArray[np.float64]
Values = NDArray[Any]

ACROSS = 3
WIDTH_INCHES, ROW_INCHES = 7.4, 2.35
_STRIP_BINS = 24
_LETTERS_ACROSS = 40
_DARK, _MIDDLE, _PALE = "0.15", "0.45", "0.85"
_STYLE: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "consilience",
}


@dataclass(frozen=True)
class Shape:
    """One feature's effect on the logit.

    `at` are the knots of a number, or the codes of categories (0 and 1 for a flag); `effect` is the logit's term there,
    float64 of the same length, straight between knots on the basis' scale; `missing` is the term where the value is
    not known. `share` is where the customers lie: by histogram over `share_edges`, on the basis' scale, for a number,
    else by code; empty without customers. `band` and `missing_band` are half the widths of 95% bands of privacy's noise; `band` is empty
    where nothing is known of it. `importance` is the mean distance from the average, as `client.importance` has it.
    """

    column: AnyColumn
    at: Floats
    effect: Floats
    missing: float
    share: Floats
    share_edges: Floats
    band: Floats = field(default_factory=lambda: np.empty(0))
    missing_band: float = 0.0
    importance: float = 0.0

    @property
    def reach(self) -> float:
        """How far the feature moves the logit between its best and its worst value."""
        return float(np.ptp(self.effect))


def shapes(
    kind: Kind,
    contract: FeatureContract,
    weights: NDArray[np.floating],
    customers: Columns | None = None,
    *,
    pairs: tuple[Pair, ...] = (),
    noise: Sequence[ShapeNoise] = (),
) -> list[Shape]:
    """Return each column's shape, the most important first.

    Parameters
    ----------
    kind:
        `additive` or `logistic`.
    weights:
        [width] as `Basis.of(contract, kind, pairs)` numbers them.
    customers:
        The institution's own customers: shapes are then centred on their average and ordered by what matters among them, and columns that
        it lacks are left out. Without them a number's shape is centred on the mean over its knots, a category's or flag's on the plain
        mean over what is listed, and the public reference decides what matters.
    noise:
        From the model's card; not looked at where customers are given.
    """
    basis = Basis.of(contract, kind, pairs)
    known = {} if customers is not None else {item.term: item for item in noise}
    if customers is None:
        importance = reference_importance(basis, contract, weights)
    else:
        importance = own_importance(basis, weights, customers)
    average = None if customers is None else basis.contributions(basis.encode(customers), weights).mean(axis=0)
    own = customers or {}
    found = [
        replace(
            _shape(basis, column, weights, None if average is None else float(average[place]), own.get(column.name)),
            importance=importance[column.name],
        )
        for place, column in enumerate(contract.columns)
        if customers is None or column.name in customers
    ]
    banded = [_banded(shape, known.get(shape.column.name)) for shape in found]
    return sorted(banded, key=lambda shape: -shape.importance)


def _banded(shape: Shape, noise: ShapeNoise | None) -> Shape:
    """Return a shape with its band; a card that speaks of another number of points is not believed."""
    if noise is None or len(noise.deviations) != len(shape.effect):
        return shape
    return replace(shape, band=BAND * np.asarray(noise.deviations), missing_band=BAND * noise.missing)


def _shape(
    basis: Basis, column: AnyColumn, weights: NDArray[np.floating], average: float | None, values: Values | None
) -> Shape:
    points, terms = basis.shape(weights, column.name)
    numeric = isinstance(column, NumericColumn)
    at = np.asarray(points, dtype=np.float64) if numeric else np.arange(len(terms), dtype=np.float64)
    centre = float(terms.mean()) if average is None else average
    share, edges = _share(column, values)
    return Shape(column, at, terms - centre, basis.absent(weights, column.name) - centre, share, edges)


def _share(column: AnyColumn, values: Values | None) -> tuple[Floats, Floats]:
    if values is None or not len(values):
        return np.empty(0), np.empty(0)
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if isinstance(column, NumericColumn):
        edges = np.linspace(*_ends(column), _STRIP_BINS + 1)
        return np.histogram(on_scale(column, known), edges)[0] / len(values), edges
    size = len(column.categories) if isinstance(column, CategoricalColumn) else 2
    codes = known[known >= 0].astype(np.int64)
    return np.bincount(codes, minlength=size)[:size] / len(values), np.empty(0)


def draw(found: Sequence[Shape], title: str, pairs: Sequence[Surface] = ()) -> Figure:
    """Draw small multiples with one axis for all curves: how a feature multiplies the odds.

    Parameters
    ----------
    found:
        As `shapes` returns them, drawn in this order.
    title:
        What the score is the probability of, in words.
    pairs:
        As `client.surfaces.surfaces` returns them, drawn after the curves as heat maps.
    """
    count = len(found) + len(pairs)
    rows = max(1, math.ceil(count / ACROSS))
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.04, hspace=0.06)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows + 0.7), layout=layout)
        axes = figure.subplots(rows, ACROSS, squeeze=False).ravel()
        bottom, top = _span(found)
        for place, (axis, shape) in enumerate(zip(axes, found, strict=False)):
            _panel(axis, shape, bottom, top)
            axis.tick_params(labelleft=place % ACROSS == 0)
            axis.set_ylabel("odds multiplied by" if place % ACROSS == 0 else "")
        darkest = max((float(np.abs(item.effect).max()) for item in pairs), default=0.0)
        for axis, surface in zip(axes[len(found) :], pairs, strict=False):
            heat(axis, surface, darkest)
        for axis in axes[count:]:
            axis.set_visible(False)
        against = "the institution's average customer" if _own(found) else "the average over its panel"
        heading = [*textwrap.wrap(title, 90), f"What each feature does to the odds, against {against}"]
        figure.suptitle("\n".join(heading), fontsize=9, x=0.01, ha="left")
        figure.supxlabel(_caption(found, pairs), fontsize=6.5, x=0.01, ha="left")
    return figure


def svg(figure: Figure) -> bytes:
    """Return the figure as one `<svg>` element (UTF-8), to stand in a page or alone; equal figures give equal bytes."""
    content = _saved(figure, "svg", "figure", {"Date": None})
    return content[content.index(b"<svg") :]


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Return the figure as PNG at `dpi` dots an inch."""
    return _saved(figure, "png", dpi, {"Software": None})


def _saved(figure: Figure, kind: str, dpi: float | Literal["figure"], metadata: dict[str, None]) -> bytes:
    sink = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(sink, format=kind, dpi=dpi, metadata=metadata)
    return sink.getvalue()


def _span(found: Sequence[Shape]) -> tuple[float, float]:
    """Limits of the common axis: at least halving to doubling, with room for the strip of customers below."""
    low, high = [-math.log(2.0)], [math.log(2.0)]
    for shape in found:
        band = shape.band if len(shape.band) else 0.0
        low += [float((shape.effect - band).min()), shape.missing - shape.missing_band]
        high += [float((shape.effect + band).max()), shape.missing + shape.missing_band]
    bottom, top = min(low), max(high)
    room = 0.06 * (top - bottom)
    strip = 2.5 * room if _own(found) else 0.0
    return bottom - room - strip, top + room


def _own(found: Sequence[Shape]) -> bool:
    return any(len(shape.share) for shape in found)


def _caption(found: Sequence[Shape], pairs: Sequence[Surface]) -> str:
    strip = "   Pale strip: where the institution's customers lie." if _own(found) else ""
    lines = [f"?  {NOT_KNOWN} (diamond, hatched bar).   Dots: the contract's knots.{strip}"]
    if any(len(shape.band) for shape in found):
        lines.append(
            "Grey bands and whiskers: 95% of what privacy's noise may have put in; sampling error is not in them."
        )
    if pairs:
        lines.append(
            "Heat maps: on top of both curves; dark lowers, light raises; in brackets: no larger than the noise's band."
        )
    return "\n".join(lines)


def _panel(axis: Axes, shape: Shape, bottom: float, top: float) -> None:
    axis.set_title("\n".join(textwrap.wrap(short_meaning(shape.column), 39)[:3]), loc="left")
    axis.axhline(0.0, color=_MIDDLE, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1)
    if isinstance(shape.column, NumericColumn):
        _curve(axis, shape, shape.column, bottom, top)
    else:
        _bars(axis, shape, bottom, top)
    axis.set_ylim(bottom, top)
    ticks = list(_odds(bottom, top))
    axis.set_yticks([math.log(odds) for odds in ticks], [_factor(odds) for odds in ticks])
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(width=0.6, length=2.5)


def _curve(axis: Axes, shape: Shape, column: NumericColumn, bottom: float, top: float) -> None:
    """The line, on the basis' own scale, where it is straight between knots; a diamond at the right is "not known"."""
    low, high = _ends(column)
    x = on_scale(column, shape.at)
    if len(shape.share):
        edges = shape.share_edges
        height = 0.12 * (top - bottom) * shape.share / max(float(shape.share.max()), 1e-12)
        axis.bar(
            edges[:-1], height, np.diff(edges), bottom=bottom, align="edge", color=_PALE, edgecolor="none", zorder=0
        )
    axis.plot(x, shape.effect, "o-", color=_DARK, linewidth=1.2, markersize=2.4, zorder=3)
    beside = high + 0.12 * (high - low)
    if len(shape.band):
        axis.fill_between(x, shape.effect - shape.band, shape.effect + shape.band, color=_PALE, linewidth=0, zorder=1)
        _whisker(axis, beside, shape.missing, shape.missing_band)
    axis.plot(
        [beside],
        [shape.missing],
        marker="D",
        color="white",
        markeredgecolor=_DARK,
        markeredgewidth=0.8,
        markersize=4,
        zorder=3,
    )
    axis.axvline(high + 0.05 * (high - low), color=_PALE, linewidth=0.6, zorder=0)
    ticks = list(_apart(x, 0.15 * (high - low)))
    axis.set_xticks([*x[ticks], beside], [*(_tick(column, column.knots[place]) for place in ticks), "?"])
    axis.set_xlim(low - 0.03 * (high - low), high + 0.2 * (high - low))
    axis.set_xlabel(_unit(column))


def _bars(axis: Axes, shape: Shape, bottom: float, top: float) -> None:
    """Solid bars for what is listed, a hatched one for "not known"."""
    column = shape.column
    names = list(column.categories) if isinstance(column, CategoricalColumn) else ["no", "yes"]
    x = np.arange(len(names))
    if len(shape.share):
        height = 0.12 * (top - bottom) * shape.share / max(float(shape.share.max()), 1e-12)
        axis.bar(x, height, 0.9, bottom=bottom, color=_PALE, edgecolor="none", zorder=0)
    axis.bar(x, shape.effect, 0.7, color=_MIDDLE, edgecolor=_DARK, linewidth=0.6, zorder=3)
    axis.bar([len(names)], [shape.missing], 0.7, color="white", edgecolor=_DARK, linewidth=0.6, hatch="////", zorder=3)
    if len(shape.band):
        for place, half in enumerate(shape.band):
            _whisker(axis, place, float(shape.effect[place]), float(half))
        _whisker(axis, len(names), shape.missing, shape.missing_band)
    upright = (1 + max(len(name) for name in names)) * (len(names) + 1) > _LETTERS_ACROSS
    axis.set_xticks([*x, len(names)], [*names, "?"], rotation=90 if upright else 0)
    axis.set_xlim(-0.6, len(names) + 0.6)


def _whisker(axis: Axes, x: float, y: float, half: float) -> None:
    axis.errorbar([x], [y], yerr=[half], fmt="none", ecolor=_DARK, elinewidth=0.7, capsize=1.5, capthick=0.7, zorder=4)


def _ends(column: NumericColumn) -> tuple[float, float]:
    low, high = on_scale(column, np.array([column.low, column.high]))
    return float(low), float(high)


def _apart(positions: Floats, least: float) -> Iterator[int]:
    """Indices of positions that are far enough apart to be labelled; the first and the last always are."""
    last = -math.inf
    for place, position in enumerate(positions[:-1]):
        if position - last >= least and positions[-1] - position >= least:
            yield place
            last = position
    yield len(positions) - 1


def _tick(column: NumericColumn, value: float) -> str:
    text = amount(column, value)
    return text.split("%")[0] + "%" if column.unit.startswith("share") else number(value)


def _unit(column: NumericColumn) -> str:
    unit = column.unit.removeprefix("share ") if column.unit.startswith("share of ") else column.unit
    return "" if unit in PLAIN_UNITS else "\n".join(textwrap.wrap(unit, 44))


def _odds(bottom: float, top: float) -> Iterator[float]:
    """Round factors within the axis, thinned so that at most about seven stand on it."""
    powers = range(math.ceil(bottom / math.log(2.0)), math.floor(top / math.log(2.0)) + 1)
    step = 1 + (len(powers) - 1) // 7
    return (2.0**power for power in powers if power % step == 0)


def _factor(odds: float) -> str:
    return f"× {odds:g}" if odds >= 1.0 else f"× 1/{1 / odds:g}"
