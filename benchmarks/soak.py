"""kill -9, a thousand times: whatever a vault's ledger is doing, nothing that left is under-counted and the chain stays whole.

Usage: `python benchmarks/soak.py [--runs 1000] [--folder FOLDER] [--seed 0]`. One run lets a child process live through a ledger's whole
life (create, policies, approvals, studies, a plan, a key rotation, a backup, a restoration) and kills it by SIGKILL: in the first runs
before the n-th durable step, for every n that a life has (each statement by which SQLite writes, and each fsync, rename, link and unlink
of files); in all others at a random instant. After each kill the parent checks:

- the ledger verifies from its first entry to its last, and a backup or a restored home is whole or not there;
- every step whose call had returned is in the ledger, and every reply that left has its entry;
- what was released costs no more than what is charged;
- a second child goes on with the very call that was interrupted, and finishes the life.
"""

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from soak_life import EXPECTED, Life

from client.backup import read_backup
from client.rotation import next_key_file
from federation.errors import ConsilienceError
from privacy.cost import Cost, total
from privacy.keys import read_public
from privacy.ledger import LedgerReader, verify
from privacy.ledger import store as store_module
from privacy.ledger.entries import Body, PolicyEntry, Release, Reserve

# each call is an event of its own: a call that was cut short may stand twice
REPEATED = ("access", "refuse", "withdraw", "witness")
WRITING = ("BEGIN IMMEDIATE", "COMMIT", "CREATE", "INSERT")
UNWRITTEN = ("create", "install", "prepare")  # steps without an entry of their own
FILE_STEPS = ("fsync", "replace", "rename", "link", "unlink")


def check(life: Life) -> None:
    """Check what a kill left behind; raises AssertionError or an error of ours."""
    done = [name for name, _ in life.steps[: life.done()]]
    if life.home.ledger_file.exists():
        public = read_public(life.home.identity_key)
        upcoming = next_key_file(life.home)
        kinds = check_ledger(life.home.ledger_file, read_public(upcoming) if upcoming.exists() else public, public)
        before = done[: done.index("backup")] if "backup" in done else done
        wanted = Counter(("policy" if name == "activate" else name) for name in before if name not in UNWRITTEN)
        missing = {kind: count for kind, count in wanted.items() if kinds[kind] < count}
        assert not missing, f"acknowledged and not there: {missing}"
    else:
        assert not done, "the ledger is gone"
    if life.copy.exists():
        with tempfile.TemporaryDirectory(dir=life.folder) as name:
            read_backup(life.copy, Path(name))
    if life.restored.root.exists():
        key = read_public(life.restored.identity_key)
        kinds = check_ledger(life.restored.ledger_file, key, key)
        assert life.restored.lock_file.exists() or kinds["restore"] == 1, "open, and nobody signed for it"


def check_ledger(path: Path, newest: str, other: str) -> Counter[str]:
    """Verify a ledger under one of two keys, compare what was released with what is charged, and count its kinds of entries."""
    try:
        with LedgerReader.read(path, newest):
            key = newest
    except ConsilienceError:
        key = other
    found: list[Body] = []
    result = verify(path, key, visit=lambda _row, body, _state: found.append(body) if body is not None else None)
    assert result.valid, result.findings
    released = {(body.rid, body.data.account) for body in found if isinstance(body, Release)}
    for account in ("training", "holdout"):
        costs = [
            charge.cost
            for body in found
            if isinstance(body, Reserve) and (body.rid, account) in released and (charge := body.data.charge(account))
        ]
        slots = {body.rid for body in found if isinstance(body, Reserve) and body.data.slot is not None}
        if any((rid, account) in released for rid in slots):
            costs += [_plan_cost(found, account)]
        spent, charged = total(costs), result.state.account(account).life
        assert spent.nano <= charged.nano and spent.femto <= charged.femto, (
            f"{account}: {spent} released, {charged} charged"
        )
    return Counter(body.kind for body in found)


def _plan_cost(found: list[Body], account: str) -> Cost:
    lines = [line for body in found if isinstance(body, PolicyEntry) for line in body.data.plan]
    return next(line.cost for line in lines if line.account == account and line.purpose is None)


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process and return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


