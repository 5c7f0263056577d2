"""Fake vaults that add up in secret: the protocol's own institution side, vectors from a hash instead of data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from federation.errors import ConsilienceError
from federation.messages import (
    EvaluateRequest,
    Grant,
    Offer,
    Refusal,
    SecureGrant,
    TrainRequest,
    load_tensors,
    pack,
    unpack,
)
from federation.secure import (
    EpochExchanges,
    EpochKeys,
    EpochReady,
    EpochRequest,
    Exchanges,
    SignedExchange,
    SumAcks,
    SumHeaders,
    SumReadies,
    SumRequest,
    request_digest,
    sign_statement,
)
from federation.study import LogisticModel, SecurePlan, StudySpec
from federation.vectors import flatten
from privacy.events import SMOOTHING
from privacy.secure_aggregation.epoch import EpochSecrets, KeysMade, KeysSent, derive_roots, make_keys, send_keys
from privacy.secure_aggregation.institution import (
    AckedState,
    RevealedState,
    State,
    acknowledge,
    check_retry,
    make_masked,
    make_ready,
    ready_of,
    reveal,
)
from privacy.secure_aggregation.masking import to_bytes, to_words
from privacy.secure_aggregation.quantisation import sensitivity_of
from privacy.secure_aggregation.roster import Roster
from server.derivation import dimension_of
from tests.server.fakes import FakeFederation, FakeVault, _hashed, contract

SECURE = (
    "epoch",
    "epoch_keys",
    "epoch_exchanges",
    "sum",
    "sum_readies",
    "sum_headers",
    "sum_acks",
)
SIZES = {"alpha": 1000, "beta": 2000, "gamma": 3000, "delta": 1500}
SIX = {**SIZES, "epsilon": 2500, "zeta": 1200}


@dataclass
class SecureVault(FakeVault):
    """Answers the seven calls; `vectors` are what it put into each sum, noise included, `asked` for what, `refused` by which codes."""

    vectors: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    asked: dict[int, TrainRequest | EvaluateRequest] = field(default_factory=dict)
    plan: SecurePlan | None = None
    epoch_attempt: int = 0
    made: KeysMade | None = None
    sent: KeysSent | None = None
    epoch: EpochSecrets | None = None
    states: dict[int, State] = field(default_factory=dict)

    def app(self) -> ClientApp:
        app = super().app()

        def answer(message: Message, context: Context) -> Message:
            return Message(self.answer(message.metadata.message_type, message.content), reply_to=message)

        for kind in SECURE:
            app.query(kind)(answer)
        return app

    def answer(self, kind: str, request: RecordDict) -> RecordDict:
        name = kind.removeprefix("query.")
        if name not in SECURE:
            return super().answer(kind, request)
        with self.lock:
            self.work.append(kind)
            try:
                reply = getattr(self, f"_{name}")(request)
            except ConsilienceError as error:
                self.refused.append(error.code)
                reply = pack(self.key, Refusal(member=self.member))
        return self.edits[kind](self, request, reply) if kind in self.edits else reply

    def grant(self, spec: StudySpec, **changes: object) -> Grant:
        secure = SecureGrant(
            sensitivity=2000.0 + self.size,
            dimension=dimension_of(LogisticModel(kind="logistic"), contract()),
            histogram_scale=500 + self.size // 10,
        )
        return super().grant(spec, **({} if spec.secure is None else priced(secure, spec.secure)) | changes)

    def _offer(self, request: RecordDict) -> RecordDict:
        offer, _ = unpack(request, Offer, self.charter.coordinator_key)
        self.agree(offer.spec)
        return super()._offer(request)

    def agree(self, spec: StudySpec) -> None:
        """Remember the terms of a study that it grants."""
        self.plan = spec.secure
        self.granted = self.grant(spec)

    def _roster(self, members: list[str]) -> Roster:
        assert self.plan is not None
        return Roster.of(self.charter, members, self.plan.n_min, self.plan.c)

    def _epoch(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, EpochRequest, self.charter.coordinator_key)
        assert header.attempt >= self.epoch_attempt and not self.states
        if header.attempt > self.epoch_attempt:
            self.made = make_keys(self.charter.digest(), header.study, self.member)
            self.epoch_attempt, self.sent, self.epoch = header.attempt, None, None
        assert self.made is not None
        return pack(self.key, self.made.statement)

    def _epoch_keys(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, EpochKeys, self.charter.coordinator_key)
        roster = self._roster([item.message.id for item in header.keys])
        assert self.made is not None
        self.sent = self.sent or send_keys(self.made, roster, header.keys)
        signed = tuple(
            SignedExchange(message=item, signature=sign_statement(self.key, item)) for item in self.sent.exchanges
        )
        return pack(self.key, Exchanges(study=header.study, member=self.member, exchanges=signed))

    def _epoch_exchanges(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, EpochExchanges, self.charter.coordinator_key)
        assert self.sent is not None
        roster = self._roster([item.message.id for item in self.sent.keys])
        self.epoch = self.epoch or derive_roots(self.sent, roster, header.exchanges)
        return pack(self.key, EpochReady(study=header.study, member=self.member, keys=self.epoch.keys))

    @property
    def _keys(self) -> tuple[Roster, EpochSecrets]:
        assert self.epoch is not None
        return self._roster(list(self.epoch.members)), self.epoch

    def _sum(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, SumRequest, self.charter.coordinator_key)
        offer, state = header.offer, self.states.get(header.offer.number)
        self.asked[offer.number] = header.asked
        assert request_digest(header.asked) == offer.request and header.asked.payload == header.payload
        if state is None or isinstance(state, RevealedState) or ready_of(state).offer != offer:
            if state is not None:
                check_retry(state, offer)
            vector = self.vectors.get(offer.number)
            self.vectors[offer.number] = self._vector(header, load_tensors(payload)) if vector is None else vector
            roster, epoch = self._keys
            nonce, b = (_bytes(f"{self.member}/{offer.digest()}/{name}") for name in ("nonce", "b"))
            state = make_ready(roster, epoch, offer, header.signature, nonce, b)
            self.states[offer.number] = state
        return pack(self.key, ready_of(state).statement)

    def _vector(self, header: SumRequest, weights: Mapping[str, np.ndarray]) -> NDArray[np.int64]:
        offer, asked = header.offer, header.asked
        if isinstance(asked, TrainRequest):
            weight = 1.0 if asked.weight is None else asked.weight
            assert self.granted.secure is not None
            assert sensitivity_of(offer.scale, asked.clip, weight, offer.d) <= self.granted.secure.sensitivity
            assert asked.round == offer.number
            exact = offer.scale * weight * flatten(self.gradient(asked.round, weights))
        else:
            assert offer.scale.is_integer() and offer.scale <= self.granted.secure.histogram_scale
            exact = offer.scale * self.counts(len(asked.edges) + 1).astype(np.float64).ravel()
        noise = offer.share * _hashed(f"noise/{self.member}/{offer.number}", (offer.d,))
        return np.rint(exact + noise).astype(np.int64)

    def _state(self, number: int, attempt: int) -> State:
        state = self.states[number]
        offer = state.offer if isinstance(state, RevealedState) else ready_of(state).offer
        assert offer.attempt == attempt
        return state

    def _sum_readies(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, SumReadies, self.charter.coordinator_key)
        state = self._state(header.number, header.attempt)
        roster, epoch = self._keys
        vector = to_words(self.vectors[header.number], ready_of(state).offer.w)
        state, words = make_masked(state, roster, epoch, vector, header.readies)
        self.states[header.number] = state
        return pack(self.key, (state.masked if isinstance(state, AckedState) else state).statement, to_bytes(words))

    def _sum_headers(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, SumHeaders, self.charter.coordinator_key)
        state = acknowledge(self._state(header.number, header.attempt), self._keys[0], header.headers)
        self.states[header.number] = state
        return pack(self.key, state.statement)

    def _sum_acks(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, SumAcks, self.charter.coordinator_key)
        state = reveal(self._state(header.number, header.attempt), *self._keys, header.acks)
        self.states[header.number] = state
        return pack(self.key, state.statement)


def secure_federation(folder: Path, sizes: Mapping[str, int] | None = None) -> FakeFederation:
    """A federation of vaults that add up in secret."""
    federation = FakeFederation.make(folder, sizes or SIZES)
    federation.vaults = {
        name: SecureVault(name, vault.charter, vault.size, home=vault.home) for name, vault in federation.vaults.items()
    }
    return federation


def priced(secure: SecureGrant, plan: SecurePlan) -> dict[str, object]:
    """What a grant says beside its sensitivities: the noise that follows from them, and an epsilon that covers their price."""
    return {
        "secure": secure,
        "epsilon": 2.0,
        "noise_multiplier": math.sqrt(plan.sigma**2 - SMOOTHING) / secure.sensitivity,
        "histogram_sigma": plan.sigma / secure.histogram_scale,
    }


def _bytes(text: str) -> bytes:
    return _hashed(text, (8,)).astype("<f4").tobytes()[:32]
