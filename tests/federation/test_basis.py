"""The encoding: same bits for all, exact shapes, norms inside the bound, missing values that say so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from federation.basis import ROW_NORM, Basis, Kind, on_scale
from federation.contract import CategoricalColumn, Column, FeatureContract, FlagColumn, Label, NumericColumn
from federation.document import load_yaml
from federation.errors import DocumentError

CONTRACTS = Path(__file__).parents[2] / "configs" / "contracts"
SHIPPED = [load_yaml(CONTRACTS / name, FeatureContract) for name in ("rfm.yaml", "bank_campaign.yaml")]
KINDS: tuple[Kind, ...] = ("additive", "logistic")
Values = dict[str, NDArray[np.float64] | NDArray[np.int64]]


def numeric(
    name: str, knots: list[float], scale: Literal["linear", "log"] = "linear", required: bool = True
) -> NumericColumn:
    return NumericColumn(
        kind="numeric",
        name=name,
        meaning="m",
        unit="u",
        low=knots[0],
        high=knots[-1],
        scale=scale,
        knots=tuple(knots),
        required=required,
    )


def contract_of(*columns: Column) -> FeatureContract:
    label = Label(name="answer", meaning="m")
    return FeatureContract(name="test", version=1, title="t", source="table", columns=columns, label=label)


@st.composite
def contracts(draw: st.DrawFn) -> FeatureContract:
    columns: list[Column] = []
    for place in range(draw(st.integers(1, 5))):
        name, kind = f"c{place}", draw(st.sampled_from(["numeric", "log", "categorical", "flag"]))
        if kind == "categorical":
            count = draw(st.integers(1, 6))
            columns.append(
                CategoricalColumn(
                    kind="categorical", name=name, meaning="m", categories=tuple(f"k{i}" for i in range(count))
                )
            )
        elif kind == "flag":
            columns.append(FlagColumn(kind="flag", name=name, meaning="m"))
        else:
            low = draw(st.integers(-1000, 1000))
            steps = draw(st.lists(st.integers(1, 500), min_size=1, max_size=8))
            knots = [float(low + value) for value in np.cumsum([0, *steps])]
            columns.append(numeric(name, knots, "log" if kind == "log" else "linear"))
    return contract_of(*columns)


def customers(contract: FeatureContract, n: int, seed: int) -> Values:
    rng, values = np.random.default_rng(seed), Values()
    for column in contract.columns:
        if isinstance(column, CategoricalColumn):
            values[column.name] = rng.integers(-1, len(column.categories), n)
        elif isinstance(column, FlagColumn):
            values[column.name] = rng.choice([0.0, 1.0, np.nan], n)
        else:
            span = column.high - column.low
            drawn = rng.uniform(column.low - 0.2 * span, column.high + 0.2 * span, n)
            values[column.name] = np.where(rng.random(n) < 0.1, np.nan, drawn)
    return values


def hats(column: NumericColumn, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The textbook form of the hat basis, one knot at a time."""
    points, place = on_scale(column, np.asarray(column.knots)), on_scale(column, values)
    return np.stack([np.interp(place, points, unit) for unit in np.eye(len(points))], axis=1)


