from pathlib import Path

import pytest

from federation.document import load_yaml
from federation.errors import PolicyError
from privacy.accounting import calibrate_noise
from privacy.events import SubsampledGaussian
from privacy.explanation import explain, plan_epsilons, studies_within
from privacy.filter import limits_of, price
from privacy.plan import Slot, plan_epsilon
from privacy.policy import Policy
from tests.privacy.policies import policy

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "policies").glob("*.yaml"))
SLOTS = [
    {
        "id": name,
        "purpose": "marketing.churn",
        "contract": "shop",
        "noise_multiplier": 8.0,
        "sampling_rate": 0.5,
        "steps": 20,
        "histogram_sigma": 8.0,
    }
    for name in ("spring", "autumn")
]


def said(document):
    lines = explain(document)
    assert all(line.endswith(".") and "\n" not in line for line in lines)
    return "\n".join(lines)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_explained(path):
    assert "Refused" in said(load_yaml(path, Policy))


def test_what_is_allowed_and_what_waits():
    text = said(policy(studies__0__automatic_epsilon=0.5, approval__eyes=2))
    assert "marketing.churn: Keep customers; only customers who agreed to profiling." in text
    assert "Up to epsilon 0.5 a study starts by itself; above, it waits for two distinct officers' approval." in text
    assert "No study waits" in said(policy())
    assert "Every study waits for an officer's approval." in said(policy(studies__0__automatic_epsilon=0.0))
    assert "records of who took part 3650" in text and "Officers: first, second." in text


def test_a_purposes_own_budget_is_named():
    text = said(policy(purposes__0__budget={"epsilon": 1.5, "delta": 1e-6}))
    assert "Within any 30 days on end at most epsilon 1.5, delta 1e-06." in text
    assert "(about 2 of them for marketing.churn)" in text


@pytest.mark.parametrize("spending", [{"kind": "tokens"}, {"kind": "rdp", "order": 16}])
def test_the_room_is_what_really_fits(spending):
    """Gaussian mechanisms of the stated epsilon and delta, priced one by one as the ledger does."""
    limits = limits_of(policy(budget__filter=spending))
    sigma = calibrate_noise(0.5, 1e-6, 1.0, 1)
    run = (SubsampledGaussian(noise_multiplier=sigma, sampling_rate=1.0, steps=1),)
    really = limits.period.capacity.nano / price(run, limits).nano
    assert studies_within(limits.period, 0.5, 1e-6, limits.filter) == pytest.approx(really, rel=0.02)


def test_the_filter_is_named():
    assert "Gaussian tokens" in said(policy())
    assert "Renyi divergence at order 16" in said(policy(budget__filter={"kind": "rdp", "order": 16}))
    with pytest.raises(PolicyError, match="CSL-P112"):
        explain(policy(budget__filter={"kind": "rdp", "order": 2}))


def test_a_plan_is_explained_slot_by_slot_and_as_a_whole():
    planned = policy(budget__mode="plan", budget__slots=SLOTS)
    text = said(planned)
    slots = [Slot(**slot) for slot in SLOTS]
    training, holdout = plan_epsilon(slots, "training", 1e-6), plan_epsilon(slots, "holdout", 1e-6)
    assert plan_epsilons(planned, 1e-6) == (training, holdout)
    assert f"epsilon {training:.4g} for customers who train, {holdout:.4g}" in text
    assert "Slot spring: one study for marketing.churn on shop, at most 20 steps at rate 0.5, noise 8 or more" in text
    assert "2 slots" in text and "no slot is large enough" in text and "as they come" not in text
    assert plan_epsilons(planned, 1e-6, "marketing.other") == (0.0, 0.0)


def test_how_replies_are_added_up_is_said():
    text = said(policy())
    assert "the coordinator sees it by itself. Studies that add up replies in secret are refused." in text
    assert "sums in secret, and any" in text
    rule = {"n_min": 5, "c": 1, "noise": ["local"]}
    text = said(policy(secure=rule))
    assert "Plain studies are allowed" in text and "fewer than 5 institutions" in text
    assert "secret from a coordinator with whom one institution works together." in text
    assert "Local noise is allowed" in text and "Shared noise" not in text and "Should the protocol fail" not in text
    text = said(policy(aggregation="secure", secure=rule | {"c": 0, "noise": ["shared"]}))
    assert "Plain studies are refused" in text and "from a coordinator whom no institution helps" in text
    assert "Shared noise is allowed" in text and "no floor is set" in text and "plain studies, and any" in text
    text = said(policy(aggregation="secure", secure=rule | {"noise": ["shared"], "local_noise_floor": 3.0}))
    assert "must still keep a study to epsilon 3 on each account" in text


def test_what_is_said_of_statistics():
    assert "Refused: statistics of every kind, every other purpose" in said(policy())
    rule = {
        "contract": "shop",
        "purposes": ["marketing.churn"],
        "max_epsilon": 0.5,
        "max_delta": 1e-6,
        "automatic_epsilon": 0.1,
    }
    text = said(policy(statistics=[rule]))
    assert "Statistics on shop, for marketing.churn: counts and sums with noise, over all customers who agreed" in text
    assert "so that both accounts pay; epsilon at most 0.5 and delta 1e-06 a study. Up to epsilon 0.1 a study" in text
    limits = limits_of(policy())
    many = int(studies_within(limits.period, 0.5, 1e-6, limits.filter))
    assert (
        f"about {many} statistics studies on shop fit into 30 days" in text and "statistics of every kind" not in text
    )
