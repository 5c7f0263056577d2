import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError
from federation.study import LogisticModel
from simulations.engines.draws import PARTITION, stream
from simulations.engines.simulation import Dealt, Partners, PopulationData
from simulations.partners.customers import Customers
from simulations.partners.holding import held_out, shared_people
from simulations.partners.partition import Institutions, partition
from simulations.partners.seating import seat
from simulations.partners.skew import heldout_count
from simulations.partners.source import load


def population(overlap: float, customers: int = 1500, seed: int = 1) -> Customers:
    return load(PopulationData(kind="population", customers=customers, institutions=5, overlap=overlap, seed=seed))


def sides(found: Institutions, person: np.ndarray, held: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return who trains somewhere, and who is held out somewhere."""
    pairs = list(zip(found.rows, held, strict=True))
    training = np.concatenate([person[rows[~flags]] for rows, flags in pairs])
    return np.unique(training), np.unique(np.concatenate([person[rows[flags]] for rows, flags in pairs]))


@settings(max_examples=25)
@given(
    overlap=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    heldout=st.floats(0.05, 0.8),
    seed=st.integers(0, 2**32 - 1),
    dealt=st.booleans(),
)
def test_nobody_trains_at_one_and_is_held_out_at_another(
    overlap: float, heldout: float, seed: int, dealt: bool
) -> None:
    customers = population(overlap)
    person = customers.person
    assert person is not None
    by = {"by": Dealt(kind="dealt"), "count": 7} if dealt else {}
    partners = Partners.model_validate({**by, "smallest": 10, "heldout": heldout})
    found = partition(customers, partners, 1)
    held = held_out(found, person, partners, seed)
    training, judged = sides(found, person, held)
    assert not np.intersect1d(training, judged).size
    for rows, flags in zip(found.rows, held, strict=True):
        count = heldout_count(len(rows), heldout)
        assert 1 <= flags.sum() <= count
        if overlap < 1.0:
            assert flags.sum() == count  # lone customers fill the share


def test_those_at_several_are_held_out_as_often_as_others() -> None:
    customers = population(0.3, 6000)
    person, partners = customers.person, Partners()
    assert person is not None
    found = partition(customers, partners, 1)
    names, number = np.unique(person, return_counts=True)
    several = names[number > 1]
    shares = [
        np.isin(several, sides(found, person, held_out(found, person, partners, seed))[1]).mean() for seed in range(8)
    ]
    # a share of 0.2, give or take 5 standard errors of independent draws
    assert abs(np.mean(shares) - 0.2) < 5 * np.sqrt(0.16 / (8 * len(several)))
    assert len(set(shares)) > 1


def test_by_time_a_person_may_be_on_both_sides() -> None:
    customers = population(0.6)
    person, partners = customers.person, Partners(heldout_by="time")
    assert person is not None
    found = partition(customers, partners, 1)
    held = held_out(found, person, partners, 1)
    assert np.intersect1d(*sides(found, person, held)).size
    for flags in held:
        assert (np.diff(flags.astype(int)) >= 0).all()


def test_without_persons_each_institution_draws_by_itself() -> None:
    found = Institutions(("a", "b"), (np.arange(50), np.arange(50, 80)))
    partners = Partners(heldout=0.2)
    held = held_out(found, None, partners, 5)
    for place, (flags, count) in enumerate(zip(held, (10, 6), strict=True)):
        expected = stream(5, PARTITION, 1, place).permutation(len(flags))[:count]
        assert sorted(np.flatnonzero(flags)) == sorted(expected)
    alone = held_out(found, np.arange(80), partners, 5)  # all differ: the same as not knowing
    assert all(np.array_equal(one, other) for one, other in zip(held, alone, strict=True))


def test_the_same_people_everywhere_are_held_out_everywhere() -> None:
    person = np.tile(np.arange(100), 3)
    found = Institutions(("a", "b", "c"), (np.arange(100), np.arange(100, 200), np.arange(200, 300)))
    held = held_out(found, person, Partners(), 1)
    assert all(np.array_equal(flags, held[0]) for flags in held) and held[0].sum() == 20
    assert shared_people(found.rows, person) == 1.0


def test_an_institution_where_nobody_can_be_held_out_is_named() -> None:
    person = np.array([1, 2, 3, 1, 2, 4, 3, 4, 3, 4])
    rows = (np.array([0, 1]), np.array([3, 4, 2]), np.array([5, 6, 7]))
    found = Institutions(("a", "b", "c"), rows)
    # each has room for one row: whoever is held out at b is at a or at c as well, never at both, and 4 has two rows at c
    with pytest.raises(DocumentError, match=r"CSL-M229  Nobody can be held out at [ac]"):
        held_out(found, person, Partners(heldout=0.05), 1)


@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_the_share_at_several_is_told(overlap: float) -> None:
    customers = population(overlap)
    assert customers.person is not None
    seated = seat(customers, Partners(), LogisticModel(kind="logistic"), 1)
    expected = overlap / (2.0 - overlap)  # of the people, where so much of the rows is theirs twice
    assert seated.shared_people == pytest.approx(expected, abs=0.001)
    assert seated.shared_people == (np.bincount(np.unique(customers.person, return_inverse=True)[1]) > 1).mean()
