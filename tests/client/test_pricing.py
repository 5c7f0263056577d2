"""What a grant for a secure study is worth: never more than the terms, hardly less, by the noise that surely counts."""

import math
import time

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from client.pricing import MOST_COUNTS, broken_epsilon, dimension_of, events_of, price_study
from federation.basis import Basis
from federation.charter import Declaration
from federation.errors import DocumentError, IntegrityError, PolicyError
from federation.study import AdditiveModel, HashHoldout, LogisticModel, SecurePlan, StudyDraft, StudySpec, Training
from privacy.accounting import epsilon
from privacy.decision import Terms
from privacy.events import DiscreteGaussianHistogram, SecureSum, SubsampledGaussian
from privacy.secure_aggregation.quantisation import rounding_of
from tests.client.vault_home import CONTRACT

DECLARED = Declaration(contract="shop", size=4000)
HOLDOUT = HashHoldout(kind="hash", share=0.25)
TRAINING = Training(mode="fedsgd", rounds=32, steps=32, sampling_rate=0.3)
DELTA = 1e-6


def plan(noise="shared", n_min=5, c=1, share=16_384.0):
    return SecurePlan(noise=noise, n_min=n_min, c=c, share=share)


def study(secure, training=TRAINING, model=None):
    words = (
        {} if secure is None else {"aggregation": "secure", "noise": secure.noise, "n_min": secure.n_min, "c": secure.c}
    )
    draft = StudyDraft(
        name="propensity",
        title="A study",
        purpose="marketing.propensity",
        contract="shop",
        model=model or AdditiveModel(),
        holdout=HOLDOUT,
        intended_use="Tests",
        limits="None",
        **words,
    )
    return StudySpec(
        draft=draft,
        federation="test",
        charter="a" * 64,
        contract_digest=CONTRACT.digest(),
        training=training,
        nonce="0" * 32,
        secure=secure,
    )


def terms(budget=1.0, floor=None, delta=DELTA):
    return Terms(
        policy="b" * 64,
        epsilon=budget,
        delta=delta,
        purpose="marketing.propensity",
        consent="profiling",
        contract="shop",
        holdout=HOLDOUT,
        declared_size=4000,
        floor=floor,
    )


def price(secure, budget=1.0, floor=None, training=TRAINING, model=None):
    return price_study(study(secure, training, model), "alder", DECLARED, terms(budget, floor), CONTRACT)


def spent(grant, secure):
    return {account: epsilon(events, DELTA) for account, events in events_of(grant, secure).items()}


def test_a_plain_study_is_priced_as_ever():
    grant = price(None)
    assert grant.secure is None and b"secure" not in grant.canonical()
    assert events_of(grant, None) == {
        "training": (SubsampledGaussian(noise_multiplier=grant.noise_multiplier, sampling_rate=0.3, steps=32),),
        "holdout": (DiscreteGaussianHistogram(sigma=grant.histogram_sigma, count=1),),
    }


@given(
    st.sampled_from(["shared", "local"]),
    st.tuples(st.integers(3, 40), st.integers(0, 37)).filter(lambda pair: pair[0] >= pair[1] + 3),
    st.floats(0.1, 8.0),
    st.none() | st.floats(0.1, 20.0),
    st.sampled_from([(1, 1.0), (8, 0.1), (32, 0.3), (150, 0.05)]),
)
@settings(max_examples=12, phases=[Phase.explicit, Phase.generate])  # shrinking would price hundreds
def test_a_secure_grant_takes_what_the_terms_allow_and_hardly_less(noise, sizes, budget, floor, run):
    secure = plan(noise, *sizes)
    training = Training(mode="fedsgd", rounds=run[0], steps=run[0], sampling_rate=run[1])
    grant = price(secure, budget, floor, training)
    most = math.inf if floor is None else floor
    price_of, alone = spent(grant, secure), broken_epsilon(grant, secure, DELTA)
    for account in ("training", "holdout"):
        assert price_of[account] <= budget
        assert alone[account] <= most
        assert alone[account] >= price_of[account]
        slack = 0.998 - (1.5 / grant.secure.histogram_scale if account == "holdout" else 0.0)
        assert price_of[account] >= slack * budget or alone[account] >= slack * most
        if noise == "local":
            assert alone[account] == price_of[account]


