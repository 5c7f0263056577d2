"""The ledger's file: an SQLite database that only ever grows, each transaction durable before it returns.

`entry` is the record. `released` (which numbers a reservation used) and `state` (the running totals, signed) are
derived from it in the same transaction; they make decisions fast, and verification derives them again from the entries
alone.
"""

import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from federation.errors import ConsilienceError, IntegrityError, StorageError
from federation.files import sync_folder

APPLICATION_ID = 0x43534C31  # "CSL1"
FORMAT = 3
BUSY_SECONDS = 10.0
BATCH = 1000

SCHEMA = (
    """CREATE TABLE entry(
  seq  INTEGER PRIMARY KEY CHECK (seq >= 0),
  kind TEXT NOT NULL CHECK (kind IN
  ('genesis','policy','approve','reserve','consent','release','close','refuse','rotate','restore','access','withdraw','witness')),
  rid  TEXT,
  body BLOB NOT NULL,
  leaf BLOB NOT NULL UNIQUE CHECK (length(leaf) = 32),
  sig  BLOB NOT NULL CHECK (length(sig) = 64)
) STRICT""",
    "CREATE UNIQUE INDEX one_reserve ON entry(rid) WHERE kind = 'reserve'",
    "CREATE UNIQUE INDEX one_close ON entry(rid) WHERE kind = 'close'",
    "CREATE INDEX of_study ON entry(rid, kind) WHERE kind IN ('approve', 'consent')",
    """CREATE TABLE released(
  rid     TEXT NOT NULL,
  number  INTEGER NOT NULL CHECK (number >= 0),
  account TEXT NOT NULL CHECK (account IN ('training','holdout')),
  seq     INTEGER NOT NULL UNIQUE,
  PRIMARY KEY (rid, number)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE state(
  id   INTEGER PRIMARY KEY CHECK (id = 0),
  body BLOB NOT NULL,
  sig  BLOB NOT NULL CHECK (length(sig) = 64)
) STRICT""",
    "CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries stay'); END",
    "CREATE TRIGGER entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries stay'); END",
    "CREATE TRIGGER released_stays BEFORE UPDATE ON released BEGIN SELECT RAISE(ABORT, 'releases stay'); END",
    "CREATE TRIGGER released_kept BEFORE DELETE ON released BEGIN SELECT RAISE(ABORT, 'releases stay'); END",
    "CREATE TRIGGER state_kept BEFORE DELETE ON state BEGIN SELECT RAISE(ABORT, 'the state stays'); END",
)

Row = tuple[int, str, str | None, bytes, bytes, bytes]
ReleasedRow = tuple[str, int, str, int]


