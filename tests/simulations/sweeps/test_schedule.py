import pytest

from simulations.sweeps.document import cells
from simulations.sweeps.schedule import Pace, Schedule, kinds
from tests.simulations.sweeps.samples import SMALL, parse

CELLS = cells(parse(SMALL))


def test_a_worker_stays_with_what_it_has_seated():
    schedule = Schedule(CELLS)
    assert schedule.waiting() == {"fedsgd": 12}
    taken = [(worker, schedule.next(worker)) for _ in range(6) for worker in (0, 1)]
    assert schedule.next(0) is None and len(schedule) == sum(schedule.waiting().values()) == 0
    for worker in (0, 1):
        groups = [cell.group for number, cell in taken if number == worker]
        assert [groups[0]] * 3 + [groups[3]] * 3 == groups and groups[0] != groups[3]
    assert {cell.digest for _, cell in taken} == {cell.digest for cell in CELLS}


def test_who_has_nothing_left_helps_where_most_is():
    one_group = [cell for cell in CELLS if cell.group == CELLS[0].group]
    schedule = Schedule(one_group)
    assert {schedule.next(worker).digest for worker in range(3)} == {cell.digest for cell in one_group}


def test_time_left_goes_by_the_algorithm():
    both = cells(parse("{name: a, study: {name: b}, seeds: 2}"))  # fedsgd, alone, pooled
    pace = Pace()
    assert pace.left(kinds(both), 2) is None
    for seconds in (10.0, 12.0, 11.0):
        pace.note("fedsgd", seconds)
    assert pace.left(kinds(both), 1) == pytest.approx(6 * 11.0)
    for kind in ("alone", "pooled"):
        pace.note(kind, 1.0)
    assert pace.left(kinds(both), 2) == pytest.approx((2 * 11.0 + 4 * 1.0) / 2)
    assert pace.left(kinds(both[:1]), 8, started=True) == pytest.approx(11.0)
    assert pace.left({}, 8) == 0.0


def test_no_time_is_told_while_workers_start():
    waiting, pace, told = kinds(CELLS), Pace(), []
    for seconds in (30.0, 31.0, 1.0, 1.0, 1.0, 1.0):  # two workers: the first cell of each holds its start-up
        pace.note("fedsgd", seconds)
        told.append(pace.left(waiting, 2))
    assert told == [None, None, None, None, pytest.approx(12 * 1.0 / 2), pytest.approx(12 * 1.0 / 2)]
    timed = Pace()
    timed.note("fedsgd", 4.0)
    assert timed.left(waiting, 2) is None and timed.left(waiting, 2, started=True) == pytest.approx(24.0)
