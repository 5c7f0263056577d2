"""An officer who closes a study erases the secrets of its sums, and the ledger says so first."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.retention import purge
from federation.errors import ConsilienceError, StorageError
from federation.messages import Refusal, unpack
from privacy.ledger import Ledger
from privacy.ledger.entries import Close
from tests.client.officer_desk import group, run

REASON = "--reason", "The partner left"


def kept(federation):
    """What lies in the folder of secrets, but for temporary files."""
    return sorted(path.name for path in (federation.town.homes["alder"].root / "secure").iterdir())


def last_entries(federation):
    """The study's close and what was erased, in the ledger's order."""
    with federation.town.ledger() as ledger:
        bodies = [entry.body for entry in ledger.entries(kinds=("close", "access"))]
    return [
        ("close",) if isinstance(body, Close) else (body.data.what, body.data.count, body.data.role) for body in bodies
    ]


def test_the_secrets_of_its_sums_go_with_it(agreed):
    agreed.revealed(1, agreed.acknowledged(1, agreed.masked(1, agreed.ready(1))))
    ready = agreed.ready(2)
    assert kept(agreed) == sorted([f"{agreed.rid}.epoch", f"{agreed.rid}-1.sum", f"{agreed.rid}-2.sum"])
    other = agreed.town.homes["alder"].root / "secure" / f"{'f' * 64}.epoch"
    other.write_bytes(b"of another study, which is open")
    at = "--home", agreed.town.homes["alder"].root
    said = json.loads(run("close", "propensity", *REASON, *at, "--yes", "--json"))
    assert (said["digest"], said["erased"]) == (agreed.rid, 3) and kept(agreed) == [other.name]
    assert last_entries(agreed) == [("close",), (f"secrets of the sums of study {agreed.rid}", 3, "officer")]
    reply = agreed.ask("alder", "query.sum_readies", agreed.sum_readies(2, agreed.readies(ready)))
    assert unpack(reply, Refusal, agreed.town.key("alder"))[0].member == "alder"
    assert kept(agreed) == [other.name]
    text = " ".join(run("ledger", "--kind", "access", *at).split())
    assert f"deleted secrets of the sums of study {agreed.rid[:12]}…: 3 files." in text and agreed.rid not in text


def test_it_is_said_to_a_person(agreed):
    out = run("close", "propensity", *REASON, "--home", agreed.town.homes["alder"].root, "--yes")
    assert "Erased the secrets of its sums: 1 files." in out


def asked_and_refused(federation):
    """What an officer is told before she is asked; she says no."""
    words = "close", "propensity", *REASON, "--home", str(federation.town.homes["alder"].root)
    result = CliRunner().invoke(group(), words, input="n\n", env={"COLUMNS": "200"})
    assert result.exit_code == 1
    return result.stderr


def test_without_a_yes_they_stay(agreed):
    before = kept(agreed)
    assert asked_and_refused(agreed).count("nothing left the house; its charge comes back") == 2
    assert kept(agreed) == before != [] and last_entries(agreed) == []


def test_once_the_data_were_read_nothing_comes_back_and_it_is_said(agreed):
    agreed.masked(1, agreed.ready(1))
    assert asked_and_refused(agreed).count("masked vectors may have left; nothing comes back from this account") == 2
    said = run("close", "propensity", *REASON, "--home", agreed.town.homes["alder"].root, "--yes")
    assert "Given back: nothing." in said


def test_a_file_that_cannot_be_deleted_leaves_the_study_closed_and_goes_with_the_next_purge(agreed, monkeypatch):
    def no(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    home = agreed.town.homes["alder"]
    agreed.stop("alder")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", no)
        with pytest.raises(StorageError, match="CSL-C549.*consilience node purge"):
            run("close", "propensity", *REASON, "--home", home.root, "--yes")
    with pytest.raises(ConsilienceError, match="CSL-C658"):
        run("close", "propensity", *REASON, "--home", home.root, "--yes")
    assert kept(agreed) == [f"{agreed.rid}.epoch"]
    with agreed.town.ledger() as ledger:
        assert ledger.reservation(agreed.rid).closed
        policy = ledger.policy()
        assert policy is not None
        purge(home, policy.retention, ledger)
    assert kept(agreed) == []
    assert [len(entry) for entry in last_entries(agreed)] == [1, 3, 3]


def test_what_the_ledger_cannot_note_is_not_erased(agreed, monkeypatch):
    """As with every deletion: first the entry, then the files."""

    def full(*arguments, **named):
        raise StorageError("CSL-P513", "The disk is full.", "Make room.")

    monkeypatch.setattr(Ledger, "access", full)
    with pytest.raises(StorageError, match="CSL-P513"):
        run("close", "propensity", *REASON, "--home", agreed.town.homes["alder"].root, "--yes")
    assert kept(agreed) == [f"{agreed.rid}.epoch"]
