"""Taking tasks from Flower's Runtime API, and answering an institution's in this process.

Flower's own workers install and run the bundle that was pushed. This does not: it reads the message, and the caller runs the code that
is installed here. A bundle is only compared by its digest.
"""

import base64
import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import httpx
from flwr.app import Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_from_proto, message_from_proto, message_to_proto, run_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError, push_objects
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient

from federation.encoding import sha256_hex
from federation.errors import StorageError
from federation.files import atomic_write
from federation.flower.errors import LINK_ERRORS, is_gone
from federation.flower.local import identify
from federation.flower.reading import MissingPiecesError, read

logger = logging.getLogger("consilience.flower")
Kind = Literal["client", "server"]
_TYPES: dict[Kind, tuple[str, ...]] = {
    # A link that calls a run an agent's would otherwise have the SuperNode wait for ever: nobody else takes such a task.
    "client": (TaskType.CLIENT_APP, TaskType.AGENT_APP),
    "server": (TaskType.SERVER_APP,),
}
_COMPONENTS: dict[Kind, str] = {"client": "flwr-clientapp", "server": "flwr-serverapp"}
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
HEARTBEAT_SECONDS = 10.0
READ_SECONDS = 30.0
Stage = Literal["taken", "held", "replying", "replied"]
"""How far a worker is with a task: it has the right to it, has read it, begins to hand over the reply, has handed it over."""


class LostTaskError(Exception):
    """A SuperNode may wait for the answer to a task of which a killed worker left too little to give it, or too much to give it again."""


@dataclass(frozen=True)
class Claim:
    """A task that this process has taken: `token` opens it, and nobody else can take it while heartbeats come."""

    token: str
    task_id: int
    run_id: int
    kind: Kind


class TaskDesk:
    """Asks one Runtime API for tasks of one kind. Not for several threads at once."""

    def __init__(self, address: str, ca: bytes | None, secret: bytes, kind: Kind) -> None:
        """Connect lazily to `address` (host:port); `ca` is the authority's PEM, or None for plain HTTP on loopback."""
        self._kind: Kind = kind
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=ca is None,
            root_certificates=ca,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE),
            ],
        )

    def acquire(self) -> Claim | None:
        """Take the oldest waiting task, or None.

        Raises
        ------
        LINK_ERRORS
            When the Runtime API is away, or refuses the secret.
        """
        found = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=_TYPES[self._kind]))
        if not (found.HasField("task") and found.token):
            return None
        return Claim(found.token, found.task.task_id, found.task.run_id, self._kind)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Heartbeat:
    """Tells the Runtime API every few seconds that the task is alive; the first refusal is final."""

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            try:
                if not self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                    return
            except httpx.HTTPError as error:
                if is_gone(error):
                    return
                logger.warning("a heartbeat did not arrive: %s", type(error).__name__)

    def stop(self) -> None:
        """Tell it no more, and wait for the thread."""
        self._over.set()
        self._thread.join(timeout=HEARTBEAT_SECONDS)


def open_client(address: str, ca: bytes | None, token: str, kind: Kind) -> RuntimeHttpClient:
    """Return a client of the Runtime API that speaks for one task; it connects lazily."""
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=ca is None,
        root_certificates=ca,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name=_COMPONENTS[kind]),
            RuntimeTokenHttpInterceptor(token),
        ],
    )


