"""Asking nodes and sorting their answers: deadlines, silence, errors and double answers."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from federation.flower.errors import EXPIRED, UNREACHABLE
from federation.messages import RECORD

# The pause between two looks at the grid grows with the time waited, so that a fast round loses about a twentieth to it and a slow one does
# not keep the SuperLink busy; nor may looks take more than a third of a busy link's time.
_PAUSE_SHARE = 0.05
_PAUSE_LEAST = 0.002
_PAUSE_MOST = 0.5
# Somebody who was silent in the round before is asked again, and waited for as long as everybody else took, but at least this long.
_GRACE_SECONDS = 0.25
# A look at the grid that takes longer than this waits for a link that is away: that time is nobody's silence.
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Failure:
    """Why an answer cannot be used: a stable code and a sentence that holds nothing which a node could have written."""

    code: str
    reason: str


Answer = RecordDict | Failure


@dataclass(frozen=True)
class Clock:
    """Time as the exchange sees it; tests give their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def send(
    grid: Grid, messages: Sequence[Message], seconds: float, doubtful: Collection[int] = (), clock: Clock | None = None
) -> list[Message]:
    """Push requests and return the replies that come within `seconds`.

    Once all nodes but the `doubtful` ones answered, the others are given as long again (at least a quarter second): a node that hangs costs
    one full deadline, not one in every round. The deadline counts from when the requests are out, and stands still while the link is away.
    """
    clock = clock or Clock()
    pushed = {identifier for identifier in grid.push_messages(messages) if identifier}
    start = clock.now()
    waiting = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    waiting = {identifier: node for identifier, node in waiting.items() if identifier in pushed}
    replies: list[Message] = []
    end = start + seconds
    while waiting:
        asked = clock.now()
        got = list(grid.pull_messages(list(waiting)))
        replies.extend(got)
        for reply in got:
            waiting.pop(reply.metadata.reply_to_message_id, None)
        now = clock.now()
        end += max(0.0, now - asked - _LOOK_SECONDS)
        if waiting and all(node in doubtful for node in waiting.values()):
            end = min(end, now + max(now - start, _GRACE_SECONDS))
            doubtful = ()
        if not waiting or now >= end:
            break
        pause = min(max((now - start) * _PAUSE_SHARE, _PAUSE_LEAST), _PAUSE_MOST)
        pause = max(pause, min(2 * (now - asked), _LOOK_SECONDS))
        clock.sleep(min(pause, end - now))
    return replies


def sort_replies(asked: Sequence[Message], replies: Iterable[Message], seconds: float) -> dict[int, Answer]:
    """Return one answer or failure for each node that was asked.

    Replies are matched by the request that they answer, never by their sender: errors that the SuperLink makes carry its own node
    id. A reply to anything else is ignored. Failures: CSL-S202 silence, CSL-S203 more than one answer, CSL-S204 the node's app failed,
    CSL-S205 the node cannot be reached.
    """
    by_request: dict[str, list[Message]] = {}
    for reply in replies:
        by_request.setdefault(reply.metadata.reply_to_message_id, []).append(reply)
    answers: dict[int, Answer] = {}
    for message in asked:
        found = by_request.get(message.metadata.message_id, []) if message.metadata.message_id else []
        answers[message.metadata.dst_node_id] = _answer(found, seconds)
    return answers


def _answer(found: list[Message], seconds: float) -> Answer:
    if not found:
        return _silent(seconds)
    if len(found) > 1:
        return Failure("CSL-S203", "answered one request more than once")
    reply = found[0]
    if reply.has_error():
        if reply.error.code == EXPIRED:  # the deadline was over at the link a moment before it was here
            return _silent(seconds)
        if reply.error.code in UNREACHABLE:
            return Failure("CSL-S205", f"cannot be reached (Flower error {reply.error.code})")
        # The error's text comes from the node's machine and may hold anything: it is neither shown nor kept.
        return Failure("CSL-S204", f"failed while it answered (Flower error {reply.error.code})")
    return reply.content


def _silent(seconds: float) -> Failure:
    return Failure("CSL-S202", f"did not answer within {seconds:g} seconds")


def size_of(messages: Iterable[Message]) -> int:
    """Return how many bytes of header, signature and payload the messages carry."""
    total = 0
    for message in messages:
        record = message.content.get(RECORD) if message.has_content() else None
        if isinstance(record, ConfigRecord):
            total += sum(len(value) for value in record.values() if isinstance(value, bytes))
    return total
