"""Set-up: the members of a study agree on pairwise keys through the coordinator, before anybody trains; it costs no budget.

Three calls: fresh public keys, what each seals to the others, and the word that all hold the same. Whoever does not answer as agreed is
left out, and what the others sealed for it is void: from the second call on, the remaining ones begin anew, in a later attempt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from federation.charter import Charter
from federation.document import Document
from federation.errors import DocumentError, FederationError, IntegrityError
from federation.messages import pack, signature_of
from federation.secure import (
    EpochExchanges,
    EpochKey,
    EpochKeys,
    EpochReady,
    EpochRequest,
    Exchanges,
    SignedEpochKey,
    SignedExchange,
)
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.secure_aggregation.derivation import digest_of
from privacy.secure_aggregation.keys import check_key
from privacy.secure_aggregation.roster import Roster
from server.checkpoint import LAST_ATTEMPT, Epoch
from server.events import LeftOut, OnEvent, SetUpStarted
from server.exchange import Answer, Failure
from server.planning import least_partners
from server.secure.calls import Line, Peer, another_sum, read

PHASE = "set-up"
ATTEMPTS = 3
_TRIES = 2

M = TypeVar("M", bound=Document)
T = TypeVar("T")


class SetUp:
    """The set-up of one study with those that `line` reaches."""

    def __init__(
        self, spec: StudySpec | StatisticsSpec, charter: Charter, key: Ed25519PrivateKey, line: Line, on_event: OnEvent
    ) -> None:
        self._study = spec.digest()
        self._least = least_partners(spec.draft)
        self._plan = spec.secure
        self._charter = charter
        self._key = key
        self._line = line
        self._on_event = on_event

    def run(self, begun: int, note: Callable[[int], None]) -> Epoch:
        """Set up; `begun` is the last attempt of an earlier run, and `note` keeps an attempt before anybody is asked.

        Raises
        ------
        FederationError
            CSL-S221 when too few members are left, or the last attempt failed.
        """
        members: Sequence[str] = self._line.members
        for attempt in range(begun + 1, min(begun + ATTEMPTS, LAST_ATTEMPT) + 1):
            self._check_enough(members)
            note(attempt)
            self._on_event(SetUpStarted(attempt, tuple(members)))
            members, done = self._attempt(attempt, members)
            if done:
                return Epoch(attempt=attempt, members=tuple(members))
        self._check_enough(members)
        raise FederationError(
            "CSL-S221",
            f"The members could not agree on keys in {ATTEMPTS} attempts; nothing was spent.",
            "Look at who was left out, bring them back, and run the study again: it begins anew with the keys.",
        )

    def _attempt(self, attempt: int, members: Sequence[str]) -> tuple[Sequence[str], bool]:
        """Make one attempt; return who is left, and whether all of them hold keys."""
        keys = self._keys(attempt, members)
        members = sorted(keys)
        if len(members) < self._least:
            return members, False
        everything = tuple(keys[member] for member in members)
        sent = self._exchanges(attempt, everything)
        if len(sent) < len(members):
            return sorted(sent), False
        ready = self._ready(attempt, everything, sent)
        return sorted(ready), len(ready) == len(members)

    def _keys(self, attempt: int, members: Sequence[str]) -> dict[str, SignedEpochKey]:
        def accept(member: str, answer: Answer) -> SignedEpochKey | Failure:
            found = self._read(member, answer, EpochKey)
            if isinstance(found, Failure):
                return found
            if (found.id, found.epoch, found.roster) != (member, self._study, self._charter.digest()):
                return _wrong("a key of another study, charter or member")
            try:
                # All others would fail at a key that is none, and be left out for it.
                check_key(found)
            except IntegrityError as error:
                return _wrong(f"a key that nobody can seal to ({error.code})")
            assert not isinstance(answer, Failure)
            return SignedEpochKey(message=found, signature=signature_of(answer, self._line.peers[member].key).value)

        records = pack(self._key, EpochRequest(study=self._study, attempt=attempt))
        return self._gather("epoch", dict.fromkeys(members, records), accept)

    def _exchanges(self, attempt: int, keys: tuple[SignedEpochKey, ...]) -> dict[str, tuple[SignedExchange, ...]]:
        members = [item.message.id for item in keys]
        assert self._plan is not None
        roster = Roster.of(self._charter, members, self._plan.n_min, self._plan.c)

        def accept(member: str, answer: Answer) -> tuple[SignedExchange, ...] | Failure:
            found = self._read(member, answer, Exchanges)
            if isinstance(found, Failure):
                return found
            if (found.study, found.member) != (self._study, member):
                return _wrong("exchanges of another study or member")
            return _checked(found.exchanges, member, keys, roster)

        records = pack(self._key, EpochKeys(study=self._study, attempt=attempt, keys=keys))
        return self._gather("epoch_keys", dict.fromkeys(members, records), accept)

    def _ready(
        self, attempt: int, keys: tuple[SignedEpochKey, ...], sent: Mapping[str, tuple[SignedExchange, ...]]
    ) -> dict[str, EpochReady]:
        agreed = digest_of([item.message for item in keys])

        def accept(member: str, answer: Answer) -> EpochReady | Failure:
            found = self._read(member, answer, EpochReady)
            if isinstance(found, Failure):
                return found
            if (found.study, found.member) != (self._study, member):
                return _wrong("the word of another study or member")
            return found if found.keys == agreed else _wrong("other keys than it was shown")

        records = {member: self._for(member, attempt, sent) for member in sorted(sent)}
        return self._gather("epoch_exchanges", records, accept)

    def _for(self, member: str, attempt: int, sent: Mapping[str, tuple[SignedExchange, ...]]) -> RecordDict:
        """Return what the others sealed for a member, in the order of their names."""
        found = tuple(item for sender in sorted(sent) for item in sent[sender] if item.message.receiver == member)
        return pack(self._key, EpochExchanges(study=self._study, attempt=attempt, exchanges=found))

    def _read(self, member: str, answer: Answer, model: type[M]) -> M | Failure:
        found = read(answer, model, self._line.peers[member])
        return found if isinstance(found, Failure) else found[0]

    def _gather(
        self, kind: str, records: Mapping[str, RecordDict], accept: Callable[[str, Answer], T | Failure]
    ) -> dict[str, T]:
        found, failures = self._line.gather(kind, records, 0, accept, _TRIES)
        for member, failure in sorted(failures.items()):
            self._on_event(LeftOut(PHASE, 0, member, failure.code, failure.reason))
        return found

    def _check_enough(self, members: Sequence[str]) -> None:
        if len(members) < self._least:
            raise FederationError(
                "CSL-S221",
                f"{len(members)} members are left to agree on keys; the study needs {self._least}. Nothing was spent.",
                "Bring the missing institutions back, and run the study again: it begins anew with the keys.",
            )


def _checked(
    exchanges: tuple[SignedExchange, ...], member: str, keys: tuple[SignedEpochKey, ...], roster: Roster
) -> tuple[SignedExchange, ...] | Failure:
    """Check that a member sealed once to each of the others, to the keys that it was shown."""
    wanted = [(member, item.message.id, item.message.digest()) for item in keys if item.message.id != member]
    said = [(item.message.sender, item.message.receiver, item.message.ek) for item in exchanges]
    own = next(item.message for item in keys if item.message.id == member)
    places = {(item.message.roster, item.message.epoch) for item in exchanges}
    if said != wanted or places != {(own.roster, own.epoch)}:
        return _wrong("exchanges for others than those who take part")
    try:
        for item in exchanges:
            roster.check([item], [member])
    except (IntegrityError, DocumentError) as error:
        return another_sum(error)
    return exchanges


def _wrong(what: str) -> Failure:
    return Failure("CSL-S220", f"sent {what}")


def peers_of(charter: Charter, nodes: Mapping[str, int], members: Sequence[str]) -> dict[str, Peer]:
    """Return those of some members that are connected, by name."""
    return {name: Peer(name, nodes[name], charter.member(name).key) for name in sorted(members) if name in nodes}
