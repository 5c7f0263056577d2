"""What a shop knows of its customers: columns of the contract `population_shop`, from their purchases and their traits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulations.population.banks import Customers
from simulations.population.chance import at_rate, choose, happens
from simulations.population.membership import STYLES, Institution, Style
from simulations.population.purchases import (
    RHYTHMS,
    WINDOW_DAYS,
    Buyers,
    Fates,
    Log,
    Summary,
    draw_purchases,
    summarise,
)
from simulations.population.traits import Floats, Traits, age_of, blend, standing

Ints = NDArray[np.int64]

CHANNELS = ("store", "web", "app")
SHARE_NEWSLETTER = 0.45

_BLOCK = 200_000
_FRONT = 1.7
"""Exponent on when customers came: above 1, more came early, as the first purchases of Online Retail II do."""


@dataclass(frozen=True, eq=False)
class Shoppers:
    """Shop customers before the campaign: columns, whether they lapsed (int8 [n]) with its chance, and the log."""

    customers: Customers
    lapsed: NDArray[np.int8]
    lapse: Floats
    log: Log


def draw_shop(
    traits: Traits, region: Ints, institution: Ints, shops: tuple[Institution, ...], rng: np.random.Generator
) -> Shoppers:
    """Draw the columns and purchases of n shop customers.

    Parameters
    ----------
    traits, region:
        float64 [n] by name, and int64 [n].
    institution:
        int64 [n], places in `shops`.
    """
    n = len(region)
    newsletter = happens(at_rate(0.6 * traits["engagement"] + 0.2 * traits["attachment"], SHARE_NEWSLETTER), rng)
    summary, gone, lapse, log = _buy(traits, newsletter, institution, shops, rng)
    typical = np.array([typical_purchase(shop) for shop in shops])
    age = age_of(traits["age"])
    old, digital = (age - 40.0) / 10.0, traits["digital"]
    channel = choose([0.2 + 0.3 * old - 0.6 * digital, 0.5 + np.zeros(n), 0.1 - 0.2 * old + 0.8 * digital], rng)
    bargain = expit(-1.2 + 0.9 * traits["price_sensitivity"] + 0.6 * rng.standard_normal(n))
    looks = np.exp(0.4 + 0.45 * traits["engagement"] + 0.3 * digital) * np.where(gone, 0.65, 1.0)
    returned = expit(-2.9 - 0.5 * traits["attachment"] + 0.5 * rng.standard_normal(n))
    numbers = {
        "age": age,
        "recency": summary.recency,
        "frequency": summary.frequency,
        "monetary": np.round(summary.amount / typical[institution], 3),
        "tenure": summary.tenure,
        "recent": summary.recent,
        "discount_share": np.round(bargain, 2),
        "return_share": np.round(rng.binomial(summary.frequency.astype(np.int64), returned) / summary.frequency, 3),
        "visits": rng.poisson(looks * rng.gamma(2.0, 0.5, n)).astype(np.float64),
        "complaints": rng.poisson(np.exp(-2.0 - 0.6 * traits["attachment"])).astype(np.float64),
    }
    app = happens(at_rate(1.2 * digital + 1.5 * (channel == CHANNELS.index("app")), 0.35), rng)
    flags = {"newsletter": newsletter, "app": app}
    codes = {"region": region.astype(np.int8), "channel": channel}
    made = Customers(
        numbers,
        flags,
        codes,
        churn=np.zeros(n),
        subscribe=_subscribe(traits, numbers, app),
        respond=0.5 * traits["engagement"] + 0.35 * np.log1p(numbers["recent"]) + 0.2 * newsletter,
        persuade=_persuade(traits, newsletter, numbers["recency"]),
    )
    return Shoppers(made, summary.lapsed, lapse, log)


def typical_purchase(shop: Institution) -> float:
    """Return what a shop declares as its typical purchase: money, public, two significant digits."""
    return float(f"{RHYTHMS[_style(shop)].typical * shop.price_level:.2g}")


def _style(shop: Institution) -> Style:
    assert shop.style is not None
    return shop.style


def _buy(
    traits: Traits,
    newsletter: NDArray[np.int8],
    institution: Ints,
    shops: tuple[Institution, ...],
    rng: np.random.Generator,
) -> tuple[Summary, NDArray[np.bool_], Floats, Log]:
    """Draw purchases style by style and block by block, which bounds the memory, and put them together in order of customer."""
    n = len(institution)
    buyers, level = _buyers(traits, newsletter, institution, shops, rng)
    style = np.array([STYLES.index(_style(shop)) for shop in shops])[institution] if n else np.zeros(0, dtype=np.int64)
    parts: list[tuple[Ints, Log, Fates]] = []
    for place, mine in _blocks(style):
        log, fates = draw_purchases(_of(buyers, mine), STYLES[place], level[mine], rng)
        parts.append((mine, log, fates))
    gone, lapse = np.zeros(n, dtype=np.bool_), np.zeros(n)
    for mine, _, fates in parts:
        gone[mine], lapse[mine] = fates.gone, fates.lapse
    log = _joined([(mine, log) for mine, log, _ in parts])
    return summarise(log, n), gone, lapse, log


def _blocks(style: Ints) -> Iterator[tuple[int, Ints]]:
    for place in range(len(STYLES)):
        mine = np.flatnonzero(style == place)
        for start in range(0, len(mine), _BLOCK):
            yield place, mine[start : start + _BLOCK]


def _joined(parts: list[tuple[Ints, Log]]) -> Log:
    none = np.zeros(0, dtype=np.int64)
    customer = np.concatenate([none, *(mine[log.customer] for mine, log in parts)])
    order = np.argsort(customer, kind="stable")
    day = np.concatenate([none, *(log.day for _, log in parts)])[order]
    amount = np.concatenate([np.zeros(0), *(log.amount for _, log in parts)])[order]
    return Log(customer[order], day, amount)


def _buyers(
    traits: Traits,
    newsletter: NDArray[np.int8],
    institution: Ints,
    shops: tuple[Institution, ...],
    rng: np.random.Generator,
) -> tuple[Buyers, Floats]:
    """Turn traits into standings; whom prices move leaves a shop sooner where no newsletter tells of offers."""
    shift = np.array([shop.shift for shop in shops])[institution]
    early = standing(blend(traits, {"tenure": 0.9}, rng))
    buyers = Buyers(
        pace=_centred(blend(traits, {"engagement": 0.75, "digital": 0.15}, rng)),
        loss=_centred(blend(traits, {"attachment": -0.55, "price_sensitivity": 0.25}, rng)),
        size=_centred(blend(traits, {"affluence": 0.5, "engagement": 0.2, "price_sensitivity": -0.15}, rng)),
        hurry=np.exp(-0.4 * shift),
        leak=np.exp(0.3 * traits["price_sensitivity"] * (1.0 - newsletter) + 0.4 * shift),
        entry=np.floor(WINDOW_DAYS * (1.0 - early) ** _FRONT),
    )
    return buyers, np.array([shop.price_level for shop in shops])[institution]


def _centred(score: Floats) -> Floats:
    """Measure a standing among the shops' customers, who are a little more engaged than people at large."""
    return score - score.mean() if len(score) else score


