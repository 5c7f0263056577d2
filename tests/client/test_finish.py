"""The end of a study at home: the decision is sealed, and whoever withdraws meanwhile is on no list."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client import finish, lists, scorings
from client.changes import Compared
from client.cohort import load_cohort, split
from client.config import load_node
from client.decisions import decision_file, read_decision
from client.finish import Finish
from client.home import Home
from client.studies import Studies
from client.unlock import unlock
from client.withdrawal import Withdrawals, register
from federation.errors import IntegrityError
from federation.messages import Receipts
from privacy.sealing import write_sealed
from tests.client import vault_home
from tests.client.vault_home import CANARY, Town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return vault_home.found(tmp_path_factory.mktemp("town"))


def end(town: Town, member: str) -> Home:
    """Play a study to its end at one member."""
    vault, spec = town.vault(member), town.ranking()
    vault.answer("query.offer", town.offer(spec))
    model = town.weights(spec, 1.0)
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    return town.homes[member]


def names(home: Home) -> set[str]:
    found = lists.newest(home.folder("lists"), unlock(home).store)
    assert found is not None
    return {line.customer for line in found.listed}


def test_a_decision_is_sealed_and_belongs_to_its_study(town: Town) -> None:
    home, rid, key = end(town, "alder"), town.ranking().digest(), unlock(town.homes["alder"]).store
    decision = read_decision(home, rid, key)
    assert decision is not None and decision.adoption.adopted and decision.listed == len(names(home))
    content = decision_file(home, rid).read_bytes()
    assert content.startswith(b"csl-box1") and b"adopted" not in content
    assert read_decision(home, "0" * 64, key) is None
    decision_file(home, "0" * 64).write_bytes(content)
    with pytest.raises(IntegrityError, match="CSL-P522"):
        read_decision(home, "0" * 64, key)
    with pytest.raises(IntegrityError, match="CSL-P522"):
        read_decision(home, rid, b"t" * 32)
    write_sealed(decision_file(home, "0" * 64), key, finish.KIND, json.dumps({"study": "x"}).encode())
    with pytest.raises(IntegrityError, match="CSL-C552"):
        read_decision(home, "0" * 64, key)


def test_a_list_is_held_against_the_scoring_before_and_a_damaged_one_is_no_obstacle(
    town: Town, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(town.homes["alder"].root, home.root)
    key = unlock(home).store
    (kept,) = scorings.files(home)

    def compared(days: int) -> Compared | None:
        """Decide about the same model again, some days later, and return what the new list says of the time before."""
        monkeypatch.setattr(finish, "_now", lambda: datetime.now(UTC) + timedelta(days=days))
        decide(home)
        found = lists.newest(home.folder("lists"), key)
        assert found is not None and found.listed
        assert all((line.score_before is None) == (found.record.compared is None) for line in found.listed)
        return found.record.compared

    again = compared(2)
    assert again is not None and again.same_model and again.same == again.matched > again.new == again.gone == 0
    for path in scorings.files(home):
        path.write_bytes(kept.read_bytes()[:-1])
    assert compared(4) is None and len(scorings.files(home)) == 3


def decide(home: Home) -> None:
    """Let a home decide about its one delivered model anew."""
    keys = unlock(home)
    (path,) = home.folder("models").glob("*.delivery.json")
    study = Studies(home.folder("studies")).find(path.name.split(".")[0])
    charter, node = home.charter(), load_node(home.node_file)
    contract = home.contract(charter, study.spec.draft.contract)
    step = Finish(home, charter, node, contract, study, holdout_key=keys.holdout, store_key=keys.store)
    declaration = charter.member(node.member).declaration(contract.name)
    assert declaration is not None
    cohort, _ = load_cohort(node, contract, declaration, "profiling", "learn")
    _, heldout = split(cohort, study.spec.draft.holdout, keys.holdout)
    with monkey_receipts():
        assert step.decide(Receipts(study=study.rid, receipts=()), heldout, 1, "contact").adoption.adopted


@contextmanager
def monkey_receipts() -> Iterator[None]:
    """Leave out who else holds the model: it was asked when the study ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finish, "_same_everywhere", lambda *arguments: None)
        yield


def test_who_withdrew_before_is_on_no_list(town: Town) -> None:
    gone = [f"{CANARY}-birch-{number}" for number in range(0, 400, 6)]
    register(town.homes["birch"], unlock(town.homes["birch"]).store, gone)
    assert names(end(town, "birch")).isdisjoint(gone)


def test_who_withdraws_while_the_list_is_written_is_taken_off(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    home = town.homes["cedar"]
    key, write, gone = unlock(home).store, finish.write_list, []

    def slow(folder: Path, listed: list, *arguments: object, **named: object) -> lists.Written:
        gone.extend(line.customer for line in listed[:3])
        register(home, key, gone)  # an officer, in another process: no list is there yet for her to rewrite
        return write(folder, listed, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("client.finish.write_list", slow)
        end(town, "cedar")
    assert len(gone) == 3 and names(home).isdisjoint(gone)
    decision = read_decision(home, town.ranking().digest(), key)
    assert decision is not None and decision.listed == len(names(home))
    assert len(Withdrawals.load(home, key)) == 3
