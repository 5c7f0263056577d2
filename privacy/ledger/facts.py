"""What a verifier remembers of each study while it reads: kept in a private temporary database on disk, so that memory
stays the same however many studies and releases a ledger holds.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache

from privacy.ledger.entries import (
    Approve,
    ApproveData,
    Body,
    Close,
    Consent,
    Known,
    Release,
    Reservation,
    Reserve,
    ReserveData,
)
from privacy.ledger.store import ReleasedRow

CACHE_KIB = 16_384
REMEMBERED = 512

_SCHEMA = """
CREATE TABLE study(rid TEXT PRIMARY KEY, reserve BLOB NOT NULL, training INTEGER NOT NULL DEFAULT 0,
  holdout INTEGER NOT NULL DEFAULT 0, closed INTEGER NOT NULL DEFAULT 0, read INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE decision(rid TEXT NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (rid, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE released(rid TEXT NOT NULL, number INTEGER NOT NULL, account TEXT NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (rid, number)) STRICT, WITHOUT ROWID;
"""


class Facts:
    """Reservations, decisions and releases, by study."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a temporary file without a name
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)
        self._database.execute("BEGIN")
        self._reserved = lru_cache(maxsize=REMEMBERED)(self._read_reserve)

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    def known(self, body: Body) -> Known:
        """Return what earlier entries say about an entry's `rid`."""
        if body.rid is None:
            return Known()
        reservation = self.reservation(body.rid)
        if isinstance(body, Release):
            return Known((), reservation, self._taken(body.rid, body.data.number))
        decisions = self._decisions(body.rid) if isinstance(body, Approve | Reserve) else ()
        return Known(decisions, reservation)

    def remember(self, body: Body) -> None:
        """Take up an entry that the rules allow."""
        if isinstance(body, Approve):
            query = "INSERT OR REPLACE INTO decision VALUES (?, ?, ?)"
            self._database.execute(query, (body.rid, body.seq, body.data.canonical()))
        elif isinstance(body, Reserve):
            self._database.execute("INSERT INTO study(rid, reserve) VALUES (?, ?)", (body.rid, body.data.canonical()))
        elif isinstance(body, Release):
            account = "training" if body.data.account == "training" else "holdout"
            query = f"UPDATE study SET {account} = {account} + 1 WHERE rid = ?"  # noqa: S608 - one of two names
            self._database.execute(query, (body.rid,))
            row = (body.rid, body.data.number, body.data.account, body.seq)
            self._database.execute("INSERT INTO released VALUES (?, ?, ?, ?)", row)
        elif isinstance(body, Close):
            self._database.execute("UPDATE study SET closed = 1 WHERE rid = ?", (body.rid,))
        elif isinstance(body, Consent):
            self._database.execute("UPDATE study SET read = 1 WHERE rid = ?", (body.rid,))

    def releases(self) -> Iterator[ReleasedRow]:
        """Yield every release as the file's table should hold it, by entry."""
        with closing(self._database.execute("SELECT rid, number, account, seq FROM released ORDER BY seq")) as rows:
            yield from rows

    def reservation(self, rid: str) -> Reservation | None:
        """Return what was reserved for a study and released under it so far, or None."""
        query = "SELECT training, holdout, closed, read FROM study WHERE rid = ?"
        row = self._database.execute(query, (rid,)).fetchone()
        if row is None:
            return None
        return Reservation(
            rid, self._reserved(rid), {"training": row[0], "holdout": row[1]}, bool(row[2]), bool(row[3])
        )

    def _read_reserve(self, rid: str) -> ReserveData:
        content = self._database.execute("SELECT reserve FROM study WHERE rid = ?", (rid,)).fetchone()[0]
        return ReserveData.model_validate_json(content)

    def _decisions(self, rid: str) -> tuple[ApproveData, ...]:
        query = "SELECT data FROM decision WHERE rid = ? ORDER BY seq"
        return tuple(ApproveData.model_validate_json(row[0]) for row in self._database.execute(query, (rid,)))

    def _taken(self, rid: str, number: int) -> bool:
        query = "SELECT 1 FROM released WHERE rid = ? AND number = ?"
        return self._database.execute(query, (rid, number)).fetchone() is not None
