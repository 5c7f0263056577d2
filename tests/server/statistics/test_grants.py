"""What members grant a statistics study counts only if it is signed, is for what was offered, and costs what it says."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.messages import Refusal, StatisticsGrant, pack
from federation.statistics import StatisticsDraft, StatisticsSpec
from privacy.accounting import epsilon as exact_epsilon
from privacy.events import SecureSum
from server.exchange import Failure
from server.statistics.grants import SignedStatisticsGrant, accept_statistics_grant, foreseen_sensitivity, price
from server.statistics.planning import sign_statistics
from tests.server.fakes import SIZES, FakeFederation, contract, key_of

FEDERATION = FakeFederation.make(Path("unused"))
MEMBER = "beta"
DELTA = 1.0 / (100 * SIZES[MEMBER])
SECURE: dict[str, object] = {"aggregation": "secure", "n_min": 4, "c": 1}
TERMS: list[dict[str, object]] = [{}, SECURE | {"noise": "local"}, SECURE | {"noise": "shared"}]


def spec(**changes: object) -> StatisticsSpec:
    tree: dict[str, object] = {
        "kind": "statistics",
        "name": "people",
        "title": "Who they are",
        "purpose": "marketing.analytics",
        "contract": "shoppers",
        "epsilon": 1.0,
        "queries": ({"id": "customers", "kind": "count"},),
    }
    asked = StatisticsDraft.model_validate(tree | changes)
    return sign_statistics(asked, FEDERATION.charter, contract(), "0" * 32, key_of("coordinator")).spec


def grant(asked: StatisticsSpec, **changes: object) -> StatisticsGrant:
    """What a vault grants that calibrates as it should."""
    target = changes.get("epsilon", asked.draft.epsilon or 1.0)
    assert isinstance(target, float)
    fields: dict[str, object] = {
        "study": asked.digest(),
        "member": MEMBER,
        "declared_size": SIZES[MEMBER],
        "epsilon": target,
        "delta": DELTA,
        "share": asked.plan.share,
        "sensitivity": foreseen_sensitivity(asked.plan, asked.secure, target, DELTA),
    }
    return StatisticsGrant(**(fields | changes))  # type: ignore[arg-type]


def verdict(asked: StatisticsSpec, given_: StatisticsGrant, signer: str = MEMBER) -> SignedStatisticsGrant | Failure:
    return accept_statistics_grant(pack(key_of(signer), given_), MEMBER, asked, FEDERATION.charter)


@pytest.mark.parametrize("terms", TERMS)
def test_what_was_offered_is_accepted_with_its_signature(terms):
    asked = spec(**terms)
    accepted = verdict(asked, grant(asked))
    assert isinstance(accepted, SignedStatisticsGrant), accepted
    assert (accepted.grant.member, accepted.grant.epsilon) == (MEMBER, 1.0)
    assert accepted.signature.key == FEDERATION.charter.member(MEMBER).key


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"study": "0" * 64}, "study"),
        ({"member": "alpha"}, "member"),
        ({"declared_size": SIZES[MEMBER] + 1}, "declared_size"),
        ({"share": 16_383.0}, "share"),
        ({"epsilon": 1.01}, "epsilon"),
        ({"delta": 2 * DELTA}, "delta"),
    ],
)
def test_a_grant_for_something_else_is_not_accepted(changes, field):
    asked = spec()
    found = verdict(asked, grant(asked).model_copy(update=changes))
    assert isinstance(found, Failure) and found.code == "CSL-S304" and field in found.reason


@pytest.mark.parametrize("terms", TERMS)
def test_a_grant_that_costs_more_than_it_says_is_not_accepted(terms):
    """It would set the scale for all others: one that is priced too low buys accuracy with somebody's privacy."""
    asked = spec(**terms)
    honest = grant(asked)
    for factor in (1.02, 1.5, 100.0):
        dear = honest.model_copy(update={"sensitivity": honest.sensitivity * factor})
        found = verdict(asked, dear)
        assert isinstance(found, Failure) and found.code == "CSL-S304" and "sensitivity" in found.reason
    cheap = honest.model_copy(update={"epsilon": honest.epsilon / 1.02})
    assert isinstance(verdict(asked, cheap), Failure)
    strict = honest.model_copy(update={"delta": honest.delta / 100.0})
    assert isinstance(verdict(asked, strict), Failure)


def test_less_than_was_asked_for_may_be_granted():
    asked = spec()
    assert isinstance(verdict(asked, grant(asked, epsilon=0.25)), SignedStatisticsGrant)
    open_ = spec(epsilon=None)
    assert isinstance(verdict(open_, grant(open_, epsilon=3.0)), SignedStatisticsGrant)


def test_who_declines_is_told_from_who_answers_nonsense():
    asked = spec()
    refusal = pack(key_of(MEMBER), Refusal(member=MEMBER))
    found = accept_statistics_grant(refusal, MEMBER, asked, FEDERATION.charter)
    assert isinstance(found, Failure) and found.code == "CSL-S206"
    other = pack(key_of(MEMBER), Refusal(member="alpha"))
    found = accept_statistics_grant(other, MEMBER, asked, FEDERATION.charter)
    assert isinstance(found, Failure) and found.code == "CSL-S207"


def test_a_grant_signed_by_another_is_not_accepted():
    asked = spec()
    found = verdict(asked, grant(asked), signer="alpha")
    assert isinstance(found, Failure) and found.code == "CSL-S207"


@settings(max_examples=10)
@given(target=st.sampled_from([0.05, 0.3, 1.0, 3.0]), terms=st.sampled_from(TERMS))
def test_what_is_foreseen_costs_what_was_asked_for_and_hardly_less(target, terms):
    asked = spec(**terms | {"epsilon": target})
    sensitivity = foreseen_sensitivity(asked.plan, asked.secure, target, DELTA)
    sigma, members = (asked.plan.share, 1) if asked.secure is None else (asked.secure.sigma, asked.secure.bearers)
    event = SecureSum(
        sigma=sigma,
        members=members,
        sensitivity=sensitivity,
        sampling_rate=1.0,
        steps=asked.plan.rounds,
        dimension=asked.plan.dimension,
    )
    cost = exact_epsilon([event], DELTA)
    assert 0.97 * target <= cost <= target * (1 + 1e-9)
    assert price(asked.plan, asked.secure, grant(asked, epsilon=target)) == cost


def test_a_grant_that_no_noise_pays_for_has_no_price():
    asked = spec()
    assert price(asked.plan, asked.secure, grant(asked).model_copy(update={"sensitivity": 1e6})) > 1.0
    broken = grant(asked).model_copy(update={"delta": 0.0})
    assert price(asked.plan, asked.secure, broken) == math.inf
