"""How a vault answers the requests that read data: rounds of training, and the evaluation."""

import numpy as np
from flwr.app import RecordDict

from client.gate import Gate
from client.releases import Paid, Releases
from client.rooms import Rooms
from client.secure.asked import check_edges
from client.studies import OpenStudy, Studies, check_plain
from federation.contract import FeatureContract
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError
from federation.messages import (
    EvaluateRelease,
    EvaluateRequest,
    Tensors,
    TrainRelease,
    TrainRequest,
    dump_tensors,
    read_tensors,
    unpack,
)
from federation.networks import tensor_shapes
from privacy.ledger import Account
from privacy.randomness import RandomSource

MAX_WEIGHT = 1e6
"""Weights beyond are refused. Below it float64 sums are finite, and where float32 layers are not, a customer's gradient counts as zero."""


class Rounds:
    """The rounds of one vault's studies.

    Parameters
    ----------
    coordinator, member:
        The key that requests must be signed by, and the institution's identifier.
    gate, studies, releases, rooms:
        The vault's.
    source:
        Where draws and noise come from.
    """

    def __init__(
        self,
        coordinator: str,
        member: str,
        *,
        gate: Gate,
        studies: Studies,
        releases: Releases,
        rooms: Rooms,
        source: RandomSource,
    ) -> None:
        self._coordinator = coordinator
        self._member = member
        self._gate = gate
        self._studies = studies
        self._releases = releases
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
        paid = _paid(study, header.round, "training")
        again = self._releases.again(study.rid, [paid], request)
        if again is not None:
            return again
        self._gate.check_standing(study)
        content = dump_tensors(self._rooms.of(study).train(study, header, weights, self._source))
        release = TrainRelease(study=study.rid, member=self._member, round=header.round, payload=sha256_hex(content))
        return self._releases.make(study.rid, [paid], request, release, content)

    def evaluate(self, request: RecordDict) -> RecordDict:
        """Answer `evaluate`: the score histograms, once for a study. Raises CSL-C513 and as `train`."""
        header, payload = unpack(request, EvaluateRequest, self._coordinator)
        study, edges = self._plain(header.study), header.edges
        check_edges(study, edges)
        weights = self.weights(study, payload)
        paid = _paid(study, study.evaluation_number, "holdout")
        again = self._releases.again(study.rid, [paid], request)
        if again is not None:
            return again
        self._gate.check_standing(study)
        content = dump_tensors(self._rooms.of(study).histogram(study, weights, edges, self._source))
        release = EvaluateRelease(study=study.rid, member=self._member, payload=sha256_hex(content))
        return self._releases.make(study.rid, [paid], request, release, content)

    def weights(self, study: OpenStudy, payload: bytes) -> Tensors:
        """Parse weights by name, shape and dtype; refuse NaN, infinity and weights beyond any sensible bound (CSL-C514)."""
        return parse_weights(self._gate.contract(study.spec.draft.contract), study, payload)

    def _plain(self, rid: str) -> OpenStudy:
        """Return a granted study whose releases leave one by one."""
        study = self._studies.find(rid)
        check_plain(study)
        return study


def _paid(study: OpenStudy, number: int, account: Account) -> Paid:
    what = {
        "training": f"round {number} of {study.spec.training.rounds}",
        "holdout": "score histograms of held-out customers",
    }
    return Paid(number, account, what[account])


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
