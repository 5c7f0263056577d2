from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError
from simulations.engines.simulation import (
    By,
    ByColumn,
    ByTime,
    Dealt,
    FeatureSkew,
    LabelSkew,
    Own,
    Partners,
    QuantitySkew,
)
from simulations.partners.customers import Customers
from simulations.partners.partition import Institutions, partition
from simulations.partners.skew import dirichlet, heldout_count, least_size, tenths, together, topped_up
from tests.simulations.partners.some import CONTRACT, customers

MADE: dict[str, Callable[[float], By]] = {
    "dealt": lambda alpha: Dealt(kind="dealt"),
    "labels": lambda alpha: LabelSkew(kind="labels", alpha=alpha),
    "numbers": lambda alpha: FeatureSkew(kind="features", column="age", alpha=alpha),
    "gaps": lambda alpha: FeatureSkew(kind="features", column="spend", alpha=alpha),
    "categories": lambda alpha: FeatureSkew(kind="features", column="job", alpha=alpha),
    "flags": lambda alpha: FeatureSkew(kind="features", column="loan", alpha=alpha),
    "quantity": lambda alpha: QuantitySkew(kind="quantity", alpha=alpha),
    "time": lambda alpha: ByTime(kind="time"),
}
LARGE = customers(6_000)


def sizes(found: Institutions) -> list[int]:
    return [len(rows) for rows in found.rows]


def spread(values: np.ndarray, found: Institutions) -> float:
    """Return the standard deviation over institutions of a mean."""
    return float(np.std([values[rows].mean() for rows in found.rows]))


def refused(some: Customers, partners: Partners) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        partition(some, partners, 1)
    return caught.value


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(MADE)),
    alpha=st.sampled_from([1e-9, 0.05, 0.5, 5.0, 1e6]),
    count=st.integers(1, 25),
    rows=st.integers(500, 900),
    heldout=st.sampled_from([0.05, 0.2, 0.8]),
    heldout_by=st.sampled_from(["random", "time"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_customer_is_at_exactly_one_institution_and_a_seed_repeats(
    kind: str, alpha: float, count: int, rows: int, heldout: float, heldout_by: str, seed: int
) -> None:
    some = customers(rows, seed % 1000)
    partners = Partners.model_validate(
        {"by": MADE[kind](alpha), "count": count, "smallest": 10, "heldout": heldout, "heldout_by": heldout_by}
    )
    if count * least_size(10, heldout) > rows:
        assert refused(some, partners).code in ("CSL-M221", "CSL-M225")
        return
    found = partition(some, partners, seed)
    assert np.array_equal(np.sort(np.concatenate(found.rows)), np.arange(rows))
    assert len(set(found.names)) == len(found) == count
    assert min(sizes(found)) >= least_size(10, heldout)
    assert all((np.diff(some.time[part]) > 0).all() for part in found.rows)
    again = partition(some, partners, seed)
    assert all(np.array_equal(one, other) for one, other in zip(found.rows, again.rows, strict=True))


@pytest.mark.parametrize("kind", sorted(MADE))
def test_a_person_is_one_customer_of_an_institution_with_her_last_row_there(kind: str) -> None:
    person = np.random.default_rng(3).integers(0, 1_500, len(LARGE))
    partners = Partners(by=MADE[kind](5.0), count=4, smallest=10)
    found, free = (partition(some, partners, 2) for some in (replace(LARGE, person=person), LARGE))
    for kept, all_ in zip(found.rows, free.rows, strict=True):
        last = {person[row]: row for row in all_}  # in order of time
        assert sorted(last.values()) == sorted(kept.tolist()) and len(kept) < len(all_)
        assert (np.diff(LARGE.time[kept]) > 0).all()


@pytest.mark.parametrize("alpha", [1e-9, 0.1])
def test_whom_a_skew_leaves_too_small_is_topped_up_with_other_persons(alpha: float) -> None:
    person = np.random.default_rng(4).integers(0, 2_500, len(LARGE))
    partners = Partners(by=LabelSkew(kind="labels", alpha=alpha), count=12, smallest=100)
    found = partition(replace(LARGE, person=person), partners, 2)
    assert min(sizes(found)) >= least_size(100, partners.heldout)
    assert all(len(np.unique(person[rows])) == len(rows) for rows in found.rows)


@pytest.mark.parametrize("kind", sorted(set(MADE) - {"time"}))
def test_another_seed_divides_otherwise(kind: str) -> None:
    partners = Partners(by=MADE[kind](0.5), count=6)
    one, other = (partition(LARGE, partners, seed) for seed in (1, 2))
    assert any(not np.array_equal(a, b) for a, b in zip(one.rows, other.rows, strict=True))


def test_own_institutions_are_the_datas() -> None:
    found = partition(LARGE, Partners(), 1)
    assert found.names == ("north", "south", "west")
    for name, rows in zip(found.names, found.rows, strict=True):
        assert set(LARGE.institution[rows]) == {name}
    assert sum(sizes(found)) == len(LARGE)


def test_own_with_a_count_keeps_the_largest() -> None:
    whole = partition(LARGE, Partners(), 1)
    found = partition(LARGE, Partners(count=2), 1)
    largest = sorted(range(3), key=lambda place: -len(whole.rows[place]))[:2]
    assert found.names == tuple(whole.names[place] for place in sorted(largest))
    for name, rows in zip(found.names, found.rows, strict=True):
        assert np.array_equal(rows, whole.rows[whole.names.index(name)])


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("job", ("baker", "smith", "tailor", "unknown")),
        ("loan", ("no", "yes")),
        ("branch", ("0", "1", "2", "3", "4")),
        ("town", ("Bonn", "Ulm")),
        ("bought", ("0", "1")),
    ],
)
def test_a_column_gives_an_institution_for_each_value(column: str, names: tuple[str, ...]) -> None:
    found = partition(LARGE, Partners(by=ByColumn(kind="column", column=column)), 1)
    assert found.names == names
    assert sum(sizes(found)) == len(LARGE)
    array = {**LARGE.extra, "bought": LARGE.labels, **LARGE.columns}[column]
    assert all(len(set(array[rows])) == 1 for rows in found.rows)


