import datetime
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import ConsilienceError, IntegrityError, PolicyError, StorageError
from privacy.events import SubsampledGaussian
from privacy.ledger import Ledger, LedgerReader
from privacy.token import price

HOLDOUT_KEY = b"h" * 32
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"other".ljust(32, b"."))


def refused(code, call, *arguments, **named):
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


def test_a_study_from_reserve_to_close(house):
    reservation = house.reserve("a", rounds=2)
    assert not house.ledger.has_release("a", 1)
    for number in (1, 2):
        house.release("a", number)
    house.release("a", 3, "holdout")
    assert house.ledger.has_release("a", 3)
    assert house.ledger.close("a") == ()
    assert house.ledger.has_reservation("a") and not house.ledger.has_reservation("b")
    assert [entry.body.kind for entry in house.ledger.entries()] == [
        "genesis",
        "policy",
        "reserve",
        "release",
        "release",
        "release",
        "close",
    ]
    training = house.ledger.spending(house.clock.now)[0]
    assert training.spent == reservation.data.charge("training").cost
    assert house.verify().valid and house.verify().head == house.ledger.tree_head()


def test_the_file_is_closed_to_others_and_never_overwritten(house):
    assert stat.S_IMODE(house.path.stat().st_mode) == 0o600
    refused("CSL-P510", Ledger.create, house.path, house.key, member="alder", holdout_key=HOLDOUT_KEY)
    assert [path.name for path in house.path.parent.iterdir()] == ["ledger.sqlite"]
    os.chmod(house.path, 0o640)
    refused("CSL-P505", house.open)


def test_the_journal_is_durable_and_the_schema_untrusted(house):
    connection = house.ledger._store._connection
    values = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "trusted_schema")
    }
    assert values == {"journal_mode": "delete", "synchronous": 3, "trusted_schema": 0}


@pytest.mark.parametrize(
    "statement",
    ["UPDATE entry SET ts = 1", "DELETE FROM entry", "UPDATE entry SET kind = 'close'", "DELETE FROM released"],
)
def test_entries_can_be_neither_changed_nor_removed(house, statement):
    house.reserve("a")
    house.release("a", 1)
    with pytest.raises(sqlite3.Error):
        sqlite3.connect(house.path, isolation_level=None).execute(statement)
    assert house.verify().valid


def test_opening_needs_the_right_file_and_key(house, tmp_path):
    refused("CSL-P513", Ledger.open, tmp_path / "none.sqlite", house.key)
    refused("CSL-P604", Ledger.open, house.path, OTHER_KEY)
    text = tmp_path / "text.sqlite"
    text.write_bytes(b"not a database, but long enough to look at" * 30)
    text.chmod(0o600)
    refused("CSL-P601", Ledger.open, text, house.key)
    empty = tmp_path / "empty.sqlite"
    empty.touch(0o600)
    refused("CSL-P601", Ledger.open, empty, house.key)


def test_a_newer_format_is_refused(house):
    house.tamper(("PRAGMA user_version = 2", ()))
    refused("CSL-P603", house.open)


def test_the_holdout_key_is_one_for_the_budgets_life(house):
    house.ledger.check_holdout_key(HOLDOUT_KEY)
    refused("CSL-P606", house.ledger.check_holdout_key, b"i" * 32)


def test_what_is_not_reserved_cannot_leave(house):
    refused("CSL-P405", house.release, "a", 1)
    house.reserve("a", rounds=2)
    house.release("a", 1)
    house.release("a", 2)
    refused("CSL-P408", house.release, "a", 3)
    house.release("a", 7, "holdout")
    refused("CSL-P408", house.release, "a", 8, "holdout")
    house.ledger.close("a")
    refused("CSL-P406", house.release, "a", 4)
    refused("CSL-P405", house.ledger.close, "b")
    assert house.verify().valid


def test_an_account_without_a_reservation_pays_nothing(house):
    only = {"training": house.charges()["training"]}
    house.ledger.reserve("a", study="x", charges=only, releases={"training": 1}, terms=house.terms())
    refused("CSL-P407", house.release, "a", 1, "holdout")


