"""Rounds of a federation on this machine, without training: seconds against stock Flower, bytes, lost replies, memory.

Usage: `python benchmarks/rounds.py [--quick]`, or `python benchmarks/rounds.py --rounds N [--nodes N] [--state sqlite|memory|both]`. Exits
with 1 when a target is missed.

Without `--rounds`: five institutions and 10,000 float32 parameters, three deployments that are up at the same time and take turns, so that
another program on the machine slows all of them alike; the first round of a turn warms up and is not counted. All have TLS and node keys.

- *ours, SQLite* and *ours, memory*: link, SuperNodes and a worker process for each, by the adapter that the product uses; the worker does
  all that a vault's does but its work. A round lasts from signing its requests to having checked every answer.
- *stock*: `flower-superlink` with SQLite and `flower-supernode` as published, FedAvg, and a client that sends the weights back
  (`benchmarks/stock_app.py`), importing nothing or, in turns of its own, torch first, as a client that trains does: stock Flower starts a
  process for each message. A round is timed by the app itself. Installing an app's dependencies, which would only add to it, is off.

Bytes are those of header, signature and payload of a packed request and release, against 4 for each coordinate.

With `--rounds`: so many rounds without a pause; replies lost, and resident memory of each kind of process (VmRSS in /proc).
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from echo_worker import COORDINATES, HOST
from flwr.app import RecordDict
from loopback import Loopback, Processes, Tls, answers, free_ports, make_node_key, online, wait_for

from federation.document import Document
from federation.encoding import sha256_hex
from federation.flower.commands import environment
from federation.flower.control import Control
from federation.flower.errors import LINK_ERRORS
from federation.messages import RECORD, TrainRelease, TrainRequest, dump_tensors, pack
from federation.networks import LinearNetwork, MlpNetwork, Network, weights_of

NODES = 5
SECONDS_LIMIT = {"ours, SQLite": 4.0, "ours, memory": 3.0}  # the median round of five institutions
BYTES_LIMIT = 1.1  # against raw float32
GROWTH_MIB = 8.0  # of any kind of process, from round 20 to the last
SETTLED = 20  # until this round, caches and the allocator fill
JUDGED = 100  # rounds, from which on growth is judged
STOCK_SECONDS = 120.0  # at most, a round
STOCK_IMPORTS = {"stock, empty client": "", "stock, torch client": "torch"}
STOCK_APP = Path(__file__).with_name("stock_app.py")
STOCK_PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "stock"
version = "1.0.0"
description = "Sends weights back"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "stock"

[tool.flwr.app.components]
serverapp = "stock_app:server"
clientapp = "stock_app:client"

[tool.flwr.app.config]
folder = ""
nodes = ""
"""


