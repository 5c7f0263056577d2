"""A whole federation for 200 rounds: does the memory of link, vault and study process stay flat?

Usage: `python benchmarks/endurance.py [--rounds 200] [--members 3] [--cache FOLDER]`. Founds a federation of banks on public data by the
commands that people type (as `make federation`), runs one study of so many rounds through link, SuperNodes and vaults with real
training, and reads the resident memory of each process at marks of the journal. Exits with 1 when link or a vault holds more than 16 MiB
more at the end than at round 20, or a round was not answered by everybody. The first rounds fill caches: they do not count.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from loopback import resident_mib

from server.events import RoundDone
from server.journal import read_journal
from simulations.demo import CONFIGS
from simulations.deployment import Deployment
from simulations.fetch import default_cache
from simulations.rehearsal import STUDY, banks

LIMIT_MIB = 16.0
FIRST_MARK = 20
MARKS = 5
PAUSE_SECONDS = 0.2


def children(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Return what the supervisors say of each part of each party."""
    found = {}
    for party in (deployment.coordinator, *deployment.members.values()):
        state = json.loads((party.home / "run" / "service.json").read_text())
        found |= {f"{party.name} {child['name']}": child for child in state["children"]}
    return found


def memory(deployment: Deployment) -> dict[str, float]:
    """Return the resident memory of each process that is up; one that was started again is named."""
    found = {}
    for name, child in children(deployment).items():
        if child["restarts"]:
            print(f"{name} was started again {child['restarts']} times: {child['reason']}")
        if child["state"] == "up":
            with contextlib.suppress(FileNotFoundError):  # it ended a moment ago
                found[name] = resident_mib(int(child["pid"]))
    return found


def watch(deployment: Deployment, rounds: int, over: threading.Event) -> dict[int, dict[str, float]]:
    """Read the memory of every process at each mark, until the study is over."""
    step = max(1, (rounds - FIRST_MARK) // (MARKS - 1))
    marks = [*range(FIRST_MARK, rounds, step)][: MARKS - 1] + [rounds]
    journal = deployment.coordinator.home / "run" / "studies" / f"{STUDY}.events.jsonl"
    read: dict[int, dict[str, float]] = {}
    while marks and not over.is_set():
        done = len(finished(journal))
        if done >= marks[0]:
            read[marks.pop(0)] = memory(deployment)
        time.sleep(PAUSE_SECONDS)
    return read


def finished(journal: Path) -> list[RoundDone]:
    """Return the rounds that the journal tells of."""
    return (
        [line.event for line in read_journal(journal) if isinstance(line.event, RoundDone)] if journal.exists() else []
    )


def run(rounds: int, members: int, cache: Path) -> int:
    """Found, run, print, and return the exit code."""
    foundings = banks(cache, CONFIGS, members, rounds, print)
    with tempfile.TemporaryDirectory() as name, Deployment(Path(name), foundings, lambda line: None) as deployment:
        deployment.found()
        deployment.start()
        over = threading.Event()
        read: dict[int, dict[str, float]] = {}
        watcher = threading.Thread(target=lambda: read.update(watch(deployment, rounds, over)))
        watcher.start()
        try:
            deployment.study(foundings[0].draft, seconds=36_000.0)
        finally:
            over.set()
            watcher.join()
        journal = deployment.coordinator.home / "run" / "studies" / f"{STUDY}.events.jsonl"
        return report(read, finished(journal), members)


def report(read: dict[int, dict[str, float]], rounds: list[RoundDone], members: int) -> int:
    """Print seconds a round and memory by process; return 1 when something grew or was lost."""
    lost = sum(members - len(item.answered) for item in rounds)
    seconds = [item.seconds for item in rounds]
    print(
        f"{len(rounds)} rounds, {lost} answers lost; seconds a round: median {statistics.median(seconds):.2f}, most {max(seconds):.2f}"
    )
    marks = sorted(read)
    print("MiB after round      " + "".join(f"{mark:>9}" for mark in marks))
    grown = []
    for name in sorted(set.intersection(*(set(item) for item in read.values()))):
        row = [read[mark][name] for mark in marks]
        grown.append(row[-1] - row[0] if name.endswith(("link", "vault")) else 0.0)
        print(f"{name:<21}" + "".join(f"{value:9.1f}" for value in row))
    print(f"most growth of link or vault: {max(grown):.1f} MiB (target: at most {LIMIT_MIB:g})")
    return int(lost > 0 or max(grown) > LIMIT_MIB)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=None)
    options = parser.parse_args()
    return run(options.rounds, options.members, options.cache or default_cache())


if __name__ == "__main__":
    sys.exit(main())
