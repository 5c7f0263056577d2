import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError, IntegrityError, StorageError
from simulations.engines.simulation import Simulation
from simulations.sweeps.comparing import (
    cost_of_dropouts,
    frontier,
    middle,
    pooled_private,
    side_by_side,
)
from simulations.sweeps.document import cells
from simulations.sweeps.estimates import Estimate, difference, mean
from simulations.sweeps.gains import gain_by_institution
from simulations.sweeps.matching import between
from simulations.sweeps.metrics import metric_of
from simulations.sweeps.reading import Row, gather, read
from simulations.sweeps.running import run_sweep
from simulations.sweeps.store import Store
from simulations.sweeps.summary import check_metric, plain, summarise
from tests.simulations.sweeps import made

AUC, LOSS = metric_of("auc"), metric_of("log_loss")
GRID = [0.1, 1.0, 10.0]
values = st.lists(st.floats(-100, 100), min_size=3, max_size=12)


def test_intervals_hold_the_mean_about_as_often_as_they_say() -> None:
    rng, repetitions = np.random.default_rng(5), 2000
    held = 0
    for draws in rng.normal(0.7, 0.01, size=(repetitions, 5)):
        found = mean(draws, 5)
        held += found.low <= 0.7 <= found.high
    assert held / repetitions == pytest.approx(0.95, abs=0.02)  # four standard deviations


def test_pairing_takes_out_what_seeds_share() -> None:
    rng = np.random.default_rng(6)
    shared = rng.normal(0, 0.1, 5)
    first = {seed: float(shared[seed] + 0.01) for seed in range(5)}
    second = {seed: float(shared[seed]) for seed in range(5)}
    paired = difference(first, second, 5)
    assert (paired.low, paired.value, paired.high) == pytest.approx((0.01, 0.01, 0.01))
    assert mean(first.values(), 5).high - mean(first.values(), 5).low > 0.01


@given(values)
def test_the_interval_lies_around_the_mean_whatever_the_order(numbers: list[float]) -> None:
    found = mean(numbers, len(numbers))
    assert found.low <= found.value <= found.high
    assert mean(numbers[::-1], len(numbers)).value == pytest.approx(found.value)


def test_missing_seeds_are_left_out_and_counted() -> None:
    found = mean([1.0, math.nan, 3.0], 5)
    assert (found.value, found.have, found.of, found.seeds) == (2.0, 2, 5, "2 of 5 seeds")
    assert math.isnan(mean([1.0], 1).low)
    assert math.isnan(mean([1.0, 3.0], 2).low) and mean([1.0, 3.0], 2).value == 2.0
    assert not mean([1.0, 3.0], 2).bounded and mean([1.0, 2.0, 3.0], 3).bounded
    assert math.isnan(mean([], 3).value)
    assert difference({1: 2.0, 2: 3.0}, {2: 1.0, 3: 9.0}, 3).have == 1


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_intervals_stay_where_a_metric_can_be(numbers: list[float]) -> None:
    free, cut = mean(numbers, len(numbers)), mean(numbers, len(numbers), within=(0.0, 1.0))
    assert 0.0 <= cut.low <= cut.value <= cut.high <= 1.0
    assert cut.low == max(free.low, 0.0) and cut.high == min(free.high, 1.0)


def test_the_auc_is_the_mean_over_institutions_and_the_ranking_is_another_metric() -> None:
    results = made.results(made.sweep({"privacy.epsilon": GRID}, seeds=3))
    results.cells["auc"] = results.cells["auc_mean"] - 0.2
    assert metric_of("auc_mean") is AUC
    (plainly,), (ranked,) = (frontier(results, metric_of(name)) for name in ("auc", "auc_ranking"))
    for mean_, one in zip(plainly.points, ranked.points, strict=True):
        assert mean_.value.value - one.value.value == pytest.approx(0.2)


def test_the_frontier_finds_the_truth_of_every_setting() -> None:
    results = made.results(made.sweep({"privacy.epsilon": [10.0, 0.1, None, 1.0], "partners.count": [4, 16]}))
    lines = frontier(results, AUC)
    assert [line.title for line in lines] == ["4 partners", "16 partners"]
    for line, partners in zip(lines, (4, 16), strict=True):
        assert [point.epsilon for point in line.points] == [0.1, 1.0, 10.0, None]
        for point in line.points[:3]:
            assert point.epsilon is not None
            assert point.value.value == pytest.approx(0.79 - 0.08 / (1 + point.epsilon * partners / 8), abs=0.01)
        assert line.alone is not None and line.pooled is not None
        assert line.alone.value == pytest.approx(0.70 - 0.01 * math.log2(partners / 8), abs=0.01)


def test_references_are_those_of_the_same_partners_and_seed() -> None:
    lines = frontier(made.results(made.sweep({"privacy.epsilon": GRID, "partners.count": [4, 16]})), AUC)
    for line in lines:
        for point in line.points:
            assert point.to_alone is not None and line.alone is not None
            assert point.to_alone.value == pytest.approx(point.value.value - line.alone.value)
            # The seed's share of the chance is 0.9 of it: what is left is much less.
            assert point.to_alone.high - point.to_alone.low < point.value.high - point.value.low + 0.005


