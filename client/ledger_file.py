"""Whether the ledger that a running vault writes is still the file in its home, and still goes on from what it was."""

from pathlib import Path

from client.home import Home, check_unlocked
from federation.errors import IntegrityError
from privacy.ledger import Ledger


class LedgerFile:
    """Watches the file of an open ledger: somebody may restore an older copy while the vault runs."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._home = home
        self._ledger = ledger
        self._place = _place(home.ledger_file)
        self._last = _last_entry(ledger)

    def check(self) -> None:
        """Refuse while the ledger is an older copy, or no longer the file in the home.

        Raises
        ------
        IntegrityError
            CSL-C006 while the home waits for officers after a restoration, CSL-C530 when the file was exchanged.
        """
        check_unlocked(self._home)
        if _place(self._home.ledger_file) != self._place or not self._goes_on():
            raise IntegrityError(
                "CSL-C530", "The ledger's file was exchanged while the vault was running.", "Start the vault again."
            )

    def _goes_on(self) -> bool:
        """Whether the entry that was the last one before is still there, and with it, as they are chained, all before it: an older copy
        may be written into the very file."""
        size, leaf = self._last
        same = next(self._ledger.leaves(size - 1, size), None) == leaf
        if same:
            self._last = _last_entry(self._ledger)
        return same


def _last_entry(ledger: Ledger) -> tuple[int, bytes]:
    """Return how many entries a ledger has, and the last one's leaf."""
    state = ledger.state()
    return state.size, bytes.fromhex(state.head)


def _place(path: Path) -> tuple[int, int] | None:
    """Return which file lies at a path (device and inode), or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
