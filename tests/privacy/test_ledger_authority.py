"""Whose signatures bring a policy into force, let a study through, or let a ledger go on from a backup."""

import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import ConsilienceError
from federation.note import Checkpoint, sign_checkpoint
from federation.signing import public_hex, sign
from privacy.ledger import Ledger
from privacy.ledger.authority import eligible, signatures_needed, standing
from privacy.policy import CONTEXT
from tests.privacy.policies import (
    FIRST,
    SECOND,
    THIRD,
    after,
    decision,
    officers,
    policy,
    restoration,
    signed,
)

HOLDOUT_KEY = b"h" * 32
STRANGER = Ed25519PrivateKey.from_private_bytes(b"stranger".ljust(32, b"."))
RID = "ab" * 32
WAITING = {"studies__0__automatic_epsilon": 0.0}


def refused(code, call, *arguments, **named):
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.fixture
def bare(tmp_path):
    """A ledger in which no policy is in force yet."""
    key = Ed25519PrivateKey.from_private_bytes(b"alder".ljust(32, b"."))
    clock = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp() * 1000)
    with Ledger.create(
        tmp_path / "bare.sqlite", key, member="alder", holdout_key=HOLDOUT_KEY, clock=lambda: clock
    ) as ledger:
        yield ledger


# The first policy


def test_two_of_its_own_officers_sign_the_first_policy(bare):
    first = policy()
    assert signatures_needed(None, first) == 2 and eligible(None, first) == first.officers
    error = refused("CSL-P307", bare.activate, first, signed(first, FIRST))
    assert "1 of 2" in error.cause and "second" in error.cause
    refused("CSL-P307", bare.activate, first, signed(first, FIRST, FIRST))
    refused("CSL-P314", bare.activate, first, signed(first, FIRST, STRANGER))
    assert bare.state().policy is None and bare.state().size == 1
    bare.activate(first, signed(first, FIRST, SECOND))
    assert bare.policy() == first


def test_a_single_officer_signs_the_first_policy_alone(bare):
    first = policy(officers=officers(first=FIRST))
    bare.activate(first, signed(first, FIRST))
    assert bare.policy() == first


def test_of_three_officers_any_two_sign(bare):
    first = policy(officers=officers(first=FIRST, second=SECOND, third=THIRD))
    refused("CSL-P307", bare.activate, first, signed(first, THIRD))
    bare.activate(first, signed(first, THIRD, SECOND))


def test_a_first_policy_has_no_past(bare):
    later = after(policy())
    refused("CSL-P309", bare.activate, later, signed(later))


def test_a_signature_of_another_policy_or_context_does_not_fit(bare):
    first, other = policy(), policy(smallest_cohort=400)
    refused("CSL-P314", bare.activate, first, signed(other))
    wrong = (sign(FIRST, "csl1/approval", first), sign(SECOND, CONTEXT, first))
    refused("CSL-P314", bare.activate, first, wrong)


def test_an_expired_policy_does_not_come_into_force(bare):
    old = policy(expires="2026-03-01")
    refused("CSL-P316", bare.activate, old, signed(old))


def test_a_policy_of_tomorrow_comes_into_force_and_grants_nothing_before(bare):
    future = policy(issued="2026-03-02")
    bare.activate(future, signed(future))
    assert bare.policy() == future


# Later policies


GROWTH = {
    "a larger period's budget": {"budget__period__epsilon": 2.5},
    "a shorter period": {"budget__period__days": 29},
    "more for a study": {"studies__0__max_epsilon": 1.5},
    "another officer": {"officers": officers(first=FIRST, third=THIRD)},
    "an officer fewer": {"officers": officers(first=FIRST)},
    "an officer more": {"officers": officers(first=FIRST, second=SECOND, third=THIRD)},
}


@pytest.mark.parametrize("change", GROWTH.values(), ids=GROWTH)
def test_growth_needs_two_officers_in_force(house, change):
    grown = after(house.policy, **change)
    error = refused("CSL-P307", house.ledger.activate, grown, signed(grown, FIRST))
    assert "Two must, because:" in error.cause
    refused("CSL-P314", house.ledger.activate, grown, signed(grown, FIRST, THIRD))
    house.activate(grown)
    assert house.ledger.policy() == grown and house.verify().valid