def test_missing_values_do_not_take_the_name_of_a_category() -> None:
    some = customers(600)
    columns = CONTRACT.columns[1].model_copy(update={"categories": ("unknown", "smith", "tailor")})
    contract = CONTRACT.model_copy(update={"columns": (CONTRACT.columns[0], columns, *CONTRACT.columns[2:])})
    named = Customers(contract, some.columns, some.labels, some.institution, some.time, some.extra)
    found = partition(named, Partners(by=ByColumn(kind="column", column="job")), 1)
    assert found.names == ("unknown", "smith", "tailor", "missing")


def test_values_are_put_together_until_so_many_are_left() -> None:
    by = ByColumn(kind="column", column="branch")
    found = partition(LARGE, Partners(by=by, count=2), 1)
    assert len(found) == 2 and sum(sizes(found)) == len(LARGE)
    assert sorted(len(set(LARGE.extra["branch"][rows])) for rows in found.rows) == [2, 3]
    assert all(" and " in name for name in found.names)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.data())
def test_groups_that_are_put_together_keep_every_value_once(given_sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(given_sizes)))
    groups = together(given_sizes, count)
    assert len(groups) == count
    assert sorted(place for group in groups for place in group) == list(range(len(given_sizes)))
    assert all(given_sizes[group[0]] == max(given_sizes[place] for place in group) for group in groups)
    totals = sorted(given_sizes)
    while len(totals) > count:
        totals = sorted([totals[0] + totals[1], *totals[2:]])
    assert sorted(sum(given_sizes[place] for place in group) for group in groups) == totals


def test_dealt_institutions_differ_by_one_customer_at_most() -> None:
    found = partition(LARGE, Partners(by=Dealt(kind="dealt"), count=7), 1)
    assert max(sizes(found)) - min(sizes(found)) <= 1
    # by chance alone: the standard deviation of a base rate is about sqrt(.3 * .7 / 857) = .016
    assert spread(LARGE.labels, found) < 0.04
    assert found.names[0] == "partner_1"


def test_institutions_by_time_hold_consecutive_stretches() -> None:
    found = partition(LARGE, Partners(by=ByTime(kind="time"), count=7), 1)
    assert np.array_equal(np.concatenate([LARGE.time[rows] for rows in found.rows]), np.arange(len(LARGE)))
    assert max(sizes(found)) - min(sizes(found)) <= 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("labels", LARGE.labels),
        ("numbers", LARGE.columns["age"] / 100.0),
        ("categories", (LARGE.columns["job"] == 1).astype(float)),
        ("gaps", np.isnan(LARGE.columns["spend"]).astype(float)),
        ("flags", LARGE.columns["loan"]),
    ],
)
def test_a_smaller_alpha_spreads_what_it_skews(kind: str, values: np.ndarray) -> None:
    spreads = []
    for alpha in (0.1, 1.0, 100.0):
        partners = Partners(by=MADE[kind](alpha), count=10)
        spreads.append(float(np.mean([spread(values, partition(LARGE, partners, seed)) for seed in range(5)])))
    assert spreads[0] > 1.3 * spreads[1] > 3.0 * spreads[2]


def test_a_smaller_alpha_makes_sizes_more_unequal_and_nothing_else() -> None:
    found = {
        alpha: partition(LARGE, Partners(by=QuantitySkew(kind="quantity", alpha=alpha), count=10), 1)
        for alpha in (0.1, 1.0, 1000.0)
    }
    deviations = [float(np.std(sizes(found[alpha]))) for alpha in (0.1, 1.0, 1000.0)]
    assert deviations[0] > deviations[1] > 5 * deviations[2]
    large = [rows for rows in found[1.0].rows if len(rows) > 400]
    assert all(abs(LARGE.labels[rows].mean() - LARGE.labels.mean()) < 0.08 for rows in large)