def test_a_number_is_released_once(house):
    house.reserve("a")
    house.release("a", 1)
    before = house.ledger.tree_head()
    house.release("a", 1)
    assert house.ledger.tree_head() == before
    refused("CSL-P409", house.ledger.release, "a", 1, "training", "f" * 64, 100, what="gradient sum")
    refused("CSL-P409", house.release, "a", 1, "holdout")


def test_repeating_a_reserve_or_a_close_changes_nothing(house):
    first = house.reserve("a")
    head = house.ledger.tree_head()
    assert house.reserve("a").data == first.data and house.ledger.tree_head() == head
    refused("CSL-P402", house.reserve, "a", noise=11.0)
    assert house.ledger.close("a") == ("training", "holdout")
    head = house.ledger.tree_head()
    assert house.ledger.close("a") == ("training", "holdout") and house.ledger.tree_head() == head
    refused("CSL-P406", house.reserve, "a")
    refused("CSL-P402", house.reserve, "a", noise=11.0)


def test_close_returns_only_accounts_that_nothing_left_from(house):
    house.reserve("a")
    house.release("a", 1)
    assert house.ledger.close("a") == ("holdout",)
    training, _, holdout, holdout_life = house.ledger.spending(house.clock.now)
    assert training.spent.mu_squared_nano > 0 and training.reserved.mu_squared_nano == 0
    assert holdout.used.mu_squared_nano == holdout_life.used.mu_squared_nano == 0


def test_reserve_needs_the_policy_in_force_and_its_terms(house, tmp_path, make_house, policy_text):
    bare = Ledger.create(
        tmp_path / "bare.sqlite", house.key, member="alder", holdout_key=HOLDOUT_KEY, clock=house.clock
    )
    assert bare.spending(house.clock.now) == () and bare.policy() is None
    refused("CSL-P401", house.reserve, "a", ledger=bare)
    house.policy = house.policy.model_copy(update={"version": 2})
    refused("CSL-P401", house.reserve, "a")
    house.ledger.activate(house.policy)
    house.reserve("a")
    assert house.ledger.policy() == house.policy
    house.clock.now = int(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000)
    refused("CSL-P401", house.reserve, "b")


def test_events_above_the_terms_are_refused(house):
    error = refused("CSL-P411", house.reserve, "a", noise=1.0)
    assert isinstance(error, PolicyError) and house.ledger.state().size == 2


def test_the_period_moves_on_and_the_life_does_not(house):
    def fill(prefix):
        count = 0
        while True:
            try:
                house.reserve(f"{prefix}{count}", noise=5.5)
            except PolicyError as error:
                return count, error.code
            house.release(f"{prefix}{count}", 1)
            house.release(f"{prefix}{count}", 2, "holdout")
            house.ledger.close(f"{prefix}{count}")
            count += 1

    period, life = house.ledger.spending(house.clock.now)[:2]
    cost = price(house.charges(5.5)["training"], 1e-9).mu_squared_nano
    in_period, in_life = period.capacity.mu_squared_nano // cost, life.capacity.mu_squared_nano // cost
    assert in_period < in_life <= 2 * in_period + 1
    assert fill("a") == (in_period, "CSL-P403")
    house.clock.pass_days(29)
    assert fill("b") == (0, "CSL-P403")
    house.clock.pass_days(1)
    again, _ = fill("c")
    assert again == min(in_period, in_life - in_period)
    house.clock.pass_days(300)
    assert fill("d") == (in_life - in_period - again, "CSL-P404")
    house.clock.pass_days(300)
    assert fill("e") == (0, "CSL-P404")
    result = house.verify()
    assert result.valid
    for item in house.ledger.spending(house.clock.now):
        assert item.epsilon_of(item.used) <= item.epsilon


def test_an_open_reservation_counts_for_ever(house):
    house.reserve("a", noise=5.5)
    house.clock.pass_days(400)
    period = house.ledger.spending(house.clock.now)[0]
    assert period.budget == "30 days" and period.reserved.mu_squared_nano > 0
    assert 0.7 < period.epsilon_of(period.reserved) < 1.1


