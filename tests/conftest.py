"""What all tests share: no deadlines for properties, and no signal handler outlives the test that had it set."""

import signal

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # looked for are wrong results, not slow ones: machines are busy
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def signals_as_before():
    """Some tests call a process's `main`, which says what signals do for the rest of the process's life."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
