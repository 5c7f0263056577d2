"""Quotients, shares and differences of noisy sums: their intervals hold the truth as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.statistics.intervals import NOTHING, Ratio, Span, amount, difference, share
from tests.server.statistics.town import tolerance

Z = 1.959963984540054
DRAWS = 2000
SMALL = st.floats(-1e6, 1e6, allow_nan=False)


def _holds(span: Span, truth: float) -> bool:
    assert span.low is not None and span.high is not None and span.value is not None
    assert span.low <= span.value <= span.high
    return span.low - 1e-12 <= truth <= span.high + 1e-12


@pytest.mark.parametrize(("yes", "no", "sd"), [(500, 1500, 30.0), (40, 900, 15.0), (2000, 2000, 200.0)])
def test_share_holds_the_share_of_these_customers(yes: int, no: int, sd: float) -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(0.0, sd, (DRAWS, 2))
    held = [_holds(share(yes + a, no + b, sd**2, sd**2, Z), yes / (yes + no)) for a, b in noise.tolist()]
    assert abs(np.mean(held) - 0.95) <= tolerance(DRAWS)


@pytest.mark.parametrize(("rate", "size", "sd"), [(0.15, 2000, 10.0), (0.3, 800, 25.0), (0.5, 5000, 0.0)])
def test_share_of_a_population_holds_the_chance_behind_it(rate: float, size: int, sd: float) -> None:
    generator = np.random.default_rng(2)
    held = []
    for _ in range(DRAWS):
        yes = generator.binomial(size, rate)
        a, b = generator.normal(0.0, sd, 2) if sd else (0.0, 0.0)
        held.append(_holds(share(yes + a, size - yes + b, sd**2, sd**2, Z, "share"), rate))
    assert abs(np.mean(held) - 0.95) <= tolerance(DRAWS)


def test_without_noise_the_population_share_is_wilsons() -> None:
    span, n, p = share(30.0, 70.0, 0.0, 0.0, Z, "share"), 100, 0.3
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    assert span.low == pytest.approx(middle - half) and span.high == pytest.approx(middle + half)


@pytest.mark.parametrize("population", ["none", "share"])
def test_difference_of_rates_holds_the_truth(population: str) -> None:
    generator = np.random.default_rng(3)
    held = []
    for _ in range(DRAWS):
        drawn = [generator.binomial(1500, p) if population == "share" else round(1500 * p) for p in (0.2, 0.14)]
        noise = generator.normal(0.0, 12.0, 4)
        spans = [
            share(yes + noise[2 * i], 1500 - yes + noise[2 * i + 1], 144.0, 144.0, Z, population)  # type: ignore[arg-type]
            for i, yes in enumerate(drawn)
        ]
        held.append(_holds(difference(*spans), 0.06))
    assert abs(np.mean(held) - 0.95) <= tolerance(DRAWS)


def test_a_quotient_by_what_may_be_zero_says_nothing() -> None:
    assert Ratio(5.0, 10.0, 1.0, 0.0, 36.0).span(Z) == NOTHING
    assert Ratio(5.0, -10.0, 1.0, 0.0, 1.0).span(Z) == NOTHING
    assert share(0.0, 0.0, 0.0, 0.0, Z) == NOTHING
    assert difference(NOTHING, Span(1.0, 0.0, 2.0)) == NOTHING


@given(SMALL, SMALL, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_quotient_lies_in_its_interval(a: float, b: float, one: float, other: float) -> None:
    span = Ratio(a, b, one, 0.0, other).span(Z)
    if span.known:
        assert _holds(span, a / b)


@given(SMALL, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_count_is_never_below_zero_and_lies_in_its_interval(value: float, sd: float, shown: float) -> None:
    for span in (amount(value, sd, Z), amount(value, sd, Z, shown)):
        assert _holds(span, span.value or 0.0) and (span.low or 0.0) >= 0
