"""A run at the coordinator: the study loop that is installed here works on the link's grid, whatever the bundle that was pushed holds."""

import logging
from collections.abc import Callable, Iterable
from typing import Self

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SubStatus
from flwr.common.serde import message_from_proto, run_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

from federation.flower.backoff import shorten_backoff
from federation.flower.errors import APP_FAILED, is_gone
from federation.flower.local import identify
from federation.flower.reading import MissingPiecesError, read
from federation.flower.tasks import Heartbeat, open_client

logger = logging.getLogger("consilience.flower")
MAX_RETRY_SECONDS = 5
PUSHES = 5
READ_SECONDS = 30.0
"""How long the pieces of a reply may follow its head: 14 MiB at 4 megabits a second."""


class PatientGrid(HttpGrid):
    """Flower's grid, which reads replies with care, and begins a push anew when the link has taken a piece and its answer was lost.

    A call that is repeated after a lost answer is refused there, since the link waits for that piece no longer. Pushing the same messages
    again is harmless: the link knows them by their ids, and asks only for the pieces that it lacks.
    """

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies. What a member packed is bounded and may be anything: what cannot be read is an error, and nobody else's loss.

        Raises LINK_ERRORS.
        """
        found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=list(message_ids)))
        return [
            self._read(head, tree) for head, tree in zip(found.messages_list, found.message_object_trees, strict=True)
        ]

    def _read(self, head: ProtoMessage, tree: ObjectTree) -> Message:
        metadata = message_from_proto(head).metadata  # what the link has checked
        try:
            found = read(self._runtime_client, tree, self.node, self.run.run_id, READ_SECONDS)
        except MissingPiecesError:
            found = None
        if isinstance(found, RecordDict):
            message = make_message(metadata, found)
        else:
            message = make_message(metadata, error=found or Error(code=APP_FAILED, reason=""))
        message.metadata.__dict__["_message_id"] = head.metadata.message_id
        return message

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages. Raises LINK_ERRORS, and Flower's ObjectPushError after five attempts."""
        messages = list(messages)
        for _ in range(PUSHES - 1):
            try:
                return super().push_messages(messages)
            except ObjectPushError:
                logger.warning("a push is begun anew: the link's answer was lost")
        return super().push_messages(messages)


class ServerTask:
    """One run for the study loop: `grid` reaches the nodes; `finish` ends the run. A context manager."""

    def __init__(self, grid: HttpGrid, client: RuntimeHttpClient, run_id: int, run_config: dict[str, object]) -> None:
        self._grid = grid
        self._client = client
        self.grid: Grid = grid
        self.run_id = run_id
        self.run_config = run_config
        self._heartbeat = Heartbeat(client)

    @classmethod
    def open(cls, address: str, ca: bytes | None, token: str, stopped: Callable[[], bool] = lambda: False) -> Self:
        """Read a claimed task and connect its grid. While the link is away, the grid's calls wait for it; `stopped` ends the waiting.

        Raises LINK_ERRORS.
        """
        shorten_backoff()
        grid = PatientGrid(address, insecure=ca is None, root_certificates=ca, token=token)
        grid._retry_invoker = patient(stopped)  # Flower's own would interrupt this process when a run is stopped
        client = open_client(address, ca, token, "server")
        try:
            given = client.PullTaskInput(PullTaskInputRequest())
        except BaseException:
            client.close()
            raise
        run = run_from_proto(given.run)
        identify(given.task_id, run.run_id, given.context.node_id)
        grid.set_run(run)
        return cls(grid, client, run.run_id, dict(run.override_config))

    def finish(self, ok: bool, details: str) -> None:
        """End the run. Raises LINK_ERRORS."""
        status = SubStatus.COMPLETED if ok else SubStatus.FAILED
        self._grid._retry_invoker.max_tries = 3
        self._grid._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))

    def close(self) -> None:
        """Stop the heartbeat and close the connections."""
        self._heartbeat.stop()
        self._client.close()
        self._grid.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def patient(stopped: Callable[[], bool]) -> RetryInvoker:
    """Return what repeats a call while the link is away, with pauses that grow to a few seconds, and gives up when the run is over."""

    def give_up(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return is_gone(error) or error.response.status_code < 500
        return stopped()

    def note(state: object) -> None:
        logger.warning("the link is away: %s", type(getattr(state, "exception", None)).__name__)

    return RetryInvoker(
        wait_gen_factory=lambda: exponential(base_delay=0.2, max_delay=MAX_RETRY_SECONDS),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=None,
        on_backoff=note,
        should_giveup=give_up,
    )
