"""Coordinator and vaults together, by the apps that a real federation runs: a study to its end, and with things that die."""

import json
import os
from pathlib import Path

import pytest
import yaml

from client.app import VaultShelf, make_app
from federation.errors import FederationError
from federation.study import HashHoldout, StudyDraft
from privacy.keys import create_identity, read_public
from privacy.ledger import LedgerReader, verify
from server.app import build_app
from server.events import LeftOut, RoundDone
from server.registry import Registry
from simulations.local_grid import Fault, LocalGrid, run_study
from tests.client import vault_home
from tests.client.vault_home import CONTRACT, Town

DRAFT = StudyDraft(
    name="propensity",
    title="Who buys",
    purpose="marketing.propensity",
    contract="shop",
    holdout=HashHoldout(kind="hash", share=0.25),
    deadline_seconds=5.0,
    min_partners=3,
    intended_use="Tests",
    limits="None",
)


def furnish(town: Town, root: Path, draft: StudyDraft) -> Path:
    """The coordinator's home beside the three vaults' homes."""
    home = root / "coordinator"
    for name in ("contracts", "studies", "keys"):
        (home / name).mkdir(parents=True)
    member = next(iter(town.homes.values()))
    (home / "charter.json").write_bytes(member.charter_file.read_bytes())
    (home / "charter.digest").write_text(member.pin_file.read_text())
    (home / "contracts" / "shop.yaml").write_text(CONTRACT.model_dump_json())
    (home / "studies" / "propensity.yaml").write_text(yaml.safe_dump(json.loads(draft.model_dump_json())))
    seed = town.coordinator.private_bytes_raw()
    create_identity(home / "keys" / "identity.key", allow_plain=True, random=lambda _: seed)
    return home


def run(town: Town, home: Path, faults=None, events=None) -> str:
    shelf = make_app(VaultShelf())
    nodes = {
        number: (shelf, {"home": str(town.homes[member].root), "plain-keys": True})
        for number, member in enumerate(vault_home.MEMBERS, start=1)
    }
    config = {"coordinator-home": str(home), "study": "propensity", "allow-plain-key": True, "roster-seconds": 3.0}
    with LocalGrid(nodes, faults=faults or {}) as grid:
        run_study(build_app((events if events is not None else []).append), grid, config)
    return next(path.name for path in (home / "registry").iterdir())


def ledger_kinds(town: Town, member: str) -> list[str]:
    key = read_public(town.homes[member].identity_key)
    assert verify(town.homes[member].ledger_file, key).valid
    with LedgerReader.read(town.homes[member].ledger_file, key) as ledger:
        return [entry.body.kind for entry in ledger.entries()]


@pytest.fixture
def town(tmp_path) -> Town:
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    return vault_home.found(tmp_path, epsilon=4.0)


def test_a_study_to_its_end(town, tmp_path):
    home = furnish(town, tmp_path, DRAFT)
    name = run(town, home)
    card = Registry(home / "registry").load(name, town.charter.coordinator_key).card
    assert [member.member for member in card.members] == list(vault_home.MEMBERS)
    for member in vault_home.MEMBERS:
        kinds = ledger_kinds(town, member)
        assert kinds.count("reserve") == 1 and kinds.count("close") == 1
        assert kinds.count("release") == card.rounds + 1
        assert len(list(town.homes[member].folder("lists").glob("*.csv"))) == 1


def test_a_local_averaging_study_with_an_mlp(town, tmp_path):
    draft = StudyDraft.model_validate_json(
        json.dumps(
            json.loads(DRAFT.model_dump_json())
            | {"mode": "fedavg", "model": {"kind": "mlp", "hidden": [4], "embedding": 2}}
        )
    )
    run(town, furnish(town, tmp_path, draft))
    assert "close" in ledger_kinds(town, "alder")


def test_a_node_that_dies_for_a_round_is_left_out_and_the_quorum_decides(town, tmp_path):
    home = furnish(town, tmp_path, DRAFT.model_copy(update={"deadline_seconds": 1.0}))
    faults = {2: [Fault("fail", types=frozenset({"train"}), groups=frozenset({"3"}))]}
    with pytest.raises(FederationError, match="CSL-S"):
        run(town, home, faults=faults)
    assert not (home / "registry").exists() or not list((home / "registry").iterdir())
    released = ledger_kinds(town, "alder").count("release")
    events: list[object] = []
    run(town, home, events=events)  # goes on where it stopped, and pays nothing twice
    assert ledger_kinds(town, "alder").count("reserve") == 1
    assert ledger_kinds(town, "alder").count("release") == ledger_kinds(town, "birch").count("release") > released
    assert min(event.round for event in events if isinstance(event, RoundDone)) == 3


def test_a_lost_reply_and_a_double_reply_do_not_stop_four_fifths(town, tmp_path):
    policies = [home.policy_file for home in town.homes.values()]
    for path in policies:
        path.write_text(path.read_text().replace("smallest_partners: 3", "smallest_partners: 2"))
    home = furnish(town, tmp_path, DRAFT.model_copy(update={"min_partners": 2, "deadline_seconds": 1.0}))
    faults = {
        1: [Fault("lose", types=frozenset({"train"}), groups=frozenset({"2"}))],
        3: [Fault("twice", types=frozenset({"train"}), groups=frozenset({"5"}))],
    }
    events: list[object] = []
    run(town, home, faults=faults, events=events)
    assert {event.who for event in events if isinstance(event, LeftOut)} >= {"alder", "cedar"}
    assert ledger_kinds(town, "birch")[-1] == "close"
