"""Retention: what is too old goes, what is not stays, by the ledger's time; and every deletion stands in the ledger first."""

import os
import shutil
import time
from pathlib import Path

import pytest

from client.home import Home
from client.retention import due, purge
from client.unlock import unlock
from federation.errors import StorageError
from privacy.ledger import Ledger
from privacy.ledger.entries import Access
from privacy.policy import Retention
from tests.client import vault_home
from tests.client.vault_home import Town

DAY = 86_400_000
RETENTION = Retention(name_lists_days=10, replies_days=20, participation_days=30)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """One closed study with two kept replies, and one that is open."""
    town = vault_home.found(tmp_path_factory.mktemp("town"))
    vault, spec = town.vault(), town.ranking()
    for study in (spec, town.ranking(name="second")):
        vault.answer("query.offer", town.offer(study))
        vault.answer("train", town.train(study, 1))
    model = town.weights(spec, 1.0)
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    return town


@pytest.fixture
def home(town: Town, tmp_path: Path) -> Home:
    root = tmp_path / "home"
    shutil.copytree(town.homes["alder"].root, root)
    return Home(root)


def later(home: Home, days: float) -> Ledger:
    """The ledger, with a clock that is some days ahead."""
    return Ledger.open(
        home.ledger_file, unlock(home).identity, clock=lambda: time.time_ns() // 1_000_000 + int(days * DAY)
    )


def kept(home: Home, name: str) -> list[str]:
    return sorted(path.name for path in home.folder(name).iterdir())


def erased(ledger: Ledger) -> list[tuple[str, int, str]]:
    bodies = [entry.body for entry in ledger.entries()]
    return [
        (body.data.what, body.data.count, body.data.actor)
        for body in bodies
        if isinstance(body, Access) and body.data.action == "erase"
    ]


def test_nothing_goes_before_its_time(home: Home) -> None:
    before = {name: kept(home, name) for name in ("lists", "scorings", "replies", "participation")}
    with later(home, 9) as ledger:
        assert not purge(home, RETENTION, ledger) and erased(ledger) == []
    assert {name: kept(home, name) for name in before} == before


def test_each_kind_goes_when_its_own_days_are_over(town: Town, home: Home) -> None:
    rid = town.ranking().digest()
    expected = [
        (
            12,
            {f"name list {Path(kept(home, 'lists')[0]).stem}": 3, f"scoring {Path(kept(home, 'scorings')[0]).stem}": 1},
        ),
        (21, {f"kept replies of study {rid}": 2}),
        (31, {f"participation in study {rid}": 1}),
    ]
    for days, gone in expected:
        with later(home, days) as ledger:
            found = purge(home, RETENTION, ledger, actor="chief", role="operator")
            assert {what: len(files) for what, files in found.groups()} == gone
            assert erased(ledger)[-len(gone) :] == [(*group, "chief") for group in gone.items()]
            assert not purge(home, RETENTION, ledger)
    assert kept(home, "lists") == kept(home, "scorings") == [] and not any(
        rid in name for name in kept(home, "replies") + kept(home, "participation")
    )


def test_a_study_that_is_open_keeps_what_a_restart_needs(home: Home) -> None:
    with later(home, 5000) as ledger:
        purge(home, RETENTION, ledger)
    assert len(kept(home, "replies")) == 2 and len(kept(home, "participation")) == 1


def test_looking_changes_nothing(home: Home) -> None:
    with later(home, 100) as ledger:
        size = ledger.state().size
        found = due(home, RETENTION, ledger, ledger.now())
        assert len(found.groups()) == 4 and ledger.state().size == size
    assert len(kept(home, "lists")) == 3


def test_a_clock_that_goes_back_keeps_nothing_longer(home: Home) -> None:
    with later(home, 100) as ledger:
        ledger.refuse("CSL-C510", "a study", "writes the ledger's time")
    with later(home, -1000) as ledger:
        assert len(purge(home, RETENTION, ledger).groups()) == 4


def test_what_the_ledger_cannot_note_is_not_deleted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    with later(home, 100) as ledger, monkeypatch.context() as patch:
        patch.setattr(ledger, "access", full)
        with pytest.raises(StorageError, match="CSL-P511"):
            purge(home, RETENTION, ledger)
    assert len(kept(home, "lists")) == 3


def test_a_file_that_cannot_be_deleted_has_its_code(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    with later(home, 100) as ledger, monkeypatch.context() as patch:
        patch.setattr("client.retention.Path.unlink", refuse)
        with pytest.raises(StorageError, match="CSL-C549"):
            purge(home, RETENTION, ledger)
        assert len(erased(ledger)) == 1
    with later(home, 100) as ledger:
        assert len(purge(home, RETENTION, ledger).groups()) == 4 and kept(home, "lists") == []


def test_what_a_crash_left_behind_goes_and_strangers_stay(home: Home) -> None:
    left = home.folder("lists") / ".churn.csv.x1y2z3"
    stranger = home.folder("lists") / "notes.txt"
    for path in (left, stranger):
        path.write_text("x")
    with later(home, 0.5) as ledger:
        assert not purge(home, RETENTION, ledger)
    with later(home, 2) as ledger:
        purge(home, RETENTION, ledger)
        assert erased(ledger) == [("files of interrupted writing", 1, "vault")]
    assert stranger.exists() and not left.exists()


def test_a_list_rewritten_since_is_as_old_as_its_name_says(home: Home) -> None:
    for path in home.folder("lists").iterdir():
        os.utime(path, ns=(time.time_ns() + 50 * DAY * 1_000_000,) * 2)
    with later(home, 12) as ledger:
        assert len(purge(home, RETENTION, ledger).lists) == 1


def test_a_link_is_not_followed(home: Home, tmp_path: Path) -> None:
    outside = tmp_path / ".outside"
    outside.write_text("x")
    (home.folder("lists") / ".link").symlink_to(outside)
    with later(home, 100) as ledger:
        purge(home, RETENTION, ledger)
    assert outside.exists()
