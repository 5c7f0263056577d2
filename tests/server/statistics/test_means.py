"""Sums and means: exact without noise, covered with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.answers import Answer
from federation.measures import Cells
from federation.queries import Accuracy, Bounds, Group, Mean, Sum
from server.statistics.means import MeanAsker, SumAsker, check
from simulations.asker_play import play
from tests.server.statistics.town import CONTRACT, Exact, coverage, setting, tolerance, town

TOWN = town(np.random.default_rng(6), 3000)
BY = (Group(column="region"),)
FINE = 500_000.0


def _exact(asker: SumAsker | MeanAsker) -> Answer:
    return play(asker, CONTRACT, TOWN.cohorts, budget=FINE, sd=0.0, generator=np.random.default_rng(1))


def _groups(name: str, low: float, high: float) -> dict[tuple[str, ...], np.ndarray]:
    values, region = TOWN.frame[name].clip(low, high), TOWN.frame["region"].fillna("unknown")
    return {(str(key),): part.dropna().to_numpy() for key, part in values.groupby(region)}


@pytest.mark.parametrize(("name", "low", "high"), [("income", 0, 1000), ("age", 18, 98), ("bought", 0, 1)])
def test_without_noise_the_answers_are_those_of_pandas(name: str, low: float, high: float) -> None:
    sums = _exact(SumAsker(Sum(id="s", kind="sum", of=name, by=BY), setting()))
    means = _exact(MeanAsker(Mean(id="m", kind="mean", of=name, by=BY), setting()))
    for key, part in _groups(name, low, high).items():
        # Each value is rounded to half a grid unit of the 350,000 or so that half the bounds are.
        assert sums.table("sums").value(*key) == pytest.approx(part.sum(), abs=len(part) * (high - low) * 1e-6)
        assert means.table("means").value(*key) == pytest.approx(part.mean(), abs=(high - low) * 1e-6)
        assert means.table("customers").value(*key) == len(part)
    every = np.concatenate(list(_groups(name, low, high).values()))
    assert sums.table("total").value() == pytest.approx(every.sum(), rel=1e-4)
    assert means.table("overall").value() == pytest.approx(every.mean(), rel=1e-4)


def test_narrower_bounds_clip_and_the_note_says_so() -> None:
    answer = _exact(MeanAsker(Mean(id="m", kind="mean", of="income", clip=Bounds(low=20, high=100)), setting()))
    assert answer.table("means").value() == pytest.approx(TOWN.frame["income"].clip(20, 100).mean(), abs=1e-3)
    assert any("below 20 count as 20 and those above 100 as 100" in note for note in answer.notes)


@pytest.mark.parametrize("name", ["income", "age", "bought"])
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str, kind: str) -> None:
    asker: SumAsker | MeanAsker
    if kind == "sum":
        asker, table = SumAsker(Sum(id="q", kind="sum", of=name, by=BY), setting()), "sums"
    else:
        asker, table = MeanAsker(Mean(id="q", kind="mean", of=name, by=BY), setting()), "means"
    bounds = {"income": (0, 1000), "age": (18, 98), "bought": (0, 1)}[name]
    parts = _groups(name, *bounds)
    truth = {key: float(part.sum() if kind == "sum" else part.mean()) for key, part in parts.items() if len(part) > 300}
    draws = 800
    found = coverage(Exact.of(asker, TOWN, 8000.0), table, truth, 36_000.0, draws)
    assert len(found) == 3
    assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, 3)


@settings(max_examples=40)
@given(st.floats(-1e6, 1e6), st.floats(0.1, 1e6), st.floats(200, 1e5))
def test_the_split_of_a_sum_is_the_best(low: float, width: float, budget: float) -> None:
    asker = SumAsker(Sum(id="q", kind="sum", of="income", clip=Bounds(low=low, high=low + width)), setting(sd=1.0))
    measure = asker.ask(1, budget)[0]
    assert isinstance(measure, Cells)
    caps, mid, half = [term.cap for term in measure.terms], low + width / 2.0, width / 2.0
    square = (half / caps[-1]) ** 2 + ((mid / caps[0]) ** 2 if len(caps) > 1 else 0.0)
    # (|mid| + half) / budget is the least there is; caps are whole, and neither share is below a hundredth of the other.
    assert np.sqrt(square) <= (abs(mid) + half) / budget * 1.15


def test_mean_of_nobody_says_nothing() -> None:
    people = town(np.random.default_rng(1), 30)
    answer = Exact.of(MeanAsker(Mean(id="m", kind="mean", of="age", by=BY), setting()), people, 500.0).answer(
        np.random.default_rng(2), 36_000.0
    )
    assert all(row.value is None for row in answer.table("means").rows)
    assert any("cannot be told from 0" in note for note in answer.notes)


@pytest.mark.parametrize("within", [0.5, 5.0])
def test_what_is_needed_is_enough(within: float) -> None:
    asker = MeanAsker(Mean(id="m", kind="mean", of="age", accuracy=Accuracy(within=within)), setting(customers=3000))
    needed = asker.needed(1)
    assert needed is not None
    answer = Exact.of(asker, TOWN, needed).answer(np.random.default_rng(2), 36_000.0)
    row = answer.table("means").rows[0]
    assert row.low is not None and row.high is not None and row.high - row.low <= 2 * within * 1.01


def test_problems_are_named() -> None:
    assert check(Mean(id="m", kind="mean", of="income", by=BY), CONTRACT) == []
    assert "cannot be added up" in check(Mean(id="m", kind="mean", of="region"), CONTRACT)[0]
    assert "goes beyond" in check(Sum(id="m", kind="sum", of="age", clip=Bounds(low=0, high=50)), CONTRACT)[0]
    assert "not clipped" in check(Sum(id="m", kind="sum", of="kept", clip=Bounds(low=0, high=1)), CONTRACT)[0]
    assert "both" in check(Sum(id="m", kind="sum", of="kept", by=(Group(column="kept"),)), CONTRACT)[0]
