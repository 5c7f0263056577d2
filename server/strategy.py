"""The strategy: what is asked of each vault in a round, which answers count, and how they move the weights.

Weights of institutions are public functions of declared sizes and granted noise; nothing that a vault says of itself in a round is
believed. A vault that is silent, fails, answers twice or sends what does not fit is left out of that round, with a reason, and the round
goes on while the study's smallest number of partners holds.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from federation.charter import Charter
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import DocumentError, FederationError, IntegrityError
from federation.messages import (
    EvaluateRelease,
    EvaluateRequest,
    Grant,
    Tensors,
    TrainRelease,
    TrainRequest,
    dump_tensors,
    pack,
    read_tensors,
    unpack,
)
from federation.study import StudySpec
from server.checkpoint import Scores
from server.course import Course
from server.events import LeftOut, OnEvent
from server.exchange import Answer, Failure, sort_replies
from server.grants import declined, unreadable

logger = logging.getLogger("consilience.coordinator")

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
COUNTS = "counts"
# Released weights and sums beyond this would overflow float32 on the way back; an honest vault never comes near.
LARGEST_VALUE = 1e18
LARGEST_COUNT = 1 << 41


@dataclass(frozen=True)
class Partner:
    """A member that granted the study: where it is reached, how its answers are checked, and its histogram's noise."""

    member: str
    node_id: int
    key: str
    histogram_sigma: float


def partners_of(charter: Charter, nodes: Mapping[str, int], grants: Mapping[str, Grant]) -> tuple[Partner, ...]:
    """Return those who granted and are connected, in the order of their names."""
    return tuple(
        Partner(member, nodes[member], charter.member(member).key, grants[member].histogram_sigma)
        for member in sorted(set(nodes) & set(grants))
    )


