"""The service on the command line: refusing a second one, saying how it fares, and the proxy's configuration."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.doctor import fail, good
from federation.errors import ConsilienceError
from federation.flower.control import NodeRow
from federation.service_state import STATE_FILE, ChildState, ServiceLock, ServiceState
from server import service_command
from server.command import app
from server.home import CoordinatorHome
from server.service.proxy import render
from server.service.studies import StudyBook
from tests.server.service.conftest import found

RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return found(tmp_path / "home", "a" * 64)


def run(home: CoordinatorHome, *words: str, status: int = 0) -> str:
    result = RUNNER.invoke(app, [*words, "--home", str(home.root)])
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def child(name: str, **changes: object) -> ChildState:
    values = {
        "name": name,
        "pid": 5,
        "state": "up",
        "restarts": 0,
        "last_exit": None,
        "reason": None,
        "since": 1_800_000_000,
    }
    return ChildState(**(values | changes))


def stand(home: CoordinatorHome, *children: ChildState) -> None:
    state = ServiceState(pid=os.getpid(), started=1_800_000_000, children=children)
    (home.run / STATE_FILE).write_bytes(state.canonical())


class FakeControl:
    rows: list[NodeRow] = []

    def __init__(self, address: str, ca: bytes) -> None:
        assert address == "127.0.0.1:18000" and b"BEGIN CERTIFICATE" in ca

    def __enter__(self):
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    def nodes(self) -> list[NodeRow]:
        return self.rows


def test_nothing_runs(home):
    assert "does not run" in run(home, "status", status=8)
    assert json.loads(run(home, "status", "--json", status=8))["service"] is None
    assert "did not run" in run(home, "stop")


def test_status_shows_processes_members_and_studies(home, monkeypatch):
    first = home.charter().members[0]
    FakeControl.rows = [NodeRow(1, first.node_key, "online")]
    monkeypatch.setattr(service_command, "Control", FakeControl)
    StudyBook(home.root).want("spring")
    with ServiceLock(home.run):
        stand(home, child("link", restarts=2), child("executor"))
        text = run(home, "status")
        shown = json.loads(run(home, "status", "--json"))
        stand(home, child("link"), child("executor", state="waiting", reason="Its port is taken."))
        down = run(home, "status", status=8)
    assert "link: up since 2027-01-15" in text and "started again 2 times" in text
    assert f"Members connected: {first.id}." in text and "Study spring: waiting" in text
    assert shown["members"][0] == {"member": first.id, "node": "online"} and shown["members"][1]["node"] is None
    assert shown["studies"] == [{"study": "spring", "state": "waiting", "reason": "not started yet"}]
    assert "executor: waiting" in down and "Its port is taken." in down


def test_a_link_that_does_not_answer_yet_is_said(home):
    with ServiceLock(home.run):
        stand(home, child("link"))
        assert "does not answer yet" in run(home, "status")


def test_a_second_service_is_refused_before_its_ports_look_taken(home):
    with ServiceLock(home.run):
        error = RUNNER.invoke(app, ["start", "--home", str(home.root)]).exception
    assert isinstance(error, ConsilienceError) and error.code == "CSL-F310"


def test_what_cannot_work_is_not_started(home, monkeypatch):
    monkeypatch.setattr(service_command, "Supervisor", lambda *arguments, **options: pytest.fail("it was started"))
    error = RUNNER.invoke(app, ["start", "--home", str(home.root)]).exception
    assert isinstance(error, ConsilienceError) and error.code == "CSL-S806"


def test_start_runs_the_children_and_tells_what_happens(home, monkeypatch):
    seen = []

    class FakeSupervisor:
        def __init__(self, folder, children, *, on_event):
            seen.append((folder, children))
            self.tell = on_event

        def run(self):
            self.tell("child_started", child="link", pid=5, restarts=0)

    monkeypatch.setattr(service_command, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(service_command, "check_ready", lambda place: None)
    result = RUNNER.invoke(app, ["start", "--home", str(home.root)])
    assert result.exit_code == 0 and seen[0][0] == home.run
    assert [item.name for item in seen[0][1]] == ["link", "executor"]
    line = json.loads(result.stderr)
    assert (line["event"], line["child"], line["process"]) == ("child_started", "link", "coordinator")


def test_doctor_ends_with_eight_when_something_fails(home, monkeypatch):
    monkeypatch.setattr(service_command, "examine", lambda place: [good("disk", "well")])
    assert "all well" in run(home, "doctor")
    monkeypatch.setattr(service_command, "examine", lambda place: [fail("disk", "full", "Free space.")])
    assert "Free space." in run(home, "doctor", status=8)
    assert json.loads(run(home, "doctor", "--json", status=8))["ok"] is False


def test_the_proxy_is_printed_as_start_renders_it(home):
    assert run(home, "proxy") == render(home.config(), home.root)


@pytest.mark.parametrize("word", ["start", "stop", "status", "doctor", "proxy"])
def test_help_teaches(word):
    result = RUNNER.invoke(app, [word, "--help"])
    assert result.exit_code == 0 and len(result.output) > 250