@given(contracts(), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_rows_are_finite_inside_the_norm_and_named(contract: FeatureContract, kind: Kind, seed: int) -> None:
    basis = Basis.of(contract, kind)
    encoded = basis.encode(customers(contract, 40, seed))
    assert encoded.dtype == np.float32 and encoded.shape == (40, basis.width)
    assert np.isfinite(encoded).all()
    assert len(set(basis.names)) == basis.width
    if kind == "additive":
        assert np.linalg.norm(encoded, axis=1).max() <= ROW_NORM * (1 + 1e-5)
    places = [place for part in basis.blocks.values() for place in range(part.start, part.stop)]
    assert places == list(range(basis.width)) and list(basis.blocks) == [column.name for column in contract.columns]


@given(contracts(), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_contributions_add_up_to_the_logit(contract: FeatureContract, kind: Kind, seed: int) -> None:
    basis, values = Basis.of(contract, kind), customers(contract, 30, seed)
    weights = np.random.default_rng(seed).normal(size=basis.width)
    encoded = basis.encode(values)
    terms = basis.contributions(encoded, weights)
    assert terms.shape == (30, len(contract.columns))
    np.testing.assert_allclose(terms.sum(axis=1), encoded.astype(np.float64) @ weights, atol=1e-9)
    for place, column in enumerate(contract.columns):
        np.testing.assert_allclose(
            basis.contribution(column.name, values[column.name], weights), terms[:, place], atol=1e-12
        )


@given(contracts(), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_shapes_are_what_customers_get(contract: FeatureContract, kind: Kind, seed: int) -> None:
    basis, values = Basis.of(contract, kind), customers(contract, 30, seed)
    weights = np.random.default_rng(seed).normal(size=basis.width)
    terms = basis.contributions(basis.encode(values), weights)
    for place, column in enumerate(contract.columns):
        points, effect = basis.shape(weights, column.name)
        raw, absent = values[column.name], basis.absent(weights, column.name)
        if isinstance(column, NumericColumn):
            at = on_scale(column, np.asarray(points, dtype=np.float64))
            told = np.where(np.isnan(raw), absent, np.interp(on_scale(column, np.nan_to_num(raw)), at, effect))
        else:
            unknown = np.isnan(raw) | (raw < 0)
            told = np.where(unknown, absent, effect[np.where(unknown, 0, raw).astype(np.int64)])
        np.testing.assert_allclose(told, terms[:, place], atol=1e-4)


@given(contracts(), st.integers(0, 2**32 - 1))
def test_additive_spans_the_hats_up_to_a_constant(contract: FeatureContract, seed: int) -> None:
    basis, values = Basis.of(contract, "additive"), customers(contract, 60, seed)
    encoded = basis.encode(values)
    for column in contract.columns:
        if not isinstance(column, NumericColumn):
            continue
        known = ~np.isnan(values[column.name])
        curve = np.random.default_rng(seed).normal(size=len(column.knots))
        target = hats(column, values[column.name][known].astype(np.float64)) @ curve
        design = np.column_stack(
            [encoded[known][:, basis.blocks[column.name]].astype(np.float64), np.ones(known.sum())]
        )
        fitted = design @ np.linalg.lstsq(design, target, rcond=1e-9)[0]
        np.testing.assert_allclose(fitted, target, atol=1e-3)


@given(contracts(), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_a_customer_is_encoded_alone(contract: FeatureContract, kind: Kind, seed: int) -> None:
    basis, values = Basis.of(contract, kind), customers(contract, 8, seed)
    together = basis.encode(values)
    for row in range(8):
        alone = basis.encode({name: column[row : row + 1] for name, column in values.items()})
        np.testing.assert_array_equal(alone[0], together[row])


def test_columns_are_centred_and_scaled_under_the_public_reference() -> None:
    column = numeric("x", [0.0, 1.0, 3.0, 10.0])
    ends = np.asarray(column.knots)
    uniform = (np.arange(20_000) + 0.5) / 20_000
    drawn = np.concatenate([low + (high - low) * uniform for low, high in zip(ends[:-1], ends[1:], strict=True)])
    for kind in KINDS:
        encoded = Basis.of(contract_of(column), kind).encode({"x": drawn})[:, :-1].astype(np.float64)
        np.testing.assert_allclose(encoded.mean(axis=0), 0.0, atol=1e-3)
    line = Basis.of(contract_of(column), "logistic").encode({"x": drawn})[:, 0]
    assert line.astype(np.float64).var() == pytest.approx(ROW_NORM**2, rel=1e-3)


def test_values_outside_the_bounds_count_as_the_nearest_bound() -> None:
    basis = Basis.of(contract_of(numeric("x", [0.0, 5.0, 10.0], "log")), "additive")
    encoded = basis.encode({"x": np.array([-7.0, 0.0, 1e12, 10.0])})
    np.testing.assert_array_equal(encoded[0], encoded[1])
    np.testing.assert_array_equal(encoded[2], encoded[3])


def test_a_missing_number_sets_its_indicator_and_nothing_else() -> None:
    basis = Basis.of(
        contract_of(numeric("x", [0.0, 5.0, 10.0]), FlagColumn(kind="flag", name="f", meaning="m")), "additive"
    )
    encoded = basis.encode({"x": np.array([np.nan, 5.0]), "f": np.array([np.nan, 1.0])})
    scale = np.float32(ROW_NORM / np.sqrt(2.0))
    assert basis.names == ("x@0", "x@5", "x@10", "x?missing", "f", "f?missing")
    np.testing.assert_allclose(encoded[0], np.array([0, 0, 0, scale, 0, scale], dtype=np.float32))
    np.testing.assert_allclose(encoded[1, 3:], np.array([0, scale, 0], dtype=np.float32))


def test_an_unknown_category_has_a_row_of_its_own() -> None:
    column = CategoricalColumn(kind="categorical", name="k", meaning="m", categories=("a", "b"))
    encoded = Basis.of(contract_of(column), "additive").encode({"k": np.array([0, 1, -1, 7])})
    np.testing.assert_array_equal(encoded[2], encoded[3])
    assert len(np.unique(encoded, axis=0)) == 3
    np.testing.assert_allclose(np.linalg.norm(encoded, axis=1), ROW_NORM, rtol=1e-6)


def test_an_optional_column_may_be_absent_and_a_required_one_may_not() -> None:
    contract = contract_of(numeric("x", [0.0, 1.0]), numeric("y", [0.0, 1.0], required=False))
    basis, x = Basis.of(contract, "additive"), np.array([0.2, 0.4])
    np.testing.assert_array_equal(basis.encode({"x": x}), basis.encode({"x": x, "y": np.full(2, np.nan)}))
    with pytest.raises(DocumentError, match="CSL-F402"):
        basis.encode({"y": x})


def test_what_cannot_be_encoded_is_refused_by_name() -> None:
    contract = contract_of(numeric("x", [0.0, 1.0]), numeric("y", [0.0, 1.0]))
    with pytest.raises(DocumentError, match="CSL-F403"):
        Basis.of(contract, "logistic").encode({"x": np.zeros(2), "y": np.zeros(3)})
    with pytest.raises(DocumentError, match="CSL-F401"):
        Basis.of(contract, "mlp")  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        Basis.of(contract, "logistic").shape(np.zeros(4), "z")


@pytest.mark.parametrize("contract", SHIPPED, ids=[contract.name for contract in SHIPPED])
@pytest.mark.parametrize("kind", KINDS)
def test_shipped_contracts_encode(contract: FeatureContract, kind: Kind) -> None:
    basis = Basis.of(contract, kind)
    encoded: Mapping[str, slice] = basis.blocks
    assert list(encoded) == [column.name for column in contract.columns]
    assert basis.encode(customers(contract, 1000, 1)).shape == (1000, basis.width)
