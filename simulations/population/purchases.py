"""How customers buy: gamma-mixed Poisson purchases with beta-mixed dropout, and amounts that are lognormal within and between customers.

The process is that of Fader, Hardie and Lee 2005 (BG/NBD, section 3): while active, a customer buys at rate lambda ~ gamma(r, alpha), and
after each purchase but the first becomes inactive with probability p ~ beta(a, b). It is drawn exactly, without a walk from purchase to
purchase: the k-th purchase, after which the customer is gone, has k geometric and falls at t ~ gamma(k) / lambda; given t, the purchases
before it are uniform on [0, t], so that as many as a binomial says fall into what is observed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, ndtr

from simulations.population.membership import Style
from simulations.population.traits import Floats

Ints = NDArray[np.int64]

WINDOW_DAYS = 728
HORIZON_DAYS = 180
RECENT_DAYS = 90
DAYS = WINDOW_DAYS + HORIZON_DAYS

_TABLE = np.linspace(-6.0, 6.0, 2001)
_DAYS_A_WEEK = 7.0
_SLOWEST, _STICKIEST = 1e-9, 1e-6


@dataclass(frozen=True)
class Rhythm:
    """How customers of one style of shop buy.

    Attributes
    ----------
    r, alpha, a, b:
        Parameters of the purchase process, in weeks.
    median, between, within:
        Median amount of a day of purchase (money), and the standard deviations of its log between customers and within one.
    typical:
        The purchase that such a shop declares as typical: public and round.
    """

    r: float
    alpha: float
    a: float
    b: float
    median: float
    between: float
    within: float
    typical: float


RHYTHMS: Mapping[Style, Rhythm] = {
    "occasional": Rhythm(0.267, 6.6, 0.52, 2.11, median=26.0, between=0.52, within=0.57, typical=35.0),
    "regular": Rhythm(0.663, 9.03, 0.109, 2.42, median=275.0, between=0.82, within=0.66, typical=400.0),
}
"""By style of shop: `occasional` after CDNOW, `regular` after Online Retail II, the process by maximum likelihood (`sources.fit_rhythm`
repeats it: CDNOW 0.267, 5.99, 0.484, 2.11; Online Retail II 0.663, 9.03, 0.109, 2.42). CDNOW's alpha and a are raised by 10% and 7%,
because early customers of the population, unlike the fit's, are a little more engaged than others."""


@dataclass(frozen=True, eq=False)
class Buyers:
    """What decides the purchases of n customers of one style, float64 [n] each.

    `pace`, `loss` and `size` are standard normal: standing in purchase rate, dropout and amounts; `hurry` and `leak` are factors on rate
    and dropout; `entry` is the day of the first purchase, from 0 to the window's last.
    """

    pace: Floats
    loss: Floats
    size: Floats
    hurry: Floats
    leak: Floats
    entry: Floats


@dataclass(frozen=True, eq=False)
class Log:
    """Days of purchase, in order of customer and day: customer (place among the buyers) and day int64 [m], amount float64 [m] in money."""

    customer: Ints
    day: Ints
    amount: Floats


@dataclass(frozen=True, eq=False)
class Fates:
    """What only the simulation knows, of n customers: whether gone by the as-of date, and the chance of no purchase in the horizon."""

    gone: NDArray[np.bool_]
    lapse: Floats


def draw_purchases(buyers: Buyers, style: Style, level: Floats, rng: np.random.Generator) -> tuple[Log, Fates]:
    """Draw every day of purchase in [0, `DAYS`) and what became of the customers; `level` [n] is a factor on amounts."""
    rhythm, n = RHYTHMS[style], len(buyers.entry)
    rate = np.interp(buyers.pace, _TABLE, gammaincinv(rhythm.r, ndtr(_TABLE)) / rhythm.alpha) * buyers.hurry
    rate = np.maximum(rate, _SLOWEST)
    drop = np.interp(buyers.loss, _TABLE, betaincinv(rhythm.a, rhythm.b, ndtr(_TABLE))) * buyers.leak
    drop = np.clip(drop, _STICKIEST, 1.0 - _STICKIEST)
    weeks = (DAYS - buyers.entry) / _DAYS_A_WEEK
    last = rng.geometric(drop)
    end = rng.standard_gamma(last) / rate
    ended = end <= weeks
    reach = np.minimum(end, weeks)
    inner = np.where(ended, last - 1, rng.binomial(last - 1, reach / end))
    repeats = np.repeat(np.arange(n), inner)
    when = np.concatenate([np.zeros(n), reach[repeats] * rng.random(len(repeats)), end[ended]])
    who = np.concatenate([np.arange(n), repeats, np.flatnonzero(ended)])
    day = np.minimum((buyers.entry[who] + _DAYS_A_WEEK * when).astype(np.int64), DAYS - 1)
    key = np.unique(who * DAYS + day)
    customer, day = key // DAYS, key % DAYS
    mean = rhythm.median * level * np.exp(rhythm.between * buyers.size)
    amount = np.round(mean[customer] * np.exp(rhythm.within * rng.standard_normal(len(key))), 2)
    gone = buyers.entry + _DAYS_A_WEEK * end < WINDOW_DAYS
    lapse = np.where(gone, 1.0, np.exp(-rate * HORIZON_DAYS / _DAYS_A_WEEK))
    return Log(customer, day, np.maximum(amount, 0.01)), Fates(gone, lapse)


@dataclass(frozen=True, eq=False)
class Summary:
    """What the log says of n customers, float64 [n] each, from days before the as-of date; `lapsed`, int8, from those after it.

    Days for recency and tenure, days of purchase for frequency and recent, money for the mean amount.
    """

    recency: Floats
    frequency: Floats
    amount: Floats
    tenure: Floats
    recent: Floats
    lapsed: NDArray[np.int8]


def summarise(log: Log, n: int) -> Summary:
    """Count n customers' days of purchase; everybody's first lies before the as-of date."""
    before = log.day < WINDOW_DAYS
    counts = np.bincount(log.customer[before], minlength=n)
    start = np.searchsorted(log.customer, np.arange(n))
    spent = np.bincount(log.customer[before], weights=log.amount[before], minlength=n)
    recent = np.bincount(log.customer[before & (log.day >= WINDOW_DAYS - RECENT_DAYS)], minlength=n)
    later = np.bincount(log.customer[~before], minlength=n)
    return Summary(
        recency=(WINDOW_DAYS - log.day[start + counts - 1]).astype(np.float64),
        frequency=counts.astype(np.float64),
        amount=spent / counts,
        tenure=(WINDOW_DAYS - log.day[start]).astype(np.float64),
        recent=recent.astype(np.float64),
        lapsed=(later == 0).astype(np.int8),
    )