class ClientTask:
    """One message for a vault: read it from `message`, check `app`, then `reply` and `finish`. A context manager.

    Attributes
    ----------
    message:
        The request, whole.
    app:
        SHA-256 of the bundle that was pushed with it, by its bytes (64 hexadecimal digits); "" for a resumed task, which was checked.
    """

    def __init__(
        self, client: RuntimeHttpClient, token: str, message: Message, node_id: int, run_id: int, app: str
    ) -> None:
        self._client = client
        self._token = token
        self._node = Node(node_id=node_id)
        self.message = message
        self.run_id = run_id
        self.app = app
        self._heartbeat = Heartbeat(client)

    @classmethod
    def open(cls, address: str, ca: bytes | None, token: str) -> Self:
        """Read a claimed task. Raises LINK_ERRORS."""
        client = open_client(address, ca, token, "client")
        try:
            given = client.PullTaskInput(PullTaskInputRequest())
            run, fab = run_from_proto(given.run), fab_from_proto(given.fab)
            node_id = given.context.node_id
            identify(given.task_id, run.run_id, node_id)
            pulled = client.PullMessages(PullAppMessagesRequest())
            if not pulled.messages_list:
                raise httpx.RequestError("the SuperNode has no message for this task")
            tree = pulled.message_object_trees[0]
            # What the SuperNode has read says what the message is; of what the coordinator packed only the content counts.
            metadata = message_from_proto(pulled.messages_list[0]).metadata
            message = make_message(metadata, _content(client, tree, Node(node_id=node_id), run.run_id))
        except BaseException:
            client.close()
            raise
        message.metadata.__dict__["_message_id"] = tree.object_id
        return cls(client, token, message, node_id, run.run_id, sha256_hex(fab.content))

    def save(self, path: Path) -> None:
        """Keep the task (0600), so that a worker that is started again after a kill can answer it. Raises StorageError CSL-F301."""
        self._note(path, "held", message=base64.b64encode(message_to_proto(self.message).SerializeToString()).decode())

    def note(self, path: Path, stage: Literal["replying", "replied"]) -> None:
        """Keep how far the reply is, in the place of the task itself. Raises StorageError CSL-F301."""
        self._note(path, stage)

    def _note(self, path: Path, stage: Stage, **more: str) -> None:
        numbers = {"node_id": self._node.node_id, "run_id": self.run_id}
        note_task(path, stage, token=self._token, message_id=self.message.metadata.message_id, **numbers, **more)

    @classmethod
    def resume(cls, address: str, ca: bytes | None, path: Path) -> Self | None:
        """Return the task that a worker had when it was killed, or None where nothing is left to answer.

        The task may be over: `reply` then raises. A task that was taken and not read yet is read now; one that was answered is finished.

        Raises
        ------
        StorageError
            CSL-F333 when the file cannot be read.
        LostTaskError
            When the SuperNode waits for an answer that nobody can give any more, or may do so.
        LINK_ERRORS
            When it is away.
        """
        kept = _read_note(path)
        if kept is None:
            return None
        token = kept["token"]
        if kept["stage"] == "taken":
            return cls._take_up(address, ca, token)
        if kept["stage"] != "held":
            _settle(address, ca, token, kept["stage"])
            return None
        try:
            message = message_from_proto(ProtoMessage.FromString(base64.b64decode(kept["message"])))
            message.metadata.__dict__["_message_id"] = kept["message_id"]
            node_id, run_id = int(kept["node_id"]), int(kept["run_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path) from error
        identify(0, run_id, node_id)
        return cls(open_client(address, ca, token, "client"), token, message, node_id, run_id, "")

    @classmethod
    def _take_up(cls, address: str, ca: bytes | None, token: str) -> Self | None:
        try:
            return cls.open(address, ca, token)
        except LINK_ERRORS as error:
            if is_gone(error):
                return None
            if isinstance(error, httpx.TransportError):
                raise
            raise LostTaskError from error

    def reply(self, message: Message) -> None:
        """Hand the reply to the SuperNode.

        Raises
        ------
        LINK_ERRORS
            When nothing of it was handed over, because nobody listens, or nobody waits for it any more.
        LostTaskError
            When it may have arrived, in part or whole: a second one would stand before the next.
        """
        try:
            self._push(message)
        except httpx.ConnectError:
            raise
        except ObjectPushError as error:
            raise LostTaskError from error
        except LINK_ERRORS as error:
            if is_gone(error):
                raise
            raise LostTaskError from error

    def _push(self, message: Message) -> None:
        message.metadata.__dict__["_message_id"] = message.object_id
        head = message_to_proto(remove_content_from_message(message))
        with no_object_id_recompute():
            tree, objects = get_object_tree(message), get_all_nested_objects(message)
            pushed = self._client.PushMessages(
                PushAppMessagesRequest(messages_list=[head], message_object_trees=[tree])
            )
            push_objects(
                objects,
                make_push_object_fn_protobuf(
                    self._client.PushObject, self._node, run_id=self.run_id, session_id=pushed.session_id
                ),
                object_ids_to_push=set(pushed.objects_to_push),
            )

    def finish(self, ok: bool) -> None:
        """Tell the SuperNode that the task is over. The run's context goes back unchanged: nothing is kept in it. Raises LINK_ERRORS."""
        status = SubStatus.COMPLETED if ok else SubStatus.FAILED
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))

    def close(self) -> None:
        """Stop the heartbeat and close the connection."""
        self._heartbeat.stop()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _content(client: RuntimeHttpClient, tree: ObjectTree, node: Node, run_id: int) -> RecordDict:
    """Return what a message carries: nothing, which a vault refuses like all else, where the coordinator packed what is no message."""
    try:
        found = read(client, tree, node, run_id, READ_SECONDS)
    except MissingPiecesError as error:
        # So a SuperNode leaves a message whose run was stopped while it fetched it: it does not wait for the answer, and would take it
        # for the next message's.
        raise LostTaskError from error
    return found if isinstance(found, RecordDict) else RecordDict()


def note_task(path: Path, stage: Stage, token: str, **more: str | int) -> None:
    """Keep how far a worker is with a task (0600).

    Nothing is flushed to the disk: when the machine ends, so does the SuperNode, and with it every task.

    Raises
    ------
    StorageError
        CSL-F301.
    """
    atomic_write(path, json.dumps({"stage": stage, "token": token, **more}).encode(), mode=0o600, durable=False)


def _read_note(path: Path) -> dict[str, str] | None:
    try:
        kept = json.loads(path.read_bytes())
        return {**kept, "stage": str(kept["stage"]), "token": str(kept["token"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path) from error


def _settle(address: str, ca: bytes | None, token: str, stage: str) -> None:
    """End a task that was answered. Of one in whose answer the worker was killed nobody knows: a second one would stand before the next."""
    client = open_client(address, ca, token, "client")
    try:
        if stage == "replied":
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))
        elif client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
            raise LostTaskError
    except httpx.HTTPStatusError as error:
        if not is_gone(error):
            raise LostTaskError from error
    finally:
        client.close()


def _unreadable(path: Path) -> StorageError:
    return StorageError("CSL-F333", f"{path} does not hold a saved task.", "Delete it, and start the node again.")
