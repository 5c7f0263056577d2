import subprocess
import sys
import time

from federation.flower.supernode import IDLE_SECONDS, REPLY_SECONDS, Pauses


class Time:
    def __init__(self):
        self.at = 0.0
        self.slept = []

    def now(self):
        return self.at

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.at += seconds


def pauses(poll=0.1):
    clock = Time()
    return clock, Pauses(poll, clock.now, clock.sleep)


def test_right_after_a_message_it_asks_often_and_an_idle_node_as_seldom_as_a_stock_one():
    clock, short = pauses()
    while clock.at < 120:
        short.sleep(IDLE_SECONDS)
    assert clock.slept[0] == 0.1 and clock.slept[-1] == IDLE_SECONDS
    assert clock.slept == sorted(clock.slept)


def test_a_message_makes_it_ask_often_again():
    clock, short = pauses()
    clock.at = 1000.0
    short.sleep(IDLE_SECONDS)
    short.sleep(REPLY_SECONDS)
    short.sleep(IDLE_SECONDS)
    assert clock.slept[0] == IDLE_SECONDS and clock.slept[2] == 0.1


def test_a_reply_is_looked_for_soon_and_never_more_often_than_a_hundred_times_a_second():
    clock, short = pauses()
    for _ in range(400):
        short.sleep(REPLY_SECONDS)
    assert clock.slept[0] == 0.01 and max(clock.slept) <= 0.25


def test_the_pause_costs_a_tenth_of_what_was_waited():
    clock, short = pauses()
    for _ in range(30):
        before = clock.at
        short.sleep(IDLE_SECONDS)
        assert clock.slept[-1] <= max(0.1, 0.1 * before) + 1e-12


def test_other_pauses_and_the_rest_of_the_module_are_as_they_were():
    clock, short = pauses()
    short.sleep(7.0)
    assert clock.slept == [7.0] and short.monotonic is time.monotonic


def test_the_first_option_is_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "federation.flower.supernode", "--superlink", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "--poll-seconds" in done.stderr
