"""Heat maps of an additive model's pairs: what two features do together, beside what each does alone."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from client.cohort import Columns
from client.importance import own_importance, reference_importance
from client.reasons import AnyColumn, number, short_meaning
from federation.basis import Basis, Pair, Points
from federation.contract import FeatureContract
from federation.shape_noise import BAND, ShapeNoise

Floats = NDArray[np.float64]

_LIGHT, _DARK = "0.95", "0.1"
_TITLE_LETTERS = 39
_AXIS_LETTERS = 44
_MOST_LEVEL = 7  # cells side by side that a level number fits into
_NOT_TO_BLACK = 0.15  # greys from here to 1 - this: numbers stay legible on every tone


@dataclass(frozen=True)
class Surface:
    """What two columns do together to the logit, beside their two curves.

    `effect` is float64 [points of the first, points of the second] at `at` and `across`; between a number's points it is straight on the
    column's scale, and 0 where a number or a flag is missing. `band` is half the width of its 95% band of privacy's noise, empty where
    nothing is known of it. `importance` as `client.importance` has it.
    """

    first: AnyColumn
    second: AnyColumn
    at: Points
    across: Points
    effect: Floats
    band: Floats
    importance: float

    @property
    def term(self) -> str:
        """The term's name, as the basis has it."""
        return f"{self.first.name}*{self.second.name}"


def surfaces(
    contract: FeatureContract,
    weights: NDArray[np.floating],
    pairs: tuple[Pair, ...],
    customers: Columns | None = None,
    *,
    noise: Sequence[ShapeNoise] = (),
) -> list[Surface]:
    """Return each pair's surface, the most important first; none without pairs.

    Parameters
    ----------
    weights:
        [width] as `Basis.of(contract, "additive", pairs)` numbers them.
    customers:
        The institution's own, who then decide what matters.
    noise:
        From the model's card.
    """
    if not pairs:
        return []
    basis, known = Basis.of(contract, "additive", pairs), {item.term: item for item in noise}
    if customers is None:
        importance = reference_importance(basis, contract, weights)
    else:
        importance = own_importance(basis, weights, customers)
    found = []
    for term, (first, second) in basis.pairs.items():
        at, across, effect = basis.surface(weights, term)
        said = known.get(term)
        fits = said is not None and len(said.deviations) == effect.size
        band = BAND * np.reshape(said.deviations, effect.shape) if said is not None and fits else np.empty(0)
        found.append(
            Surface(contract.column(first), contract.column(second), at, across, effect, band, importance[term])
        )
    return sorted(found, key=lambda surface: -surface.importance)


def heat(axis: Axes, surface: Surface, darkest: float) -> None:
    """Draw one pair: the factor on the odds in every cell, light where it raises and dark where it lowers them.

    Parameters
    ----------
    darkest:
        The effect that is drawn in the palest and in the darkest tone: one for all pairs of a picture.
    """
    span = max(darkest, 1e-9) / (1.0 - 2.0 * _NOT_TO_BLACK)
    axis.imshow(surface.effect, cmap=mpl.colormaps["gray"], vmin=-span, vmax=span, aspect="auto")
    upright = 90 if surface.effect.shape[1] > _MOST_LEVEL else 0
    for (row, column), value in np.ndenumerate(surface.effect):
        text = f"{np.exp(value):.2f}"
        within = bool(len(surface.band)) and abs(value) <= surface.band[row, column]
        tone = _DARK if value > -0.2 * span else _LIGHT
        shown = f"({text})" if within else text
        axis.text(column, row, shown, ha="center", va="center", fontsize=5.0, color=tone, rotation=upright)
    axis.set_title(
        "\n".join(
            textwrap.wrap(f"{short_meaning(surface.first)}, with {short_meaning(surface.second)}", _TITLE_LETTERS)[:3]
        ),
        loc="left",
    )
    axis.set_yticks(range(len(surface.at)), _labels(surface.at))
    across = _labels(surface.across)
    axis.set_xticks(range(len(across)), across, rotation=90 if sum(map(len, across)) > _AXIS_LETTERS else upright)
    axis.set_ylabel(surface.first.name)
    axis.set_xlabel(surface.second.name)
    axis.tick_params(width=0.6, length=2.5)


def _labels(points: Points) -> list[str]:
    return [point if isinstance(point, str) else number(float(point)) for point in points]
