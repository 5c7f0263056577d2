from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.document import load_yaml
from federation.errors import DocumentError, PolicyError
from federation.study import HashHoldout, LogisticModel, PositionHoldout, StudyDraft, StudySpec, Training
from privacy.explanation import explain
from privacy.filter import check_fit, limits_of
from privacy.policy import Policy, check_holdouts, describe_holdout
from privacy.token import Token

TODAY = date(2026, 3, 1)
EXAMPLE = Path(__file__).parents[2] / "configs" / "policies" / "example.yaml"


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
        policy.decide(spec or spec_of(), charter or charter_of(), member, today)
    return caught.value.code


def test_what_is_granted(make_policy):
    policy = make_policy()
    terms = policy.decide(spec_of(), charter_of(), "alder", TODAY)
    assert (terms.epsilon, terms.delta, terms.purpose, terms.consent) == (1.0, 1e-6, "marketing.churn", "profiling")
    assert (terms.contract, terms.declared_size, terms.policy) == ("shop", 1000, policy.digest())
    assert policy.consent_for("marketing.churn") == "profiling"


@given(asked=st.floats(1e-6, 100))
def test_a_study_may_ask_for_less_and_never_for_more(make_policy, asked):
    policy = make_policy()
    if asked <= 1.0:
        assert policy.decide(spec_of(epsilon=asked), charter_of(), "alder", TODAY).epsilon == asked
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
    make_policy().decide(spec_of(), arguments.get("charter", charter_of()), "alder", arguments.get("today", TODAY))


def test_an_unknown_purpose_has_no_consent(make_policy):
    with pytest.raises(PolicyError, match="CSL-P201"):
        make_policy().consent_for("marketing.other")


def test_every_problem_of_a_file_is_named_with_its_line(make_policy, policy_text):
    text = policy_text.replace("aggregation: plain", "aggregation: secure").replace(
        "smallest_cohort: 500", "smallest_cohort: 0"
    )
    text = text.replace(
        "period: {days: 30, epsilon: 2.0, delta: 1.0e-6}", "period: {days: 0, epsilon: .inf, delta: 1.0e-6}"
    )
    with pytest.raises(DocumentError, match="finite"):
        make_policy(text)
    text = text.replace(".inf", "-1.0") + "surprise: 1\n"
    with pytest.raises(DocumentError) as caught:
        make_policy(text)
    for part in ("aggregation", "smallest_cohort", "budget.period.days", "budget.period.epsilon", "surprise"):
        assert part in caught.value.cause
    assert caught.value.cause.count("line ") == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("period: {days: 30, epsilon: 2.0", "period: {days: 30, epsilon: 3.5", "above the life's"),
        ("days: 30, epsilon: 2.0, delta: 1.0e-6", "days: 30, epsilon: 2.0, delta: 1.0e-5", "above the life's"),
        ("max_epsilon: 1.0", "max_epsilon: 2.5", "above the period's"),
        ("max_delta: 1.0e-6", "max_delta: 1.0e-5", "above the period's"),
        ("expires: 2030-01-01", "expires: 2026-01-01", "not after"),
        ("purposes: [marketing.churn]", "purposes: [marketing.other]", "not listed"),
        ("mode: open", "mode: plan", "mode"),
        ("delta: 1.0e-6}\n  life", "delta: 0.0}\n  life", "delta"),
        ("delta: 1.0e-6}\n  life", "delta: 1.0}\n  life", "delta"),
        ("max_epsilon: 1.0", "max_epsilon: 0.0", "max_epsilon"),
        ("issued: 2026-01-01", "issued: 2026-13-01", "issued"),
        ("unit: customer", "unit: row", "unit"),
        ("contact_consent: contact", "contact_consent: [contact", "not YAML"),
    ],
)
def test_policies_that_contradict_themselves(make_policy, policy_text, old, new, message):
    assert old in policy_text
    with pytest.raises(DocumentError, match=message):
        make_policy(policy_text.replace(old, new))


def test_names_stand_once(make_policy, policy_text):
    purpose = "  - {id: marketing.churn, meaning: Keep customers, consent: profiling}\n"
    with pytest.raises(DocumentError, match="more than once: marketing.churn"):
        make_policy(policy_text.replace(purpose, purpose * 2))


