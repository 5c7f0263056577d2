"""Correlations: exact without noise, covered with it, silent where the noise hides how far a column varies."""

import numpy as np
import pytest

from federation.measures import Cells
from federation.queries import Accuracy, Correlation
from server.statistics.correlations import CorrelationAsker, Moments, check
from tests.server.statistics.town import CONTRACT, Exact, coverage, setting, tolerance, town

TOWN = town(np.random.default_rng(10))
NAMES = ("age", "score", "chosen")
QUERY = Correlation(id="r", kind="correlation", of=NAMES)


def _pandas(names: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    frame = TOWN.frame[list(names)].dropna().copy()
    for name in names:
        column = CONTRACT.column(name)
        if column.kind == "numeric":
            frame[name] = frame[name].clip(column.low, column.high)
    found = frame.corr()
    return {(a, b): float(found.loc[a, b]) for i, a in enumerate(names) for b in names[i + 1 :]}


def test_without_noise_the_answer_is_that_of_pandas() -> None:
    names = ("age", "income", "score")
    asker = CorrelationAsker(Correlation(id="r", kind="correlation", of=names), setting())
    answer = Exact.of(asker, TOWN, 1e6).answer(np.random.default_rng(1), 0.0)
    for key, truth in _pandas(names).items():
        assert answer.table("correlations").value(*key) == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize("budget", [4000.0, 20_000.0])
def test_intervals_hold_the_truth_as_often_as_they_say(budget: float) -> None:
    draws = 800
    found = coverage(
        Exact.of(CorrelationAsker(QUERY, setting()), TOWN, budget), "correlations", _pandas(NAMES), 36_000.0, draws
    )
    assert len(found) == 3
    assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, 3)


def test_too_much_noise_says_nothing() -> None:
    answer = Exact.of(CorrelationAsker(QUERY, setting()), TOWN, 250.0).answer(np.random.default_rng(1), 36_000.0)
    rows = answer.table("correlations").rows
    assert all(row.value is None or (row.high or 0.0) - (row.low or 0.0) > 0.2 for row in rows)
    assert any("correlations are not given" in note or "cannot be told from 0" in note for note in answer.notes)


def test_the_split_of_the_budget_beats_an_even_one() -> None:
    asker = CorrelationAsker(QUERY, setting())
    said = asker.expected({1: 4000.0})[0].within
    measure = asker.ask(1, 4000.0)[0]
    assert isinstance(measure, Cells)
    caps = np.array([term.cap for term in measure.terms])
    assert len(caps) == Moments(3).size and caps.max() > 1.5 * caps.min()
    answer = Exact.of(asker, TOWN, 4000.0).answer(np.random.default_rng(1), 36_000.0)
    half = max((row.high or 0.0) - (row.low or 0.0) for row in answer.table("correlations").rows) / 2
    assert said / 4 < half < said * 4


def test_gradients_are_those_of_the_correlation() -> None:
    moments = Moments(2)
    sums = np.array([50.0, 5.0, -8.0, 20.0, 9.0, 30.0])

    def correlation(values: np.ndarray) -> float:
        top, under, _, _ = moments.pair(values, 0, 1)
        return top / under

    top, under, by_top, by_under = moments.pair(sums, 0, 1)
    gradient = by_top / under - top / under**2 * by_under
    steps = [(correlation(sums + step) - correlation(sums - step)) / 2e-5 for step in 1e-5 * np.eye(6)]
    assert np.allclose(gradient, steps, rtol=1e-6, atol=1e-9)


def test_what_is_needed_is_enough_for_columns_like_the_knots() -> None:
    query = Correlation(id="r", kind="correlation", of=("score", "age"), accuracy=Accuracy(within=0.05))
    asker = CorrelationAsker(query, setting())
    needed = asker.needed(1)
    assert needed is not None and asker.expected({1: needed})[0].within <= 0.05


def test_problems_are_named() -> None:
    assert check(QUERY, CONTRACT) == []
    assert "not numeric" in check(Correlation(id="r", kind="correlation", of=("age", "region")), CONTRACT)[0]
    assert "stands twice" in check(Correlation(id="r", kind="correlation", of=("age", "age")), CONTRACT)[0]