class Stock:
    """Stock Flower with its default isolation, a new process for each message. A context manager: entering starts it and its one run."""

    def __init__(self, root: Path, nodes: int) -> None:
        self._root = root
        self._nodes = nodes
        self._turns = 0
        self._stack = contextlib.ExitStack()
        self.processes = Processes(root)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.processes.close)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def play(self, rounds: int, imports: str) -> list[float]:
        """Let the app play so many rounds, with a client that imports a module first, and return the seconds that it measured."""
        self._turns += 1
        order = self._root / "turn.part"
        order.write_text(json.dumps({"rounds": rounds, "imports": imports}))
        order.rename(self._root / f"turn-{self._turns}.json")
        result = self._root / f"seconds-{self._turns}.json"
        wait_for("a turn of stock Flower", result.exists, self.processes, STOCK_SECONDS * rounds)
        return [float(seconds) for seconds in json.loads(result.read_text())]

    def _start(self, stack: contextlib.ExitStack) -> None:
        tls, (port, *ports) = Tls.make(self._root), free_ports(self._nodes + 1)
        address, place = f"{HOST}:{port}", Path(sys.executable).parent
        added = {"PATH": f"{place}{os.pathsep}{os.environ.get('PATH', '')}"}
        link = (
            *(str(place / "flower-superlink"), "--host", HOST, "--port", str(port), "--enable-supernode-auth"),
            *("--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)),
            *("--ssl-ca-certfile", str(tls.authority), "--database", str(self._root / "link.sqlite")),
            "--disable-runtime-dependency-installation",
        )
        self.processes.start("link", link, added)
        control = stack.enter_context(Control(address, tls.authority.read_bytes()))
        wait_for("starting stock Flower's link", lambda: answers(control), self.processes)
        for number, runtime in enumerate(ports):
            key = self._root / f"node_{number}.key"
            control.register_node(make_node_key(key))
            node = (
                *(str(place / "flower-supernode"), "--superlink", address, "--root-certificates", str(tls.authority)),
                *("--auth-supernode-private-key", str(key), "--host", HOST, "--port", str(runtime)),
            )
            self.processes.start(f"node_{number}", node, added)
        wait_for("starting stock Flower's nodes", lambda: online(control) == self._nodes, self.processes)
        control.start_run(self._bundle(place), {"folder": str(self._root), "nodes": str(self._nodes)})

    def _bundle(self, place: Path) -> bytes:
        app = self._root / "app"
        app.mkdir()
        shutil.copy(STOCK_APP, app)
        (app / "pyproject.toml").write_text(STOCK_PROJECT)
        variables = {**os.environ, **environment(self._root / "flower-build")}
        command = (str(place / "flwr"), "build", "--app", str(app))
        subprocess.run(command, cwd=self._root, env=variables, check=True, capture_output=True)
        (bundle,) = self._root.glob("*.fab")
        return bundle.read_bytes()


@dataclass(frozen=True)
class Size:
    """Bytes of one packed message for `coordinates` float32 numbers."""

    what: str
    coordinates: int
    content: int

    @property
    def ratio(self) -> float:
        """Against the bare numbers."""
        return self.content / (4 * self.coordinates)


def sizes() -> list[Size]:
    """Pack requests and releases of two models of about 10,000 parameters, with headers as long as they get."""
    tables = [(f"column_{place}", 45) for place in range(6)]
    networks: dict[str, Network] = {
        "linear": LinearNetwork(COORDINATES - 1),
        "mlp": MlpNetwork(40, tables, 8, (64, 32)),
    }
    key, study, found = Ed25519PrivateKey.generate(), "5" * 64, []
    for name, network in networks.items():
        weights = weights_of(network)
        payload = dump_tensors(weights)
        digest, coordinates = sha256_hex(payload), sum(value.size for value in weights.values())
        clip, rate, momentum = 0.12345678901234567, 0.010203040506070809, 0.9012345678901234
        request = TrainRequest(
            study=study, round=10_000, clip=clip, learning_rate=rate, momentum=momentum, payload=digest
        )
        release = TrainRelease(study=study, member="m" * 48, round=10_000, payload=digest)
        headers: dict[str, Document] = {"request": request, "release": release}
        found += [
            Size(f"{name}, {what}", coordinates, size_of(pack(key, header, payload)))
            for what, header in headers.items()
        ]
    return found


def size_of(records: RecordDict) -> int:
    """Return the bytes of a packed message's three fields."""
    return sum(len(value) for value in records.config_records[RECORD].values() if isinstance(value, bytes))


def print_sizes() -> list[str]:
    """Print the bytes of messages; return what misses its target."""
    found = []
    print(f"{'message':<20}{'coordinates':>13}{'bytes':>9}{'raw float32':>13}{'ratio':>9}")
    for size in sizes():
        print(f"{size.what:<20}{size.coordinates:>13,}{size.content:>9,}{4 * size.coordinates:>13,}{size.ratio:>9.4f}")
        if size.ratio > BYTES_LIMIT:
            found.append(f"{size.what}: {size.ratio:.3f} x the raw vector, target {BYTES_LIMIT}")
    return found


def compare(folder: Path, turns: int, rounds: int, stock_rounds: int, poll: float) -> tuple[list[str], list[str]]:
    """Let the three deployments take turns and print their medians; return what is too slow, and what was lost."""
    seconds: dict[str, list[float]] = {name: [] for name in (*SECONDS_LIMIT, *STOCK_IMPORTS)}
    lost = 0
    with contextlib.ExitStack() as stack:
        ours = {
            name: stack.enter_context(
                Loopback(fresh(folder), nodes=NODES, memory=name == "ours, memory", poll_seconds=poll)
            )
            for name in SECONDS_LIMIT
        }
        stock = stack.enter_context(Stock(fresh(folder), NODES))
        for turn in range(turns):
            for name, federation in ours.items():
                played = [federation.play(turn * (rounds + 1) + number + 1) for number in range(rounds + 1)]
                lost += sum(item.lost for item in played)
                seconds[name] += [item.seconds for item in played[1:]]
            for name, imports in STOCK_IMPORTS.items():
                seconds[name] += stock.play(stock_rounds + 1, imports)[1:]
    peer = statistics.median(seconds["stock, empty client"])
    print(
        f"\n{f'{NODES} institutions':<22}{'rounds':>8}{'median s':>10}{'least':>8}{'most':>8}{'stock/it':>10}{'target':>9}"
    )
    for name, times in seconds.items():
        median, limit = statistics.median(times), SECONDS_LIMIT.get(name)
        target = f"{limit:g} s" if limit else ""
        row = f"{name:<22}{len(times):>8}{median:>10.2f}{min(times):>8.2f}{max(times):>8.2f}{peer / median:>10.1f}"
        print(f"{row}{target:>9}", flush=True)
    found = [
        f"{name}: a round takes {statistics.median(seconds[name]):.2f} s, target {limit:g}"
        for name, limit in SECONDS_LIMIT.items()
        if statistics.median(seconds[name]) > limit
    ]
    return found, [f"{lost} replies were lost"] if lost else []


@dataclass(frozen=True)
class Mark:
    """What was seen after a round: the median seconds of the rounds since the mark before, MiB by kind of process, and the link's rows."""

    number: int
    seconds: float
    memory: dict[str, float]
    largest: dict[str, float]
    rows: dict[str, int]


def mark(federation: Loopback, number: int, seconds: Sequence[float]) -> Mark:
    """Look at a deployment's processes: mean and largest of each kind."""
    kinds: dict[str, list[float]] = {}
    for name, value in federation.processes.resident().items():
        kinds.setdefault(name.partition("_")[0], []).append(value)
    mean = {kind: statistics.fmean(values) for kind, values in kinds.items()}
    most = {kind: max(values) for kind, values in kinds.items()}
    return Mark(number, statistics.median(seconds), mean, most, federation.rows())


def marks_of(rounds: int) -> Iterator[int]:
    """Yield the rounds after which memory is looked at."""
    yield from (number for number in range(1, rounds + 1) if number in {1, 10, 20, rounds} or number % 50 == 0)


def endure(folder: Path, nodes: int, rounds: int, states: Sequence[str], poll: float) -> list[str]:
    """Play rounds without a pause, by turns where there are several states; print what was seen, return what misses its target."""
    found: list[str] = []
    with contextlib.ExitStack() as stack:
        running = {
            state: stack.enter_context(
                Loopback(fresh(folder), nodes=nodes, memory=state == "memory", poll_seconds=poll)
            )
            for state in states
        }
        print(f"{nodes} institutions, {rounds} rounds, polling every {poll:g} s at the shortest; MiB: mean (largest)")
        print(
            f"{'state':<8}{'round':>6}{'median s':>10}{'lost':>6}{'link':>8}{'SuperNode':>16}{'worker':>16}", flush=True
        )
        seen: dict[str, list[Mark]] = {state: [] for state in states}
        lost = dict.fromkeys(states, 0)
        times: dict[str, list[float]] = {state: [] for state in states}
        looks = set(marks_of(rounds))
        for number in range(1, rounds + 1):
            for state, federation in running.items():
                try:
                    played = federation.play(number)
                except LINK_ERRORS as error:
                    return [f"{state}: the link ended the run in round {number} ({type(error).__name__})"]
                lost[state] += played.lost
                times[state].append(played.seconds)
                if number in looks:
                    seen[state].append(mark(federation, number, times[state]))
                    times[state].clear()
                    print_mark(state, seen[state][-1], lost[state])
    for state in states:
        found += [f"{state}: {lost[state]} replies were lost"] if lost[state] else []
        found += growth(state, seen[state], rounds)
    return found


def print_mark(state: str, seen: Mark, lost: int) -> None:
    """Print one line."""
    pairs = {kind: f"{seen.memory[kind]:.1f} ({seen.largest[kind]:.1f})" for kind in ("node", "worker")}
    print(
        f"{state:<8}{seen.number:>6}{seen.seconds:>10.2f}{lost:>6}{seen.memory['link']:>8.1f}{pairs['node']:>16}{pairs['worker']:>16}",
        flush=True,
    )


def growth(state: str, seen: Sequence[Mark], rounds: int) -> list[str]:
    """Print what grew between round 20 and the last, in memory and in the link's tables; return what misses its target."""
    first, last = next((item for item in seen if item.number >= SETTLED), seen[-1]), seen[-1]
    if last.number <= first.number:
        return []
    grown = {kind: last.memory[kind] - first.memory[kind] for kind in last.memory}
    words = ", ".join(f"{kind} {value:+.1f} MiB" for kind, value in grown.items())
    print(f"{state}: from round {first.number} to {last.number}: {words}")
    tables = {name: f"{first.rows[name]} to {count}" for name, count in last.rows.items() if count > first.rows[name]}
    if last.rows:
        print(f"{state}: tables that grew: {tables or 'none'}")
    return [
        f"{state}: memory of {kind} grows by {value:.1f} MiB, target {GROWTH_MIB:g}"
        for kind, value in grown.items()
        if rounds >= JUDGED and value > GROWTH_MIB
    ]


def fresh(folder: Path) -> Path:
    """Return a new folder within one that is removed at the end."""
    return Path(tempfile.mkdtemp(dir=folder))


def main() -> None:
    """Print the tables; exit with 1 when a target is missed (with `--quick` but for seconds, whose medians are too few)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of few rounds: shows that it runs")
    parser.add_argument("--rounds", type=int, help="play so many rounds and watch memory, without stock Flower")
    parser.add_argument("--nodes", type=int, default=3, help="institutions, with --rounds (3)")
    parser.add_argument("--state", choices=("sqlite", "memory", "both"), default="both", help="where the link keeps it")
    parser.add_argument("--poll", type=float, default=0.1, help="poll_seconds of nodes (0.1)")
    options = parser.parse_args()
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="rounds-") as name:
        if options.rounds:
            states = ("sqlite", "memory") if options.state == "both" else (options.state,)
            failures = endure(Path(name), options.nodes, options.rounds, states, options.poll)
        else:
            failures = print_sizes()
            turns, rounds, stock_rounds = (1, 2, 1) if options.quick else (3, 5, 2)
            slow, lost = compare(Path(name), turns, rounds, stock_rounds, options.poll)
            failures += lost + ([] if options.quick else slow)
    print("\n" + ("\n".join(failures) if failures else "Every target is met."))
    print(f"{time.monotonic() - begun:.0f} s")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
