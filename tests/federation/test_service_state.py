import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from federation.errors import FederationError, StorageError
from federation.service_state import (
    LOCK_FILE,
    STATE_FILE,
    ChildState,
    ServiceLock,
    ServiceState,
    born,
    is_running,
    read_service,
    stop_service,
)

HOLD = """
import signal, sys, time
from pathlib import Path
from federation.service_state import ServiceLock
if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
with ServiceLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def state(pid: int) -> ServiceState:
    child = ChildState(name="link", pid=7, state="up", restarts=0, last_exit=None, reason=None, since=5)
    return ServiceState(pid=pid, started=5, children=(child,))


@pytest.fixture
def holder(tmp_path):
    processes = []

    def start(deaf: bool = False) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD.format(deaf=deaf), str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_no_folder_no_service(tmp_path):
    assert read_service(tmp_path / "run") is None and not is_running(tmp_path / "run")
    assert stop_service(tmp_path / "run") is False


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr("federation.service_state._PAUSE", 0.001)
    with ServiceLock(tmp_path / "run"):
        with pytest.raises(FederationError, match=f"CSL-F310.*process {os.getpid()}"), ServiceLock(tmp_path / "run"):
            pass
        assert is_running(tmp_path / "run")
    assert not is_running(tmp_path / "run")
    with ServiceLock(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_FILE).read_text().split() == [str(os.getpid()), born(os.getpid())]


def test_who_only_looks_does_not_keep_a_service_from_starting(tmp_path, monkeypatch):
    with ServiceLock(tmp_path):
        pass
    looking = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr("federation.service_state.time.sleep", lambda seconds: os.close(looking))
    with ServiceLock(tmp_path):
        assert is_running(tmp_path)


def test_the_state_is_read_while_the_lock_is_held_and_stale_afterwards(tmp_path):
    with ServiceLock(tmp_path):
        (tmp_path / STATE_FILE).write_bytes(state(os.getpid()).canonical())
        assert read_service(tmp_path) == state(os.getpid())
        assert read_service(tmp_path).up
    assert (tmp_path / STATE_FILE).exists() and read_service(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": -1}', state(1).canonical()])
def test_a_state_that_is_not_the_holder_s_is_not_shown(tmp_path, monkeypatch, content):
    monkeypatch.setattr("federation.service_state._PAUSE", 0.0)
    with ServiceLock(tmp_path):
        (tmp_path / STATE_FILE).write_bytes(content)
        assert read_service(tmp_path) == ServiceState(pid=os.getpid(), started=0, children=())


def test_what_a_killed_holder_left_is_stale(tmp_path, holder):
    process = holder()
    (tmp_path / STATE_FILE).write_bytes(state(process.pid).canonical())
    assert read_service(tmp_path).pid == process.pid
    process.kill()
    process.wait()
    assert read_service(tmp_path) is None and stop_service(tmp_path) is False


def test_stopping_is_by_sigterm(tmp_path, holder):
    process = holder()
    assert stop_service(tmp_path, 10) is True
    assert process.wait(5) == -signal.SIGTERM


def test_one_that_is_deaf_is_killed_before_the_time_is_over(tmp_path, holder):
    process = holder(deaf=True)
    begin = time.monotonic()
    assert stop_service(tmp_path, 2.3) is True
    assert process.wait(5) == -signal.SIGKILL and time.monotonic() - begin < 2.3


def test_a_number_that_is_another_process_s_by_now_is_not_signalled(tmp_path, monkeypatch):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        with ServiceLock(tmp_path):
            (tmp_path / LOCK_FILE).write_text(f"{bystander.pid} {born(os.getpid())}0\n")
            with pytest.raises(FederationError, match="CSL-F314"):
                stop_service(tmp_path, 5, sleep=lambda seconds: None)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_one_that_cannot_be_told_is_refused(tmp_path, monkeypatch):
    def denied(pid, number):
        raise PermissionError(1, "Operation not permitted")

    with ServiceLock(tmp_path):
        monkeypatch.setattr("federation.service_state.os.kill", denied)
        with pytest.raises(FederationError, match="CSL-F314"):
            stop_service(tmp_path, 5)


def test_one_that_survives_everything_is_told(tmp_path, monkeypatch):
    ticks = iter(range(100))
    told = []
    with ServiceLock(tmp_path):
        monkeypatch.setattr("federation.service_state.os.kill", lambda pid, number: told.append(number))
        with pytest.raises(FederationError, match="CSL-F315"):
            stop_service(tmp_path, 10, clock=lambda: float(next(ticks)), sleep=lambda seconds: None)
    assert told == [signal.SIGTERM, signal.SIGKILL]


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match="CSL-F313"), ServiceLock(tmp_path / "run"):
        pass
    with pytest.raises(StorageError, match="CSL-F313"):
        read_service(tmp_path / "run")


def test_birth_marks_tell_processes_apart():
    assert born(os.getpid()) == born(os.getpid()) != born(1)
    assert born(2**30) == "-"
