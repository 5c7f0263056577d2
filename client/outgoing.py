"""The last look at a reply before it leaves: what is not exactly what the protocol gives for this request stays here.

A vault's own checks may fail: a faulty release, a library that changed, a kept file that was put in another's place. This one trusts none
of them. It reads the reply as the coordinator will: one record with three fields, signed by this institution, in canonical form, of the one
kind that answers this type of message, about the same study and round, with this member's name, and beside it nothing, or the tensors that
this study's releases have, in the one encoding that they have, finite and within bounds. It cannot tell whether noise is enough, only that
a gradient sum lies on the grid to which noise is rounded, on which a sum without noise would not.
What leaves for secure sums is looked at by `client.secure.last_look`.

It looks at what is released and at public inputs alone, and at a release only after that was charged and kept: that a reply was held back
tells no more than the reply would have told, and asking again gets the same refusal, never another draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from client.gate import Gate
from client.secure.asked import account_of
from client.secure.last_look import ANOTHER, misfit
from client.secure.store import Secrets
from client.statistics.rounds import LARGEST_SUM, SUMS
from client.studies import OpenStatistics, OpenStudy, Studies
from client.workroom import COUNT_LIMIT
from federation.document import Document
from federation.errors import ConsilienceError
from federation.measures import dimension_of
from federation.messages import (
    RECORD,
    Acknowledged,
    Cosignature,
    CosignedNote,
    CosignRequest,
    EvaluateRelease,
    EvaluateRequest,
    Grant,
    HeadRequest,
    Hello,
    Identity,
    LedgerHead,
    ModelDelivery,
    ModelReceipt,
    NoteKept,
    Offer,
    Receipts,
    Refusal,
    ReportDelivery,
    ReportReceipt,
    StatisticsGrant,
    StatisticsRelease,
    StatisticsRequest,
    Tensors,
    TrainRelease,
    TrainRequest,
    claimed,
    dump_tensors,
    read_tensors,
    unpack,
)
from federation.networks import tensor_shapes
from federation.secure import (
    Ack,
    EpochExchanges,
    EpochKey,
    EpochKeys,
    EpochReady,
    EpochRequest,
    Exchanges,
    Masked,
    Ready,
    Reveal,
    SumAcks,
    SumHeaders,
    SumReadies,
    SumRequest,
)
from federation.statistics import StatisticsSpec
from privacy.dp_optimizer import grid_of
from privacy.ledger import Account

_FIELDS = {"header", "signature", "payload"}


@dataclass(frozen=True)
class Rule:
    """What may answer one type of message: the kind of reply, and which of its fields (by name) must equal which of the request's."""

    request: type[Document]
    reply: type[Document]
    same: dict[str, str]


RULES: dict[str, Rule] = {
    "query.hello": Rule(Hello, Identity, {"charter": "charter", "nonce": "nonce"}),
    "query.offer": Rule(Offer, Grant, {}),
    "query.measure": Rule(StatisticsRequest, StatisticsRelease, {"study": "study", "round": "round"}),
    "query.report": Rule(ReportDelivery, ReportReceipt, {"study": "study", "report": "payload"}),
    "train": Rule(TrainRequest, TrainRelease, {"study": "study", "round": "round"}),
    "evaluate": Rule(EvaluateRequest, EvaluateRelease, {"study": "study"}),
    "query.model": Rule(ModelDelivery, ModelReceipt, {"study": "study", "card": "card", "model": "payload"}),
    "query.receipts": Rule(Receipts, Acknowledged, {"study": "study"}),
    "query.head": Rule(HeadRequest, LedgerHead, {"nonce": "nonce"}),
    "query.cosign": Rule(CosignRequest, Cosignature, {"subject": "subject"}),
    "query.cosigned": Rule(CosignedNote, NoteKept, {}),
    "query.epoch": Rule(EpochRequest, EpochKey, {"epoch": "study"}),
    "query.epoch_keys": Rule(EpochKeys, Exchanges, {"study": "study"}),
    "query.epoch_exchanges": Rule(EpochExchanges, EpochReady, {"study": "study"}),
    "query.sum": Rule(SumRequest, Ready, {}),
    "query.sum_readies": Rule(SumReadies, Masked, {}),
    "query.sum_headers": Rule(SumHeaders, Ack, {}),
    "query.sum_acks": Rule(SumAcks, Reveal, {}),
}
"""The message types of the protocol: a vault answers these and no others."""