def _of(buyers: Buyers, mine: Ints) -> Buyers:
    return Buyers(
        pace=buyers.pace[mine],
        loss=buyers.loss[mine],
        size=buyers.size[mine],
        hurry=buyers.hurry[mine],
        leak=buyers.leak[mine],
        entry=buyers.entry[mine],
    )


def _subscribe(traits: Traits, numbers: dict[str, Floats], app: NDArray[np.int8]) -> Floats:
    """Return the logit of taking the shop's card: regular customers, in the app above all, and what nobody sees."""
    return np.asarray(
        0.55 * np.log(numbers["frequency"])
        + 0.3 * np.log1p(numbers["visits"])
        - 0.0025 * numbers["recency"]
        + 0.6 * app
        + 0.35 * traits["affluence"] * app
        - 0.35 * numbers["complaints"]
        + 0.6 * traits["persuadability"]
        + 0.3 * traits["attachment"]
    )


def _persuade(traits: Traits, newsletter: NDArray[np.int8], recency: Floats) -> Floats:
    """Return how much a contact moves the logit of a response; those long gone, and those who get mail already, are moved less."""
    return np.asarray(
        0.6 * traits["persuadability"]
        + 0.3 * traits["attachment"]
        + 0.35 * traits["price_sensitivity"]
        - 0.4 * newsletter
        - 0.6 * (recency > WINDOW_DAYS / 4)
    )
