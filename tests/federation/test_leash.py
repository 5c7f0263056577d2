"""Processes that end with who started them: real ones, small."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation import leash
from federation.keeper import Keeper
from federation.leash import CANNOT_START, keep, keeper_command, leashed

SLEEP = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)")


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_alive(pid)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEP, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_the_command_takes_the_place_of_the_leash():
    code = "import os, sys; print(os.getpid(), *sys.argv[1:])"
    process = subprocess.Popen(leashed((sys.executable, "-c", code, "--", "a b")), stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].split() == [str(process.pid), "--", "a", "b"] and process.returncode == 0


def test_a_program_that_is_not_there_is_named():
    result = subprocess.run(leashed(("no-such-program",)), capture_output=True, text=True, check=False)
    assert result.returncode == CANNOT_START
    assert result.stderr == "no-such-program cannot be started: No such file or directory.\n"


@pytest.mark.skipif(sys.platform != "linux", reason="by the kernel of Linux")
def test_the_command_dies_when_its_starter_is_killed():
    code = (
        "import subprocess, sys, time; from federation.leash import leashed;"
        f"p = subprocess.Popen(leashed({SLEEP!r})); print(p.pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(starter.stdout.readline())
    time.sleep(0.2)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="by the kernel of Linux")
def test_a_starter_that_is_gone_already_is_noticed():
    command = list(leashed((sys.executable, "-c", "print('ran')")))
    command[command.index(str(os.getpid()))] = "1" if os.getpid() != 1 else "2"
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (CANNOT_START, "")


def test_no_code_of_the_folder_or_of_variables_comes_in(tmp_path):
    for name in ("ctypes.py", "federation.py", "sitecustomize.py", "re.py"):
        (tmp_path / name).write_text("raise SystemExit(99)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "re.py")}
    command = leashed((sys.executable, "-I", "-c", "print('ran')"))
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "ran\n")


@given(
    orders=st.lists(
        st.tuples(st.sampled_from("+-"), st.integers(1, 9)).map(lambda order: f"{order[0]}{order[1]}\n".encode())
        | st.sampled_from([b"", b"\n", b"+\n", b"+0\n", b"+-1\n", b"-1 2\n", b"+99999999999\n", b"\xff\n"]),
        max_size=20,
    ),
    cut=st.sampled_from([b"", b"+1", b"+"]),
)
def test_the_groups_named_and_not_taken_back_are_killed(orders, cut):
    expected: set[int] = set()
    for order in orders:
        if len(order) == 3 and order[1:2] in b"123456789" and order[1:2] != b"\n":
            number = int(order[1:2])
            expected = expected | {number} if order[:1] == b"+" else expected - {number}
    killed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leash, "kill_group", killed.append)
        keep(io.BytesIO(b"".join(orders) + cut))
    assert set(killed) == expected and len(killed) == len(expected)


def test_the_keeper_kills_when_the_pipe_closes_and_hears_no_signal(sleeper):
    keeper = subprocess.Popen(keeper_command(), stdin=subprocess.PIPE)
    keeper.stdin.write(f"+{sleeper.pid}\n".encode())
    keeper.stdin.flush()
    time.sleep(0.2)
    keeper.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    assert keeper.poll() is None and is_alive(sleeper.pid)
    keeper.stdin.close()
    assert keeper.wait(5) == 0 and sleeper.wait(5) == -signal.SIGKILL


def test_a_killed_keeper_is_replaced_and_told_again(sleeper):
    with Keeper() as keeper:
        keeper.hold(sleeper.pid)
        first = keeper.pid
        os.kill(first, signal.SIGKILL)
        while keeper.pid == first:
            keeper.check()
            time.sleep(0.01)
        assert is_alive(keeper.pid)
    assert sleeper.wait(5) == -signal.SIGKILL


def test_a_released_group_is_left_alone(sleeper):
    with Keeper() as keeper:
        keeper.hold(sleeper.pid)
        keeper.release(sleeper.pid)
    time.sleep(0.1)
    assert sleeper.poll() is None


def test_telling_a_killed_keeper_raises_nothing(sleeper):
    with Keeper() as keeper:
        os.kill(keeper.pid, signal.SIGKILL)
        time.sleep(0.1)
        keeper.hold(sleeper.pid)
        keeper.release(sleeper.pid)
