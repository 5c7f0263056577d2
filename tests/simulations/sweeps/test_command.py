import json
from dataclasses import replace
from functools import partial

import pytest
import typer
from typer.testing import CliRunner

from federation.errors import DataError, DocumentError
from simulations.sweeps import command
from simulations.sweeps.running import run_sweep
from simulations.sweeps.store import Store
from simulations.sweeps.view import duration, setting
from tests.simulations.sweeps.samples import REFUSES, SMALL, made_up

app = typer.Typer()
app.command("run")(command.run_one)
app.command("sweep")(command.sweep)


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setattr(command, "RUN", made_up)
    monkeypatch.setattr(command, "run_sweep", partial(run_sweep, run=made_up))
    runner = CliRunner()

    def calling(*arguments, code=0):
        result = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return calling


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_one_simulation_is_shown_by_institution(call, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("{name: one, title: One study, partners: {count: 3}}")
    shown = call("run", path, "--seed", "5", "--engine", "local").output
    assert "One study" in shown and "bank_1 (lies)" in shown and "in one ranking" in shown and "made up" in shown
    assert "engine local (made up), seed 5" in shown and "nothing here protects anybody" in shown.replace("\n", " ")
    row = next(line for line in shown.splitlines() if "bank_3" in line)
    assert "–" in row and "nan" not in shown  # one class alone: no AUC
    tree = json.loads(call("run", path, "--json").stdout)
    assert tree["seeded"] and tree["seed"] == 1 and tree["institutions"][2]["auc"] is None
    assert tree["simulation"]["partners"]["count"] == 3


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_institutions_are_named_whatever_the_width(call, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    path = tmp_path / "one.yaml"
    path.write_text("{name: one, title: One study, partners: {count: 3}}")
    shown = call("run", path).output
    for row in ("bank_1 (lies)", "bank_2", "bank_3", "mean of 2 of 3", "in one ranking"):
        assert row in shown
    assert "0.510" in shown and "…" not in shown
    assert ("Left out at" in shown and "rounds missed" in shown) == (columns < 80)


def test_the_mean_says_over_how_many(call, tmp_path, monkeypatch):
    def all_have(simulation, seed, engine, cache):
        found = made_up(simulation, seed, engine, cache)
        return replace(found, institutions=tuple({**place, "auc": 0.6} for place in found.institutions))

    path = tmp_path / "one.yaml"
    path.write_text("{name: one, partners: {count: 3}}")
    assert "mean of 2 of 3" in call("run", path).output  # the last has one class alone
    monkeypatch.setattr(command, "RUN", all_have)
    assert "mean of all" in call("run", path).output


def test_a_seed_is_not_said_to_deal_partners():
    (seed,) = (option for option in typer.main.get_command(app).commands["run"].params if option.name == "seed")
    assert "Of who is held out, of draws, noise and faults" in seed.help and "partners.seed" in seed.help


MANY = """
name: many
study: {name: study, data: {kind: population}}
over:
  algorithm.noise: [local, shared]
  faults.dropout: [0, 0.1]
also:
  - {faults.lost: 0.3}
  - {faults.stragglers: 1.0, faults.deadline: 2.0}
references: true
"""


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_figures_of_a_sweep_are_never_cut(call, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    path = tmp_path / "many.yaml"
    path.write_text(MANY)
    shown = call("sweep", path, "--out", tmp_path / "out").output
    table = shown[shown.index("A sweep of simulated studies") : shown.index("Medians")]
    assert table.count("0.851") >= 6 and "…" not in shown  # every mean AUC
    assert ("stragglers" in table) and ("Left out at" in shown) == (columns < 80)
    if columns < 120:
        assert "setting" in table and "lost 0.3" in table and "lost 0.0" not in table  # the base's values are not named


def test_a_sweep_is_computed_and_shown(call, small, tmp_path):
    out = tmp_path / "out"
    shown = call("sweep", small, "--out", out).output
    assert "12 cells computed" in shown and "epsilon" in shown and "0.901" in shown
    assert (out / "results.parquet").exists() and (out / "results.duckdb").exists()
    result = call("sweep", small, "--out", out, "--json")
    tree = json.loads(result.stdout)
    assert (tree["cells"], tree["present"], tree["computed"], tree["failed"]) == (12, 12, 0, [])
    assert len(tree["figures"]) == 6 and {row["seeds"] for row in tree["figures"]} == {2}
    first = next(row for row in tree["figures"] if row["settings"] == {"privacy.epsilon": 2.0, "partners.count": 2})
    assert first["auc_mean"] == pytest.approx(0.9015) and first["auc_mean_least"] == pytest.approx(0.901)


def test_another_engine_is_other_cells(call, small, tmp_path):
    call("sweep", small, "--out", tmp_path / "out")
    tree = json.loads(call("sweep", small, "--out", tmp_path / "out", "--engine", "local", "--json").stdout)
    assert tree["computed"] == 12 and len(Store(tmp_path / "out").present()) == 24


def test_failed_cells_make_the_command_fail(call, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(SMALL.replace("partners.count: [2, 3]", f"clip: [1.0, {REFUSES}]"))
    with pytest.raises(DataError, match="CSL-M242") as caught:
        call("sweep", path, "--out", tmp_path / "out")
    assert caught.value.exit_code == 4


def test_a_dry_run_writes_nothing(call, small, tmp_path):
    out = tmp_path / "out"
    shown = call("sweep", small, "--out", out, "--dry-run").output
    assert "12 cells, 0 of them here already; 2 seeds" in shown and "privacy.epsilon: 0.5; 1.0; 2.0" in shown
    assert "add --time" in shown and not out.exists()
    plan = json.loads(call("sweep", small, "--out", out, "--dry-run", "--time", "--json", "--workers", "3").stdout)
    assert plan["seconds"] is not None and plan["workers"] == 3 and plan["algorithms"] == {"fedsgd": 12}
    assert not out.exists()
    call("sweep", small, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "0 s" in call("sweep", small, "--out", out, "--dry-run").output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_wrong_field_is_named_before_anything_runs(call, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("{name: a, study: {name: b}, over: {privcy.epsilon: [1]}}")
    with pytest.raises(DocumentError, match=r"did you mean privacy\.epsilon"):
        call("sweep", path, "--dry-run")


def test_the_command_that_goes_on_is_the_same(monkeypatch, call, small, tmp_path):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_sweep", stopped)
    out = tmp_path / "my results"
    result = call("sweep", small, "--out", out, "--workers", "2", "--engine", "local", "--repair", code=130)
    assert "Stopped. 0 of 12 cells are kept." in result.output
    assert f"consilience simulate sweep {small} --out '{out}' --workers 2 --engine local --repair" in result.output


def test_a_sweep_and_one_simulation_are_not_taken_for_each_other(call, small, tmp_path):
    one = tmp_path / "one.yaml"
    one.write_text("{name: one}")
    with pytest.raises(DocumentError, match=r"CSL-M243 .*is a sweep(?s:.*)consilience simulate sweep"):
        call("run", small)
    with pytest.raises(DocumentError, match=r"CSL-M243 .*is one simulation(?s:.*)consilience simulate run"):
        call("sweep", one)
    one.write_text("{name: one, rounds: none}")
    with pytest.raises(DocumentError, match="CSL-F105"):
        call("run", one)


def test_words():
    assert [duration(value) for value in (3.2, 600, 9000)] == ["3 s", "10 min", "2.5 h"]
    assert setting("algorithm", {"kind": "fedavg", "steps": 2, "rate": None, "proximal": 0.5}) == "fedavg, proximal 0.5"
    assert setting("privacy.epsilon", None) == "none" and setting("partners.by", {"kind": "own"}) == "own"
    assert setting("partners.by", {"kind": "features", "column": "job", "alpha": 0.5}) == "features, column job"
    assert setting("personal", {"part": "all", "steps": 20, "rate": 0.2}) == "as usual"
    assert setting("privacy.epsilon", [1, 2.5]) == "[1, 2.5]"
