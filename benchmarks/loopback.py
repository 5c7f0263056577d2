"""A federation on this machine for benchmarks and tests: a link, SuperNodes, and a worker process beside each SuperNode.

The link and the SuperNodes are those of a real federation, with TLS, node keys and signed messages; what is missing is
the vault: the worker checks a request's signature and answers with as many random numbers, signed.

    with tempfile.TemporaryDirectory() as name, Loopback(Path(name), nodes=3) as federation:
        federation.play(1)

Whatever was started is killed at the end, and by the kernel if this process is killed first.
"""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from echo_worker import HOST, SHAPES, random_tensors
from flwr.app import Message, RecordDict

from federation.encoding import sha256_hex
from federation.errors import DocumentError, IntegrityError, OfflineError
from federation.flower.bundle import build_bundle
from federation.flower.commands import environment, superlink_command, supernode_command
from federation.flower.control import Control
from federation.flower.local import LINK_NODE_ID, identify
from federation.flower.runs import ServerTask
from federation.flower.tasks import TaskDesk
from federation.leash import leashed
from federation.messages import TrainRelease, TrainRequest, dump_tensors, pack, read_tensors, unpack
from federation.signing import public_hex
from server.certificates import create_authority, issue_server
from server.exchange import Failure, send, sort_replies

WORKER = Path(__file__).with_name("echo_worker.py").resolve()
STUDY = "5" * 64
START_SECONDS = 240.0
ROUND_SECONDS = 300.0
_END_SECONDS = 3.0


