"""The filter: limits from a policy, integers at their edges, and what adaptive attackers can and cannot do, exactly."""

import math
import time
from collections.abc import Callable
from datetime import date
from functools import cache, lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import PolicyError
from privacy.accounting import epsilon
from privacy.cost import NOTHING, Bound, Cost, Filter, RdpFilter, TokenFilter, total
from privacy.events import DiscreteGaussianHistogram, DiscreteLaplaceHistogram, PrivacyEvent, SubsampledGaussian
from privacy.filter import (
    Limits,
    bound_of,
    check_fit,
    cost_epsilon,
    fits,
    left_epsilon,
    limits_of,
    price,
    recompute,
    run_epsilon,
)
from privacy.policy import Policy
from tests.privacy.random_events import MIXES

FILTERS: list[Filter] = [TokenFilter(), RdpFilter(kind="rdp", order=8)]
AMOUNTS = st.builds(Cost, nano=st.integers(0, 10**12), femto=st.integers(0, 10**12))


def limits(filter_: Filter, epsilon: float = 3.0, delta: float = 1e-5, **purposes: float) -> Limits:
    return Limits(
        issued=date(2026, 1, 1),
        expires=date(2027, 1, 1),
        filter=filter_,
        period_days=30,
        period=bound_of(filter_, epsilon, delta),
        life=bound_of(filter_, 3 * epsilon, delta),
        purposes={name: bound_of(filter_, value, delta) for name, value in purposes.items()},
    )


def gaussian(noise_multiplier: float, sampling_rate: float = 1.0, steps: int = 1) -> SubsampledGaussian:
    return SubsampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)


@given(MIXES, st.sampled_from(FILTERS), st.sampled_from([1e-5, 1e-6]))
@settings(max_examples=30)
def test_what_is_enforced_is_never_below_the_composition(
    runs: list[PrivacyEvent], filter_: Filter, delta: float
) -> None:
    """Runs are let in as the ledger does it; what was let in keeps to the budget, and to the figure that is shown."""
    budget = limits(filter_, 4.0, delta)
    spent, inside = NOTHING, list[PrivacyEvent]()
    for run in runs:
        cost = price((run,), budget)
        assert recompute((run,), cost, filter_) == cost
        if fits(budget.period, spent, cost):
            spent, inside = total([spent, cost]), [*inside, run]
    exact = epsilon(inside, delta)
    assert exact * (1 - 1e-3) <= cost_epsilon(filter_, spent, delta) <= budget.period.epsilon * (1 + 1e-9)
    assert exact <= budget.period.epsilon * (1 + 1e-3)


@given(AMOUNTS, AMOUNTS)
def test_admission_is_exact_in_both_coordinates(spent: Cost, cost: Cost) -> None:
    both = total([spent, cost])
    bound = Bound(epsilon=1.0, delta=1e-6, capacity=both)
    assert fits(bound, spent, cost)
    if both.nano:
        assert not fits(bound.model_copy(update={"capacity": Cost(nano=both.nano - 1, femto=both.femto)}), spent, cost)
    if both.femto:
        assert not fits(bound.model_copy(update={"capacity": Cost(nano=both.nano, femto=both.femto - 1)}), spent, cost)


def attack(target: float, unit: float, choices: tuple[int, ...], allowed: Callable[[tuple[int, ...]], bool]) -> float:
    """delta(target) of the worst attacker, exactly: randomised responses of losses choice x unit, each chosen, or none any
    more, after all answers so far, while `allowed` lets in how many there are of each."""

    @cache
    def value(counts: tuple[int, ...], loss: int) -> float:
        best = max(0.0, -math.expm1(target - loss * unit))
        for place, choice in enumerate(choices):
            after = tuple(count + (place == index) for index, count in enumerate(counts))
            if allowed(after):
                p = 1.0 / (1.0 + math.exp(-choice * unit))
                best = max(best, p * value(after, loss + choice) + (1 - p) * value(after, loss - choice))
        return best

    return value((0,) * len(choices), 0)


def composed(target: float, unit: float, choices: tuple[int, ...], counts: tuple[int, ...]) -> float:
    """delta(target) of a fixed list of randomised responses, exactly."""
    law = {0: 1.0}
    for choice, count in zip(choices, counts, strict=True):
        p = 1.0 / (1.0 + math.exp(-choice * unit))
        for _ in range(count):
            after: dict[int, float] = {}
            for loss, mass in law.items():
                after[loss + choice] = after.get(loss + choice, 0.0) + mass * p
                after[loss - choice] = after.get(loss - choice, 0.0) + mass * (1 - p)
            law = after
    return sum(mass * max(0.0, -math.expm1(target - loss * unit)) for loss, mass in law.items())


ATTACKS = [(2.1, 0.1, (1, 10), 1e-2), (2.1, 0.1, (1, 10), 1e-3), (2.1, 0.25, (1, 2, 4), 1e-2)]


@pytest.mark.parametrize(("target", "unit", "choices", "delta"), ATTACKS)
def test_composing_until_the_budget_is_reached_breaks_the_promise(
    target: float, unit: float, choices: tuple[int, ...], delta: float
) -> None:
    """Each list of studies that is let in keeps to (target, delta); who chooses by the answers gets a third more."""
    held = lru_cache(maxsize=None)(lambda counts: composed(target, unit, choices, counts) <= delta)
    assert attack(target, unit, choices, held) > 1.3 * delta


