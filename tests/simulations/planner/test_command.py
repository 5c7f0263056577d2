import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from federation.errors import StorageError
from simulations.engines.simulation import Simulation
from simulations.planner import command
from simulations.planner.target import parse_target
from simulations.sweeps.document import Sweep
from simulations.sweeps.running import run_sweep
from simulations.sweeps.store import SWEEP, Store
from tests.simulations.sweeps import made

STUDY = "name: churn\ntitle: A study\ndata: {kind: population, customers: 500}\n"
OTHER = STUDY.replace("500", "600")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    def run(simulation: Simulation, seed: int, engine: str, cache: Path | None) -> made.Found:
        return made.found(simulation, seed, engine, spread=0.002)

    monkeypatch.setattr(command, "RUN", run)
    found = typer.Typer()
    found.command()(command.plan)
    return found


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "my studies"
    folder.mkdir()
    (folder / "churn.yaml").write_text(STUDY)
    return folder


def call(app: typer.Typer, *words: object, code: int = 0) -> Result:
    asked = ["--study", "churn", "--target", "auc >= 0.757", "--seeds", "2", "--grid", "0.1,1,10", *map(str, words)]
    result = CliRunner().invoke(app, asked)
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_the_command_that_repeats_a_plan_makes_the_same_plan(app: typer.Typer, studies: Path, tmp_path: Path) -> None:
    words = (
        "--studies",
        studies,
        "--cache",
        tmp_path / "cache",
        "--partners",
        16,
        "--public",
        "--out",
        tmp_path / "out",
    )
    page = tmp_path / "page.html"
    first = json.loads(call(app, *words, "--html", page, "--json", "--workers", 3).stdout)
    repeat = shlex.split(first.pop("repeat"))
    assert repeat[:3] == ["consilience", "simulate", "plan"]
    for name, value in (("--studies", studies), ("--cache", tmp_path / "cache"), ("--html", page), ("--partners", 16)):
        assert repeat[repeat.index(name) + 1] == str(value)
    assert "--public" in repeat and "--workers" not in repeat and "--json" not in repeat
    again = CliRunner().invoke(app, [*repeat[3:], "--json"])
    assert again.exit_code == 0, again.output
    second = json.loads(again.stdout)
    assert second["computed"] == 0 and shlex.split(second.pop("repeat")) == repeat
    assert {**second, "computed": first["computed"]} == first


def test_a_folder_of_studies_is_named_only_where_it_is_looked_in(
    app: typer.Typer, studies: Path, tmp_path: Path
) -> None:
    named = ["--study", str(studies / "churn.yaml"), "--target", "auc >= 0.7", "--seeds", "2", "--grid", "0.1,10"]
    result = CliRunner().invoke(app, [*named, "--studies", str(tmp_path), "--out", str(tmp_path / "out"), "--json"])
    assert "--studies" not in json.loads(result.stdout)["repeat"]


def test_a_folder_with_another_study_s_plan_is_refused(app: typer.Typer, studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call(app, "--studies", studies, "--out", out)
    before, kept = (out / SWEEP).read_bytes(), Store(out).present()
    (studies / "churn.yaml").write_text(OTHER)
    with pytest.raises(StorageError, match=r"CSL-M263(?s:.*)another study(?s:.*)--out"):
        call(app, "--studies", studies, "--out", out)
    with pytest.raises(StorageError, match="CSL-M263"):
        call(app, "--studies", studies, "--out", out, "--partners", 16)
    assert (out / SWEEP).read_bytes() == before and Store(out).present() == kept


def test_other_questions_of_the_same_study_share_a_folder(app: typer.Typer, studies: Path, tmp_path: Path) -> None:
    words = ("--studies", studies, "--out", tmp_path / "out")
    call(app, *words)
    (studies / "churn.yaml").write_text(STUDY.replace("A study", "Another title") + "privacy: {epsilon: 3.0}\n")
    for others in (("--seeds", 3), ("--grid", "0.2,5"), ("--engine", "local"), ("--target", "auc >= 0.7")):
        call(app, *words, *others)


def test_a_sweep_s_folder_and_one_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    run_sweep(made.sweep({"faults.dropout": [0.0, 0.1]}, seeds=1), tmp_path / "sweep", run=made.run)
    with pytest.raises(StorageError, match="CSL-M263"):
        command.check_folder(tmp_path / "sweep", made.study())
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / SWEEP).write_text("name: [")
    with pytest.raises(StorageError, match="CSL-M263"):
        command.check_folder(tmp_path / "odd", made.study())
    command.check_folder(tmp_path / "nowhere", made.study())


