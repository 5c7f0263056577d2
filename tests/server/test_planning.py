"""Drafts become studies only if charter and contract allow it, and plans follow from public numbers."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError
from federation.signing import verify
from federation.study import CONTEXT, AdditiveModel, HashHoldout, MlpModel, PositionHoldout, SecurePlan
from server.derivation import derive_training
from server.planning import check_draft, least_partners, plan_aggregation, problems_of, sign_study
from tests.server.fakes import SIZES, FakeFederation, contract, draft, key_of

SECURE = {"aggregation": "secure", "noise": "shared", "n_min": 4, "c": 1}
CHARTER = FakeFederation.make(Path("unused")).charter


def test_a_good_draft_has_no_problems_and_is_signed() -> None:
    assert problems_of(draft(), CHARTER, contract()) == []
    training = derive_training(draft(), SIZES, contract())
    signed = sign_study(draft(), CHARTER, contract(), training, "0" * 32, key_of("coordinator"))
    verify(signed.signature, CONTEXT, signed.spec, CHARTER.coordinator_key)
    assert signed.spec.charter == CHARTER.digest() and signed.spec.contract_digest == contract().digest()


def test_a_secure_draft_is_planned_with_noise_common_to_all() -> None:
    study = draft(**SECURE)
    assert problems_of(study, CHARTER, contract()) == []
    training = derive_training(study, SIZES, contract())
    plan = sign_study(study, CHARTER, contract(), training, "0" * 32, key_of("coordinator")).spec.secure
    assert plan == SecurePlan(noise="shared", n_min=4, c=1, share=16_384.0)
    assert plan_aggregation(draft()) is None


def test_the_stricter_of_both_numbers_of_partners_holds() -> None:
    assert least_partners(draft(min_partners=3)) == 3
    assert least_partners(draft(**SECURE, min_partners=3)) == 4
    assert least_partners(draft(**SECURE, min_partners=9)) == 9


@pytest.mark.parametrize(
    ("changes", "agreed", "words"),
    [
        ({"contract": "other"}, contract(), "pins no contract called other"),
        ({}, contract().model_copy(update={"version": 2}), "not the version"),
        ({"min_partners": 5}, contract(), "5 are needed, and 4 members"),
        ({**SECURE, "n_min": 5}, contract(), "n_min: a sum is opened over at least 5 members, and 4 declare customers"),
        ({"holdout": HashHoldout(kind="hash", share=0.6)}, contract(), "more than half"),
        (
            {"holdout": PositionHoldout(kind="position", position=9)},
            contract().model_copy(update={"source": "transactions"}),
            "no fixed position",
        ),
    ],
)
def test_every_problem_is_named(changes: dict[str, object], agreed: object, words: str) -> None:
    assert any(words in problem for problem in problems_of(draft(**changes), CHARTER, agreed))


def test_members_of_a_transaction_contract_need_dates() -> None:
    log = contract().model_copy(update={"source": "transactions"})
    undated = [
        member.model_copy(
            update={"declares": tuple(item.model_copy(update={"as_of": None}) for item in member.declares)}
        )
        for member in CHARTER.members
    ]
    charter = CHARTER.model_copy(update={"members": tuple(undated)})
    assert any("no as-of date is declared by alpha, beta" in problem for problem in problems_of(draft(), charter, log))


def test_all_problems_come_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        check_draft(
            draft(min_partners=9, holdout=HashHoldout(kind="hash", share=0.9), contract="other"), CHARTER, contract()
        )
    assert caught.value.code == "CSL-S101"
    assert all(word in caught.value.cause for word in ("min_partners", "holdout", "pins no contract", "5 problems"[2:]))


@settings(max_examples=40)
@given(
    sizes=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 10**6), min_size=1),
    mode=st.sampled_from(["fedsgd", "fedavg"]),
    model=st.sampled_from([AdditiveModel(), MlpModel(kind="mlp")]),
    epsilon=st.sampled_from([None, 0.5, 4.0]),
)
def test_every_plan_is_a_valid_training_and_depends_on_nothing_else(sizes, mode, model, epsilon) -> None:
    study = draft(mode=mode, model=model, epsilon=epsilon)
    training = derive_training(study, sizes, contract())
    assert training == derive_training(study, dict(reversed(sizes.items())), contract())
    assert training.mode == mode and training.steps % training.rounds == 0


@pytest.mark.parametrize(("mode", "steps"), [("fedsgd", 10), ("fedavg", 20)])
@pytest.mark.parametrize("model", [AdditiveModel(), MlpModel(kind="mlp")])
def test_a_draft_that_names_its_rounds_gets_so_many_and_pays_for_no_more(mode, steps, model) -> None:
    usual = derive_training(draft(mode=mode, model=model), SIZES, contract())
    training = derive_training(draft(mode=mode, model=model, rounds=10), SIZES, contract())
    assert (training.rounds, training.steps) == (10, steps)
    assert training.sampling_rate == usual.sampling_rate and training.steps < usual.steps