@pytest.mark.parametrize("filter_", [TokenFilter(), RdpFilter(kind="rdp", order=5)])
@pytest.mark.parametrize(("target", "unit", "choices", "delta"), ATTACKS)
def test_the_same_attackers_stay_within_the_filters(
    filter_: Filter, target: float, unit: float, choices: tuple[int, ...], delta: float
) -> None:
    budget = limits(filter_, target, delta)
    costs = [price((DiscreteLaplaceHistogram(scale=1.0 / (choice * unit), count=1),), budget) for choice in choices]
    most = bound_of(filter_, target, delta)

    def allowed(counts: tuple[int, ...]) -> bool:
        spent = total(cost for cost, count in zip(costs, counts, strict=True) for _ in range(count))
        return fits(most, NOTHING, spent)

    assert allowed((4, *(0 for _ in choices[1:])))
    assert attack(target, unit, choices, allowed) <= delta


def test_limits_come_from_the_policy(make_policy: Callable[[], Policy]) -> None:
    policy = make_policy()
    found = limits_of(policy)
    budget = policy.budget
    assert found == limits_of(policy)
    assert (found.issued, found.expires, found.period_days) == (policy.issued, policy.expires, budget.period.days)
    assert found.period == bound_of(budget.filter, budget.period.epsilon, budget.period.delta)
    assert found.life == bound_of(budget.filter, budget.life.epsilon, budget.life.delta)
    assert Limits.from_canonical(found.canonical()) == found


def test_a_purpose_has_a_budget_of_its_own() -> None:
    budget = limits(TokenFilter(), 3.0, 1e-5, churn=1.0)
    cost = price((gaussian(8.0),), budget)
    check_fit(budget, "training", "churn", NOTHING, NOTHING, NOTHING, cost)
    spent = Cost(nano=budget.purposes["churn"].capacity.nano - cost.nano + 1)
    check_fit(budget, "training", "other", spent, spent, spent, cost)
    with pytest.raises(PolicyError, match=r"training account's budget of 30 days for churn \(epsilon 1\)") as caught:
        check_fit(budget, "training", "churn", spent, spent, spent, cost)
    assert caught.value.code == "CSL-P412"


@pytest.mark.parametrize("filter_", FILTERS)
def test_refusals_name_the_budget_that_is_full(filter_: Filter) -> None:
    budget, cost = limits(filter_), Cost(nano=1000, femto=1000)
    full = {name: getattr(budget, name).capacity for name in ("period", "life")}
    for coordinate in ("nano", "femto"):
        for name, code in (("period", "CSL-P403"), ("life", "CSL-P404")):
            spent = {"period": NOTHING, "life": NOTHING} | {name: Cost(**{coordinate: getattr(full[name], coordinate)})}
            with pytest.raises(PolicyError) as caught:
                check_fit(budget, "holdout", "churn", spent["period"], spent["life"], NOTHING, cost)
            assert caught.value.code == code
            assert ("share of delta" in caught.value.cause) == (coordinate == "femto")


@pytest.mark.parametrize("filter_", FILTERS)
def test_what_is_left_is_a_study_that_fits(filter_: Filter) -> None:
    budget = limits(filter_)
    spent = price((gaussian(4.0, 0.1, 150),), budget)
    left = left_epsilon(filter_, budget.period, spent)
    assert 0.0 < left < left_epsilon(filter_, budget.period, NOTHING) <= budget.period.epsilon
    assert left_epsilon(filter_, budget.period, budget.period.capacity) == 0.0
    low, smallest = 0.5, 5.0
    while smallest - low > 0.005:
        middle = (low + smallest) / 2.0
        inside = fits(budget.period, spent, price((gaussian(middle),), budget))
        low, smallest = (low, middle) if inside else (middle, smallest)
    assert run_epsilon((gaussian(smallest),), budget.period.delta) == pytest.approx(left, rel=0.02)


def test_tokens_need_a_share_of_delta() -> None:
    bound = bound_of(TokenFilter(), 1.0, 1e-6)
    assert left_epsilon(TokenFilter(), bound, Cost(nano=0, femto=bound.capacity.femto - 9_999)) == 0.0
    assert left_epsilon(TokenFilter(), bound, Cost(nano=0, femto=bound.capacity.femto - 10_000)) > 0.9


def test_the_tightest_of_all_budgets_gives_the_share_of_delta() -> None:
    run = (gaussian(8.0),)
    wide, narrow = limits(TokenFilter()), limits(TokenFilter(), 3.0, 1e-5, churn=9.0)
    assert price(run, wide) == price(run, narrow) == price(run, narrow, "churn")
    strict = narrow.model_copy(update={"purposes": {"churn": bound_of(TokenFilter(), 2.0, 1e-7)}})
    assert price(run, strict, "churn").femto < price(run, wide).femto
    assert price(run, strict, "other") == price(run, wide)


def test_a_verifier_takes_the_recorded_share() -> None:
    run, budget = (gaussian(3.0, 0.1, 50), DiscreteGaussianHistogram(sigma=20.0, count=2)), limits(TokenFilter())
    cost = price(run, budget)
    other = recompute(run, Cost(nano=0, femto=2 * cost.femto), TokenFilter())
    assert other.femto == 2 * cost.femto and other.nano < cost.nano
    with pytest.raises(PolicyError, match="CSL-P109"):
        recompute(run, Cost(nano=cost.nano, femto=1), TokenFilter())


def test_pricing_is_fast_and_remembered() -> None:
    run, budget = (gaussian(2.345, 0.0678, 345),), limits(TokenFilter(), 2.9)
    start = time.perf_counter()
    cost = price(run, budget)
    assert time.perf_counter() - start < 2.0  # under 1 on a machine of its own; see benchmarks/accounting.py
    start = time.perf_counter()
    assert price(run, budget) == cost
    assert time.perf_counter() - start < 0.05
