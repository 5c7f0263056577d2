from pathlib import Path

import pytest

from federation.document import load_yaml
from federation.errors import DocumentError, PolicyError
from federation.signing import public_hex
from federation.study import HashHoldout, PositionHoldout
from privacy.policy import Policy, check_holdouts, describe_holdout
from tests.privacy.policies import FIRST, SECOND, officers, policy

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "policies").glob("*.yaml"))
SLOT = {
    "id": "one",
    "purpose": "marketing.churn",
    "contract": "shop",
    "noise_multiplier": 4.0,
    "sampling_rate": 0.5,
    "steps": 20,
    "histogram_sigma": 8.0,
}


def test_an_unknown_purpose_has_no_consent(make_policy):
    with pytest.raises(PolicyError, match="CSL-P201"):
        make_policy().consent_for("marketing.other")


def test_every_problem_of_a_file_is_named_with_its_line(make_policy, policy_text):
    text = policy_text.replace("aggregation: plain", "aggregation: open").replace(
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
        ("mode: open", "mode: plan", "a plan has slots"),
        ("mode: open", "mode: closed", "mode"),
        ("eyes: 1", "eyes: 3", "eyes"),
        ("version: 1", "version: 2", "names the digest of the one before"),
        ("version: 1", "version: 1\nprev: " + "a" * 64, "version 1 has no prev"),
        ("consent: profiling}", "consent: profiling, budget: {epsilon: 2.5, delta: 1.0e-6}}", "above the period's"),
        ("consent: profiling}", "consent: profiling, budget: {epsilon: 2.0, delta: 2.0e-6}}", "above the period's"),
        ("automatic_epsilon: 1.0", "automatic_epsilon: 1.5", "above its own maximum"),
        ("automatic_epsilon: 1.0", "automatic_epsilon: -0.5", "automatic_epsilon"),
        ("mode: open", "mode: open\n  filter: {kind: rdp, order: 1}", "order"),
        ("mode: open", "mode: open\n  filter: {kind: sum}", "filter"),
        ("replies_days: 30", "replies_days: 0", "replies_days"),
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


def test_officers_and_their_keys_stand_once():
    with pytest.raises(ValueError, match="each officer stands once"):
        policy(officers=[*officers(first=FIRST), *officers(first=SECOND)])
    with pytest.raises(ValueError, match="officer's key stands once"):
        policy(officers=officers(first=FIRST, second=FIRST))
    with pytest.raises(ValueError, match="asks for 2 officers"):
        policy(officers=officers(first=FIRST), approval={"eyes": 2})
    assert policy().officer(public_hex(SECOND)).id == "second" and policy().officer("0" * 64) is None


def test_slots_belong_to_a_plan_and_to_a_rule():
    planned = policy(budget__mode="plan", budget__slots=[SLOT])
    assert planned.budget.slots[0].id == "one"
    for changes, words in (
        ({"budget__slots": [SLOT]}, "slots belong to a plan"),
        ({"budget__mode": "plan", "budget__slots": [SLOT, SLOT]}, "each slot stands once"),
        ({"budget__mode": "plan", "budget__slots": [SLOT | {"contract": "bank"}]}, "which no rule allows"),
        ({"budget__mode": "plan", "budget__slots": [SLOT | {"purpose": "marketing.other"}]}, "which no rule allows"),
        ({"budget__mode": "plan", "budget__slots": [SLOT | {"noise_multiplier": 0.0}]}, "noise_multiplier"),
    ):
        with pytest.raises(ValueError, match=words):
            policy(**changes)


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


def test_one_customer_cannot_be_in_both_accounts():
    fifth, third = HashHoldout(kind="hash", share=0.2), HashHoldout(kind="hash", share=0.3)
    position = PositionHoldout(kind="position", position=5)
    check_holdouts({"a": position})
    check_holdouts({"a": fifth, "b": fifth})
    for rules in ({"a": fifth, "b": third}, {"a": fifth, "b": position}, {"a": position, "b": position}):
        with pytest.raises(ValueError, match="both accounts"):
            check_holdouts(rules)
    assert describe_holdout(position) == "the records from position 5 on"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_read(path):
    assert load_yaml(path, Policy).version == 1


RULE = {"n_min": 5, "c": 2, "noise": ["local", "shared"], "local_noise_floor": 3.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aggregation": "secure"}, "needs a rule `secure`"),
        ({"secure": RULE | {"c": 3}}, "n_min must be at least c \\+ 3 = 6"),
        ({"secure": RULE | {"noise": ["local", "local"]}}, "each noise stands once"),
        ({"secure": RULE | {"noise": []}}, "noise"),
        ({"secure": RULE | {"noise": ["remote"]}}, "noise"),
        ({"secure": RULE | {"local_noise_floor": 0.0}}, "local_noise_floor"),
        (
            {"aggregation": "secure", "secure": RULE, "budget__mode": "plan", "budget__slots": [SLOT]},
            "the budget must be open",
        ),
    ],
)
def test_a_rule_for_sums_in_secret_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        policy(**changes)


def test_policies_without_a_rule_for_sums_in_secret_keep_their_digest():
    """The bytes that officers signed before there was such a rule."""
    assert b"secure" not in policy().canonical()
    assert Policy.from_canonical(policy(secure=RULE).canonical()).secure.local_noise_floor == 3.0
    without = {name: value for name, value in RULE.items() if name != "local_noise_floor"}
    assert b"local_noise_floor" not in policy(secure=without).canonical()
