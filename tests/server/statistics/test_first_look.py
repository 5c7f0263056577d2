"""The first look: scales that match the vault's, bounds and a sample that follow the customers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.measures import Cells, Factor, Term, sensitivity, shape_of
from server.statistics import first_look
from server.statistics.asking import Sum
from tests.server.statistics.shapes import CONTRACT, cohorts

NAMES = ("x", "y", "spend", "member")


def looked(columns, *, sd=0.0, budget=1e6, seed=0):
    factors = [first_look.factor_of(name, CONTRACT) for name in NAMES]
    measures = first_look.measures(factors, (), CONTRACT, budget)
    assert sensitivity(measures) <= budget * (1 + 1e-9)
    points = np.stack([columns["x"], columns["y"]], axis=1)
    (everybody,) = cohorts(points, 1, spend=columns["spend"], member=columns["member"])
    people = People.of(CONTRACT, everybody)
    generator = np.random.default_rng(seed)
    sums = []
    for item in measures:
        exact = measure_all([item], people, CONTRACT).reshape(shape_of(item, CONTRACT))
        sums.append(Sum(item, exact + generator.normal(0, sd, exact.shape), sd))
    return first_look.look(factors, sums)


def customers(size=8000):
    generator = np.random.default_rng(7)
    x = np.clip(generator.normal(5, 0.8, size), 0, 10)
    y = np.clip(0.8 * x + generator.normal(0, 0.5, size), 0, 10)
    return {
        "x": x,
        "y": y,
        "spend": np.expm1(generator.random(size) * 4),
        "member": (generator.random(size) < 0.3) * 1.0,
    }


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.sampled_from(["linear", "log"]), st.floats(-1, 1))
def test_a_factor_scales_as_the_vault_does_and_back(low, width, scale, place):
    factor = Factor(column="x", low=low, high=low + width, scale=scale)
    value = first_look.raw(np.array([place]), factor)
    back = first_look.scaled(value, factor)[0]
    slack = 1e-9 + 8e-10 * (1 + abs(low)) / width * max(1.0, width)
    assert back == pytest.approx(place, abs=slack) and -1 <= back <= 1
    (everybody,) = cohorts(np.stack([value, value], axis=1), 1)
    people = People.of(CONTRACT, everybody)
    vault = measure_all([Cells(terms=(Term(factors=(factor,), cap=1_000_000),))], people, CONTRACT)[0]
    assert abs(vault - back * 1e6) <= 1.0


def test_a_linear_factor_is_written_as_ever_and_bounds_cannot_overflow():
    assert "scale" not in Factor(column="x", low=0.0, high=1.0).model_dump()
    assert Factor(column="x", low=0.0, high=1.0, scale="log").model_dump()["scale"] == "log"
    for low, high in ((-1e301, 0.0), (0.0, 1e301), (1.0, 1.0)):
        with pytest.raises(ValidationError):
            Factor(column="x", low=low, high=high)


def test_what_one_customer_adds_on_a_log_scale_does_not_depend_on_the_others():
    generator = np.random.default_rng(8)
    values = np.expm1(generator.random(41) * 6)
    measure = Cells(terms=(Term(factors=(Factor(column="x", low=0.0, high=500.0, scale="log"),), cap=1_000_000),))

    def total(part):
        (everybody,) = cohorts(np.stack([part, part], axis=1), 1)
        return int(measure_all([measure], People.of(CONTRACT, everybody), CONTRACT)[0])

    alone = [total(values[place : place + 1]) for place in range(41)]
    assert [total(values[:place]) for place in range(42)] == [sum(alone[:place]) for place in range(42)]


@pytest.mark.parametrize("sd", [0.0, 36_000.0])
def test_bounds_and_sample_follow_the_customers(sd):
    columns = customers()
    found = looked(columns, sd=sd, budget=16_384 * 0.22 / 5**0.5 if sd else 1e6)
    x = found.factors[0]
    assert 1.5 <= x.low <= 4 and 6 <= x.high <= 8.5
    assert found.factors[2].low == 0 and found.factors[2].high < 200
    assert (found.factors[3].low, found.factors[3].high) == (0, 1)
    units = np.stack(
        [first_look.scaled(columns[name], f) for name, f in zip(NAMES, found.factors, strict=True)], axis=1
    )
    slack = 0.25 if sd else 0.05
    np.testing.assert_allclose(found.sample.mean(axis=0), units.mean(axis=0), atol=slack)
    np.testing.assert_allclose(found.sample.std(axis=0), units.std(axis=0), atol=slack)
    exact, drawn = np.corrcoef(units.T), np.corrcoef(found.sample.T)
    assert abs(exact[0, 1] - drawn[0, 1]) < (0.45 if sd else 0.1)
    assert set(np.unique(found.sample[:, 3])) == {-1.0, 1.0}


@given(st.integers(0, 2**32 - 1), st.floats(0, 1e7))
def test_any_sums_give_bounds_within_the_contracts_and_a_finite_sample(seed, sd):
    generator = np.random.default_rng(seed)
    factors = [first_look.factor_of(name, CONTRACT) for name in NAMES]
    measures = first_look.measures(factors, (), CONTRACT, 1000.0)
    found = first_look.look(factors, [Sum(m, generator.normal(0, sd, shape_of(m, CONTRACT)), sd) for m in measures])
    assert np.all(np.isfinite(found.sample)) and np.all(np.abs(found.sample) <= 1 + 1e-9) and np.all(found.spread > 0)
    for wide, narrow in zip(factors, found.factors, strict=True):
        assert wide.low - 1e-9 <= narrow.low < narrow.high <= wide.high * (1 + 1e-9)
