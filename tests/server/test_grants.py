"""A grant counts only if it is signed by its member and says what charter and spec say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.messages import Refusal, SecureGrant, pack
from federation.networks import build, weights_of
from federation.study import AdditiveModel, LogisticModel, StudySpec
from privacy.accounting import calibrate_sensitivity
from privacy.secure_aggregation.quantisation import rounding_of
from server.derivation import dimension_of
from server.exchange import Failure
from server.grants import SignedGrant, accept_grant
from server.planning import declared_sizes, sign_study
from tests.server.fakes import FakeFederation, contract, draft, key_of, refuse, short
from tests.server.secure.vaults import priced

FEDERATION = FakeFederation.make(Path("unused"))
VAULT = FEDERATION.vaults["beta"]


def spec(**changes: object) -> StudySpec:
    charter, study = FEDERATION.charter, draft(**changes)
    training = short()(study, declared_sizes(charter, "shoppers"), contract())
    return sign_study(study, charter, contract(), training, "0" * 32, key_of("coordinator")).spec


def verdict(changes: dict[str, object], asked: StudySpec, signer: str = "beta") -> SignedGrant | Failure:
    return accept_grant(pack(key_of(signer), VAULT.grant(asked, **changes)), "beta", asked, FEDERATION.charter)


def test_what_was_offered_is_accepted_with_its_signature() -> None:
    asked = spec()
    accepted = verdict({}, asked)
    assert isinstance(accepted, SignedGrant)
    assert accepted.grant == VAULT.grant(asked) and accepted.signature.key == FEDERATION.charter.member("beta").key


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"study": "0" * 64}, "study"),
        ({"member": "alpha"}, "member"),
        ({"declared_size": 2001}, "declared_size"),
        ({"sampling_rate": 0.49}, "sampling_rate"),
        ({"steps": 5}, "steps"),
        ({"epsilon": 0.81}, "epsilon"),
        ({"delta": 1.0e-5}, "delta"),
    ],
)
def test_a_grant_for_something_else_is_not_accepted(changes: dict[str, object], field: str) -> None:
    found = verdict({"epsilon": 0.8, **changes}, spec(epsilon=0.8))
    assert isinstance(found, Failure) and found.code == "CSL-S304" and field in found.reason


@given(epsilon=st.floats(0.01, 4.0))
def test_a_policy_may_grant_less_than_was_asked_and_never_more(epsilon: float) -> None:
    assert isinstance(verdict({"epsilon": epsilon}, spec(epsilon=2.0)), SignedGrant) == (epsilon <= 2.0)


def test_refusals_and_strangers() -> None:
    asked = spec()
    assert verdict({}, asked, signer="alpha").code == "CSL-S207"
    refused = refuse(VAULT, None, None)
    assert accept_grant(refused, "beta", asked, FEDERATION.charter).code == "CSL-S206"
    assert accept_grant(refused, "alpha", asked, FEDERATION.charter).code == "CSL-S207"
    another = pack(key_of("beta"), Refusal(member="alpha"))
    assert accept_grant(another, "beta", asked, FEDERATION.charter).code == "CSL-S207"


SECURE = {"aggregation": "secure", "n_min": 3, "c": 0}
GRANTED = SecureGrant(sensitivity=500.0, dimension=9, histogram_scale=40)


def secure_verdict(
    secure: SecureGrant | None, asked: StudySpec, dimension: int | None = 9, **changes: object
) -> SignedGrant | Failure:
    terms: dict[str, object] = {"secure": secure}
    if secure is not None and asked.secure is not None:
        terms = priced(secure, asked.secure)
    answer = pack(key_of("beta"), VAULT.grant(asked, **terms | changes))
    return accept_grant(answer, "beta", asked, FEDERATION.charter, dimension)


def test_a_secure_study_is_granted_in_grid_units_and_a_plain_one_is_not() -> None:
    accepted = secure_verdict(GRANTED, spec(**SECURE))
    assert isinstance(accepted, SignedGrant) and accepted.grant.secure == GRANTED
    for secure, asked in ((None, spec(**SECURE)), (GRANTED, spec())):
        found = secure_verdict(secure, asked)
        assert isinstance(found, Failure) and found.code == "CSL-S304" and "aggregation" in found.reason


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dimension": 8}, "dimension"),
        ({"dimension": 10}, "dimension"),
        ({"sensitivity": 2.0 * rounding_of(9) - 1e-6}, "sensitivity"),
    ],
)
def test_a_secure_grant_that_no_sum_could_use_is_not_accepted(changes: dict[str, object], field: str) -> None:
    found = secure_verdict(GRANTED.model_copy(update=changes), spec(**SECURE))
    assert isinstance(found, Failure) and found.code == "CSL-S304" and field in found.reason
    assert isinstance(
        secure_verdict(GRANTED.model_copy(update={"sensitivity": 2.0 * rounding_of(9)}), spec(**SECURE)), SignedGrant
    )


@pytest.mark.parametrize(
    ("secure", "changes", "field"),
    [
        ({"sensitivity": 1e6}, {}, "sensitivity"),
        ({"sensitivity": 20_000.0}, {}, "(sensitivity)"),
        ({"histogram_scale": 1}, {}, "(histogram_scale)"),
        ({"histogram_scale": 20_000}, {}, "(histogram_scale)"),
        ({"histogram_scale": 1_000_000}, {}, "histogram_scale"),
        ({}, {"noise_multiplier": 30.0}, "(noise_multiplier)"),
        ({}, {"histogram_sigma": 2.0}, "(histogram_sigma)"),
        ({}, {"epsilon": 1e-3}, "(sensitivity, histogram_scale)"),
    ],
)
def test_a_secure_grant_costs_what_it_says(secure: dict[str, object], changes: dict[str, object], field: str) -> None:
    found = secure_verdict(GRANTED.model_copy(update=secure), spec(**SECURE), **changes)
    assert isinstance(found, Failure) and found.code == "CSL-S304" and field in found.reason


def test_what_a_vault_prices_is_accepted_to_the_last_customer() -> None:
    """The largest sensitivities within the terms, as a vault grants them, and not one hundredth more."""
    asked = spec(**SECURE)
    assert asked.secure is not None
    plan, training = asked.secure, asked.training
    part, scale = (
        calibrate_sensitivity(1.0, 5e-6, rate, steps, sigma=plan.sigma, dimension=dimension, members=plan.bearers)
        for rate, steps, dimension in ((training.sampling_rate, training.steps, 9), (1.0, 1, 128))
    )
    terms = {"epsilon": 1.0, "delta": 5e-6}
    granted = SecureGrant(sensitivity=part, dimension=9, histogram_scale=int(scale))
    assert isinstance(secure_verdict(granted, asked, **terms), SignedGrant)
    for changes in ({"sensitivity": part * 1.01}, {"histogram_scale": int(scale * 1.01)}):
        assert isinstance(secure_verdict(granted.model_copy(update=changes), asked, **terms), Failure)


def test_the_dimension_is_that_of_the_models_tensors() -> None:
    for model in (LogisticModel(kind="logistic"), AdditiveModel()):
        weights = weights_of(build(model, contract()))
        assert dimension_of(model, contract()) == sum(value.size for value in weights.values())
