"""One call to several members: the same or different bytes to each, and what each answered as agreed.

Whoever is silent, fails, declines or answers something else is named with a reason that holds nothing which it could have written.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import Message, RecordDict

from federation.document import Document
from federation.errors import DocumentError, IntegrityError
from federation.messages import unpack
from server.delivery import Send
from server.exchange import Answer, Clock, Failure, size_of, sort_replies
from server.grants import declined, unreadable

TRIES = 3
"""How often those are asked without whom it cannot go on. The pauses between let a vault that died start again."""
_PAUSE_SHARE = 0.1
_PAUSE_MOST = 10.0

M = TypeVar("M", bound=Document)
T = TypeVar("T")
Accept = Callable[[str, Answer], T | Failure]
"""Reads one member's answer: what it stands for, or why it cannot be used."""


@dataclass(frozen=True)
class Peer:
    """A member that takes part: where it is reached, and by which key its answers are checked."""

    member: str
    node_id: int
    key: str


class Line:
    """Asks the members of one study, and counts the bytes.

    Attributes
    ----------
    sent, received:
        Bytes of all calls so far.
    silent:
        The nodes that did not answer in time when they were last asked.
    """

    def __init__(self, peers: Mapping[str, Peer], send: Send, seconds: float, clock: Clock | None = None) -> None:
        self.peers = dict(peers)
        self._send = send
        self._seconds = seconds
        self._clock = clock or Clock()
        self.sent = 0
        self.received = 0
        self.silent: frozenset[int] = frozenset()

    @property
    def members(self) -> tuple[str, ...]:
        """Those who can be asked, in the order of their names."""
        return tuple(sorted(self.peers))

    def ask(
        self, kind: str, records: Mapping[str, RecordDict], group: int, doubtful: Collection[int] = ()
    ) -> dict[str, Answer]:
        """Ask each member in `records` once, within one deadline; `group` is the round, or 0; `doubtful` as `server.exchange.send`."""
        messages = {
            member: Message(
                content, self.peers[member].node_id, f"query.{kind}", ttl=self._seconds, group_id=str(group)
            )
            for member, content in sorted(records.items())
        }
        asked = list(messages.values())
        replies = self._send(asked, doubtful)
        self.sent += size_of(asked)
        self.received += size_of(replies)
        answers = sort_replies(asked, replies, self._seconds)
        nodes = {message.metadata.dst_node_id for message in asked}
        silent = {node for node in nodes if _is_silence(answers[node])}
        self.silent = frozenset((self.silent - nodes) | silent)
        return {member: answers[message.metadata.dst_node_id] for member, message in messages.items()}

    def gather(
        self, kind: str, records: Mapping[str, RecordDict], group: int, accept: Accept[T], tries: int = 1
    ) -> tuple[dict[str, T], dict[str, Failure]]:
        """Ask each member, those who failed up to `tries` times; return what was accepted, and why the others' answers were not.

        Where one try is all, who was silent when it was last asked is not waited for up to the deadline.
        """
        doubtful = self.silent if tries == 1 else ()
        found: dict[str, T] = {}
        failures: dict[str, Failure] = {}
        for attempt in range(tries):
            if attempt:
                self.pause()
            left = {member: content for member, content in records.items() if member not in found}
            failures = {}
            for member, answer in self.ask(kind, left, group, doubtful).items():
                read = accept(member, answer)
                if isinstance(read, Failure):
                    failures[member] = read
                else:
                    found[member] = read
            if not failures:
                break
        return found, failures

    def pause(self) -> None:
        """Wait a moment before somebody is asked again."""
        self._clock.sleep(min(_PAUSE_MOST, self._seconds * _PAUSE_SHARE))


def read(answer: Answer, model: type[M], peer: Peer) -> tuple[M, bytes] | Failure:
    """Return header and payload of a member's signed answer, or why there is none: CSL-S206 declined, CSL-S207 unreadable."""
    if isinstance(answer, Failure):
        return answer
    if declined(answer, peer.member, peer.key):
        return Failure("CSL-S206", "declined; its reason stays with it")
    try:
        return unpack(answer, model, peer.key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)


def another_sum(error: IntegrityError | DocumentError) -> Failure:
    """Return the failure for a statement that is readable and signed, and not of this sum; only our own code is shown."""
    return Failure("CSL-S220", f"sent a statement that does not belong here ({error.code})")


def _is_silence(answer: Answer) -> bool:
    return isinstance(answer, Failure) and answer.code == "CSL-S202"
