"""What all tests share: how properties are tried, passphrases stretched once, and no signal handler that outlives its test.

Properties are tried on the same examples each time, so that a change is judged by itself; `make explore` tries others. Nothing has a
deadline: looked for are wrong results, not slow ones.
"""

import functools
import signal

import pytest
from hypothesis import settings

from privacy import keys

settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="session")
def passphrases_stretched_once():
    """A passphrase and a key file's salt always give the same key, after a sixth of a second: once is enough for a session."""
    keys._derive = functools.cache(keys._derive)


@pytest.fixture(autouse=True)
def signals_as_before():
    """Some tests call a process's `main`, which says what signals do for the rest of the process's life."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
