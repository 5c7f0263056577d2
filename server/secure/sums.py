"""One sum in four calls: who is ready, their masked vectors, their word on who is in the sum, and the keys of their masks.

Up to the third call whoever does not answer as agreed is left out while enough remain, and a sum that cannot go on is asked for again, in
a later attempt over the same vectors. Once the mask keys were asked for, every member of the sum is needed: they are asked again and again,
and the next start of the study goes on asking. What is summed up is none of this module's business.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from numpy.typing import NDArray

from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import DocumentError, FederationError, IntegrityError, StorageError
from federation.messages import EvaluateRequest, StatisticsRequest, TrainRequest, pack, signature_of
from federation.secure import (
    Ack,
    Masked,
    Ready,
    Reveal,
    SignedAck,
    SignedMasked,
    SignedReady,
    SumAcks,
    SumHeaders,
    SumOffer,
    SumReadies,
    SumRequest,
    request_digest,
    sign_statement,
)
from privacy.secure_aggregation.coordinator import (
    Collected,
    Gathered,
    check_ack,
    check_masked,
    check_ready,
    check_reveal,
    collect,
    gather,
    open_sum,
)
from privacy.secure_aggregation.masking import Words
from privacy.secure_aggregation.quantisation import width_for
from privacy.secure_aggregation.roster import Roster
from server.checkpoint import LAST_ATTEMPT
from server.events import LeftOut, OnEvent, SumRepeated
from server.exchange import Answer, Failure
from server.secure.calls import TRIES, Line, another_sum, read
from server.secure.store import KeptSum, SumStore

ATTEMPTS = 3
_DEVIATIONS = 12.0

Request = TrainRequest | EvaluateRequest | StatisticsRequest
M = TypeVar("M", bound=Document)
T = TypeVar("T")


@dataclass(frozen=True)
class SumTerms:
    """What one sum is about.

    Attributes
    ----------
    number, phase:
        Which sum of the study, and what people call it.
    dimension, scale:
        Integers in a vector, and the number of grid units in 1.
    x_max:
        What a coordinate of one member's vector stays below, in grid units, noise apart. A sum beyond it is not believed.
    """

    number: int
    phase: str
    dimension: int
    scale: float
    x_max: float


@dataclass(frozen=True)
class Opened:
    """A sum, int64 [d] in grid units; whose vectors are in it, and at which attempt of this run it came about."""

    total: NDArray[np.int64]
    members: tuple[str, ...]
    attempts: int


@dataclass(frozen=True)
class _Stopped:
    """Why an attempt came to nothing, and through whom."""

    reason: str
    members: tuple[str, ...] = ()


class SecureSums:
    """The sums of one study over the members that hold its pairwise keys.

    Parameters
    ----------
    study:
        Digest of the study, 64 hexadecimal digits.
    roster:
        All members that hold keys, connected or not.
    share:
        Parameter of every member's noise, in grid units.
    least:
        A sum is opened over so many members at least; never over fewer than the roster's own rule demands.
    line:
        Reaches those who are connected.
    """

    def __init__(
        self,
        study: str,
        roster: Roster,
        share: float,
        least: int,
        key: Ed25519PrivateKey,
        line: Line,
        store: SumStore,
        on_event: OnEvent,
    ) -> None:
        self._study = study
        self._roster = roster
        self._share = share
        self._least = least
        self._key = key
        self._line = line
        self._store = store
        self._on_event = on_event
        self._doubtful: set[str] = set()  # who stopped an attempt of any sum: for as long as this object lives

    def sum(self, terms: SumTerms, requests: Mapping[str, Request], payload: bytes) -> Opened:
        """Return the sum of the members' vectors.

        Parameters
        ----------
        requests:
            By member: what it is to compute its vector from; they may differ in `clip` and `weight` alone.
        payload:
            The weights beside every request, as safetensors.

        Raises
        ------
        FederationError
            CSL-S222 when no attempt found enough members, CSL-S223 when a member of a sum that is about to be opened does not give its
            keys, CSL-S224 when what was opened cannot be a sum of the members' vectors.
        StorageError
            CSL-S226 as `SumStore.load`; CSL-S227 when the sum was begun on other terms than these.
        """
        first = self._offer(terms, requests)
        kept = self._begun(terms, first)
        if kept is not None and kept.acknowledged:
            collected = kept.collected()
            return Opened(self._open(terms, collected, kept.record.acks), collected.members, 1)
        begun = 0 if kept is None else kept.record.offer.attempt
        return self._attempts(terms, first, begun, requests, payload)

    def _begun(self, terms: SumTerms, first: SumOffer) -> KeptSum | None:
        """Return what an earlier run left of this very sum."""
        kept = self._store.load()
        if kept is None or (kept.record.offer.epoch, kept.record.offer.number) != (first.epoch, first.number):
            return None
        if _at(kept.record.offer, 1) != first:
            raise StorageError(
                "CSL-S227",
                f"The sum of {terms.phase} was begun on other terms than this release derives.",
                "Go on with the release that it was begun with, or give the study up: stop it and delete its files under checkpoints/.",
            )
        return kept

    def _attempts(
        self, terms: SumTerms, first: SumOffer, begun: int, requests: Mapping[str, Request], payload: bytes
    ) -> Opened:
        """Make attempts after the last one that an earlier run began, until one can be opened.

        An attempt after which somebody new is done without does not count: there are no more of those than members.
        """
        made, failed, short = begun, 0, False
        while failed < ATTEMPTS and made < LAST_ATTEMPT:
            made += 1
            offer = _at(first, made)
            self._store.note(offer)
            asked = list(self._line.members) if short else self._asked()
            found = self._attempt(terms, offer, asked, requests, payload)
            if not isinstance(found, _Stopped):
                collected, acks = found
                self._store.keep(collected, acks)
                return Opened(self._open(terms, collected, acks), collected.members, made - begun)
            failed += not self._doubts(found)
            # Too few without those in doubt: the sum may have to do with them.
            short = not found.members
            self._on_event(SumRepeated(terms.phase, terms.number, made, found.reason))
            self._line.pause()
        raise FederationError(
            "CSL-S222",
            f"The sum of {terms.phase} did not come about in {made} attempts; no institution's numbers were opened.",
            "Look at who was left out and bring them back, then run the study again: it goes on from its checkpoint. If that is an older "
            "copy, brought back from a backup, it cannot go on: the sum was opened already, so give the study up.",
        )

    def _doubts(self, stopped: _Stopped) -> bool:
        """Take down through whom an attempt came to nothing; return whether the next one does without somebody new."""
        new = set(stopped.members) - self._doubtful
        self._doubtful |= new
        return bool(new - set(self._asked()))

    def _offer(self, terms: SumTerms, requests: Mapping[str, Request]) -> SumOffer:
        width = width_for(len(self._roster.keys), 2.0 * terms.x_max, self._share)
        return SumOffer(
            roster=self._roster.digest,
            epoch=self._study,
            number=terms.number,
            attempt=1,
            request=common_digest(requests),
            d=terms.dimension,
            w=32 if width == 32 else 64,
            scale=terms.scale,
            share=self._share,
            n_min=self._roster.n_min,
            c=self._roster.c,
        )

    def _needed(self, asked: int) -> int:
        return max(self._least, self._roster.survivors_needed(asked))

    def _asked(self) -> list[str]:
        """Return who is asked for the next attempt: those who stopped one before only where it cannot do without them."""
        others = [name for name in self._line.members if name not in self._doubtful]
        return others if len(others) >= self._needed(len(others)) else list(self._line.members)

    def _attempt(
        self, terms: SumTerms, offer: SumOffer, asked: Sequence[str], requests: Mapping[str, Request], payload: bytes
    ) -> tuple[Collected, tuple[SignedAck, ...]] | _Stopped:
        """Make one attempt up to the acknowledgements."""
        readies = self._readies(terms, offer, {name: requests[name] for name in asked}, payload)
        if len(readies) < self._needed(len(readies)):
            return _too_few(len(readies), self._needed(len(readies)), "are ready")
        gathered = gather(self._roster, offer, readies)
        vectors = self._vectors(terms, gathered)
        if len(vectors) < self._needed(len(readies)):
            return _too_few(len(vectors), self._needed(len(readies)), "sent their masked vectors")
        collected = collect(self._roster, gathered, vectors)
        acks = self._acks(terms, collected)
        missing = tuple(name for name in collected.members if name not in acks)
        if missing:
            return _Stopped(f"no acknowledgement of who is in the sum came from {', '.join(missing)}", missing)
        return collected, tuple(acks[name] for name in collected.members)

    def _readies(
        self, terms: SumTerms, offer: SumOffer, requests: Mapping[str, Request], payload: bytes
    ) -> dict[str, SignedReady]:
        digest, signature = sha256_hex(payload), sign_statement(self._key, offer)
        records = {
            name: pack(
                self._key,
                SumRequest(
                    study=self._study,
                    offer=offer,
                    signature=signature,
                    train=request if isinstance(request, TrainRequest) else None,
                    evaluate=request if isinstance(request, EvaluateRequest) else None,
                    measure=request if isinstance(request, StatisticsRequest) else None,
                    payload=digest,
                ),
                payload,
            )
            for name, request in requests.items()
        }

        def accept(said: Ready, signature: str, _: bytes, member: str) -> SignedReady:
            signed = SignedReady(message=said, signature=signature)
            check_ready(self._roster, offer, signed, member)
            return signed

        return self._call(terms, "sum", records, Ready, accept)

    def _vectors(self, terms: SumTerms, gathered: Gathered) -> dict[str, tuple[SignedMasked, Words]]:
        offer = gathered.offer
        call = SumReadies(study=self._study, number=offer.number, attempt=offer.attempt, readies=gathered.readies)
        records = dict.fromkeys(gathered.members, pack(self._key, call))

        def accept(said: Masked, signature: str, vector: bytes, member: str) -> tuple[SignedMasked, Words]:
            signed = SignedMasked(message=said, signature=signature)
            return signed, check_masked(self._roster, gathered, signed, vector, member)

        return self._call(terms, "sum_readies", records, Masked, accept)

    def _acks(self, terms: SumTerms, collected: Collected) -> dict[str, SignedAck]:
        offer = collected.gathered.offer
        call = SumHeaders(study=self._study, number=offer.number, attempt=offer.attempt, headers=collected.headers)
        records = dict.fromkeys(collected.members, pack(self._key, call))

        def accept(said: Ack, signature: str, _: bytes, member: str) -> SignedAck:
            signed = SignedAck(message=said, signature=signature)
            check_ack(self._roster, collected, signed, member)
            return signed

        return self._call(terms, "sum_headers", records, Ack, accept, TRIES)

    def _open(self, terms: SumTerms, collected: Collected, acks: tuple[SignedAck, ...]) -> NDArray[np.int64]:
        """Ask all members of the sum for the keys of their masks, and open it."""
        offer = collected.gathered.offer
        call = SumAcks(study=self._study, number=offer.number, attempt=offer.attempt, acks=acks)
        here = [name for name in collected.members if name in self._line.peers]

        def accept(said: Reveal, signature: str, _: bytes, member: str) -> Reveal:
            check_reveal(self._roster, collected, said, signature, member)
            return said

        records = dict.fromkeys(here, pack(self._key, call))
        reveals = self._call(terms, "sum_acks", records, Reveal, accept, TRIES)
        missing = [name for name in collected.members if name not in reveals]
        if missing:
            raise FederationError(
                "CSL-S223",
                f"The sum of {terms.phase} is to be opened, and {', '.join(missing)} did not give the keys of their masks.",
                "It cannot be opened without them: bring them back and run the study again; it goes on with this sum.",
            )
        total = open_sum(collected, reveals)
        count = len(collected.members)
        bound = count * terms.x_max + _DEVIATIONS * math.sqrt(count) * self._share
        if np.abs(total).max(initial=0) > bound:
            raise FederationError(
                "CSL-S224",
                f"What was opened as the sum of {terms.phase} cannot be one: a member gave wrong keys, or a vector beyond all bounds.",
                "Find out which of the members does not run the agreed release; then begin a new study without it.",
            )
        return total

    def _call(
        self,
        terms: SumTerms,
        kind: str,
        records: Mapping[str, RecordDict],
        model: type[M],
        accept: Callable[[M, str, bytes, str], T],
        tries: int = 1,
    ) -> dict[str, T]:
        """Make one call, and tell of those whose answers cannot be used."""

        def taken(member: str, answer: Answer) -> T | Failure:
            peer = self._line.peers[member]
            found = read(answer, model, peer)
            if isinstance(found, Failure):
                return found
            assert not isinstance(answer, Failure)
            try:
                return accept(found[0], signature_of(answer, peer.key).value, found[1], member)
            except (IntegrityError, DocumentError) as error:
                return another_sum(error)

        result, failures = self._line.gather(kind, records, terms.number, taken, tries)
        for member, failure in sorted(failures.items()):
            reason = f"{failure.reason} ({_ASKED_FOR[kind]})"
            self._on_event(LeftOut(terms.phase, terms.number, member, failure.code, reason))
        return result


_ASKED_FOR = {
    "sum": "asked for its vector",
    "sum_readies": "asked to mask its vector",
    "sum_headers": "asked to acknowledge who is in the sum",
    "sum_acks": "asked for the keys of its mask",
}


def common_digest(requests: Mapping[str, Request]) -> str:
    """Return the digest of what all members are asked alike, 64 hexadecimal digits; clip and weight are each member's own."""
    found = {request_digest(request) for request in requests.values()}
    assert len(found) == 1, "members of one sum are asked alike"
    return found.pop()


def _at(offer: SumOffer, attempt: int) -> SumOffer:
    return offer.model_copy(update={"attempt": attempt})


def _too_few(count: int, needed: int, what: str) -> _Stopped:
    return _Stopped(f"{count} members {what}; {needed} are needed")
