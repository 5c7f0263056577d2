"""A worker process whose simulations are made up: it notes every one in a file, and is as slow as it is told to be."""

import os
import signal
import sys
import time
from pathlib import Path

from simulations.engines.simulation import Simulation
from simulations.sweeps import worker
from tests.simulations.sweeps.samples import DIES, HANGS, LEAVES, MadeUp, made_up


def run(simulation: Simulation, seed: int, engine: str, cache: Path | None) -> MadeUp:
    print("noise on the standard output")
    _meet(Path(os.environ["FAKE_LOG"]), int(os.environ.get("FAKE_TOGETHER", "1")))
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    if simulation.clip == DIES:
        print("my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if simulation.clip == LEAVES:
        os._exit(3)
    if simulation.clip == HANGS:
        time.sleep(600)
    found = made_up(simulation, seed, engine, cache)
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(f"{os.getpid()} {seed} {simulation.partners.count} {simulation.privacy.epsilon}\n")
    return found


def _meet(log: Path, count: int) -> None:
    """Wait until so many processes are at work."""
    log.with_name(f"at_work_{os.getpid()}").touch()
    until = time.monotonic() + 60
    while len(list(log.parent.glob("at_work_*"))) < count and time.monotonic() < until:
        time.sleep(0.02)


if __name__ == "__main__":
    worker.main(run)
