"""Power cuts, races, full disks: what left is always in the ledger, and no unit is spent twice."""

import os
import resource
import signal
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest

from federation.errors import ConsilienceError, PolicyError, StorageError
from privacy.cost import total
from privacy.filter import price
from privacy.ledger import Ledger
from privacy.ledger import store as store_module
from tests.privacy.policies import policy

UNITS = 100
NOBODY = 65_534


def in_child(work):
    """Run `work` in a forked process and return its process id; the child never returns into the test."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def note(descriptor, line):
    os.write(descriptor, line.encode() + b"\n")


def work_on(house, descriptor, studies, rounds):
    """Reserve, release and close studies; everything that "leaves" is noted after the ledger's call has returned."""
    with house.open() as ledger:
        for rid in studies:
            known = ledger.reservation(rid)
            if known is not None and known.closed:
                continue
            house.reserve(rid, noise=20.0, rounds=rounds, ledger=ledger)
            note(descriptor, f"reserved {rid}")
            for number in range(rounds):
                house.release(rid, number, ledger=ledger)
                note(descriptor, f"left {rid} {number}")
            ledger.close(rid)
            note(descriptor, f"closed {rid}")


def check_after(house, log):
    """What was acknowledged is there, whatever happened after; and nothing is there that the rules forbid."""
    result = house.verify()
    assert result.valid, result.findings
    ledger = house.open()
    closed = set()
    for line in log:
        what, rid, *number = line.split()
        assert ledger.has_reservation(rid)
        if what == "left":
            assert ledger.has_release(rid, int(number[0]))
        if what == "closed":
            closed.add(rid)
    assert all(ledger.reservation(rid).closed for rid in closed)
    charged = ledger.state().training.life
    left = {line.split()[1] for line in log if line.startswith("left")}
    cost = total(ledger.reservation(rid).data.charge("training").cost for rid in left)
    assert cost.nano <= charged.nano and cost.femto <= charged.femto
    ledger.close_file()


def die_at(statement_number):
    """Make SQLite connections of this process die by SIGKILL before their n-th statement that writes."""
    count = 0

    class Mortal(sqlite3.Connection):
        def execute(self, statement, *arguments):
            nonlocal count
            count += statement.startswith(("BEGIN IMMEDIATE", "COMMIT", "INSERT"))
            if count == statement_number:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(statement, *arguments)

    whole = sqlite3.connect

    def connect(*arguments, **named):
        return whole(*arguments, **named, factory=Mortal)

    store_module.sqlite3.connect = connect


def run_and_kill(house, folder, studies, *, rounds=1, statement=None, after=None):
    log_path = folder / "log"
    descriptor = os.open(log_path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)

    def work():
        if statement is not None:
            die_at(statement)
        work_on(house, descriptor, studies, rounds)

    child = in_child(work)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(descriptor)
    check_after(house, log_path.read_text().splitlines())
    return os.WIFSIGNALED(status)


