"""`consilience node start | stop | doctor`, and the service's part of `node status`."""

import json
import os
import shutil
import sys

import pytest

from client.home import Home
from client.node import service
from client.service import doctor as checks
from client.service.standing import Standing, now, write_standing
from federation.command import run
from federation.doctor import fail, good
from federation.errors import ExitCode
from federation.service_state import ChildState, ServiceState
from tests.client import vault_home
from tests.founding_parts import link


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return vault_home.found(tmp_path_factory.mktemp("town"), link=link())


@pytest.fixture
def home(town, tmp_path):
    shutil.copytree(town.homes["alder"].root, tmp_path / "home")
    return Home(tmp_path / "home")


def node(home, command, *more):
    return run(["node", command, "--home", str(home.root), *more])


def test_start_becomes_the_supervisor_and_takes_no_code_from_the_folder_it_is_in(home, monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda path, words: became.append((path, words)))
    assert node(home, "start") == 0
    path, words = became[0]
    assert path == sys.executable and words[1:4] == ["-P", "-m", "client.service.start"]
    assert words[-1] == str(home.root.resolve())


def test_start_says_at_once_what_a_person_must_mend(home, monkeypatch, capsys):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it must not start"))
    home.node_key.chmod(0o644)
    assert node(home, "start") == ExitCode.STORAGE
    assert "CSL-F312" in capsys.readouterr().err


def test_stop_without_a_service(home, capsys):
    assert node(home, "stop") == 0
    assert "was not running" in capsys.readouterr().out
    assert node(home, "stop", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": False}


@pytest.mark.parametrize("command", ["start", "stop", "doctor"])
def test_operators_alone_may(home, capsys, command):
    home.roles_file.write_text("analysts: [root]\n")
    home.roles_file.chmod(0o600)
    assert node(home, command) == ExitCode.POLICY
    assert "CSL-C542" in capsys.readouterr().err


def test_doctor_prints_findings_and_fails_when_one_does(home, monkeypatch, capsys):
    findings = [good("disk", "Enough.")]
    monkeypatch.setattr(service, "examine", lambda place, around: findings)
    assert node(home, "doctor") == 0
    assert "all well" in capsys.readouterr().out
    findings.append(fail("clock", "Off.", "Set it."))
    assert node(home, "doctor", "--json") == ExitCode.FEDERATION
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert checks.surroundings().variables is os.environ


def status(home, capsys, *more):
    capsys.readouterr()
    assert node(home, "status", *more) == 0
    return capsys.readouterr().out


def test_status_of_a_node_that_does_not_run(home, capsys):
    assert "does not run" in status(home, capsys)
    assert json.loads(status(home, capsys, "--json"))["service"]["running"] is False


def status_with(home, capsys, monkeypatch, state, supernode):
    changed = state.model_copy(update={"children": (supernode, *state.children[1:])})
    monkeypatch.setattr(service, "read_service", lambda folder: changed)
    return status(home, capsys)


def test_status_says_who_is_up_why_not_and_when_the_last_request_came(home, capsys, monkeypatch):
    fields = {"pid": 5, "restarts": 2, "last_exit": 24, "since": 1_000_000}
    supernode = ChildState(name="supernode", state="up", reason=None, **fields)
    vault = ChildState(name="vault", state="waiting", reason="The vault's keys cannot be opened.", **fields)
    state = ServiceState(pid=4, started=1_000_000, children=(supernode, vault))
    monkeypatch.setattr(service, "read_service", lambda folder: state)
    (home.logs_folder / "supernode.log").write_text(
        "Starting Flower SuperNode\nConnection attempt failed, retrying in 1\n"
    )
    said = Standing(phase="waiting", since=now(), pid=5, last_request="2026-03-01T09:00:00+00:00", last_type="train")
    write_standing(home.run_folder / "vault.json", said)
    out = status(home, capsys)
    assert "tries to reach the link" in out and "started again 2 times" in out and "keys cannot be opened" in out
    assert "Last request: train, 2026-03-01T09:00:00+00:00" in out
    found = json.loads(status(home, capsys, "--json"))["service"]
    assert (found["link"], found["vault"], found["processes"][1]["state"]) == ("trying", "waiting", "waiting")
    again = supernode.model_copy(update={"reason": "The link refused this node's signature."})
    assert "refused this node's" not in status_with(home, capsys, monkeypatch, state, again)
    (home.logs_folder / "supernode.log").write_text("Starting Flower SuperNode\n")
    assert "refused this node's" in status_with(home, capsys, monkeypatch, state, again)
    up = state.model_copy(update={"children": (supernode, vault.model_copy(update={"state": "up"}))})
    monkeypatch.setattr(service, "read_service", lambda folder: up)
    assert "up, waits for requests" in status(home, capsys)
