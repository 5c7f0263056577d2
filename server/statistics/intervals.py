"""Intervals of quotients and differences of noisy sums.

A noisy sum is normal with a known variance. Sources:

- quotient: E. C. Fieller, Journal of the Royal Statistical Society B 16 (1954) 175-185;
- share of a sample from a population: Fieller's equation with the binomial variance at the share that is tried, which without noise is
  E. B. Wilson's, Journal of the American Statistical Association 22 (1927) 209-212;
- difference: R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10, which for any two independent estimates is
  G. Y. Zou and A. Donner's, Statistics in Medicine 27 (2008) 1693-1702.
"""

import math
from dataclasses import dataclass
from typing import Literal

Population = Literal["none", "share"]


@dataclass(frozen=True)
class Span:
    """An estimate and the ends of its interval; all None where the noise leaves nothing to say."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return self.value is not None

    @property
    def beside_zero(self) -> bool:
        """Whether the whole interval lies above zero, or below."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def clipped(self, low: float = -math.inf, high: float = math.inf) -> "Span":
        """Return it cut to what is possible."""
        cut = [None if item is None else min(max(item, low), high) for item in (self.value, self.low, self.high)]
        return Span(*cut)

    def with_value(self, value: float) -> "Span":
        """Return it with a value made consistent, and ends that contain it."""
        low = value if self.low is None else min(self.low, value)
        high = value if self.high is None else max(self.high, value)
        return Span(value, low, high)

    def times(self, factor: float, shift: float = 0.0) -> "Span":
        """Return factor x + shift of it; factor above 0."""
        moved = [None if item is None else factor * item + shift for item in (self.value, self.low, self.high)]
        return Span(*moved)


NOTHING = Span(None, None, None)


@dataclass(frozen=True)
class Ratio:
    """The parts of a quotient a / b of noisy sums.

    Attributes
    ----------
    a, b:
        The sums.
    vaa, vab, vbb:
        Variances and covariance of their noise.
    """

    a: float
    b: float
    vaa: float
    vab: float
    vbb: float

    @classmethod
    def of_part(cls, part: float, rest: float, first: float, second: float) -> "Ratio":
        """Return part / (part + rest) of two independent sums with noise variances `first` and `second`."""
        return cls(part, part + rest, first, first, first + second)

    def span(self, z: float, population: Population = "none") -> Span:
        """Return the quotient and Fieller's interval; NOTHING where b cannot be told from zero.

        `population` "share" adds b q (1 - q), the variance of so many of b drawn from a population where the share is q.
        """
        square = z * z
        drawn = max(self.b, 0.0) if population == "share" else 0.0
        if self.b <= 0 or self.b * self.b <= square * self.vbb:
            return NOTHING
        lead = self.b * self.b - square * (self.vbb - drawn)
        half = self.a * self.b - square * (self.vab - 0.5 * drawn)
        last = self.a * self.a - square * self.vaa
        root = math.sqrt(max(half * half - lead * last, 0.0))
        value = self.a / self.b
        return Span(value, min((half - root) / lead, value), max((half + root) / lead, value))


def share(part: float, rest: float, first: float, second: float, z: float, population: Population = "none") -> Span:
    """Return part / (part + rest) within [0, 1], of two independent sums with noise variances `first` and `second`."""
    return Ratio.of_part(part, rest, first, second).span(z, population).clipped(0.0, 1.0)


def around(value: float, sd: float, z: float) -> Span:
    """Return a normal estimate with its interval."""
    return Span(value, value - z * sd, value + z * sd)


def amount(value: float, sd: float, z: float, processed: float | None = None) -> Span:
    """Return a noisy count with its interval, cut at zero; `processed` is the value to show, else the count itself, cut at zero."""
    return around(value, sd, z).with_value(max(value, 0.0) if processed is None else processed).clipped(low=0.0)


def difference(first: Span, second: Span) -> Span:
    """Return first - second of two independent estimates: each end by the distances of the ends that matter there."""
    if first.value is None or second.value is None:
        return NOTHING
    assert first.low is not None and first.high is not None and second.low is not None and second.high is not None
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Span(value, value - below, value + above)
