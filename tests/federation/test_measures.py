"""The measure language: what does not fit the contract is refused in words, and sensitivities are what they claim."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.measures import (
    BinsAxis,
    Cells,
    Centres,
    Condition,
    Factor,
    GroupsAxis,
    Rule,
    RulesAxis,
    Term,
    cells_on,
    columns_of,
    dimension_of,
    problems_of,
    sensitivity,
    shape_of,
)


def contract(source: str = "table") -> FeatureContract:
    return FeatureContract(
        name="shop",
        version=1,
        title="A shop",
        source=source,
        columns=(
            NumericColumn(kind="numeric", name="age", meaning="Age", unit="years", low=0, high=100, knots=(0, 50, 100)),
            CategoricalColumn(kind="categorical", name="channel", meaning="Channel", categories=("shop", "web")),
            FlagColumn(kind="flag", name="member", meaning="Member"),
        ),
        label=Label(name="left", meaning="Left"),
    )


COUNT = Term(cap=3)
AGE = Factor(column="age", low=0, high=100)


def test_shapes_and_lengths() -> None:
    bins = BinsAxis(column="age", cuts=(20.0, 40.0))
    rules = RulesAxis(rules=(Rule(name="old", where=(Condition(column="age", ge=60.0),)),))
    table = Cells(
        axes=(bins, GroupsAxis(column="channel"), GroupsAxis(column="left"), rules),
        terms=(COUNT, Term(factors=(AGE,), cap=2)),
    )
    assert shape_of(table, contract()) == (2, 4, 3, 3, 2)
    centres = Centres(factors=(AGE,), centres=((0.0,), (0.5,)), radius=1.0, cap=1, reach=1)
    assert shape_of(centres, contract()) == (2, 2)
    assert dimension_of([table, centres], contract()) == 2 * 4 * 3 * 3 * 2 + 4
    assert cells_on(GroupsAxis(column="member"), contract()) == 3
    assert columns_of([table, centres]) == {("age", "start"), ("channel", "start"), ("left", "start")}


@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=20), st.integers(1, 1000), st.integers(1, 1000))
def test_sensitivity_is_the_root_of_all_squares_rounded_up(caps: list[int], cap: int, reach: int) -> None:
    table = Cells(terms=tuple(Term(cap=value) for value in caps))
    centres = Centres(factors=(AGE,), centres=((0.0,),), radius=1.0, cap=cap, reach=reach)
    square = sum(value * value for value in caps) + cap * cap + reach * reach
    found = sensitivity([table, centres])
    assert found * found >= square and math.isclose(found, math.sqrt(square), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (Cells(terms=(COUNT,), where=(Condition(column="left", any_of=("yes",)),)), "is the label"),
        (Cells(terms=(COUNT,), axes=(GroupsAxis(column="age"),)), "no public groups; give cuts"),
        (
            Cells(terms=(COUNT,), axes=(GroupsAxis(column="agee"),)),
            "no column of the contract shop; it has age, channel",
        ),
        (Cells(terms=(COUNT,), axes=(BinsAxis(column="channel", cuts=(1.0,)),)), "cannot be cut"),
        (Cells(terms=(Term(factors=(Factor(column="channel", low=0, high=1),), cap=1),)), "cannot be added up"),
        (Cells(terms=(COUNT,), where=(Condition(column="channel", any_of=("phone",)),)), "has no group phone"),
        (Cells(terms=(COUNT,), where=(Condition(column="channel", ge=1.0),)), "choose by any_of"),
        (Cells(terms=(COUNT,), where=(Condition(column="age", at="end", ge=1.0),)), "has no value at the end"),
        (
            Cells(
                terms=(COUNT,),
                axes=(RulesAxis(rules=(Rule(name="x", where=(Condition(column="left", any_of=("no",)),)),)),),
            ),
            "is the label",
        ),
    ],
)
def test_what_does_not_fit_the_contract_is_said(measure: Cells, words: str) -> None:
    (problem,) = problems_of([measure], contract())
    assert words in problem


def test_a_label_may_be_a_group_or_a_value_and_the_end_belongs_to_logs() -> None:
    value = Term(factors=(Factor(column="left", low=0, high=1),), cap=1)
    assert problems_of([Cells(axes=(GroupsAxis(column="left"),), terms=(value,))], contract()) == []
    late = Cells(axes=(BinsAxis(column="age", at="end", cuts=(1.0,)),), terms=(COUNT,))
    assert problems_of([late], contract("transactions")) == []
    (problem,) = problems_of(
        [Cells(axes=(GroupsAxis(column="left", at="end"),), terms=(COUNT,))], contract("transactions")
    )
    assert "has no value at the end" in problem


def test_a_table_that_is_too_large_is_refused() -> None:
    cuts = tuple(float(value) for value in range(400))
    wide = Cells(axes=(BinsAxis(column="age", cuts=cuts),) * 2, terms=(COUNT,))
    (problem,) = problems_of([wide], contract())
    assert "too large" in problem


@pytest.mark.parametrize(
    "tree",
    [
        {"column": "age"},
        {"column": "age", "ge": 1.0, "missing": True},
        {"column": "age", "ge": 2.0, "lt": 1.0},
        {"column": "age", "any_of": []},
    ],
)
def test_a_condition_says_one_thing(tree: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(tree)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6))
def test_cuts_must_increase(cuts: list[float]) -> None:
    increasing = all(a < b for a, b in zip(cuts, cuts[1:], strict=False))
    if increasing:
        BinsAxis(column="age", cuts=tuple(cuts))
    else:
        with pytest.raises(ValidationError, match="increase"):
            BinsAxis(column="age", cuts=tuple(cuts))


def test_measures_read_back_from_their_canonical_form() -> None:
    table = Cells(axes=(BinsAxis(column="age", cuts=(1.0,)),), terms=(COUNT,), where=(Condition(column="age", lt=5.0),))
    assert Cells.from_canonical(table.canonical()) == table
    assert b"start" not in table.canonical()
