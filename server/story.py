"""What a study's events add up to: how far it is, who is there, who answered, who was left out and why."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Literal

from server.events import (
    Delivered,
    Evaluated,
    Event,
    GrantsReceived,
    LeftOut,
    Published,
    Reported,
    Resumed,
    RosterSettled,
    RoundDone,
    RoundStarted,
    SetUpDone,
    SetUpStarted,
    StudySigned,
    SumRepeated,
    Witnessed,
)
from server.journal import JournalLine

MAX_REMEMBERED = 8
STRANGERS = "node "

Stage = Literal[
    "nothing yet",
    "waiting for members",
    "asking for grants",
    "agreeing on keys",
    "training",
    "counting",
    "evaluating",
    "reporting",
    "delivering",
    "witnessing",
]


@dataclass(frozen=True)
class MemberStory:
    """One member in a study; None where nothing is known of it (yet)."""

    member: str
    present: bool | None
    epsilon: float | None
    declined: bool
    answered: int
    left_out: int
    last: str
    holds_model: bool | None
    witnesses: int | None


@dataclass
class Story:
    """A study as its journal tells it; a journal may hold several runs of it, and an earlier study of the same name.

    `counts` says that it is one of statistics, which the events before its report do not tell.
    """

    name: str = ""
    study: str = ""
    rounds: int = 0
    stage: Stage = "nothing yet"
    begun: datetime | None = None
    latest: datetime | None = None
    resumed: list[tuple[datetime, int]] = field(default_factory=list)
    safe_round: int = 0
    current: tuple[datetime, RoundStarted] | None = None
    done: dict[int, RoundDone] = field(default_factory=dict)
    bytes_sent: int = 0
    bytes_received: int = 0
    keys: SetUpDone | None = None
    repeated: int = 0
    left_out: deque[tuple[datetime, LeftOut | SumRepeated]] = field(
        default_factory=lambda: deque(maxlen=MAX_REMEMBERED)
    )
    evaluated: Evaluated | None = None
    published: Published | None = None
    reported: Reported | None = None
    delivered: Delivered | None = None
    witnessed: dict[str, Witnessed] = field(default_factory=dict)
    counts: bool = False
    _invited: tuple[str, ...] = ()
    _roster: RosterSettled | None = None
    _epsilons: dict[str, float] = field(default_factory=dict)
    _declined: frozenset[str] = frozenset()
    _refused: dict[str, tuple[int, str]] = field(default_factory=dict)

    def take(self, line: JournalLine) -> None:
        """Take the next line of this study."""
        self.begun = self.begun or line.ts
        self.latest = line.ts
        takers: dict[type[Event], Callable[..., None]] = {
            StudySigned: self._signed,
            Resumed: self._resumed,
            RosterSettled: self._settled,
            GrantsReceived: self._granted,
            LeftOut: self._not_used,
            SetUpStarted: self._agreeing,
            SetUpDone: self._agreed,
            SumRepeated: self._again,
            RoundStarted: self._started,
            RoundDone: self._done,
            Evaluated: self._scored,
            Published: self._filed,
            Reported: self._reported,
            Delivered: self._brought,
            Witnessed: self._seen,
        }
        takers[type(line.event)](line.ts, line.event)

    @property
    def rounds_done(self) -> int:
        """The last round that is aggregated and safe."""
        return max([self.safe_round, *self.done])

    @property
    def median_seconds(self) -> float | None:
        """Median seconds of a round by the coordinator's clock; None before the first."""
        return median(item.seconds for item in self.done.values()) if self.done else None

    @property
    def last_round(self) -> RoundDone | None:
        """The last round that this journal tells of."""
        return self.done[max(self.done)] if self.done else None

    def members(self) -> list[MemberStory]:
        """Return everybody who was invited or heard of, by name."""
        names = {*self._invited, *self._epsilons, *self._declined, *self.witnessed}
        names |= {who for who in self._refused if not who.startswith(STRANGERS)}
        if self._roster is not None:
            names |= {*self._roster.present, *self._roster.missing}
        return [self._member(name) for name in sorted(names)]

    def _member(self, name: str) -> MemberStory:
        left_out, last = self._refused.get(name, (0, ""))
        seen, delivered = self.witnessed.get(name), self.delivered
        return MemberStory(
            member=name,
            present=None if self._roster is None else name in self._roster.present,
            epsilon=self._epsilons.get(name),
            declined=name in self._declined,
            answered=sum(name in item.answered for item in self.done.values()),
            left_out=left_out,
            last=last,
            holds_model=None if delivered is None else name in delivered.receipts,
            witnesses=None if seen is None else len(seen.witnesses) if seen.returned else 0,
        )

    def _at_work(self) -> Stage:
        return "counting" if self.counts else "training"

    def _after_rounds(self) -> Stage:
        return "reporting" if self.counts else "evaluating"

    def _signed(self, _: datetime, event: StudySigned) -> None:
        self.name, self.study, self.rounds = event.name, event.study, event.rounds
        self._invited = event.members
        self.stage = "waiting for members"

    def _resumed(self, ts: datetime, event: Resumed) -> None:
        self.name, self.study, self.rounds = event.name, event.study, event.rounds
        self.resumed.append((ts, event.after_round))
        self.safe_round = max(self.safe_round, event.after_round)
        self.current = None
        self.stage = "waiting for members"

    def _settled(self, _: datetime, event: RosterSettled) -> None:
        self._roster = event
        if self._epsilons or self.safe_round:
            self.stage = self._at_work() if self.rounds_done < self.rounds else self._after_rounds()
        else:
            self.stage = "asking for grants"

    def _granted(self, _: datetime, event: GrantsReceived) -> None:
        self._epsilons = dict(zip(event.granted, event.epsilons, strict=False))
        self._declined = frozenset(event.declined)
        self.stage = self._at_work()

    def _not_used(self, ts: datetime, event: LeftOut) -> None:
        self.left_out.append((ts, event))
        count, _ = self._refused.get(event.who, (0, ""))
        self._refused[event.who] = count + 1, f"{event.phase}: {event.code} {event.reason}"

    def _agreeing(self, _: datetime, event: SetUpStarted) -> None:
        self.stage = "agreeing on keys"

    def _agreed(self, _: datetime, event: SetUpDone) -> None:
        self.keys = event
        self.stage = self._at_work()

    def _again(self, ts: datetime, event: SumRepeated) -> None:
        self.repeated += 1
        self.left_out.append((ts, event))

    def _started(self, ts: datetime, event: RoundStarted) -> None:
        self.current = ts, event
        self.stage = self._at_work()

    def _done(self, _: datetime, event: RoundDone) -> None:
        self.done[event.round] = event
        self.bytes_sent += event.bytes_sent
        self.bytes_received += event.bytes_received
        self.current = None
        self.stage = self._after_rounds() if event.round >= event.rounds else self._at_work()

    def _scored(self, _: datetime, event: Evaluated) -> None:
        self.evaluated = event
        self.stage = "delivering"

    def _filed(self, _: datetime, event: Published) -> None:
        self.published = event
        self.stage = "delivering"

    def _reported(self, _: datetime, event: Reported) -> None:
        self.reported = event
        self.stage = "delivering"

    def _brought(self, _: datetime, event: Delivered) -> None:
        self.delivered = event
        self.stage = "witnessing"

    def _seen(self, _: datetime, event: Witnessed) -> None:
        self.witnessed[event.member] = event


def told(story: Story, line: JournalLine) -> Story:
    """Return the story with the journal's next line: a new one where the line begins another study under the same name."""
    if isinstance(line.event, StudySigned | Resumed) and story.study and line.event.study != story.study:
        story = Story(counts=story.counts)
    story.take(line)
    return story
