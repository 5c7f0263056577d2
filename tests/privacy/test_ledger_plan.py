"""Plans in the ledger: charged whole, filled slot by slot, retired by the next policy; purposes' own budgets; RDP."""

import pytest

from federation.errors import ConsilienceError
from privacy.cost import NOTHING, Cost, total
from privacy.events import DiscreteGaussianHistogram, SubsampledGaussian, releases
from privacy.filter import fits, limits_of, price
from privacy.ledger.charges import plan_charges
from privacy.plan import plan_epsilon, plan_events
from tests.privacy.policies import FIRST, SECOND, after, policy, restoration, signed

CHURN, OFFERS = "marketing.churn", "marketing.offers"
TWO_PURPOSES = [
    {"id": CHURN, "meaning": "Keep customers", "consent": "profiling"},
    {"id": OFFERS, "meaning": "Offer more", "consent": "profiling"},
]


def slot(name, noise=10.0, steps=1, rate=1.0, purpose=CHURN, sigma=None):
    return {
        "id": name,
        "purpose": purpose,
        "contract": "shop",
        "noise_multiplier": noise,
        "sampling_rate": rate,
        "steps": steps,
        "histogram_sigma": sigma or noise,
    }


def planned(*slots, **changes):
    fields = {"studies__0__purposes": [CHURN, OFFERS], "purposes": TWO_PURPOSES} | changes
    return policy(**fields, budget__mode="plan", budget__slots=list(slots))


def refused(code, call, *arguments, **named):
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.fixture
def house(make_house, tmp_path):
    """A house with a plan of three slots: two alike for churn, one larger for offers."""
    return make_house(tmp_path, planned(slot("one"), slot("two"), slot("large", steps=4, purpose=OFFERS)))


def take(house, rid, name, purpose=CHURN, **events):
    """Fill a slot with a study; its events are those of `house.charges` unless others are given."""
    own = next(item for item in house.policy.budget.slots if item.id == name)
    charges = {**house.charges(), **events}
    charges = {account: event for account, event in charges.items() if event}
    return house.ledger.reserve(
        rid,
        study=f"study-{rid}",
        charges=charges,
        releases={name: sum(map(releases, own_events)) for name, own_events in charges.items()},
        terms=house.terms(purpose=purpose, slot=own),
    )


def used(house, account="training"):
    return house.ledger.state().account(account)


def test_the_whole_plan_is_charged_when_it_comes_into_force(house):
    state = house.ledger.state()
    slots = house.policy.budget.slots
    lines = {(item.account, item.purpose): item.cost for item in plan_charges(house.policy, state.limits)}
    assert set(lines) == {
        (account, purpose) for account in ("training", "holdout") for purpose in (None, CHURN, OFFERS)
    }
    assert lines["training", None] == price(plan_events(slots, "training"), state.limits)
    assert used(house).life == used(house).all.open == lines["training", None]
    assert used(house, "holdout").purpose(OFFERS).open == lines["holdout", OFFERS]
    entry = house.ledger.entry(1).body.data
    assert entry.plan == plan_charges(house.policy, state.limits) and state.plan.slots == slots
    assert house.verify().valid


def test_a_study_in_a_slot_costs_nothing_more(house):
    before = used(house), used(house, "holdout")
    reservation = take(house, "a", "one")
    assert all(charge.cost == NOTHING for charge in reservation.data.charges)
    house.release("a", 1)
    house.release("a", 2, "holdout")
    house.ledger.close("a")
    assert (used(house), used(house, "holdout")) == before
    assert house.ledger.state().plan.taken == ("one",) and house.ledger.state().plan.open == ()
    assert house.verify().valid


def test_no_slot_is_filled_twice_even_when_nothing_left(house):
    take(house, "a", "one")
    refused("CSL-P417", take, house, "b", "one")
    house.ledger.close("a")
    refused("CSL-P417", take, house, "b", "one")
    assert take(house, "b", "two").data.slot == "two"
    assert take(house, "b", "two").data.slot == "two"  # the same again changes nothing
    refused("CSL-P417", take, house, "c", "one")
    assert house.ledger.state().plan.taken == ("one", "two")


def test_a_slot_is_for_its_purpose_and_contract(house):
    refused("CSL-P417", take, house, "a", "large", CHURN)
    refused("CSL-P417", take, house, "a", "one", OFFERS)
    take(house, "a", "large", OFFERS)


LARGER = {
    "less noise": {"training": (SubsampledGaussian(noise_multiplier=9.99, sampling_rate=1.0, steps=1),)},
    "more steps": {"training": (SubsampledGaussian(noise_multiplier=20.0, sampling_rate=1.0, steps=2),)},
    "two events": {"training": (SubsampledGaussian(noise_multiplier=90.0, sampling_rate=0.1, steps=1),) * 2},
    "another kind": {"training": (DiscreteGaussianHistogram(sigma=50.0, count=1),)},
    "a sharper histogram": {"holdout": (DiscreteGaussianHistogram(sigma=9.9, count=1),)},
    "two histograms": {"holdout": (DiscreteGaussianHistogram(sigma=50.0, count=2),)},
    "a scaled histogram": {"holdout": (DiscreteGaussianHistogram(sigma=50.0, count=1, scale=2),)},
}


