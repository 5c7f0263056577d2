"""The vault under its officers: the policy in the ledger, studies that wait for them, and plans."""

import pytest

from client.inbox import Inbox
from client.vault import Vault
from federation.document import load_yaml
from federation.messages import Grant, TrainRelease, unpack
from federation.signing import sign
from federation.study import Training
from privacy.events import DiscreteGaussianHistogram, SubsampledGaussian
from privacy.ledger import verify
from privacy.ledger.entries import APPROVAL_CONTEXT, ApprovalStatement, ApproveData
from privacy.policy import Policy
from tests.client import vault_home
from tests.client.entries import kinds, raw, reasons, refused, written
from tests.client.vault_home import Town

SLOT = {
    "id": "spring",
    "purpose": "marketing.propensity",
    "contract": "shop",
    "noise_multiplier": 6.0,
    "sampling_rate": 0.5,
    "steps": 3,
    "histogram_sigma": 9.0,
}


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


@pytest.fixture
def careful(tmp_path) -> Town:
    """A town whose officers want to see every study above epsilon 0.5."""
    return vault_home.found(tmp_path / "careful", automatic=0.5)


def waiting(town: Town) -> list[str]:
    return [study.rid for study in Inbox(town.homes["alder"].folder("inbox")).list()]


def offered(town: Town, vault: Vault, spec) -> bytes:
    return raw(vault.answer("query.offer", town.offer(spec)))


# The policy in force is the ledger's.


def test_without_a_policy_in_force_every_study_is_refused_and_nothing_is_spent(tmp_path):
    town = vault_home.found(tmp_path, active=False)
    vault, spec = town.vault(), town.spec()
    assert refused(town, vault.answer("query.offer", town.offer(spec)))
    assert refused(town, vault.answer("train", town.train(spec, 1)))
    assert kinds(town) == ["genesis", "refuse", "refuse"] and reasons(town)[0] == "CSL-C527"
    assert not vault._rooms and not list(town.homes["alder"].folder("studies").iterdir())
    for member in town.homes:
        town.activate(load_yaml(town.homes[member].policy_file, Policy), member)
    assert town.grant(vault, spec).epsilon == 2.0  # the running vault obeys it at once


