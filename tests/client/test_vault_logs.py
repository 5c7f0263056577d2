"""What a vault's log says while customers' data go wrong in every way: codes, types and lines of code, never a customer."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import sqlalchemy as sa

from client.finish import Finish
from client.vault import Vault
from federation.errors import DataError
from federation.logs import setup_logs
from federation.study import LogisticModel
from tests.client import vault_home
from tests.client.vault_home import CANARY, Town

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return vault_home.found(tmp_path)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The log's lines so far; everything that any library logs would be in it, at every level."""
    out = io.StringIO()
    with setup_logs("vault", out, level=logging.DEBUG):
        logging.getLogger().setLevel(logging.DEBUG)
        yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def study(town: Town, vault: Vault) -> None:
    spec = town.spec(model=LogisticModel(kind="logistic"))
    model = town.weights(spec, 1.0)
    vault.answer("query.offer", town.offer(spec))
    vault.answer("train", town.train(spec, 1))
    vault.answer("evaluate", town.evaluate(spec))
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))


def all_of_it(town: Town) -> set[str]:
    """Every cell that could only come from a customer."""
    cells = pd.read_csv(town.homes["alder"].root / "customers.csv", dtype=str, keep_default_na=False)
    return {cell for column in cells for cell in cells[column] if CANARY in cell}


@pytest.mark.parametrize("column", ["customer", "years", "profession", "loan", "outcome"])
def test_no_cell_of_broken_data_is_logged(town: Town, lines: Lines, column: str) -> None:
    path = town.homes["alder"].root / "customers.csv"
    frame = pd.read_csv(path, dtype=str)
    frame[column] = [
        f"{CANARY}-{number % 7}" for number in range(len(frame))
    ]  # no number, no category, no single customer
    frame.to_csv(path, index=False)
    study(town, town.vault())
    found = lines()
    assert all_of_it(town)
    assert CANARY not in json.dumps(found)


def pandas_error() -> object:
    return pd.Series([CANARY]).astype("float64")


def duckdb_error() -> object:
    return duckdb.sql(f"SELECT CAST('{CANARY}' AS INTEGER)").fetchall()


def sql_error() -> object:
    with sa.create_engine("sqlite://").connect() as connection:
        return connection.execute(sa.text("SELECT :name FROM nothing"), {"name": CANARY})


def own_error() -> object:
    raise DataError("CSL-C109", f"{CANARY} is one of 31 customers.", "Look.")


@pytest.mark.parametrize("failing", [pandas_error, duckdb_error, sql_error, own_error])
def test_no_error_over_customers_brings_its_words(
    town: Town, lines: Lines, monkeypatch: pytest.MonkeyPatch, failing: Callable[[], object]
) -> None:
    monkeypatch.setattr(Finish, "decide", lambda *_: failing())
    study(town, town.vault())
    found = lines()
    (said,) = [line for line in found if "no name list" in str(line["event"])]
    assert said["logger"] == "consilience.vault" and said["process"] == "vault"
    assert "CSL-C109" in str(said["event"]) if failing is own_error else "test_vault_logs.py:" in str(said["event"])
    assert CANARY not in json.dumps(found) and "31" not in str(said["event"]).partition(";")[0]


def test_a_refusal_is_logged_by_its_code(town: Town, lines: Lines) -> None:
    town.vault().answer("train.default", town.hello())
    (said,) = [line for line in lines() if line["level"] == "warning"]
    assert said["event"] == "refused 'train.default': CSL-C510"