class StudyStrategy(Strategy):
    """One study's rounds on Flower's message API; what lasts from round to round is `course`, which a checkpoint keeps.

    Attributes
    ----------
    answered:
        The members whose answers counted in the last round.
    silent:
        The nodes that did not answer in time in the last round.
    scores:
        The histograms of the evaluation.
    """

    def __init__(
        self,
        spec: StudySpec,
        key: Ed25519PrivateKey,
        partners: tuple[Partner, ...],
        course: Course,
        on_event: OnEvent,
    ) -> None:
        self._spec = spec
        self._study = spec.digest()
        self._key = key
        self._partners = partners
        self._shapes: Shapes = {name: (value.shape, "float32") for name, value in course.broadcast().items()}
        self._on_event = on_event
        self._asked: list[Message] = []
        self._edges: tuple[float, ...] = ()
        self.course = course
        self.answered: tuple[str, ...] = ()
        self.silent: frozenset[int] = frozenset()
        self.scores: tuple[Scores, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """The partners that are asked."""
        return tuple(partner.member for partner in self._partners)

    def ask_for_scores(self, edges: tuple[float, ...]) -> None:
        """Set the bins of the evaluation that follows the last round."""
        self._edges = edges

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return one signed request for each partner: the same weights for all, each with its own clip."""
        payload = dump_tensors(to_numpy(arrays))
        digest = sha256_hex(payload)
        clips = self.course.clips()
        self._asked = []
        for partner in self._partners:
            request = TrainRequest(
                study=self._study,
                round=server_round,
                clip=clips[partner.member],
                learning_rate=self.course.terms.tuning.local_learning_rate,
                payload=digest,
            )
            self._asked.append(self._message(partner, request, payload, "train", server_round))
        return self._asked

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Move the weights by the releases that fit.

        Raises
        ------
        FederationError
            CSL-S501 when fewer partners answered than the study demands; the state stays as it was.
        """
        releases: dict[str, Tensors] = {}
        phase = f"round {server_round}"
        for partner, answer in self._sorted(replies):
            read = answer if isinstance(answer, Failure) else self._read_training(partner, answer, server_round)
            if isinstance(read, Failure):
                self._leave_out(phase, server_round, partner.member, read)
            else:
                releases[partner.member] = read
        self._note(releases, phase)
        self.course = self.course.after(releases)
        metrics = MetricRecord({"answered": len(releases), "left-out": len(self._partners) - len(releases)})
        return to_arrays(self.course.broadcast()), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return one signed request for each partner after the last round, and none before: every evaluation costs budget."""
        self._asked = []
        if server_round != self._spec.training.rounds:
            return self._asked
        payload = dump_tensors(to_numpy(arrays))
        request = EvaluateRequest(study=self._study, edges=self._edges, payload=sha256_hex(payload))
        self._asked = [
            self._message(partner, request, payload, "evaluate", server_round + 1) for partner in self._partners
        ]
        return self._asked

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Keep the histograms that fit in `scores`.

        Raises
        ------
        FederationError
            CSL-S501 when fewer partners answered than the study demands.
        """
        if not self._asked:
            return None
        scores = []
        for partner, answer in self._sorted(replies):
            read = answer if isinstance(answer, Failure) else self._read_scores(partner, answer)
            if isinstance(read, Failure):
                self._leave_out("evaluation", server_round, partner.member, read)
            else:
                scores.append(read)
        self._note({item.member: item for item in scores}, "the evaluation")
        self.scores = tuple(scores)
        return MetricRecord({"answered": len(scores)})

    def summary(self) -> None:
        """Log what the study runs by; all of it is public."""
        training = self._spec.training
        logger.info(
            "study %s: %s, %d rounds, q %g, optimizer %s, %d partners",
            self._study[:12],
            training.mode,
            training.rounds,
            training.sampling_rate,
            training.server_optimizer,
            len(self._partners),
        )

    def _message(self, partner: Partner, header: Document, payload: bytes, message_type: str, group: int) -> Message:
        ttl = self._spec.draft.deadline_seconds
        return Message(pack(self._key, header, payload), partner.node_id, message_type, ttl=ttl, group_id=str(group))

    def _sorted(self, replies: Iterable[Message]) -> list[tuple[Partner, Answer]]:
        answers = sort_replies(self._asked, replies, self._spec.draft.deadline_seconds)
        self.silent = frozenset(
            node for node, answer in answers.items() if isinstance(answer, Failure) and answer.code == "CSL-S202"
        )
        return [(partner, answers[partner.node_id]) for partner in self._partners if partner.node_id in answers]

    def _note(self, answered: Mapping[str, object], phase: str) -> None:
        self.answered = tuple(sorted(answered))
        least = self._spec.draft.min_partners
        if len(answered) < least:
            raise FederationError(
                "CSL-S501",
                f"In {phase} {len(answered)} of {len(self._partners)} partners answered as agreed; the study needs {least}.",
                "Bring the missing institutions back and run the study again: it goes on from its checkpoint.",
            )

    def _leave_out(self, phase: str, server_round: int, member: str, failure: Failure) -> None:
        self._on_event(LeftOut(phase=phase, round=server_round, who=member, code=failure.code, reason=failure.reason))

    def _read_training(self, partner: Partner, answer: Answer, server_round: int) -> Tensors | Failure:
        assert not isinstance(answer, Failure)
        if declined(answer, partner.member, partner.key):
            return Failure("CSL-S206", "declined; its reason stays with it")
        try:
            release, payload = unpack(answer, TrainRelease, partner.key)
            if (release.study, release.member, release.round) != (self._study, partner.member, server_round):
                return Failure("CSL-S208", "answered for another study, member or round")
            tensors = read_tensors(payload, self._shapes)
        except (IntegrityError, DocumentError) as error:
            return unreadable(error)
        if any(np.abs(value).max(initial=0.0) > LARGEST_VALUE for value in tensors.values()):
            return Failure("CSL-S209", "sent numbers beyond every sensible bound")
        return tensors

    def _read_scores(self, partner: Partner, answer: Answer) -> Scores | Failure:
        assert not isinstance(answer, Failure)
        if declined(answer, partner.member, partner.key):
            return Failure("CSL-S206", "declined; its reason stays with it")
        bins = len(self._edges) + 1
        try:
            release, payload = unpack(answer, EvaluateRelease, partner.key)
            if (release.study, release.member) != (self._study, partner.member):
                return Failure("CSL-S208", "answered for another study, member or round")
            counts = read_tensors(payload, {COUNTS: ((2, bins), "int64")})[COUNTS]
        except (IntegrityError, DocumentError) as error:
            return unreadable(error)
        if counts.max() > LARGEST_COUNT or counts.min() < -LARGEST_COUNT:
            return Failure("CSL-S209", "sent numbers beyond every sensible bound")
        no, yes = counts.tolist()
        return Scores(member=partner.member, counts=(tuple(no), tuple(yes)), sigma=partner.histogram_sigma)


def to_arrays(tensors: Mapping[str, NDArray[np.float32]]) -> ArrayRecord:
    """Return tensors as Flower's record."""
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in tensors.items()})


def to_numpy(arrays: ArrayRecord) -> dict[str, NDArray[np.float32]]:
    """Return a record's tensors by name."""
    return {name: array.numpy() for name, array in arrays.items()}