def test_a_clock_set_back_changes_nothing(house):
    house.reserve("a", noise=5.5)
    house.release("a", 1)
    house.ledger.close("a")
    today, spending = house.ledger.today(), house.ledger.spending(house.clock.now)
    house.clock.pass_days(-200)
    assert house.ledger.today() == today
    house.ledger.refuse("CSL-P201", "x", "why")
    assert house.ledger.spending(house.clock.now) == spending
    stamps = [entry.body.ts for entry in house.ledger.entries()]
    assert stamps == sorted(stamps) and house.verify().valid


def test_refusals_take_any_text(house):
    house.ledger.refuse("CSL-P201", "x" * 5000, "odd \ud800 text " * 500)
    entry = house.ledger.entry(2)
    assert entry.body.data.code == "CSL-P201" and len(entry.body.data.why) == 1000
    assert house.verify().valid


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("institution: alder", "institution: birch"), "CSL-P301"),
        (lambda text: text.replace("smallest_cohort: 500", "smallest_cohort: 400"), "CSL-P302"),
        (
            lambda text: text.replace("version: 1", "version: 2").replace("life: {epsilon: 3.0", "life: {epsilon: 4.0"),
            "CSL-P303",
        ),
        (
            lambda text: text.replace("version: 1", "version: 2").replace("life: {epsilon: 3.0", "life: {epsilon: 2.5"),
            "CSL-P303",
        ),
        (lambda text: text.replace("version: 1", "version: 2").replace("epsilon: 2.0", "epsilon: 2.5"), "CSL-P304"),
        (lambda text: text.replace("version: 1", "version: 2").replace("days: 30", "days: 29"), "CSL-P304"),
        (lambda text: text.replace("version: 1", "version: 2").replace("share: 0.2", "share: 0.3"), "CSL-P305"),
        (
            lambda text: (
                text.replace("version: 1", "version: 2")
                .replace("contract: shop", "contract: other")
                .replace("share: 0.2", "share: 0.3")
            ),
            "CSL-P305",
        ),
    ],
)
def test_policies_that_may_not_follow(house, make_policy, policy_text, change, code):
    refused(code, house.ledger.activate, make_policy(change(policy_text)))
    assert house.ledger.state().size == 2


def test_a_smaller_budget_may_follow(house, make_policy, policy_text):
    house.ledger.activate(house.policy)
    assert house.ledger.state().size == 2
    house.ledger.activate(
        make_policy(
            policy_text.replace("version: 1", "version: 2").replace("days: 30, epsilon: 2.0", "days: 60, epsilon: 1.5")
        )
    )
    assert house.ledger.state().limits.period_days == 60 and house.verify().valid


def test_running_totals_that_do_not_belong_lock_the_ledger(house):
    copy = house.ledger._store.state()
    house.reserve("a")
    house.tamper(("UPDATE state SET body = ?, sig = ?", copy))
    refused("CSL-P602", house.reserve, "b")
    refused("CSL-P602", house.open)
    assert {item.code for item in house.verify().findings} == {"CSL-P622"}


def test_a_changed_entry_is_not_believed(house):
    house.reserve("a", rounds=2)
    house.tamper(
        ("UPDATE entry SET body = CAST(replace(body, '\"releases\":2', '\"releases\":9') AS BLOB) WHERE seq = 2", ())
    )
    refused("CSL-P605", house.release, "a", 1)
    refused("CSL-P605", house.ledger.entry, 99)


def test_a_reader_needs_the_public_key_only(house):
    house.reserve("a")
    with LedgerReader.read(house.path, house.public) as reader:
        assert reader.state() == house.ledger.state()
        assert reader.events("training") == (SubsampledGaussian(noise_multiplier=10.0, sampling_rate=1.0, steps=1),)
        with pytest.raises((sqlite3.Error, StorageError)):
            reader._store._connection.execute("INSERT INTO entry VALUES (9, 'refuse', NULL, x'', x'', x'')")
    house.ledger.close("a")
    assert house.ledger.events("training") == ()
    with pytest.raises(IntegrityError):
        LedgerReader.read(house.path, "00" * 32)


def test_threads_share_one_ledger(house):
    def work(name):
        for number in range(5):
            house.ledger.refuse("CSL-P201", name, str(number))
            assert sum(1 for _ in house.ledger.entries()) >= number + 3

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    assert house.verify().valid and house.ledger.state().size == 22