def test_less_epsilon_that_waits_and_fewer_eyes(make_house, tmp_path):
    house = make_house(tmp_path, policy(approval__eyes=2, studies__0__automatic_epsilon=0.5))
    for change in ({"approval__eyes": 1}, {"studies__0__automatic_epsilon": 0.6}):
        looser = after(house.policy, **change)
        refused("CSL-P307", house.ledger.activate, looser, signed(looser, SECOND))
    stricter = after(house.policy, studies__0__automatic_epsilon=0.1)
    house.activate(stricter, SECOND)


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_one_officer_in_force_signs_what_does_not_grow(house, key):
    house.activate(after(house.policy, budget__period__epsilon=1.5, budget__period__days=60), key)
    assert house.ledger.state().limits.period_days == 60 and house.verify().valid
    house.activate(after(house.policy), key)


def test_nobody_else_signs_what_does_not_grow(house):
    smaller = after(house.policy, budget__period__epsilon=1.5)
    refused("CSL-P314", house.ledger.activate, smaller, signed(smaller, THIRD))
    refused("CSL-P307", house.ledger.activate, smaller, ())


def test_the_officers_in_force_decide_who_follows_them(house):
    """New officers cannot bring themselves into force, and the old ones sign no more once they are gone."""
    change = after(house.policy, officers=officers(third=THIRD, second=SECOND))
    refused("CSL-P314", house.ledger.activate, change, signed(change, SECOND, THIRD))
    house.activate(change, FIRST, SECOND)
    later = after(change)
    refused("CSL-P314", house.ledger.activate, later, signed(later, FIRST))
    house.activate(later, THIRD)


def test_a_single_officer_grows_nothing_alone_and_takes_a_second(make_house, tmp_path):
    alone = policy(officers=officers(first=FIRST))
    house = make_house(tmp_path, alone, keys=[FIRST])
    grown = after(alone, budget__period__epsilon=2.5)
    error = refused("CSL-P307", house.ledger.activate, grown, signed(grown, FIRST))
    assert "nobody else" in error.cause
    pair = after(alone, officers=officers(first=FIRST, second=SECOND))
    refused("CSL-P307", house.ledger.activate, pair, signed(pair, FIRST))
    refused("CSL-P307", house.ledger.activate, pair, signed(pair, SECOND))
    house.activate(pair, FIRST, SECOND)
    house.activate(after(pair, budget__period__epsilon=2.5), FIRST, SECOND)


def test_two_newcomers_do_not_replace_a_single_officer(make_house, tmp_path):
    alone = policy(officers=officers(first=FIRST))
    house = make_house(tmp_path, alone, keys=[FIRST])
    pair = after(alone, officers=officers(second=SECOND, third=THIRD))
    refused("CSL-P307", house.ledger.activate, pair, signed(pair, SECOND, THIRD))


SUCCESSION = [
    ({"institution": "birch"}, "CSL-P301"),
    ({"version": 1, "prev": None, "smallest_cohort": 400}, "CSL-P302"),
    ({"prev": "0" * 64}, "CSL-P309"),
    ({"budget__life__epsilon": 4.0}, "CSL-P303"),
    ({"budget__life__epsilon": 2.5}, "CSL-P303"),
    ({"budget__filter": {"kind": "rdp", "order": 16}}, "CSL-P310"),
    ({"studies__0__holdout__share": 0.3}, "CSL-P305"),
    ({"studies__0__contract": "other", "studies__0__holdout__share": 0.3}, "CSL-P305"),
]


@pytest.mark.parametrize(("change", "code"), SUCCESSION)
def test_policies_that_no_signature_brings_into_force(house, change, code):
    follows = after(house.policy, **change)
    refused(code, house.ledger.activate, follows, signed(follows))
    assert house.ledger.state().size == 2 and house.verify().valid


def test_an_old_rule_for_who_is_held_out_binds_after_its_contract_is_gone(house):
    house.activate(after(house.policy, studies__0__contract="other"))
    back = after(house.policy, studies__0__holdout__share=0.3)
    refused("CSL-P305", house.ledger.activate, back, signed(back))


def test_versions_may_be_left_out_and_activation_is_repeatable(house):
    size = house.ledger.state().size
    house.ledger.activate(house.policy, ())
    assert house.ledger.state().size == size
    house.activate(after(house.policy, version=7))
    assert house.ledger.policy().version == 7


