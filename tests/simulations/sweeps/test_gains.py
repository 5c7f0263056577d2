"""Who gains by federating: institutions whose gains were made up are found as they were made."""

import math
from dataclasses import replace

import pytest

from simulations.sweeps.comparing import frontier, middle
from simulations.sweeps.estimates import Estimate
from simulations.sweeps.gains import Gains, gain_by_institution
from simulations.sweeps.metrics import metric_of
from simulations.sweeps.wording import counted
from tests.simulations.sweeps import made

AUC, LOSS = metric_of("auc"), metric_of("log_loss")
GRID = [0.1, 1.0, 10.0]


def gains(metric: str = "auc") -> Gains:
    results = made.results(made.sweep({"privacy.epsilon": GRID}, seeds=8))
    point = middle(frontier(results, AUC))[0]
    assert point.epsilon == 1.0
    return gain_by_institution(results, metric_of(metric), point.group)


def test_gains_and_losses_are_found_as_they_were_made() -> None:
    found = gains()
    assert len(found.rows) == made.INSTITUTIONS
    by_name = {row.name: row for row in found.rows}
    for place in range(made.INSTITUTIONS):
        row = by_name[f"house_{place:02d}"]
        assert row.gain.value == pytest.approx(0.09 - 0.012 * place, abs=0.02)
        assert row.gain.value == pytest.approx(row.federated.value - row.alone.value)
    assert by_name["house_00"].gain.certain == 1
    assert by_name["house_11"].gain.certain == -1
    more, less, open_ = found.counted()
    assert more + less + open_ == made.INSTITUTIONS and less >= 1
    ordered = [row.gain.value for row in found.rows]
    assert ordered == sorted(ordered, reverse=True)


def test_an_institution_without_a_figure_stays_in_the_table() -> None:
    results = made.results(made.sweep({"privacy.epsilon": [1.0]}))
    rows = results.institutions
    rows.loc[rows["name"] == "house_05", "auc"] = math.nan
    found = gain_by_institution(results, AUC, frontier(results, AUC)[0].points[0].group)
    last = found.rows[-1]
    assert (last.name, last.gain.have, last.gain.of) == ("house_05", 0, 5)


def test_less_log_loss_is_a_gain() -> None:
    results = made.results(made.sweep({"privacy.epsilon": [1.0]}))
    results.institutions["log_loss"] = 1.0 - results.institutions["auc"]
    group = frontier(results, AUC)[0].points[0].group
    turned, plainly = (gain_by_institution(results, metric, group) for metric in (LOSS, AUC))
    assert [row.name for row in turned.rows] == [row.name for row in plainly.rows]
    assert turned.rows[0].gain.value == pytest.approx(plainly.rows[0].gain.value)


def test_who_was_not_judged_is_not_counted_as_undecided() -> None:
    found = gains()
    blank = Estimate(math.nan, math.nan, math.nan, 0, 5)
    half = replace(
        found, rows=tuple(replace(row, gain=blank) if place % 2 else row for place, row in enumerate(found.rows))
    )
    assert len(half.judged) == sum(half.counted()) == made.INSTITUTIONS // 2
    said = counted(half)
    assert f"of {made.INSTITUTIONS // 2} judged institutions gain" in said and "6 have no figure" in said
    assert "no figure" not in counted(found)
