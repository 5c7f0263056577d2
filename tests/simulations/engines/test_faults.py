"""Who answers and who lies is drawn as the simulation says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulations.engines.faults import attendance
from simulations.engines.simulation import Faults, Poisoners


def test_without_faults_everybody_answers_in_the_median_time():
    there = attendance(Faults(), 7, 5, 1)
    assert there.present.all() and not there.poisoner.any()
    assert (there.duration == 1.0).all()


def test_dropouts_miss_rounds_at_their_rate():
    there = attendance(Faults(dropout=0.3), 200, 100, 1)
    assert abs(there.present.mean() - 0.7) < 0.02
    assert (there.duration == 3.0).all()  # somebody is always waited for


def test_who_is_lost_stays_away_from_half_way_on():
    there = attendance(Faults(lost=0.4), 500, 11, 2)
    assert there.present[:5].all()
    gone = ~there.present[5]
    assert 0.3 < gone.mean() < 0.5
    assert (~there.present[5:] == gone).all()


def test_stragglers_are_late_more_often_the_wider_their_spread_and_the_same_ones_again():
    narrow, wide = (attendance(Faults(stragglers=spread, deadline=2.0), 300, 60, 3) for spread in (0.5, 1.5))
    late = 1.0 - wide.present.mean()
    assert abs(late - 0.322) < 0.04  # P(1.5 z > ln 2)
    assert 1.0 - narrow.present.mean() < late
    by_institution = (~wide.present).mean(axis=0)
    assert by_institution.std() > 0.2  # a binomial's would be .06
    assert (wide.duration <= 2.0).all()


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 1000))
def test_as_many_lie_as_are_asked_for_and_a_seed_repeats(institutions, count, seed):
    faults = Faults(dropout=0.2, stragglers=0.5, poisoners=Poisoners(count=count))
    first, again = (attendance(faults, institutions, 6, seed) for _ in range(2))
    assert first.poisoner.sum() == min(count, institutions)
    assert (first.present == again.present).all() and (first.duration == again.duration).all()
    assert np.isfinite(first.duration).all()


def test_who_is_late_has_computed_and_who_drops_out_or_is_lost_has_not():
    late = attendance(Faults(stragglers=1.5, deadline=1.0), 50, 40, 4)
    assert late.computed.all() and 0.3 < late.present.mean() < 0.7
    away = attendance(Faults(dropout=0.3, lost=0.4), 50, 40, 4)
    assert (away.computed == away.present).all() and not away.computed.all()


def test_studies_of_unlike_length_meet_the_same_institutions():
    faults = Faults(dropout=0.2, lost=0.3, stragglers=1.0, poisoners=Poisoners(count=3))
    short, long = (attendance(faults, 20, rounds, 5) for rounds in (12, 60))
    assert (short.poisoner == long.poisoner).all()
    assert (short.present[:6] == long.present[:6]).all() and (short.duration[:6] == long.duration[:6]).all()
    leaves = [attendance(Faults(lost=0.3), 20, rounds, 5).present[-1] for rounds in (12, 60)]
    assert (leaves[0] == leaves[1]).all() and not leaves[0].all()