def test_rules_of_one_contract_stand_once_and_hold_out_alike(make_policy, policy_text):
    start, end = policy_text.index("  - contract: shop"), policy_text.index("budget:")
    rule = policy_text[start:end]
    with pytest.raises(DocumentError, match="more than once: shop"):
        make_policy(policy_text.replace(rule, rule * 2))
    second = rule.replace("contract: shop", "contract: bank")
    assert len(make_policy(policy_text.replace(rule, rule + second)).studies) == 2
    assert "share: 0.2" in second
    with pytest.raises(DocumentError, match="both accounts"):
        make_policy(policy_text.replace(rule, rule + second.replace("share: 0.2", "share: 0.3")))


def test_a_purpose_that_the_policy_knows_but_not_for_this_contract_is_refused(make_policy, policy_text):
    purpose = "  - {id: marketing.churn, meaning: Keep customers, consent: profiling}\n"
    assert purpose in policy_text
    policy = make_policy(policy_text.replace(purpose, purpose + purpose.replace("churn", "other")))
    assert refusal(policy, spec_of(purpose="marketing.other")) == "CSL-P202"


def test_one_customer_cannot_be_in_both_accounts():
    fifth, third = HashHoldout(kind="hash", share=0.2), HashHoldout(kind="hash", share=0.3)
    position = PositionHoldout(kind="position", position=5)
    check_holdouts({"a": position})
    check_holdouts({"a": fifth, "b": fifth})
    for rules in ({"a": fifth, "b": third}, {"a": fifth, "b": position}, {"a": position, "b": position}):
        with pytest.raises(ValueError, match="both accounts"):
            check_holdouts(rules)
    assert describe_holdout(position) == "the records from position 5 on"


def test_limits_are_whole_numbers_and_leave_the_period_below_the_life(make_policy):
    limits = limits_of(make_policy())
    assert 0 < limits.period.mu_squared_nano < limits.life.mu_squared_nano
    assert limits.period.delta_femto == limits.life.delta_femto == 10**8 and limits.run_delta == 1e-9
    assert isinstance(limits.life, Token) and limits_of(make_policy()) == limits


def test_runs_are_priced_at_the_periods_delta_whatever_the_lifes(make_policy, policy_text):
    old = "life: {epsilon: 3.0, delta: 1.0e-6}"
    assert old in policy_text
    limits = limits_of(make_policy(policy_text.replace(old, "life: {epsilon: 3.0, delta: 5.0e-6}")))
    assert limits.run_delta == 1e-9 and limits.life.delta_femto == 5 * limits.period.delta_femto


def test_a_refusal_says_which_budget_is_used_up_and_of_what(make_policy):
    limits, nothing, cost = (
        limits_of(make_policy()),
        Token(mu_squared_nano=0, delta_femto=0),
        limits_of(make_policy()).period,
    )
    small = Token(mu_squared_nano=1, delta_femto=1)
    check_fit(limits, "training", nothing, nothing, cost)
    for spent, run, part in (
        (Token(mu_squared_nano=cost.mu_squared_nano, delta_femto=0), small, "0.00% is left"),
        (Token(mu_squared_nano=0, delta_femto=cost.delta_femto), small, "no share of delta left"),
    ):
        with pytest.raises(PolicyError, match=part) as caught:
            check_fit(limits, "holdout", spent, nothing, run)
        assert caught.value.code == "CSL-P403" and "holdout account" in caught.value.cause
        with pytest.raises(PolicyError) as caught:
            check_fit(
                limits,
                "holdout",
                nothing,
                Token(**spent.model_dump() | {"mu_squared_nano": limits.life.mu_squared_nano}),
                run,
            )
        assert caught.value.code == "CSL-P404"


def test_the_example_reads_and_is_explained():
    policy = load_yaml(EXAMPLE, Policy)
    lines = explain(policy)
    assert any("marketing.propensity" in line and "profiling" in line for line in lines)
    assert [line for line in lines if line.startswith("Warning")] == [line for line in lines if "grows" in line]
    assert any("100 studies within that time, and 100 for good" in line for line in lines)


def test_the_common_mistakes_are_named(make_policy, policy_text):
    text = policy_text.replace("life: {epsilon: 3.0", "life: {epsilon: 30.0").replace(
        "max_epsilon: 1.0", "max_epsilon: 2.0"
    )
    lines = "\n".join(
        line for line in explain(make_policy(text), charter_of(size=20_000)) if line.startswith("Warning")
    )
    for part in (
        "next to nothing",
        "comes back every 30 days",
        "may not fit",
        "delta 1e-06 for a study is above 1/(100 x 20000",
    ):
        assert part in lines
    assert "below the smallest cohort" in "\n".join(explain(make_policy(), charter_of(size=20)))
    assert "no declaration for shop" in "\n".join(explain(make_policy(), charter_of(contract="other")))