def test_failed_cells_show_in_the_counts() -> None:
    def lost(simulation: Simulation, seed: int) -> bool:
        return seed == 3 and simulation.privacy.epsilon == 1.0

    results = made.results(made.sweep({"privacy.epsilon": GRID}), lost)
    (line,) = frontier(results, AUC)
    assert [point.value.seeds for point in line.points] == ["5 seeds", "4 of 5 seeds", "5 seeds"]
    assert line.points[1].to_alone is not None and line.points[1].to_alone.seeds == "4 of 5 seeds"
    assert results.finished() == (24, 25)


def test_a_missing_reference_shows_in_the_difference_alone() -> None:
    results = made.results(
        made.sweep({"privacy.epsilon": GRID}), lambda s, seed: s.algorithm.kind == "alone" and seed < 3
    )
    (line,) = frontier(results, AUC)
    assert line.alone is not None and line.alone.seeds == "3 of 5 seeds"
    assert line.points[0].value.have == 5
    assert line.points[0].to_alone is not None and line.points[0].to_alone.have == 3


def test_nothing_but_seeds_is_averaged() -> None:
    over = {"privacy.epsilon": GRID, "partners.count": [4, 8], "faults.dropout": [0.0, 0.2]}
    lines = frontier(made.results(made.sweep(over)), AUC, by="faults.dropout")
    assert len(lines) == 4
    assert all(line.title.startswith("dropout") for line in lines)
    assert {point.value.of for line in lines for point in line.points} == {5}


def test_without_references_there_are_no_differences() -> None:
    (line,) = frontier(made.results(made.sweep({"privacy.epsilon": GRID}, references=False)), AUC)
    assert line.alone is None and line.points[0].to_pooled is None


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(DocumentError, match="CSL-M250"):
        frontier(made.results(made.sweep({"privacy.epsilon": GRID})), AUC, by="partners.number")


def test_budgets_that_differ_by_institution_are_not_taken_for_no_noise() -> None:
    over = {"privacy.epsilon": [1.0, [0.5, 2.0], None]}
    (line,) = frontier(made.results(made.sweep(over, seeds=2)), AUC)
    assert [(point.epsilon, point.budget) for point in line.points] == [
        (1.0, "1"),
        (None, "0.5 / 2"),
        (None, "no noise"),
    ]


def test_one_trusted_party_stands_beside_the_same_budget_only() -> None:
    over = {"privacy.epsilon": [[0.5, 2.0], [1.0, 4.0], None], "algorithm": [{"kind": "fedsgd"}, {"kind": "fedavg"}]}
    results = made.results(made.sweep(over, seeds=3, pooled_dp=True))
    found = {
        panel.title: [name for name, _ in panel.rows].count("pooled, with the budget")
        for panel in side_by_side(results, AUC)
    }
    assert found["ε 0.5 / 2"] == found["ε 1 / 4"] == 1


def test_several_budgets_come_before_no_noise() -> None:
    for grid in ([None, [0.5, 2.0]], [[0.5, 2.0], None]):
        (line,) = frontier(made.results(made.sweep({"privacy.epsilon": grid}, seeds=3)), AUC)
        assert [point.budget for point in line.points] == ["0.5 / 2", "no noise"]
        assert [point.budget for point in middle([line])] == ["0.5 / 2"]


def test_other_partners_are_never_mixed_under_one_name() -> None:
    results = made.results(made.sweep({"partners.seed": [1, 2], "privacy.epsilon": [1.0]}, seeds=3))
    moved = results.cells.loc[results.cells["partners.seed"] == "2", "digest"]
    results.institutions.loc[results.institutions["digest"].isin(moved), "auc"] += 100.0
    lines = frontier(results, AUC)
    assert len({line.ground for line in lines}) == len(lines) == 2
    for line in lines:
        for row in gain_by_institution(results, AUC, line.points[0].group).rows:
            assert row.federated.have == row.alone.have == 3
            assert abs(row.gain.value) < 1.0


def test_settings_that_differ_little_are_told_apart() -> None:
    results = made.results(made.sweep({"clip": [1.0000001, 1.0000002], "privacy.epsilon": [1.0]}, seeds=1))
    assert len({line.title for line in frontier(results, AUC)}) == 2


def test_dropouts_cost_what_was_made_to_cost() -> None:
    results = made.results(made.sweep({"faults.dropout": [0.0, 0.2, 0.4], "privacy.epsilon": [1.0, 3.0]}))
    found = cost_of_dropouts(results, AUC)
    assert [line.epsilon for line in found] == [1.0, 3.0]
    for line in found:
        assert line.shares == (0.0, 0.2, 0.4)
        assert line.costs[0] is None
        for share, cost in zip(line.shares[1:], line.costs[1:], strict=True):
            assert cost is not None and cost.value == pytest.approx(-0.05 * share, abs=0.005)
    assert cost_of_dropouts(made.results(made.sweep({"privacy.epsilon": GRID})), AUC) == []


