"""What a coordinator's monitoring sees of its studies: rounds, seconds, bytes, who answered, and the epsilon that was declared.

All of it is made of a study's public events. Labels are studies and members by name, phases and error codes; of studies beyond
`MAX_STUDIES` there is one label for all, and nodes that did not prove to be a member share one too.
"""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from federation.errors import ConsilienceError
from federation.metrics import MetricsServer, serve_metrics
from server.events import (
    Delivered,
    Evaluated,
    Event,
    GrantsReceived,
    LeftOut,
    OnEvent,
    Published,
    Resumed,
    RosterSettled,
    RoundDone,
    RoundStarted,
    SetUpDone,
    StudySigned,
    SumRepeated,
)
from server.journal import SUFFIX, JournalLine, Tail

MAX_STUDIES = 200
OTHER = "other"
STRANGER = "unproved node"
SECONDS = (0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
STATES: dict[type[Event], str] = {
    StudySigned: "signed",
    Resumed: "signed",
    RosterSettled: "assembled",
    GrantsReceived: "granted",
    RoundStarted: "training",
    Evaluated: "evaluated",
    Published: "published",
    Delivered: "delivered",
}
"""How far a study is, by the last of these events."""
_MEMBER = re.compile(r"[a-z][a-z0-9_]{0,47}")


class StudyMetrics:
    """The metrics of all studies, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._labels: set[str] = set()
        self._states: dict[str, str] = {}
        registry = self.registry
        self._studies = Gauge("consilience_studies", "Studies by how far they are.", ("state",), registry=registry)
        self._rounds = Counter("consilience_rounds", "Rounds that were aggregated.", ("study",), registry=registry)
        self._planned = Gauge("consilience_rounds_planned", "Rounds that a study has.", ("study",), registry=registry)
        self._seconds = Histogram(
            "consilience_round_seconds",
            "Seconds from a round's first request to the new weights.",
            ("study",),
            buckets=SECONDS,
            registry=registry,
        )
        self._bytes = Counter(
            "consilience_bytes", "Bytes of requests and answers.", ("study", "direction"), registry=registry
        )
        self._answers = Counter(
            "consilience_answers", "Rounds that a member answered as agreed.", ("study", "member"), registry=registry
        )
        self._left_out = Counter(
            "consilience_left_out",
            "Answers that were not used.",
            ("study", "member", "phase", "code"),
            registry=registry,
        )
        self._epsilon = Gauge(
            "consilience_epsilon_declared",
            "Epsilon that a member declared when it granted a study.",
            ("study", "member"),
            registry=registry,
        )
        self._set_up = Gauge(
            "consilience_set_up_seconds",
            "Seconds in which the members of a secure study agreed on keys.",
            ("study",),
            registry=registry,
        )
        self._repeated = Counter(
            "consilience_sums_repeated", "Secure sums that had to be asked for again.", ("study",), registry=registry
        )
        self._last = Gauge(
            "consilience_last_event_timestamp_seconds", "When a study's last event came.", ("study",), registry=registry
        )
        self._damaged = Gauge(
            "consilience_journals_damaged", "Journals that cannot be read to their end.", registry=registry
        )
        self._certificate = Gauge(
            "consilience_certificate_end_timestamp_seconds",
            "When the certificate with which the link was started ends.",
            registry=registry,
        )
        self._takers: dict[type, Callable[..., None]] = {
            StudySigned: self._begun,
            Resumed: self._begun,
            GrantsReceived: self._granted,
            LeftOut: self._not_used,
            RoundDone: self._round,
            SetUpDone: self._agreed,
            SumRepeated: self._again,
        }
        ProcessCollector(registry=registry)

    def study(self, name: str) -> OnEvent:
        """Return what takes a study's events as they come."""
        return lambda event: self.take(name, event)

    def take(self, name: str, event: Event) -> None:
        """Take one event of a study."""
        label = self._label(name)
        state = STATES.get(type(event))
        if state is not None:
            self._advance(name, state)
        taker = self._takers.get(type(event))
        if taker is not None:
            taker(label, event)

    def take_line(self, name: str, line: JournalLine) -> None:
        """Take one line of a study's journal."""
        self.take(name, line.event)
        self._last.labels(self._label(name)).set(line.ts.timestamp())

    def certificate(self, ends: datetime) -> None:
        """Set when the server's certificate ends."""
        self._certificate.set(ends.timestamp())

    def damaged(self, count: int) -> None:
        """Set how many journals cannot be read."""
        self._damaged.set(count)

    def serve(self, port: int) -> MetricsServer:
        """Serve the metrics on 127.0.0.1; see `federation.metrics.serve_metrics`."""
        return serve_metrics(self.registry, port)

    def _label(self, name: str) -> str:
        if name not in self._labels and len(self._labels) >= MAX_STUDIES:
            return OTHER
        self._labels.add(name)
        return name

    def _advance(self, name: str, state: str) -> None:
        before = self._states.get(name)
        if before is not None:
            self._studies.labels(before).dec()
        self._studies.labels(state).inc()
        self._states[name] = state

    def _begun(self, label: str, event: StudySigned | Resumed) -> None:
        self._planned.labels(label).set(event.rounds)

    def _granted(self, label: str, event: GrantsReceived) -> None:
        if label == OTHER:
            return
        for member, epsilon in zip(event.granted, event.epsilons, strict=True):
            self._epsilon.labels(label, member).set(epsilon)

    def _not_used(self, label: str, event: LeftOut) -> None:
        who = event.who if _MEMBER.fullmatch(event.who) else STRANGER
        self._left_out.labels(label, who, event.phase.split(" ")[0], event.code).inc()

    def _agreed(self, label: str, event: SetUpDone) -> None:
        self._set_up.labels(label).set(event.seconds)

    def _again(self, label: str, event: SumRepeated) -> None:
        self._repeated.labels(label).inc()

    def _round(self, label: str, event: RoundDone) -> None:
        self._rounds.labels(label).inc()
        self._seconds.labels(label).observe(event.seconds)
        self._bytes.labels(label, "sent").inc(event.bytes_sent)
        self._bytes.labels(label, "received").inc(event.bytes_received)
        for member in event.answered:
            self._answers.labels(label, member).inc()


class JournalFeed:
    """Brings what stands in the journals of a folder into metrics: studies run in processes of their own, and the numbers outlive them."""

    def __init__(self, folder: Path, metrics: StudyMetrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self._tails: dict[str, Tail] = {}

    def poll(self) -> None:
        """Take what came since the last time; a journal that cannot be read is counted, and tried again."""
        unread = 0
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            name = path.name.removesuffix(SUFFIX)
            tail = self._tails.setdefault(name, Tail(path))
            try:
                for line in tail.read():
                    self._metrics.take_line(name, line)
            except ConsilienceError:
                unread += 1
        self._metrics.damaged(unread)
