"""What matters most: the mean distance from the average, exact under the public reference and over own customers."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.importance import in_order, own_importance, reference_importance
from federation.basis import Basis, on_scale
from federation.blocks import side_of
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.document import load_yaml

CONTRACTS = Path(__file__).parents[2] / "configs" / "contracts"
BANK = load_yaml(CONTRACTS / "bank_campaign.yaml", FeatureContract)
PAIRS = (("age", "balance"), ("housing", "age"), ("contact", "month"))
BASIS = Basis.of(BANK, "additive", PAIRS)
WEIGHTS = np.random.default_rng(7).normal(size=BASIS.width)


def reference(count: int, *, unknown: bool, coarse: bool = False) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """Customers as the public reference has them: all intervals (of a pair's knots, if `coarse`) and all categories equally likely."""
    rng, columns = np.random.default_rng(1), {}
    for own in BANK.columns:
        column = side_of(own).column if coarse else own
        if isinstance(column, NumericColumn):
            place = rng.integers(0, len(column.knots) - 1, count)
            points = on_scale(column, np.asarray(column.knots))
            drawn = rng.uniform(points[place], points[place + 1])
            columns[column.name] = np.expm1(drawn) + column.low if column.scale == "log" else drawn
        elif isinstance(column, CategoricalColumn):
            columns[column.name] = rng.integers(-1 if unknown else 0, len(column.categories), count)
        else:
            columns[column.name] = rng.integers(0, 2, count).astype(np.float64)
    return columns


def test_under_the_reference_it_is_the_mean_over_such_customers() -> None:
    """Over 60,000 customers a mean absolute value is known to about 0.4%; 2% is five of these, and a surface's midpoints are within."""
    found = reference_importance(BASIS, BANK, WEIGHTS)
    curves = own_importance(BASIS, WEIGHTS, reference(60_000, unknown=True))
    pairs = own_importance(BASIS, WEIGHTS, reference(60_000, unknown=False, coarse=True))
    assert list(found) == list(BASIS.blocks)
    for term, value in found.items():
        assert value == pytest.approx((pairs if term in BASIS.pairs else curves)[term], rel=0.02)


def test_a_logistic_model_has_it_too() -> None:
    basis = Basis.of(BANK, "logistic")
    weights = np.ones(basis.width)
    found, drawn = (
        reference_importance(basis, BANK, weights),
        own_importance(basis, weights, reference(60_000, unknown=True)),
    )
    for term, value in found.items():
        assert value == pytest.approx(drawn[term], rel=0.02)


def test_over_own_customers_what_all_share_does_not_matter() -> None:
    same = {name: np.repeat(values[:1], 50) for name, values in reference(1, unknown=False).items()}
    assert max(own_importance(BASIS, WEIGHTS, same).values()) == pytest.approx(0.0, abs=1e-9)
    nobody = {name: values[:0] for name, values in same.items()}
    assert set(own_importance(BASIS, WEIGHTS, nobody).values()) == {0.0}


def test_ties_are_in_order_of_name() -> None:
    assert in_order({"b": 1.0, "a": 1.0, "c": 2.0}) == ["c", "a", "b"]
