"""The vault and its own house: customers who withdraw, what it writes down, copies that are locked or too old."""

import shutil
import sqlite3

import numpy as np
import pytest
from safetensors.numpy import load

from client import rooms as module
from client.participation import recorded, studies_of
from client.unlock import unlock
from client.vault import Vault
from client.withdrawal import register
from client.witness import Witness
from federation.errors import IntegrityError, StorageError
from federation.heads import origin_of
from federation.messages import Acknowledged, EvaluateRelease, Hello, Identity, TrainRelease, pack, unpack
from federation.note import cosign
from federation.study import LogisticModel
from privacy.ledger import Ledger, verify
from privacy.randomness import SystemSource
from tests.client import vault_home
from tests.client.entries import kinds, name_list, raw, reasons, refused, store, written
from tests.client.vault_home import CANARY, Town

DAY = 86_400_000


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


@pytest.fixture
def vault(town) -> Vault:
    return town.vault()


def withdraw(town: Town, *customers: str) -> None:
    """What the officers' command does, in another process while the vault runs."""
    register(town.homes["alder"], store(town), customers)


def room(vault: Vault, spec):
    return vault._rooms.held(spec.digest())


# Customers who withdraw.


def test_a_withdrawal_while_a_study_is_open_counts_from_the_next_round_on(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    before = room(vault, spec)
    gone = {str(before.training_ids[0]), str(before.heldout.ids[0])}
    withdraw(town, *gone)
    unpack(vault.answer("train", town.train(spec, 2)), TrainRelease, town.key("alder"))
    after = room(vault, spec)
    assert set(before.training_ids) - set(after.training_ids) == {str(before.training_ids[0])}
    assert set(before.heldout.ids) - set(after.heldout.ids) == {str(before.heldout.ids[0])}
    assert len(after.training) == len(before.training) - 1 == len(after.training_labels)
    assert before.consented - after.consented == gone
    unpack(vault.answer("evaluate", town.evaluate(spec)), EvaluateRelease, town.key("alder"))
    assert room(vault, spec) is after  # read once for each state of the register
    first, second = (data["salted"] for data in written(town, "consent"))
    assert first != second
    seen = studies_of(town.homes["alder"], store(town), gone)[spec.digest()]
    assert (seen.training, seen.heldout) == (1, 1)  # the record says who was ever read
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid


def test_whoever_withdrew_before_is_never_read(town, vault):
    everybody = {f"{CANARY}-alder-{number}" for number in range(vault_home.SIZE)}
    few = {f"{CANARY}-alder-{number}" for number in range(10)}
    withdraw(town, *(everybody - few))
    spec = town.spec()
    town.grant(vault, spec)
    _, payload = unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert set(room(vault, spec).training_ids) | set(room(vault, spec).heldout.ids) <= few
    assert np.isfinite(load(payload)["linear.weight"]).all()
    assert room(vault, spec).consented <= few


def test_when_everybody_withdrew_the_reply_is_noise(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    withdraw(town, *(f"{CANARY}-alder-{number}" for number in range(vault_home.SIZE)))
    _, payload = unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert np.abs(load(payload)["linear.weight"]).sum() > 0
    unpack(vault.answer("evaluate", town.evaluate(spec)), EvaluateRelease, town.key("alder"))
    assert len(room(vault, spec).training) == len(room(vault, spec).heldout) == 0


def test_nobody_who_withdrew_stands_on_the_list_of_a_study_that_was_trained_with_them(town, vault):
    spec = town.spec(model=LogisticModel(kind="logistic"))
    model = town.weights(spec, 1.0)
    town.grant(vault, spec)
    vault.answer("train", town.train(spec, 1))
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    best = name_list(town).listed[0].customer
    other = spec.model_copy(update={"nonce": "1" * 32})
    town.grant(vault, other)
    withdraw(town, best)
    vault.answer("query.model", town.model(other, model))
    unpack(vault.answer("query.receipts", town.receipts(other, model)), Acknowledged, town.key("alder"))
    newest = name_list(town)
    assert newest.listed and best not in {line.customer for line in newest.listed}


def test_a_policy_that_asks_for_another_consent_counts_from_the_next_round_on(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    vault.answer("train", town.train(spec, 1))
    before = room(vault, spec)
    purpose = {"id": "marketing.propensity", "meaning": "Who may buy", "consent": "contact"}
    town.change(purposes=[purpose])
    unpack(vault.answer("train", town.train(spec, 2)), TrainRelease, town.key("alder"))
    agreed = {f"{CANARY}-alder-{number}" for number in range(vault_home.SIZE) if number % 3 == 0}
    assert room(vault, spec).consented == agreed != before.consented
    assert set(room(vault, spec).training_ids) <= agreed
    assert [data["consent"] for data in written(town, "consent")] == ["profiling", "contact"]


def test_without_the_register_nobody_is_read(town, vault):
    """A register that is not there says nothing about who withdrew."""
    spec = town.spec()
    town.grant(vault, spec)
    town.homes["alder"].withdrawn_file.unlink()
    assert refused(town, vault.answer("train", town.train(spec, 1)))
    assert reasons(town) == ["CSL-C545"] and not vault._rooms and "release" not in kinds(town)


# What the vault writes down.


def test_participation_and_consent_are_written_at_each_reading_before_the_first_release(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    assert not recorded(town.homes["alder"])
    for number in (1, 2, 3):
        vault.answer("train", town.train(spec, number))
    later = town.vault()  # a restart reads the same data again
    unpack(later.answer("evaluate", town.evaluate(spec)), EvaluateRelease, town.key("alder"))
    assert kinds(town) == ["genesis", "policy", "reserve", "consent", *["release"] * 3, "consent", "release"]
    assert recorded(town.homes["alder"]) == {spec.digest()}
    data, again = written(town, "consent")
    assert data == again and (data["purpose"], data["consent"]) == ("marketing.propensity", "profiling")
    agreed = {f"{CANARY}-alder-{number}" for number in range(vault_home.SIZE) if number % 10}
    assert room(later, spec).consented == agreed
    seen = studies_of(town.homes["alder"], store(town), agreed)[spec.digest()]
    assert (seen.training, seen.heldout) == (len(room(later, spec).training), len(room(later, spec).heldout))
    assert seen.training + seen.heldout == len(agreed)


@pytest.mark.parametrize("what", ["record", "consent_digest"])
def test_nothing_is_computed_from_data_before_it_is_written_down_who_they_are_of(town, vault, monkeypatch, what):
    spec = town.spec()
    town.grant(vault, spec)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, what, die)
    with pytest.raises(KeyboardInterrupt):
        vault.answer("train", town.train(spec, 1))
    monkeypatch.undo()
    assert "release" not in kinds(town) and not vault._rooms
    unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert kinds(town)[-2:] == ["consent", "release"]


def test_the_same_refusal_is_written_once_a_day_and_another_one_at_once(town):
    home, now = town.homes["alder"], []
    with town.ledger() as ledger:
        now.append(ledger.now())
    keys = unlock(home)
    opened = Vault(home, keys, Ledger.open(home.ledger_file, keys.identity, clock=lambda: now[0]), SystemSource())
    spec, other = town.spec(), town.spec(epsilon=3.0)
    replies = [raw(opened.answer("train", town.train(spec, 1))) for _ in range(3)]
    replies += [raw(opened.answer("query.offer", town.offer(other))) for _ in range(3)]
    replies += [raw(opened.answer("train", town.train(spec, 1)))]
    assert len(set(replies)) == 1 and reasons(town) == ["CSL-C511", "CSL-P204"]
    now[0] += DAY
    replies += [raw(opened.answer("train", town.train(spec, 1))) for _ in range(2)]
    assert len(set(replies)) == 1 and reasons(town) == ["CSL-C511", "CSL-P204", "CSL-C511"]


def test_a_refusal_that_could_not_be_written_is_written_when_it_comes_again(town, vault, monkeypatch):
    write = Ledger.refuse

    def full(*args, **kwargs):
        raise StorageError("CSL-P511", "disk full", "free space")

    monkeypatch.setattr(Ledger, "refuse", full)
    assert refused(town, vault.answer("train", town.train(town.spec(), 1)))
    monkeypatch.setattr(Ledger, "refuse", write)
    assert refused(town, vault.answer("train", town.train(town.spec(), 1)))
    assert reasons(town) == ["CSL-C511"]


# Copies.


def test_a_home_that_was_restored_opens_no_vault_and_stops_one_that_runs(town, vault):
    home, spec = town.homes["alder"], town.spec()
    usual = raw(vault.answer("train", town.train(spec, 1)))
    town.grant(vault, spec)
    home.lock_file.write_text("restored")
    with pytest.raises(IntegrityError, match="CSL-C006"):
        town.vault()
    assert raw(vault.answer("train", town.train(spec, 1))) == usual
    assert raw(vault.answer("query.hello", town.hello())) == usual
    assert not vault._rooms and kinds(town)[-1] == "reserve"  # officers sign for the copy as it is: it must not grow
    home.lock_file.unlink()
    unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))


def copy_ledger(town: Town, name: str) -> None:
    """Copy the ledger within the home, whole."""
    root = town.homes["alder"].root
    with sqlite3.connect(root / "ledger.sqlite") as source, sqlite3.connect(root / name) as target:
        source.backup(target)


def put_back(town: Town, name: str) -> None:
    root = town.homes["alder"].root
    for path in root.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copyfile(root / name, root / "ledger.sqlite")
    (root / "ledger.sqlite").chmod(0o600)


def test_a_vault_writes_into_no_ledger_that_was_exchanged_under_it(town, vault):
    """Its own file has no name any more: what it wrote there would count for nobody."""
    spec = town.spec()
    usual = raw(vault.answer("train", town.train(spec, 1)))
    town.grant(vault, spec)
    copy_ledger(town, "same")
    put_back(town, "same")
    before = kinds(town)
    for kind, request in (("query.offer", town.offer(spec)), ("train", town.train(spec, 1))):
        assert raw(vault.answer(kind, request)) == usual
    town.homes["alder"].ledger_file.rename(town.homes["alder"].root / "gone")
    assert raw(vault.answer("train", town.train(spec, 1))) == usual
    (town.homes["alder"].root / "gone").rename(town.homes["alder"].ledger_file)
    assert kinds(town) == before and vault._ledger.state().size == len(before) and not vault._rooms
    unpack(town.vault().answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))


