import errno
import os
import socket
import subprocess
import sys

import pytest

from federation.doctor_ports import check_port, listeners
from federation.service_state import ChildState, ServiceState


def service(*pids: int) -> ServiceState:
    rows = [
        ChildState(name=f"c{pid}", pid=pid, state="up", restarts=0, last_exit=None, reason=None, since=1)
        for pid in pids
    ]
    return ServiceState(pid=1, started=1, children=tuple(rows))


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def raising(number: int):
    def trial(host: str, port: int) -> None:
        raise OSError(number, os.strerror(number))

    return trial


def test_a_free_port_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert check_port("127.0.0.1", port, None).level == "ok"


def test_another_s_port_is_taken_by_a_process_that_is_named(listening):
    finding = check_port("127.0.0.1", listening, None)
    assert finding.level == "fail" and f"(process {os.getpid()})" in finding.what
    assert check_port("127.0.0.1", listening, service(1)).level == "fail"


def test_who_listens_is_found(listening):
    assert listeners(listening) == {os.getpid()}
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert listeners(server.getsockname()[1]) == {os.getpid()}


def test_a_system_that_does_not_say_who_listens(tmp_path):
    assert listeners(80, tmp_path) == set()
    taken = {"trial": raising(errno.EADDRINUSE), "holders": lambda port: set()}
    assert check_port("127.0.0.1", 80, service(5), **taken).level == "ok"
    assert check_port("127.0.0.1", 80, None, **taken).level == "fail"


def test_our_own_service_s_port_is_well():
    code = (
        "import socket, subprocess, sys, time; s = socket.create_server(('127.0.0.1', 0)); s.set_inheritable(True);"
        "print(s.getsockname()[1], flush=True); time.sleep(30)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        port = int(process.stdout.readline())
        assert check_port("127.0.0.1", port, service(process.pid)).what == "Held by our own service."
        assert check_port("127.0.0.1", port, service(process.pid + 1)).level == "fail"
        assert check_port("127.0.0.1", port, None).level == "fail"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("number", "port", "words"),
    [
        (errno.EACCES, 443, "below 1024"),
        (errno.EADDRNOTAVAIL, 9092, "no address of this machine"),
        (errno.EMFILE, 9092, "Too many open files"),
    ],
)
def test_other_refusals_are_told(number, port, words):
    finding = check_port("192.0.2.1", port, None, trial=raising(number))
    assert finding.level == "fail" and words in finding.what and finding.action


def test_an_address_of_another_machine_is_refused():
    assert "no address of this machine" in check_port("192.0.2.1", 9092, None).what
