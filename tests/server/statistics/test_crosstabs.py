"""Tables of two groupings: margins that add up, and Cramer's V without what the noise adds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats.contingency import association

from federation.queries import Crosstab, Group
from server.statistics.crosstabs import CrosstabAsker, check, cramer
from tests.server.statistics.town import CONTRACT, Exact, coverage, setting, tolerance, town

TOWN = town(np.random.default_rng(9), 4000)
QUERY = Crosstab(id="t", kind="crosstab", rows=Group(column="region"), across=Group(column="bought"))
SCORES = (0.2, 0.4, 0.6, 0.8)
Z = 1.959963984540054


def _pandas() -> pd.DataFrame:
    return pd.crosstab(TOWN.frame["region"].fillna("unknown"), TOWN.frame["bought"].map({0.0: "no", 1.0: "yes"}))


def test_without_noise_the_answer_is_that_of_pandas() -> None:
    answer = Exact.of(CrosstabAsker(QUERY, setting()), TOWN, 100.0).answer(np.random.default_rng(1), 0.0)
    for (region, bought), count in _pandas().stack().items():
        assert answer.table("counts").value(region, bought) == count
        assert answer.table("row_shares").value(region, bought) == pytest.approx(count / _pandas().loc[region].sum())
    strength = association(_pandas().drop("unknown").to_numpy(), method="cramer")
    assert answer.table("cramers_v").value() == pytest.approx(strength, rel=1e-6)


def test_noisy_margins_add_up() -> None:
    answer = Exact.of(CrosstabAsker(QUERY, setting()), TOWN, 400.0).answer(np.random.default_rng(1), 36_000.0)
    counts = {row.key: row.value or 0.0 for row in answer.table("counts").rows}
    assert min(counts.values()) >= 0
    for table, place in (("row_totals", 0), ("column_totals", 1)):
        for row in answer.table(table).rows:
            added = sum(value for key, value in counts.items() if key[place] == row.key[0])
            assert row.value == pytest.approx(added, rel=1e-6, abs=1e-6)
    assert answer.table("total").value() == pytest.approx(sum(counts.values()), rel=1e-6)


def test_intervals_hold_counts_and_shares_as_often_as_they_say() -> None:
    exact, draws = Exact.of(CrosstabAsker(QUERY, setting()), TOWN, 4000.0), 500
    counts = {(str(a), str(b)): float(n) for (a, b), n in _pandas().stack().items() if n > 80}
    shares = {key: value / _pandas().loc[key[0]].sum() for key, value in counts.items()}
    for table, truth in (("counts", counts), ("row_shares", shares)):
        found = coverage(exact, table, truth, 36_000.0, draws)
        assert len(found) >= 6
        assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, len(found))


def _table(strength: float) -> np.ndarray:
    rows, columns = np.array([900.0, 2500.0, 1600.0]), np.array([0.5, 0.3, 0.15, 0.05])
    tilt = np.outer([1.0, 0.0, -1.0], [1.0, -0.5, -0.5, 0.0])
    return np.outer(rows, columns) * (1.0 + strength * tilt)


@pytest.mark.parametrize(("strength", "sd"), [(0.0, 20.0), (0.3, 5.0), (0.3, 20.0), (0.9, 20.0)])
def test_intervals_of_cramers_v_hold_as_often_as_they_say(strength: float, sd: float) -> None:
    generator, exact, draws = np.random.default_rng(2), _table(strength), 400
    truth = cramer(exact, 0.0, Z)[0].value
    assert truth is not None
    held, values = [], []
    for _ in range(draws):
        span, left = cramer(exact + generator.normal(0.0, sd, exact.shape), sd, Z)
        assert span.value is not None and span.low is not None and span.high is not None and left == 0
        assert 0.0 <= span.low <= span.value <= span.high <= 1.0
        held.append(span.low - 1e-12 <= truth <= span.high + 1e-12)
        values.append(span.value**2)
    if strength == 0:  # the lower end rests at 0: one side alone can miss
        assert np.mean(held) >= 0.95
    else:
        assert abs(np.mean(held) - 0.95) <= tolerance(draws, 4) + 0.01
        assert np.mean(values) == pytest.approx(truth**2, rel=0.1)


def test_without_taking_off_the_noise_v_would_be_too_large() -> None:
    generator, exact = np.random.default_rng(3), _table(0.0)
    noisy = [exact + generator.normal(0.0, 20.0, exact.shape) for _ in range(200)]
    plain = np.mean([cramer(table, 0.0, Z)[0].value for table in noisy])
    corrected = np.mean([cramer(table, 20.0, Z)[0].value for table in noisy])
    assert corrected < 0.6 * plain


def test_groups_that_the_noise_hides_are_left_out() -> None:
    exact = np.array([[500.0, 300.0], [200.0, 600.0], [3.0, 0.0]])
    span, left = cramer(exact, 20.0, Z)
    assert left == 1 and span.value is not None
    assert cramer(exact * 0.01, 20.0, Z)[0].value is None


def test_problems_are_named() -> None:
    assert check(QUERY, CONTRACT) == []
    cut = Group(column="score", cuts=SCORES)
    assert check(Crosstab(id="t", kind="crosstab", rows=cut, across=Group(column="region")), CONTRACT) == []
    assert "stands twice" in check(Crosstab(id="t", kind="crosstab", rows=cut, across=cut), CONTRACT)[0]
