"""A grant counts only if it is signed by its member and says what charter and spec say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.messages import Refusal, pack
from federation.study import StudySpec
from server.exchange import Failure
from server.grants import SignedGrant, accept_grant
from server.planning import declared_sizes, sign_study
from tests.server.fakes import FakeFederation, contract, draft, key_of, refuse, short

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