@pytest.fixture
def memory():
    """A folder in memory where there is one: a killed process leaves it as it leaves a disk, and many runs take less time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def roomy(memory, make_house, policy_text):
    """A house whose budget has room for many small studies."""
    return roomy_in(memory, make_house, policy_text)


def roomy_in(folder, make_house, policy_text):
    wide = "period: {days: 30, epsilon: 20.0, delta: 1.0e-6}\n  life: {epsilon: 20.0, delta: 1.0e-6}"
    narrow = "period: {days: 30, epsilon: 2.0, delta: 1.0e-6}\n  life: {epsilon: 3.0, delta: 1.0e-6}"
    assert narrow in policy_text
    house = make_house(folder, policy_text.replace(narrow, wide))
    house.reserve("warm", noise=20.0)  # children inherit the price of this event
    return house


def test_killed_before_every_statement_of_a_study(roomy, tmp_path):
    """The child dies before its n-th statement that writes, for every n that a study has; a second child then ends the study."""
    for number in range(1, 100):
        killed = run_and_kill(roomy, tmp_path, [f"s{number}"], statement=number)
        assert not run_and_kill(roomy, tmp_path, [f"s{number}"])
        assert roomy.ledger.reservation(f"s{number}").closed
        if not killed:
            break
    assert 15 < number < 99


def test_killed_at_any_moment(make_house, policy_text, tmp_path):
    roomy = roomy_in(tmp_path, make_house, policy_text)
    for run in range(20):
        studies = [f"s{number}" for number in range(run, run + 6)]
        run_and_kill(roomy, tmp_path, studies, rounds=3, after=0.02 + 0.009 * run)


def test_an_error_at_any_statement_leaves_nothing_half_done(roomy, monkeypatch):
    """As a kill, within one process: the call fails, the ledger goes on, and the same call succeeds afterwards."""
    real = roomy.ledger._store._connection

    class Failing:
        def __init__(self, at):
            self.left = at

        def __getattr__(self, name):
            return getattr(real, name)

        def execute(self, *arguments):
            self.left -= 1
            if self.left == 0:
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(*arguments)

    for at in range(1, 40):
        rid = f"e{at}"
        roomy.ledger._store._connection = Failing(at)
        try:
            roomy.reserve(rid, noise=20.0)
            roomy.release(rid, 1)
        except StorageError as error:
            assert error.code == "CSL-P513"
        finally:
            roomy.ledger._store._connection = real
        roomy.reserve(rid, noise=20.0)
        roomy.release(rid, 1)
        roomy.ledger.close(rid)
    result = roomy.verify()
    assert result.valid and result.state == roomy.ledger.state()


def test_processes_racing_for_the_last_units(memory, make_house, tmp_path):
    """A hundred units and a bit are left: several processes get a hundred between them, and the bit stays."""
    roomy = make_house(memory, policy(budget__period__epsilon=3.0))
    noise = noise_for_the_units(roomy)

    def race(name, descriptor):
        def work():
            with roomy.open() as ledger:
                for number in range(1000):
                    try:
                        roomy.reserve(f"{name}{number}", noise=noise, rounds=1, ledger=ledger)
                    except PolicyError as error:
                        note(descriptor, error.code)
                        return
                    note(descriptor, "got")

        return work

    descriptor = os.open(tmp_path / "race", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    children = [in_child(race(name, descriptor)) for name in ("w", "x", "y", "z")]
    assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
    lines = (tmp_path / "race").read_text().splitlines()
    assert lines.count("got") == UNITS and sorted(set(lines)) == ["CSL-P404", "got"]
    result = roomy.verify()
    life, capacity = result.state.training.life, roomy.ledger.state().limits.life.capacity
    cost = price(roomy.charges(noise)["training"], roomy.ledger.state().limits)
    assert result.valid and life == total([cost] * UNITS)
    assert life.nano <= capacity.nano < life.nano + cost.nano or life.femto <= capacity.femto < life.femto + cost.femto


def noise_for_the_units(house):
    """Find the noise with which exactly a hundred studies fit."""
    limits, low, high = house.ledger.state().limits, 5.0, 100.0
    for _ in range(50):
        noise = (low + high) / 2
        cost = price(house.charges(noise)["training"], limits)
        capacity = limits.life.capacity
        count = min(capacity.nano // cost.nano, capacity.femto // cost.femto)
        if count == UNITS:
            return noise
        low, high = (noise, high) if count < UNITS else (low, noise)
    raise AssertionError("no such noise")


def test_a_full_disk_refuses_and_the_chain_stays_whole(roomy):
    connection = roomy.ledger._store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StorageError) as caught:
        for number in range(100):
            before = roomy.ledger.tree_head()
            roomy.reserve(f"f{number}", noise=20.0)
    assert caught.value.code == "CSL-P511"
    assert roomy.ledger.tree_head() == before and roomy.verify().valid
    connection.execute(f"PRAGMA max_page_count = {pages + 400}")
    roomy.reserve("f99", noise=20.0)
    assert roomy.verify().valid


def test_a_limit_on_the_files_size_refuses_and_the_chain_stays_whole(roomy):
    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with roomy.open() as ledger:
            limit = roomy.path.stat().st_size + 10_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                for number in range(100):
                    roomy.reserve(f"g{number}", noise=20.0, ledger=ledger)
            except StorageError as error:
                assert error.code in ("CSL-P511", "CSL-P513")
                return
        raise AssertionError("the limit was not reached")

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1]) == 0
    assert roomy.verify().valid
    roomy.reserve("later", noise=20.0)


def test_a_ledger_that_another_process_holds(roomy, monkeypatch):
    holder = sqlite3.connect(roomy.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    with roomy.open() as ledger, pytest.raises(StorageError) as caught:
        roomy.reserve("a", ledger=ledger)
    assert caught.value.code == "CSL-P512"
    holder.execute("ROLLBACK")
    roomy.reserve("a")


def test_a_file_that_may_only_be_read_refuses_and_stays_whole(roomy):
    """Run as another user where this one may write everything."""
    before = roomy.path.read_bytes()
    roomy.path.chmod(0o400)
    if os.getuid() == 0:
        os.chown(roomy.path, NOBODY, NOBODY)
        os.chown(roomy.path.parent, NOBODY, NOBODY)

    def work():
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        with roomy.open() as ledger:
            assert ledger.has_reservation("warm")
            for call in (lambda: roomy.reserve("a", noise=20.0, ledger=ledger), lambda: ledger.close("warm")):
                with pytest.raises(StorageError) as caught:
                    call()
                assert caught.value.code == "CSL-P513" and "readonly" in caught.value.cause

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1]) == 0
    assert roomy.path.read_bytes() == before and roomy.verify().valid


def test_a_creation_that_fails_leaves_nothing(roomy, tmp_path):
    def broken():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ledger.create(tmp_path / "new.sqlite", roomy.key, member="alder", holdout_key=b"h" * 32, clock=broken)
    with pytest.raises(ConsilienceError):
        Ledger.create(tmp_path / "none" / "new.sqlite", roomy.key, member="alder", holdout_key=b"h" * 32)
    assert [path.name for path in tmp_path.iterdir()] == []
