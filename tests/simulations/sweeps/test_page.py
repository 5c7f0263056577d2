import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from simulations.engines.simulation import Simulation
from simulations.sweeps.compare_command import compare, plot
from simulations.sweeps.metrics import metric_of
from simulations.sweeps.page import render
from simulations.sweeps.running import run_sweep
from simulations.sweeps.summary import summarise
from tests.simulations.sweeps import made

AUC = metric_of("auc")
OVER = {
    "privacy.epsilon": [0.1, 1.0, None],
    "faults.dropout": [0.0, 0.3],
    "algorithm": [{"kind": "fedsgd"}, {"kind": "fedavg"}],
}


class Checker(HTMLParser):
    """Collects ids, text and whatever would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href"} and not (value or "").startswith("#"):
                self.loads.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def check(page: str) -> Checker:
    found = Checker()
    found.feed(page)
    found.text = " ".join(found.text.split())
    return found


@pytest.fixture(scope="module")
def page() -> str:
    def lost(simulation: Simulation, seed: int) -> bool:
        return seed == 2 and simulation.privacy.epsilon == 1.0

    sweep = made.sweep(OVER, seeds=3, title="Banks & <shops>", pooled_dp=True)
    return render(summarise(made.results(sweep, lost), AUC))


def test_the_page_stands_by_itself(page: str) -> None:
    found = check(page)
    assert found.loads == [] and found.scripts == 0
    assert len(found.ids) == len(set(found.ids)) > 10


def test_the_page_says_what_was_run_that_it_was_seeded_and_how_to_repeat_it(page: str) -> None:
    text = check(page).text
    assert "Banks & <shops>" in text and "<shops>" not in page
    assert "nothing here protects anybody" in text
    assert "consilience simulate sweep x.yaml --out x" in text
    for part in ("Privacy and utility", "Algorithms side by side", "Who gains, and who loses", "What dropouts cost"):
        assert part in text
    assert "vectorized" in text and "1, 2, 3" in text


def test_the_page_hides_no_failure(page: str) -> None:
    text = check(page).text
    assert "2 of 3" in text
    assert "cells finished; the others failed or were not run" in text


def test_what_was_not_varied_has_no_chapter() -> None:
    sweep = made.sweep({"privacy.epsilon": [0.1, 1.0]}, seeds=2, references=False)
    text = check(render(summarise(made.results(sweep), AUC))).text
    for part in ("Algorithms side by side", "Who gains, and who loses", "What dropouts cost"):
        assert part not in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    run_sweep(made.sweep({"privacy.epsilon": [0.1, 1.0]}, seeds=2), out, run=made.run)
    return out


@pytest.fixture
def app() -> typer.Typer:
    found = typer.Typer()
    found.command()(compare)
    found.command()(plot)
    return found


def test_compare_prints_figures_gains_and_the_caution(app: typer.Typer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(folder)])
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "8 of 8 cells finished." in said
    assert "nothing here protects anybody" in said
    assert "house_00" in said and "lose, and of" in said


def test_compare_as_json_is_json_and_takes_another_folder(app: typer.Typer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(folder), str(folder), "--metric", "lift", "--json"])
    assert result.exit_code == 0, result.output
    tree = json.loads(result.stdout)
    assert tree["metric"] == "lift@10%" and tree["seeded"] is True
    assert tree["cells"] == {"finished": 8, "asked": 8}
    assert [row["change"]["value"] for row in tree["between"]] == [0.0] * 4
    assert [point["epsilon"] for point in tree["frontier"][0]["points"]] == [0.1, 1.0]


def test_plot_writes_pictures_and_the_page(app: typer.Typer, folder: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "pictures", tmp_path / "pages" / "sweep.html"
    result = CliRunner().invoke(app, ["plot", str(folder), "--out", str(out), "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"frontier.svg", "frontier.png", "gains-1.svg", "gains-1.png"}
    assert result.stdout.split()[-1] == str(page)
    assert check(page.read_text()).loads == []


def test_pictures_cannot_go_where_a_file_is(app: typer.Typer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    result = CliRunner().invoke(app, ["plot", str(folder), "--out", str(tmp_path / "taken")])
    assert "CSL-M252" in str(result.exception)
