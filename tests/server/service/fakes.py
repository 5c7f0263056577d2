"""A link, processes and clocks that do as they are told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from federation.charter import Charter
from federation.errors import FederationError, OfflineError
from federation.flower.control import NodeRow, RunRow
from federation.flower.tasks import Claim
from server.service.reconciler import Doors, Reconciler
from server.service.studies import StudyBook

BUNDLE, APP = b"bundle", "a" * 64


class Clock:
    def __init__(self, start: float = 1000.0) -> None:
        self.value = start

    def __call__(self) -> float:
        return self.value

    def sleep(self, seconds: float) -> None:
        self.value += seconds


@dataclass
class FakeLink:
    """Control and desk of one link; `away` makes every call fail, `locked` are keys that it refuses."""

    known: dict[str, int] = field(default_factory=dict)
    started: dict[int, str] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)
    configs: dict[int, Mapping[str, str]] = field(default_factory=dict)
    bundles: list[bytes] = field(default_factory=list)
    away: bool = False
    opened: int = 0
    closed: int = 0
    calls: int = 0
    next: int = 1 << 63

    def _call(self) -> None:
        self.calls += 1
        if self.away:
            raise OfflineError("CSL-F331", "away", "wait")

    def nodes(self) -> list[NodeRow]:
        self._call()
        return [NodeRow(number, key, "online") for key, number in self.known.items()]

    def register_node(self, node_key: str) -> int:
        self._call()
        if node_key in self.locked:
            raise FederationError("CSL-F332", "refused", "see")
        self.known[node_key] = len(self.known) + 1
        return self.known[node_key]

    def unregister_node(self, node_id: int) -> None:
        self._call()
        key = next(key for key, number in self.known.items() if number == node_id)
        del self.known[key]
        self.locked.add(key)

    def runs(self) -> list[RunRow]:
        self._call()
        return [RunRow(number, status, "", "") for number, status in self.started.items()]

    def start_run(self, bundle: bytes, config: Mapping[str, str]) -> int:
        self._call()
        self.next += 1
        self.bundles.append(bundle)
        self.started[self.next], self.configs[self.next] = "pending", dict(config)
        self.waiting.append(self.next)
        return self.next

    def stop_run(self, run_id: int) -> None:
        self._call()
        if self.started.get(run_id) in (None, "finished"):
            raise FederationError("CSL-F332", "no such run", "see")
        self.started[run_id] = "finished"
        self.waiting = [item for item in self.waiting if item != run_id]

    def acquire(self) -> Claim | None:
        self.calls += 1
        if self.away:
            raise httpx.ConnectError("away")
        if not self.waiting:
            return None
        run_id = self.waiting.pop(0)
        self.started[run_id] = "running"
        return Claim(f"token-{run_id}", 1, run_id, "server")

    def close(self) -> None:
        self.closed += 1

    def live(self) -> list[int]:
        return [number for number, status in self.started.items() if status != "finished"]

    def forget(self) -> None:
        """Lose everything, as a link in memory does when it is started again."""
        self.known.clear()
        self.started.clear()
        self.waiting.clear()


@dataclass
class FakeProcess:
    study: str
    run_id: int
    token: str
    code: int | None = None
    terminated: int = 0
    killed: int = 0
    obeys: bool = True

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.terminated += 1
        if self.obeys and self.code is None:
            self.code = 0

    def kill(self) -> None:
        self.killed += 1
        self.code = -9 if self.code is None else self.code


class Scene:
    """A reconciler over a fake link."""

    def __init__(self, home: Path, charter: Charter) -> None:
        self.home, self.charter = home, charter
        self.clock, self.wall = Clock(), Clock(1_800_000_000.0)
        self.link = FakeLink()
        self.book = StudyBook(home, self.wall)
        self.processes: list[FakeProcess] = []
        self.said: list[tuple[str, dict[str, object]]] = []
        self.app = APP
        self.make()

    def make(self) -> None:
        """Make the reconciler, as if the executor had been started again."""
        self.reconciler = Reconciler(
            self.book,
            address="127.0.0.1:1",
            connect=self._connect,
            spawn=self._spawn,
            bundle=BUNDLE,
            app=self.app,
            charter=lambda: self.charter,
            say=lambda event, **fields: self.said.append((event, fields)),
            clock=self.clock,
            now=self.wall,
        )
        self.reconciler.recover()

    def _connect(self) -> Doors:
        self.link.opened += 1
        return Doors(self.link, self.link)

    def _spawn(self, study: str, run_id: int, token: str) -> FakeProcess:
        self.processes.append(FakeProcess(study, run_id, token))
        return self.processes[-1]

    def go(self, seconds: float) -> None:
        """Let time pass, step by step."""
        end = self.clock() + seconds
        while self.clock() < end:
            pause = self.reconciler.step()
            assert pause >= 0.05, "it spins"
            self.clock.value += pause
            self.wall.value += pause

    def state(self, name: str) -> str:
        record = self.book.read(name)
        assert record is not None
        return record.state

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.said if event == name]
