from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.errors import PolicyError
from federation.study import HashHoldout, LogisticModel, PositionHoldout, StudyDraft, StudySpec, Training
from privacy.decision import decide, foresee
from tests.privacy.policies import policy

TODAY = date(2026, 3, 1)


def charter_of(size=1000, members=("alder", "birch", "cedar"), contract="shop"):
    return Charter(
        federation="test",
        version=1,
        coordinator_key="f" * 64,
        members=tuple(
            Member(id=name, title=name, key=f"{index:064x}", declares=(Declaration(contract=contract, size=size),))
            for index, name in enumerate(members)
        ),
        contracts=(PinnedContract(name=contract, sha256="0" * 64),),
    )


def spec_of(**changes):
    draft = {
        "name": "lapse",
        "title": "A study",
        "purpose": "marketing.churn",
        "contract": "shop",
        "holdout": HashHoldout(kind="hash", share=0.2),
        "intended_use": "Tests",
        "limits": "None",
        **changes,
    }
    mode = draft.get("mode", "fedsgd")
    return StudySpec(
        draft=StudyDraft(**draft),
        federation="test",
        charter="0" * 64,
        contract_digest="0" * 64,
        training=Training(mode=mode, rounds=10, steps=10, sampling_rate=0.3),
        nonce="0" * 32,
    )


def refusal(policy, spec=None, charter=None, member="alder", today=TODAY):
    with pytest.raises(PolicyError) as caught:
        decide(policy, spec or spec_of(), charter or charter_of(), member, today)
    return caught.value.code


def test_what_is_granted(make_policy):
    policy = make_policy()
    terms = decide(policy, spec_of(), charter_of(), "alder", TODAY)
    assert (terms.epsilon, terms.delta, terms.purpose, terms.consent) == (1.0, 1e-6, "marketing.churn", "profiling")
    assert (terms.contract, terms.declared_size, terms.policy) == ("shop", 1000, policy.digest())
    assert policy.consent_for("marketing.churn") == "profiling"


@given(asked=st.floats(1e-6, 100))
def test_a_study_may_ask_for_less_and_never_for_more(make_policy, asked):
    policy = make_policy()
    if asked <= 1.0:
        assert decide(policy, spec_of(epsilon=asked), charter_of(), "alder", TODAY).epsilon == asked
    else:
        assert refusal(policy, spec_of(epsilon=asked)) == "CSL-P204"


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("CSL-P201", {"spec": spec_of(purpose="marketing.other")}),
        ("CSL-P202", {"spec": spec_of(contract="bank")}),
        ("CSL-P203", {"spec": spec_of(model=LogisticModel(kind="logistic"))}),
        ("CSL-P203", {"spec": spec_of(mode="fedavg")}),
        ("CSL-P204", {"spec": spec_of(epsilon=1.0000001)}),
        ("CSL-P205", {"charter": charter_of(size=10_001)}),
        ("CSL-P206", {"charter": charter_of(size=499)}),
        ("CSL-P207", {"spec": spec_of(min_partners=2)}),
        ("CSL-P207", {"charter": charter_of(members=("alder", "birch"))}),
        ("CSL-P208", {"spec": spec_of(holdout=HashHoldout(kind="hash", share=0.3))}),
        ("CSL-P208", {"spec": spec_of(holdout=PositionHoldout(kind="position", position=3))}),
        ("CSL-P209", {"today": date(2025, 12, 31)}),
        ("CSL-P209", {"today": date(2030, 1, 1)}),
        ("CSL-P210", {"member": "birch"}),
        ("CSL-P211", {"charter": charter_of(contract="other")}),
    ],
)
def test_each_refusal_has_its_code(make_policy, code, arguments):
    assert refusal(make_policy(), **arguments) == code


@pytest.mark.parametrize(
    "arguments",
    [
        {"charter": charter_of(size=10_000)},
        {"charter": charter_of(size=500)},
        {"today": date(2029, 12, 31)},
        {"today": date(2026, 1, 1)},
    ],
)
def test_the_bounds_themselves_are_allowed(make_policy, arguments):
    decide(make_policy(), spec_of(), arguments.get("charter", charter_of()), "alder", arguments.get("today", TODAY))


