"""Coordinator and vaults together, by the apps that a real federation runs: a study to its end, and with things that die."""

import json
import os
from pathlib import Path

import pytest
import yaml

from client.app import VaultShelf, make_app
from client.inbox import Inbox
from federation.errors import FederationError
from federation.heads import coordinator_name, open_head, origin_of
from federation.study import HashHoldout, StudyDraft
from privacy.keys import create_identity, read_public
from privacy.ledger import LedgerReader, TreeHead, verify
from server.app import build_app
from server.events import LeftOut, RoundDone, Witnessed
from server.registry import Registry
from simulations.local_grid import Fault, LocalGrid, run_study
from tests.client import vault_home
from tests.client.entries import files, name_list
from tests.client.vault_home import CANARY, CONTRACT, Town

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
    for name in ("propensity", "again"):
        study = draft.model_copy(update={"name": name})
        (home / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(json.loads(study.model_dump_json())))
    seed = town.coordinator.private_bytes_raw()
    create_identity(home / "keys" / "identity.key", allow_plain=True, random=lambda _: seed)
    return home


def run(town: Town, home: Path, faults=None, events=None, study: str = "propensity") -> str:
    shelf = make_app(VaultShelf())
    nodes = {
        number: (shelf, {"home": str(town.homes[member].root)})
        for number, member in enumerate(vault_home.MEMBERS, start=1)
    }
    config = {"coordinator-home": str(home), "study": study, "allow-plain-key": True, "roster-seconds": 3.0}
    with LocalGrid(nodes, faults=faults or {}) as grid:
        run_study(build_app((events if events is not None else []).append), grid, config)
    return next(path.name for path in (home / "registry").iterdir() if path.name.startswith(study))


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
        assert kinds.count("consent") == 1 and kinds.index("reserve") < kinds.index("consent") < kinds.index("release")
        customers = {line.customer for line in name_list(town, member).listed}
        assert customers <= {f"{CANARY}-{member}-{number}" for number in range(vault_home.SIZE)} and customers
        for path in files(town.homes[member], "lists", "replies", "models", "participation", "witness", "studies"):
            assert CANARY.encode() not in path.read_bytes()


def test_after_a_study_everybody_holds_the_card_and_a_witnessed_head(town, tmp_path):
    home, events = furnish(town, tmp_path, DRAFT), []
    name = run(town, home, events=events)
    published = Registry(home / "registry").load(name, town.charter.coordinator_key)
    card = published.card.canonical()
    witnessed = {event.member: event for event in events if isinstance(event, Witnessed)}
    assert not [event for event in events if isinstance(event, LeftOut)]
    for member in vault_home.MEMBERS:
        own = town.homes[member]
        assert (own.folder("models") / f"{published.card.study}.card.json").read_bytes() == card
        head = open_head((own.folder("witness") / "own.note").read_text(), town.charter)
        others = {origin_of("test", other) for other in vault_home.MEMBERS if other != member}
        assert set(head.cosigners) == {coordinator_name("test"), *others}
        assert head.member == member and witnessed[member].returned
        assert (witnessed[member].size, len(witnessed[member].witnesses)) == (head.size, 2)
        kinds = ledger_kinds(town, member)
        assert kinds[-1] == "witness" and head.size == len(kinds) - 1 and kinds[-2] == "close"
        assert (home / "witness" / f"{member}.note").exists()
        witness = TreeHead(head.size, head.root)
        assert verify(own.ledger_file, town.key(member), witness=witness).valid


def test_the_next_study_goes_on_from_the_witnessed_heads(town, tmp_path):
    home = furnish(town, tmp_path, DRAFT.model_copy(update={"epsilon": 0.5}))
    run(town, home)
    events: list[object] = []
    run(town, home, events=events, study="again")
    assert not [event for event in events if isinstance(event, LeftOut)]
    assert [event.returned for event in events if isinstance(event, Witnessed)] == [True] * 3
    assert ledger_kinds(town, "alder").count("witness") == 2


def test_a_member_whose_ledger_was_put_back_takes_no_part_in_the_next_study(town, tmp_path):
    home, ledger = furnish(town, tmp_path, DRAFT.model_copy(update={"epsilon": 0.5})), town.homes["cedar"].ledger_file
    with town.ledger("cedar") as opened:
        opened.copy_to(tmp_path / "backup")
    run(town, home)
    for path in ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    (tmp_path / "backup").rename(ledger)
    for note in town.homes["cedar"].folder("witness").glob("*.note"):
        note.unlink()  # whoever puts an old ledger back takes the notes away as well
    before, events = len(ledger_kinds(town, "cedar")), []
    with pytest.raises(FederationError, match="CSL-S502"):
        run(town, home, events=events, study="again")
    assert {(event.who, event.code) for event in events if isinstance(event, LeftOut)} == {("cedar", "CSL-S706")}
    assert len(ledger_kinds(town, "cedar")) == before


def test_a_study_waits_for_officers_and_goes_on_when_they_approved(tmp_path):
    town = vault_home.found(tmp_path, epsilon=4.0, automatic=1.0)
    home = furnish(town, tmp_path, DRAFT)
    with pytest.raises(FederationError, match="CSL-S503"):
        run(town, home)
    assert all(ledger_kinds(town, member) == ["genesis", "policy", "refuse"] for member in vault_home.MEMBERS)
    for member in vault_home.MEMBERS:
        (pending,) = Inbox(town.homes[member].folder("inbox")).list()
        town.approve(pending.spec, member)
    run(town, home)
    assert all(ledger_kinds(town, member).count("reserve") == 1 for member in vault_home.MEMBERS)


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
    home = furnish(town, tmp_path, DRAFT.model_copy(update={"deadline_seconds": 4.0}))
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
    for member in vault_home.MEMBERS:
        town.change(member, smallest_partners=2)
    home = furnish(town, tmp_path, DRAFT.model_copy(update={"min_partners": 2, "deadline_seconds": 1.0}))
    faults = {
        1: [Fault("lose", types=frozenset({"train"}), groups=frozenset({"2"}))],
        3: [Fault("twice", types=frozenset({"train"}), groups=frozenset({"5"}))],
    }
    events: list[object] = []
    run(town, home, faults=faults, events=events)
    assert {event.who for event in events if isinstance(event, LeftOut)} >= {"alder", "cedar"}
    assert [kind for kind in ledger_kinds(town, "birch") if kind != "witness"][-1] == "close"
