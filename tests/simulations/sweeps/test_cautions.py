import io
import math
from collections.abc import Callable

import pytest
from rich.console import Console

from simulations.engines.simulation import Simulation
from simulations.sweeps import plots
from simulations.sweeps.cautions import MOST, cautions
from simulations.sweeps.compare_command import show
from simulations.sweeps.comparing import frontier
from simulations.sweeps.document import cells
from simulations.sweeps.metrics import metric_of
from simulations.sweeps.page import render
from simulations.sweeps.reading import Results, Row, gather
from simulations.sweeps.summary import summarise
from tests.simulations.sweeps import made
from tests.simulations.sweeps.test_plots import texts

AUC = metric_of("auc")
Change = Callable[[Simulation, int], tuple[dict[str, float], tuple[str, ...]]]
GRID: list[object] = [0.1, 1.0]


def results(
    change: Change, rates: tuple[float, float] = (0.1, 0.1), over: dict[str, list[object]] | None = None
) -> Results:
    """Made results with some figures changed, warnings, and base rates of the first institution and of all others."""
    sweep, rows = made.sweep(over or {"privacy.epsilon": GRID}, seeds=5), []
    for cell in cells(sweep):
        one = made.found(cell.simulation, cell.seed)
        figures, warnings = change(cell.simulation, cell.seed)
        places = [
            dict(place) | {"base_rate": rates[min(number, 1)], "heldout": 100.0}
            for number, place in enumerate(one.institutions)
        ]
        rows.append(Row(cell.digest, cell.simulation, cell.seed, cell.engine, one.overall | figures, places, warnings))
    return gather(sweep.name, sweep.title, rows, sweep.varied(), "again")


def quiet(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
    return {"rounds_failed": 0.0}, ()


def failing(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
    failed = (
        3.0 if simulation.privacy.epsilon == 1.0 and simulation.algorithm.kind == "fedsgd" and seed in (2, 4) else 0.0
    )
    return {"rounds_failed": failed}, ()


def blank(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
    gone = simulation.privacy.epsilon == 0.1 and seed == 3
    return (dict.fromkeys(("auc", "auc_mean", "log_loss", "lift", "lift_mean"), math.nan) if gone else {}), ()


def speaking(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
    return {}, (f"{seed} institutions are blind.", "Beware.")


def test_where_all_is_well_nothing_is_said() -> None:
    assert cautions(results(quiet)) == []


@pytest.mark.parametrize(
    ("rates", "warned"), [((0.1, 0.19), False), ((0.1, 0.21), True), ((0.21, 0.1), True), ((0.0, 0.1), True)]
)
def test_base_rates_more_than_twice_apart_are_warned_of(rates: tuple[float, float], warned: bool) -> None:
    said = cautions(results(quiet, rates))
    assert len(said) == int(warned) + int(0.0 in rates)
    if warned:
        assert f"from {min(rates):.1%} to {max(rates):.1%}" in said[0]


def test_rounds_that_failed_are_told_by_setting_in_sentences_pictures_and_the_page() -> None:
    found = results(failing)
    assert cautions(found) == ["ε 1: in 2 of 5 finished runs rounds failed (6 in all); everybody paid for them."]
    lines = frontier(found, AUC)
    assert [point.troubled for point in lines[0].points] == [0, 2]
    assert "† 2 of 5" in texts(plots.frontier(lines, AUC))
    assert any("in n of m finished runs" in text for text in [plots.frontier(lines, AUC).get_supxlabel()])
    page = render(summarise(found, AUC))
    assert "in 2 of 5 finished runs rounds failed" in page and "5 †" in page
    assert "†" not in render(summarise(results(quiet), AUC))


def test_the_table_of_dropouts_marks_what_runs_with_failed_rounds_are_in() -> None:
    def tiring(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
        return {"rounds_failed": 3.0 if simulation.faults.dropout and seed == 2 else 0.0}, ()

    found = summarise(results(tiring, over={"faults.dropout": [0.0, 0.4]}), AUC)
    sink = io.StringIO()
    show(found, Console(file=sink, width=120, highlight=False))
    text = sink.getvalue()
    shares = [line for line in text[text.index("Dropouts:") :].splitlines() if "%" in line]
    assert ["†" in line for line in shares] == [False, True]
    assert "† rounds failed in some of these runs." in text
    page = render(found)
    assert "5 †" in page[page.index("What dropouts cost") :]


def test_a_run_without_a_model_is_no_figure() -> None:
    found = results(blank)
    assert cautions(found) == ["ε 0.1: 1 of 5 finished runs left no model; the figures are of the others alone."]
    assert [point.value.seeds for point in frontier(found, AUC)[0].points] == ["4 of 5 seeds", "5 seeds"]


def test_means_that_leave_somebody_out_say_over_how_many_they_are() -> None:
    (first, *_) = cautions(results(quiet, (0.0, 0.1)))[1:]
    assert (
        first
        == f"auc and lift are means over {made.INSTITUTIONS - 1} of {made.INSTITUTIONS} institutions: the others held out one class only."
    )
    (none,) = cautions(results(quiet, (0.0, 0.0)))
    assert none == f"no institution of {made.INSTITUTIONS} has an auc or a lift: all held out one class only."


def test_what_was_counted_is_not_said_again_by_the_runs() -> None:
    def both(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
        figures, _ = failing(simulation, seed)
        return figures, ("3 rounds failed for want of answers; everybody paid for them.",) if figures[
            "rounds_failed"
        ] else ()

    assert cautions(results(both)) == cautions(results(failing))


def test_references_are_not_counted_among_those_who_could_have_said_it() -> None:
    def told(simulation: Simulation, seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
        return {}, () if simulation.algorithm.kind in ("alone", "pooled") else ("Some people are at several.",)

    assert cautions(results(told)) == [
        "Some people are at several. (said by 10 of 10 finished cells, alone and pooled aside)"
    ]


def test_what_runs_said_is_said_once() -> None:
    assert cautions(results(speaking)) == [
        "1 to 5 institutions are blind. (said by 20 of 20 finished cells)",
        "Beware. (said by 20 of 20 finished cells)",
    ]


def test_there_are_only_so_many_lines() -> None:
    over: dict[str, list[object]] = {"privacy.epsilon": [place / 10 for place in range(1, MOST + 4)]}
    said = cautions(results(lambda simulation, seed: ({"rounds_failed": 1.0}, ()), over=over))
    assert len(said) == MOST + 1 and said[-1].startswith("and the same of ")
