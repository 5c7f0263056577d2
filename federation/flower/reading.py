"""Reading what a stranger packed as a message: bounded in pieces, bytes and time, and never an error of its own.

Flower takes a message apart into objects, and puts together again whatever the other side uploaded. Here only the content counts, and only
if it is a message's; who sent it, and what it answers, is what the link or SuperNode has checked and says.
"""

import logging
import time
from collections.abc import Callable
from itertools import islice
from threading import Lock

from flwr.app import Error, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.runtime import RuntimeHttpClient

from federation.flower.backoff import FIRST_SECONDS, LONGEST_SECONDS
from federation.flower.errors import LINK_ERRORS
from federation.logs import where

logger = logging.getLogger("consilience.flower")
MAX_PIECES = 16
MAX_BYTES = 132 << 20


class MissingPiecesError(Exception):
    """The pieces of a message did not come in time, or are gone."""


class _TooMuchError(Exception):
    """A message has more pieces or bytes than any of ours."""


def read(
    client: RuntimeHttpClient, tree: ObjectTree, node: Node, run_id: int, seconds: float
) -> RecordDict | Error | None:
    """Return a message's content, or the error that it carries; None where it is no message, or too large.

    Raises
    ------
    MissingPiecesError
        When its pieces are not there after so many seconds.
    LINK_ERRORS
        When the other side is away, or the run is over.
    """
    confirm = make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, run_id)
    pull = make_pull_object_fn_protobuf(client.PullObject, node, run_id)
    try:
        if len(list(islice(iterate_object_tree(tree), MAX_PIECES + 1))) > MAX_PIECES:
            raise _TooMuchError
        message = pull_and_inflate_object_from_tree(
            tree,
            _bounded(pull),
            confirm,
            return_type=Message,
            max_time=seconds,
            max_tries_per_object=None,
            initial_backoff=FIRST_SECONDS,
            backoff_cap=LONGEST_SECONDS,
        )
        if message.has_error():
            return message.error
        return message.content if message.has_content() else None
    except LINK_ERRORS:
        raise
    except _TooMuchError:
        logger.warning("a message of more pieces or bytes than ours have")
        _pass_by(tree, pull, seconds)
        confirm(tree.object_id)
        return None
    except ObjectPullError as error:
        confirm(tree.object_id)  # it is not kept for somebody to read it
        raise MissingPiecesError from error
    except Exception as error:  # noqa: BLE001 - a stranger chose the bytes, and each kind of object fails in ways of its own
        logger.warning("a message that cannot be read: %s", where(error))
        confirm(tree.object_id)  # it is not kept for somebody to read it
        return None


def _bounded(pull: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return a pull that gives up when all pieces together are larger than any message; pieces are pulled by several threads."""
    total, lock = 0, Lock()

    def one(identifier: str) -> bytes:
        nonlocal total
        content = pull(identifier)
        with lock:
            total += len(content)
        if total > MAX_BYTES:
            raise _TooMuchError
        return content

    return one


def _pass_by(tree: ObjectTree, pull: Callable[[str], bytes], seconds: float) -> None:
    """Wait until all pieces are there, and keep none: who is still fetching them would fail if the message were done with before."""
    end = time.monotonic() + seconds

    def one(identifier: str) -> bytes:
        if time.monotonic() > end:
            raise MissingPiecesError
        pull(identifier)
        return b""

    try:
        pull_objects(
            [piece.object_id for piece in iterate_object_tree(tree)],
            one,
            max_time=seconds,
            max_tries_per_object=None,
            initial_backoff=FIRST_SECONDS,
            backoff_cap=LONGEST_SECONDS,
        )
    except ObjectPullError as error:
        raise MissingPiecesError from error