class Store:
    """An open ledger file; every method maps SQLite's errors to ours.

    Raises (all methods)
    --------------------
    StorageError
        CSL-P511 disk full, CSL-P512 busy, CSL-P513 not readable or writable.
    IntegrityError
        CSL-P601 when the file is damaged.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path) -> "Store":
        """Open a new, empty ledger under a temporary name beside `path`; `publish` gives it its name."""
        with translated(path):
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
            os.close(descriptor)
            store = cls(Path(name), _connect(Path(name), "rw"))
            try:
                store._execute("PRAGMA journal_mode = DELETE")
                with store.transaction():
                    store._execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    store._execute(f"PRAGMA user_version = {FORMAT}")
                    for statement in SCHEMA:
                        store._execute(statement)
            except (ConsilienceError, sqlite3.Error):
                store.discard()
                raise
        return store

    def publish(self, path: Path) -> None:
        """Give a new ledger its name, atomically and never over a file that exists; closes this store.

        Raises
        ------
        StorageError
            CSL-P510 when `path` exists.
        """
        self.close()
        try:
            os.link(self.path, path)
            sync_folder(path.parent)
        except FileExistsError as error:
            raise StorageError(
                "CSL-P510", f"{path} exists: a ledger is never overwritten.", "Open it, or choose another home folder."
            ) from error
        except OSError as error:
            raise _storage("CSL-P513", path, error.strerror or "it cannot be linked") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Close and remove a ledger that was not published."""
        self.close()
        self.path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path, *, write: bool) -> "Store":
        """Open an existing ledger and check rights (0600), kind and format of the file.

        Raises
        ------
        StorageError
            CSL-P505 when others may open it, CSL-P513 when it is missing, CSL-P603 when a newer release wrote it.
        IntegrityError
            CSL-P601 when it is no ledger.
        """
        with translated(path):
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise IntegrityError("CSL-P601", f"{path} is no ledger.", "Check the path, or restore the ledger.")
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StorageError(
                    "CSL-P505", f"{path} can be opened by others than its owner.", f"Run chmod 600 {path}."
                )
            unfinished = Path(f"{path}-journal").exists()  # a crashed write must be rolled back before anything is read
            store = cls(path, _connect(path, "rw" if write or (unfinished and os.access(path, os.W_OK)) else "ro"))
            try:
                store._check_kind()
            except (ConsilienceError, sqlite3.Error):
                store.close()
                raise
        return store

    def _check_kind(self) -> None:
        if self._scalar("PRAGMA application_id") != APPLICATION_ID:
            raise IntegrityError("CSL-P601", f"{self.path} is no ledger.", "Check the path, or restore the ledger.")
        found = self._scalar("PRAGMA user_version")
        if found != FORMAT:
            raise StorageError(
                "CSL-P603",
                f"{self.path} has format {found}; this release knows {FORMAT}.",
                "Use the release that wrote it, or a newer one."
                if isinstance(found, int) and found > FORMAT
                else "It was written before the first release: make the vault anew.",
            )

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[None]:
        """Everything inside is written durably, or nothing is; one thread at a time, one writing process at a time."""
        with self._lock, translated(self.path):
            self._execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if self._connection.in_transaction:
                        self._execute("ROLLBACK")
                raise

    def insert(self, row: Row, released: ReleasedRow | None) -> None:
        """Append an entry (seq, kind, rid, body, leaf, sig) and, for a release, its row."""
        self._connection.execute("INSERT INTO entry(seq, kind, rid, body, leaf, sig) VALUES (?, ?, ?, ?, ?, ?)", row)
        if released is not None:
            self._connection.execute("INSERT INTO released(rid, number, account, seq) VALUES (?, ?, ?, ?)", released)

    def put_state(self, body: bytes, signature: bytes) -> None:
        """Replace the running totals."""
        query = "INSERT INTO state(id, body, sig) VALUES (0, ?1, ?2) ON CONFLICT(id) DO UPDATE SET body = ?1, sig = ?2"
        self._connection.execute(query, (body, signature))

    def state(self) -> tuple[bytes, bytes] | None:
        """Return the running totals' bytes and signature."""
        row = self._connection.execute("SELECT body, sig FROM state WHERE id = 0").fetchone()
        if row is not None and not all(isinstance(blob, bytes) for blob in row):
            raise _damaged(self.path, "the totals have other types than they must")
        return None if row is None else (row[0], row[1])

    def last(self) -> Row | None:
        """Return the last entry."""
        return self._row("SELECT * FROM entry ORDER BY seq DESC LIMIT 1", ())

    def of_kind(self, rid: str, kind: str) -> Row | None:
        """Return the entry of a kind that stands once for a reservation (`reserve`, `close`)."""
        # the kind stands in the text, so that SQLite uses the partial index
        return self._row(f"SELECT * FROM entry WHERE rid = ? AND kind = '{kind}'", (rid,))  # noqa: S608

    def decisions(self, rid: str) -> list[Row]:
        """Return the officers' decisions about a study, in order."""
        query = "SELECT * FROM entry WHERE rid = ? AND kind = 'approve' AND kind IN ('approve', 'consent') ORDER BY seq"
        return [self._typed(row) for row in self._connection.execute(query, (rid,))]

    def was_read(self, rid: str) -> bool:
        """Return whether a consent under which a study's data were read stands here."""
        query = "SELECT 1 FROM entry WHERE rid = ? AND kind = 'consent' AND kind IN ('approve', 'consent') LIMIT 1"
        return self._connection.execute(query, (rid,)).fetchone() is not None

    def at(self, seq: int) -> Row | None:
        """Return the entry number `seq`."""
        return self._row("SELECT * FROM entry WHERE seq = ?", (seq,))

    def released_at(self, rid: str, number: int) -> int | None:
        """Return the entry of the release with this number, or None."""
        query = "SELECT seq FROM released WHERE rid = ? AND number = ?"
        row = self._connection.execute(query, (rid, number)).fetchone()
        return None if row is None else int(row[0])

    def counts(self, rid: str) -> dict[str, int]:
        """Return how many releases a reservation has made, by account."""
        query = "SELECT account, count(*) FROM released WHERE rid = ? GROUP BY account"
        return {str(account): int(number) for account, number in self._connection.execute(query, (rid,))}

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the leaves of the entries from `start` until before `end`, in batches."""
        while start < end:
            with self.transaction(write=False):
                query = "SELECT seq, leaf FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?"
                batch = list(self._connection.execute(query, (start, end, BATCH)))
            if not batch:
                return
            yield from (bytes(leaf) for _, leaf in batch)
            start = batch[-1][0] + 1

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the whole file to `path`, which must not exist, while others may go on writing."""
        with self._lock, translated(path):  # the lock: no half-done transaction of another thread is copied
            path.touch(mode=0o600, exist_ok=False)
            target = sqlite3.connect(path)
            try:
                self._connection.backup(target)
            finally:
                target.close()

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield entries by seq, in batches, so that a long reading never keeps a writer out."""
        while True:
            with self.transaction(write=False):
                batch = list(
                    self._connection.execute("SELECT * FROM entry WHERE seq >= ? ORDER BY seq LIMIT ?", (start, BATCH))
                )
            yield from map(self._typed, batch)
            if len(batch) < BATCH:
                return
            start = batch[-1][0] + 1

    def all_released(self) -> Iterator[ReleasedRow]:
        """Yield every release's row, by seq, in batches."""
        start = -1
        query = "SELECT rid, number, account, seq FROM released WHERE seq > ? ORDER BY seq LIMIT ?"
        while batch := list(self._connection.execute(query, (start, BATCH))):
            yield from batch
            start = batch[-1][3]

    def schema(self) -> set[str]:
        """Return the statements that made this file's tables, indexes and triggers."""
        return {row[0] for row in self._connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}

    def damage(self) -> str | None:
        """Return what SQLite's own check of pages and indexes finds, or None."""
        found = str(self._scalar("PRAGMA integrity_check(1)"))
        return None if found == "ok" else found

    def _row(self, query: str, values: tuple[int | str, ...]) -> Row | None:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else self._typed(row)

    def _typed(self, row: tuple[Any, ...]) -> Row:
        """Return a row of `entry`; a damaged page may hold other types than the table allows."""
        seq, kind, rid, body, leaf, sig = row
        if not (isinstance(seq, int) and isinstance(kind, str) and (rid is None or isinstance(rid, str))):
            raise _damaged(self.path, "an entry's columns have other types than they must")
        if not all(isinstance(blob, bytes) for blob in (body, leaf, sig)):
            raise _damaged(self.path, f"entry {seq} has other types than it must")
        return (seq, kind, rid, body, leaf, sig)

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def _scalar(self, statement: str) -> int | str:
        value: int | str = self._connection.execute(statement).fetchone()[0]
        return value


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # isolation_level None: transactions are ours; the ledger serialises threads
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
    )
    connection.text_factory = _text
    for pragma in ("trusted_schema = OFF", "synchronous = EXTRA", "cell_size_check = ON", "recursive_triggers = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _text(content: bytes) -> str:
    """Decode a damaged file's text to something that fits nothing, so that checks find it and reading goes on."""
    return content.decode("utf-8", "replace")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _mapped(path, error) from error
    except UnicodeDecodeError as error:  # SQLite quotes the damaged schema in its own message
        raise _damaged(path, "its schema cannot be read") from error
    except OSError as error:
        raise _storage("CSL-P513", path, error.strerror or "it cannot be opened") from error


def _mapped(path: Path, error: sqlite3.Error) -> ConsilienceError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return StorageError(
            "CSL-P511", f"{path}: the disk is full; nothing was written or spent.", "Free space, and try again."
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError(
            "CSL-P512", f"{path}: another process holds the ledger.", "Wait until it has finished, and try again."
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH")):
        return _damaged(path, str(error))
    return _storage("CSL-P513", path, str(error))


def _storage(code: str, path: Path, reason: str) -> StorageError:
    return StorageError(code, f"{path} cannot be used: {reason}.", "Check the disk, the path and its rights.")


def _damaged(path: Path, what: str) -> IntegrityError:
    return IntegrityError("CSL-P601", f"{path} is damaged: {what}.", "Verify it, and restore it from its last backup.")