def test_algorithms_stand_side_by_side_with_what_one_trusted_party_reaches() -> None:
    over = {"privacy.epsilon": [1.0, 3.0], "algorithm": [{"kind": "fedsgd"}, {"kind": "fedavg", "server": "fedadam"}]}
    results = made.results(made.sweep(over, pooled_dp=True))
    panels = side_by_side(results, AUC)
    assert [panel.title for panel in panels] == ["ε 1", "ε 3"]
    for panel in panels:
        assert [name for name, _ in panel.rows] == ["pooled, with the budget", "fedsgd", "fedavg, server fedadam"]
    (trusted,) = pooled_private(results, AUC)
    assert trusted.title == "pooled, with the budget"
    assert [point.epsilon for point in trusted.points] == [1.0, 3.0]


def test_what_one_trusted_party_reaches_is_named_by_its_ground() -> None:
    results = made.results(made.sweep({"partners.count": [5, 8]}, pooled_dp=True))
    titles = [line.title for line in pooled_private(results, AUC)]
    assert len(set(titles)) == 2 and all(title.startswith("pooled, with the budget, ") for title in titles)
    assert "5" in titles[0] and "8" in titles[1]


def test_two_folders_are_compared_seed_by_seed_where_they_share_a_simulation() -> None:
    first = made.results(made.sweep({"privacy.epsilon": [0.1, 1.0]}))
    second = made.results(made.sweep({"privacy.epsilon": [1.0, 10.0]}, engine="local", seeds=3))
    rows = {row.title: row for row in between(first, second, AUC)}
    assert set(rows) == {"ε 1", "alone", "pooled"}
    assert rows["ε 1"].change.value == pytest.approx(0.0)
    assert rows["ε 1"].change.seeds == "3 of 5 seeds"


def test_references_of_several_grounds_are_told_apart_between_two_folders() -> None:
    grid: dict[str, list[object]] = {"privacy.epsilon": [1.0], "partners.count": [4, 16]}
    rows = between(made.results(made.sweep(grid)), made.results(made.sweep(grid, engine="local")), AUC)
    assert {row.title for row in rows} >= {"alone, 4 partners", "alone, 16 partners", "pooled, 4 partners"}
    assert len({row.title for row in rows}) == len(rows)


def test_only_metrics_that_there_are_can_be_compared() -> None:
    results = made.results(made.sweep({"privacy.epsilon": GRID}, seeds=1))
    with pytest.raises(DocumentError, match=r"lift@1%"):
        check_metric(results, metric_of("lift@1%"))
    nothing = made.results(made.sweep({"privacy.epsilon": GRID}, seeds=1), lambda simulation, seed: True)
    with pytest.raises(DocumentError, match="CSL-M249") as caught:
        check_metric(nothing, AUC)
    assert "consilience simulate sweep" in caught.value.action


def test_a_folder_of_an_older_program_names_what_lies_there_and_what_to_run(tmp_path: Path) -> None:
    asked = made.sweep({"privacy.epsilon": [None, 1.0]}, seeds=2)
    run_sweep(asked, tmp_path, run=made.run)
    rows = [Row("0" * 64, cell.simulation, cell.seed, cell.engine, None, None) for cell in cells(asked)[:1]]
    stale = gather("made", "Made", rows, asked.varied(), f"consilience simulate sweep x.yaml --out {tmp_path}")
    with pytest.raises(DocumentError, match="CSL-M249") as caught:
        check_metric(replace(stale, folder=tmp_path), AUC)
    assert str(tmp_path) in caught.value.cause and "older version" in caught.value.cause
    assert f"simulate plan … --out {tmp_path}" in caught.value.action


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    )
)
def test_json_has_no_nan(tree: object) -> None:
    assert "NaN" not in str(plain(tree)) or "NaN" in str(tree)
    assert plain(math.nan) is None and plain(Estimate(math.nan, 1.0, math.inf, 0, 1))["high"] is None


def test_a_folder_is_read_as_it_was_written_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    sweep = made.sweep({"privacy.epsilon": [0.1, 1.0]}, seeds=2)
    run_sweep(sweep, tmp_path, run=made.run)
    whole = read(tmp_path)
    assert whole.finished() == (8, 8)
    expected = summarise(made.results(sweep), AUC)
    assert summarise(whole, AUC).lines == expected.lines
    assert summarise(whole, AUC).gains == expected.gains
    store = Store(tmp_path)
    store.path(str(whole.cells["digest"].iloc[0])).unlink()
    assert read(tmp_path).finished() == (7, 8)
    store.path(str(whole.cells["digest"].iloc[1])).write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="CSL-M237"):
        read(tmp_path)


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="CSL-M251"):
        read(tmp_path)