def test_a_vault_notices_an_older_copy_that_is_written_into_the_very_file(town, vault):
    """The same file by its number, and the coordinator shows the note that was compared last: still nothing is spent twice."""
    spec, path = town.spec(), town.homes["alder"].ledger_file
    usual = raw(vault.answer("train", town.train(spec, 1)))
    old = path.read_bytes()
    town.grant(vault, spec)
    hello = pack(town.coordinator, Hello(charter=town.charter.digest(), nonce="1" * 32, note=countersigned(town)))
    unpack(vault.answer("query.hello", hello), Identity, town.key("alder"))
    new = path.read_bytes()
    path.write_bytes(old)
    size = len(kinds(town))
    other = town.spec(name="another")
    for kind, request in (("query.hello", hello), ("query.offer", town.offer(other)), ("train", town.train(spec, 1))):
        assert raw(vault.answer(kind, request)) == usual
    assert len(kinds(town)) == size and not vault._rooms
    path.write_bytes(new)
    unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))


def countersigned(town: Town) -> str:
    """The note of the first member's ledger as it is now, signed by another member as well."""
    home = town.homes["alder"]
    with town.ledger() as ledger:
        note, _ = Witness(home, ledger, town.charter, unlock(home).identity, "alder").prove()
    name = origin_of(town.charter.federation, "birch")
    return cosign(note, unlock(town.homes["birch"]).identity, name, 1_800_000_000)


