"""`consilience officer withdraw`: whoever withdrew is gone from lists and studies at once, and the report says what remains."""

import io
import json
import math
import shutil
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from client import lists
from client.home import Home
from client.influence import certainty
from client.officer.withdraw import read_customers, register
from client.participation import studies_of
from client.unlock import unlock
from client.withdrawal import Withdrawals, withdrawal_digest
from federation.errors import ConsilienceError, DocumentError, StorageError
from privacy.ledger import Ledger
from privacy.ledger.entries import Withdraw
from tests.client import vault_home
from tests.client.vault_home import CANARY, Town

REASON = "The customers asked us to."


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """One finished study with a name list."""
    town = vault_home.found(tmp_path_factory.mktemp("town"))
    vault, spec = town.vault(), town.ranking()
    vault.answer("query.offer", town.offer(spec))
    vault.answer("train", town.train(spec, 1))
    vault.answer("evaluate", town.evaluate(spec))
    model = town.weights(spec, 1.0)
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    return town


@pytest.fixture
def home(town: Town, tmp_path: Path) -> Home:
    root = tmp_path / "home"
    shutil.copytree(town.homes["alder"].root, root)
    return Home(root)


@pytest.fixture
def listed(home: Home) -> list[str]:
    return [line.customer for line in the_list(home).listed]


def the_list(home: Home) -> lists.NameList:
    found = lists.newest(home.folder("lists"), unlock(home).store)
    assert found is not None
    return found


def file_of(tmp_path: Path, ids: list[str]) -> Path:
    path = tmp_path / "withdrawn.txt"
    path.write_text("\n".join(ids))
    return path


def call(home: Home, *arguments: str) -> tuple[int, str, Exception | None]:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)  # with one command alone typer makes no group
    result = CliRunner().invoke(app, ["withdraw", "--home", str(home.root), *arguments])
    return result.exit_code, result.output, result.exception if isinstance(result.exception, Exception) else None


def withdraw(home: Home, tmp_path: Path, ids: list[str], *more: str) -> dict:
    code, output, error = call(home, "--customers", str(file_of(tmp_path, ids)), "--reason", REASON, "--json", *more)
    assert code == 0, error
    return json.loads(output)


def entries(home: Home) -> list[Withdraw]:
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        return [entry.body for entry in ledger.entries() if isinstance(entry.body, Withdraw)]


def test_the_report_names_the_studies_lists_and_bounds(
    town: Town, home: Home, listed: list[str], tmp_path: Path
) -> None:
    ids = [*listed[:3], "nobody-knows"]
    seen = studies_of(home, unlock(home).store, ids)[town.ranking().digest()]
    report = withdraw(home, tmp_path, ids)
    assert (report["customers"], report["unknown"], report["withdrawn_before"]) == (4, 1, 0)
    (study,) = report["studies"]
    assert (study["study"], study["purpose"], study["in_use"]) == ("propensity", "marketing.propensity", True)
    assert study["seen"] == {"training": seen.training, "heldout": seen.heldout}
    assert 0 < seen.training + seen.heldout <= 3  # not all who may be contacted may be profiled
    assert study["epsilon"] == 2.0 and study["certainty"] == pytest.approx(math.exp(2) / (1 + math.exp(2)) + 1e-5)
    assert len(study["model"]) == 64 and study["released"].startswith("20")
    assert report["lists"] == [{"stem": the_list(home).stem, "lines": 3, "exported": False}]
    assert report["participation_unknown"] == [] and report["lists_failed"] == []


def test_lists_that_were_exported_are_named_as_such(home: Home, listed: list[str], tmp_path: Path) -> None:
    stem = the_list(home).stem
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        ledger.access("view", lists.called(stem), actor="mei", role="analyst", count=10)
    assert [item["exported"] for item in withdraw(home, tmp_path, listed[:1])["lists"]] == [False]
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        ledger.access("export", lists.called(stem), actor="mei", role="analyst", count=10)
    code, output, _ = call(home, "--customers", str(file_of(tmp_path, listed[1:2])), "--reason", REASON)
    assert code == 0 and "it was exported" in output.replace("\n", " ")


