"""k-means segments: exact without noise, close to exact with it, within budget whatever the noise, and the same for the same sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from federation.errors import FederationError
from federation.measures import Cells, Centres, problems_of, sensitivity, shape_of
from federation.queries import Accuracy, Clusters
from server.statistics.asking import Setting, Sum
from server.statistics.clusters import ClustersAsker, check
from server.statistics.first_look import scaled
from simulations.asker_play import play
from tests.server.statistics.shapes import CONTRACT, cohorts, groups

MIDDLES = ((2.0, 2.0), (8.0, 3.0), (5.0, 8.0))
SHARE = 16_384.0


def query(**changes: object) -> Clusters:
    return Clusters.model_validate({"id": "q", "kind": "clusters", "of": ("x", "y"), "k": 3, "steps": 4} | changes)


def setting(sd: float = SHARE * 5**0.5, customers: int = 9000) -> Setting:
    return Setting(CONTRACT, customers, sd, 0.95)


def per_round(mu: float, rounds: int) -> float:
    """The budget of one round of a study with local noise among five, whose whole mu is this."""
    return mu / rounds**0.5 * SHARE


def in_units(asker, points):
    return np.stack([scaled(points[:, j], factor) for j, factor in enumerate(asker.factors)], axis=1)


def inertia(points, centres):
    return float(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2).min(axis=1).sum())


def test_without_noise_steps_are_lloyds_and_segments_are_exact():
    points, _ = groups(np.random.default_rng(1), MIDDLES, 3000, 1.2)
    asker = ClustersAsker(query(), setting())
    starts = []
    told = asker.told

    def spy(number, sums):
        told(number, sums)
        starts.append(asker.centres.copy())

    asker.told = spy
    answer = play(asker, CONTRACT, cohorts(points), budget=1e6, sd=0.0, generator=np.random.default_rng(0))
    units = in_units(asker, points)
    exact = KMeans(3, init=starts[0], n_init=1, max_iter=300).fit(units)
    np.testing.assert_allclose(asker.centres, exact.cluster_centers_, atol=2e-5)
    place = ((units[:, None, :] - asker.centres[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)
    sizes = sorted(row.value for row in answer.table("segments").rows)
    assert sizes == pytest.approx(sorted(np.bincount(place).tolist()), abs=1e-9)
    means = sorted(
        row.value for row in answer.table("centres").rows if row.key[1] == "x" and row.key[0] != "all customers"
    )
    inside = np.clip(points[:, 0], asker.factors[0].low, asker.factors[0].high)
    assert means == pytest.approx(sorted(inside[place == j].mean() for j in range(3)), abs=1e-4)


def test_at_epsilon_one_segments_are_nearly_as_tight_as_exact_ones():
    points, _ = groups(np.random.default_rng(2), ((2, 2), (8, 3), (5, 8), (2, 7)), 9000, 2.2)
    ratios = []
    for seed in range(5):
        asker = ClustersAsker(query(k=4, steps=4), setting())
        play(
            asker,
            CONTRACT,
            cohorts(points, 5),
            budget=per_round(0.22, 5),
            sd=SHARE * 5**0.5,
            generator=np.random.default_rng(seed),
        )
        units = in_units(asker, points)
        ratios.append(inertia(units, asker.centres) / KMeans(4, n_init=10, random_state=0).fit(units).inertia_)
    assert max(ratios) <= 1.15 and np.mean(ratios) <= 1.08


@pytest.mark.parametrize("count", [3, 4, 5])
def test_the_number_of_groups_that_there_are_is_found(count):
    middles = [(5 + 3.6 * np.cos(2 * np.pi * j / count), 5 + 3.6 * np.sin(2 * np.pi * j / count)) for j in range(count)]
    points, _ = groups(np.random.default_rng(count), middles, 12_000, 1.2)
    found = []
    for seed in range(3):
        asker = ClustersAsker(query(k=None, steps=4), setting(customers=12_000))
        play(
            asker,
            CONTRACT,
            cohorts(points, 5),
            budget=per_round(0.22, 5),
            sd=SHARE * 5**0.5,
            generator=np.random.default_rng(seed),
        )
        found.append(len(asker.centres))
    assert found == [count] * 3


def test_unknown_values_are_in_no_segment_and_the_logarithm_is_the_vaults():
    generator = np.random.default_rng(3)
    points, _ = groups(generator, MIDDLES, 900, 1.0)
    spend = np.where(generator.random(900) < 0.3, np.nan, np.expm1(generator.random(900) * 5))
    asker = ClustersAsker(query(of=("x", "spend"), k=2), setting())
    answer = play(asker, CONTRACT, cohorts(points, spend=spend), budget=1e6, sd=0.0, generator=generator)
    known = ~np.isnan(spend)
    assert sum(row.value for row in answer.table("segments").rows) == pytest.approx(known.sum())
    logs = scaled(spend[known], asker.factors[1])
    overall = answer.table("centres").value("all customers", "spend")
    assert scaled(np.array([overall]), asker.factors[1])[0] == pytest.approx(logs.mean(), abs=1e-4)


rounds_of = st.builds(
    lambda of, k, steps: query(of=of, k=k, steps=steps),
    st.sampled_from([("x", "y"), ("x", "spend", "member"), ("member", "y")]),
    st.sampled_from([None, 2, 12]),
    st.integers(2, 5),
)


@settings(max_examples=15)
@given(rounds_of, st.floats(4.0, 1e7), st.sampled_from([0.0, 1.0, 1e3, 1e6]), st.integers(0, 2**32 - 1))
def test_every_round_stays_within_its_budget_and_answers_whatever_it_is_told(asked, budget, sd, seed):
    generator = np.random.default_rng(seed)
    first, second = ClustersAsker(asked, setting()), ClustersAsker(asked, setting())
    for number in range(1, first.rounds + 1):
        measures = first.ask(number, budget)
        assert second.ask(number, budget) == measures
        assert sensitivity(measures) <= budget * (1 + 1e-9) and problems_of(measures, CONTRACT) == []
        sums = [Sum(item, np.rint(generator.normal(1e4, sd, shape_of(item, CONTRACT))), sd) for item in measures]
        first.told(number, sums)
        second.told(number, sums)
        assert np.all(np.abs(first.centres) <= 1)
    answer = first.answer()
    assert answer == second.answer()
    for table in answer.tables:
        assert len({row.key for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert row.low is None or row.low <= row.value <= row.high


def test_a_budget_that_is_too_small_is_refused_with_what_it_needs():
    asker = ClustersAsker(query(), setting())
    with pytest.raises(FederationError) as caught:
        asker.ask(1, 1.0)
    assert caught.value.code == "CSL-S750" and "1.73" in caught.value.cause
    assert len(asker.ask(1, 1.75)) == 3


def test_the_budget_that_an_accuracy_needs_gives_it():
    asker = ClustersAsker(query(accuracy=Accuracy(within=50.0, confidence=0.95)), setting())
    budget = asker.needed(asker.rounds)
    assert asker.needed(1) is None and budget is not None
    expected = asker.expected({asker.rounds: budget})[0]
    assert expected.within == pytest.approx(50.0) and expected.unit == "customers"
    (step,) = asker.ask(5, budget) if len(asker.centres) else _placed(asker).ask(5, budget)
    assert isinstance(step, Centres)
    assert setting().z * setting().sd / step.cap == pytest.approx(50.0, rel=0.001)


def _placed(asker):
    measures = asker.ask(1, 1e6)
    asker.told(
        1, [Sum(item, np.full(shape_of(item, CONTRACT), 1e6), 1.0) for item in measures if isinstance(item, Cells)]
    )
    return asker


def test_all_that_is_wrong_with_a_query_is_named():
    wrong = query(
        of=("x", "x", "town", "left", "nothing"),
        k=None,
        steps=1,
        between=(5, 3),
        where=({"column": "left", "any_of": ("yes",)},),
    )
    found = check(wrong, CONTRACT)
    for part in (
        "twice",
        "town is not numeric",
        "left is the label: a segment",
        "nothing is no column",
        "smaller number",
        "2 steps",
    ):
        assert any(part in problem for problem in found), part
    assert any("not chosen by what became" in problem for problem in found)
    assert check(query(of=("x", "spend", "member")), CONTRACT) == []