def test_a_vault_whose_ledger_is_older_than_its_countersigned_head_does_not_open(town, vault):
    copy_ledger(town, "old")
    town.grant(vault, town.spec())
    home = town.homes["alder"]
    with town.ledger() as ledger:
        witness = Witness(home, ledger, town.charter, unlock(home).identity, "alder")
        assert witness.keep_own(countersigned(town)).cosigners
    put_back(town, "old")
    with pytest.raises(IntegrityError, match="CSL-C532"):
        town.vault()


def test_a_vault_that_learns_that_its_ledger_is_an_older_copy_answers_nothing_more(town, vault):
    """Nothing at home says so: whoever put the old ledger back took the notes away as well. The coordinator still has one."""
    spec = town.spec()
    usual = raw(vault.answer("train", town.train(spec, 1)))
    copy_ledger(town, "old")
    town.grant(vault, spec)
    vault.answer("train", town.train(spec, 1))
    note = countersigned(town)
    put_back(town, "old")
    back = town.vault()
    hello = pack(town.coordinator, Hello(charter=town.charter.digest(), nonce="1" * 32, note=note))
    assert raw(back.answer("query.hello", hello)) == usual
    size = len(kinds(town))
    for kind, request in (
        ("query.hello", town.hello()),
        ("query.offer", town.offer(spec)),
        ("train", town.train(spec, 1)),
        ("evaluate", town.evaluate(spec)),
    ):
        assert raw(back.answer(kind, request)) == usual
    assert len(kinds(town)) == size and not back._rooms  # an old copy does not go on growing
    with pytest.raises(IntegrityError, match="CSL-C532"):  # nor after a restart
        town.vault()


def test_a_vault_goes_on_when_the_coordinator_shows_it_its_own_last_head(town, vault):
    note = countersigned(town)
    hello = pack(town.coordinator, Hello(charter=town.charter.digest(), nonce="1" * 32, note=note))
    unpack(vault.answer("query.hello", hello), Identity, town.key("alder"))
    town.grant(vault, town.spec())
    unpack(town.vault().answer("query.hello", hello), Identity, town.key("alder"))


def test_receipts_of_a_study_that_is_over_put_no_old_model_back_in_use(town, vault):
    spec = town.spec(model=LogisticModel(kind="logistic"))
    model = town.weights(spec, 1.0)
    town.grant(vault, spec)
    vault.answer("query.model", town.model(spec, model))
    first = raw(vault.answer("query.receipts", town.receipts(spec, model)))
    home = town.homes["alder"]
    pointer = next(home.folder("models").glob("in-use-*"))
    pointer.unlink()
    assert raw(vault.answer("query.receipts", town.receipts(spec, model))) == first
    assert not pointer.exists()
