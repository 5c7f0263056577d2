"""The SuperNode's desk on this machine: having the SuperNode begin anew."""

import os
import signal
import subprocess
import sys

import pytest

from client.service import desk
from client.service.desk import SuperNodeDesk
from client.service.paths import RENEWED, SUPERNODE
from client.service.start import Story
from federation.service_state import ChildState, ServiceState


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def service(supervisor, pid):
    state = ChildState(name=SUPERNODE, pid=pid, state="up", restarts=0, last_exit=None, reason=None, since=0)
    return ServiceState(pid=supervisor, started=0, children=(state,))


def test_the_supernode_is_told_to_end_and_the_supervisor_knows_why(tmp_path, monkeypatch, sleeper):
    monkeypatch.setattr(desk, "read_service", lambda folder: service(os.getppid(), sleeper.pid))
    monkeypatch.setattr(desk, "RENEW_SECONDS", 0.2)  # nobody looks after this one as a supervisor does
    assert SuperNodeDesk(1, b"s", tmp_path).renew()
    assert sleeper.wait(10) == -signal.SIGTERM
    story = Story(tmp_path)
    assert "The vault had it started again" in story.of_supernode(0, "SuperNode terminated gracefully.")
    assert not (tmp_path / RENEWED).exists()
    assert "clock" in story.of_supernode(0, "SuperNode terminated gracefully.")


def test_a_process_of_another_supervisor_is_left_alone(tmp_path, monkeypatch, sleeper):
    for found in (None, service(1, sleeper.pid), service(os.getppid(), None)):
        monkeypatch.setattr(desk, "read_service", lambda folder, found=found: found)
        assert not SuperNodeDesk(1, b"s", tmp_path).renew()
    assert sleeper.poll() is None and not (tmp_path / RENEWED).exists()
