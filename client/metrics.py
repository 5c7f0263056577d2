"""What an institution's own monitoring may see of its vault: requests, refusals, releases and time, never anything about customers.

Labels are words of the protocol and error codes, so that their number is bounded whatever a coordinator sends. There is no number here
that was counted in customers' data. Seconds are measured around a whole answer, time grid included; they stay in the house all the same.
"""

import re
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from federation.metrics import MetricsServer, serve_metrics
from privacy.ledger import Account

MESSAGE_TYPES = frozenset(
    {
        "query.hello",
        "query.offer",
        "train",
        "evaluate",
        "query.model",
        "query.receipts",
        "query.measure",
        "query.report",
        "query.head",
        "query.cosign",
        "query.cosigned",
        "query.epoch",
        "query.epoch_keys",
        "query.epoch_exchanges",
        "query.sum",
        "query.sum_readies",
        "query.sum_headers",
        "query.sum_acks",
        "another app",
    }
)
"""What a request may be called: the protocol's types, and a task of an app that no member agreed to."""
OTHER = "other"
MAX_CODES = 200
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_CODE = re.compile(r"CSL-[A-Z][0-9]{3}")


class VaultMetrics:
    """The metrics of one vault, in a registry of their own."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._now = now
        self._codes: set[str] = set()
        registry = self.registry
        self._requests = Counter(
            "consilience_vault_requests", "Requests by type and outcome.", ("type", "outcome"), registry=registry
        )
        self._refusals = Counter("consilience_vault_refusals", "Refusals by error code.", ("code",), registry=registry)
        self._releases = Counter(
            "consilience_vault_releases", "Releases that left the vault, by account.", ("account",), registry=registry
        )
        self._seconds = Histogram(
            "consilience_vault_answer_seconds",
            "Seconds from a request to its answer, time grid included.",
            ("type",),
            buckets=SECONDS,
            registry=registry,
        )
        self._waited = Counter(
            "consilience_vault_throttled_seconds", "Seconds that requests waited for their turn.", registry=registry
        )
        self._studies = Gauge("consilience_vault_studies_open", "Studies that are reserved.", registry=registry)
        self._entries = Gauge("consilience_vault_ledger_entries", "Entries in the ledger.", registry=registry)
        self._last = Gauge(
            "consilience_vault_last_request_timestamp_seconds", "When the last request came.", registry=registry
        )
        ProcessCollector(registry=registry)

    def answered(self, message_type: str, seconds: float) -> None:
        """Count an answer that was given."""
        self._count(message_type, "answered", seconds)

    def refused(self, message_type: str, code: str, seconds: float) -> None:
        """Count a refusal under its code."""
        self._count(message_type, "refused", seconds)
        self._refusals.labels(self._known(code)).inc()

    def failed(self, message_type: str, seconds: float) -> None:
        """Count a request that got no answer of ours: an error that nobody foresaw."""
        self._count(message_type, "failed", seconds)

    def released(self, account: Account) -> None:
        """Count a release that left the vault."""
        self._releases.labels(account).inc()

    def waited(self, seconds: float) -> None:
        """Add the time that a request waited because there were too many."""
        self._waited.inc(max(seconds, 0.0))

    def state(self, *, studies_open: int, ledger_entries: int) -> None:
        """Set how many studies are open, and how long the ledger is."""
        self._studies.set(studies_open)
        self._entries.set(ledger_entries)

    def serve(self, port: int) -> MetricsServer:
        """Serve the metrics on 127.0.0.1; see `federation.metrics.serve_metrics`."""
        return serve_metrics(self.registry, port)

    def _count(self, message_type: str, outcome: str, seconds: float) -> None:
        kind = message_type if message_type in MESSAGE_TYPES else OTHER
        self._requests.labels(kind, outcome).inc()
        self._seconds.labels(kind).observe(seconds)
        self._last.set(self._now())

    def _known(self, code: str) -> str:
        if code not in self._codes and (len(self._codes) >= MAX_CODES or not _CODE.fullmatch(code)):
            return OTHER
        self._codes.add(code)
        return code
