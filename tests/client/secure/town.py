"""Five real vaults that granted a secure study, and a coordinator whose every message a test may change."""

import json
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.home import Home
from client.secure.store import FOLDER, KeptSum, Secrets
from client.vault import Vault
from federation.document import Document
from federation.encoding import sha256_hex
from federation.messages import EvaluateRequest, Grant, TrainRequest, pack, signature_of, unpack
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
    SignedAck,
    SignedEpochKey,
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
from federation.study import SecurePlan, StudySpec
from privacy.secure_aggregation import coordinator
from privacy.secure_aggregation.masking import from_bytes
from privacy.secure_aggregation.quantisation import scale_for
from privacy.secure_aggregation.roster import Roster
from tests.client import vault_home
from tests.client.entries import store
from tests.client.vault_home import Town

MEMBERS = ("alder", "birch", "cedar", "dogwood", "elm")
PLAN = SecurePlan(noise="shared", n_min=3, c=0, share=256.0)
RULE = {"n_min": 3, "c": 0, "noise": ["local", "shared"]}


def found(root: Path) -> Town:
    """Found a town of five whose policies allow secure studies beside plain ones."""
    with patch.object(vault_home, "MEMBERS", MEMBERS):
        town = vault_home.found(root)
    for member in MEMBERS:
        town.change(member, secure=RULE)
    return town


def copied(town: Town, root: Path) -> Town:
    """The same town in another place; its vaults are closed."""
    shutil.copytree(next(iter(town.homes.values())).root.parent, root, dirs_exist_ok=True)
    homes = {member: Home(root / member) for member in town.homes}
    return Town(homes, town.charter, town.coordinator, town.officers)


def secure_spec(town: Town, plan: SecurePlan = PLAN, **changes: object) -> StudySpec:
    tree = town.spec(**changes).model_dump(mode="json")
    tree["draft"] |= {"aggregation": "secure", "noise": plan.noise, "n_min": plan.n_min, "c": plan.c}
    tree["secure"] = plan.model_dump(mode="json")
    return StudySpec.model_validate_json(json.dumps(tree))


