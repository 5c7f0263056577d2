"""A Flower grid in one process: the same ServerApp and ClientApp objects, institutions in parallel, and faults to order.

Every node has a queue of its own, so that one institution answers one request at a time while institutions run beside each other,
as SuperNodes do. Requests and replies are copied on their way: nothing is shared by accident.
"""

import copy
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Self
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from federation.flower.errors import APP_FAILED, NODE_AWAY
from federation.flower.local import LINK_NODE_ID, Run, empty_run, identify

RUN_ID = 1
TASK_ID = 1
MAX_WORKERS = 16


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a node, and for which messages.

    `fail`: the app raises. `unreachable`: the SuperLink answers in the node's place. `hang`: the request is never handled. `lose`: it is
    handled, and the reply is lost. `twice`: the reply comes twice. `delay`: the reply comes `seconds` late. `alter`: the
    reply is passed through `change`. `types` and `groups` (a group is a round, as text) narrow it down; None means all.
    """

    kind: Literal["fail", "unreachable", "hang", "lose", "twice", "delay", "alter"]
    types: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    seconds: float = 0.0
    change: Callable[[Message], Message] | None = None

    def hits(self, message: Message) -> bool:
        """Return whether this request is to go wrong."""
        metadata = message.metadata
        return (self.types is None or metadata.message_type in self.types) and (
            self.groups is None or metadata.group_id in self.groups
        )


@dataclass
class _Node:
    app: ClientApp
    context: Context
    faults: tuple[Fault, ...]
    lock: threading.Lock = field(default_factory=threading.Lock)


class InjectedFaultError(RuntimeError):
    """What a node with the fault `fail` raises."""


class LocalGrid(Grid):
    """An in-process grid over `nodes`: node id -> (its ClientApp, its node_config).

    Parameters
    ----------
    nodes:
        The institutions; one and the same ClientApp object may serve several, told apart by their node_config.
    faults:
        What goes wrong, by node id.
    workers:
        How many institutions run at the same time; as many as there are cores, if not given.
    run_config:
        What the ClientApps find as the run's configuration.
    """

    def __init__(
        self,
        nodes: Mapping[int, tuple[ClientApp, UserConfig]],
        *,
        faults: Mapping[int, tuple[Fault, ...]] | None = None,
        workers: int | None = None,
        run_config: UserConfig | None = None,
    ) -> None:
        config = dict(run_config or {})
        self._nodes = {
            node_id: _Node(
                app, Context(RUN_ID, node_id, dict(own), RecordDict(), dict(config)), (faults or {}).get(node_id, ())
            )
            for node_id, (app, own) in nodes.items()
        }
        count = workers or min(len(nodes), os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(max_workers=max(1, min(count, MAX_WORKERS)), thread_name_prefix="institution")
        self._closing = threading.Event()
        self._news = threading.Condition()
        self._replies: dict[str, list[Message]] = {}
        self.set_run(empty_run(RUN_ID))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what has not begun, and wait for what has."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Set the run, and Flower's identity of the task that messages are made in."""
        self._run = run
        identify(TASK_ID, run.run_id, LINK_NODE_ID)

    @property
    def run(self) -> Run:
        """Run information."""
        return copy.copy(self._run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message; Flower's interface asks for it, although the constructor does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to their nodes and return their identifiers; a message to an unknown node is answered as Flower does."""
        identifiers = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            request = copy.deepcopy(message)
            identifiers.append(request.metadata.message_id)
            node = self._nodes.get(request.metadata.dst_node_id)
            if node is None:
                self._deliver(request, [_superlink_error(request)])
            else:
                self._pool.submit(self._serve, node, request).add_done_callback(_raise_bug)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come for these requests, each once."""
        with self._news:
            return self._take(set(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and wait for their replies, at most `timeout` seconds."""
        waiting = set(self.push_messages(messages))
        found: list[Message] = []
        with self._news:

            def all_answered() -> bool:
                got = self._take(waiting)
                found.extend(got)
                waiting.difference_update(reply.metadata.reply_to_message_id for reply in got)
                return not waiting

            self._news.wait_for(all_answered, timeout)
        return found

    def _take(self, identifiers: set[str]) -> list[Message]:
        return [reply for identifier in identifiers for reply in self._replies.pop(identifier, [])]

    def _deliver(self, request: Message, replies: list[Message]) -> None:
        with self._news:
            self._replies.setdefault(request.metadata.message_id, []).extend(copy.deepcopy(reply) for reply in replies)
            self._news.notify_all()

    def _serve(self, node: _Node, request: Message) -> None:
        fault = next((item for item in node.faults if item.hits(request)), None)
        kind = fault.kind if fault else None
        if self._closing.is_set() or kind == "hang":
            return
        if kind == "unreachable":
            self._deliver(request, [_superlink_error(request)])
            return
        reply = self._call(node, request, kind == "fail")
        if fault and kind == "alter" and fault.change is not None:
            reply = fault.change(reply)
        if fault and kind == "delay":
            # A timer, so that a slow line does not hold one of the few workers.
            late = threading.Timer(fault.seconds, self._deliver, (request, [reply]))
            late.daemon = True
            late.start()
        elif kind != "lose":
            self._deliver(request, [reply, reply] if kind == "twice" else [reply])

    def _call(self, node: _Node, request: Message, fail: bool) -> Message:
        with node.lock:
            try:
                if fail:
                    raise InjectedFaultError("ordered")
                return node.app(request, node.context)
            except Exception as error:  # noqa: BLE001 - stands for the boundary of the node's process, and answers as Flower does there
                reason = f"{type(error)}:<'{error}'>"
                return Message(Error(code=APP_FAILED, reason=reason), reply_to=request)


def _raise_bug(future: "Future[None]") -> None:
    """Let an error of the grid itself reach the log of the pool's thread instead of vanishing."""
    if not future.cancelled():
        future.result()


def _superlink_error(request: Message) -> Message:
    """Answer in a node's place, as the SuperLink does: from its own node id."""
    reply = Message(Error(code=NODE_AWAY, reason="Node Unavailable"), reply_to=request)
    reply.metadata.__dict__["_src_node_id"] = LINK_NODE_ID
    return reply


def run_study(server_app: ServerApp, grid: LocalGrid, run_config: UserConfig | None = None) -> None:
    """Execute a ServerApp on a local grid; its errors rise."""
    server_app(grid, Context(RUN_ID, LINK_NODE_ID, {}, RecordDict(), dict(run_config or {})))
