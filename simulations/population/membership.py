"""Institutions, and who is a customer where: sizes, regions and segments differ, and some people are customers of several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulations.population.parameters import Kind, PopulationParameters
from simulations.population.traits import Floats, Traits

Style = Literal["occasional", "regular"]
Ints = NDArray[np.int64]

REGIONS = ("north", "east", "south", "west", "centre")
_REGION_WEIGHTS = np.array([0.18, 0.16, 0.22, 0.20, 0.24])
_QUARTERS = np.array([-0.674, 0.0, 0.674])
_MIDDLES = np.array([-1.27, -0.32, 0.32, 1.27])
STYLES: tuple[Style, ...] = ("occasional", "regular")
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {
    "bank": ("income", "branch_visits", "inactive_days"),
    "shop": ("age", "discount_share", "visits"),
}
"""Columns that an institution may lack, as the contracts say."""


@dataclass(frozen=True)
class Institution:
    """One institution: its name, and how it differs from the others of its kind.

    Attributes
    ----------
    weight:
        Relative size.
    region, pull:
        Region at home, and how much it attracts the affluent (negative: repels), a logit for one unit of the trait.
    shift:
        What it adds to the logit of churn, and takes from that of taking the product; for a shop, it slows purchases and hastens loss.
    style:
        How its customers buy, for shops; None for banks.
    price_level:
        Factor on amounts.
    lacks:
        Optional columns that it does not have.
    """

    name: str
    kind: Kind
    weight: float
    region: int
    pull: float
    shift: float
    style: Style | None
    price_level: float
    lacks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Membership:
    """Customers of one kind of institution in order of position: person and institution, int64 [rows] each."""

    person: Ints
    institution: Ints


def found(kind: Kind, parameters: PopulationParameters, rng: np.random.Generator) -> tuple[Institution, ...]:
    """Draw the institutions of a kind, largest first; shops buy by the styles in turn."""
    count = parameters.count(kind)
    lacking = set(rng.permutation(count)[: round(parameters.lacking * count)].tolist())
    made = []
    for place in range(count):
        pull, shift, price = rng.standard_normal(3).tolist()
        region, column = int(rng.integers(len(REGIONS))), str(rng.choice(OPTIONAL[kind]))
        made.append(
            Institution(
                name=f"{kind}_{place + 1:02d}",
                kind=kind,
                weight=float((place + 1) ** -parameters.skew),
                region=region,
                pull=parameters.mix * pull,
                shift=parameters.base_spread * shift,
                style=STYLES[place % len(STYLES)] if kind == "shop" else None,
                price_level=float(np.exp(0.1 * price)),
                lacks=(column,) if place in lacking else (),
            )
        )
    return tuple(made)


def draw_regions(n: int, rng: np.random.Generator) -> Ints:
    """Draw n people's regions, int64 [n], places in `REGIONS`."""
    return np.searchsorted(_REGION_WEIGHTS.cumsum()[:-1], rng.random(n)).astype(np.int64)


def divide(traits: Traits, parameters: PopulationParameters, rng: np.random.Generator) -> dict[Kind, Ints]:
    """Say who has a bank and who has a shop: people by kind, int64.

    The numbers are exact; the digital are a little more often at a shop, and the affluent a little more often at both.
    """
    n = parameters.customers
    everybody, nobody = np.arange(n, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not parameters.shops:
        return {"bank": everybody, "shop": nobody}
    if not parameters.banks:
        return {"bank": nobody, "shop": everybody}
    at_bank = min(max(round(parameters.bank_share * n), parameters.banks), n)
    both = max(round(parameters.across * at_bank), parameters.shops - (n - at_bank))
    order = np.argsort(0.3 * traits["digital"] + rng.standard_normal(n))
    banked = order[:at_bank]
    wish = 0.3 * traits["affluence"][banked] + 0.3 * traits["digital"][banked] + rng.standard_normal(at_bank)
    twice = banked[np.argsort(-wish)[:both]]
    return {"bank": np.sort(banked), "shop": np.sort(np.concatenate([order[at_bank:], twice]))}


def enrol(
    people: Ints,
    traits: Traits,
    region: Ints,
    institutions: tuple[Institution, ...],
    parameters: PopulationParameters,
    rng: np.random.Generator,
) -> Membership:
    """Make each of these people a customer of one institution, and as many as the overlap asks for of a second; in random order.

    With a share q of people at two institutions, 2q / (1 + q) of the rows are theirs; so q = overlap / (2 - overlap).
    """
    if not len(people):
        return Membership(people, people)
    chances = _chances(institutions, parameters.mix)
    cell = region[people] * len(_MIDDLES) + np.searchsorted(_QUARTERS, traits["affluence"][people])
    first = _fill(_choose(chances, cell, rng), len(institutions))
    second: Ints = np.zeros(0, dtype=np.int64)
    overlap = parameters.overlap if len(institutions) > 1 else 0.0
    wish = 0.4 * traits["affluence"][people] + rng.standard_normal(len(people))
    doubled = np.argsort(-wish)[: round(overlap / (2.0 - overlap) * len(people))]
    if len(doubled):
        second = _another(chances, cell[doubled], first[doubled], rng)
    person = np.concatenate([people, people[doubled]])
    institution = np.concatenate([first, second])
    order = rng.permutation(len(person))
    return Membership(person[order], institution[order])


def _chances(institutions: tuple[Institution, ...], mix: float) -> Floats:
    """Return cumulative chances of each institution, [cells, institutions], a cell being a region and a quarter of affluence."""
    weight = np.log([item.weight for item in institutions])
    pull = np.array([item.pull for item in institutions])
    home = np.array([item.region for item in institutions])
    near = 2.0 * mix * (home[None, :] == np.arange(len(REGIONS))[:, None])
    logits = weight + near[:, None, :] + pull * _MIDDLES[None, :, None]
    chances = np.exp(logits - logits.max(axis=2, keepdims=True)).reshape(-1, len(institutions))
    cumulative: Floats = np.cumsum(chances / chances.sum(axis=1, keepdims=True), axis=1)
    return cumulative


def _choose(cumulative: Floats, cell: Ints, rng: np.random.Generator) -> Ints:
    chosen = np.empty(len(cell), dtype=np.int64)
    draws = rng.random(len(cell))
    for number, row in enumerate(cumulative):
        mine = cell == number
        chosen[mine] = np.searchsorted(row[:-1], draws[mine])
    return chosen


def _another(cumulative: Floats, cell: Ints, first: Ints, rng: np.random.Generator) -> Ints:
    """Choose again until it is another; who finds none in sixteen tries takes any other at random."""
    second = first.copy()
    for _ in range(16):
        same = np.flatnonzero(second == first)
        if not len(same):
            return second
        second[same] = _choose(cumulative, cell[same], rng)
    same = np.flatnonzero(second == first)
    count = cumulative.shape[1]
    second[same] = (first[same] + rng.integers(1, count, len(same))) % count
    return second


def _fill(chosen: Ints, count: int) -> Ints:
    """Give each institution without a customer one of the largest's."""
    sizes = np.bincount(chosen, minlength=count)
    for empty in np.flatnonzero(sizes == 0).tolist():
        largest = int(sizes.argmax())
        chosen[np.flatnonzero(chosen == largest)[0]] = empty
        sizes[largest] -= 1
        sizes[empty] += 1
    return chosen
