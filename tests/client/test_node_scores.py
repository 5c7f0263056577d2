"""`consilience node scores`: the whole ranking of those who may be scored, noted in the ledger, and its head is the name list."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from client.unlock import unlock
from client.withdrawal import Withdrawals, register
from federation.command import run
from federation.errors import ExitCode, StorageError
from tests.client import vault_home
from tests.client.test_node_command import home, looks, node, town  # noqa: F401 - fixtures
from tests.client.vault_home import CANARY


def contactable(member="alder"):
    frame = vault_home.consents(vault_home.customers(member))
    return set(frame["customer"][frame["may_contact"] == "yes"])


def scored(home, tmp_path, *more):  # noqa: F811
    out = tmp_path / "scores.csv"
    assert node(home, "scores", "--study", "propensity", "--out", str(out), *more) == 0
    return list(csv.DictReader(out.read_text().splitlines()))


def test_everybody_who_agreed_to_be_contacted_is_ranked_and_nobody_else(home, tmp_path, capsys):  # noqa: F811
    rows = scored(home, tmp_path)
    assert {row["customer"] for row in rows} == contactable()
    found = [float(row["score"]) for row in rows]
    assert found == sorted(found, reverse=True) and all(0 < value < 1 for value in found)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(row["reason_1"] for row in rows)
    assert (tmp_path / "scores.csv").stat().st_mode & 0o077 == 0
    assert looks(home) == [("export", looks(home)[0][1], "analyst", len(rows))] and "propensity" in looks(home)[0][1]


def test_its_head_is_the_name_list(home, tmp_path, capsys):  # noqa: F811
    rows = scored(home, tmp_path)
    capsys.readouterr()
    assert node(home, "names", "--top", "100", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["rows"]
    assert [line["customer"] for line in listed] == [row["customer"] for row in rows[: len(listed)]]
    assert [line["score"] for line in listed] == pytest.approx([float(row["score"]) for row in rows[: len(listed)]])


def test_top_and_screen_and_parquet(home, tmp_path, capsys):  # noqa: F811
    assert node(home, "scores", "--study", "propensity", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["rows"]) == 10 and looks(home)[-1][0] == "view" and looks(home)[-1][3] == 10
    assert node(home, "scores", "--study", "propensity", "--top", "3") == 0
    assert "decile" in capsys.readouterr().out and looks(home)[-1][3] == 3
    out = tmp_path / "scores.parquet"
    assert node(home, "scores", "--study", "propensity", "--top", "5", "--out", str(out)) == 0
    assert [row["customer"] for row in pq.read_table(out).to_pylist()] == [row["customer"] for row in shown["rows"][:5]]


def test_who_withdrew_is_not_scored(home, tmp_path):  # noqa: F811
    keys = unlock(home)
    gone = sorted(contactable())[:7]
    register(home, keys.store, gone)
    assert len(Withdrawals.load(home, keys.store)) == 7
    assert {row["customer"] for row in scored(home, tmp_path)} == contactable() - set(gone)


def test_who_withdraws_while_the_others_are_scored_is_left_out(home, tmp_path, monkeypatch):  # noqa: F811
    from client.node import scores as module

    keys, gone = unlock(home), sorted(contactable())[:2]
    real = module.choose

    def choose(*arguments):
        register(home, keys.store, gone)
        return real(*arguments)

    monkeypatch.setattr(module, "choose", choose)
    assert {row["customer"] for row in scored(home, tmp_path)} == contactable() - set(gone)


def test_what_the_ledger_cannot_note_is_not_shown(home, tmp_path, monkeypatch, capsys):  # noqa: F811
    def full(*arguments, **named):
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    monkeypatch.setattr("client.node.scores.Ledger.access", full)
    assert node(home, "scores", "--study", "propensity") == ExitCode.STORAGE
    assert node(home, "scores", "--study", "propensity", "--out", str(tmp_path / "a.csv")) == ExitCode.STORAGE
    assert CANARY not in capsys.readouterr().out and not (tmp_path / "a.csv").exists()


def test_what_is_wrong_is_said_before_anything_is_scored(home, tmp_path, capsys):  # noqa: F811
    assert node(home, "scores", "--study", "nothing") == ExitCode.STORAGE
    assert "CSL-C615" in capsys.readouterr().err
    assert node(home, "scores", "--study", "propensity", "--out", str(tmp_path / "a.json")) == ExitCode.DOCUMENT
    (tmp_path / "a.csv").write_text("mine")
    assert node(home, "scores", "--study", "propensity", "--out", str(tmp_path / "a.csv")) == ExitCode.STORAGE
    assert (tmp_path / "a.csv").read_text() == "mine" and looks(home) == []
    weights = next((home.root / "models").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert node(home, "scores", "--study", "propensity") == ExitCode.INTEGRITY
    assert "CSL-C432" in capsys.readouterr().err
    weights.unlink()
    assert node(home, "scores", "--study", "propensity") == ExitCode.STORAGE
    assert "CSL-C433" in capsys.readouterr().err and looks(home) == []


def test_without_a_policy_nothing_says_whom_to_score(tmp_path, capsys, home, monkeypatch):  # noqa: F811
    monkeypatch.setattr("client.node.scores.open_reader", lambda place: NoPolicy())
    assert node(home, "scores", "--study", "propensity") == ExitCode.POLICY
    assert "CSL-C431" in capsys.readouterr().err


class NoPolicy:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def policy(self):
        return None


def test_only_analysts_may(home, capsys):  # noqa: F811
    home.roles_file.write_text("officers: [somebody_else]\n")
    home.roles_file.chmod(0o600)
    assert run(["node", "scores", "--study", "propensity", "--home", str(home.root)]) == ExitCode.POLICY
    assert "CSL-C542" in capsys.readouterr().err