def test_lists_are_rewritten_and_the_ledger_knows_how_many(home: Home, listed: list[str], tmp_path: Path) -> None:
    gone = listed[:2]
    withdraw(home, tmp_path, gone)
    assert [line.customer for line in the_list(home).listed] == listed[2:]
    (body,) = entries(home)
    assert (body.data.count, body.data.reason) == (2, REASON)
    assert body.data.salted == withdrawal_digest(unlock(home).store, gone)
    assert CANARY.encode() not in home.ledger_file.read_bytes()


def test_the_same_again_is_known_and_noted(home: Home, listed: list[str], tmp_path: Path) -> None:
    withdraw(home, tmp_path, listed[:2])
    report = withdraw(home, tmp_path, listed[:3])
    assert (report["customers"], report["withdrawn_before"]) == (3, 2)
    assert [item["lines"] for item in report["lists"]] == [1]
    assert [body.data.count for body in entries(home)] == [2, 3]
    assert len(Withdrawals.load(home, unlock(home).store)) == 3


def test_a_dry_run_changes_nothing(home: Home, listed: list[str], tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    report = withdraw(home, tmp_path, listed[:2], "--dry-run")
    assert report["dry_run"] and [item["lines"] for item in report["lists"]] == [2] and len(report["studies"]) == 1
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before


def test_a_running_vault_reads_its_open_study_without_them(town: Town, tmp_path: Path) -> None:
    member = "birch"
    home = town.homes[member]
    vault, spec = town.vault(member), town.ranking()
    vault.answer("query.offer", town.offer(spec))
    vault.answer("train", town.train(spec, 1))
    room = vault._rooms.held(spec.digest())
    gone = str(room.training_ids[0])
    assert call(home, "--customers", str(file_of(tmp_path, [gone])), "--reason", REASON)[0] == 0
    vault.answer("train", town.train(spec, 2))
    assert gone not in set(vault._rooms.held(spec.digest()).training_ids)
    assert studies_of(home, unlock(home).store, [gone])[spec.digest()].training == 1  # round 1 did see her


def test_what_retention_deleted_is_said_to_be_unknown(home: Home, listed: list[str], tmp_path: Path) -> None:
    for path in home.folder("participation").iterdir():
        path.unlink()
    report = withdraw(home, tmp_path, listed[:1])
    assert report["studies"] == [] and len(report["participation_unknown"]) == 1
    code, output, _ = call(home, "--customers", str(tmp_path / "withdrawn.txt"), "--reason", REASON)
    assert code == 0 and "Unknown for these studies" in output and "propensity" in output


def test_in_words(home: Home, listed: list[str], tmp_path: Path) -> None:
    file = file_of(tmp_path, listed[:1])
    _, before, _ = call(home, "--customers", str(file), "--reason", REASON, "--dry-run")
    assert "Nothing is changed" in before and "would lose 1 lines" in before
    code, output, _ = call(home, "--customers", str(file), "--reason", REASON)
    assert code == 0 and "in use" in output and "88.1%" in output.replace("\n", " ") and "lost 1 lines" in output
    assert CANARY not in output


def test_a_list_that_does_not_open_keeps_nobody_else_on_the_others(
    home: Home, listed: list[str], tmp_path: Path
) -> None:
    stem = the_list(home).stem
    other = stem.replace("propensity-", "another-")
    for suffix in lists.SUFFIXES:  # sealed under another name
        shutil.copy(home.folder("lists") / f"{stem}{suffix}", home.folder("lists") / f"{other}{suffix}")
    code, _, error = call(home, "--customers", str(file_of(tmp_path, listed[:1])), "--reason", REASON)
    assert code != 0 and isinstance(error, ConsilienceError) and error.code == "CSL-C561"
    assert [line.customer for line in lists.read_list(home.folder("lists"), stem, unlock(home).store).listed] == listed[
        1:
    ]


def test_when_the_ledger_cannot_be_written_they_are_withdrawn_all_the_same(
    home: Home, listed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    with monkeypatch.context() as patch:
        patch.setattr("client.officer.withdraw.Ledger.withdraw", full)
        code, _, error = call(home, "--customers", str(file_of(tmp_path, listed[:1])), "--reason", REASON)
    assert code != 0 and isinstance(error, StorageError)
    assert Withdrawals.load(home, unlock(home).store).mask(listed[:1]).all() and entries(home) == []
    withdraw(home, tmp_path, listed[:1])
    assert len(entries(home)) == 1


@pytest.mark.parametrize("reason", ["", "  ", "x" * 401])
def test_a_reason_is_asked_for(home: Home, tmp_path: Path, reason: str) -> None:
    _, _, error = call(home, "--customers", str(file_of(tmp_path, ["a"])), "--reason", reason)
    assert isinstance(error, DocumentError) and error.code == "CSL-C560"


def test_a_home_that_is_being_restored_is_left_alone(home: Home, tmp_path: Path) -> None:
    home.lock_file.write_text("")
    _, _, error = call(home, "--customers", str(file_of(tmp_path, ["a"])), "--reason", REASON)
    assert isinstance(error, ConsilienceError) and error.code == "CSL-C006"
    assert len(Withdrawals.load(home, unlock(home).store)) == 0


def test_officers_alone_withdraw(home: Home, tmp_path: Path) -> None:
    home.roles_file.write_text("operators: [nobody]\n")
    home.roles_file.chmod(0o600)
    _, _, error = call(home, "--customers", str(file_of(tmp_path, ["a"])), "--reason", REASON)
    assert isinstance(error, ConsilienceError) and error.code == "CSL-C542" and entries(home) == []


@pytest.mark.parametrize(
    ("content", "column", "code"),
    [
        (b"", None, "CSL-C559"),
        (b"\n \r\n", None, "CSL-C559"),
        (b"customer\n", "customer", "CSL-C559"),
        (b"PK\x03\x04\x00\x00", None, "CSL-C558"),
        (b"\xff\xfe\x00", None, "CSL-C558"),
        (b"id,name\n1,Ann\n", None, "CSL-C558"),
        (b"id;name\n1;Ann\n", "customer", "CSL-C558"),
        (b"", "customer", "CSL-C558"),
        (b"a,id\n1\n", "id", "CSL-C558"),
        (b'a,id\n1,"2\n', "id", "CSL-C558"),
        (b"x" * 257, None, "CSL-C558"),
    ],
)
def test_files_that_are_no_list_of_customers(tmp_path: Path, content: bytes, column: str | None, code: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        read_customers(path, column)
    assert caught.value.code == code and "Ann" not in str(caught.value)


def test_files_that_cannot_be_read_or_are_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DocumentError, match="CSL-C557"):
            read_customers(path, None)
    monkeypatch.setattr("client.officer.withdraw.LARGEST_FILE", 3)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(DocumentError, match="CSL-C557"):
        read_customers(tmp_path / "large", None)


def test_customers_come_through_a_pipe_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.officer.withdraw.sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert read_customers(Path("-"), None) == {"a", "b"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_column_of_a_table(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(
        f'\ufeffname{delimiter}id\r\nAnn{delimiter} 7 \r\nBob{delimiter}\r\nCy{delimiter}"a b"\r\nDi{delimiter}7\r\n'
    )
    assert read_customers(path, "id") == {"7", "a b"}


@given(st.sets(st.text(st.characters(categories=["L", "N", "P"], exclude_characters=",;"), min_size=1, max_size=9)))
def test_one_identifier_a_line(tmp_path_factory: pytest.TempPathFactory, ids: set[str]) -> None:
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_text("\n".join(["", *ids, ""]))
    if ids:
        assert read_customers(path, None) == ids


@given(st.floats(0, 50), st.floats(0, 1))
def test_certainty_is_a_bound_between_a_half_and_one(epsilon: float, delta: float) -> None:
    found = certainty(epsilon, delta)
    assert 0.5 <= found <= 1.0 and certainty(epsilon, 0.0) <= found
    assert certainty(0.0, 0.0) == 0.5 and certainty(2.0, 0.0) == pytest.approx(0.8808, abs=1e-4)
