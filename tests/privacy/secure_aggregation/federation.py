"""A federation in memory: members that are restarted before every call, and a coordinator whose every message a test may alter.

A member keeps nothing but canonical bytes between two calls, as a vault does that was killed after each. What is random here comes from the
operating system, as in a vault; only vectors are given by the tests.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from federation.document import Document
from federation.secure import (
    EpochKey,
    Reveal,
    SignedAck,
    SignedEpochKey,
    SignedExchange,
    SignedMasked,
    SignedReady,
    Statement,
    SumOffer,
    sign_statement,
)
from federation.signing import public_hex
from privacy.secure_aggregation import coordinator as side
from privacy.secure_aggregation import institution
from privacy.secure_aggregation.epoch import (
    EpochSecrets,
    KeysMade,
    KeysSent,
    check_same_keys,
    derive_roots,
    make_keys,
    send_keys,
)
from privacy.secure_aggregation.institution import RevealedState, State
from privacy.secure_aggregation.masking import Words, from_bytes, to_bytes, to_words
from privacy.secure_aggregation.roster import Roster, out_of_order

CHARTER, STUDY, REQUEST = "c" * 64, "e" * 64, "a" * 64
COORDINATOR = "coordinator"
Vector = NDArray[np.int64]
Alter = Callable[[Any, str], Any]
D = TypeVar("D", bound=Document)


def names_of(n: int) -> list[str]:
    return [f"member_{place:02d}" for place in range(n)]


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def roster_of(names: Sequence[str], n_min: int, c: int, digest: str = CHARTER) -> Roster:
    keys = {name: public_hex(key_of(name)) for name in names}
    return Roster(digest, public_hex(key_of(COORDINATOR)), keys, n_min, c)


def signed_as(model: type[Any], name: str, statement: Statement) -> Any:
    """Sign a statement as `name`, whoever the statement says it is of."""
    return model(message=statement, signature=sign_statement(key_of(name), statement))


def offer_of(roster: Roster, /, **terms: Any) -> SumOffer:
    said = {"number": 1, "attempt": 1, "d": 4, "w": 32, "scale": 100.0, "share": 16384.0} | terms
    base = {"roster": roster.digest, "epoch": STUDY, "request": REQUEST, "n_min": roster.n_min, "c": roster.c}
    return SumOffer(**(base | said))


class Member:
    """One institution: it has its key, the roster, and a store of canonical bytes."""

    def __init__(self, name: str, roster: Roster) -> None:
        self.name, self.roster = name, roster
        self.store: dict[str, tuple[type[Document], bytes]] = {}
        self.vectors: dict[int, bytes] = {}

    def sign(self, model: type[Any], statement: Statement) -> Any:
        return signed_as(model, self.name, statement)

    def keep(self, place: str, state: D) -> D:
        self.store[place] = (type(state), state.canonical())
        return state

    def load(self, place: str) -> Any:
        """Read a state as after a restart: `from_canonical` sees to it that it writes the same bytes again."""
        model, content = self.store[place]
        return model.from_canonical(content)

    # Set-up

    def epoch_key(self, epoch: str = STUDY) -> SignedEpochKey:
        made = self.keep("epoch", make_keys(self.roster.digest, epoch, self.name))
        return self.sign(SignedEpochKey, made.statement)

    def exchanges(self, keys: Sequence[SignedEpochKey]) -> list[SignedExchange]:
        made = self.load("epoch")
        assert isinstance(made, KeysMade)
        sent = self.keep("epoch", send_keys(made, self.roster, keys))
        return [self.sign(SignedExchange, item) for item in sent.exchanges]

    def finish_epoch(self, exchanges: Sequence[SignedExchange]) -> EpochSecrets:
        sent = self.load("epoch")
        assert isinstance(sent, KeysSent)
        return self.keep("epoch", derive_roots(sent, self.roster, exchanges))

    @property
    def epoch(self) -> EpochSecrets:
        secrets = self.load("epoch")
        assert isinstance(secrets, EpochSecrets)
        return secrets

    # A sum

    def state(self, number: int) -> Any:
        return self.load(f"sum {number}") if f"sum {number}" in self.store else None

    def begun(self, number: int) -> Any:
        if self.state(number) is None:
            raise out_of_order("The sum was not begun")
        return self.state(number)

    def words(self, number: int) -> Words:
        offer = self._offer(self.state(number))
        return from_bytes(self.vectors.get(number, bytes(offer.d * offer.w // 8)), offer.w, offer.d)

    def ready(self, offer: SumOffer, signature: str, vector: Vector) -> SignedReady:
        before = self.state(offer.number)
        if before is not None:
            if not isinstance(before, RevealedState) and self._offer(before) == offer:
                return self.sign(SignedReady, institution.ready_of(before).statement)
            institution.check_retry(before, offer)
        state = institution.make_ready(self.roster, self.epoch, offer, signature, os.urandom(32), os.urandom(32))
        if before is None:
            self.vectors[offer.number] = to_bytes(to_words(vector, offer.w))
        return self.sign(SignedReady, self.keep(f"sum {offer.number}", state).statement)

    def masked(self, number: int, readies: Sequence[SignedReady]) -> tuple[SignedMasked, bytes]:
        before = self.begun(number)
        state, words = institution.make_masked(before, self.roster, self.epoch, self.words(number), readies)
        kept: State = self.keep(f"sum {number}", state)
        masked = kept.masked if isinstance(kept, institution.AckedState) else kept
        assert isinstance(masked, institution.MaskedState)
        return self.sign(SignedMasked, masked.statement), to_bytes(words)

    def ack(self, number: int, headers: Sequence[SignedMasked]) -> SignedAck:
        state = institution.acknowledge(self.begun(number), self.roster, headers)
        return self.sign(SignedAck, self.keep(f"sum {number}", state).statement)

    def reveal(self, number: int, acks: Sequence[SignedAck]) -> tuple[Reveal, str]:
        state = institution.reveal(self.begun(number), self.roster, self.epoch, acks)
        self.vectors.pop(number, None)
        said = self.keep(f"sum {number}", state).statement
        return said, sign_statement(key_of(self.name), said)

    @staticmethod
    def _offer(state: Any) -> SumOffer:
        return state.offer if isinstance(state, RevealedState) else institution.ready_of(state).offer


@dataclass
class Said:
    """All that the coordinator saw in one attempt."""

    offer: SumOffer
    readies: dict[str, SignedReady] = field(default_factory=dict)
    headers: dict[str, SignedMasked] = field(default_factory=dict)
    vectors: dict[str, bytes] = field(default_factory=dict)
    acks: dict[str, SignedAck] = field(default_factory=dict)
    reveals: dict[str, Reveal] = field(default_factory=dict)
    total: Vector | None = None


class Coordinator:
    """Runs sums; `alter[call]` is given each message and the member that it goes to, and returns what is sent in its place.

    The calls are `offer` (offer and signature), `readies`, `headers` and `acks`.
    """

    def __init__(self, roster: Roster, alter: Mapping[str, Alter] | None = None) -> None:
        self.roster, self.alter = roster, dict(alter or {})

    def offer(self, **terms: Any) -> tuple[SumOffer, str]:
        said = offer_of(self.roster, **terms)
        return said, sign_statement(key_of(COORDINATOR), said)

    def send(self, call: str, message: Any, member: str) -> Any:
        return self.alter[call](message, member) if call in self.alter else message

    def run(
        self,
        members: Mapping[str, Member],
        vectors: Mapping[str, Vector],
        drops: Mapping[str, int] | None = None,
        **terms: Any,
    ) -> Said:
        """Ask for a sum; `drops` says from which call on (1 to 4) a member answers no more."""
        leaves = {name: (drops or {}).get(name, 5) for name in members}
        offer, signature = self.offer(**terms)
        said = Said(offer)
        for name in (name for name in members if leaves[name] > 1):
            answer = members[name].ready(*self.send("offer", (offer, signature), name), vectors[name])
            side.check_ready(self.roster, offer, answer, name)
            said.readies[name] = answer
        gathered = side.gather(self.roster, offer, said.readies)
        collected = self._collect(members, leaves, gathered, said)
        self._open(members, leaves, collected, said)
        return said

    def _collect(
        self, members: Mapping[str, Member], leaves: Mapping[str, int], gathered: side.Gathered, said: Said
    ) -> side.Collected:
        there = {}
        for name in (name for name in gathered.members if leaves[name] > 2):
            header, content = members[name].masked(gathered.offer.number, self.send("readies", gathered.readies, name))
            there[name] = (header, side.check_masked(self.roster, gathered, header, content, name))
            said.headers[name], said.vectors[name] = header, content
        return side.collect(self.roster, gathered, there)

    def _open(
        self, members: Mapping[str, Member], leaves: Mapping[str, int], collected: side.Collected, said: Said
    ) -> None:
        number = said.offer.number
        for name in (name for name in collected.members if leaves[name] > 3):
            ack = members[name].ack(number, self.send("headers", collected.headers, name))
            side.check_ack(self.roster, collected, ack, name)
            said.acks[name] = ack
        if set(said.acks) == set(collected.members):
            acks = tuple(said.acks[name] for name in collected.members)
            for name in (name for name in collected.members if leaves[name] > 4):
                reveal, signature = members[name].reveal(number, self.send("acks", acks, name))
                side.check_reveal(self.roster, collected, reveal, signature, name)
                said.reveals[name] = reveal
        said.total = side.open_sum(collected, said.reveals)


def set_up(members: Mapping[str, Member], epoch: str = STUDY) -> None:
    """Agree on pairwise keys by the protocol itself."""
    keys = [members[name].epoch_key(epoch) for name in sorted(members)]
    sent = {name: members[name].exchanges(keys) for name in sorted(members)}
    digests = {}
    for name in sorted(members):
        to_it = [item for other in sorted(sent) for item in sent[other] if item.message.receiver == name]
        digests[name] = members[name].finish_epoch(to_it).keys
    check_same_keys(digests)


def give_roots(members: Mapping[str, Member], epoch: str = STUDY) -> None:
    """Give members pairwise keys without the protocol, for sums over many."""
    names = sorted(members)
    roots = {(one, other): os.urandom(32).hex() for one in names for other in names if one < other}
    for name, member in members.items():
        own = {other: roots[min(name, other), max(name, other)] for other in names if other != name}
        digest = member.roster.digest
        member.keep("epoch", EpochSecrets(roster=digest, epoch=epoch, me=name, keys="b" * 64, roots=own))


def federation(
    n: int, n_min: int, c: int, *, whole: bool = False, kind: type[Member] = Member
) -> tuple[Roster, dict[str, Member]]:
    """Return a roster of `n` members that have their pairwise keys; `whole` sets them up by the protocol."""
    roster = roster_of(names_of(n), n_min, c)
    members = {name: kind(name, roster) for name in roster.keys}
    (set_up if whole else give_roots)(members)
    return roster, members


def vectors_of(names: Sequence[str], d: int, seed: int, bound: int = 1 << 20) -> dict[str, Vector]:
    generator = np.random.default_rng(seed)
    return {name: generator.integers(-bound, bound, size=d, endpoint=True) for name in names}


def with_epoch_key(item: SignedEpochKey, name: str, **changed: Any) -> SignedEpochKey:
    """Return another member's keys, changed and signed anew as `name`."""
    statement: EpochKey = item.message.model_copy(update=changed)
    return signed_as(SignedEpochKey, name, statement)
