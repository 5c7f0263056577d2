"""docs/simulation.md: its files parse, its commands are those that there are, and the short ones run in the order of the page."""

import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import get_args

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

from federation.document import load_yaml
from simulations.command import app
from simulations.engines.registry import NAMES
from simulations.engines.simulation import Simulation
from simulations.planner.target import parse_target
from simulations.sweeps import command
from simulations.sweeps.document import Sweep, cells, load_sweep
from simulations.sweeps.fields import paths
from simulations.sweeps.metrics import metric_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "simulation.md").read_text()
SMALLER = (("customers: 20000", "customers: 1500"), ("institutions: 10", "institutions: 5"), ("seeds: 5", "seeds: 2"))
RUN_HERE = ("sweep budgets.yaml", "compare out/budgets", "plot out/budgets")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def spoken():
    """Every `consilience simulate` command of the page, as words after `simulate`."""
    lines = [
        line for block in blocks("bash") for line in block.splitlines() if line.startswith("consilience simulate ")
    ]
    return [shlex.split(line, comments=True)[2:] for line in lines]


def as_file(text, folder, number=0):
    named = re.match(r"# (\w+\.yaml)\n", text)
    path = folder / (named[1] if named else f"block-{number}.yaml")
    path.write_text(text if "name:" in text else f"name: fragment\n{text}")
    return path


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_every_file_parses(number, tmp_path):
    path = as_file(blocks("yaml")[number], tmp_path, number)
    if "study" in yaml.safe_load(path.read_text()):
        assert cells(load_sweep(path))
    else:
        load_yaml(path, Simulation)


def test_the_file_with_every_key_shows_the_defaults(tmp_path):
    text = next(block for block in blocks("yaml") if block.startswith("name: everything"))
    found = load_yaml(as_file(text, tmp_path), Simulation)
    assert found == Simulation(name="everything")
    tree = yaml.safe_load(text)
    assert set(tree) == set(Simulation.model_fields)
    for part in ("partners", "algorithm", "privacy", "faults"):
        assert set(tree[part]) == set(type(getattr(found, part)).model_fields)


def test_the_sweep_shows_every_key():
    text = next(block for block in blocks("yaml") if block.startswith("# budgets.yaml"))
    assert set(yaml.safe_load(text)) == set(Sweep.model_fields)


def test_every_field_and_kind_is_told():
    words = set(re.findall(r"\w+", PAGE))
    known = paths(Simulation)
    assert not {path.rsplit(".", 1)[-1] for path in known} - words
    assert not {kind for kinds in known.values() for kind in kinds} - words
    assert all(f"`{name}`" in PAGE for name in NAMES)


@lru_cache(maxsize=1)
def group():
    found = typer.main.get_command(app)
    assert isinstance(found, click.Group)
    return found


@pytest.mark.parametrize("words", spoken(), ids=" ".join)
def test_every_command_is_understood(words):
    name, *rest = words
    context = group().commands[name].make_context(name, list(rest))
    for text in context.params.get("target") or ():
        parse_target(text)
    if context.params.get("metric"):
        metric_of(context.params["metric"])
    for file in (word for word in rest if word.startswith("configs/")):
        assert (ROOT / file).is_file()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "configs").symlink_to(ROOT / "configs")
    for number, text in enumerate(blocks("yaml")):
        smaller = text
        for old, new in SMALLER:
            smaller = smaller.replace(old, new)
        as_file(smaller, folder, number)
    return folder


def test_short_commands_run_in_the_pages_order(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(command, "run_sweep", in_this_process(command.run_sweep))
    chosen = [words for words in spoken() if " ".join(words).startswith(RUN_HERE)]
    assert {words[0] for words in chosen} == {"sweep", "compare", "plot"}
    for words in chosen:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output)
    assert "0 cells computed" in CliRunner().invoke(app, ["sweep", "budgets.yaml", "--out", "out/budgets"]).output
    (code,) = blocks("python")
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert "shared" in asked.stdout
    assert (place / "out" / "budgets-plots" / "page.html").is_file()


def in_this_process(run_sweep):
    """Sweeps as the page has them, without starting workers."""
    return lambda *given, **named: run_sweep(*given, **{**named, "run": command.RUN})


def test_one_study_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, ["run", "deposit.yaml"])
    assert done.exit_code == 0, done.output
    assert "nothing here protects anybody" in " ".join(done.output.split())


def test_every_picture_and_page_is_there():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_every_code_is_one_that_the_simulations_raise():
    source = "\n".join(path.read_text() for path in (ROOT / "simulations").rglob("*.py"))
    for code in re.findall(r"CSL-M\d+", PAGE):
        assert f'"{code}"' in source, code


def test_known_engines_are_those_of_the_command():
    assert set(get_args(command.EngineName)) == set(NAMES)