class Federation:
    """The vaults of a town, and the coordinator of one secure study. A context manager, which closes the vaults."""

    def __init__(self, town: Town, spec: StudySpec | None = None) -> None:
        self.town = town
        self.spec = spec or secure_spec(town)
        self.rid = self.spec.digest()
        self._vaults: dict[str, Vault] = {}

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *_: object) -> None:
        for member in list(self._vaults):
            self.stop(member)

    def vault(self, member: str) -> Vault:
        if member not in self._vaults:
            self._vaults[member] = self.town.vault(member)
        return self._vaults[member]

    def stop(self, member: str) -> None:
        """Close a vault; it is opened again when it is asked."""
        if member in self._vaults:
            self._vaults.pop(member).close()

    def ask(self, member: str, kind: str, request: RecordDict) -> RecordDict:
        return self.vault(member).answer(kind, request)

    def packed(self, header: Document, payload: bytes = b"") -> RecordDict:
        return pack(self.town.coordinator, header, payload)

    def secrets(self, member: str = "alder") -> Secrets:
        return Secrets(self.town.homes[member].folder(FOLDER), store(self.town, member))

    def kept(self, number: int, member: str = "alder") -> KeptSum:
        kept = self.secrets(member).sum(self.rid, number)
        assert kept is not None
        return kept

    def roster(self, members: tuple[str, ...] = MEMBERS) -> Roster:
        plan = self.spec.secure
        assert plan is not None
        return Roster.of(self.town.charter, members, plan.n_min, plan.c)

    def grants(self) -> dict[str, Grant]:
        offer = self.town.offer(self.spec)
        return {
            member: unpack(self.ask(member, "query.offer", offer), Grant, self.town.key(member))[0]
            for member in self.town.homes
        }

    # The set-up.

    def epoch_request(self, attempt: int = 1) -> RecordDict:
        return self.packed(EpochRequest(study=self.rid, attempt=attempt))

    def signed_key(self, member: str, reply: RecordDict) -> SignedEpochKey:
        key = self.town.key(member)
        return SignedEpochKey(message=unpack(reply, EpochKey, key)[0], signature=signature_of(reply, key).value)

    def epoch_keys(self, keys: tuple[SignedEpochKey, ...], attempt: int = 1) -> RecordDict:
        return self.packed(EpochKeys(study=self.rid, attempt=attempt, keys=keys))

    def epoch_exchanges(self, sent: dict[str, Exchanges], member: str, attempt: int = 1) -> RecordDict:
        mine = [item for name in sorted(sent) for item in sent[name].exchanges if item.message.receiver == member]
        return self.packed(EpochExchanges(study=self.rid, attempt=attempt, exchanges=tuple(mine)))

    def keys(self, members: tuple[str, ...] = MEMBERS, attempt: int = 1) -> tuple[SignedEpochKey, ...]:
        request = self.epoch_request(attempt)
        return tuple(self.signed_key(member, self.ask(member, "query.epoch", request)) for member in members)

    def exchanges(
        self, keys: tuple[SignedEpochKey, ...], members: tuple[str, ...] = MEMBERS, attempt: int = 1
    ) -> dict[str, Exchanges]:
        request = self.epoch_keys(keys, attempt)
        return {
            member: unpack(self.ask(member, "query.epoch_keys", request), Exchanges, self.town.key(member))[0]
            for member in members
        }

    def set_up(self, members: tuple[str, ...] = MEMBERS, attempt: int = 1) -> None:
        sent = self.exchanges(self.keys(members, attempt), members, attempt)
        for member in members:
            request = self.epoch_exchanges(sent, member, attempt)
            unpack(self.ask(member, "query.epoch_exchanges", request), EpochReady, self.town.key(member))

    # The four calls.

    def asked(self, number: int, **changes: object) -> tuple[TrainRequest | EvaluateRequest, bytes]:
        content = self.town.weights(self.spec, 0.01)
        fields: dict[str, object] = {"study": self.rid, "payload": sha256_hex(content)}
        if number > self.spec.training.rounds:
            edges = tuple(float(edge) for edge in np.linspace(-2, 2, self.spec.draft.evaluation.bins - 1))
            return EvaluateRequest(**(fields | {"edges": edges} | changes)), content
        fields |= {"round": number, "clip": 1.0, "learning_rate": 0.1, "weight": 0.5}
        return TrainRequest(**(fields | changes)), content

    def offer(
        self, number: int, /, attempt: int = 1, asked: TrainRequest | EvaluateRequest | None = None, **changes: object
    ) -> SumOffer:
        plan, grant = self.spec.secure, self.vault("alder")._studies.find(self.rid).grant.secure
        assert plan is not None and grant is not None
        training = number <= self.spec.training.rounds
        d = grant.dimension if training else 2 * self.spec.draft.evaluation.bins
        scale = scale_for(grant.sensitivity, 1.0, 0.5, d) if training else float(grant.histogram_scale)
        fields: dict[str, object] = {
            "roster": self.town.charter.digest(),
            "epoch": self.rid,
            "number": number,
            "attempt": attempt,
            "request": request_digest(asked or self.asked(number)[0]),
            "d": d,
            "w": 32,
            "scale": scale,
            "share": plan.share,
            "n_min": plan.n_min,
            "c": plan.c,
        }
        return SumOffer(**(fields | changes))

    def sum_request(
        self,
        number: int,
        attempt: int = 1,
        *,
        asked: dict[str, object] | None = None,
        offer: dict[str, object] | None = None,
        header: dict[str, object] | None = None,
        content: bytes | None = None,
    ) -> RecordDict:
        """Call 1, with fields of the request, the offer or the header changed; the offer names the changed request."""
        request, payload = self.asked(number, **(asked or {}))
        statement = self.offer(number, attempt, request, **(offer or {}))
        kind = "train" if isinstance(request, TrainRequest) else "evaluate"
        fields: dict[str, object] = {
            "study": self.rid,
            "offer": statement,
            "signature": sign_statement(self.town.coordinator, statement),
            kind: request,
            "payload": sha256_hex(payload if content is None else content),
        }
        return self.packed(SumRequest(**(fields | (header or {}))), payload if content is None else content)

    def readies(self, replies: dict[str, RecordDict]) -> tuple[SignedReady, ...]:
        found = []
        for member in sorted(replies):
            key = self.town.key(member)
            statement = unpack(replies[member], Ready, key)[0]
            found.append(SignedReady(message=statement, signature=signature_of(replies[member], key).value))
        return tuple(found)

    def headers(self, replies: dict[str, RecordDict]) -> tuple[SignedMasked, ...]:
        found = []
        for member in sorted(replies):
            key = self.town.key(member)
            statement = unpack(replies[member], Masked, key)[0]
            found.append(SignedMasked(message=statement, signature=signature_of(replies[member], key).value))
        return tuple(found)

    def acks(self, replies: dict[str, RecordDict]) -> tuple[SignedAck, ...]:
        found = []
        for member in sorted(replies):
            key = self.town.key(member)
            statement = unpack(replies[member], Ack, key)[0]
            found.append(SignedAck(message=statement, signature=signature_of(replies[member], key).value))
        return tuple(found)

    def call(self, kind: str, request: RecordDict, members: tuple[str, ...]) -> dict[str, RecordDict]:
        return {member: self.ask(member, kind, request) for member in members}

    def ready(self, number: int, attempt: int = 1, members: tuple[str, ...] = MEMBERS) -> dict[str, RecordDict]:
        return self.call("query.sum", self.sum_request(number, attempt), members)

    def sum_readies(self, number: int, readies: tuple[SignedReady, ...], attempt: int = 1) -> RecordDict:
        return self.packed(SumReadies(study=self.rid, number=number, attempt=attempt, readies=readies))

    def sum_headers(self, number: int, headers: tuple[SignedMasked, ...], attempt: int = 1) -> RecordDict:
        return self.packed(SumHeaders(study=self.rid, number=number, attempt=attempt, headers=headers))

    def sum_acks(self, number: int, acks: tuple[SignedAck, ...], attempt: int = 1) -> RecordDict:
        return self.packed(SumAcks(study=self.rid, number=number, attempt=attempt, acks=acks))

    def masked(
        self, number: int, replies: dict[str, RecordDict], attempt: int = 1, members: tuple[str, ...] | None = None
    ) -> dict[str, RecordDict]:
        request = self.sum_readies(number, self.readies(replies), attempt)
        return self.call("query.sum_readies", request, members or tuple(replies))

    def acknowledged(self, number: int, replies: dict[str, RecordDict], attempt: int = 1) -> dict[str, RecordDict]:
        request = self.sum_headers(number, self.headers(replies), attempt)
        return self.call("query.sum_headers", request, tuple(replies))

    def revealed(self, number: int, replies: dict[str, RecordDict], attempt: int = 1) -> dict[str, RecordDict]:
        request = self.sum_acks(number, self.acks(replies), attempt)
        return self.call("query.sum_acks", request, tuple(replies))

    def opened(
        self,
        offer: SumOffer,
        ready: dict[str, RecordDict],
        masked: dict[str, RecordDict],
        revealed: dict[str, RecordDict],
    ) -> NDArray[np.int64]:
        """What the coordinator makes of it: the sum."""
        roster = self.roster(tuple(sorted(ready)))
        gathered = coordinator.gather(roster, offer, {item.message.id: item for item in self.readies(ready)})
        signed = {item.message.id: item for item in self.headers(masked)}
        words = {
            member: from_bytes(unpack(reply, Masked, self.town.key(member))[1], offer.w, offer.d)
            for member, reply in masked.items()
        }
        collected = coordinator.collect(roster, gathered, {name: (signed[name], words[name]) for name in words})
        keys = {member: unpack(reply, Reveal, self.town.key(member))[0] for member, reply in revealed.items()}
        return coordinator.open_sum(collected, keys)
