"""The budget: its figures are the ledger's, its picture is the ledger's history, and a plan is what would be reserved."""

import json
import math
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from client.budget_plot import draw_history, drawn_epsilon, history, readings
from client.desk import open_reader
from client.home import Home
from client.officer import budget as module
from client.officer.budget import SignedStudy, find_spec
from federation.document import load_yaml
from federation.errors import ConsilienceError, PolicyError
from federation.signing import sign
from federation.study import CONTEXT
from privacy.cost import Cost, TokenFilter
from privacy.filter import cost_epsilon
from privacy.ledger import Ledger
from privacy.policy import Policy
from tests.client.officer_desk import Clock, fresh_ledger, reserve, run, wait
from tests.client.vault_home import Town, found

YESTERDAY = time.time() // 86_400 - 1  # commands go by the clock of the system
DRAFT = """
name: lapse
title: "Who leaves"
purpose: marketing.propensity
contract: shop
epsilon: {epsilon}
holdout: {{kind: hash, share: 0.25}}
intended_use: Tests
limits: None
"""
SLOT = {
    "purpose": "marketing.propensity",
    "contract": "shop",
    "noise_multiplier": 3.0,
    "sampling_rate": 0.5,
    "steps": 5,
    "histogram_sigma": 3.0,
}


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return found(tmp_path_factory.mktemp("town"))


@pytest.fixture
def at(town):
    return "--home", town.homes["alder"].root


def opened(town: Town, clock: Clock, **changes: object) -> Ledger:
    """A ledger of alder's with some of its policy's fields changed."""
    tree = load_yaml(town.homes["alder"].policy_file, Policy).model_dump(mode="json")
    return fresh_ledger(town, clock, policy=Policy.model_validate_json(json.dumps(tree | changes)))


def planned(town: Town, clock: Clock, slots: int, **changes: object) -> Ledger:
    tree = load_yaml(town.homes["alder"].policy_file, Policy).model_dump(mode="json")["budget"]
    return opened(
        town,
        clock,
        budget=tree | {"mode": "plan", "slots": [{"id": f"slot{i}", **SLOT} for i in range(slots)]} | changes,
    )


def facts(at, *more: object) -> dict:
    return json.loads(run("budget", *at, *more, "--json"))


def test_figures_are_those_of_the_ledger(town, at):
    clock = Clock(YESTERDAY)
    with opened(town, clock) as ledger:
        spent = reserve(ledger, 1, 1.0)
        ledger.release(spent, 1, "training", "0" * 64, 10, what="round 1 of 3")
        ledger.close(spent)
        reserve(ledger, 2, 1.5, holdout=False)
        items = ledger.spending(clock())
    value = facts(at)
    assert value["member"] == "alder" and value["policy"]["version"] == 1 and value["mode"] == "open"
    for row, item in zip(value["budgets"], items, strict=True):
        assert (row["account"], row["budget"], row["left_epsilon"]) == (item.account, item.budget, item.left_epsilon)
        assert row["used_epsilon"] == item.epsilon_of(item.used) and row["spent_epsilon"] == item.epsilon_of(item.spent)
        assert row["used_share"] == pytest.approx(item.used.nano / item.bound.capacity.nano, rel=0.1)
    life = {row["account"]: row for row in value["budgets"] if row["budget"] == "life"}
    assert 0 < life["training"]["tight_epsilon"] <= life["training"]["used_epsilon"]
    assert life["holdout"]["used_epsilon"] == 0 == life["holdout"]["tight_epsilon"]  # nothing left: given back
    assert all(row["tight_epsilon"] is None for row in facts(at, "--no-tight")["budgets"])
    output = run("budget", *at, width=80)
    assert "training  365 days" in output and "For information" in output
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "as you said" in run("budget", *at, "--no-tight")


def test_a_large_ledger_leaves_the_tight_figure_out_unless_asked(town, at, monkeypatch):
    monkeypatch.setattr(module, "MOST_ENTRIES", 1)
    assert "--tight computes it" in run("budget", *at) and "For information" in run("budget", *at, "--tight")


def test_before_a_policy_is_in_force(tmp_path):
    town = found(tmp_path, active=False)
    at = "--home", town.homes["alder"].root
    assert "nothing can be spent" in run("budget", *at) and facts(at)["budgets"] == []
    with pytest.raises(ConsilienceError, match="CSL-C655"):
        run("budget", "plan", draft(tmp_path), "--rounds", 3, "--rate", 0.5, *at)
    for name in ("empty.svg", "empty.png"):
        run("budget", *at, "--plot", tmp_path / name)
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def test_a_purpose_has_a_line_of_its_own(town, at):
    purposes = [
        {
            "id": "marketing.propensity",
            "meaning": "Who may buy",
            "consent": "profiling",
            "budget": {"epsilon": 2.0, "delta": 2e-5},
        }
    ]
    with opened(town, Clock(YESTERDAY), purposes=purposes) as ledger:
        reserve(ledger, 1, 1.0)
    rows = [row for row in facts(at)["budgets"] if row["purpose"]]
    assert [row["account"] for row in rows] == ["training", "holdout"] and all(
        row["reserved_epsilon"] > 0 for row in rows
    )
    assert "marketing.propensity, 365 days" in run("budget", *at)
    value = plan(at, town, "2.0")
    assert not value["fits"] and any(not row["fits"] for row in value["budgets"] if row["purpose"])


