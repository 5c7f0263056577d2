"""A coordinator that turned hostile: it owns the coordinator's home and key, runs the link, and sends every node what it likes.

It does without our executor and study loop. It uses Flower's own internals where a decent coordinator would not need them: to send message
types that the library does not let through, and objects that are none.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.request import urlopen

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from federation.flower.bundle import build_bundle
from federation.flower.control import Control
from federation.flower.local import LINK_NODE_ID, identify
from federation.flower.runs import ServerTask
from federation.flower.tasks import TaskDesk
from federation.messages import RECORD
from server.service.start import children
from tests.client.vault_home import CANARY
from tests.e2e.deployed import PATIENCE, Deployed, wait_for, with_group

FIELDS = ("header", "signature", "payload")
WORD = b"canary-"
"""What every customer's value that must never be told begins with; no line of our own code holds it."""


@dataclass
class Run:
    """A run that the attacker started, and the task through which it speaks."""

    task: ServerTask
    task_id: int
    run_id: int


@dataclass(frozen=True)
class Piece:
    """An object as Flower carries it: whatever bytes, under a type's name, with pieces below it."""

    kind: str
    body: bytes
    below: tuple["Piece", ...] = ()

    @property
    def content(self) -> bytes:
        names = ",".join(piece.name for piece in self.below)
        return f"{self.kind} {names} {len(self.body)}".encode() + b"\0" + self.body

    @property
    def name(self) -> str:
        return sha256(self.content).hexdigest()

    @property
    def tree(self) -> ObjectTree:
        return ObjectTree(object_id=self.name, children=[piece.tree for piece in self.below])

    def all(self) -> Iterator["Piece"]:
        for piece in self.below:
            yield from piece.all()
        yield self