class Steps:
    """Counts this process's durable steps, and kills it before the one that is chosen."""

    def __init__(self, chosen: int = 0) -> None:
        self.count = 0
        self._chosen = chosen

    def step(self) -> None:
        """Count one step; the chosen one is never made."""
        self.count += 1
        if self.count == self._chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count from now on what SQLite and the file system are asked for."""
        steps = self

        class Watched(sqlite3.Connection):
            def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as sqlite3 has it
                if statement.startswith(WRITING):
                    steps.step()
                return super().execute(statement, *arguments)

        whole = sqlite3.connect
        vars(store_module)["sqlite3"].connect = lambda *arguments, **named: whole(*arguments, **named, factory=Watched)
        for name in FILE_STEPS:
            setattr(os, name, _counted(getattr(os, name), steps))


def _counted(call: Callable[..., object], steps: Steps) -> Callable[..., object]:
    def counted(*arguments: object, **named: object) -> object:
        steps.step()
        return call(*arguments, **named)

    return counted


@dataclass
class Tally:
    """What a soak found: runs by mode, where the kills fell, and every failure."""

    steps: int = 0
    life: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def soak(runs: int, folder: Path, seed: int, progress: Callable[[str], None] = lambda _: None) -> Tally:
    """Do `runs` runs in a folder: every durable step once, as far as they go, and the rest at random instants.

    With fewer runs than a life has steps, half of the runs take steps that are spread evenly.
    """
    chance, tally = random.Random(seed), Tally()
    tally.steps, tally.life = _measure(folder)
    chosen: list[int] = list(range(1, tally.steps + 1))
    if runs < tally.steps:
        chosen = sorted(chance.sample(chosen, runs // 2))
    begun = time.monotonic()
    for number in range(runs):
        step = chosen[number] if number < len(chosen) else 0
        with tempfile.TemporaryDirectory(dir=folder) as name:
            life = Life(Path(name))
            try:
                _run(life, step, chance, tally)
            except (AssertionError, ConsilienceError) as error:
                where = f"step {step}" if step else "a random instant"
                tally.failures.append(f"run {number}, killed at {where}, in {_place(life)}: {error}")
        if (number + 1) % 50 == 0:
            progress(f"{number + 1} of {runs} runs, {len(tally.failures)} failures, {time.monotonic() - begun:.0f} s")
    return tally


def _measure(folder: Path) -> tuple[int, float]:
    """Live once undisturbed, here to know the prices, and in a child to count its durable steps and its seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        life = Life(Path(name))
        life.prepare()
        life.live()
        check(life)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        life, count = Life(Path(name)), Path(name) / "count"
        life.prepare()

        def work() -> None:
            steps = Steps()
            steps.watch()
            life.live()
            count.write_text(str(steps.count))

        begun = time.monotonic()
        _, status = os.waitpid(in_child(work), 0)
        assert os.waitstatus_to_exitcode(status) == 0, "a life that nothing disturbs must end well"
        return int(count.read_text()), time.monotonic() - begun


def _run(life: Life, step: int, chance: random.Random, tally: Tally) -> None:
    life.prepare()
    if step:
        _kill_at_step(life, step)
        tally.runs["a durable step"] += 1
    else:
        _kill_at_instant(life, chance.uniform(0, tally.life))
        tally.runs["a random instant"] += 1
    tally.kills[_place(life)] += 1
    check(life)
    _, status = os.waitpid(in_child(life.live), 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the same call again did not finish"
    check(life)
    assert life.done() == len(life.steps)
    kinds = _kinds(life)
    assert kinds == EXPECTED, f"another life than undisturbed: {kinds}"


def _kill_at_step(life: Life, step: int) -> None:
    def work() -> None:
        Steps(step).watch()
        life.live()

    _, status = os.waitpid(in_child(work), 0)
    assert os.WIFSIGNALED(status), "the child was not killed"


def _kill_at_instant(life: Life, seconds: float) -> None:
    child = in_child(life.live)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _place(life: Life) -> str:
    done = life.done()
    return life.steps[done][0] if done < len(life.steps) else "the end"


def _kinds(life: Life) -> list[str]:
    """Return the kinds of the restored ledger's entries, in order, each repeated event once."""
    with LedgerReader.read(life.restored.ledger_file, read_public(life.restored.identity_key)) as reader:
        kinds = [entry.body.kind for entry in reader.entries()]
    return [kind for place, kind in enumerate(kinds) if kind not in REPEATED or kinds[place - 1] != kind]


def memory() -> Path | None:
    """Return a folder in memory where there is one: a killed process leaves it as it leaves a disk, and lives are shorter."""
    folder = Path("/dev/shm")
    return folder if os.access(folder, os.W_OK) else None


def main() -> NoReturn:
    """Soak, print what was found, and exit with 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="how many kills (1,000)")
    parser.add_argument("--folder", type=Path, help="where lives are lived; in memory otherwise")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder or memory()) as name:
        tally = soak(options.runs, Path(name), options.seed, lambda line: print(line, flush=True))
    print(f"\nA life has {tally.steps} durable steps and takes {tally.life:.2f} s. Kills:")
    for mode, count in tally.runs.most_common():
        print(f"  {count:>6} at {mode}")
    print("In the middle of:")
    for place, count in sorted(tally.kills.items(), key=lambda item: -item[1]):
        print(f"  {count:>6} {place}")
    for failure in tally.failures[:20]:
        print(f"FAILED  {failure}")
    print(f"{sum(tally.runs.values())} kills, {len(tally.failures)} failures, {time.monotonic() - begun:.0f} s")
    raise SystemExit(bool(tally.failures))


if __name__ == "__main__":
    main()