# Approvals


@pytest.fixture
def waiting(make_house, tmp_path):
    """A house where every study waits for one officer."""
    return make_house(tmp_path, policy(**WAITING))


@pytest.fixture
def four_eyes(make_house, tmp_path):
    """A house where every study waits for two officers."""
    return make_house(tmp_path, policy(approval__eyes=2, **WAITING))


def test_a_study_waits_until_it_is_approved(waiting):
    refused("CSL-P415", waiting.reserve, RID)
    waiting.ledger.approve(decision("cd" * 32, waiting.policy))
    refused("CSL-P415", waiting.reserve, RID)
    waiting.ledger.approve(decision(RID, waiting.policy, SECOND))
    waiting.reserve(RID)
    assert waiting.verify().valid


def test_four_eyes_are_those_of_two_people(four_eyes):
    house = four_eyes
    first = decision(RID, house.policy)
    house.ledger.approve(first)
    refused("CSL-P415", house.reserve, RID)
    size = house.ledger.state().size
    house.ledger.approve(first)  # the same again changes nothing
    assert house.ledger.state().size == size
    refused("CSL-P313", house.ledger.approve, decision(RID, house.policy, reason="Once more."))
    refused("CSL-P313", house.ledger.approve, decision(RID, house.policy, decision="decline"))
    refused("CSL-P415", house.reserve, RID)
    house.ledger.approve(decision(RID, house.policy, SECOND))
    house.reserve(RID)
    assert [item.signature.key for item in house.ledger.decisions(RID)] == [public_hex(FIRST), public_hex(SECOND)]
    assert house.verify().valid


def test_one_officer_declines_for_all(four_eyes):
    house = four_eyes
    house.ledger.approve(decision(RID, house.policy, decision="decline"))
    refused("CSL-P416", house.reserve, RID)
    house.ledger.approve(decision(RID, house.policy, SECOND))
    refused("CSL-P416", house.reserve, RID)


def test_a_study_that_needs_nobody_may_still_be_declined(house):
    house.ledger.approve(decision(RID, house.policy, decision="decline"))
    refused("CSL-P416", house.reserve, RID)
    house.reserve("cd" * 32)


def test_below_the_automatic_limit_nobody_is_asked(make_house, tmp_path):
    house = make_house(tmp_path, policy(studies__0__automatic_epsilon=0.9))
    house.reserve("a", terms=house.terms(epsilon=0.9))
    refused("CSL-P415", house.reserve, "b", terms=house.terms(epsilon=0.91))


def test_approvals_under_an_old_policy_do_not_count(four_eyes):
    house = four_eyes
    for key in (FIRST, SECOND):
        house.ledger.approve(decision(RID, house.policy, key))
    old = house.policy
    house.activate(after(old, smallest_cohort=600))
    refused("CSL-P415", house.reserve, RID)
    refused("CSL-P312", house.ledger.approve, decision(RID, old, FIRST, reason="late"))
    for key in (FIRST, SECOND):  # who decided under the old one decides anew
        house.ledger.approve(decision(RID, house.policy, key))
    house.reserve(RID)
    assert house.verify().valid


def test_one_officers_no_is_not_undone_by_a_new_policy(waiting):
    house = waiting
    house.ledger.approve(decision(RID, house.policy, decision="decline"))
    house.activate(after(house.policy, smallest_cohort=600))
    house.ledger.approve(decision(RID, house.policy))
    refused("CSL-P416", house.reserve, RID)


def test_decisions_of_others_or_about_granted_studies_are_refused(waiting):
    house = waiting
    refused("CSL-P314", house.ledger.approve, decision(RID, house.policy, STRANGER))
    forged = decision(RID, house.policy).model_copy(update={"signature": decision("cd" * 32, house.policy).signature})
    refused("CSL-P314", house.ledger.approve, forged)
    house.ledger.approve(decision(RID, house.policy))
    house.reserve(RID)
    refused("CSL-P418", house.ledger.approve, decision(RID, house.policy, SECOND))
    house.ledger.close(RID)
    refused("CSL-P418", house.ledger.approve, decision(RID, house.policy, SECOND))


def test_without_a_policy_nobody_decides(bare):
    refused("CSL-P312", bare.approve, decision(RID, policy()))


