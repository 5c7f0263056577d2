"""What a running study tells whoever watches it: typed events for a live view, a log or a test."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StudySigned:
    """The plan stands and is signed; `members` are the institutions that the study waits for."""

    name: str
    study: str
    rounds: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Resumed:
    """An interrupted study goes on; `after_round` is the last round that is safe."""

    name: str
    study: str
    rounds: int
    after_round: int


@dataclass(frozen=True)
class RosterSettled:
    """Who proved to be which member, and who did not come in time."""

    present: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class GrantsReceived:
    """Who granted the study, with the epsilon that each declared."""

    granted: tuple[str, ...]
    epsilons: tuple[float, ...]
    declined: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """Somebody's answer was not used; `who` is a member, or a node that did not prove to be one."""

    phase: str
    round: int
    who: str
    code: str
    reason: str


@dataclass(frozen=True)
class SetUpStarted:
    """The members of a secure study are asked to agree on keys; a later attempt is made without those who were left out."""

    attempt: int
    asked: tuple[str, ...]


@dataclass(frozen=True)
class SetUpDone:
    """The members hold pairwise keys; from now on these take part and nobody else."""

    members: tuple[str, ...]
    attempt: int
    seconds: float


@dataclass(frozen=True)
class SumRepeated:
    """A secure sum could not go on, and nothing of it was opened: it is asked for again, over the same vectors."""

    phase: str
    round: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class RoundStarted:
    """A round's requests are on their way."""

    round: int
    rounds: int
    asked: tuple[str, ...]


@dataclass(frozen=True)
class RoundDone:
    """A round is aggregated and checkpointed; seconds from the first request to the new weights.

    `attempts` is how often a secure sum was asked for before it could be opened.
    """

    round: int
    rounds: int
    answered: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float
    bytes_sent: int
    bytes_received: int
    attempts: int = 1


@dataclass(frozen=True)
class Evaluated:
    """Score histograms are in; `auc` is None where it would say nothing."""

    members: tuple[str, ...]
    auc: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Published:
    """The model stands in the registry."""

    name: str
    folder: Path
    model: str


@dataclass(frozen=True)
class Reported:
    """The report of a statistics study is published; `digest` is that of its canonical form."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True)
class Delivered:
    """The members hold the model (or report); `agreed` is False when receipts name different models."""

    receipts: tuple[str, ...]
    agreed: bool


@dataclass(frozen=True)
class Witnessed:
    """A member's ledger head is kept and cosigned here; `witnesses` are the members that cosigned it, `returned`: it has the note."""

    member: str
    size: int
    witnesses: tuple[str, ...]
    returned: bool


Event = (
    StudySigned
    | Resumed
    | RosterSettled
    | GrantsReceived
    | LeftOut
    | SetUpStarted
    | SetUpDone
    | SumRepeated
    | RoundStarted
    | RoundDone
    | Evaluated
    | Published
    | Reported
    | Delivered
    | Witnessed
)
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Watch nothing."""