class Outgoing:
    """Looks at one vault's replies.

    Parameters
    ----------
    member, key:
        The institution's identifier, and the public key that its replies must be signed by.
    studies, gate, secrets:
        Where the study of a release, its contract, and what was offered for a secure sum are looked up.
    """

    def __init__(self, member: str, key: str, studies: Studies, gate: Gate, secrets: Secrets) -> None:
        self._member = member
        self._key = key
        self._studies = studies
        self._gate = gate
        self._secrets = secrets

    def check(self, message_type: str, request: RecordDict, reply: RecordDict) -> Account | None:
        """Refuse a reply to a request that was checked before, unless it is exactly what may leave; return the account that paid for it.

        Raises
        ------
        ConsilienceError
            CSL-C402, naming what is wrong, never a value.
        """
        rule = RULES[message_type]
        asked = claimed(request, rule.request)
        statistics = isinstance(asked, Offer) and isinstance(asked.spec, StatisticsSpec)
        header, payload = self._opened(reply, StatisticsGrant if statistics else rule.reply)
        said = {name: getattr(header, name) for name in rule.same}
        if said != {name: getattr(asked, other) for name, other in rule.same.items()}:
            raise _held_back(ANOTHER)
        if (
            isinstance(header, Grant | StatisticsGrant)
            and isinstance(asked, Offer)
            and header.study != asked.spec.digest()
        ):
            raise _held_back("it grants another study than the one offered")
        if isinstance(asked, TrainRequest | EvaluateRequest):
            self._check_tensors(self._studies.find(asked.study), asked, payload)
        if isinstance(asked, StatisticsRequest):
            self._check_sums(self._studies.statistics(asked.study), asked, payload)
        wrong = misfit(self._studies, self._secrets, asked, header, payload)
        if wrong is not None:
            raise _held_back(wrong)
        return self._account(asked)

    def _account(self, asked: Document) -> Account | None:
        """Return the account that pays for the answer to a request; None where nothing is released by it."""
        if isinstance(asked, TrainRequest | StatisticsRequest):
            return "training"
        if isinstance(asked, SumAcks):
            return account_of(self._studies.opened(asked.study), asked.number)
        return "holdout" if isinstance(asked, EvaluateRequest) else None

    def check_refusal(self, reply: RecordDict) -> None:
        """Refuse a refusal that says anything but that it is one. Raises ConsilienceError CSL-C402."""
        self._opened(reply, Refusal)

    def _opened(self, reply: RecordDict, kind: type[Document]) -> tuple[Document, bytes]:
        """Return header and payload of a reply of this kind, and nothing beside them."""
        record = reply.get(RECORD)
        if not isinstance(record, ConfigRecord) or set(record) != _FIELDS or set(reply) != {RECORD}:
            raise _held_back("it is not one record of header, signature and payload")
        try:
            header, payload = unpack(reply, kind, self._key)
        except ConsilienceError as error:
            raise _held_back(f"it is no {kind.__name__} of this institution ({error.code})") from error
        said: Any = header
        if (said.id if "id" in kind.model_fields else said.member) != self._member:  # statements of sums say `id`
            raise _held_back("it names another member")
        return header, payload

    def _check_tensors(self, study: OpenStudy, asked: TrainRequest | EvaluateRequest, payload: bytes) -> None:
        draft = study.spec.draft
        expected: dict[str, tuple[tuple[int, ...], str]]
        if isinstance(asked, EvaluateRequest):
            expected = {"counts": ((2, draft.evaluation.bins), "int64")}
        else:
            expected = tensor_shapes(draft.model, self._gate.contract(draft.contract))
        tensors = _tensors(payload, expected)
        if isinstance(asked, EvaluateRequest):
            counts = tensors["counts"]
            if counts.min() < -COUNT_LIMIT or counts.max() > COUNT_LIMIT:
                raise _held_back("its counts are beyond their bound")
        elif draft.mode == "fedsgd" and not _on_grid(tensors, grid_of(asked.clip, study.grant.noise_multiplier)):
            raise _held_back("its sums do not lie on the grid of their noise")

    def _check_sums(self, study: OpenStatistics, asked: StatisticsRequest, payload: bytes) -> None:
        contract = self._gate.contract(study.spec.draft.contract)
        sums = _tensors(payload, {SUMS: ((dimension_of(asked.measures, contract),), "int64")})[SUMS]
        if (
            max(int(sums.max(initial=0)), -int(sums.min(initial=0))) > 2.0 * LARGEST_SUM
        ):  # the least int64 has no absolute value
            raise _held_back("its sums are beyond their bound")


def _tensors(payload: bytes, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> Tensors:
    try:
        tensors = read_tensors(payload, expected)
    except ConsilienceError as error:
        raise _held_back(f"its tensors are not those of the study ({error.code})") from error
    if dump_tensors(tensors) != payload:  # metadata, padding, another order: room for what nobody asked for
        raise _held_back("its tensors are encoded in another way than releases are")
    return tensors


def _on_grid(tensors: Tensors, grid: float) -> bool:
    """Whether all values are whole multiples of a power of two; dividing by it is exact."""
    cells = (tensor.astype(np.float64) / grid for tensor in tensors.values())
    return all(bool((values == np.rint(values)).all()) for values in cells)


def _held_back(what: str) -> ConsilienceError:
    return ConsilienceError(
        "CSL-C402",
        f"A reply was held back: {what}.",
        "Nothing left. Report it with the vault's log, and close the study.",
    )