@pytest.mark.parametrize("events", LARGER.values(), ids=LARGER)
def test_no_study_is_larger_than_its_slot(house, events):
    refused("CSL-P417", take, house, "a", "one", **events)
    assert house.ledger.state().plan.taken == ()


def test_a_smaller_study_fills_the_whole_slot(house):
    smaller = (SubsampledGaussian(noise_multiplier=11.0, sampling_rate=0.5, steps=1),)
    take(house, "a", "one", training=smaller, holdout=None)
    assert house.ledger.state().plan.reserved == ("training",)
    refused("CSL-P417", take, house, "b", "one")


def test_under_a_plan_nothing_is_reserved_outside_its_slots(house):
    refused("CSL-P417", house.reserve, "a", noise=500.0)


def test_a_new_policy_waits_for_the_plans_open_studies(house):
    take(house, "a", "one")
    following = after(house.policy)
    refused("CSL-P311", house.ledger.activate, following, signed(following))
    house.ledger.close("a")
    house.activate(following)


def test_accounts_that_no_study_of_the_plan_touched_come_back(house):
    charge = used(house).life
    take(house, "a", "one", holdout=None)
    house.ledger.close("a")
    house.activate(after(house.policy, budget__mode="open", budget__slots=[]))
    day = house.ledger.state().ts // 86_400_000
    assert house.ledger.state().plan is None
    assert used(house).life == used(house).all.spent(day, 30) == charge, "training was reserved: it stays charged"
    assert used(house, "holdout").life == used(house, "holdout").all.spent(day, 30) == NOTHING
    assert used(house).purpose(CHURN).spent(day, 30) != NOTHING
    assert house.verify().valid


def test_an_untouched_plan_comes_back_whole(house):
    house.activate(after(house.policy, budget__mode="open", budget__slots=[]))
    assert used(house).life == used(house, "holdout").life == NOTHING
    house.reserve("a")
    house.activate(after(house.policy, budget__mode="plan", budget__slots=[slot("one")]))
    assert used(house).life.nano > 0 and house.verify().valid


def test_a_plan_alone_is_measured_by_its_loss_distribution(make_house, tmp_path):
    """A plan whose tokens would not fit comes into force where nothing else counts, and nothing comes beside it."""
    noise, count = next(
        (noise, count) for noise in (4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0) for count in (3, 4, 5) if _between(noise, count)
    )
    document = planned(*(slot(f"s{number}", noise) for number in range(count)))
    house = make_house(tmp_path, document)
    state = house.ledger.state()
    assert not fits(state.limits.period, NOTHING, used(house).life)
    assert plan_epsilon(document.budget.slots, "training", 1e-6) <= 2.0
    assert house.verify().valid
    take(house, "a", "s0", training=(SubsampledGaussian(noise_multiplier=noise, sampling_rate=1.0, steps=1),))
    house.release("a", 1)
    house.ledger.close("a")
    house.activate(after(document, budget__mode="open", budget__slots=[]))
    refused("CSL-P403", house.reserve, "b", noise=500.0)
    again = after(house.policy, budget__mode="plan", budget__slots=[slot("small", 500.0)])
    refused("CSL-P414", house.ledger.activate, again, signed(again))


def _between(noise, count):
    """Whether so many slots fit by their loss distribution and not by tokens."""
    document = planned(*(slot(f"s{number}", noise) for number in range(count)))
    limits = limits_of(document)
    by_loss = plan_epsilon(document.budget.slots, "training", 1e-6) <= 2.0
    return by_loss and not fits(limits.period, NOTHING, price(plan_events(document.budget.slots, "training"), limits))


def test_a_plan_that_no_figure_allows(make_house, tmp_path):
    with pytest.raises(ConsilienceError) as caught:
        make_house(tmp_path, planned(*(slot(f"s{number}", 5.0) for number in range(20))))
    assert caught.value.code == "CSL-P414" and "life" in caught.value.cause


def test_beside_what_was_spent_a_plan_counts_as_tokens(make_house, tmp_path):
    house = make_house(tmp_path)
    house.reserve("a", noise=8.0)
    spent = used(house).life
    house.activate(after(house.policy, budget__mode="plan", budget__slots=[slot("one", 8.0)]))
    whole = plan_charges(house.policy, house.ledger.state().limits)[0].cost
    assert used(house).life == total([spent, whole])
    house.release("a", 1)  # a study from before the plan goes on
    house.ledger.close("a")
    assert house.verify().valid


