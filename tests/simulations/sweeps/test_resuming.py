"""Sweeps as processes of their own, stopped in the middle."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simulations.sweeps.document import cells
from simulations.sweeps.store import Store
from tests.simulations.sweeps.samples import SMALL, parse

LIMIT = 60.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]


class Started:
    """The command over made-up cells of a quarter of a second."""

    def __init__(self, folder, *options):
        (folder / "sweep.yaml").write_text(SMALL)
        self.log = folder / "log"
        self.log.touch()
        self.store = Store(folder / "out")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.simulations.sweeps.fake_command"),
                *(str(folder / "sweep.yaml"), "--out", str(folder / "out"), "--workers", "2", *options),
            ],
            env={**os.environ, "FAKE_LOG": str(self.log), "FAKE_SECONDS": "0.25"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, count):
        """Wait until so many cells are kept."""
        self._wait(lambda: len(self.store.present()) >= count)

    def _wait(self, done):
        until = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < until and self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def runs(self):
        return [tuple(line.split()[1:]) for line in self.log.read_text().splitlines()]

    def pids(self):
        return {int(line.split()[0]) for line in self.log.read_text().splitlines()}


def gone(pids):
    until = time.monotonic() + LIMIT
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as state:
            return state.read().rsplit(")", 1)[1].split()[0] != "Z"  # nobody may be there to collect an orphan
    except OSError:
        return False


def test_a_sweep_killed_in_the_middle_goes_on_and_computes_each_cell_once(tmp_path):
    first = Started(tmp_path)
    first.until(4)
    first.process.kill()
    first.process.communicate()
    assert gone(first.pids())
    kept = set(first.store.present())
    before = len(first.runs())
    assert 4 <= len(kept) < 12
    first.store.check()  # none is damaged
    second = Started(tmp_path)
    out, error = second.process.communicate(timeout=LIMIT)
    assert second.process.returncode == 0, error
    names = {
        (str(cell.seed), str(cell.simulation.partners.count), str(cell.simulation.privacy.epsilon)): cell.digest
        for cell in cells(parse(SMALL))
    }
    later = [names[run] for run in second.runs()[before:]]
    assert sorted(later) == sorted(set(names.values()) - kept)
    assert f"{len(kept)} of them here already" in out
    assert (tmp_path / "out" / "results.duckdb").exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_says_how_to_go_on(tmp_path, sign):
    started = Started(tmp_path)
    started.until(3)
    started.process.send_signal(sign)
    _, error = started.process.communicate(timeout=LIMIT)
    assert started.process.returncode == 130
    kept = len(started.store.present())
    assert f"Stopped. {kept} of 12 cells are kept. Go on with:" in error
    assert error.startswith("\nStopping …\n") == (sign is signal.SIGINT)
    folder = tmp_path
    assert f"consilience simulate sweep {folder}/sweep.yaml --out {folder}/out --workers 2" in error
    assert gone(started.pids()) and 3 <= kept < 12
    started.store.check()