def test_the_numbers_of_a_grant_are_those_of_its_events():
    secure = plan()
    grant = price(secure)
    training, counts = (events[0] for events in events_of(grant, secure).values())
    assert isinstance(training, SecureSum) and isinstance(counts, SecureSum)
    assert (training.sigma, training.members) == (16_384.0 * 2.0, 4) == (counts.sigma, counts.members)
    assert (training.sensitivity, training.dimension) == (grant.secure.sensitivity, grant.secure.dimension)
    assert (training.steps, training.sampling_rate) == (32, 0.3)
    assert (counts.sensitivity, counts.steps, counts.sampling_rate) == (grant.secure.histogram_scale, 1, 1.0)
    assert counts.dimension == MOST_COUNTS >= 2 * 64
    assert grant.noise_multiplier == training.noise_multiplier
    assert grant.histogram_sigma == training.sigma / grant.secure.histogram_scale


@pytest.mark.parametrize("model", [AdditiveModel(), LogisticModel(kind="logistic")])
def test_the_dimension_is_that_of_the_model(model):
    grant = price(plan(), model=model)
    assert grant.secure.dimension == Basis.of(CONTRACT, model.kind).width + 1
    assert grant.secure.dimension == dimension_of(study(plan(), model=model), CONTRACT)


def test_colluders_noise_does_not_count():
    """Per member that may collude the noise is less by one share, and the part of a customer with it."""
    parts = {c: price(plan(n_min=10, c=c)).secure.sensitivity for c in range(8)}
    assert parts[0] == parts[1]  # oneself at least knows one's own noise
    for c in range(2, 8):
        assert parts[c] / parts[1] == pytest.approx(math.sqrt((10 - c) / 9), rel=2e-3)


def test_local_noise_counts_alone_whatever_the_others_add():
    assert price(plan("local", 10)) == price(plan("local", 40)).model_copy(
        update={"study": study(plan("local", 10)).digest()}
    )
    shared, local = price(plan("shared", 10)), price(plan("local", 10))
    assert shared.secure.sensitivity / local.secure.sensitivity == pytest.approx(3.0, rel=2e-3)


def test_what_holds_if_the_masks_broke_is_said_and_is_more():
    secure = plan(n_min=20, c=1)
    grant = price(secure, 1.0)
    alone = broken_epsilon(grant, secure, DELTA)
    assert 3.0 < alone["holdout"] < 10.0
    assert 3.0 < alone["training"] < 20.0
    by_hand = SecureSum(
        sigma=16_384.0,
        members=1,
        sensitivity=grant.secure.sensitivity,
        sampling_rate=0.3,
        steps=32,
        dimension=grant.secure.dimension,
    )
    assert alone["training"] == epsilon([by_hand], DELTA)


def test_the_figure_is_finite_where_no_distribution_describes_the_sums():
    secure = plan(n_min=200, c=1)
    grant = price(secure, 20.0)
    alone = broken_epsilon(grant, secure, DELTA)
    assert all(math.isfinite(value) and value >= 20.0 * 0.99 for value in alone.values())


def test_a_floor_takes_from_the_grant_only_where_it_is_lower():
    secure = plan(n_min=20)
    free, high, low = price(secure), price(secure, floor=50.0), price(secure, floor=2.0)
    assert high == free
    assert low.secure.sensitivity < free.secure.sensitivity and low.secure.histogram_scale < free.secure.histogram_scale
    assert all(1.9 < value <= 2.0 for value in broken_epsilon(low, secure, DELTA).values())


def test_a_budget_that_rounding_would_eat_is_refused():
    with pytest.raises(PolicyError) as caught:
        price(plan("local", share=200.0), budget=0.05)
    assert caught.value.code == "CSL-C490"


def test_a_plan_with_too_little_noise_to_be_priced_is_refused():
    with pytest.raises(DocumentError) as caught:
        price(plan("local", share=100.0))
    assert caught.value.code == "CSL-P108"


def test_a_grant_of_another_kind_than_its_study_is_no_price():
    secure = plan()
    for grant, other in ((price(secure), None), (price(None), secure)):
        with pytest.raises(IntegrityError) as caught:
            events_of(grant, other)
        assert caught.value.code == "CSL-C491"


def test_rounding_stays_a_small_part_of_an_ordinary_grant():
    grant = price(plan())
    assert rounding_of(grant.secure.dimension) < 0.01 * grant.secure.sensitivity


def test_a_price_is_found_in_good_time():
    secure = plan(n_min=16)
    start = time.process_time()
    price(secure, 1.37, floor=3.1)
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize("secure", [None, plan()])
def test_pairs_that_the_contract_does_not_have_are_refused_before_the_grant(secure):
    with pytest.raises(DocumentError, match="CSL-F420"):
        price(secure, model=AdditiveModel(pairs=(("age", "height"),)))
    assert price(secure, model=AdditiveModel(pairs=(("age", "loan"),))).declared_size == 4000
