"""Pairs: surfaces beside the curves, within the row's norm, alike at every institution, and exact in every explanation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.basis import MOST_CELLS, ROW_NORM, Basis, on_scale, pair_problems
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, NumericColumn
from federation.document import parse_yaml
from federation.errors import DocumentError
from federation.networks import build, encode, tensor_shapes
from federation.study import AdditiveModel, StudyDraft
from tests.federation.test_basis import SHIPPED, contract_of, contracts, customers, numeric

BANK = next(item for item in SHIPPED if item.name == "bank_campaign")
PAIRS = (("age", "balance"), ("contact", "month"), ("housing", "loan"), ("age", "marital"), ("loan", "pdays"))
MODEL = AdditiveModel(pairs=PAIRS)


@st.composite
def with_pairs(draw: st.DrawFn) -> tuple[FeatureContract, tuple[tuple[str, str], ...]]:
    contract = draw(contracts().filter(lambda item: len(item.columns) > 1))
    names = [column.name for column in contract.columns]
    all_pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    fitting = [pair for pair in all_pairs if not list(pair_problems(contract, (pair,)))]
    return contract, tuple(draw(st.lists(st.sampled_from(fitting), max_size=4, unique=True)) if fitting else ())


@given(with_pairs(), st.integers(0, 2**32 - 1))
def test_contributions_add_up_to_the_logit_by_term_and_by_column(
    drawn: tuple[FeatureContract, tuple[tuple[str, str], ...]], seed: int
) -> None:
    contract, pairs = drawn
    basis, values = Basis.of(contract, "additive", pairs), customers(contract, 30, seed)
    encoded, weights = basis.encode(values), np.random.default_rng(seed).normal(size=basis.width)
    assert np.linalg.norm(encoded, axis=1).max() <= ROW_NORM * (1 + 1e-5)
    assert len(set(basis.names)) == basis.width == encoded.shape[1]
    terms = basis.contributions(encoded, weights)
    assert terms.shape == (30, len(contract.columns) + len(pairs))
    logits = encoded.astype(np.float64) @ weights
    np.testing.assert_allclose(terms.sum(axis=1), logits, atol=1e-9)
    shared = basis.by_column(terms)
    assert shared.shape == (30, len(contract.columns))
    np.testing.assert_allclose(shared.sum(axis=1), logits, atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_a_surface_is_what_customers_get(seed: int) -> None:
    basis, values = Basis.of_model(BANK, MODEL), customers(BANK, 60, seed)
    weights = np.random.default_rng(seed).normal(size=basis.width)
    terms = basis.contributions(basis.encode(values), weights)
    for number, (term, pair) in enumerate(basis.pairs.items(), start=len(BANK.columns)):
        *points, effect = basis.surface(weights, term)
        shares = [shares_of(name, places, values[name]) for name, places in zip(pair, points, strict=True)]
        known = np.all([np.isfinite(share).all(axis=1) for share in shares], axis=0)
        told = np.einsum("na,ab,nb->n", shares[0], effect, shares[1])
        np.testing.assert_allclose(terms[known, number], told[known], atol=1e-4)
        categorical = [isinstance(BANK.column(name), CategoricalColumn) for name in pair]
        if not any(categorical):
            np.testing.assert_array_equal(terms[~known, number], 0.0)


def shares_of(name: str, points: object, values: np.ndarray) -> np.ndarray:
    """How much each point of a surface counts for each customer; NaN where the value is not known."""
    column = BANK.column(name)
    if isinstance(column, NumericColumn):
        at = on_scale(column, np.asarray(points, dtype=np.float64))
        unit = np.stack(
            [np.interp(on_scale(column, np.nan_to_num(values)), at, row) for row in np.eye(len(at))], axis=1
        )
        return np.where(np.isnan(values)[:, None], np.nan, unit)
    size = len(points)  # type: ignore[arg-type]
    codes = np.nan_to_num(values, nan=-1.0).astype(np.int64)
    return np.where(codes[:, None] < 0, np.nan, np.eye(size)[np.maximum(codes, 0)])


def test_coarse_knots_are_the_contracts_own_and_keep_both_ends() -> None:
    basis = Basis.of_model(BANK, MODEL)
    points, others, effect = basis.surface(np.ones(basis.width), "age*balance")
    assert list(points) == [18.0, 30.0, 50.0, 60.0, 90.0] and list(others)[0] == -1000.0 and list(others)[-1] == 20000.0
    age, balance = BANK.column("age"), BANK.column("balance")
    assert isinstance(age, NumericColumn) and isinstance(balance, NumericColumn)
    assert set(points) <= set(age.knots) and set(others) <= set(balance.knots) and effect.shape == (5, 5)


def test_a_surface_repeats_neither_curve_under_the_public_reference() -> None:
    contract = contract_of(numeric("x", [0.0, 1.0, 3.0]), FlagColumn(kind="flag", name="f", meaning="m"))
    basis = Basis.of(contract, "additive", (("x", "f"),))
    x = np.concatenate([np.linspace(0.0, 1.0, 2001), np.linspace(1.0, 3.0, 2001)])
    both = {"x": np.tile(x, 2), "f": np.repeat([0.0, 1.0], len(x))}
    encoded = basis.encode(both)[:, basis.blocks["x*f"]].astype(np.float64)
    np.testing.assert_allclose(encoded.mean(axis=0), 0.0, atol=1e-3)  # over x, whatever f is
    np.testing.assert_allclose(encoded[: len(x)] + encoded[len(x) :], 0.0, atol=1e-6)  # over f, whatever x is


def test_pairs_come_after_the_columns_and_share_their_scale() -> None:
    basis, alone = Basis.of_model(BANK, MODEL), Basis.of(BANK, "additive")
    assert list(basis.blocks) == [
        *alone.blocks,
        "age*balance",
        "contact*month",
        "housing*loan",
        "age*marital",
        "loan*pdays",
    ]
    assert basis.names[: alone.width] == alone.names and "age@30*balance@500" not in alone.names
    values = customers(BANK, 20, 1)
    ratio = np.float32(np.sqrt(len(BANK.columns) / (len(BANK.columns) + len(PAIRS))))
    np.testing.assert_allclose(basis.encode(values)[:, : alone.width], ratio * alone.encode(values), atol=1e-6)
    for row in range(20):
        one = basis.encode({name: column[row : row + 1] for name, column in values.items()})
        np.testing.assert_array_equal(one[0], basis.encode(values)[row])


def test_a_network_has_the_width_of_its_pairs() -> None:
    width = Basis.of_model(BANK, MODEL).width
    assert build(MODEL, BANK).state_dict()["linear.weight"].shape == (1, width)
    assert tensor_shapes(MODEL, BANK)["linear.weight"][0] == (1, width)
    assert tensor_shapes(AdditiveModel(), BANK)["linear.weight"][0] == (1, Basis.of(BANK, "additive").width)
    assert encode(MODEL, BANK, customers(BANK, 7, 1)).dense.shape == (7, width)


def test_a_column_that_an_institution_lacks_leaves_its_pairs_at_zero() -> None:
    basis, values = Basis.of_model(BANK, MODEL), customers(BANK, 5, 1)
    del values["balance"]
    assert not basis.encode(values)[:, basis.blocks["age*balance"]].any()


def test_what_cannot_be_paired_is_refused_by_name() -> None:
    with pytest.raises(DocumentError, match="CSL-F420.*wealth"):
        Basis.of(BANK, "additive", (("age", "wealth"),))
    with pytest.raises(DocumentError, match=f"CSL-F421.*11 x 12 cells; {MOST_CELLS}"):
        Basis.of(BANK, "additive", (("job", "month"),))
    with pytest.raises(DocumentError, match="CSL-F422"):
        Basis.of(BANK, "logistic", (("age", "balance"),))


def test_a_model_without_pairs_or_directions_is_encoded_as_before_they_were_known() -> None:
    assert AdditiveModel().canonical() == b'{"kind":"additive"}'
    told = AdditiveModel(monotone={"age": "increasing"}, pairs=(("b", "a"),))
    assert told.canonical() == b'{"kind":"additive","monotone":{"age":"increasing"},"pairs":[["b","a"]]}'
    assert AdditiveModel.from_canonical(told.canonical()) == told
    assert hash(AdditiveModel.from_canonical(told.canonical())) == hash(told) and hash(told) != hash(AdditiveModel())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pairs: [[a, a]]", "paired with itself"),
        ("pairs: [[a, b], [b, a]]", "named twice"),
        ("{monotone: {a: increasing}, pairs: [[a, b]]}", "monotone"),
        ("monotone: {a: upwards}", "increasing"),
        (f"pairs: [{', '.join(f'[a, b{i}]' for i in range(11))}]", "at most 10"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        parse_yaml(text.encode(), AdditiveModel, "study")


def test_a_draft_says_it_in_yaml() -> None:
    text = """
name: test
title: A test
purpose: marketing.test
contract: bank_campaign
model: {kind: additive, monotone: {campaign: decreasing}, pairs: [[age, balance]]}
holdout: {kind: hash, share: 0.2}
intended_use: A test.
limits: A test.
"""
    model = parse_yaml(text.encode(), StudyDraft, "study").model
    assert isinstance(model, AdditiveModel)
    assert model.monotone == {"campaign": "decreasing"} and model.pairs == (("age", "balance"),)