def test_a_second_plan_is_added_to_the_first(house):
    first = used(house).life
    take(house, "a", "one")
    house.release("a", 1)
    house.ledger.close("a")
    house.activate(after(house.policy, budget__slots=[slot("one")]))
    second = next(item.cost for item in plan_charges(house.policy, house.ledger.state().limits))
    assert used(house).life == total([first, second])
    take(house, "b", "one")  # a slot of the same name, in another plan
    assert house.ledger.state().plan.taken == ("one",) and house.verify().valid


def test_a_plan_grows_only_by_two_signatures(house):
    larger = after(house.policy, budget__slots=[slot("one"), slot("two"), slot("three")])
    refused("CSL-P307", house.ledger.activate, larger, signed(larger, FIRST))
    same = after(house.policy)
    refused("CSL-P307", house.ledger.activate, same, signed(same, FIRST))  # its slots begin anew
    house.activate(same, FIRST, SECOND)


def test_a_purposes_plan_keeps_to_the_purposes_budget(make_house, tmp_path):
    tight = [TWO_PURPOSES[0], {**TWO_PURPOSES[1], "budget": {"epsilon": 0.2, "delta": 1e-6}}]
    slots = [slot("one"), slot("offer", 10.0, purpose=OFFERS)]
    with pytest.raises(ConsilienceError) as caught:
        make_house(tmp_path, planned(*slots, purposes=tight))
    assert caught.value.code == "CSL-P414" and OFFERS in caught.value.cause
    (tmp_path / "ledger.sqlite").unlink()
    make_house(tmp_path, planned(slot("one"), slot("offer", 60.0, purpose=OFFERS), purposes=tight))


def test_nothing_of_a_plan_comes_into_force_where_entries_were_lost(house):
    head = house.ledger.tree_head()
    house.ledger.restore(restoration("alder", head.size, head.root))
    refused("CSL-P413", take, house, "a", "one")
    again = after(house.policy, budget__slots=[slot("one")])
    refused("CSL-P413", house.ledger.activate, again, signed(again))


# Purposes in open mode, and the filter by Renyi divergence


@pytest.fixture
def purposes(make_house, tmp_path):
    own = [TWO_PURPOSES[0], {**TWO_PURPOSES[1], "budget": {"epsilon": 0.8, "delta": 1e-6}}]
    return make_house(tmp_path, policy(studies__0__purposes=[CHURN, OFFERS], purposes=own))


def test_a_purposes_budget_holds_beside_the_periods(purposes):
    house = purposes
    count = 0
    while True:
        try:
            house.reserve(f"o{count}", noise=12.0, terms=house.terms(0.8, OFFERS))
        except ConsilienceError as error:
            assert error.code == "CSL-P412" and OFFERS in error.cause
            break
        count += 1
    assert count >= 1
    house.reserve("c", noise=12.0)
    rows = {(item.account, item.budget): item for item in house.ledger.spending(house.clock.now)}
    own = rows["training", f"{OFFERS}, 30 days"]
    assert own.purpose == OFFERS and own.epsilon == 0.8 and own.epsilon_of(own.used) <= 0.8
    assert rows["training", "30 days"].used.nano > own.used.nano
    for number in range(count):
        house.release(f"o{number}", 1)
        house.ledger.close(f"o{number}")
    refused("CSL-P412", house.reserve, "o", noise=12.0, terms=house.terms(0.8, OFFERS))
    house.clock.pass_days(30)
    house.reserve("o", noise=12.0, terms=house.terms(0.8, OFFERS))
    assert house.verify().valid


def test_the_filter_by_renyi_divergence_from_policy_to_the_last_study(make_house, tmp_path):
    house = make_house(tmp_path, policy(budget__filter={"kind": "rdp", "order": 16}))
    limits = house.ledger.state().limits
    cost = price(house.charges(8.0)["training"], limits)
    assert cost.nano == -(-16 * 10**9 // (2 * 64)), "alpha / (2 sigma^2) of one Gaussian, rounded up"
    room = limits.period.capacity.nano // cost.nano
    assert room >= 2
    for number in range(room):
        house.reserve(f"r{number}", noise=8.0, rounds=1)
    refused("CSL-P403", house.reserve, "r", noise=8.0, rounds=1)
    assert used(house).life == Cost(nano=room * cost.nano, femto=room * cost.femto)
    for item in house.ledger.spending(house.clock.now):
        assert item.epsilon_of(item.used) <= item.epsilon
    back = after(house.policy, budget__filter={"kind": "tokens"})
    refused("CSL-P310", house.ledger.activate, back, signed(back))
    other = after(house.policy, budget__filter={"kind": "rdp", "order": 17})
    refused("CSL-P310", house.ledger.activate, other, signed(other))
    assert house.verify().valid


def test_a_plan_under_renyi_divergence(make_house, tmp_path):
    document = planned(slot("one"), slot("two", purpose=OFFERS), budget__filter={"kind": "rdp", "order": 16})
    house = make_house(tmp_path, document)
    take(house, "a", "one")
    assert used(house).life == price(plan_events(document.budget.slots, "training"), house.ledger.state().limits)
    assert house.verify().valid
