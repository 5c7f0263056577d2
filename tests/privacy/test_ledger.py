import datetime
import math
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import ConsilienceError, IntegrityError, PolicyError, StorageError
from privacy.events import SubsampledGaussian
from privacy.filter import price
from privacy.ledger import Ledger, LedgerReader, verify
from tests.privacy.policies import after, signed

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


@pytest.mark.parametrize(("found", "action"), [(4, "newer"), (2, "anew")])
def test_another_format_is_refused(house, found, action):
    house.tamper((f"PRAGMA user_version = {found}", ()))
    assert action in refused("CSL-P603", house.open).action
    refused("CSL-P603", LedgerReader.read, house.path, house.public)


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
    assert training.spent.nano > 0 and training.reserved.nano == 0
    assert holdout.used.nano == holdout_life.used.nano == 0


def test_reserve_needs_the_policy_in_force_and_its_terms(house, tmp_path):
    bare = Ledger.create(
        tmp_path / "bare.sqlite", house.key, member="alder", holdout_key=HOLDOUT_KEY, clock=house.clock
    )
    assert bare.spending(house.clock.now) == () and bare.policy() is None
    refused("CSL-P401", house.reserve, "a", ledger=bare)
    house.policy = after(house.policy)
    refused("CSL-P401", house.reserve, "a")
    house.activate(house.policy)
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
    cost = price(house.charges(5.5)["training"], house.ledger.state().limits)
    in_period, in_life = (
        min(bound.capacity.nano // cost.nano, bound.capacity.femto // cost.femto)
        for bound in (period.bound, life.bound)
    )
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
    assert period.budget == "30 days" and period.reserved.nano > 0
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


def test_a_clock_set_forward_stays_where_it_was(house):
    """Time that was written down never comes back: a clock that ran ahead closes the ledger rather than opens it."""
    house.reserve("a", noise=5.5)
    house.release("a", 1)
    house.ledger.close("a")
    house.clock.pass_days(2000)
    refused("CSL-P401", house.reserve, "b")  # the policy is over by then
    house.ledger.refuse("CSL-P201", "x", "why")
    house.clock.pass_days(-2000)
    assert house.ledger.today() == datetime.date(2026, 3, 1) + datetime.timedelta(days=2000)
    refused("CSL-P401", house.reserve, "b")
    later = after(house.policy)
    refused("CSL-P316", house.ledger.activate, later, signed(later))
    assert house.ledger.spending(house.clock.now)[1].spent.nano > 0, "what is spent for life is never given back"
    assert house.verify().valid


def test_consent_is_written_at_each_reading_whether_it_changed_or_not(house):
    refused("CSL-P405", house.ledger.consent, "a", purpose="marketing.churn", consent="profiling", digest="1" * 64)
    house.reserve("a")
    for digest in ("1" * 64, "1" * 64, "2" * 64, "2" * 64, "1" * 64):
        house.ledger.consent("a", purpose="marketing.churn", consent="profiling", digest=digest)
    found = [entry.body.data.salted[0] for entry in house.ledger.entries() if entry.body.kind == "consent"]
    assert found == ["1", "1", "2", "2", "1"]
    house.ledger.close("a")
    refused("CSL-P406", house.ledger.consent, "a", purpose="marketing.churn", consent="profiling", digest="3" * 64)
    assert house.verify().valid


def test_looks_withdrawals_and_witnesses_stand_in_the_ledger(house):
    house.ledger.access("view", "a list " + "x" * 500, actor="chief \ud800", role="analyst", count=3)
    house.ledger.withdraw(count=2, registered=2, digest="1" * 64, reason="asked", actor="officer")
    head = house.ledger.tree_head()
    house.ledger.witnessed(head.size, head.root, ["the coordinator"])
    kinds = [entry.body.kind for entry in house.ledger.entries(2)]
    assert kinds == ["access", "withdraw", "witness"] and house.verify().valid
    assert house.ledger.entry(2).body.data.actor == "chief ?" and len(house.ledger.entry(2).body.data.what) == 400


def test_a_copy_is_one_moment_and_never_written_over_anything(house, tmp_path):
    house.reserve("a")
    copy = tmp_path / "copy.sqlite"
    with LedgerReader.read(house.path, house.public) as reader:
        reader.copy_to(copy)
        refused("CSL-P513", reader.copy_to, copy)
        head = reader.tree_head()
    house.ledger.close("a")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with LedgerReader.read(copy, house.public) as reader:
        assert reader.tree_head() == head != house.ledger.tree_head()
    assert verify(copy, house.public).valid


def test_a_copy_holds_no_half_done_transaction_of_another_thread(house, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with house.ledger._store.transaction():
            house.ledger._store.put_state(b"half", bytes(64))
            copying = pool.submit(house.ledger.copy_to, tmp_path / "copy")
            with pytest.raises(TimeoutError):
                copying.result(timeout=0.1)
            house.ledger._store._execute("ROLLBACK")
            house.ledger._store._execute("BEGIN IMMEDIATE")
        copying.result(timeout=10)
    assert verify(tmp_path / "copy", house.public).valid


def test_refusals_take_any_text(house):
    house.ledger.refuse("CSL-P201", "x" * 5000, "odd \ud800 text " * 500)
    entry = house.ledger.entry(2)
    assert entry.body.data.code == "CSL-P201" and len(entry.body.data.why) == 1000
    assert house.verify().valid


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
        assert reader.events("training") == (
            SubsampledGaussian(noise_multiplier=10.0 * math.sqrt(3), sampling_rate=1.0, steps=3),
        )
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


def test_every_entry_holds_fresh_random_bytes_so_that_its_hash_tells_nothing(house, tmp_path):
    """A witness sees leaves in proofs, and could otherwise try what an entry may say until one fits."""
    house.reserve("a")
    house.release("a", 1)
    house.ledger.refuse("CSL-P416", "secret", "An officer declined the study.")
    house.ledger.rotate(OTHER_KEY, "planned")
    salts = [entry.body.salt for entry in house.ledger.entries()]
    assert all(len(salt) == 32 for salt in salts) and len(set(salts)) == len(salts) == house.ledger.state().size


def test_no_more_replies_leave_than_the_events_pay_for(house):
    charges = house.charges(rounds=3)
    for releases in ({"training": 4, "holdout": 1}, {"training": 3, "holdout": 2}):
        call = {"study": "x", "charges": charges, "releases": releases, "terms": house.terms()}
        refused("CSL-P419", house.ledger.reserve, "a", **call)
    house.ledger.reserve("a", study="x", charges=charges, releases={"training": 3, "holdout": 1}, terms=house.terms())
    assert house.verify().valid
