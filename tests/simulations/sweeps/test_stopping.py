import os
import signal
import threading

import pytest

from simulations.sweeps.stopping import announced


@pytest.fixture(autouse=True)
def interrupts_as_python_begins():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background ignores it


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_stopping_is_said_once_and_at_once(capfd):
    with pytest.raises(KeyboardInterrupt), announced():
        try:
            press()
        except KeyboardInterrupt:
            assert capfd.readouterr().err == "\nStopping …\n"
            press()
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_left_in_peace_ends_as_it_began(capfd):
    with announced():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capfd.readouterr().err == ""


def test_where_interrupts_are_ignored_they_stay_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with announced():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_leaves_signals_alone():
    found = []

    def work():
        with announced():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