def test_another_number_of_partners_has_a_folder_of_its_own() -> None:
    assert command.default_folder(made.study(), None) == Path("out/plans/made")
    assert command.default_folder(made.study(), 16) == Path("out/plans/made-16")


def test_a_stopped_plan_says_what_is_kept_and_how_to_go_on(
    app: typer.Typer, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = 0

    def stopped(simulation: Simulation, seed: int, engine: str, cache: Path | None) -> made.Found:
        nonlocal ran
        if ran == 4:
            raise KeyboardInterrupt
        ran += 1
        return made.found(simulation, seed, engine, spread=0.002)

    before = command.RUN
    monkeypatch.setattr(command, "RUN", stopped)
    out, page = tmp_path / "out", tmp_path / "page.html"
    words = ("--studies", studies, "--out", out, "--html", page, "--workers", 2, "--json")
    said = call(app, *words, code=130).stderr
    assert f"Stopped. 4 cells are kept in {out}. Go on with:\n" in said and not page.exists()
    again = shlex.split(said.strip().splitlines()[-1])
    for name, value in (("--studies", studies), ("--html", page), ("--workers", 2)):
        assert again[again.index(name) + 1] == str(value)
    assert again[-1] == "--json"
    monkeypatch.setattr(command, "RUN", before)
    result = CliRunner().invoke(app, again[3:])
    assert result.exit_code == 0, result.output
    assert page.exists() and json.loads(result.stdout)["computed"] == len(Store(out).present()) - 4


def test_progress_names_the_target_and_the_step(app: typer.Typer, studies: Path, tmp_path: Path) -> None:
    text = call(app, "--target", "auc >= 0.77", "--studies", studies, "--out", tmp_path / "out").stdout
    lines = [line for line in text.splitlines() if " cells" in line and line.startswith("target")]
    assert lines[0] == "target 1 of 2, auc >= 0.757, first look, at ε 0.1, 1, 10: 12 cells"
    assert lines[1].startswith("target 1 of 2, auc >= 0.757, closer look 1, at ε ")
    assert lines[1].endswith(": 14 cells, 12 of them here already")
    second = next(line for line in lines if line.startswith("target 2 of 2"))
    assert second == "target 2 of 2, auc >= 0.77, first look, at ε 0.1, 1, 10: 12 cells, all here already"
    assert len(set(lines)) == len(lines)  # no two steps read the same


def test_one_target_needs_no_number() -> None:
    steps = command.Steps([parse_target("auc >= 0.7")], (0.5, 2.0))

    def of(*epsilons: float) -> str:
        tree = {"name": "a", "study": made.study(), "over": {"privacy.epsilon": (None, *epsilons)}}
        return steps.of(Sweep.model_validate(tree))

    assert of(0.5, 2.0) == "auc >= 0.7, first look, at ε 0.5, 2"
    assert of(0.5, 1.0, 2.0) == "auc >= 0.7, closer look 1, at ε 1"
    assert of(0.5, 1.0, 1.4, 2.0) == "auc >= 0.7, closer look 2, at ε 1.4"


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_epsilons_are_whole_whatever_the_width(
    app: typer.Typer, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = call(app, "--studies", studies, "--out", tmp_path / "out", "--seeds", "3").stdout
    table = [line.split() for line in text[text.index("reach it") :].splitlines() if "of 3" in line]
    assert [row[0] for row in table][0] == "0.1" and "10" in [row[0] for row in table]
    assert "…" not in text and all(row[1].startswith("0.") and len(row[1]) == 5 for row in table)
    assert ("gain / ε" in text[text.index("reach it") :]) or columns > 70
    assert ("Left out at" in text) == (columns < 70)
