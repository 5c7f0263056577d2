"""Counts what the vault says of its requests, for the institution's own monitoring."""

from client.home import Home
from client.metrics import VaultMetrics
from client.studies import Studies
from client.vault import Answered
from federation.errors import ConsilienceError
from privacy.ledger import LedgerReader


class VaultMeter:
    """Is told of each request by the vault (`watch`), and asked by the worker which one it was (`done`); one request at a time."""

    def __init__(self, metrics: VaultMetrics, home: Home, key: str) -> None:
        self._metrics = metrics
        self._home = home
        self._key = key
        self._last: Answered | None = None
        self._over: set[str] = set()

    def watch(self, answered: Answered) -> None:
        """Count a request: what `client.vault.Vault` is given to tell."""
        self._last = answered
        self._metrics.waited(answered.waited)
        if answered.code is not None:
            self._metrics.refused(answered.message_type, answered.code, answered.seconds)
            return
        self._metrics.answered(answered.message_type, answered.seconds)
        if answered.account is not None:
            self._metrics.released(answered.account)

    def done(self, seconds: float) -> str:
        """Return the type of the request that the vault told of last; one of which it told nothing has failed, after so many seconds."""
        answered, self._last = self._last, None
        if answered is None:
            self._metrics.failed("other", seconds)
            return "other"
        self.refresh()
        return answered.message_type

    def refresh(self) -> None:
        """Look up how long the ledger is and how many studies are open; where that cannot be read now, the figures stay."""
        try:
            with LedgerReader.read(self._home.ledger_file, self._key) as reader:
                entries = reader.tree_head().size
                rids = [rid for rid in Studies(self._home.folder("studies")).rids() if rid not in self._over]
                held = [item for rid in rids if (item := reader.reservation(rid)) is not None]
        except ConsilienceError:
            return
        self._over |= {
            item.rid for item in held if item.closed
        }  # what is closed stays so, and need not be looked up again
        studies_open = sum(not item.closed for item in held)
        self._metrics.state(studies_open=studies_open, ledger_entries=entries)