class HostileCoordinator:
    """Runs the link of a coordinator's home and no other process of it.

    `returned` is every byte that came back from the nodes.
    """

    def __init__(self, federation: Deployed, victims: Sequence[str]) -> None:
        self._federation = federation
        self._home = federation.office
        self._address = f"127.0.0.1:{self._home.config().link_port}"
        self._authority = self._home.authority_file.read_bytes()
        self.victims = tuple(victims)
        self.nodes: dict[str, int] = {}
        self.returned: list[bytes] = []
        self._tasks: list[ServerTask] = []
        link = children(self._home)[0]
        with link.log.open("ab") as log:
            self._link = subprocess.Popen(
                link.command,
                env={**os.environ, **link.environment, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def open(self) -> None:
        """Wait for the link, and let the victims' nodes in."""
        wait_for(lambda: _listens(self._address), "the attacker's link listens", PATIENCE)
        secret = self._home.link_secret.read_bytes()
        self.control = Control(self._address, self._authority)
        self._desk = TaskDesk(self._address, self._authority, secret, "server")
        for member in self.victims:
            key = self._federation.town.charter.member(member).node_key
            assert key is not None
            self.nodes[member] = self.control.register_node(key)

    def wait_online(self) -> None:
        online = lambda: {row.node_id for row in self.control.nodes() if row.status == "online"}  # noqa: E731
        wait_for(lambda: set(self.nodes.values()) <= online(), "the victims are on line", PATIENCE)

    def close(self) -> None:
        for task in self._tasks:
            task.close()
        for name in ("control", "_desk"):
            if hasattr(self, name):
                getattr(self, name).close()
        self._link.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._link.wait(timeout=15)
        with_group(self._link.pid, 9)
        self._link.wait()

    # -- runs

    def run(self, bundle: bytes | None = None, config: Mapping[str, str] | None = None) -> Run:
        """Start a run, of the charter's app unless another is given."""
        run_id = self.control.start_run(build_bundle() if bundle is None else bundle, config or {})
        end = time.monotonic() + PATIENCE
        while (claim := self._desk.acquire()) is None or claim.run_id != run_id:
            assert time.monotonic() < end, "the link gives no task for the run"
            time.sleep(0.05)
        task = ServerTask.open(self._address, self._authority, claim.token, lambda: True)
        task._grid._retry_invoker.max_tries = 2
        self._tasks.append(task)
        return Run(task, claim.task_id, run_id)

    def message(self, run: Run, member: str, kind: str, records: RecordDict, ttl: float = 300.0) -> Message:
        identify(run.task_id, run.run_id, LINK_NODE_ID)
        made = Message(records, self.nodes[member], "query", ttl=ttl)
        made.metadata.__dict__["_message_type"] = kind  # Flower's own setter knows which types there are
        return made

    # -- messages

    def push(self, run: Run, messages: Sequence[Message]) -> list[str]:
        return list(run.task.grid.push_messages(messages))

    def push_pieces(self, run: Run, head: Message, pieces: Piece) -> str:
        """Send a message whose content is not what its head says, nor anything at all."""
        head.metadata.__dict__["_message_id"] = pieces.name
        client = run.task._grid._runtime_client
        request = PushAppMessagesRequest(messages_list=[message_to_proto(head)], message_object_trees=[pieces.tree])
        pushed = client.PushMessages(request)
        missing = set(pushed.objects_to_push)
        for piece in pieces.all():
            if piece.name in missing:
                client.PushObject(
                    PushObjectRequest(
                        node=run.task._grid.node,
                        session_id=pushed.session_id,
                        object_id=piece.name,
                        object_content=piece.content,
                    )
                )
        return pieces.name

    def pull(self, run: Run, names: Sequence[str], seconds: float = PATIENCE) -> dict[str, Message]:
        """Wait for the replies to some messages, by the messages' names; what does not come in time is not there."""
        waiting, found, end = set(names), dict[str, Message](), time.monotonic() + seconds
        while waiting and time.monotonic() < end:
            for reply in run.task.grid.pull_messages(list(waiting)):
                self.returned += [item.deflate() for item in get_all_nested_objects(reply).values()]
                found[reply.metadata.reply_to_message_id] = reply
                waiting.discard(reply.metadata.reply_to_message_id)
            time.sleep(0.05)
        return found

    def ask(self, run: Run, kind: str, records: RecordDict | Mapping[str, RecordDict]) -> dict[str, Message]:
        """Send every victim a message, the same one or its own, and return the replies by member."""
        own = records if isinstance(records, Mapping) and not isinstance(records, RecordDict) else None
        messages = [self.message(run, m, kind, own[m] if own else records) for m in self.victims]
        names = self.push(run, messages)
        found = self.pull(run, names)
        assert set(found) == set(names), f"no reply to {kind}"
        return {member: found[name] for member, name in zip(self.victims, names, strict=True)}


def fields_of(reply: Message) -> tuple[bytes, ...]:
    """All that a reply says; it says it in one record of three fields."""
    assert reply.has_content(), reply.error
    assert list(reply.content) == [RECORD]
    record = reply.content[RECORD]
    assert isinstance(record, ConfigRecord) and set(record) == set(FIELDS)
    return tuple(bytes(record[name]) for name in FIELDS)


def spoil(federation: Deployed) -> None:
    """Put what must never be told where a parser will stumble over it: a bad row at one member, a file that does not parse at another."""
    for member, row in {
        "alder": f"{CANARY}-row,canary-years,canary-job,canary-loan,canary-outcome\n",
        "birch": f'{CANARY}-row,"canary-years",canary-a,canary-b,canary-c\n"canary-unclosed,1,2\n',
    }.items():
        with (federation.home(member) / "customers.csv").open("a") as file:
            file.write(row)


def shadowing_bundle(trap: Path, prey: Path) -> bytes:
    """An app whose folder holds a `client` of its own: imported, it leaves a file and prints customers."""
    body = (
        f"from pathlib import Path\nPath({str(trap)!r}).write_text(__file__)\nprint(Path({str(prey)!r}).read_text())\n"
    )
    project = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "consilience"
version = "99.0.0"
description = "Not the app that was agreed on"
license = "Apache-2.0"
dependencies = ["flwr==1.41.0"]

[tool.flwr.app]
publisher = "consilience"
fab-include = ["client/**/*.py", "server/**/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
home = ""
passphrase-file = ""
"""
    app = "from flwr.{0}app import {1}App\napp = {1}App()\n"
    files = {
        "pyproject.toml": project,
        "client/__init__.py": body,
        "client/app.py": body + app.format("client", "Client"),
        "client/vault.py": body,
        "client/service/__init__.py": body,
        "server/__init__.py": "",
        "server/app.py": app.format("server", "Server"),
    }
    return build_fab_from_files({name: text.encode() for name, text in files.items()})[0]


def figures(port: int) -> dict[str, float]:
    """What a metrics port shows: values by their names with labels."""
    lines = scrape(port).splitlines()
    pairs = [line.rpartition(" ") for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


def scrape(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def resident(pid: int) -> int:
    """A process's memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def holding(word: bytes, *roots: Path) -> list[Path]:
    """The files under some folders that hold a word."""
    files = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return [path for path in files if path.is_file() and word in path.read_bytes()]


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        return False
    return True
