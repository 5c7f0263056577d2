from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.errors import PolicyError
from federation.study import (
    HashHoldout,
    LogisticModel,
    PositionHoldout,
    SecurePlan,
    StudyDraft,
    StudySpec,
    Training,
)
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
    terms = {"noise": "local"} | {name: draft[name] for name in ("noise", "n_min", "c") if name in draft}
    return StudySpec(
        draft=StudyDraft(**draft),
        secure=SecurePlan(**terms, share=16384.0) if draft.get("aggregation") == "secure" else None,
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


MANY = ("alder", *(f"member_{number:02}" for number in range(11)))
RULE = {"n_min": 5, "c": 1, "noise": ["local", "shared"]}


def secret(n_min=6, c=2, noise="shared", **changes):
    return spec_of(aggregation="secure", n_min=n_min, c=c, noise=noise, **changes)


def test_what_a_secret_study_is_granted():
    allowed = policy(secure=RULE | {"local_noise_floor": 3.0})
    terms = decide(allowed, secret(), charter_of(members=MANY), "alder", TODAY)
    assert terms.secure == SecurePlan(noise="shared", n_min=6, c=2, share=16384.0) and terms.floor == 3.0
    plain = decide(allowed, spec_of(), charter_of(members=MANY), "alder", TODAY)
    assert plain.secure is None and plain.floor is None
    assert decide(policy(secure=RULE), secret(), charter_of(members=MANY), "alder", TODAY).floor is None


@pytest.mark.parametrize(
    ("code", "words", "changes", "spec"),
    [
        ("CSL-P213", "no rule", {}, secret()),
        ("CSL-P213", "this one is plain", {"aggregation": "secure", "secure": RULE}, spec_of()),
        ("CSL-P214", "6 members on (n_min)", {"secure": RULE | {"n_min": 7}}, secret()),
        ("CSL-P214", "2 members collude (c)", {"secure": RULE | {"n_min": 6, "c": 3}}, secret()),
        ("CSL-P214", "local noise only", {"secure": RULE | {"noise": ["local"]}}, secret()),
        ("CSL-P214", "shared noise only", {"secure": RULE | {"noise": ["shared"]}}, secret(noise="local")),
        ("CSL-P215", "plan", {"secure": RULE, "budget__mode": "plan", "budget__slots": [slot("one")]}, secret()),
    ],
)
def test_an_aggregation_that_the_policy_does_not_allow_is_refused(code, words, changes, spec):
    strict = policy(**changes)
    for attempt in (
        lambda: decide(strict, spec, charter_of(members=MANY), "alder", TODAY),
        lambda: foresee(strict, spec.draft, charter_of(members=MANY), TODAY),
        lambda: foresee(strict, spec.draft, None, TODAY),
    ):
        with pytest.raises(PolicyError) as caught:
            attempt()
        assert caught.value.code == code and words in caught.value.cause and caught.value.action


def test_all_that_is_weaker_is_said_at_once():
    strict = policy(secure={"n_min": 7, "c": 3, "noise": ["local"]})
    with pytest.raises(PolicyError) as caught:
        decide(strict, secret(), charter_of(members=MANY), "alder", TODAY)
    assert all(part in caught.value.cause for part in ("n_min", "(c)", "shared noise"))


def test_a_plan_still_takes_plain_studies_beside_an_idle_rule():
    planned = policy(secure=RULE, budget__mode="plan", budget__slots=[slot("one")])
    assert decide(planned, spec_of(), charter_of(), "alder", TODAY).slot.id == "one"


def test_the_members_in_a_sum_count_as_partners():
    demanding = policy(secure=RULE, smallest_partners=6)
    assert decide(demanding, secret(n_min=6), charter_of(members=MANY), "alder", TODAY).secure
    assert refusal(demanding, secret(n_min=5), charter_of(members=MANY)) == "CSL-P207"
    assert refusal(demanding, secret(n_min=6), charter_of(members=MANY[:5])) == "CSL-P207"


COLLUDERS = st.integers(0, 6)
NOISES = st.sampled_from([["local"], ["shared"], ["local", "shared"]])


@st.composite
def rules(draw):
    c = draw(COLLUDERS)
    return {"n_min": draw(st.integers(c + 3, 12)), "c": c, "noise": draw(NOISES)}


@given(aggregation=st.sampled_from(["plain", "secure"]), rule=rules(), asked=rules(), tighter=st.data())
def test_a_stricter_rule_never_grants_what_a_looser_one_refuses(aggregation, rule, asked, tighter):
    """Every way to tighten a policy: a larger n_min or c, fewer noises, plain studies refused, a floor."""
    c = tighter.draw(st.integers(rule["c"], 7))
    noise = tighter.draw(st.sampled_from([rule["noise"], rule["noise"][:1], rule["noise"][-1:]]))
    n_min = tighter.draw(st.integers(max(rule["n_min"], c + 3), 14))
    stricter = {"n_min": n_min, "c": c, "noise": noise, "local_noise_floor": 2.0}
    study = secret(asked["n_min"], asked["c"], asked["noise"][0])
    charter = charter_of(members=MANY)

    def grants(document, spec):
        try:
            return decide(document, spec, charter, "alder", TODAY).epsilon
        except PolicyError:
            return None

    loose, strict = policy(aggregation=aggregation, secure=rule), policy(aggregation="secure", secure=stricter)
    for spec in (study, spec_of()):
        if grants(loose, spec) is None:
            assert grants(strict, spec) is None
    fits = asked["n_min"] >= rule["n_min"] and asked["c"] >= rule["c"] and asked["noise"][0] in rule["noise"]
    assert (grants(loose, study) == 1.0) == fits
