"""`consilience node value`: own customers in tiers, by a delivered report; noted in the ledger before anything is shown."""

import csv
import json
import shutil
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from client.home import Home
from client.placed import read_placements
from client.reports import Reports
from client.unlock import unlock
from client.withdrawal import register
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import ExitCode, StorageError
from tests.client import vault_home
from tests.client.test_node_command import looks, node
from tests.federation.lifetime_report import report

CONFIGS = Path(__file__).parents[2] / "configs"
AS_OF = date(2024, 7, 1)
NODE = """
member: {member}
plain_keys: true
contracts:
  shop:
    kind: transactions
    source: {{kind: csv, path: customers.csv}}
    customer: customer
    time: {{column: day}}
    amount: {{column: paid, unit: euro}}
    typical_basket: {{amount: 20.0, unit: euro}}
    complete_until: 2024-07-31
consent:
  layout: columns
  source: {{kind: csv, path: consent.csv}}
  customer: customer
  purposes: {{profiling: may_profile, contact: may_contact}}
"""


def purchases(member: str) -> pd.DataFrame:
    rng = np.random.default_rng(sum(member.encode()))
    names = [f"=canary-{number}" for number in range(150)]
    rows = [(name, int(day)) for name in names for day in rng.integers(-29, 60, rng.integers(1, 6))]
    return pd.DataFrame(
        {
            "customer": [name for name, _ in rows],
            "day": [(AS_OF - timedelta(days=day)).isoformat() for _, day in rows],
            "paid": rng.gamma(3.0, 8.0, len(rows)).round(2),
        }
    )


def consents(frame: pd.DataFrame) -> pd.DataFrame:
    names = sorted(set(frame["customer"]))
    return pd.DataFrame(
        {
            "customer": names,
            "may_profile": "yes",
            "may_contact": ["yes" if place % 3 else "no" for place in range(len(names))],
        }
    )


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Home:
    contract = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract).model_copy(update={"name": "shop"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vault_home, "CONTRACT", contract)
        patch.setattr(vault_home, "NODE", NODE)
        declared = partial(Declaration, as_of=AS_OF, window_days=60, horizon_days=30)
        patch.setattr(vault_home, "Declaration", declared)
        patch.setattr(vault_home, "customers", purchases)
        patch.setattr(vault_home, "consents", consents)
        return vault_home.found(tmp_path_factory.mktemp("town")).homes["alder"]


@pytest.fixture
def home(founded: Home, tmp_path: Path) -> Home:
    root = tmp_path / "home"
    shutil.copytree(founded.root, root)
    place = Home(root)
    text = (CONFIGS / "value" / "tiers.yaml").read_text().replace("contract: rfm", "contract: shop")
    (root / "tiers.yaml").write_text(text)
    Reports(place.folder("reports")).keep(report(contract="shop"))
    return place


def contactable() -> set[str]:
    frame = consents(purchases("alder"))
    return set(frame["customer"][frame["may_contact"] == "yes"])


def test_tiers_and_the_most_valuable_are_shown(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert node(home, "value", "--json", "--top", "4") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [tier["tier"] for tier in shown["tiers"]] == ["high", "middle", "low"]
    assert sum(tier["customers"] for tier in shown["tiers"]) == shown["customers"] <= len(contactable())
    assert all(tier["low"] < tier["value"] < tier["high"] for tier in shown["tiers"])
    values = [row["value"] for row in shown["rows"]]
    assert len(values) == 4 and values == sorted(values, reverse=True) and shown["rows"][0]["tier"] == "high"
    assert {row["customer"] for row in shown["rows"]} <= contactable() and shown["unit"] == "euro"
    assert looks(home) == [("view", "lifetime values by the report worth_study, abababab", "analyst", 4)]
    assert node(home, "value") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "just won" in text and "middle" in text and "not whether the model is right" in text


def test_a_file_holds_everybody_safely(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "values.csv"
    assert node(home, "value", "--out", str(out)) == 0
    assert "in clear" in capsys.readouterr().out and out.stat().st_mode & 0o077 == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["customer"].removeprefix("'") for row in rows} <= contactable() and len(rows) > 60
    assert all(row["customer"].startswith("'=") for row in rows)
    assert all(0 <= float(row["alive"]) <= 1 and float(row["value"]) > 0 for row in rows)
    assert looks(home)[-1][0] == "export" and looks(home)[-1][3] == len(rows)
    assert node(home, "value", "--out", str(out)) == ExitCode.STORAGE
    worth = read_placements(out.read_bytes()).worth
    assert worth is not None and len(worth) == len(rows), "what `node actions --placed` reads"


def test_everybody_goes_through_a_pipe(home: Home, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert node(home, "value", "--out", "-") == 0
    text = capsysbinary.readouterr().out.decode()
    assert text.startswith('"customer","tier","value"') and looks(home)[-1][3] == len(text.splitlines()) - 1


def test_who_withdrew_is_left_out(home: Home, tmp_path: Path) -> None:
    gone = sorted(contactable())[:5]
    register(home, unlock(home).store, gone)
    out = tmp_path / "values.csv"
    assert node(home, "value", "--out", str(out)) == 0
    assert not {row["customer"].removeprefix("'") for row in csv.DictReader(out.read_text().splitlines())} & set(gone)


def test_what_the_ledger_cannot_note_is_not_shown(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    monkeypatch.setattr("client.node.value.Ledger.access", full)
    assert node(home, "value", "--out", str(tmp_path / "values.csv")) == ExitCode.STORAGE
    assert "canary" not in capsys.readouterr().out and not (tmp_path / "values.csv").exists()


def test_what_is_missing_is_said(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert node(home, "value", "--study", "another") == ExitCode.STORAGE
    assert "CSL-C497" in capsys.readouterr().err
    assert node(home, "value", "--terms", str(tmp_path / "none.yaml")) == ExitCode.DOCUMENT
    assert "CSL-C810" in capsys.readouterr().err
    assert node(home, "value", "--out", str(tmp_path / "values.txt")) == ExitCode.DOCUMENT
    assert looks(home) == []


def test_without_a_policy_nothing_says_whom_to_value(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Without:
        def __enter__(self) -> "Without":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def policy(self) -> None:
            return None

    monkeypatch.setattr("client.node.value.open_reader", lambda _: Without())
    assert node(home, "value") == ExitCode.POLICY
    assert "CSL-C811" in capsys.readouterr().err


def test_a_contract_without_a_log_has_no_values(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("client.node.value.TransactionMapping", dict)
    assert node(home, "value") == ExitCode.DATA
    assert "CSL-C813" in capsys.readouterr().err
