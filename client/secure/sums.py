"""How a vault takes part in secure sums: four calls for each, and what stands on the disk before each answer leaves.

The vector is made and kept before `Ready`; each further state is kept before what it answers; the ledger's release entry stands before the
keys of the mask leave, and names the masked vector and everybody else's, so that no copy of the secrets can speak for a second sum.
A crash between two steps is mended by the same call again: it finds what was kept, and gives the same bytes.

A later attempt of a sum that this institution has not opened masks the same vector under fresh keys, and costs nothing; after the
own `Reveal` the number is spent.
"""

from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.gate import Gate
from client.releases import Paid
from client.rooms import Rooms
from client.rounds import parse_weights
from client.secure.asked import account_of, another_request, check_asked
from client.secure.granted import granted_study, roster_of
from client.secure.store import NOTHING, Agreed, KeptSum, Secrets
from client.statistics.rounds import paid_by
from client.studies import Opened, OpenStatistics, Studies
from federation.charter import Charter
from federation.errors import IntegrityError, PolicyError
from federation.messages import StatisticsRequest, Tensors, TrainRequest, pack, unpack
from federation.secure import SumAcks, SumHeaders, SumReadies, SumRequest
from privacy.ledger import Ledger
from privacy.randomness import RandomSource
from privacy.secure_aggregation.derivation import KEY_BYTES
from privacy.secure_aggregation.epoch import EpochSecrets
from privacy.secure_aggregation.institution import (
    AckedState,
    MaskedState,
    RevealedState,
    acknowledge,
    check_retry,
    make_masked,
    make_ready,
    ready_of,
    reveal,
)
from privacy.secure_aggregation.masking import to_bytes, to_words
from privacy.secure_aggregation.quantisation import bound_for
from privacy.secure_aggregation.roster import Roster