def test_twenty_institutions_are_usable_at_alpha_a_tenth() -> None:
    for seed in range(10):
        found = partition(LARGE, Partners(by=LabelSkew(kind="labels", alpha=0.1), count=20), seed)
        assert min(size - heldout_count(size, 0.2) for size in sizes(found)) >= 30


@given(
    owner=st.lists(st.integers(0, 7), min_size=8, max_size=300),
    least=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
def test_topping_up_moves_no_more_than_it_must(owner: list[int], least: int, seed: int) -> None:
    before = np.array(owner, dtype=np.int64)
    after = topped_up(before, 8, least, np.random.default_rng(seed))
    old, new = np.bincount(before, minlength=8), np.bincount(after, minlength=8)
    if len(owner) < 8 * least:
        assert np.array_equal(before, after)
        return
    assert new.min() >= least
    assert np.array_equal(new[old < least], np.full(np.count_nonzero(old < least), least))
    assert (new[old >= least] <= old[old >= least]).all()
    assert np.count_nonzero(before != after) == int(np.maximum(least - old, 0).sum())


@given(
    strata=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    alpha=st.floats(1e-12, 1e6),
    count=st.integers(1, 30),
    seed=st.integers(0, 2**32),
)
def test_dirichlet_shares_give_every_row_an_owner(strata: list[int], alpha: float, count: int, seed: int) -> None:
    owner = dirichlet(np.array(strata, dtype=np.int64), alpha, count, np.random.default_rng(seed))
    assert len(owner) == len(strata) and owner.min() >= 0 and owner.max() < count


def test_equal_dirichlet_shares_deal_each_stratum_evenly() -> None:
    strata = np.repeat([0, 1], [4_000, 1_000])
    owner = dirichlet(strata, 1e6, 10, np.random.default_rng(1))
    for stratum, expected in ((0, 400), (1, 100)):
        assert np.abs(np.bincount(owner[strata == stratum]) - expected).max() <= 5


@given(smallest=st.integers(10, 5_000), share=st.floats(0.05, 0.8))
def test_the_least_size_is_the_least(smallest: int, share: float) -> None:
    size = least_size(smallest, share)
    assert size - heldout_count(size, share) >= smallest
    assert (size - 1) - heldout_count(size - 1, share) < smallest
    assert 1 <= heldout_count(size, share) < size


def test_tenths_hold_a_tenth_each_and_the_missing_are_apart() -> None:
    values = np.append(np.random.default_rng(1).permutation(1000).astype(float), [np.nan] * 5)
    assert np.bincount(tenths(values)).tolist() == [100] * 10 + [5]
    assert len(set(tenths(np.full(50, 3.0)))) == 1
    assert set(tenths(np.full(3, np.nan))) == {10}


@pytest.mark.parametrize(
    ("partners", "code", "says", "advises"),
    [
        (Partners(by=Dealt(kind="dealt"), count=700), "CSL-M226", "700 institutions", "partners.count"),
        (Partners(by=Dealt(kind="dealt")), "CSL-M227", "dealt", "partners.count"),
        (Partners(by=Own(), count=4), "CSL-M227", "the data name 3", "partners.by"),
        (Partners(by=ByColumn(kind="column", column="job"), count=5), "CSL-M227", "job gives 4", "partners.count"),
        (Partners(by=ByColumn(kind="column", column="jobb")), "CSL-M224", "nearest: job", "age, bought, branch"),
        (Partners(by=FeatureSkew(kind="features", column="zzz"), count=2), "CSL-M224", "zzz.", "age, bought, branch"),
        (
            Partners(by=Dealt(kind="dealt"), count=20),
            "CSL-M221",
            "20 of 20 institutions",
            "partners.count or partners.smallest",
        ),
        (Partners(by=Own(), smallest=300), "CSL-M221", "of 3 institutions", "the largest so many"),
        (Partners(by=ByColumn(kind="column", column="age")), "CSL-M221", "600 of 600", "put together"),
        (
            Partners(by=QuantitySkew(kind="quantity", alpha=1e-6), count=20),
            "CSL-M225",
            "no customer at all",
            "partners.count",
        ),
    ],
)
def test_what_cannot_be_had_is_said(partners: Partners, code: str, says: str, advises: str) -> None:
    error = refused(customers(600), partners)
    assert error.code == code
    assert says in error.cause and advises in error.action


def test_nobody_at_all_is_no_partition() -> None:
    nobody = Customers(CONTRACT, {}, np.empty(0), np.empty(0, object), np.empty(0, np.int64), {})
    assert refused(nobody, Partners()).code == "CSL-M225"
