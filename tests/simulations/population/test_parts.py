"""Traits, chances, membership and purchases, each by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from simulations.population.chance import at_rate, choose, forget, happens, intercept
from simulations.population.membership import Membership, divide, draw_regions, enrol, found
from simulations.population.parameters import PopulationParameters
from simulations.population.purchases import DAYS, RHYTHMS, WINDOW_DAYS, Buyers, draw_purchases, summarise
from simulations.population.traits import HIDDEN, LOCAL, TRAITS, at_institution, blend, correlation, draw_traits


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_traits_have_the_correlation_that_is_documented() -> None:
    assert np.linalg.eigvalsh(correlation()).min() > 0.05
    drawn = draw_traits(100_000, rng())
    assert np.abs(np.corrcoef([drawn[name] for name in TRAITS]) - correlation()).max() < 0.015
    assert set(HIDDEN) <= set(TRAITS)


@pytest.mark.parametrize("consistency", [0.0, 0.4, 1.0])
def test_one_person_at_two_institutions(consistency) -> None:
    drawn = draw_traits(40_000, rng())
    everybody = np.arange(40_000)
    one, other = (at_institution(drawn, everybody, consistency, rng(seed)) for seed in (1, 2))
    for name in TRAITS:
        expected = consistency if name in LOCAL else 1.0
        assert np.corrcoef(one[name], other[name])[0, 1] == pytest.approx(expected, abs=0.02)
        assert one[name].std() == pytest.approx(1.0, abs=0.02)


def test_a_blend_is_standard_normal_and_refuses_too_much_weight() -> None:
    drawn = draw_traits(100_000, rng())
    mixed = blend(drawn, {"affluence": 0.6, "age": -0.3}, rng(8))
    assert mixed.std() == pytest.approx(1.0, abs=0.01)
    assert np.corrcoef(mixed, drawn["affluence"])[0, 1] == pytest.approx(0.6 - 0.3 * 0.25, abs=0.01)
    with pytest.raises(AssertionError):
        blend(drawn, {"affluence": 0.9, "age": 0.9}, rng())


@given(st.floats(0.0, 1.0), st.integers(1, 200), st.integers(0, 1000))
def test_chances_have_the_mean_that_is_asked_for(rate, n, seed) -> None:
    logit = 3.0 * rng(seed).standard_normal(n)
    chance = at_rate(logit, rate)
    assert chance.mean() == pytest.approx(rate, abs=1e-5)
    assert (np.argsort(chance, kind="stable") == np.argsort(expit(logit + intercept(logit, rate)), kind="stable")).all()


def test_nobody_has_no_chance() -> None:
    assert intercept(np.zeros(0), 0.3) == 0.0
    assert at_rate(np.zeros(0), 0.3).shape == (0,)


def test_draws_follow_their_chances() -> None:
    n = 50_000
    assert happens(np.full(n, 0.3), rng()).mean() == pytest.approx(0.3, abs=0.01)
    chosen = choose([np.zeros(n), np.full(n, np.log(2.0)), np.zeros(n)], rng())
    assert np.bincount(chosen) / n == pytest.approx([0.25, 0.5, 0.25], abs=0.01)
    forgotten = forget(np.ones(n, dtype=np.int8), 0.1, rng())
    assert (forgotten == -1).mean() == pytest.approx(0.1, abs=0.01)


def enrolled(parameters: PopulationParameters, seed: int) -> tuple[Membership, int]:
    traits = draw_traits(parameters.customers, rng(seed))
    people = divide(traits, parameters, rng(seed + 1))["bank"]
    banks = found("bank", parameters, rng(seed + 2))
    region = draw_regions(parameters.customers, rng(seed + 3))
    return enrol(people, traits, region, banks, parameters, rng(seed + 4)), len(people)


@settings(max_examples=60)
@given(
    st.integers(1, 12),
    st.integers(0, 6),
    st.integers(0, 400),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 3),
    st.integers(0, 99),
)
def test_everybody_is_somewhere_and_nobody_twice(banks, shops, more, overlap, across, share, skew, seed) -> None:
    parameters = PopulationParameters(
        customers=banks + shops + more,
        banks=banks,
        shops=shops,
        overlap=overlap,
        across=across,
        bank_share=share,
        skew=skew,
    )
    people = divide(draw_traits(parameters.customers, rng(seed)), parameters, rng(seed + 1))
    assert set(people["bank"]) | set(people["shop"]) == set(range(parameters.customers))
    assert len(set(people["bank"])) == len(people["bank"]) >= banks
    assert len(set(people["shop"])) == len(people["shop"]) >= shops
    where, count = enrolled(parameters, seed)
    assert len(set(zip(where.person.tolist(), where.institution.tolist(), strict=True))) == len(where.person)
    assert len(set(where.person.tolist())) == count
    assert set(where.institution.tolist()) == set(range(banks))
    wanted = overlap if banks > 1 else 0.0
    doubled = round(wanted / (2 - wanted) * count)
    assert len(where.person) == count + doubled


def test_region_and_affluence_decide_only_if_they_are_to() -> None:
    spread = {}
    for mix in (0.0, 1.0):
        parameters = PopulationParameters(customers=30_000, banks=6, shops=0, mix=mix, overlap=0.0)
        traits = draw_traits(30_000, rng(2))
        region = draw_regions(30_000, rng(3))
        banks = found("bank", parameters, rng(4))
        where = enrol(np.arange(30_000), traits, region, banks, parameters, rng(5))
        affluence = traits["affluence"][where.person]
        spread[mix] = np.std([affluence[where.institution == place].mean() for place in range(6)])
    assert spread[0.0] < 0.05 < 0.15 < spread[1.0]


def buyers(n: int, entry: float | None = None) -> Buyers:
    draws = rng(3).standard_normal((3, n))
    when = np.floor(WINDOW_DAYS * rng(4).random(n)) if entry is None else np.full(n, entry)
    return Buyers(draws[0], draws[1], draws[2], np.ones(n), np.ones(n), when)


@pytest.mark.parametrize("style", ["occasional", "regular"])
def test_purchases_are_those_of_a_walk_from_one_to_the_next(style) -> None:
    """The exact draw against a slow one: the number of purchases has the same distribution."""
    n, rhythm = 30_000, RHYTHMS[style]
    log, _ = draw_purchases(buyers(n, entry=0.0), style, np.ones(n), rng())
    counts = np.bincount(log.customer, minlength=n)
    slow = rng(11)
    rates, drops = slow.gamma(rhythm.r, 1.0 / rhythm.alpha, n), slow.beta(rhythm.a, rhythm.b, n)
    walked = np.ones(n, dtype=np.int64)
    time, active = np.zeros(n), np.ones(n, dtype=bool)
    for _ in range(400):
        time = time + slow.exponential(1.0, n) / np.maximum(rates, 1e-12)
        active &= time < DAYS / 7.0
        walked += active
        active &= slow.random(n) >= drops
    for most in (1, 2, 5, 10):
        assert (counts <= most).mean() == pytest.approx((walked <= most).mean(), abs=0.012)


def test_the_summary_counts_what_the_log_holds() -> None:
    n = 500
    log, fates = draw_purchases(buyers(n), "regular", np.ones(n), rng())
    summary = summarise(log, n)
    for customer in range(n):
        days = log.day[log.customer == customer]
        before = days[days < WINDOW_DAYS]
        assert (np.diff(days) > 0).all()
        assert summary.frequency[customer] == len(before) > 0
        assert summary.recency[customer] == WINDOW_DAYS - before[-1]
        assert summary.tenure[customer] == WINDOW_DAYS - before[0]
        assert summary.recent[customer] == (before >= WINDOW_DAYS - 90).sum()
        assert summary.lapsed[customer] == (len(before) == len(days))
        spent = log.amount[log.customer == customer][: len(before)]
        assert summary.amount[customer] == pytest.approx(spent.mean())
    assert (summary.lapsed[fates.gone] == 1).all()
    assert summary.lapsed.mean() == pytest.approx(fates.lapse.mean(), abs=0.05)