class Sums:
    """The secure sums of one vault's studies.

    Parameters
    ----------
    charter, identity, member:
        Who is in the federation, the key that statements are signed with, and the institution's identifier.
    ledger, gate, studies, rooms, secrets:
        The vault's.
    source:
        Where draws, noise and fresh keys come from.

    Raises (all answers)
    --------------------
    PolicyError
        CSL-C471 for a plain study, CSL-C476 when the sum was opened, CSL-C477 before the set-up; as `Gate.check_standing`.
    IntegrityError
        CSL-F201 to F209 for the message, CSL-C481 for a sum or attempt that was not begun, CSL-C483 for an old ledger; as
        `privacy.secure_aggregation.institution`.
    """

    def __init__(
        self,
        charter: Charter,
        identity: Ed25519PrivateKey,
        member: str,
        *,
        ledger: Ledger,
        gate: Gate,
        studies: Studies,
        rooms: Rooms,
        secrets: Secrets,
        source: RandomSource,
    ) -> None:
        self._charter = charter
        self._identity = identity
        self._member = member
        self._ledger = ledger
        self._gate = gate
        self._studies = studies
        self._rooms = rooms
        self._secrets = secrets
        self._source = source

    def ready(self, request: RecordDict) -> RecordDict:
        """Answer `query.sum`: the vector is made and kept. Raises as `client.secure.asked.check_asked`, and CSL-C514 for weights."""
        asked, payload = unpack(request, SumRequest, self._charter.coordinator_key)
        study, offer = granted_study(self._studies, self._gate, asked.study), asked.offer
        contract = self._gate.contract(study.spec.draft.contract)
        check_asked(study, asked, contract)
        weights = None if isinstance(study, OpenStatistics) else parse_weights(contract, study, payload)
        kept = self._unopened(study, offer.number)
        epoch, roster = self._agreed(study)
        if kept is not None and kept.asked != asked.asked.digest():
            raise another_request()
        if kept is None or kept.offer != offer:
            if kept is not None:
                check_retry(kept.state, offer)
            nonce, b = self._source.bytes(KEY_BYTES), self._source.bytes(KEY_BYTES)
            state = make_ready(roster, epoch, offer, asked.signature, nonce, b)
            x_max = bound_for(offer.w, len(epoch.members), offer.share)
            vector = self._vector(study, asked, weights, x_max) if kept is None else kept.vector
            kept = KeptSum(state, asked.asked.digest(), vector)
            self._secrets.keep_sum(study.rid, offer.number, kept)
        assert not isinstance(kept.state, RevealedState)
        return pack(self._identity, ready_of(kept.state).statement)

    def masked(self, request: RecordDict) -> RecordDict:
        """Answer `query.sum_readies`: the vector, masked for those who are ready."""
        header, _ = unpack(request, SumReadies, self._charter.coordinator_key)
        study = granted_study(self._studies, self._gate, header.study)
        kept = self._begun(study, header.number, header.attempt)
        epoch, roster = self._agreed(study)
        words = to_words(kept.vector, kept.offer.w)
        state, words = make_masked(kept.state, roster, epoch, words, header.readies)
        self._keep(study, kept, state)
        statement = (state.masked if isinstance(state, AckedState) else state).statement
        return pack(self._identity, statement, to_bytes(words))

    def acknowledged(self, request: RecordDict) -> RecordDict:
        """Answer `query.sum_headers`: whose masked vectors are there, for good."""
        header, _ = unpack(request, SumHeaders, self._charter.coordinator_key)
        study = granted_study(self._studies, self._gate, header.study)
        kept = self._begun(study, header.number, header.attempt)
        state = acknowledge(kept.state, self._agreed(study)[1], header.headers)
        self._keep(study, kept, state)
        return pack(self._identity, state.statement)

    def revealed(self, request: RecordDict) -> RecordDict:
        """Answer `query.sum_acks`: the keys of the own mask, and with it the secrets go. Raises as `Ledger.release`."""
        header, _ = unpack(request, SumAcks, self._charter.coordinator_key)
        study = granted_study(self._studies, self._gate, header.study)
        kept = _in_attempt(self._secrets.sum(study.rid, header.number), header.number, header.attempt)
        epoch, roster = self._agreed(study)
        state = reveal(kept.state, roster, epoch, header.acks)
        if isinstance(kept.state, AckedState):
            self._note_release(study, header.number, kept.state)
            self._secrets.keep_sum(study.rid, header.number, KeptSum(state, kept.asked, NOTHING))
        elif not self._ledger.has_release(study.rid, header.number):
            raise _older_ledger(header.number)
        return pack(self._identity, state.statement)

    def _vector(self, study: Opened, asked: SumRequest, weights: Tensors | None, x_max: float) -> NDArray[np.int64]:
        """Return this institution's part of the sum, with its noise; a fault in the data leaves the noise alone."""
        offer, request = asked.offer, asked.asked
        if isinstance(study, OpenStatistics) or isinstance(request, StatisticsRequest) or weights is None:
            assert isinstance(study, OpenStatistics) and isinstance(request, StatisticsRequest)
            return self._rooms.counting(study).vector(request, offer.share, self._source, x_max)
        room = self._rooms.of(study)
        if isinstance(request, TrainRequest):
            return room.sum_vector(
                study, request, weights, scale=offer.scale, x_max=x_max, share=offer.share, source=self._source
            )
        scale = int(offer.scale)
        return room.count_vector(
            study, weights, request.edges, scale=scale, x_max=x_max, share=offer.share, source=self._source
        )

    def _agreed(self, study: Opened) -> tuple[EpochSecrets, Roster]:
        """Return a study's pairwise keys, and those who have them."""
        state = self._secrets.epoch(study.rid)
        if state is None or not isinstance(state.stage, Agreed):
            raise PolicyError(
                "CSL-C477", "The study's set-up is not done: there are no keys to mask with.", "Set the study up first."
            )
        epoch = state.stage.secrets
        return epoch, roster_of(self._charter, study, epoch.members)

    def _begun(self, study: Opened, number: int, attempt: int) -> KeptSum:
        """Return a sum that was asked for in this attempt, and that this institution has not opened."""
        return _in_attempt(self._unopened(study, number), number, attempt)

    def _unopened(self, study: Opened, number: int) -> KeptSum | None:
        """Return where a sum stands before its reveal. Once the ledger says that it was opened it is spent, whatever the kept secrets
        say; and where only they say so, the ledger is an older copy."""
        if self._ledger.has_release(study.rid, number):
            raise PolicyError(
                "CSL-C476",
                f"Sum {number} was opened: it is spent.",
                "Repeat the last call, or go on with the next sum.",
            )
        kept = self._secrets.sum(study.rid, number)
        if kept is not None and isinstance(kept.state, RevealedState):
            raise _older_ledger(number)
        return kept

    def _keep(self, study: Opened, kept: KeptSum, state: MaskedState | AckedState) -> None:
        if state is not kept.state:
            self._secrets.keep_sum(study.rid, kept.offer.number, replace(kept, state=state))

    def _note_release(self, study: Opened, number: int, state: AckedState) -> None:
        """Write the ledger's release entry: the masked vector by its digest, and in words over whose vectors it is opened.

        The same entry again changes nothing, and another one under the number is refused: so the ledger itself holds a vault that runs
        on older secrets to the survivors that it acknowledged.
        """
        offer, over = state.masked.ready.offer, state.statement.s
        summed = f"masked, for the sum over {len(state.survivors)} institutions {over}"
        for item in _entries(study, number):
            self._ledger.release(
                study.rid,
                item.number,
                item.account,
                what=f"{item.what}, {summed}",
                sha256=state.masked.y,
                size=offer.d * offer.w // 8,
            )


def _entries(study: Opened, number: int) -> tuple[Paid, ...]:
    """Return the ledger's entries of a sum."""
    if isinstance(study, OpenStatistics):
        return paid_by(study, number)
    account = account_of(study, number)
    return (
        Paid(
            number,
            account,
            {
                "training": f"round {number} of {study.spec.training.rounds}",
                "holdout": "score histograms of held-out customers",
            }[account],
        ),
    )


def _in_attempt(kept: KeptSum | None, number: int, attempt: int) -> KeptSum:
    if kept is None or kept.offer.attempt != attempt:
        raise IntegrityError(
            "CSL-C481",
            f"Sum {number} was not begun here, or in another attempt than {attempt}.",
            "Ask for the sum anew, in a later attempt.",
        )
    return kept


def _older_ledger(number: int) -> IntegrityError:
    return IntegrityError(
        "CSL-C483",
        f"Sum {number} was opened here, and the ledger does not say so: it is an older copy.",
        "Restore the newest ledger, by `consilience officer restore`.",
    )
