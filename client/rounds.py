"""How a vault answers the requests that read data: rounds of training, and the evaluation.

The reply is kept before the ledger's release entry, and the entry stands before the bytes leave: a crash at any step neither loses a
charge nor releases twice.
"""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.gate import Gate
from client.replies import Replies, kept, request_digest
from client.rooms import Rooms
from client.secure.asked import check_edges
from client.studies import OpenStudy, Studies
from federation.contract import FeatureContract
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError
from federation.messages import (
    EvaluateRelease,
    EvaluateRequest,
    Tensors,
    TrainRelease,
    TrainRequest,
    dump_tensors,
    pack,
    read_tensors,
    unpack,
)
from federation.networks import tensor_shapes
from privacy.ledger import Account, Ledger
from privacy.randomness import RandomSource

MAX_WEIGHT = 1e6
"""Weights beyond are refused. Below it float64 sums are finite, and where float32 layers are not, a customer's gradient counts as zero."""


class Rounds:
    """The rounds of one vault's studies.

    Parameters
    ----------
    coordinator, identity, member:
        The key that requests must be signed by, the key that releases are signed with, and the institution's identifier.
    ledger, gate, studies, replies, rooms:
        The vault's.
    source:
        Where draws and noise come from.
    """

    def __init__(
        self,
        coordinator: str,
        identity: Ed25519PrivateKey,
        member: str,
        *,
        ledger: Ledger,
        gate: Gate,
        studies: Studies,
        replies: Replies,
        rooms: Rooms,
        source: RandomSource,
    ) -> None:
        self._coordinator = coordinator
        self._identity = identity
        self._member = member
        self._ledger = ledger
        self._gate = gate
        self._studies = studies
        self._replies = replies
        self._rooms = rooms
        self._source = source

    def train(self, request: RecordDict) -> RecordDict:
        """Answer `train`: one round's release, or the very same one again.

        Raises
        ------
        PolicyError
            CSL-C470 for a study of secure sums, CSL-C511 no such study, CSL-C512 no such round, CSL-C515, CSL-C516 released before; as
            `Gate.check_standing`.
        IntegrityError
            CSL-F201 to F209 for the message, CSL-C484 for a weight that belongs to secure sums, CSL-C514 for its weights.
        """
        header, payload = unpack(request, TrainRequest, self._coordinator)
        study = self._plain(header.study)
        if header.weight is not None:
            raise IntegrityError(
                "CSL-C484",
                "A plain round was asked for by a weight.",
                "Ask without one: weights belong to secure sums.",
            )
        if header.round > study.spec.training.rounds:
            raise PolicyError(
                "CSL-C512", f"Round {header.round} is beyond the study's plan.", "Stop at the last planned round."
            )
        weights = self.weights(study, payload)
        again = self._again(study, header.round, "training", request)
        if again is not None:
            return again
        self._gate.check_standing(study)
        content = dump_tensors(self._rooms.of(study).train(study, header, weights, self._source))
        release = TrainRelease(study=study.rid, member=self._member, round=header.round, payload=sha256_hex(content))
        return self._release(study, header.round, "training", request, release, content)

    def evaluate(self, request: RecordDict) -> RecordDict:
        """Answer `evaluate`: the score histograms, once for a study. Raises CSL-C513 and as `train`."""
        header, payload = unpack(request, EvaluateRequest, self._coordinator)
        study, edges = self._plain(header.study), header.edges
        check_edges(study, edges)
        weights = self.weights(study, payload)
        number = study.evaluation_number
        again = self._again(study, number, "holdout", request)
        if again is not None:
            return again
        self._gate.check_standing(study)
        content = dump_tensors(self._rooms.of(study).histogram(study, weights, edges, self._source))
        release = EvaluateRelease(study=study.rid, member=self._member, payload=sha256_hex(content))
        return self._release(study, number, "holdout", request, release, content)

    def weights(self, study: OpenStudy, payload: bytes) -> Tensors:
        """Parse weights by name, shape and dtype; refuse NaN, infinity and weights beyond any sensible bound (CSL-C514)."""
        return parse_weights(self._gate.contract(study.spec.draft.contract), study, payload)

    def _plain(self, rid: str) -> OpenStudy:
        """Return a granted study whose releases leave one by one."""
        study = self._studies.find(rid)
        if study.spec.secure is not None:
            raise PolicyError(
                "CSL-C470",
                "The study's vectors leave only into secure sums, never by themselves.",
                "Ask for the study's sums by `query.sum`.",
            )
        return study

    def _again(self, study: OpenStudy, number: int, account: Account, request: RecordDict) -> RecordDict | None:
        """Return the kept reply to this very request; finish its ledger entry when a crash came between the two."""
        known = self._replies.find(study.rid, number)
        if known is None:
            if self._ledger.has_release(study.rid, number):
                raise PolicyError(
                    "CSL-C515", f"Release {number} was made, and its reply is lost.", "Go on with the next round."
                )
            return None
        if known.request != request_digest(request):
            raise PolicyError(
                "CSL-C516",
                f"Release {number} was asked for before, with other content.",
                "Repeat the first request exactly.",
            )
        self._note_release(study, number, account, known.payload)
        return known.records()

    def _release(
        self, study: OpenStudy, number: int, account: Account, request: RecordDict, header: Document, payload: bytes
    ) -> RecordDict:
        """Keep the reply, write the ledger's release entry, and only then let the bytes leave."""
        reply = pack(self._identity, header, payload)
        self._replies.keep(study.rid, number, kept(request, reply))
        self._note_release(study, number, account, payload)
        return reply

    def _note_release(self, study: OpenStudy, number: int, account: Account, payload: bytes) -> None:
        what = {
            "training": f"round {number} of {study.spec.training.rounds}",
            "holdout": "score histograms of held-out customers",
        }
        self._ledger.release(
            study.rid, number, account, what=what[account], sha256=sha256_hex(payload), size=len(payload)
        )


def parse_weights(contract: FeatureContract, study: OpenStudy, payload: bytes) -> Tensors:
    """Parse weights by name, shape and dtype; refuse NaN, infinity and weights beyond any sensible bound.

    Raises
    ------
    IntegrityError
        CSL-F205 to F207 for tensors that are not the model's, CSL-C514 beyond the bound.
    """
    weights = read_tensors(payload, tensor_shapes(study.spec.draft.model, contract))
    if any(np.abs(tensor).max(initial=0.0) > MAX_WEIGHT for tensor in weights.values()):
        raise IntegrityError(
            "CSL-C514", "The weights are beyond every sensible bound.", "The model has diverged: stop the study."
        )
    return weights
