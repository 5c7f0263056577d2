"""Refusals on their way into the ledger, so that whoever sends many requests cannot fill it.

The very same refusal is written once a day. Of the others, sixty an hour are written one by one; the rest are counted by code, and one
entry sums them up when the hour is over or the vault is closed. Hours and days are the ledger's. What is remembered meanwhile is bounded
whatever is sent: digests of one day's refusals, at most sixty for each of its hours, and a hundred counters. A process that is
killed forgets a count that was not written yet.
"""

from collections import Counter
from hashlib import sha256
from typing import Protocol

from privacy.ledger.entries import MILLISECONDS_A_DAY
from privacy.ledger.refusals import MOST_CODES

AN_HOUR = 3_600_000
MOST_AN_HOUR = 60


class Book(Protocol):
    """What is needed of the ledger."""

    def now(self) -> int:
        """Return the ledger's time in milliseconds since 1970."""

    def refuse(self, code: str, study: str, why: str) -> None:
        """Write a refusal down."""

    def refuse_many(self, count: int, first: int, last: int, codes: "Counter[str]") -> None:
        """Write down how many refusals there were between two times."""


class Refusals:
    """The refusals of one vault; for one thread at a time.

    Raises (all methods)
    --------------------
    StorageError
        When the ledger cannot be written; a sum then waits for the next time.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._day = -1
        self._written: set[bytes] = set()
        self._hour = 0  # when it began, by the ledger
        self._left = MOST_AN_HOUR
        self._codes: Counter[str] = Counter()
        self._count = self._first = self._last = 0

    def note(self, code: str, study: str, why: str) -> None:
        """Write a refusal down, or count it."""
        now = self._begin()
        refusal = sha256(repr((code, study, why)).encode("utf-8", "replace")).digest()
        if refusal in self._written:
            return
        if self._left:
            self._book.refuse(code, study, why)
            self._left -= 1
            self._written.add(refusal)
        else:
            self._add(code, now)

    @property
    def counted(self) -> int:
        """How many refusals were counted and are not summed up yet."""
        return self._count

    def settle(self) -> None:
        """Write down what was counted in an hour that is over."""
        if self._count:
            self._begin()

    def close(self) -> None:
        """Write down what was counted, whatever the hour."""
        if self._count:
            self._book.refuse_many(self._count, self._first, self._last, self._codes)
            self._count = 0
            self._codes.clear()

    def _begin(self) -> int:
        """Begin a new hour, and a new day, where the last is over; return the time."""
        now = self._book.now()
        if now >= self._hour + AN_HOUR:
            self.close()
            self._hour, self._left = now, MOST_AN_HOUR
        if now // MILLISECONDS_A_DAY != self._day:
            self._day = now // MILLISECONDS_A_DAY
            self._written.clear()
        return now

    def _add(self, code: str, now: int) -> None:
        if not self._count:
            self._first = now
        self._count += 1
        self._last = now
        if code in self._codes or len(self._codes) < MOST_CODES:
            self._codes[code] += 1
