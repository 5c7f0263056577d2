"""Comparisons at the widths that terminals have."""

import io

import pytest
from rich.console import Console

from simulations.engines.simulation import Simulation
from simulations.sweeps.compare_command import show
from simulations.sweeps.metrics import metric_of
from simulations.sweeps.summary import Summary, summarise
from tests.simulations.sweeps import made


@pytest.fixture(scope="module")
def summary() -> Summary:
    over: dict[str, list[object]] = {"privacy.epsilon": [0.1, 1.0, None], "faults.dropout": [0.0, 0.3]}

    def lost(simulation: Simulation, seed: int) -> bool:
        return seed == 2 and simulation.privacy.epsilon == 1.0

    return summarise(made.results(made.sweep(over, seeds=4), lost), metric_of("auc"))


def shown(summary: Summary, width: int) -> str:
    sink = io.StringIO()
    show(summary, Console(file=sink, width=width, highlight=False))
    return sink.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_rows_are_named_and_nothing_is_cut(summary: Summary, width: int) -> None:
    text = shown(summary, width)
    assert "…" not in text
    for row in summary.gains[0].rows:
        line = next(line for line in text.splitlines() if line.strip().startswith(row.name))
        assert summary.own.shown(row.gain.value, signed=True) in line
    for line in summary.lines:
        for point in line.points:
            assert summary.metric.shown(point.value.value) in text
    budgets = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert {"0.1", "1", "alone", "pooled"} <= set(budgets)
    assert "no noise" in text


def test_what_has_no_room_is_named_once(summary: Summary) -> None:
    assert "Left out" not in shown(summary, 120)
    text = shown(summary, 60)
    assert text.count("Left out at 60 columns") == 1
    assert "to pooled" in text[text.index("Left out") :] and "--json" in text
