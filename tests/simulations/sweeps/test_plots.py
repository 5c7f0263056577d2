import math
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from federation.errors import StorageError
from simulations.sweeps import canvas, plots
from simulations.sweeps.comparing import Dropouts, Panel, cost_of_dropouts, frontier, side_by_side
from simulations.sweeps.estimates import Estimate
from simulations.sweeps.gains import Gain, Gains
from simulations.sweeps.metrics import metric_of
from tests.simulations.sweeps import made

AUC = metric_of("auc")
GRID = [0.1, 1.0, 10.0, None]


def texts(figure: Figure) -> list[str]:
    root = ElementTree.fromstring(canvas.svg(figure, "x", "A picture").replace("xlink:", ""))
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")]


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.2))
def test_labels_are_moved_apart_in_order_and_no_further_than_needed(places: list[float], gap: float) -> None:
    places.sort()
    found = canvas.apart(places, gap)
    assert all(later - earlier >= gap - 1e-9 for earlier, later in zip(found, found[1:], strict=False))
    if all(later - earlier >= gap for earlier, later in zip(places, places[1:], strict=False)):
        assert found == pytest.approx(places)
    if places:
        assert math.fsum(found) == pytest.approx(math.fsum(places))


def test_every_partner_count_has_a_panel_with_its_references() -> None:
    lines = frontier(made.results(made.sweep({"privacy.epsilon": GRID, "partners.count": [4, 8, 16]})), AUC)
    figure = plots.frontier(lines, AUC)
    said = texts(figure)
    for name in ("4 partners", "8 partners", "16 partners", "no noise", "0.1"):
        assert name in said
    assert said.count("alone") == said.count("pooled, no privacy") == 3
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]


def test_lines_on_the_same_data_are_named_beside_them_and_drawn_with_their_intervals() -> None:
    over = {"privacy.epsilon": GRID, "algorithm": [{"kind": "fedsgd"}, {"kind": "scaffold"}]}
    lines = frontier(made.results(made.sweep(over)), AUC)
    figure = plots.frontier(lines, AUC)
    assert {"fedsgd", "scaffold"} <= set(texts(figure))
    heights = [tuple(line.get_ydata()) for line in figure.axes[0].lines]
    for point in (point for line in lines for point in line.points):
        assert (point.value.low, point.value.high) in heights
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert len(looks) == 2 and len({marker for _, marker in looks}) == 2


def test_a_point_without_all_its_seeds_says_so() -> None:
    results = made.results(
        made.sweep({"privacy.epsilon": GRID}), lambda s, seed: s.privacy.epsilon == 1.0 and seed == 2
    )
    assert "4 of 5 seeds" in texts(plots.frontier(frontier(results, AUC), AUC))


def test_dropouts_and_algorithms_mark_missing_seeds_alike() -> None:
    over = {"faults.dropout": [0.0, 0.4]}
    lost = made.results(made.sweep(over, seeds=3), lambda s, seed: s.faults.dropout == 0.4 and seed == 2)
    assert texts(plots.dropouts(cost_of_dropouts(lost, AUC), AUC)).count("2 of 3 seeds") == 2
    both = {"algorithm": [{"kind": "fedsgd"}, {"kind": "scaffold"}]}
    lost = made.results(made.sweep(both, seeds=3), lambda s, seed: s.algorithm.kind == "scaffold" and seed == 2)
    assert "2 of 3 seeds" in texts(plots.algorithms(side_by_side(lost, AUC), AUC))


def test_budgets_that_are_no_number_stand_at_the_right_each_by_its_name() -> None:
    results = made.results(made.sweep({"privacy.epsilon": [1.0, [0.5, 2.0], None]}, seeds=2))
    figure = plots.frontier(frontier(results, AUC), AUC)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "0.5 / 2", "no noise"]
    places = figure.axes[0].get_xticks()
    assert list(places) == sorted(set(places))


def gain(name: str, low: float, value: float, high: float, have: int = 5) -> Gain:
    figure = Estimate(value, low, high, have, 5)
    return Gain(name, 1000, figure, figure, figure, poisoner=name == "liar")


def test_gains_losses_and_neither_look_different_without_colour() -> None:
    rows = (gain("a", 0.1, 0.2, 0.3), gain("b", -0.1, 0.0, 0.1), gain("liar", -0.3, -0.2, -0.1))
    figure = plots.gains(Gains("made", "g", 1.0, rows), AUC)
    marks = figure.axes[0].collections
    assert len(marks) == 3
    shapes = {len(mark.get_paths()[0].vertices) for mark in marks}
    filled = [tuple(mark.get_facecolor()[0]) for mark in marks]
    assert len(shapes) == 2 and filled.count((1.0, 1.0, 1.0, 1.0)) == 1
    assert {"a", "b", "liar (lies)", "+0.200", "\u22120.200"} <= set(texts(figure))


def test_an_institution_without_a_figure_keeps_its_row() -> None:
    rows = (gain("a", 0.1, 0.2, 0.3), gain("blind", math.nan, math.nan, math.nan, have=0))
    said = texts(plots.gains(Gains("made", "g", 1.0, rows), AUC))
    assert "blind" in said and "no figure" in said


def test_many_institutions_still_fit() -> None:
    rows = tuple(gain(f"bank {place}", place - 1.0, float(place), place + 1.0) for place in range(120))
    figure = plots.gains(Gains("made", "g", 1.0, rows), AUC)
    assert figure.get_size_inches()[1] <= 9.0
    assert "bank 7" not in texts(figure)


def dropouts() -> list[Dropouts]:
    return cost_of_dropouts(made.results(made.sweep({"faults.dropout": [0.0, 0.3], "privacy.epsilon": GRID})), AUC)


def test_dropouts_are_drawn_beside_their_cost() -> None:
    left, right = plots.dropouts(dropouts(), AUC).axes
    assert left.get_xlim() == right.get_xlim()
    assert any(all(y == 0.0 for y in line.get_ydata()) for line in right.lines)


def panels() -> list[Panel]:
    over = {"privacy.epsilon": [0.1, 1.0, 10.0], "algorithm": [{"kind": "fedsgd"}, {"kind": "scaffold"}]}
    return side_by_side(made.results(made.sweep(over)), AUC)


def test_algorithms_are_rows_and_the_last_panel_of_each_column_has_numbers() -> None:
    figure = plots.algorithms(panels(), AUC)
    figure.canvas.draw()
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]
    numbered = [any(label.get_visible() for label in axes.get_xticklabels()) for axes in figure.axes[:3]]
    assert numbered == [False, True, True]
    assert {"fedsgd", "scaffold"} <= set(texts(figure))


def test_files_are_whole_and_the_same_every_time(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        canvas.save(plots.dropouts(dropouts(), AUC), folder, "dropouts")
    for name in ("dropouts.svg", "dropouts.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "dropouts.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring((first / "dropouts.svg").read_text())
    assert dict(matplotlib.rcParams) == before


def test_a_folder_that_is_not_there_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="CSL-F301"):
        canvas.save(plots.dropouts(dropouts(), AUC), tmp_path / "none", "dropouts")
