"""A whole federation on one machine as it runs in several: every party in a folder of its own, by the commands that its people would type.

Nothing here reaches into a party: it only runs `consilience` as that party, with what a person would have in their hands (files that
were passed on, the words of the charter). On other machines the same commands run with other addresses.
"""

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from client.config import NodeConfig, ServiceConfig
from client.home import Home
from federation.errors import FederationError
from federation.files import atomic_write
from federation.leash import leashed
from federation.study import StudyDraft
from simulations.institutions import (
    OFFICERS,
    Founding,
    declaration_of,
    node_config,
    note_of,
    policy,
    write_tables,
    write_yaml,
)

FEDERATION = "loopback"
COORDINATOR = "coordinator"
PASSPHRASE = "passphrase"
COMMAND_SECONDS = 120.0
START_SECONDS = 120.0
STUDY_SECONDS = 600.0
_LOG = "commands.log"
Say = Callable[[str], None]


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Party:
    """One party: its folder, and how it runs a command there. Commands and their output are written to one log for all."""

    name: str
    folder: Path
    say: Say

    @property
    def home(self) -> Path:
        """Where its home lies."""
        return self.folder / "home"

    def run(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run `consilience` with these words in the party's folder, and return what it printed.

        Raises
        ------
        FederationError
            CSL-M130 when it fails or takes too long.
        """
        shown = f"{self.name}$ consilience {shlex.join(words)}"
        self.say(shown)
        try:
            done = subprocess.run(
                [*consilience(), *words],
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env=surroundings(),
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(shown, f"it took longer than {seconds:g} seconds") from error
        with (self.folder.parent / _LOG).open("a") as log:
            log.write(f"{shown}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise _failed(shown, done.stderr.strip() or f"exit code {done.returncode}")
        return done.stdout

    def json(self, *words: str) -> Any:  # noqa: ANN401 - what the command prints
        """Run a command with --json, and return what it printed as JSON."""
        return json.loads(self.run(*words, "--json"))

    def start(self, *words: str) -> "Service":
        """Start a command that goes on until it is stopped; its output goes to a file in the party's folder.

        It does not outlive this process: nothing of a rehearsal may go on when that is killed."""
        self.say(f"{self.name}$ consilience {shlex.join(words)} &")
        output = (self.folder / "service.out").open("ab")
        process = subprocess.Popen(
            leashed([*consilience(), *words]),
            cwd=self.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=surroundings(),
            start_new_session=True,
        )
        return Service(process, output)


@dataclass(frozen=True)
class Service:
    """A command that runs in the background."""

    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    def stop(self, seconds: float = 40.0) -> None:
        """Ask it to end, and end it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.output.close()


def consilience() -> tuple[str, ...]:
    """Return the command that is installed beside this Python."""
    return (sys.executable, "-c", "from federation.command import main; main()")


def surroundings() -> dict[str, str]:
    """Return the environment of every command: plain, wide, and with one computing thread, as all parties share one machine."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONSILIENCE_")}
    return own | {"COLUMNS": "140", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _failed(shown: str, why: str) -> FederationError:
    return FederationError("CSL-M130", f"{shown}\nfailed: {why}", f"See {_LOG} in the federation's folder.")


class Deployment:
    """A federation under one folder: `found`, `start`, `study`, `stop`. A context manager that stops everything."""

    def __init__(self, root: Path, foundings: Sequence[Founding], say: Say) -> None:
        """Plan for one institution a founding, under `root`, which must be empty or not there."""
        root = root.resolve()  # the parties work in folders of their own
        self.root = root
        self._foundings = {item.site.id: item for item in foundings}
        self.coordinator = Party(COORDINATOR, root / COORDINATOR, say)
        self.members = {name: Party(name, root / name, say) for name in sorted(self._foundings)}
        self._services: list[Service] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def found(self) -> None:
        """Let every party make its keys, agree on a charter, and let each institution's officers bring a policy into force."""
        for party in (self.coordinator, *self.members.values()):
            party.folder.mkdir(parents=True, mode=0o700)
            _passphrase(party.folder / PASSPHRASE)
        port = free_port()
        self.coordinator.run(
            *("coordinator", "init", "home", "--federation", FEDERATION),
            *("--address", f"127.0.0.1:{port}", "--passphrase-file", PASSPHRASE),
        )
        self._all(self._install)
        self._agree()
        self._all(self._govern)

    def _all(self, step: Callable[[Party], None]) -> None:
        """Let institutions take a step, two at a time: each works in its own folder."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            for _ in pool.map(step, self.members.values()):
                pass

    def _install(self, party: Party) -> None:
        """An institution makes its vault, maps its tables, and says who it is."""
        item = self._foundings[party.name]
        party.run("node", "init", "home", "--member", party.name, "--passphrase-file", PASSPHRASE)
        home = Home(party.home)
        mapped = node_config(item.site, write_tables(home, item), item.contract)
        tree = mapped.model_dump(mode="json") | {
            "plain_keys": False,
            "passphrase_file": f"../{PASSPHRASE}",
            "service": ServiceConfig(runtime_port=free_port()).model_dump(mode="json"),
        }
        write_yaml(home.node_file, NodeConfig.model_validate_json(json.dumps(tree)), note_of(item.site))
        declared = declaration_of(item).model_dump(mode="json", exclude_none=True)
        membership = {"title": item.site.title, "declares": [declared]}
        atomic_write(party.folder / "membership.yaml", yaml.safe_dump(membership, sort_keys=False).encode())
        party.run(
            *("node", "card", "--home", "home", "--federation", FEDERATION),
            *("--from", "membership.yaml", "--out", str(self._passed(f"{party.name}.card.json"))),
        )

    def _agree(self) -> None:
        """The charter: drafted, signed by everybody, sealed, and accepted by its words."""
        desk, home = self.coordinator, ("--home", "home")
        contracts = {item.contract.name: item.contract for item in self._foundings.values()}
        for name, contract in contracts.items():
            write_yaml(desk.folder / f"{name}.yaml", contract, contract.title)
        named = [word for name in sorted(contracts) for word in ("--contract", f"{name}.yaml")]
        desk.run("coordinator", "charter", "draft", *home, *named)
        for name in self.members:
            desk.run("coordinator", "charter", "add-member", *home, str(self._passed(f"{name}.card.json")))
        draft = str(desk.home / "charter" / "draft.json")
        self._all(
            lambda party: _unused(
                party.run(
                    *("node", "charter", "sign", "--home", "home", draft),
                    *("--out", str(self._passed(f"{party.name}.signature.json")), "--yes"),
                )
            )
        )
        signatures = [str(self._passed(f"{name}.signature.json")) for name in self.members]
        desk.run("coordinator", "charter", "seal", *home, *signatures)
        digest = (desk.home / "charter.digest").read_text().strip()
        sealed = str(desk.home / "charter" / "sealed.json")
        self._all(
            lambda party: _unused(party.run("node", "charter", "accept", "--home", "home", sealed, "--digest", digest))
        )

    def _passed(self, name: str) -> Path:
        """Return where a file lies that is passed from one party to another."""
        folder = self.root / "passed"
        folder.mkdir(exist_ok=True)
        return folder / name

    def _govern(self, party: Party) -> None:
        """Two officers make their keys, sign the policy, and bring it into force; then the tables are tried."""
        item = self._foundings[party.name]
        keys = []
        for name in OFFICERS:
            _passphrase(party.folder / f"{name}.pass")
            made = party.json("officer", "init", f"{name}.key", "--name", name, "--passphrase-file", f"{name}.pass")
            keys.append(made["key"])
        write_yaml(party.folder / "policy.yaml", policy(item.site, item.draft, keys), note_of(item.site))
        for name in OFFICERS:
            party.run(
                *("officer", "policy", "sign", "policy.yaml", "--key", f"{name}.key"),
                *("--passphrase-file", f"{name}.pass", "--yes"),
            )
        party.run("officer", "policy", "activate", "policy.yaml", "--home", "home")
        party.run("node", "check", "--home", "home")

    def start(self) -> None:
        """Start the coordinator's and every institution's service, and wait until all their processes are up.

        Raises
        ------
        FederationError
            CSL-M131 when that takes too long.
        """
        self._services.append(self.coordinator.start("coordinator", "start", "--home", "home"))
        for party in self.members.values():
            self._services.append(party.start("node", "start", "--home", "home"))
        end = time.monotonic() + START_SECONDS
        while not self._on_line():
            if time.monotonic() > end:
                raise FederationError(
                    "CSL-M131",
                    f"Not every process was up within {START_SECONDS:g} seconds.",
                    f"See service.out and home/logs under {self.root}.",
                )
            time.sleep(1.0)

    def _on_line(self) -> bool:
        """Whether every party's service says that all its parts are up."""
        for party in (self.coordinator, *self.members.values()):
            try:
                state = json.loads((party.home / "run" / "service.json").read_text())
            except (OSError, ValueError):
                return False
            if any(child["state"] != "up" for child in state["children"]):
                return False
        return True

    def study(self, draft: StudyDraft, seconds: float = STUDY_SECONDS) -> dict[str, Any]:
        """Propose a study, run it to its end, and return the row that the coordinator's list shows of it.

        Raises
        ------
        FederationError
            CSL-M132 when it did not finish.
        """
        desk = self.coordinator
        write_yaml(desk.folder / "study.yaml", draft, draft.title)
        desk.run("coordinator", "study", "propose", "study.yaml", "--home", "home")
        desk.run("coordinator", "study", "start", draft.name, "--home", "home", "--watch", seconds=seconds)
        rows: list[dict[str, Any]] = desk.json("coordinator", "study", "list", "--home", "home")
        row = next(item for item in rows if item["study"] == draft.name)
        if row["state"] != "finished":
            raise FederationError(
                "CSL-M132",
                f"The study {draft.name} did not finish: {row['reason']}",
                "See home/logs of the coordinator.",
            )
        return row

    def stop(self) -> None:
        """Stop every service."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(Service.stop, self._services))
        self._services.clear()


def _unused(_: str) -> None:
    """Drop what a command printed: it stands in the log."""


def _passphrase(path: Path) -> None:
    atomic_write(path, secrets.token_urlsafe(24).encode() + b"\n", mode=0o600)


def short(draft: StudyDraft, rounds: int, partners: int) -> StudyDraft:
    """Return a draft with so many rounds, for a federation of so many institutions."""
    tree = draft.model_dump(mode="json")
    return StudyDraft.model_validate_json(json.dumps(tree | {"rounds": rounds, "min_partners": partners}))
