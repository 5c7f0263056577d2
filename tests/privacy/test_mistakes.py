from datetime import date

import pytest

from federation.document import load_yaml
from privacy.mistakes import mistakes
from privacy.policy import Policy
from tests.privacy.policies import FIRST, officers, policy
from tests.privacy.test_decision import charter_of
from tests.privacy.test_explanation import EXAMPLES, SLOTS

TODAY = date(2026, 3, 1)
SOUND = {
    "expires": "2027-01-01",
    "studies__0__automatic_epsilon": 0.5,
    "budget__life": {"epsilon": 2.0, "delta": 1e-6},
}


def found(charter=None, today=TODAY, **changes):
    return mistakes(policy(**(SOUND | changes)), charter, today)


def test_a_sound_policy_has_none():
    assert found() == [] == found(charter_of())
    assert found(purposes__0__budget={"epsilon": 1.5, "delta": 1e-6}) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_only_refresh(path):
    example = load_yaml(path, Policy)
    assert [text for text in mistakes(example, None, example.issued) if "comes back" not in text] == []


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("a life budget of epsilon 30 promises", {"budget__life__epsilon": 30.0}),
        (
            "a 30 days budget of epsilon 12 promises",
            {"budget__life__epsilon": 12.0, "budget__period__epsilon": 12.0},
        ),
        (
            "one study on shop at epsilon 11 promises",
            {"budget__life__epsilon": 12.0, "budget__period__epsilon": 12.0, "studies__0__max_epsilon": 11.0},
        ),
        (
            "comes back every 30 days: over the years the total grows from epsilon 2 to 3",
            {"budget__life__epsilon": 3.0},
        ),
        ("every study would be refused: delta 1e-06 is sound for at most 10000", {"smallest_cohort": 10_001}),
        ("at epsilon 2 may not fit into the budget of 30 days", {"studies__0__max_epsilon": 2.0}),
        (
            "may not fit into the budget of marketing.churn, epsilon 0.9",
            {"purposes__0__budget": {"epsilon": 0.9, "delta": 1e-6}},
        ),
        ("order 64 makes use of", {"budget__filter": {"kind": "rdp", "order": 64}, "budget__life__epsilon": 2.0}),
        ("only one officer is named", {"officers": officers(first=FIRST)}),
        ("everything is automatic", {"studies__0__automatic_epsilon": 1.0}),
        ("1 partner", {"smallest_partners": 1}),
        ("a cohort of 99", {"smallest_cohort": 99}),
        ("grid of 0 seconds", {"reply_grid_seconds": 0.0}),
        ("who took part is forgotten after 29 days", {"retention__participation_days": 29}),
        ("replies are kept for 31 days", {"retention__replies_days": 31}),
        ("more than 3 years without another look", {"expires": "2029-06-01"}),
        ("it expired on 2026-02-01", {"expires": "2026-02-01"}),
        ("in force only from 2026-04-01", {"issued": "2026-04-01"}),
        (
            "purpose marketing.other is in no rule",
            {
                "purposes": [
                    {"id": name, "meaning": "x", "consent": "profiling"}
                    for name in ("marketing.churn", "marketing.other")
                ]
            },
        ),
    ],
)
def test_each_mistake_is_named_alone(words, changes):
    texts = found(**changes)
    others = ("comes back", "a life budget", "a 30 days budget")  # which a large life budget brings with it
    assert [text for text in texts if words in text], texts
    assert len([text for text in texts if not any(other in text for other in others)]) <= 1 or "may not fit" in words


def test_a_plan_above_its_budgets_is_named():
    planned = {"budget__mode": "plan", "budget__slots": SLOTS}
    assert found(**planned) == []
    loud = [slot | {"noise_multiplier": 2.0} for slot in SLOTS]
    texts = found(budget__mode="plan", budget__slots=loud)
    assert len(texts) == 2 and "more than the budget for 30 days, 2" in texts[0] and "for life" in texts[1]
    texts = found(**planned, purposes__0__budget={"epsilon": 0.5, "delta": 1e-6})
    assert len(texts) == 1 and "for marketing.churn, 0.5" in texts[0]
    texts = found(budget__mode="plan", budget__slots=[SLOTS[0] | {"noise_multiplier": 0.1, "steps": 1000}])
    assert "has no price" in texts[0]


def test_what_the_charter_declares_is_compared():
    texts = found(charter_of(size=20_000))
    assert [text.split(" is above")[0] for text in texts] == [
        f"delta 1e-06 for {what}" for what in ("a study", "the period", "life")
    ]
    assert found(charter_of(size=20)) == ["20 declared customers on shop are below the smallest cohort."]
    assert "no declaration for shop" in found(charter_of(contract="other"))[0]


RULE = {"n_min": 5, "c": 1, "noise": ["local"]}


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("c = 0 trusts every other institution", {"c": 0}),
        ("shared noise without a local_noise_floor", {"noise": ["local", "shared"]}),
        ("a local_noise_floor of 1 is not above", {"noise": ["shared"], "local_noise_floor": 1.0}),
        ("a local_noise_floor of epsilon 11 promises", {"noise": ["shared"], "local_noise_floor": 11.0}),
    ],
)
def test_each_mistake_in_a_rule_for_sums_in_secret_is_named_alone(words, rule):
    (text,) = found(secure=RULE | rule)
    assert words in text


