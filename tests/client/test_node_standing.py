"""Where customers stand for `node actions`: by reports or by a table of one's own, and what says so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.home import Home
from client.node import standing as module
from client.node.standing import standing
from client.node.value import TERMS
from client.placed import Place
from client.reports import Reports
from federation.errors import DocumentError, StorageError

KEYS: Any = SimpleNamespace(store=b"s" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, list[str]]:
    """Reports by the contract that is asked for, filled by the test; customers a and b are placed by them."""
    reports: dict[str | None, list[str]] = {}

    def reports_of(home: Home, contract: str | None) -> list[Any]:
        if contract not in reports:
            raise StorageError("CSL-C800", "No report.", "Ask for one.")
        return [SimpleNamespace(name=name) for name in reports[contract]]

    def placed_customers(home: Home, keys: Any, found: list[Any]) -> Any:
        columns = (["a", "b"], ["champions", ""], ["new", "cooling"])
        return SimpleNamespace(**dict(zip(("ids", "segment", "stage"), map(np.array, columns), strict=True)))

    monkeypatch.setattr(module, "reports_of", reports_of)
    monkeypatch.setattr(module, "placed_customers", placed_customers)
    return reports


@pytest.fixture
def valued(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms in the home, and a report on lifetime value by which a and b are worth something, and c nothing that is known."""
    (home.root / TERMS).write_text("terms")
    found = SimpleNamespace(report=SimpleNamespace(name="worth"))
    values = SimpleNamespace(ids=np.array(["a", "b", "c"]), value=np.array([5.0, -1.0, np.nan]), unit="euro")
    monkeypatch.setattr(module, "read_terms", lambda *arguments: SimpleNamespace(contract="rfm"))
    monkeypatch.setattr(Reports, "newest", lambda *arguments: found)
    monkeypatch.setattr(module, "valued", lambda *arguments: values)


def table(home: Home, text: str) -> Path:
    path = home.root / "own.csv"
    path.write_text(text)
    return path


def test_without_reports_and_table_nobody_stands_anywhere(home: Home) -> None:
    found = standing(home, KEYS, "rfm", None)
    assert (found.placed, found.worth, found.placed_by, found.worth_from) == ({}, None, "", "")


@pytest.mark.usefixtures("valued")
def test_reports_place_and_value(home: Home, delivered: dict[str | None, list[str]]) -> None:
    delivered["rfm"], delivered[None] = ["clusters", "cycle"], ["other"]
    found = standing(home, KEYS, "rfm", None)
    assert found.placed == {"a": Place("champions", "new"), "b": Place("", "cooling")}
    assert found.worth == {"a": 5.0, "b": -1.0}
    assert found.placed_by == "report clusters, cycle" and found.worth_from == "lifetime value by report worth, in euro"
    assert standing(home, KEYS, "bank_campaign", None).placed_by == "report other"


@pytest.mark.usefixtures("valued")
def test_an_own_table_counts_for_what_it_has_columns_for(home: Home, delivered: dict[str | None, list[str]]) -> None:
    delivered[None] = ["clusters"]
    places = standing(home, KEYS, "rfm", table(home, "customer,segment\na,lost\n"))
    assert places.placed == {"a": Place("lost")} and places.worth == {"a": 5.0, "b": -1.0}
    money = standing(home, KEYS, "rfm", table(home, "customer,value\na,7\n"))
    assert money.worth == {"a": 7.0} and len(money.placed) == 2
    assert (money.placed_by, money.worth_from) == ("report clusters", "own table")


def test_terms_without_a_report_value_nobody(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.root / TERMS).write_text("terms")
    monkeypatch.setattr(module, "read_terms", lambda *arguments: SimpleNamespace(contract="rfm"))
    assert standing(home, KEYS, "rfm", None).worth is None


def test_a_fault_is_no_missing_report(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: object) -> None:
        raise StorageError("CSL-C504", "It cannot be read.", "Check the rights.")

    monkeypatch.setattr(module, "reports_of", damaged)
    with pytest.raises(StorageError, match="CSL-C504"):
        standing(home, KEYS, "rfm", None)
    monkeypatch.undo()
    (home.root / TERMS).write_text("terms")
    monkeypatch.setattr(module, "read_terms", lambda *arguments: SimpleNamespace(contract="rfm"))
    monkeypatch.setattr(Reports, "newest", damaged)
    with pytest.raises(StorageError, match="CSL-C504"):
        standing(home, KEYS, "rfm", None)


def test_a_table_that_is_not_there_has_its_code(home: Home) -> None:
    with pytest.raises(DocumentError, match="CSL-C767"):
        standing(home, KEYS, "rfm", home.root / "none.csv")
