"""Rounds and evaluation of a study whose vectors are added up in secret: requests from the course, and what the opened sums mean.

Round r is sum r, and the evaluation the sum after the last round. The mean gradient is sum / (scale sum_i a_i q n_i) over the members in
the sum; counts are sum / k, where k is the smallest scale that a member granted, so that a customer counts alike everywhere.
"""

import math
from collections.abc import Mapping

from federation.encoding import sha256_hex
from federation.messages import EvaluateRequest, Grant, TrainRequest, dump_tensors
from federation.study import StudySpec
from federation.vectors import dimension_of, unflatten
from server.checkpoint import ScoreSum
from server.course import Course, LinearCourse, Tensors32
from server.rounds import Counted, Trained
from server.secure.calls import Line
from server.secure.sums import SecureSums, SumTerms

LABELS = 2
# So many times its declared customers a member's counts may hold before the sum is not believed.
_LARGER_THAN_DECLARED = 8.0


class SecureRounds:
    """Every vault masks its vector, and the coordinator opens the sum.

    Parameters
    ----------
    grants:
        Of the members that hold keys, connected or not.
    line:
        Reaches those who are connected.
    """

    def __init__(self, spec: StudySpec, grants: Mapping[str, Grant], sums: SecureSums, line: Line) -> None:
        assert spec.secure is not None
        self._spec = spec
        self._study = spec.digest()
        self._share = spec.secure.share
        self._grants = grants
        self._sums = sums
        self._line = line

    @property
    def members(self) -> tuple[str, ...]:
        """Those who are asked."""
        return self._line.members

    def train(self, number: int, course: Course) -> Trained:
        """Run one round. Raises as `SecureSums.sum`."""
        assert isinstance(course, LinearCourse) and course.terms.pooled is not None
        pool = course.pool(course.terms.pooled)
        weights = course.broadcast()
        payload = dump_tensors(weights)
        shapes = {name: value.shape for name, value in weights.items()}
        requests = {
            member: TrainRequest(
                study=self._study,
                round=number,
                clip=pool.clips[member],
                learning_rate=course.terms.tuning.local_learning_rate,
                weight=None if pool.weights[member] == 1.0 else pool.weights[member],
                payload=sha256_hex(payload),
            )
            for member in sorted(self._grants)
        }
        terms = SumTerms(number, f"round {number}", dimension_of(shapes), pool.scale, pool.x_max)
        sent, received = self._line.sent, self._line.received
        opened = self._sums.sum(terms, requests, payload)
        gradient = unflatten(pool.mean(opened.total, opened.members, course.terms.expected), shapes)
        return Trained(
            course=course.moved(gradient),
            answered=opened.members,
            bytes_sent=self._line.sent - sent,
            bytes_received=self._line.received - received,
            attempts=opened.attempts,
        )

    def evaluate(self, edges: tuple[float, ...], model: Tensors32) -> Counted:
        """Ask for the sum of all histograms. Raises as `SecureSums.sum`."""
        payload = dump_tensors(model)
        request = EvaluateRequest(study=self._study, edges=edges, payload=sha256_hex(payload))
        scale = min(grant.secure.histogram_scale for grant in self._grants.values() if grant.secure is not None)
        most = max(grant.declared_size for grant in self._grants.values())
        bins = len(edges) + 1
        number = self._spec.training.rounds + 1
        terms = SumTerms(number, "the evaluation", LABELS * bins, float(scale), _LARGER_THAN_DECLARED * scale * most)
        opened = self._sums.sum(terms, dict.fromkeys(sorted(self._grants), request), payload)
        no, yes = opened.total.reshape(LABELS, bins).tolist()
        return Counted(
            score_sum=ScoreSum(
                members=opened.members,
                total=(tuple(no), tuple(yes)),
                scale=scale,
                sigma=self._share * math.sqrt(len(opened.members)) / scale,
            )
        )
