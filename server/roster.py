"""The roster: which node is which member, proved by a signature under the charter's keys over a fresh nonce."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from federation.charter import Charter
from federation.errors import DocumentError, IntegrityError
from federation.messages import Hello, Identity, claimed, pack, unpack
from server.events import LeftOut, OnEvent
from server.exchange import Clock, Failure, sort_replies

MESSAGE_TYPE = "query.hello"
PHASE = "roster"
UNREACHED = "CSL-S205"
# All who are expected are there, and a node is still silent: it is given this long to turn out to be one of them a second time.
_SETTLE_SECONDS = 1.0
_PAUSE_SECONDS = 0.02
_AGAIN_SECONDS = 2.0


@dataclass
class Roster:
    """Member id -> node id; a member that two nodes claim is in neither."""

    nodes: dict[str, int] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)

    def admit(self, member: str, node_id: int) -> bool:
        """Note that a node proved to be a member; False when another node proved the same, and then neither counts."""
        if member in self.doubled or self.nodes.get(member, node_id) != node_id:
            self.nodes.pop(member, None)
            self.doubled.add(member)
            return False
        self.nodes[member] = node_id
        return True


def identify(reply: RecordDict, hello: Hello, charter: Charter) -> str:
    """Return the member that signed this answer to `hello`.

    Raises
    ------
    IntegrityError
        When no member of the charter signed it, or it answers another nonce or charter (CSL-S302).
    DocumentError
        When it is no identity at all.
    """
    member = charter.member(claimed(reply, Identity).member)
    identity, _ = unpack(reply, Identity, member.key)
    if identity.nonce != hello.nonce or identity.charter != hello.charter:
        raise IntegrityError("CSL-S302", "The node answered another question than it was asked.", "Ask it again.")
    return identity.member


class RollCall:
    """Asks every node that turns up who it is, until all expected members are there or the time is over.

    A member whose ledger was witnessed before (`note_of` returns the note) is asked a second time, with the note: a vault that runs on an
    older copy of its ledger learns of it, and takes part in nothing.
    """

    def __init__(
        self,
        grid: Grid,
        charter: Charter,
        key: Ed25519PrivateKey,
        nonce: Callable[[], str],
        on_event: OnEvent,
        clock: Clock,
        note_of: Callable[[str], str | None],
    ) -> None:
        self._grid = grid
        self._charter = charter
        self._key = key
        self._nonce = nonce
        self._on_event = on_event
        self._clock = clock
        self._note_of = note_of
        self._asked: dict[str, tuple[Message, Hello]] = {}
        self._known: set[int] = set()
        self._again: dict[int, float] = {}
        self._told: set[tuple[str, str]] = set()
        self._reminded: dict[int, str] = {}
        self.roster = Roster()

    def wait(self, expected: Collection[str], seconds: float) -> Roster:
        """Return the roster; members that are not `expected` are ignored."""
        start = complete_since = self._clock.now()
        while True:
            self._greet()
            self._listen(expected)
            now = self._clock.now()
            complete = all(member in self.roster.nodes or member in self.roster.doubled for member in expected)
            if not complete:
                complete_since = now
            settled = complete and (not self._asked or now - complete_since >= _SETTLE_SECONDS)
            if settled or now - start >= seconds:
                return self.roster
            self._clock.sleep(_PAUSE_SECONDS)

    def _greet(self) -> None:
        now = self._clock.now()
        fresh = [
            node_id
            for node_id in self._grid.get_node_ids()
            if node_id not in self._known or self._again.get(node_id, math.inf) <= now
        ]
        self._known.update(fresh)
        for node_id in fresh:
            self._again.pop(node_id, None)
        self._push({node_id: None for node_id in fresh})

    def _push(self, notes: Mapping[int, str | None]) -> None:
        """Ask nodes who they are, each with the note that is to be compared, if any."""
        if not notes:
            return
        hellos = [Hello(charter=self._charter.digest(), nonce=self._nonce(), note=note) for note in notes.values()]
        messages = [
            Message(pack(self._key, hello), node_id, MESSAGE_TYPE) for node_id, hello in zip(notes, hellos, strict=True)
        ]
        pushed = {identifier for identifier in self._grid.push_messages(messages) if identifier}
        for message, hello in zip(messages, hellos, strict=True):
            if message.metadata.message_id in pushed:
                self._asked[message.metadata.message_id] = (message, hello)

    def _listen(self, expected: Collection[str]) -> None:
        if not self._asked:
            return
        by_request: dict[str, list[Message]] = {}
        for reply in self._grid.pull_messages(list(self._asked)):
            by_request.setdefault(reply.metadata.reply_to_message_id, []).append(reply)
        for request, replies in by_request.items():
            if request in self._asked:
                message, hello = self._asked.pop(request)
                self._hear(message, hello, replies, expected)

    def _hear(self, message: Message, hello: Hello, replies: list[Message], expected: Collection[str]) -> None:
        node_id = message.metadata.dst_node_id
        answer = sort_replies([message], replies, 0.0)[node_id]
        if isinstance(answer, Failure):
            self._leave_out(f"node {node_id}", answer.code, answer.reason)
            if answer.code == UNREACHED:  # it may be back in a minute, as the same node
                self._again[node_id] = self._clock.now() + _AGAIN_SECONDS
            return
        try:
            member = identify(answer, hello, self._charter)
        except (IntegrityError, DocumentError):
            self._unproved(node_id)
            return
        note = self._note_of(member) if member in expected and hello.note is None else None
        if note is not None:
            self._reminded[node_id] = member
            self._push({node_id: note})
        elif member in expected and not self.roster.admit(member, node_id):
            self._leave_out(
                member, "CSL-S303", "two nodes proved to be this member; neither takes part until one is stopped"
            )

    def _unproved(self, node_id: int) -> None:
        """Report a node that did not identify itself; what it wrote is a stranger's text, and is neither shown nor kept."""
        member = self._reminded.get(node_id)
        if member is None:
            self._leave_out(f"node {node_id}", "CSL-S301", "did not prove to be a member of this charter")
        else:
            self._leave_out(
                member,
                "CSL-S706",
                "declined when it was shown its last witnessed head: its ledger may be an older copy",
            )

    def _leave_out(self, who: str, code: str, reason: str) -> None:
        if (who, code) not in self._told:
            self._told.add((who, code))
            self._on_event(LeftOut(phase=PHASE, round=0, who=who, code=code, reason=reason))