def test_a_sound_rule_for_sums_in_secret_has_none():
    assert found(secure=RULE) == []
    assert found(aggregation="secure", secure=RULE | {"noise": ["shared"], "local_noise_floor": 3.0}) == []


def test_what_a_study_is_worth_when_the_protocol_fails_is_named():
    """Four honest members' noise: mu is doubled; 1 at 1e-6 has mu 0.2416, and 0.4832 has epsilon 2.14."""
    (text,) = found(secure=RULE | {"noise": ["shared"]})
    assert "a study of epsilon 1 would be worth epsilon 2.1 or so with 4 honest members' noise" in text


def test_rules_that_no_secret_study_could_meet_are_named():
    rule = policy().studies[0].model_dump(mode="json")
    for change in ({"modes": ["fedavg"]}, {"models": ["mlp"]}):
        studies = [rule | change | {"automatic_epsilon": 0.5}]
        (text,) = found(aggregation="secure", secure=RULE, studies=studies)
        assert "every study on shop would be refused" in text
        assert found(secure=RULE, studies=studies) == []  # plain studies are allowed beside


def test_a_rule_beside_a_plan_is_idle():
    (text,) = found(budget__mode="plan", budget__slots=SLOTS, secure=RULE)
    assert "idle" in text


@pytest.mark.parametrize(
    ("members", "words"), [(4, "no sum would ever be opened"), (5, "nobody may drop out"), (6, "")]
)
def test_a_sum_over_as_many_as_there_are_lets_nobody_drop_out(members, words):
    names = ("alder", *(f"member_{number}" for number in range(members - 1)))
    texts = found(charter_of(members=names), secure=RULE)
    assert [words in text for text in texts] == ([True] if words else [])


COUNTING = {
    "contract": "shop",
    "purposes": ["marketing.churn"],
    "max_epsilon": 1.0,
    "max_delta": 1e-6,
    "automatic_epsilon": 0.0,
}


def counting(**changes):
    return {"statistics": [COUNTING | changes]}


def test_a_sound_rule_for_statistics_has_none():
    assert found(**counting()) == [] == found(charter_of(), **counting())


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (
            "one statistics study on shop at epsilon 11 promises",
            {"budget__life__epsilon": 12.0, "budget__period__epsilon": 12.0} | counting(max_epsilon=11.0),
        ),
        ("one statistics study on shop at epsilon 2 may not fit into the budget", counting(max_epsilon=2.0)),
        (
            "delta 2e-06 is sound for at most 5000",
            {"budget__period__delta": 2e-6, "budget__life__delta": 2e-6, "smallest_cohort": 5001}
            | counting(max_delta=2e-6),
        ),
        ("every statistics study on shop is automatic: no person reads", counting(automatic_epsilon=1.0)),
        ("everything is automatic", {"studies__0__automatic_epsilon": 1.0} | counting(automatic_epsilon=1.0)),
    ],
)
def test_mistakes_in_a_rule_for_statistics(words, changes):
    assert any(words in text for text in found(**changes)), found(**changes)


def test_a_rule_for_statistics_alone_can_use_a_purpose_and_keep_a_person_in_the_loop():
    purposes = [
        {"id": "marketing.churn", "meaning": "Keep customers", "consent": "profiling"},
        {"id": "reporting", "meaning": "Know who they are", "consent": "profiling"},
    ]
    assert any("reporting is in no rule" in text for text in found(purposes=purposes))
    assert not any("in no rule" in text for text in found(purposes=purposes, **counting(purposes=["reporting"])))
    automatic = {"studies__0__automatic_epsilon": 1.0}
    assert any("everything is automatic" in text for text in found(**automatic))
    assert not any("automatic" in text for text in found(**automatic, **counting()))


def test_what_is_declared_is_compared_with_a_rule_for_statistics():
    deltas = {"budget__period__delta": 2e-5, "budget__life__delta": 2e-5}
    texts = found(charter_of(), **deltas, **counting(max_delta=2e-5))
    assert any("delta 2e-05 for a statistics study is above" in text for text in texts)
    assert not any("for a study is above" in text for text in texts)
    assert any("no declaration for bank" in text for text in found(charter_of(), **counting(contract="bank")))
    same = found(charter_of(), smallest_cohort=9_999, **counting())
    assert len(same) == len(set(same)), "what is said of a contract is said once"


def test_a_floor_is_compared_with_the_smallest_of_all_studies_and_shared_noise_with_the_largest():
    rule = {"n_min": 3, "c": 0, "noise": ["local", "shared"], "local_noise_floor": 0.8}
    assert any(
        "not above the epsilon of a study (0.5)" in text
        for text in found(secure=rule | {"local_noise_floor": 0.5}, **counting(max_epsilon=0.5))
    )
    assert not any("is not above" in text for text in found(secure=rule, **counting(max_epsilon=0.5)))
    bare = {key: value for key, value in rule.items() if key != "local_noise_floor"}
    larger = {"studies__0__max_epsilon": 0.5, "studies__0__automatic_epsilon": 0.1}
    assert any("a study of epsilon 1 would be worth" in text for text in found(secure=bare, **larger, **counting()))
