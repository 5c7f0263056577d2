"""A vault's exact sums: the right numbers, and never more of one customer than the sensitivity says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cohort import Cohort
from client.statistics.measuring import measure_all
from client.statistics.people import People
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
    dimension_of,
    sensitivity,
    shape_of,
)
from tests.federation.test_measures import contract

CONTRACT = contract("transactions")
AGE = Factor(column="age", low=20.0, high=60.0)
MEMBER = Factor(column="member", low=0.0, high=1.0)


def cohort(rows: list[tuple[str, float, int, float, float]]) -> Cohort:
    """Customers as (id, age, channel, member, label)."""
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
    return Cohort(
        ids=np.array(columns[0], dtype=object),
        columns={
            "age": np.array(columns[1], dtype=np.float64),
            "channel": np.array(columns[2], dtype=np.int64),
            "member": np.array(columns[3], dtype=np.float64),
        },
        label=np.array(columns[4], dtype=np.float64),
    )


def people(rows: list[tuple[str, float, int, float, float]]) -> People:
    return People.of(CONTRACT, {"start": cohort(rows)})


ROWS = [
    ("a", 20.0, 0, 1.0, 0.0),
    ("b", 40.0, 1, 0.0, 1.0),
    ("c", 90.0, 1, 1.0, 1.0),
    ("d", np.nan, -1, np.nan, 0.0),
]


def test_counts_by_group_bins_and_label_with_cells_for_the_unknown() -> None:
    by_channel = Cells(axes=(GroupsAxis(column="channel"),), terms=(Term(cap=10),))
    assert measure_all([by_channel], people(ROWS), CONTRACT).tolist() == [10, 20, 10]
    by_age = Cells(axes=(BinsAxis(column="age", cuts=(40.0, 90.0)),), terms=(Term(cap=1),))
    assert measure_all([by_age], people(ROWS), CONTRACT).tolist() == [1, 1, 1, 1]
    both = Cells(axes=(GroupsAxis(column="member"), GroupsAxis(column="left")), terms=(Term(cap=1),))
    table = measure_all([both], people(ROWS), CONTRACT).reshape(shape_of(both, CONTRACT))[0]
    assert table.tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_sums_are_clipped_centred_and_skip_the_unknown() -> None:
    ages = Cells(terms=(Term(cap=100), Term(factors=(AGE,), cap=100), Term(factors=(AGE, MEMBER), cap=100)))
    count, first, product = measure_all([ages], people(ROWS), CONTRACT).tolist()
    assert (count, first, product) == (300, 0, 100 * (-1 * 1 + 0 * -1 + 1 * 1))
    only = Cells(where=(Condition(column="age", ge=40.0),), terms=(Term(factors=(AGE,), cap=100),))
    assert measure_all([only], people(ROWS), CONTRACT).tolist() == [100]
    unknown = Cells(where=(Condition(column="age", missing=True),), terms=(Term(cap=1),))
    assert measure_all([unknown], people(ROWS), CONTRACT).tolist() == [1]


def test_rules_are_tried_in_order() -> None:
    old, web = Condition(column="age", ge=80.0), Condition(column="channel", any_of=("web",))
    rules = RulesAxis(rules=(Rule(name="old", where=(old,)), Rule(name="web", where=(web,))))
    assert measure_all([Cells(axes=(rules,), terms=(Term(cap=1),))], people(ROWS), CONTRACT).tolist() == [1, 1, 2]


def test_centres_take_the_nearest_and_cut_what_leads_there() -> None:
    item = Centres(factors=(AGE,), centres=((-1.0,), (1.0,)), radius=0.5, cap=7, reach=10)
    table = measure_all([item], people(ROWS), CONTRACT).reshape(2, 2)
    # a: at -1; b: at 0, as near to both, goes to the first and is cut to norm 1; c: clipped to 1
    assert table.tolist() == [[14, 10], [7, 0]]


def test_two_times_are_aligned_by_customer() -> None:
    late = cohort([("b", 70.0, 0, 0.0, 0.0), ("e", 30.0, 1, 0.0, 0.0)])
    both = People.of(CONTRACT, {"start": cohort(ROWS), "end": late})
    moved = Cells(
        axes=(BinsAxis(column="age", cuts=(50.0,)), BinsAxis(column="age", at="end", cuts=(50.0,))),
        terms=(Term(cap=1),),
    )
    table = measure_all([moved], both, CONTRACT).reshape(3, 3)
    # a, d are gone at the end, e was not there at the start, b moved up, c is gone
    assert table.tolist() == [[0, 1, 1], [0, 0, 1], [1, 0, 1]]
    start_only = Cells(terms=(Term(cap=1),))
    assert measure_all([start_only], both, CONTRACT).tolist() == [4]


finite = st.one_of(st.floats(-1e9, 1e9), st.just(float("nan")))
one = st.tuples(
    st.just("x"), finite, st.integers(-1, 1), st.sampled_from([0.0, 1.0, float("nan")]), st.sampled_from([0.0, 1.0])
)
cap = st.integers(1, 1_000_000)


@st.composite
def measures(draw):  # type: ignore[no-untyped-def]
    factors = st.lists(st.sampled_from([AGE, MEMBER, Factor(column="left", low=0.0, high=1.0)]), max_size=2)
    terms = draw(st.lists(st.builds(Term, factors=factors.map(tuple), cap=cap), min_size=1, max_size=4))
    axes = draw(
        st.lists(
            st.sampled_from(
                [GroupsAxis(column="channel"), GroupsAxis(column="left"), BinsAxis(column="age", cuts=(0.0, 1e3))]
            ),
            max_size=2,
        )
    )
    place = st.floats(-1, 1)
    centres = Centres(
        factors=(AGE, MEMBER),
        centres=tuple(draw(st.lists(st.tuples(place, place), min_size=1, max_size=3))),
        radius=draw(st.floats(1e-6, 3.0)),
        cap=draw(cap),
        reach=draw(cap),
    )
    return [Cells(axes=tuple(axes), terms=tuple(terms)), centres]


@settings(max_examples=200)
@given(measures(), one)
def test_one_customer_more_changes_the_vector_by_the_sensitivity_at_most(items, row) -> None:  # type: ignore[no-untyped-def]
    before = measure_all(items, people(ROWS), CONTRACT)
    after = measure_all(items, people([*ROWS, row]), CONTRACT)
    assert len(after) == dimension_of(items, CONTRACT)
    moved = (after - before).tolist()
    assert sum(value * value for value in moved) <= sensitivity(items) ** 2  # exact integers


@settings(max_examples=50)
@given(measures(), st.integers(0, 1000))
def test_what_a_customer_adds_depends_on_nobody_else(items, seed) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(seed)
    crowd = [
        (f"c{i}", float(generator.normal(40, 30)), int(generator.integers(-1, 2)), float(generator.integers(0, 2)), 0.0)
        for i in range(50)
    ]
    whole = measure_all(items, people(crowd), CONTRACT)
    alone = sum(measure_all(items, people([row]), CONTRACT) for row in crowd)
    assert np.array_equal(whole, alone)


def test_nobody_gives_zeros() -> None:
    item = Cells(axes=(GroupsAxis(column="channel"),), terms=(Term(cap=1),))
    assert measure_all([item], people([]), CONTRACT).tolist() == [0, 0, 0]