@pytest.mark.parametrize(
    ("automatic", "asked", "eyes"),
    [(1.0, None, 0), (0.5, None, 2), (0.5, 0.5, 0), (0.5, 0.5000001, 2), (0.0, 1e-6, 2)],
)
def test_a_study_above_the_automatic_epsilon_waits(automatic, asked, eyes):
    cautious = policy(studies__0__automatic_epsilon=automatic, approval__eyes=2)
    spec = spec_of(epsilon=asked)
    assert decide(cautious, spec, charter_of(), "alder", TODAY).eyes == eyes
    assert foresee(cautious, spec.draft, charter_of(), TODAY) == (asked or 1.0, eyes)


def slot(name, **changes):
    given = {"noise_multiplier": 4.0, "sampling_rate": 0.3, "steps": 10, "histogram_sigma": 8.0}
    return {"id": name, "purpose": "marketing.churn", "contract": "shop"} | given | changes


def test_a_study_takes_the_first_free_slot_that_is_large_enough():
    slots = [slot("short", steps=9), slot("thin", sampling_rate=0.29), slot("one"), slot("two", steps=100)]
    planned = policy(budget__mode="plan", budget__slots=slots)

    def taken(*names):
        return decide(planned, spec_of(), charter_of(), "alder", TODAY, names).slot.id

    assert (taken(), taken("one"), taken("short", "one")) == ("one", "two", "two")
    with pytest.raises(PolicyError) as caught:
        taken("one", "two")
    assert caught.value.code == "CSL-P212"
    assert decide(policy(), spec_of(), charter_of(), "alder", TODAY).slot is None


def test_a_slot_is_for_its_own_purpose_and_contract():
    purposes = [
        {"id": name, "meaning": "Customers", "consent": "profiling"} for name in ("marketing.churn", "marketing.other")
    ]
    planned = policy(
        purposes=purposes,
        studies__0__purposes=["marketing.churn", "marketing.other"],
        budget__mode="plan",
        budget__slots=[slot("one", purpose="marketing.other")],
    )
    assert refusal(planned) == "CSL-P212"
    assert decide(planned, spec_of(purpose="marketing.other"), charter_of(), "alder", TODAY).slot.id == "one"
    with pytest.raises(PolicyError) as caught:
        foresee(planned, spec_of().draft, None, TODAY)
    assert caught.value.code == "CSL-P212"


@pytest.mark.parametrize(
    ("code", "changes", "charter", "today"),
    [
        ("CSL-P201", {"purpose": "marketing.other"}, None, TODAY),
        ("CSL-P202", {"contract": "bank"}, None, TODAY),
        ("CSL-P203", {"mode": "fedavg"}, None, TODAY),
        ("CSL-P204", {"epsilon": 1.5}, None, TODAY),
        ("CSL-P205", {}, charter_of(size=10_001), TODAY),
        ("CSL-P206", {}, charter_of(size=499), TODAY),
        ("CSL-P207", {"min_partners": 2}, charter_of(), TODAY),
        ("CSL-P208", {"holdout": HashHoldout(kind="hash", share=0.3)}, None, TODAY),
        ("CSL-P209", {}, None, date(2030, 1, 1)),
        ("CSL-P211", {}, charter_of(contract="other"), TODAY),
    ],
)
def test_a_draft_is_judged_as_the_study_would_be(make_policy, code, changes, charter, today):
    with pytest.raises(PolicyError) as caught:
        foresee(make_policy(), spec_of(**changes).draft, charter, today)
    assert caught.value.code == code
    assert refusal(make_policy(), spec_of(**changes), charter, today=today) == code


def test_a_purpose_that_the_policy_knows_but_not_for_this_contract_is_refused(make_policy, policy_text):
    purpose = "  - {id: marketing.churn, meaning: Keep customers, consent: profiling}\n"
    assert purpose in policy_text
    policy = make_policy(policy_text.replace(purpose, purpose + purpose.replace("churn", "other")))
    assert refusal(policy, spec_of(purpose="marketing.other")) == "CSL-P202"
