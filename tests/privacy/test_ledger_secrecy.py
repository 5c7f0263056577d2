"""What a reservation states should the protocol of sums in secret fail: beside the charge, checked, and never part of it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import PolicyError
from federation.study import SecurePlan
from privacy.accounting import epsilon, epsilon_alone
from privacy.events import SecureSum
from privacy.filter import limits_of, price
from privacy.ledger import Ledger
from privacy.ledger.charges import priced
from privacy.ledger.entries import BrokenClaim, Reserve, ReserveData
from privacy.ledger.secrecy import check_floor, check_secrecy, own_epsilon
from tests.privacy.policies import after, policy

RULE = {"n_min": 5, "c": 1, "noise": ["local", "shared"]}
SHARE = 16384.0
SHARED = SecurePlan(noise="shared", n_min=5, c=1, share=SHARE)
LOCAL = SecurePlan(noise="local", n_min=5, c=1, share=SHARE)
ROUNDS = 3


def events(plan=SHARED, noise=12.0):
    """A study of `noise` standard deviations, by what surely counts, in each round and in the counts."""

    def event(steps, rate):
        part = plan.sigma / noise
        return SecureSum(
            sigma=plan.sigma, members=plan.bearers, sensitivity=part, sampling_rate=rate, steps=steps, dimension=40
        )

    return {"training": (event(ROUNDS, 0.5),), "holdout": (event(1, 1.0),)}


def alone(charges):
    return {account: own_epsilon(each, 1e-6) for account, each in charges.items()}


def reserve(house, rid="a", plan=SHARED, floor=None, charges=None, **changes):
    charges = events(plan) if charges is None else charges
    fields = {
        "study": f"study-{rid}",
        "charges": charges,
        "releases": {"training": ROUNDS, "holdout": 1},
        "terms": replace(house.terms(), secure=plan, floor=floor),
        "if_broken": alone(charges),
    } | changes
    return house.ledger.reserve(rid, **fields)


@pytest.fixture
def secret(tmp_path, make_house):
    return make_house(tmp_path, policy(secure=RULE))


def code_of(attempt):
    with pytest.raises(PolicyError) as caught:
        attempt()
    return caught.value.code


def test_both_figures_stand_in_the_entry_and_only_the_charge_counts(secret, tmp_path, make_house):
    held = reserve(secret)
    claims = {claim.account: claim.epsilon for claim in held.data.if_broken}
    for account, (event,) in events().items():
        assert claims[account] == max(epsilon_alone(event, 1e-6), epsilon([event], 1e-6))
        assert claims[account] > 1.5 * epsilon([event], 1e-6)
        assert held.data.charge(account).cost == price((event,), limits_of(secret.policy), "marketing.churn")
        assert secret.ledger.state().account(account).life == held.data.charge(account).cost
        assert held.data.broken(account).epsilon == claims[account]
    assert held.data.broken("other") is None
    secret.release("a", 1)
    secret.ledger.close("a")
    assert secret.verify().findings == ()
    secret.ledger.close_file()
    with Ledger.open(secret.path, secret.key, clock=secret.clock) as again:
        assert again.reservation("a").data == held.data


def test_the_filter_of_renyi_divergence_takes_secret_sums_too(tmp_path, make_house):
    house = make_house(tmp_path, policy(secure=RULE, budget__filter={"kind": "rdp", "order": 16}))
    held = reserve(house)
    assert (
        all(charge.cost.nano > 0 for charge in held.data.charges)
        and held.data.if_broken == reserve(house).data.if_broken
    )
    assert house.verify().findings == ()


def test_local_noise_states_the_same_twice(secret):
    data = reserve(secret, plan=LOCAL).data
    for charge in data.charges:
        assert data.broken(charge.account).epsilon == pytest.approx(epsilon(charge.events, 1e-6), rel=1e-9)
    assert secret.verify().findings == ()


def test_the_same_reservation_again_changes_nothing(secret):
    first, head = reserve(secret), secret.ledger.tree_head()
    assert reserve(secret).data == first.data and secret.ledger.tree_head() == head
    higher = {account: value + 1 for account, value in alone(events()).items()}
    assert code_of(lambda: reserve(secret, if_broken=higher)) == "CSL-P402"


def test_a_plain_reservation_is_byte_for_byte_what_it_was(house):
    house.reserve("a")
    body = house.ledger.entry(house.ledger.tree_head().size - 1).body
    assert isinstance(body, Reserve) and body.data.if_broken is None and b"if_broken" not in body.canonical()
    content = json.dumps(json.loads(body.data.canonical()))
    assert ReserveData.model_validate_json(content) == body.data


@pytest.mark.parametrize(
    "change",
    [
        {"if_broken": None},
        {"if_broken": {"training": 100.0}},
        {"if_broken": {"training": 100.0, "holdout": float("nan")}},
        {"if_broken": {"training": 100.0, "holdout": float("inf")}},
        {"if_broken": {"training": 100.0, "holdout": 0.1}},
    ],
)
def test_a_figure_that_is_missing_or_too_small_is_refused(secret, change):
    assert code_of(lambda: reserve(secret, **change)) == "CSL-P216"
    assert secret.ledger.reservation("a") is None


def test_a_plain_study_states_nothing_and_a_secret_one_has_its_own_events(secret):
    plain = secret.charges(12.0, ROUNDS)
    assert code_of(lambda: reserve(secret, plan=None, charges=plain, if_broken={"training": 9.0, "holdout": 9.0})) == (
        "CSL-P216"
    )
    assert code_of(lambda: reserve(secret, plan=SHARED, charges=plain, if_broken=None)) == "CSL-P216"
    assert code_of(lambda: reserve(secret, plan=LOCAL, charges=events(SHARED))) == "CSL-P216"
    assert code_of(lambda: reserve(secret, plan=None, charges=events(SHARED))) == "CSL-P216"
    mixed = plain | {"holdout": events()["holdout"]}
    assert code_of(lambda: reserve(secret, charges=mixed, if_broken={"training": 9.0, "holdout": 9.0})) == "CSL-P216"
    secret.reserve("plain", noise=12.0)
    assert secret.verify().findings == ()


def test_the_floor_of_the_terms_holds(secret):
    most = max(alone(events()).values())
    assert code_of(lambda: reserve(secret, floor=most * 0.99)) == "CSL-P217"
    reserve(secret, floor=most)


def test_the_policy_in_force_decides_whatever_the_terms_say(tmp_path, make_house):
    floor = max(alone(events()).values()) * 0.99
    house = make_house(tmp_path, policy(secure=RULE | {"local_noise_floor": floor}))
    assert code_of(lambda: reserve(house)) == "CSL-P217"
    house.activate(after(house.policy, secure=RULE | {"noise": ["local"]}))
    assert code_of(lambda: reserve(house)) == "CSL-P401"
    reserve(house, plan=LOCAL)
    house.activate(after(house.policy, secure=RULE | {"noise": ["shared"]}, aggregation="secure"))
    assert code_of(lambda: reserve(house, "b", plan=LOCAL)) == "CSL-P401"
    assert code_of(lambda: house.reserve("plain", noise=12.0)) == "CSL-P401"
    reserve(house, "b")
    house.ledger.close("b")
    house.activate(after(house.policy, secure=None, aggregation="plain"))
    assert code_of(lambda: reserve(house, "c")) == "CSL-P401"
    assert house.verify().findings == ()


def test_a_slot_takes_no_secret_study(tmp_path, make_house):
    slot = {
        "id": "one",
        "purpose": "marketing.churn",
        "contract": "shop",
        "noise_multiplier": 8.0,
        "sampling_rate": 1.0,
        "steps": 10,
        "histogram_sigma": 8.0,
    }
    house = make_house(tmp_path, policy(secure=RULE, budget__mode="plan", budget__slots=[slot]))
    terms = replace(house.terms(slot=house.policy.budget.slots[0]), secure=SHARED)
    assert code_of(lambda: reserve(house, terms=terms)) == "CSL-P417"


@pytest.fixture
def forge(monkeypatch):
    """Let a ledger hold an entry whose stated figures were changed before it was signed."""

    def change_claims(change):
        def forged(*arguments):
            data = priced(*arguments)
            return data.model_copy(update={"if_broken": change(data.if_broken)})

        monkeypatch.setattr("privacy.ledger.ledger.priced", forged)

    return change_claims


def times(*factors):
    return lambda claims: tuple(
        item.model_copy(update={"epsilon": item.epsilon * factor}) for item, factor in zip(claims, factors, strict=True)
    )


@pytest.mark.parametrize("factor", [0.5, 0.999])
def test_a_verifier_finds_an_understated_figure(secret, forge, factor):
    forge(times(factor, factor))
    reserve(secret)
    findings = secret.verify().findings
    assert [item.code for item in findings] == ["CSL-P619"] * 2 and "by its own noise alone" in findings[0].what


def test_a_verifier_takes_a_figure_that_is_too_large_or_off_by_a_rounding(secret, forge):
    forge(times(1 - 1e-7, 1.5))
    reserve(secret)
    assert secret.verify().findings == ()


def test_a_writer_refuses_an_entry_that_states_nothing(secret, forge):
    forge(lambda claims: None)
    assert code_of(lambda: reserve(secret)) == "CSL-P216"


@pytest.mark.parametrize("accounts", [(), ("training",), ("holdout", "training"), ("training", "training")])
def test_the_document_names_each_charged_account_once(secret, accounts):
    data = reserve(secret).data
    claims = {claim.account: claim.model_dump() for claim in data.if_broken}
    tree = data.model_dump(mode="json") | {"if_broken": [claims[name] for name in accounts]}
    with pytest.raises(ValueError, match="if_broken names the accounts"):
        ReserveData.model_validate_json(json.dumps(tree))


@settings(max_examples=25)
@given(
    n_min=st.integers(4, 40),
    c=st.integers(0, 10),
    noise=st.sampled_from(["local", "shared"]),
    multiplier=st.floats(2.0, 40.0),
)
def test_ones_own_noise_never_holds_less_epsilon_than_all_together(n_min, c, noise, multiplier):
    plan = SecurePlan(noise=noise, n_min=max(n_min, c + 3), c=c, share=SHARE)
    for charged in events(plan, multiplier).values():
        assert own_epsilon(charged, 1e-6) >= epsilon(charged, 1e-6)


@given(floor=st.floats(0.1, 50), claimed=st.floats(0.01, 50))
def test_a_floor_is_a_ceiling_of_what_is_stated(floor, claimed):
    claims = (BrokenClaim(account="training", epsilon=claimed),)
    if claimed <= floor:
        check_floor(claims, floor)
    elif claimed > floor * 1.001:
        with pytest.raises(PolicyError):
            check_floor(claims, floor)
    check_floor(claims, None)
    check_floor(None, floor)


def test_old_policies_keep_their_rules(house):
    house.reserve("a")
    body = house.ledger.entry(house.ledger.tree_head().size - 1).body
    check_secrecy(house.policy, body.data)


def test_once_data_were_read_a_study_in_secret_pays_although_no_sum_was_opened(secret):
    """A masked vector leaves before its release entry, which stands for the opening."""
    reserve(secret, "a")
    reserve(secret, "b")
    secret.ledger.consent("b", purpose=secret.terms().purpose, consent="profiling", digest="0" * 64)
    assert secret.ledger.close("a") == ("training", "holdout")
    assert secret.ledger.close("b") == secret.ledger.close("b") == ()
    assert secret.verify().valid


def test_a_plain_study_whose_data_were_read_gets_its_budget_back(tmp_path, make_house):
    house = make_house(tmp_path)
    house.reserve("a")
    house.ledger.consent("a", purpose=house.terms().purpose, consent="profiling", digest="0" * 64)
    assert house.ledger.close("a") != ()