def test_what_decisions_come_to():
    document = policy()
    digest = document.digest()
    yes, again = decision(RID, document), decision(RID, document, SECOND)
    no = decision(RID, document, THIRD, decision="decline")
    assert standing(digest, 1, ()) == "waiting" and standing(digest, 0, ()) == "approved"
    assert standing(digest, 1, (yes,)) == "approved" and standing(digest, 2, (yes,)) == "waiting"
    assert standing(digest, 2, (yes, yes)) == "waiting" and standing(digest, 2, (yes, again)) == "approved"
    assert standing(digest, 1, (yes, again, no)) == "declined"
    assert standing("0" * 64, 1, (yes, again)) == "waiting" and standing("0" * 64, 0, (yes, no)) == "declined"


# Restoring


def test_a_restoration_needs_two_officers_who_signed_for_this_copy(house):
    house.reserve("a")
    head = house.ledger.tree_head()
    restore = house.ledger.restore
    refused("CSL-P315", restore, restoration("alder", head.size, head.root, FIRST, FIRST))
    refused("CSL-P314", restore, restoration("alder", head.size, head.root, FIRST, THIRD))
    refused("CSL-P317", restore, restoration("birch", head.size, head.root))
    refused("CSL-P317", restore, restoration("alder", head.size - 1, head.root))
    refused("CSL-P317", restore, restoration("alder", head.size, "0" * 64))
    good = restoration("alder", head.size, head.root)
    forged = good.model_copy(update={"statement": good.statement.model_copy(update={"complete": True})})
    refused("CSL-P314", restore, forged)
    assert not house.ledger.state().exhausted
    restore(good)
    after_once = house.ledger.tree_head()
    restore(good)
    assert house.ledger.tree_head() == after_once and house.verify().valid


def test_nothing_remains_after_a_restoration_that_may_lack_entries(house):
    house.reserve("a")
    house.release("a", 1)
    head = house.ledger.tree_head()
    house.ledger.restore(restoration("alder", head.size, head.root))
    assert house.ledger.state().exhausted
    refused("CSL-P413", house.release, "a", 2)
    house.release("a", 1)  # what was released is sent again, free
    refused("CSL-P413", house.reserve, "b")
    assert all(item.exhausted and item.left_epsilon == 0 for item in house.ledger.spending(house.clock.now))
    assert house.ledger.close("a") == ("holdout",)
    house.activate(after(house.policy))
    refused("CSL-P413", house.reserve, "b")
    house.clock.pass_days(1000)
    refused("CSL-P413", house.reserve, "b")
    head = house.ledger.tree_head()
    house.ledger.restore(restoration("alder", head.size, head.root, complete=True, note=noted(house, head)))
    assert house.ledger.state().exhausted, "what was lost once does not come back"
    assert house.verify().valid


def noted(house, head):
    return sign_checkpoint(house.key, Checkpoint("consilience/test/alder", head.size, head.root))


def test_a_complete_copy_with_its_note_goes_on(house):
    house.reserve("a")
    head = house.ledger.tree_head()
    longer = type(head)(head.size + 1, "1" * 64)
    for note in (noted(house, longer), noted(house, type(head)(head.size, "1" * 64))):
        refused(
            "CSL-P317",
            house.ledger.restore,
            restoration("alder", head.size, head.root, complete=True, note=note),
        )
    refused(
        "CSL-F611",
        house.ledger.restore,
        restoration("alder", head.size, head.root, complete=True, note="no note"),
    )
    house.ledger.restore(restoration("alder", head.size, head.root, complete=True, note=noted(house, head)))
    assert not house.ledger.state().exhausted
    house.release("a", 1)
    house.reserve("b", noise=20.0)
    assert house.verify().valid


@pytest.mark.parametrize(("complete", "with_note"), [(False, True), (True, False)])
def test_word_and_note_are_both_needed(house, complete, with_note):
    head = house.ledger.tree_head()
    note = noted(house, head) if with_note else ""
    house.ledger.restore(restoration("alder", head.size, head.root, complete=complete, note=note))
    assert house.ledger.state().exhausted


def test_without_a_policy_nothing_is_restored(bare):
    head = bare.tree_head()
    refused("CSL-P314", bare.restore, restoration("alder", head.size, head.root))
