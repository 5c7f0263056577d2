"""Statistics in memory: the same questions and grants as a federation's, seeded noise, exact answers without it."""

import json
import math

import numpy as np
import pytest

from client.cohort import Cohort
from federation.statistics import StatisticsDraft
from simulations.seeded import SeededSource
from simulations.statistics_play import Party, Table, dealt, round_up
from tests.client.vault_home import CONTRACT

SHARED = {"aggregation": "secure", "noise": "shared", "n_min": 4, "c": 1}


def draft(**terms: object) -> StatisticsDraft:
    queries = [{"id": "n", "kind": "count", "by": [{"column": "job"}]}, {"id": "age", "kind": "mean", "of": "age"}]
    tree = {"kind": "statistics", "name": "q", "title": "Q", "purpose": "a.b", "contract": "shop", "queries": queries}
    return StatisticsDraft.model_validate_json(json.dumps(tree | terms))


@pytest.fixture(scope="module")
def crowd() -> Cohort:
    generator = np.random.default_rng(5)
    size = 5003
    return Cohort(
        ids=np.array([f"c{number}" for number in range(size)], dtype=object),
        columns={
            "age": generator.integers(18, 91, size).astype(np.float64),
            "job": generator.integers(-1, 2, size),
            "loan": generator.integers(0, 2, size).astype(np.float64),
        },
    )


@pytest.fixture(scope="module")
def table(crowd: Cohort) -> Table:
    names = ("a", "b", "c", "d", "e")
    parts = zip(names, dealt(crowd, names, 1), strict=True)
    return Table(CONTRACT, [Party(name, {"start": part}, round_up(len(part))) for name, part in parts])


def test_customers_are_dealt_out_once_and_evenly(crowd: Cohort) -> None:
    parts = dealt(crowd, "abcde", 3)
    assert sorted(name for part in parts for name in part.ids) == sorted(crowd.ids)
    assert {len(part) for part in parts} == {1000, 1001}
    assert [round_up(count) for count in (999, 1000, 1001, 4712, 7)] == [1000, 1000, 1100, 4800, 7]


def test_without_noise_answers_are_exact(crowd: Cohort, table: Table) -> None:
    count, mean = table.play(draft(), 1.0, None).answers
    found = [row.value for row in count.tables[0].rows]
    assert found == pytest.approx([int(np.sum(crowd.columns["job"] == place)) for place in (0, 1, -1)])
    # each value is rounded to the grid: half a unit in the cap, which is hundreds of units
    assert mean.tables[0].rows[0].value == pytest.approx(crowd.columns["age"].mean(), abs=0.05)


def test_the_same_seed_gives_the_same_answers_and_another_one_others(table: Table) -> None:
    first, again, other = (table.play(draft(), 1.0, SeededSource(seed)).answers for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_shared_noise_grants_the_root_of_the_bearers_more(table: Table) -> None:
    """Three members' noise counts (n_min 4 less one colluder), so that a customer may pull sqrt(3) times as far."""
    local, shared = table.play(draft(), 1.0, None), table.play(draft(**SHARED), 1.0, None)
    assert shared.sensitivity / local.sensitivity == pytest.approx(math.sqrt(3), rel=5e-3)
    assert shared.report.noise == "shared"
    assert [item.member for item in shared.report.members] == list("abcde")