class Processes:
    """Processes of one deployment: started with a Flower folder of their own below `root`, by which they and their children are known."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], added: Mapping[str, str] | None = None) -> None:
        """Start a process; its output goes to `root`/NAME.log."""
        variables = {**os.environ, **environment(self._root / f"flower-{name}"), **(added or {})}
        variables |= {"OMP_NUM_THREADS": "1", "NO_PROXY": HOST, "no_proxy": HOST}
        with (self._root / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                leashed(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=variables
            )

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, when a process has ended."""
        for name, process in self._started.items():
            if process.poll() is not None:
                tail = (self._root / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{tail}")

    def resident(self) -> dict[str, float]:
        """Return the resident memory of each process that was started here, in MiB."""
        return {name: resident_mib(process.pid) for name, process in self._started.items()}

    def close(self) -> None:
        """End all of them, and whatever they started: first asked to, then killed."""
        for process in self._started.values():
            process.terminate()
        end = time.monotonic() + _END_SECONDS
        while self._living() and time.monotonic() < end:
            time.sleep(0.05)
            for process in self._started.values():
                process.poll()
        while left := self._living():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for process in self._started.values():
            process.wait()

    def _living(self) -> list[int]:
        """Return the processes whose Flower folder is below `root`: those started here, and theirs, whatever group they are in."""
        mark, found = f"FLWR_HOME={self._root}/flower-".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found


def resident_mib(pid: int) -> float:
    """Return a process's resident memory in MiB (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def free_ports(number: int) -> list[int]:
    """Return different ports on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for item in sockets:
            item.bind((HOST, 0))
        return [int(item.getsockname()[1]) for item in sockets]


@dataclass(frozen=True)
class Tls:
    """Files of a link: the authority that nodes trust, the server's certificate and key, and a secret."""

    authority: Path
    certificate: Path
    key: Path
    secret: Path

    @classmethod
    def make(cls, root: Path) -> Self:
        """Write them as a coordinator would, with its keys unsealed."""
        made = cls(root / "ca.pem", root / "server.pem", root / "server.key", root / "link.secret")
        now = datetime.now(UTC)
        authority = create_authority(root / "ca.key", made.authority, "loopback", now, allow_plain=True)
        issue_server(authority, (HOST, "localhost"), made.key, made.certificate, "loopback", now)
        write_private(made.secret, os.urandom(32))
        return made


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else may open."""
    path.touch(0o600)
    path.write_bytes(content)


def make_node_key(path: Path) -> str:
    """Write a SuperNode's private key, and return the public one as an OpenSSH line."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def wait_for(what: str, ready: Callable[[], bool], processes: Processes, seconds: float = START_SECONDS) -> None:
    """Wait until something holds. Raises RuntimeError when a process ended, TimeoutError when it takes longer."""
    end = time.monotonic() + seconds
    while not ready():
        processes.check()
        if time.monotonic() >= end:
            raise TimeoutError(f"{what} took more than {seconds:g} seconds")
        time.sleep(0.1)


def answers(control: Control) -> bool:
    """Whether the link answers."""
    try:
        control.nodes()
    except OfflineError:
        return False
    return True


def online(control: Control) -> int:
    """Return how many nodes are on line."""
    return sum(node.status == "online" for node in control.nodes())


@dataclass(frozen=True)
class Round:
    """Seconds from building the requests to having checked the last answer, and replies lost."""

    seconds: float
    lost: int


class Loopback:
    """A running federation and a run of it in this process. A context manager: entering starts it and waits until all nodes are on line.

    Parameters
    ----------
    root:
        An empty folder for its files, which the caller removes afterwards.
    nodes:
        How many institutions.
    memory:
        Whether the link keeps its state in memory, otherwise in `root`/link.sqlite.
    poll_seconds:
        The shortest pause of SuperNodes and workers between two questions.
    """

    def __init__(self, root: Path, *, nodes: int, memory: bool = False, poll_seconds: float = 0.1) -> None:
        self.database = None if memory else root / "link.sqlite"
        self.processes = Processes(root)
        self._root = root
        self._poll = poll_seconds
        self._key = Ed25519PrivateKey.generate()
        self._node_keys = [Ed25519PrivateKey.generate() for _ in range(nodes)]
        self._node_ids: list[int] = []
        self._stack = contextlib.ExitStack()
        self._payload = dump_tensors(random_tensors())

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

    def play(self, number: int) -> Round:
        """Play one round: signed requests to all, and every answer checked. `number` is 1, 2, ..."""
        self.identify()
        begun = time.perf_counter()
        requests = [self._request(place, number) for place in range(len(self._node_ids))]
        replies = send(self._task.grid, requests, ROUND_SECONDS)
        found = sort_replies(requests, replies, ROUND_SECONDS)
        good = sum(self._is_good(place, number, found[node]) for place, node in enumerate(self._node_ids))
        seconds = time.perf_counter() - begun
        if good < len(requests):
            self.processes.check()
        return Round(seconds, len(requests) - good)

    def identify(self) -> None:
        """Make this process speak for this federation's run, where it has several."""
        identify(self._task_id, self._task.run_id, LINK_NODE_ID)

    def rows(self) -> dict[str, int]:
        """Return how many rows each table of the link's database has; nothing for a link in memory."""
        return {} if self.database is None else count_rows(self.database)

    def _start(self, stack: contextlib.ExitStack) -> None:
        tls, (port, *ports) = Tls.make(self._root), free_ports(len(self._node_keys) + 1)
        address, authority = f"{HOST}:{port}", tls.authority.read_bytes()
        self.processes.start(
            "link",
            superlink_command(
                port=port,
                certificate=tls.certificate,
                key=tls.key,
                authority=tls.authority,
                secret=tls.secret,
                database=self.database,
            ),
        )
        control = stack.enter_context(Control(address, authority))
        wait_for("starting the link", lambda: answers(control), self.processes)
        bundle = build_bundle()
        for place, runtime in enumerate(ports):
            self._node_ids.append(control.register_node(make_node_key(self._root / f"node_{place}.key")))
            self._start_node(place, runtime, address, tls, sha256_hex(bundle))
        wait_for("starting the nodes", lambda: online(control) == len(ports), self.processes)
        control.start_run(bundle, {"study": "loopback"})
        desk = stack.enter_context(contextlib.closing(TaskDesk(address, authority, tls.secret.read_bytes(), "server")))
        claim = None
        while claim is None:
            claim = desk.acquire()
        self._task_id = claim.task_id
        self._task = stack.enter_context(ServerTask.open(address, authority, claim.token))

    def _start_node(self, place: int, port: int, address: str, tls: Tls, app: str) -> None:
        secret = self._root / f"node_{place}.secret"
        write_private(secret, os.urandom(32))
        self.processes.start(
            f"node_{place}",
            supernode_command(
                link=address,
                authority=tls.authority,
                node_key=self._root / f"node_{place}.key",
                runtime_port=port,
                secret=secret,
                poll_seconds=self._poll,
            ),
        )
        given = {
            "place": place,
            "port": port,
            "app": app,
            "poll_seconds": self._poll,
            "coordinator": public_hex(self._key),
            "key": self._node_keys[place].private_bytes_raw().hex(),
        }
        described = self._root / f"worker_{place}.json"
        write_private(described, json.dumps(given).encode())
        self.processes.start(f"worker_{place}", (sys.executable, str(WORKER), str(described)))

    def _request(self, place: int, number: int) -> Message:
        clip = 1.0 + place / 100  # each member's is its own, so that no two requests are the same bytes
        header = TrainRequest(
            study=STUDY, round=number, clip=clip, learning_rate=0.1, payload=sha256_hex(self._payload)
        )
        return Message(
            pack(self._key, header, self._payload),
            self._node_ids[place],
            "train",
            ttl=ROUND_SECONDS,
            group_id=str(number),
        )

    def _is_good(self, place: int, number: int, answer: RecordDict | Failure) -> bool:
        if isinstance(answer, Failure):
            return False
        try:
            release, payload = unpack(answer, TrainRelease, public_hex(self._node_keys[place]))
            read_tensors(payload, SHAPES)
        except (IntegrityError, DocumentError):
            return False
        return (release.member, release.round) == (f"node_{place}", number)


def count_rows(database: Path) -> dict[str, int]:
    """Return the number of rows of each table of an SQLite file that another process writes."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: int(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])  # noqa: S608
            for name in names
        }
