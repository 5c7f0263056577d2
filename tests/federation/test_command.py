"""The command line as a person and as a machine meet it."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from federation import command
from federation.command import GROUP, run
from federation.errors import ExitCode, PolicyError


def test_the_overview_imports_no_group():
    modules = "[m for m in sys.modules if m in ('torch', 'client', 'server')]"
    code = f"import sys; from federation.command import run; run(['--help']); print({modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    assert all(name in result.stdout for name in ("node", "officer", "coordinator", "simulate", "data", "verify"))


@pytest.mark.parametrize("name", ["node", "officer", "coordinator", "simulate", "data"])
def test_every_group_explains_itself(name, capsys):
    assert run([name, "--help"]) == 0
    assert "Commands" in capsys.readouterr().out


def test_the_groups_are_the_installed_ones():
    groups = {entry.name for entry in entry_points(group=GROUP)}
    assert groups == {"node", "officer", "coordinator", "simulate", "data", "verify"}


def test_an_unknown_group_is_a_usage_error(capsys):
    assert run(["nodes"]) == ExitCode.USAGE
    assert "No such command" in capsys.readouterr().err


def failing(error: BaseException):
    def main(**kwargs: object) -> None:
        raise error

    return main


def test_an_error_is_shown_with_code_cause_and_action(monkeypatch, capsys):
    monkeypatch.setattr(command.dispatch, "main", failing(PolicyError("CSL-P201", "Not allowed.", "Ask your officer.")))
    assert run(["officer", "budget"]) == ExitCode.POLICY
    assert capsys.readouterr().err == "CSL-P201  Not allowed.\nAsk your officer.\n"


def test_a_machine_gets_the_error_as_json(monkeypatch, capsys):
    monkeypatch.setattr(command.dispatch, "main", failing(PolicyError("CSL-P201", "Not allowed.", "Ask.")))
    assert run(["officer", "budget", "--json"]) == ExitCode.POLICY
    assert json.loads(capsys.readouterr().err) == {
        "error": {"code": "CSL-P201", "cause": "Not allowed.", "action": "Ask."}
    }


def test_what_nobody_foresaw_is_told_without_its_text(monkeypatch, capsys):
    monkeypatch.setattr(command.dispatch, "main", failing(ValueError("customer 4711")))
    assert run(["node", "check"]) == ExitCode.INTERNAL
    shown = capsys.readouterr().err
    assert shown.startswith("CSL-F303") and "ValueError" in shown
    assert "4711" not in shown and "Traceback" not in shown


def test_a_path_that_cannot_be_used_is_a_storage_error(monkeypatch, capsys):
    monkeypatch.setattr(command.dispatch, "main", failing(NotADirectoryError(20, "Not a directory", "out/x")))
    assert run(["simulate", "demo"]) == ExitCode.STORAGE
    assert capsys.readouterr().err.startswith("CSL-F302  out/x cannot be read or written: Not a directory.")


def test_ctrl_c_while_libraries_are_imported_leaves_at_once():
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background ignores it
from federation import command
class Entry:
    name = "node"
    def load(self):
        os.kill(os.getpid(), signal.SIGINT)
        raise RecursionError("half-imported")
command.entry_points = lambda group: [Entry()]
sys.exit(command.run(["node"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == ExitCode.INTERRUPTED and "Interrupted" in result.stderr


def test_ctrl_c_has_its_own_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(command.dispatch, "main", failing(KeyboardInterrupt()))
    assert run(["simulate", "demo"]) == ExitCode.INTERRUPTED
    assert "Interrupted" in capsys.readouterr().err
