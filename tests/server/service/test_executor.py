"""The executor's process: children that get their token and end with it, metrics, and a loop that ends in order."""

import socket
import sys
import threading
import time

import pytest

from server.service import executor
from server.service.executor import loop, serve_metrics, spawn
from server.service.studies import StudyBook
from tests.server.service.test_proxy import free_port
from tests.server.service.test_start import configure


class FakeReconciler:
    def __init__(self, stop: threading.Event, steps: int) -> None:
        self.stop, self.left, self.calls = stop, steps, []

    def recover(self) -> None:
        self.calls.append("recover")

    def step(self) -> float:
        self.calls.append("step")
        self.left -= 1
        if not self.left:
            self.stop.set()
        return 0.0

    def close(self) -> None:
        self.calls.append("close")


def test_it_steps_until_it_is_told_to_stop_and_feeds_the_metrics_now_and_then():
    stop, fed = threading.Event(), []
    reconciler = FakeReconciler(stop, 17)
    loop(reconciler, lambda: fed.append(1), stop)
    assert reconciler.calls == ["recover", *["step"] * 17, "close"] and len(fed) == 2


def test_children_are_ended_also_when_a_step_fails():
    reconciler = FakeReconciler(threading.Event(), 1)

    def fails() -> float:
        raise ZeroDivisionError

    reconciler.step = fails
    with pytest.raises(ZeroDivisionError):
        loop(reconciler, lambda: None, threading.Event())
    assert reconciler.calls[-1] == "close"


def test_metrics_are_served_where_they_are_wanted_and_a_taken_port_stops_nothing(home):
    metrics = executor.StudyMetrics()
    assert serve_metrics(home, metrics) is None
    configure(home, metrics_port=free_port())
    served = serve_metrics(home, metrics)
    assert served is not None
    served.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        configure(home, metrics_port=taken.getsockname()[1])
        assert serve_metrics(home, metrics) is None


def test_the_executor_ends_with_the_reason_when_it_cannot_begin(home, capsys):
    home.pin_file.unlink()
    assert executor.main(["--home", str(home.root)]) == 9
    assert "CSL-S103" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_study_process_is_started_with_its_token_and_says_why_it_could_not_begin(home):
    """A real process: the link is not there, so that the task cannot be opened, and the study waits."""
    configure(home, link_port=free_port())
    book = StudyBook(home.root)
    book.want("spring")
    book.settle("spring", "running", run_id=1)
    process = spawn(home.root, "spring", "token")
    try:
        for _ in range(600):
            record = book.read("spring")
            if record is not None and record.state != "running":
                break
            time.sleep(0.05)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert record is not None and record.state == "waiting" and record.code == "CSL-F331"


@pytest.mark.e2e
def test_a_study_process_does_not_begin_when_its_executor_is_gone(home, monkeypatch):
    monkeypatch.setattr(executor, "leashed", lambda command: (sys.executable, "-c", "pass"))
    process = spawn(home.root, "spring", "x" * 1_000_000)
    assert process.wait(30) == 0