def test_a_plan_alone_is_shown_as_it_is_enforced(town, at):
    with planned(town, Clock(YESTERDAY), 3):
        pass
    value = facts(at)
    assert value["mode"] == "plan" and [slot["taken"] for slot in value["slots"]] == [False] * 3
    life = next(row for row in value["budgets"] if row["budget"] == "life")
    assert life["used_epsilon"] == pytest.approx(life["tight_epsilon"]) == life["reserved_epsilon"]
    assert "slot2" in run("budget", *at) and "free" in run("budget", *at)
    wait(town, town.spec(epsilon=2.0))
    study = json.loads(run("budget", "plan", "propensity", *at, "--json"))
    assert study["slot"] == "slot0" and study["fits"] and study["costs"]["training"] == {"nano": 0, "femto": 0}
    assert all(row["before_epsilon"] == row["after_epsilon"] for row in study["budgets"])
    assert "2 slots of the plan are free" in run("budget", "plan", "propensity", *at)
    town.grant(town.vault(), town.spec(epsilon=2.0))
    assert [slot["study"] for slot in facts(at)["slots"]] == ["propensity", None, None]
    with open_reader(town.homes["alder"]) as reader:
        drawn = readings(history(reader, 0), "training")[-1]
    assert drawn.used == pytest.approx(life["used_epsilon"])


def draft(folder, epsilon="1.0"):
    path = folder / "lapse.yaml"
    path.write_text(DRAFT.format(epsilon=epsilon))
    return path


def plan(at, town: Town, epsilon: str) -> dict:
    path = draft(town.homes["alder"].root, epsilon)
    return json.loads(run("budget", "plan", path, "--rounds", 3, "--rate", 0.5, *at, "--json"))


def test_so_many_as_the_plan_says_fit_and_not_one_more(town, at):
    clock, epsilon = Clock(YESTERDAY), "1.5"
    with opened(town, clock) as ledger:
        for number in range(4):
            reserve(ledger, number + 1, 1.9)
    value = plan(at, town, epsilon)
    assert value["fits"]
    least = min(row["further_studies"] for row in value["budgets"])
    assert value["how_many"][0] == {"epsilon": float(epsilon), "studies": least}
    home = town.homes["alder"]
    with town.ledger() as ledger:
        first = reserve(ledger, 100, float(epsilon))
        assert ledger.reservation(first).data.charges[0].cost.model_dump() == value["costs"]["training"]
        for number in range(least):
            reserve(ledger, 101 + number, float(epsilon))
        with pytest.raises(PolicyError, match="CSL-P403"):
            reserve(ledger, 999, float(epsilon))
    value = plan(at, town, epsilon)
    assert not value["fits"] and home.ledger_file.exists()
    smaller = value["largest_epsilon"]
    assert smaller < float(epsilon) and plan(at, town, repr(smaller))["fits"]
    assert not plan(at, town, repr(round(smaller + 0.01, 2)))["fits"]
    output = run("budget", "plan", draft(home.root, epsilon), "--rounds", 3, "--rate", 0.5, *at)
    assert "does not fit" in output and f"epsilon {smaller:g} would fit" in output
    with town.ledger() as ledger:
        reserve(ledger, 1000, smaller)


def test_a_study_is_named_in_four_ways(town, at, tmp_path):
    with opened(town, Clock(YESTERDAY)):
        pass
    spec = town.spec(name="four_ways", epsilon=1.0)
    signature = sign(town.coordinator, CONTEXT, spec)
    signed, bare = tmp_path / "signed.json", tmp_path / "spec.json"
    signed.write_bytes(SignedStudy(spec=spec, signature=signature).canonical())
    bare.write_bytes(spec.canonical())
    waiting = wait(town, spec)
    pending = tmp_path / "pending.json"
    pending.write_bytes(waiting.canonical())
    home = town.homes["alder"]
    for name in ("four_ways", waiting.rid[:10], signed, bare, pending):
        assert find_spec(home, town.charter, str(name), None, None, None) == spec
    path = draft(tmp_path)
    options = path, "--rounds", 3, "--rate", 0.5
    value = json.loads(run("budget", "plan", *options, *at, "--json"))
    assert value["costs"] == json.loads(run("budget", "plan", "four_ways", *at, "--json"))["costs"]
    assert json.loads(run("budget", *at, "--json", "plan", *options)) == value


