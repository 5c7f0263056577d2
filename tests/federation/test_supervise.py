"""The supervisor with real processes, small ones: python without its site packages starts in a few hundredths of a second."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation import supervise
from federation.capped_log import CappedLog
from federation.child import child_environment
from federation.errors import FederationError, StorageError
from federation.exit_reason import plain_reason
from federation.service_state import STATE_FILE
from federation.supervise import Child, Pace, Supervisor, read_service, stop_service

from .test_leash import gone, is_alive

QUICK = Pace(first=0.02, longest=0.1, calm=5.0, stop=4.0, each=2.0)
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def child(folder: Path, name: str, code: str, *arguments: str, **more) -> Child:
    return Child(name, (sys.executable, "-I", "-S", "-c", code, *arguments), folder / f"{name}.log", **more)


class Events(list):
    def __call__(self, event, **fields):
        self.append((event, fields))

    def of(self, event):
        return [fields for name, fields in self if name == event]


@contextmanager
def running(folder, *children, pace=QUICK, **more):
    """Run a supervisor in a thread; stop it in the end, whatever happens."""
    supervisor = Supervisor(folder, children, pace=pace, chance=lambda: 0.0, **more)
    results = []
    thread = threading.Thread(target=lambda: results.append(supervisor.run()))
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(20)
    assert results == [0]


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it never came true")


def states(folder):
    state = read_service(folder)
    return {row.name: row for row in state.children} if state else {}


def has_said(folder, name, text="up"):
    path = folder / f"{name}.log"
    return path.exists() and text in path.read_text()


@given(ends=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_limit(ends, chance):
    pace = Pace()
    pause = pace.pause(ends, chance)
    assert 1.0 <= pause <= 37.5
    assert pause >= pace.pause(max(ends - 1, 1), chance)
    assert pace.pause(ends, 0.0) == min(30.0, 2.0 ** min(ends - 1, 10))


def test_a_child_gets_our_variables_and_no_proxy_on_this_machine():
    found = child_environment({"A": "1", "B": "2", "no_proxy": "bank.example, localhost"}, {"B": "3"})
    assert (found["A"], found["B"], found["PYTHONUNBUFFERED"]) == ("1", "3", "1")
    assert found["NO_PROXY"] == "127.0.0.1,localhost,::1"
    assert found["no_proxy"] == "bank.example,localhost,127.0.0.1,::1"


def test_children_run_are_told_of_and_end_in_the_opposite_order(tmp_path):
    events = Events()
    show = "import os; print(os.environ['COLOUR'], os.getpid() == os.getsid(0), flush=True);" + SLEEP
    one, two = child(tmp_path, "one", show, environment={"COLOUR": "blue"}), child(tmp_path, "two", SLEEP)
    with running(tmp_path / "run", one, two, on_event=events):
        until(lambda: has_said(tmp_path, "one") and has_said(tmp_path, "two"))
        seen = read_service(tmp_path / "run")
        assert seen.up and seen.pid == os.getpid() and abs(seen.started - time.time()) < 30
        assert [(row.name, row.state, row.restarts, row.last_exit, row.reason) for row in seen.children] == [
            (name, "up", 0, None, None) for name in ("one", "two")
        ]
        assert all(is_alive(row.pid) for row in seen.children)
    assert (tmp_path / "one.log").read_text() == "blue True\nup\n"
    assert all(gone(row.pid) for row in seen.children)
    assert read_service(tmp_path / "run") is None
    left = json.loads((tmp_path / "run" / STATE_FILE).read_bytes())
    assert [row["state"] for row in left["children"]] == ["stopped", "stopped"]
    assert [fields["child"] for fields in events.of("child_started")] == ["one", "two"]
    assert [fields["child"] for fields in events.of("child_ended")] == ["two", "one"]
    assert [name for name, _ in events][-4:] == ["service_stopping", "child_ended", "child_ended", "service_stopped"]


def test_a_child_that_fails_is_started_again_ever_more_slowly_and_its_reason_told(tmp_path):
    events = Events()
    fails = "import sys; print('CSL-P507  identity.key: wrong passphrase.', file=sys.stderr); sys.exit(6)"
    with running(tmp_path / "run", child(tmp_path, "vault", fails), on_event=events):
        until(lambda: len(events.of("child_ended")) >= 5)
        row = until(lambda: (found := states(tmp_path / "run").get("vault")) and found.last_exit == 6 and found)
    assert row.reason == "CSL-P507 identity.key: wrong passphrase." and row.restarts >= 3
    assert [fields["again_in"] for fields in events.of("child_ended")][:5] == [0.0, 0.0, 0.1, 0.1, 0.1]
    assert {fields["exit"] for fields in events.of("child_ended")} == {6}


@pytest.mark.e2e
def test_a_killed_child_comes_back_at_once_and_what_it_started_does_not_stay(tmp_path):
    parent = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print('grandchild', p.pid, flush=True); time.sleep(60)"
    )
    with running(tmp_path / "run", child(tmp_path, "executor", parent)):
        until(lambda: has_said(tmp_path, "executor", "grandchild"))
        grandchild = int((tmp_path / "executor.log").read_text().split()[1])
        first = states(tmp_path / "run")["executor"].pid
        assert is_alive(grandchild)
        os.kill(first, signal.SIGKILL)
        row = until(lambda: (found := states(tmp_path / "run").get("executor")) and found.restarts == 1 and found)
        assert row.pid != first and row.last_exit == -9 and "killed (signal 9)" in row.reason
        assert gone(grandchild)


def test_a_child_that_was_up_long_starts_from_the_shortest_pause(tmp_path):
    events = Events()
    pace = Pace(first=0.02, longest=5.0, calm=0.0, stop=4.0, each=2.0)
    with running(tmp_path / "run", child(tmp_path, "x", "raise SystemExit(3)"), pace=pace, on_event=events):
        until(lambda: len(events.of("child_ended")) >= 6)
    assert {fields["again_in"] for fields in events.of("child_ended")} == {0.0}


def test_one_child_s_trouble_is_not_the_other_s(tmp_path):
    events = Events()
    bad = Child("bad", ("no-such-program",), tmp_path / "bad.log")
    with running(tmp_path / "run", bad, child(tmp_path, "good", SLEEP), on_event=events):
        row = until(lambda: (found := states(tmp_path / "run").get("bad")) and found.restarts >= 2 and found)
        assert row.last_exit == 127 and row.reason == "Its program is not installed."
        assert states(tmp_path / "run")["good"].restarts == 0
    assert len([fields for fields in events.of("child_started") if fields["child"] == "good"]) == 1


def test_a_machine_that_has_no_process_left_to_give_is_asked_again(tmp_path, monkeypatch):
    real, asked = subprocess.Popen, []

    def scarce(command, **options):
        asked.append(command)
        if len(asked) <= 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", scarce)
    events = Events()
    with running(tmp_path / "run", child(tmp_path, "one", SLEEP), on_event=events):
        until(lambda: has_said(tmp_path, "one"))
    assert events.of("child_ended")[0]["reason"] == "It cannot be started: Resource temporarily unavailable."


def test_one_that_is_deaf_is_killed_with_all_that_it_started(tmp_path):
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {DEAF!r}]); print(p.pid, flush=True);{DEAF}"
    pace = Pace(first=0.02, stop=0.3, each=2.0)
    with running(tmp_path / "run", child(tmp_path, "deaf", code), pace=pace):
        until(lambda: (tmp_path / "deaf.log").exists() and (tmp_path / "deaf.log").read_text().count("up") == 2)
        grandchild = int((tmp_path / "deaf.log").read_text().split()[0])
        pid = states(tmp_path / "run")["deaf"].pid
        begin = time.monotonic()
    assert time.monotonic() - begin < 2.0 and gone(pid) and gone(grandchild)


@pytest.mark.e2e
def test_a_child_that_prints_for_ever_is_read_capped_and_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("federation.child.CappedLog", lambda path: CappedLog(path, max_bytes=100_000, kept=1))
    flood = "while True: print('x' * 1000)"
    with running(tmp_path / "run", child(tmp_path, "flood", flood), child(tmp_path, "calm", SLEEP)):
        until(lambda: (tmp_path / "flood.log.1").exists() and has_said(tmp_path, "calm"))
        time.sleep(0.1)
    sizes = [path.stat().st_size for path in tmp_path.glob("flood.log*")]
    assert len(sizes) == 2 and all(size <= 170_000 for size in sizes)


@pytest.mark.e2e
def test_a_child_that_closes_its_output_is_still_watched(tmp_path):
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(4)"
    with running(tmp_path / "run", child(tmp_path, "quiet", code)):
        row = until(lambda: (found := states(tmp_path / "run").get("quiet")) and found.restarts and found)
    assert row.last_exit == 4


def test_an_idle_supervisor_does_not_spin(tmp_path):
    turns = []
    with running(tmp_path / "run", child(tmp_path, "one", SLEEP)) as supervisor:
        until(lambda: has_said(tmp_path, "one"))
        original = supervisor._turn
        supervisor._turn = lambda runners: (turns.append(1), original(runners))
        time.sleep(0.6)
    assert 1 <= len(turns) <= 4


def test_a_second_supervisor_is_refused_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("federation.service_state._PAUSE", 0.005)
    with running(tmp_path / "run", child(tmp_path, "one", SLEEP)):
        until(lambda: has_said(tmp_path, "one"))
        with pytest.raises(FederationError, match=f"CSL-F310.*{os.getpid()}"):
            Supervisor(tmp_path / "run", [child(tmp_path, "two", SLEEP)]).run()
        assert states(tmp_path / "run")["one"].state == "up"
    assert not (tmp_path / "two.log").exists()


def test_a_state_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    def full(path, content, mode=0o644):
        raise StorageError("CSL-F301", "The disk is full.", "Free space.")

    events = Events()
    monkeypatch.setattr(supervise, "atomic_write", full)
    with running(tmp_path / "run", child(tmp_path, "one", SLEEP), on_event=events):
        until(lambda: has_said(tmp_path, "one"))
        monkeypatch.setattr("federation.service_state._PAUSE", 0.001)
        assert read_service(tmp_path / "run").children == ()
    assert events.of("state_not_written")[0] == {"code": "CSL-F301"}


@pytest.mark.parametrize("names", [(), ("one", "one")])
def test_children_have_names_of_their_own(tmp_path, names):
    with pytest.raises(ValueError, match="name of its own"):
        Supervisor(tmp_path, [child(tmp_path, name, SLEEP) for name in names])


def test_a_reason_of_the_caller_s_is_told(tmp_path):
    def explain(code: int, tail: str) -> str:
        return plain_reason(code, tail, {"Exit Code: 305": "The link does not know this node."})

    code = "print('Exit Code: 305', flush=True); raise SystemExit(1)"
    with running(tmp_path / "run", child(tmp_path, "node", code, explain=explain)):
        row = until(lambda: (found := states(tmp_path / "run").get("node")) and found.reason and found)
    assert row.reason == "The link does not know this node."


SERVICE = """
import sys
from pathlib import Path
from federation.supervise import Child, Pace, Supervisor
folder = Path(sys.argv[1])
code = sys.argv[2]
children = [Child(name, (sys.executable, "-I", "-S", "-c", code), folder / f"{name}.log") for name in ("one", "two")]
sys.exit(Supervisor(folder / "run", children, pace=Pace(first=0.02, longest=0.1, stop=4, each=2)).run())
"""
FAMILY = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print('grandchild', p.pid, flush=True); time.sleep(60)"
)


@contextmanager
def service(folder, code):
    for name in ("one", "two"):
        (folder / f"{name}.log").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(folder), code])
    try:
        until(lambda: has_said(folder, "one", "\n") and has_said(folder, "two", "\n"))
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.e2e
def test_a_service_in_its_own_process_stops_when_told(tmp_path):
    with service(tmp_path, SLEEP) as process:
        pids = [row.pid for row in read_service(tmp_path / "run").children]
        assert stop_service(tmp_path / "run", 20) is True
        assert process.wait(5) == 0 and all(gone(pid) for pid in pids)
        assert stop_service(tmp_path / "run") is False


def test_children_and_what_they_started_die_with_a_killed_supervisor(tmp_path):
    with service(tmp_path, FAMILY) as process:
        pids = [row.pid for row in read_service(tmp_path / "run").children]
        pids += [int((tmp_path / f"{name}.log").read_text().split()[1]) for name in ("one", "two")]
        assert len(pids) == 4 and all(is_alive(pid) for pid in pids)
        process.kill()
        process.wait()
        assert all(gone(pid) for pid in pids)
    assert read_service(tmp_path / "run") is None


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_to_stop_is_heard(tmp_path, number):
    with service(tmp_path, SLEEP) as process:
        process.send_signal(number)
        assert process.wait(10) == 0


@pytest.mark.e2e
def test_after_a_kill_the_service_starts_anew_and_all_is_cleaned_up(tmp_path):
    for _ in range(5):
        with service(tmp_path, FAMILY) as process:
            pids = [row.pid for row in read_service(tmp_path / "run").children]
            process.kill()
            process.wait()
            assert all(gone(pid) for pid in pids) and read_service(tmp_path / "run") is None


@pytest.mark.e2e
def test_a_child_killed_again_and_again_always_comes_back(tmp_path):
    with service(tmp_path, SLEEP):
        for number in range(1, 16):
            row = until(
                lambda n=number: (f := states(tmp_path / "run").get("two")) and f.restarts >= n - 1 and f.pid and f
            )
            os.kill(row.pid, signal.SIGKILL)
            until(lambda n=number: (f := states(tmp_path / "run").get("two")) and f.restarts >= n)
        assert states(tmp_path / "run")["one"].restarts == 0
