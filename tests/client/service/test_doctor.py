"""What the doctor finds: every finding that fails names its next action."""

import shutil
import sqlite3
from datetime import date, timedelta

import pytest

from client.home import Home
from client.service import doctor
from client.service.doctor import Surroundings, examine
from client.service.standing import Standing, now, write_standing
from client.unlock import unlock
from federation.doctor import fail, good
from federation.heads import origin_of
from federation.note import Checkpoint, sign_checkpoint
from federation.service_state import ChildState, ServiceState
from privacy.ledger import Ledger
from tests.client import vault_home
from tests.founding_parts import APP, link

TODAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return vault_home.found(tmp_path_factory.mktemp("town"), link=link())


@pytest.fixture
def home(town, tmp_path):
    shutil.copytree(town.homes["alder"].root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(doctor, "check_versions", lambda: [good("versions", "As pinned.")])
    monkeypatch.setattr(doctor, "check_port", lambda host, port, state: good(f"port {port}", "Free."))


def around(**changes):
    given = {"today": TODAY, "variables": {}, "installed": lambda: APP, "reach": lambda address, authority: []}
    return Surroundings(**(given | changes))


def find(home, check, **changes):
    return [item for item in examine(home, around(**changes)) if item.check == check]


def bad(home, **changes):
    found = [item for item in examine(home, around(**changes)) if item.level != "ok"]
    assert all(item.action for item in found)
    return {(item.check, item.level): item.what for item in found}


def test_a_node_that_is_well_only_does_not_run(home):
    assert set(bad(home)) == {("service", "warn")}


def test_a_home_that_was_copied_before_others_signed_a_longer_ledger(town, home):
    checkpoint = Checkpoint(origin_of(town.charter.federation, "alder"), 1000, "0" * 64)
    (home.root / "witness" / "conflict.note").write_text(sign_checkpoint(unlock(home).identity, checkpoint))
    [found] = find(home, "witness")
    assert found.level == "fail" and "CSL-C532" in found.what and "older copy" in found.what
    (home.root / "witness" / "conflict.note").write_text("no note")
    assert "CSL-C531" in find(home, "witness")[0].what


def test_a_contract_that_the_charter_declares_and_node_yaml_does_not_map(home):
    home.node_file.write_text(home.node_file.read_text().replace("  shop:\n", "  other:\n"))
    found = find(home, "contracts")
    assert [(item.level, item.what.split()[0]) for item in found] == [("fail", "shop"), ("warn", "other")]
    assert "CSL-C508" in found[0].what and "node.yaml" in found[0].action


def test_another_release_than_the_charters(home):
    assert ("release", "warn") in bad(home, installed=lambda: "0" * 64)


@pytest.mark.parametrize(
    ("today", "level"),
    [(date(2099, 12, 20), "warn"), (date(2100, 1, 2), "fail"), (date(2099, 11, 1), "ok")],
)
def test_a_policy_that_expires(home, today, level):
    assert [item.level for item in find(home, "policy", today=today)] == [level]


def test_no_policy_in_force(tmp_path):
    town = vault_home.found(tmp_path, active=False, link=link())
    assert "None is in force" in bad(town.homes["alder"])["policy", "fail"]


def test_a_ledger_that_was_altered(home):
    with sqlite3.connect(home.ledger_file) as connection:
        connection.execute("DROP TRIGGER entry_stays")
        connection.execute("UPDATE entry SET leaf = zeroblob(32) WHERE seq = 1")
    found = bad(home)
    assert ("ledger", "fail") in found


def test_a_ledger_in_which_nothing_remains(home, monkeypatch):
    class Spent:
        exhausted = True

    monkeypatch.setattr(doctor.LedgerReader, "state", lambda self: Spent())
    monkeypatch.setattr(doctor.LedgerReader, "policy", lambda self: None)
    assert ("budget", "fail") in bad(home)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda home: home.lock_file.write_text(""), "home"),
        (lambda home: home.store_key.chmod(0o644), "private files"),
        (lambda home: home.holdout_key.write_text("{}"), "keys"),
        (lambda home: home.node_file.unlink(), "node.yaml"),
        (lambda home: home.pin_file.write_text("0" * 64), "charter"),
        (lambda home: home.node_key.unlink(), "charter"),
    ],
)
def test_what_a_person_must_mend(home, change, check):
    change(home)
    assert (check, "fail") in bad(home)


def test_keys_that_the_charter_does_not_name(home, town):
    for name in ("node.key", "identity.key"):
        shutil.copy(town.homes["birch"].root / "keys" / name, home.root / "keys" / name)
    found = [item.what for item in find(home, "charter")]
    assert any("node key" in what for what in found) and any("identity key" in what for what in found)


def test_a_charter_without_a_link(tmp_path):
    town = vault_home.found(tmp_path)
    assert "CSL-C411" in bad(town.homes["alder"])["link", "fail"]


def test_the_way_to_the_link_is_looked_at_with_the_charters_authority(home):
    asked = []

    def reach(address, authority):
        asked.append((address, authority))
        return [fail("clock", "10 minutes behind.", "Turn on time synchronisation.")]

    assert ("clock", "fail") in bad(home, reach=reach)
    charter = home.charter()
    assert asked == [(charter.link.address, charter.link.authority.encode())]
    home.node_file.write_text(home.node_file.read_text() + "service: {link: 'gateway.example:9'}\n")
    bad(home, reach=reach)
    assert asked[-1][0] == "gateway.example:9"


def test_a_proxy_in_the_way_is_said(home):
    assert ("proxy", "warn") in bad(home, variables={"https_proxy": "http://proxy:1"})


def running(monkeypatch, **vault):
    fields = {"pid": 5, "state": "up", "restarts": 0, "last_exit": None, "reason": None, "since": 1}
    children = tuple(ChildState(name=name, **(fields | more)) for name, more in (("supernode", {}), ("vault", vault)))
    monkeypatch.setattr(doctor, "read_service", lambda folder: ServiceState(pid=4, started=1, children=children))


def test_a_running_node_is_asked_how_it_fares(home, monkeypatch):
    running(monkeypatch)
    assert ("service", "warn") in bad(home)  # not connected yet
    home.folder("logs")
    (home.logs_folder / "supernode.log").write_text("Starting Flower SuperNode\nSuperNode ID: 7\n")
    assert bad(home) == {}
    said = Standing(phase="waiting", since=now(), pid=5, charter="0" * 64)
    write_standing(home.run_folder / "vault.json", said)
    assert "another one is pinned" in bad(home)["service", "fail"]
    write_standing(home.run_folder / "vault.json", said.model_copy(update={"phase": "refused", "charter": None}))
    assert "another secret" in bad(home)["service", "fail"]


def test_a_vault_that_is_down_says_why(home, monkeypatch):
    running(monkeypatch, state="waiting", reason="The vault's keys cannot be opened.")
    assert "keys cannot be opened" in bad(home)["service", "fail"]


def test_the_doctor_changes_nothing(home):
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        before = ledger.state().size
    files = sorted(path for path in home.root.rglob("*"))
    examine(home, around(today=TODAY + timedelta(days=1)))
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        assert ledger.state().size == before
    assert [path for path in sorted(home.root.rglob("*")) if path not in files] == []