def test_wrong_studies_are_named(town, at, tmp_path):
    forged = tmp_path / "forged.json"
    spec = town.spec(epsilon=1.0)
    stranger = Ed25519PrivateKey.generate()
    forged.write_bytes(SignedStudy(spec=spec, signature=sign(stranger, CONTEXT, spec)).canonical())
    (tmp_path / "none.json").write_text('{"kind":"other"}')
    path = draft(tmp_path)
    cases = [
        ((forged,), "CSL-F201"),
        ((tmp_path / "none.json",), "CSL-C671"),
        ((path,), "CSL-C672"),
        ((path, "--rounds", 3, "--rate", 0), "CSL-C675"),
        ((path, "--rounds", 3, "--rate", "nan"), "CSL-C675"),
        ((path, "--rounds", 3, "--rate", 0.5, "--steps", 6), "CSL-C675"),
        (("nothing_like_it",), "CSL-C651"),
    ]
    for arguments, code in cases:
        with pytest.raises(ConsilienceError, match=code):
            run("budget", "plan", *arguments, *at)
    for change, code in ((("shop", "shoe"), "CSL-C673"), (("epsilon: 1.0", "epsilon: .nan"), "CSL-F105")):
        path.write_text(DRAFT.format(epsilon="1.0").replace(*change))
        with pytest.raises(ConsilienceError, match=code):
            run("budget", "plan", path, "--rounds", 3, "--rate", 0.5, *at)
    path.write_text(DRAFT.format(epsilon="3.0"))
    with pytest.raises(ConsilienceError, match="CSL-P204"):
        run("budget", "plan", path, "--rounds", 3, "--rate", 0.5, *at)


def test_the_picture_is_the_same_bytes_again_and_needs_a_known_format(town, at, tmp_path):
    clock = Clock(YESTERDAY)
    with opened(town, clock) as ledger:
        reserve(ledger, 1)
        clock.forward(3)
        ledger.close(f"{1:064x}")
        points = history(ledger, clock())
    assert draw_history(points, "svg", "alder") == draw_history(points, "svg", "alder")
    run("budget", *at, "--plot", tmp_path / "b.svg")
    text = (tmp_path / "b.svg").read_text()
    assert "Customers who train" in text and "counts within any 365 days" in text and "<dc:date>" not in text
    with pytest.raises(ConsilienceError, match="CSL-C670"):
        run("budget", *at, "--plot", tmp_path / "b.pdf")


OPERATION = st.tuples(st.sampled_from(["reserve", "release", "close", "wait"]), st.integers(1, 4), st.booleans())


@settings(max_examples=12)
@given(st.lists(OPERATION, max_size=14))
def test_the_last_point_of_the_history_is_what_the_ledger_counts(town, operations):
    clock = Clock(YESTERDAY)
    with opened(town, clock) as ledger:
        for word, number, holdout in operations:
            try:
                if word == "wait":
                    clock.forward(100 * number)
                elif word == "reserve":
                    reserve(ledger, number, 0.5, holdout=holdout)
                elif word == "release":
                    ledger.release(f"{number:064x}", number, "training", "0" * 64, 1, what="round")
                else:
                    ledger.close(f"{number:064x}")
            except PolicyError:
                continue  # closed already, or never reserved
        points = history(ledger, clock())
        items = ledger.spending(clock())
    for account in ("training", "holdout"):
        last = readings(points, account)[-1]
        period, life = (item for item in items if item.account == account)
        assert last.period == pytest.approx(period.epsilon_of(period.used), abs=1e-5)
        assert last.used == pytest.approx(life.epsilon_of(life.used), abs=1e-5)
        assert last.spent == pytest.approx(life.epsilon_of(life.spent), abs=1e-5)
    times = [point.ts for point in points]
    assert times == sorted(times) and len(points) <= 3 * 400


@settings(max_examples=60)
@given(st.integers(0, 10**10), st.integers(0, 10**9 - 1), st.sampled_from([1e-6, 1e-5, 1e-3]))
def test_the_picture_draws_what_is_enforced(nano, femto, delta):
    cost = Cost(nano=nano, femto=femto)
    try:
        exact = cost_epsilon(TokenFilter(), cost, delta)
    except PolicyError:
        exact = 100.0
    assert math.isclose(drawn_epsilon(TokenFilter(), cost, delta), exact, abs_tol=1e-4, rel_tol=1e-6)


def test_an_account_without_a_home_is_refused(tmp_path):
    for command in (("budget",), ("budget", "plan", "x")):
        with pytest.raises(ConsilienceError, match="CSL-C005"):
            run(*command, "--home", Home(tmp_path).root)
    assert "plan" in run("budget", "--help") and "--rounds" in run("budget", "plan", "--help")
