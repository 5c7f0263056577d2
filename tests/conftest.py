"""What all tests share: how properties are tried, and that no signal handler outlives the test that had it set.

Properties are tried on the same examples each time, so that a change is judged by itself; `make explore` tries others. Nothing has a
deadline: looked for are wrong results, not slow ones.
"""

import signal

import pytest
from hypothesis import settings

settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def signals_as_before():
    """Some tests call a process's `main`, which says what signals do for the rest of the process's life."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
