"""What the study loop asks for: a round's new weights, and the histograms of the evaluation, however vectors are added up.

`PlainRounds` adds up what each vault releases by itself; `server.secure.rounds` has the sums alone.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from server.checkpoint import Scores, ScoreSum
from server.course import Course, Tensors32
from server.exchange import size_of
from server.strategy import StudyStrategy, to_arrays

Send = Callable[[list[Message], Collection[int]], list[Message]]


@dataclass(frozen=True)
class Trained:
    """A round: the course after it, whose vectors counted, the bytes of all its calls, and how many attempts it took."""

    course: Course
    answered: tuple[str, ...]
    bytes_sent: int
    bytes_received: int
    attempts: int = 1


@dataclass(frozen=True)
class Counted:
    """The evaluation: each member's histogram, or the sum of all."""

    scores: tuple[Scores, ...] = ()
    score_sum: ScoreSum | None = None


class Rounds(Protocol):
    """How a study's vectors are added up."""

    @property
    def members(self) -> tuple[str, ...]:
        """Those who are asked."""
        ...

    def train(self, number: int, course: Course) -> Trained:
        """Run one round. Raises FederationError when too few answered; the course stays as it was."""
        ...

    def evaluate(self, edges: tuple[float, ...], model: Tensors32) -> Counted:
        """Ask for the score histograms of a model. Raises as `train`."""
        ...


class PlainRounds:
    """Every vault releases its own noisy vector, and the strategy adds them up."""

    def __init__(self, strategy: StudyStrategy, rounds: int, send: Send, grid: Grid) -> None:
        self._strategy = strategy
        self._rounds = rounds
        self._send = send
        self._grid = grid

    @property
    def members(self) -> tuple[str, ...]:
        """Those who are asked."""
        return self._strategy.members

    def train(self, number: int, course: Course) -> Trained:
        """Run one round. Raises FederationError CSL-S501."""
        strategy = self._strategy
        strategy.course = course
        asked = strategy.configure_train(number, to_arrays(course.broadcast()), ConfigRecord(), self._grid)
        replies = self._send(asked, strategy.silent)
        strategy.aggregate_train(number, replies)
        return Trained(strategy.course, strategy.answered, size_of(asked), size_of(replies))

    def evaluate(self, edges: tuple[float, ...], model: Tensors32) -> Counted:
        """Ask for every member's histogram. Raises FederationError CSL-S501."""
        strategy = self._strategy
        strategy.ask_for_scores(edges)
        asked = strategy.configure_evaluate(self._rounds, to_arrays(model), ConfigRecord(), self._grid)
        strategy.aggregate_evaluate(self._rounds, self._send(asked, strategy.silent))
        return Counted(scores=strategy.scores)