EDITS = {
    "more epsilon": lambda text: text.replace("max_epsilon: 2.0", "max_epsilon: 4.0"),
    "less epsilon": lambda text: text.replace("max_epsilon: 2.0", "max_epsilon: 1.0"),
    "expired": lambda text: text.replace("expires: 2100-01-01", "expires: 2020-01-02"),
    "another purpose": lambda text: text.replace("marketing.propensity", "marketing.other"),
    "a next version": lambda text: text.replace("version: 1", f"version: 2\nprev: {'0' * 64}"),
    "no officers": lambda text: text.replace("eyes: 2", "eyes: 1"),
    "garbage": lambda text: "\0" + text,
    "empty": lambda text: "",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_policy_file_changes_nothing(town, edit):
    usual = town.grant(town.vault(), town.spec())
    path = town.homes["alder"].policy_file
    text = vault_home.POLICY.format(member="alder", epsilon=2.0, automatic=2.0, first="1" * 64, second="2" * 64)
    assert EDITS[edit](text) != text
    path.write_text(EDITS[edit](text))
    later, other = town.vault(), town.spec().model_copy(update={"nonce": "1" * 32})
    granted = town.grant(later, other)
    assert granted == usual.model_copy(update={"study": other.digest()})
    unpack(later.answer("train", town.train(other, 1)), TrainRelease, town.key("alder"))
    path.unlink()
    unpack(town.vault().answer("train", town.train(other, 2)), TrainRelease, town.key("alder"))
    assert kinds(town).count("policy") == 1 and reasons(town) == []


def test_a_policy_lowered_while_a_study_runs_stops_it_and_raising_it_again_lets_it_go_on(town):
    vault, spec = town.vault(), town.spec()
    town.grant(vault, spec)
    unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    town.change_rule(max_epsilon=1.0, automatic_epsilon=1.0)
    assert refused(town, vault.answer("train", town.train(spec, 2)))
    assert refused(town, vault.answer("evaluate", town.evaluate(spec)))
    assert reasons(town) == ["CSL-C524"] * 2
    town.change_rule(max_epsilon=2.0, automatic_epsilon=2.0)
    unpack(vault.answer("train", town.train(spec, 2)), TrainRelease, town.key("alder"))
    assert kinds(town).count("reserve") == 1 and kinds(town).count("release") == 2
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid


# Studies that wait.


def test_a_study_above_the_automatic_limit_waits_until_two_officers_approved_it(careful):
    vault, spec = careful.vault(), careful.spec()
    usual = raw(vault.answer("train", careful.train(spec, 1)))  # the refusal that everybody gets
    assert offered(careful, vault, spec) == usual
    assert reasons(careful) == ["CSL-C511", "CSL-C528"] and waiting(careful) == [spec.digest()]
    pending = Inbox(careful.homes["alder"].folder("inbox")).find("propensity")
    pending.check(careful.charter.coordinator_key)
    assert (pending.spec, pending.epsilon, pending.delta) == (spec, 2.0, 1e-5)
    careful.approve(spec, eyes=1)
    assert offered(careful, vault, spec) == usual and waiting(careful) == [spec.digest()]
    assert "reserve" not in kinds(careful)
    assert refused(careful, vault.answer("train", careful.train(spec, 1)))
    careful.approve(spec)  # the first officer's decision again changes nothing; the second one's counts
    first = offered(careful, vault, spec)
    assert b'"grant"' in first and waiting(careful) == []
    assert offered(careful, vault, spec) == first and offered(careful, careful.vault(), spec) == first
    unpack(vault.answer("train", careful.train(spec, 1)), TrainRelease, careful.key("alder"))
    assert kinds(careful).count("approve") == 2 and kinds(careful).count("reserve") == 1
    assert verify(careful.homes["alder"].ledger_file, careful.key("alder")).valid


def test_a_study_within_the_automatic_limit_waits_for_nobody(careful):
    assert careful.grant(careful.vault(), careful.spec(epsilon=0.5)).epsilon == 0.5
    assert waiting(careful) == []


def test_a_single_officer_is_enough_where_the_policy_says_so(careful):
    careful.change(approval={"eyes": 1})
    vault, spec = careful.vault(), careful.spec()
    assert refused(careful, vault.answer("query.offer", careful.offer(spec)))
    careful.approve(spec, eyes=1)
    assert careful.grant(vault, spec).epsilon == 2.0


@pytest.mark.parametrize("before", [0, 1], ids=["at once", "after the other's approval"])
def test_a_declined_study_is_refused_for_good(careful, before):
    vault, spec = careful.vault(), careful.spec()
    usual = offered(careful, vault, spec)
    with careful.ledger() as ledger:
        digest = ledger.state().policy_digest
        for which, decision in list(enumerate(["approve", "decline"]))[1 - before :]:
            statement = ApprovalStatement(study=spec.digest(), policy=digest, decision=decision, reason="Tests")
            signature = sign(careful.officers["alder"][which], APPROVAL_CONTEXT, statement)
            ledger.approve(ApproveData(name=spec.draft.name, statement=statement, signature=signature))
    assert offered(careful, vault, spec) == offered(careful, careful.vault(), spec) == usual
    assert set(reasons(careful)) == {"CSL-C528", "CSL-P416"} and "reserve" not in kinds(careful)


def test_officers_may_decline_what_no_rule_lets_wait(town):
    vault, spec = town.vault(), town.spec()
    town.approve(spec, decision="decline", eyes=1)
    assert refused(town, vault.answer("query.offer", town.offer(spec)))
    assert reasons(town) == ["CSL-P416"] and "reserve" not in kinds(town)


def test_a_study_changed_after_its_approval_is_another_study_and_waits(careful):
    vault, spec = careful.vault(), careful.spec()
    careful.approve(spec)
    for changed in (
        spec.model_copy(update={"nonce": "1" * 32}),
        careful.spec(title="Another title"),
        careful.spec(training=Training(mode="fedsgd", rounds=4, steps=4, sampling_rate=0.5)),
    ):
        assert refused(careful, vault.answer("query.offer", careful.offer(changed)))
        assert changed.digest() in waiting(careful)
    assert set(reasons(careful)) == {"CSL-C528"} and "reserve" not in kinds(careful)
    assert careful.grant(vault, spec).study == spec.digest()


def test_an_approval_under_an_earlier_policy_does_not_count(careful):
    vault, spec = careful.vault(), careful.spec()
    careful.approve(spec)
    careful.change(smallest_cohort=101)
    usual = offered(careful, vault, spec)
    assert reasons(careful) == ["CSL-C528"] and waiting(careful) == [spec.digest()]
    careful.approve(spec, eyes=1)
    assert offered(careful, vault, spec) == usual  # one officer under each policy are not two
    careful.approve(spec)
    assert b'"grant"' in offered(careful, vault, spec)


def test_what_was_granted_after_an_approval_goes_on_under_a_policy_that_lets_less_through(careful):
    vault, spec = careful.vault(), careful.spec()
    careful.approve(spec)
    careful.grant(vault, spec)
    careful.change_rule(automatic_epsilon=0.0)
    unpack(vault.answer("train", careful.train(spec, 1)), TrainRelease, careful.key("alder"))


def test_the_inbox_forgets_a_study_that_was_granted_before_a_crash(careful, monkeypatch):
    vault, spec = careful.vault(), careful.spec()
    assert refused(careful, vault.answer("query.offer", careful.offer(spec)))
    careful.approve(spec)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(vault._gate, "admitted", die)
    with pytest.raises(KeyboardInterrupt):
        vault.answer("query.offer", careful.offer(spec))
    assert waiting(careful) == [spec.digest()]
    careful.grant(careful.vault(), spec)
    assert waiting(careful) == [] and kinds(careful).count("reserve") == 1


# Plans.


@pytest.fixture
def planned(town) -> Town:
    """A town whose plan has two slots, the second one of half the length."""
    with town.ledger() as ledger:
        budget = ledger.policy().budget.model_dump(mode="json")
    slots = [SLOT, SLOT | {"id": "summer", "steps": 2, "noise_multiplier": 5.0}]
    town.change(budget=budget | {"mode": "plan", "slots": slots})
    return town


def test_studies_fill_the_slots_of_a_plan_and_then_there_is_no_more(planned):
    vault, spec = planned.vault(), planned.spec()
    grant = planned.grant(vault, spec)
    assert grant.noise_multiplier >= SLOT["noise_multiplier"] and grant.histogram_sigma >= SLOT["histogram_sigma"]
    for number in (1, 2, 3):
        unpack(vault.answer("train", planned.train(spec, number)), TrainRelease, planned.key("alder"))
    assert b"evaluate" in raw(vault.answer("evaluate", planned.evaluate(spec)))
    model = planned.weights(spec, 0.1)
    vault.answer("query.model", planned.model(spec, model))
    vault.answer("query.receipts", planned.receipts(spec, model))
    assert "close" in kinds(planned)
    large = spec.model_copy(
        update={"nonce": "1" * 32}
    )  # the other slot is too short for it, and no slot is filled twice
    usual = raw(vault.answer("query.offer", planned.offer(large)))
    assert refused(planned, vault.answer("query.offer", planned.offer(large))) and reasons(planned) == ["CSL-P212"]
    small = planned.spec(training=Training(mode="fedsgd", rounds=1, steps=1, sampling_rate=0.25))
    last = planned.grant(vault, small)
    assert last.noise_multiplier >= 5.0 and (last.steps, last.sampling_rate) == (1, 0.25)
    again = small.model_copy(update={"nonce": "2" * 32})
    assert raw(vault.answer("query.offer", planned.offer(again))) == usual
    assert reasons(planned) == ["CSL-P212"] * 2
    reserved = written(planned, "reserve")
    assert [data["slot"] for data in reserved] == ["spring", "summer"]
    assert all(charge["cost"] == {"nano": 0, "femto": 0} for data in reserved for charge in data["charges"])
    assert verify(planned.homes["alder"].ledger_file, planned.key("alder")).valid


def test_a_study_goes_on_in_its_slot_when_every_slot_is_taken(planned):
    vault, spec = planned.vault(), planned.spec()
    small = planned.spec(training=Training(mode="fedsgd", rounds=1, steps=1, sampling_rate=0.25))
    planned.grant(vault, spec)
    planned.grant(vault, small)
    for study in (spec, small):
        unpack(vault.answer("train", planned.train(study, 1)), TrainRelease, planned.key("alder"))
        unpack(planned.vault().answer("query.offer", planned.offer(study)), Grant, planned.key("alder"))


def test_an_offer_in_a_slot_is_granted_once_after_a_crash(planned, monkeypatch):
    vault, spec = planned.vault(), planned.spec()

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(vault._studies, "keep", die)
    with pytest.raises(KeyboardInterrupt):
        vault.answer("query.offer", planned.offer(spec))
    again = planned.vault()
    planned.grant(again, spec)
    unpack(again.answer("train", planned.train(spec, 1)), TrainRelease, planned.key("alder"))
    assert [data["slot"] for data in written(planned, "reserve")] == ["spring"]


def test_a_slot_is_filled_with_the_noise_that_the_whole_plan_was_counted_with(planned):
    """A study that asks for less epsilon gets more noise than the slot's; one that may have more, the slot's."""
    vault = planned.vault()
    strict = planned.grant(vault, planned.spec(epsilon=0.2))
    assert strict.noise_multiplier > SLOT["noise_multiplier"] and strict.histogram_sigma > SLOT["histogram_sigma"]
    small = planned.spec(training=Training(mode="fedsgd", rounds=1, steps=1, sampling_rate=0.1))
    assert planned.grant(vault, small).noise_multiplier == 5.0
    for data in written(planned, "reserve"):
        events = {charge["account"]: charge["events"][0] for charge in data["charges"]}
        SubsampledGaussian.model_validate(events["training"])
        DiscreteGaussianHistogram.model_validate(events["holdout"])


def test_a_study_above_the_automatic_limit_waits_even_where_a_slot_is_free(planned):
    planned.change_rule(automatic_epsilon=0.5)
    vault, spec = planned.vault(), planned.spec()
    assert refused(planned, vault.answer("query.offer", planned.offer(spec)))
    assert waiting(planned) == [spec.digest()] and reasons(planned) == ["CSL-C528"]
    planned.approve(spec)
    assert planned.grant(vault, spec).noise_multiplier >= SLOT["noise_multiplier"]
