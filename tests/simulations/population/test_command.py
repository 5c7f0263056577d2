"""The command: tables that can be read again, a summary that says it is simulated, and refusals in words."""

import json

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from federation.errors import DocumentError, StorageError
from simulations.population.command import population
from simulations.population.facts import FACTS
from simulations.population.generate import generate
from simulations.population.parameters import PopulationParameters

APP = typer.Typer()
APP.command()(population)
FEW = ["--customers", "600", "--banks", "2", "--shops", "2", "--seed", "3"]


def test_every_institution_gets_its_table(tmp_path) -> None:
    result = CliRunner().invoke(APP, [*FEW, "--purchases", "--out", str(tmp_path / "a" / "b"), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    out = tmp_path / "a" / "b"
    written = json.loads((out / "population.json").read_text())
    assert printed == {"out": str(out), **written}
    assert written["simulated"] is True
    assert written["seed"] == 3
    assert PopulationParameters(**written["parameters"]) == PopulationParameters(customers=600, banks=2, shops=2)
    made = generate(PopulationParameters(customers=600, banks=2, shops=2), 3, purchases=True)
    for row in written["institutions"]:
        table = pd.read_parquet(out / f"{row['name']}.parquet")
        assert table.equals(made.at(row["name"]))
        assert len(table) == row["customers"]
        assert table["churned"].mean() == pytest.approx(row["churned"], abs=1e-4)
        assert ((out / f"{row['name']}_purchases.parquet").is_file()) == (row["kind"] == "shop")
    log = pd.concat([pd.read_parquet(out / f"shop_0{number}_purchases.parquet") for number in (1, 2)])
    assert len(log) == len(made.purchases)
    truth = pd.read_parquet(out / "truth_shop.parquet")
    assert (truth["person"] == made.tables["shop"]["person"]).all()
    assert {fact["name"] for fact in written["facts"]} <= {fact.name for fact in FACTS}
    for fact in written["facts"]:
        assert fact["holds"] == (abs(fact["generated"] - fact["published"]) <= fact["tolerance"])


def test_a_person_reads_a_table_and_that_nobody_is_real(tmp_path) -> None:
    result = CliRunner().invoke(APP, [*FEW, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "nobody in these tables is real" in result.output
    assert "bank_02" in result.output
    assert "cdnow" in result.output
    assert not list(tmp_path.glob("*_purchases.parquet"))


def test_a_small_population_says_that_tolerances_are_for_larger_ones(tmp_path) -> None:
    result = CliRunner().invoke(APP, [*FEW, "--out", str(tmp_path)])
    said = "Tolerances are meant for 20,000 customers and more: of 600, aggregates can lie outside by chance."
    assert "outside" in result.output and said in result.output
    assert said in json.loads((tmp_path / "population.json").read_text())["cautions"]
    large = CliRunner().invoke(APP, ["--customers", "20000", "--seed", "1", "--out", str(tmp_path)])
    assert large.exit_code == 0 and "Tolerances" not in large.output
    assert json.loads((tmp_path / "population.json").read_text())["cautions"] == []


def test_aggregates_that_cannot_be_measured_are_said_to_be_left_out(tmp_path) -> None:
    result = CliRunner().invoke(APP, ["--customers", "600", "--banks", "2", "--shops", "1", "--out", str(tmp_path)])
    assert "online_retail): this population has nothing to measure them by." in result.output
    written = json.loads((tmp_path / "population.json").read_text())
    missing = len(FACTS) - len(written["facts"])
    assert missing >= 5
    assert any(line.startswith(f"{missing} of {len(FACTS)} aggregates are left out") for line in written["cautions"])


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (["--customers", "0"], "CSL-M200"),
        (["--banks", "0", "--shops", "0"], "CSL-M201"),
        (["--overlap", "1.5"], "CSL-M203"),
        (["--across", "nan"], "CSL-M203"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, asked, code) -> None:
    result = CliRunner().invoke(APP, [*asked, "--out", str(tmp_path / "none")])
    assert isinstance(result.exception, DocumentError)
    assert result.exception.code == code
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(APP, [*FEW, "--out", str(tmp_path / "file" / "below")])
    assert isinstance(result.exception, StorageError)
    assert result.exception.code == "CSL-M204"
