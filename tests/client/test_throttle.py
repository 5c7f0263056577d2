"""The bucket: nobody is turned away, and in the long run nobody gets more than the rate."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.throttle import BURST, PER_SECOND, Throttle


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def throttle(self, **changes: float) -> Throttle:
        return Throttle(**changes, clock=lambda: self.now, sleep=self.sleep)


def test_a_burst_passes_at_once_and_then_twenty_a_second():
    time = Time()
    throttle = time.throttle()
    assert sum(throttle.wait() for _ in range(BURST)) == 0.0 and not time.slept
    assert [throttle.wait() for _ in range(100)] == pytest.approx([1 / PER_SECOND] * 100)
    assert time.now == pytest.approx(1000.0 + 100 / PER_SECOND)


def test_a_pause_fills_the_bucket_and_never_beyond_its_rim():
    time = Time()
    throttle = time.throttle()
    for _ in range(BURST):
        throttle.wait()
    time.now += 5.0  # a hundred tokens
    assert [throttle.wait() > 0 for _ in range(101)] == [False] * 100 + [True]
    time.now += 1e9
    assert [throttle.wait() > 0 for _ in range(BURST + 1)] == [False] * BURST + [True]


def test_a_clock_that_goes_back_gives_and_takes_nothing():
    time = Time()
    throttle = time.throttle(burst=1)
    throttle.wait()
    time.now -= 500.0
    assert throttle.wait() == pytest.approx(1 / PER_SECOND)


@given(
    gaps=st.lists(st.floats(0, 3), max_size=80),
    burst=st.integers(1, 20),
    rate=st.floats(0.5, 50),
)
def test_no_stretch_of_time_sees_more_than_burst_and_rate_allow(gaps, burst, rate):
    time = Time()
    throttle = time.throttle(burst=burst, per_second=rate)
    passed = []
    for gap in gaps:
        time.now += gap
        throttle.wait()
        passed.append(time.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - passed[first]) + 1e-6


def test_threads_that_come_together_are_given_different_turns():
    slept, together = [], threading.Barrier(8)
    throttle = Throttle(burst=2, per_second=10.0, clock=lambda: 0.0, sleep=slept.append)

    def ask() -> None:
        together.wait()
        throttle.wait()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
