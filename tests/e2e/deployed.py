"""A small federation of real processes for tests: coordinator and three members on 127.0.0.1, each service in a session of its own.

Homes are founded in this process, with plain keys, because founding by commands has tests of its own; everything that runs, runs by
`consilience coordinator start` and `consilience node start`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from federation.charter import Link
from federation.flower.bundle import bundle_digest
from federation.leash import leashed
from federation.study import AdditiveModel, HashHoldout, StudyDraft
from privacy.keys import load_identity
from privacy.ledger import LedgerReader, verify
from server.config import CoordinatorConfig
from server.home import CoordinatorHome
from server.install import install as install_coordinator
from simulations.deployment import free_port
from simulations.institutions import write_yaml
from tests.client import vault_home
from tests.client.vault_home import CONTRACT, MEMBERS

COORDINATOR = "coordinator"
PATIENCE = 120.0
CLI = (sys.executable, "-c", "from federation.command import main; main()")


def draft(name: str = "propensity", **changes: object) -> StudyDraft:
    fields: dict[str, object] = {
        "name": name,
        "title": "A study",
        "purpose": "marketing.propensity",
        "contract": "shop",
        "model": AdditiveModel(),
        "holdout": HashHoldout(kind="hash", share=0.25),
        "rounds": 8,
        "min_partners": 2,
        "deadline_seconds": 30.0,
        "intended_use": "Tests",
        "limits": "None",
    }
    return StudyDraft(**(fields | changes))


class Deployed:
    """The federation under `root`; nothing runs until it is started."""

    def __init__(self, root: Path, *, memory_state: bool = False, proxy: str = "none", epsilon: float = 2.0) -> None:
        self.root = root
        self.port = free_port()
        link_port = self.port if proxy == "none" else free_port()
        self.office = CoordinatorHome(root / COORDINATOR)
        config = CoordinatorConfig(
            federation="test",
            address=f"127.0.0.1:{self.port}",
            link_port=link_port,
            proxy=proxy,
            memory_state=memory_state,
            plain_keys=True,
        )
        install_coordinator(self.office, config, None, datetime.now(UTC))
        key = load_identity(self.office.identity_key, allow_plain=True)
        link = Link(address=config.address, authority=self.office.authority_file.read_text(), app=bundle_digest())
        self.town = vault_home.found(root, epsilon=epsilon, coordinator=key, link=link)
        for member in MEMBERS:  # a study goes on with two of the three
            self.town.change(member, smallest_partners=2)
        any_home = self.town.homes[MEMBERS[0]]
        for name in ("charter.json", "charter.digest"):
            (self.office.root / name).write_bytes((any_home.root / name).read_bytes())
        (self.office.root / "contracts").mkdir(exist_ok=True)
        write_yaml(self.office.root / "contracts" / "shop.yaml", CONTRACT, "A contract")
        self.runtime_ports = {member: free_port() for member in MEMBERS}
        for member in MEMBERS:
            self.serve(member)
        self._services: dict[str, subprocess.Popen[bytes]] = {}

    def serve(self, member: str, **service: object) -> None:
        """Write a member's `service` block into its node.yaml."""
        block = {"runtime_port": self.runtime_ports[member]} | service
        file = self.home(member) / "node.yaml"
        text = file.read_text().split("\nservice:")[0]
        file.write_text(f"{text.rstrip()}\nservice: {json.dumps(block)}\n")

    def home(self, party: str) -> Path:
        return self.root / party

    # -- processes

    def start(self, party: str, environment: dict[str, str] | None = None) -> None:
        group = "coordinator" if party == COORDINATOR else "node"
        with (self.root / f"{party}.out").open("ab") as output:
            self._services[party] = subprocess.Popen(
                leashed([*CLI, group, "start", "--home", str(self.home(party))]),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
                start_new_session=True,
            )

    def start_all(self) -> None:
        for party in (COORDINATOR, *MEMBERS):
            self.start(party)
        for party in (COORDINATOR, *MEMBERS):
            self.wait_up(party)

    def stop(self, party: str, seconds: float = 40.0) -> int:
        process = self._services.pop(party)
        process.terminate()
        try:
            return process.wait(timeout=seconds)
        finally:
            with_group(process.pid, signal.SIGKILL)

    def stop_all(self) -> None:
        for process in self._services.values():
            process.terminate()
        for process in self._services.values():
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                with_group(process.pid, signal.SIGKILL)
                process.wait()
        self._services.clear()

    def state(self, party: str) -> dict[str, Any]:
        """What the party's supervisor says of its children, by name; empty before it has said anything."""
        try:
            told = json.loads((self.home(party) / "run" / "service.json").read_text())
        except (OSError, ValueError):
            return {}
        return {child["name"]: child for child in told["children"]}

    def wait_up(self, party: str, seconds: float = PATIENCE) -> None:
        wait_for(
            lambda: bool(state := self.state(party)) and all(child["state"] == "up" for child in state.values()),
            f"{party} is up",
            seconds,
            lambda: self.tail(party),
        )

    def pid(self, party: str, child: str) -> int:
        return int(self.state(party)[child]["pid"])

    def kill(self, party: str, child: str, number: int = signal.SIGKILL) -> int:
        """Kill one of a party's processes and return its pid."""
        pid = self.pid(party, child)
        os.kill(pid, number)
        return pid

    def supervisor(self, party: str) -> int:
        """The process number of a party's supervisor."""
        return self._services[party].pid

    def kill_supervisor(self, party: str) -> None:
        """Kill a party's supervisor outright; `start` starts it again."""
        process = self._services.pop(party)
        process.kill()
        process.wait()

    def tail(self, party: str, lines: int = 40) -> str:
        files = [self.root / f"{party}.out", *sorted((self.home(party) / "logs").glob("*"))]
        texts = []
        for file in files:
            if file.is_file():
                ends = file.read_text(errors="replace").splitlines()[-lines:]
                texts.append("\n".join([f"== {file}", *ends]))
        return "\n".join(texts)

    # -- commands

    def cli(self, *words: str, check: bool = True, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*CLI, *words], capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def cli_json(self, *words: str, variables: dict[str, str] | None = None) -> Any:
        """Return the document that a command prints, whatever its exit code; it sees `variables` beside this process's."""
        given = {**os.environ, **(variables or {})}
        done = subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=PATIENCE, check=False, env=given)
        assert done.stdout.startswith("{"), f"{words}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def coordinator(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cli("coordinator", *words, "--home", str(self.office.root), check=check)

    def node(self, member: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cli("node", *words, "--home", str(self.home(member)), check=check)

    # -- studies

    def begin(self, study: StudyDraft) -> None:
        """Propose a study and want it running."""
        file = self.root / f"{study.name}.yaml"
        write_yaml(file, study, study.title)
        self.coordinator("study", "propose", str(file))
        self.coordinator("study", "start", study.name)

    def row(self, name: str) -> dict[str, Any]:
        rows = json.loads(self.coordinator("study", "list", "--json").stdout)
        return next(row for row in rows if row["study"] == name)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The study's journal, whole lines only."""
        try:
            lines = (self.office.root / "run" / "studies" / f"{name}.events.jsonl").read_text().split("\n")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[:-1]]

    def count(self, name: str, event: str) -> int:
        return sum(item["event"] == event for item in self.events(name))

    def wait_event(self, name: str, event: str, times: int = 1, seconds: float = PATIENCE) -> None:
        wait_for(lambda: self.count(name, event) >= times, f"{event} x {times} in {name}", seconds, self.story(name))

    def wait_finished(self, name: str, seconds: float = PATIENCE) -> None:
        file = self.office.root / "run" / "studies" / f"{name}.json"
        wait_for(
            lambda: json.loads(file.read_text())["state"] == "finished",
            f"{name} is finished",
            seconds,
            self.story(name),
        )

    def story(self, name: str) -> Callable[[], str]:
        return lambda: "\n".join(
            [
                *(json.dumps(item) for item in self.events(name)[-12:]),
                *(self.tail(p, 15) for p in (COORDINATOR, *MEMBERS)),
            ]
        )

    # -- ledgers

    def kinds(self, member: str) -> list[str]:
        """The kinds of a member's ledger entries, in their order."""
        home = self.town.homes[member]
        with LedgerReader.read(home.ledger_file, self.town.key(member)) as ledger:
            return [entry.body.kind for entry in ledger.entries()]

    def entries(self, member: str, kind: str) -> list[Any]:
        home = self.town.homes[member]
        with LedgerReader.read(home.ledger_file, self.town.key(member)) as ledger:
            return [entry.body for entry in ledger.entries() if entry.body.kind == kind]

    def assert_ledgers(self, studies: int, rounds: int, members: tuple[str, ...] = MEMBERS) -> None:
        """Every ledger verifies, has one reservation a study, and no round of a study was released more than once."""
        for member in members:
            home = self.town.homes[member]
            found = verify(home.ledger_file, self.town.key(member))
            assert found.valid, found.findings
            kinds = self.kinds(member)
            assert kinds.count("reserve") == kinds.count("close") == studies
            releases = [(body.rid, body.data.number) for body in self.entries(member, "release")]
            assert len(releases) == len(set(releases))
            assert len(releases) <= studies * (rounds + 1)


def with_group(pid: int, number: int) -> None:
    """Signal all processes of a session that was started here; none may be left."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def wait_for(
    holds: Callable[[], bool], what: str, seconds: float = PATIENCE, story: Callable[[], str] = lambda: ""
) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} seconds: {what}\n{story()}")
        time.sleep(0.05)


@contextmanager
def deployed(root: Path, **options: Any) -> Iterator[Deployed]:
    """A founded federation; whatever was started is stopped at the end, also after a failure."""
    federation = Deployed(root, **options)
    try:
        yield federation
    finally:
        federation.stop_all()
