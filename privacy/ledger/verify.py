"""Verification by a stranger: a ledger's file and the institution's public key, nothing else.

Every entry is read in order by `privacy.ledger.audit`; then the totals and derived tables of the file are compared with what
the entries give, and heads that others kept with the tree. A fault is reported where it is found, and reading goes on.

Which key to trust: the one given must be the ledger's newest key or an earlier one, which a signed chain of rotations
leads on from. Whoever stole an earlier key could have gone on from its time by a chain of his own: a witness shows that.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from federation.errors import DocumentError, IntegrityError
from privacy.ledger.audit import Audit, Finding, Findings, Witness
from privacy.ledger.entries import Body, Genesis, parse
from privacy.ledger.reader import STATE_PREFIX, TreeHead, signed
from privacy.ledger.state import State
from privacy.ledger.store import SCHEMA, ReleasedRow, Row, Store, translated
from privacy.policy import Policy

__all__ = ["Audited", "Finding", "Verification", "Visit", "Witness", "audited", "verify"]

Visit = Callable[[Row, Body | None, State], None]
"""Called after each entry with its row, what it says, and the totals before it."""


@dataclass(frozen=True)
class Verification:
    """What a ledger proves. `head` and `state` are computed from the entries alone; `key` is the one it was held against."""

    head: TreeHead
    state: State
    findings: tuple[Finding, ...]
    key: str

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def policy(self) -> Policy | None:
        """The policy in force at the end."""
        return self.state.policy

    @property
    def other_key(self) -> bool:
        """Whether the ledger is under another key: then a wrong key is the likelier mistake than a forged ledger."""
        return any(finding.code == "CSL-P624" for finding in self.findings)

    @property
    def key_standing(self) -> str:
        """What the given key is to this ledger, in words."""
        return key_standing(self.state, self.key)


@dataclass(frozen=True)
class Audited:
    """A ledger that was read to its end; the audit is open for proofs, and for heads that others kept."""

    audit: Audit
    key: str

    @property
    def verification(self) -> Verification:
        """What the ledger proves, by everything checked so far."""
        return Verification(self.audit.head, self.audit.state, self.audit.findings.all(), self.key)


def verify(path: Path, public_key: str, witness: TreeHead | None = None, visit: Visit | None = None) -> Verification:
    """Check a ledger's file from its first entry to its last; memory does not grow with it.

    Parameters
    ----------
    path:
        The ledger's file; it is not changed (except that SQLite undoes a write that a crash cut short).
    public_key:
        The institution's Ed25519 public key, 64 hexadecimal digits: the newest, or one that it had before.
    witness:
        An earlier tree head that somebody else kept: shows entries that were cut off at the end, or a history written
        anew.
    visit:
        Called after each entry, for progress.

    Raises
    ------
    StorageError, IntegrityError
        CSL-P505, CSL-P513, CSL-P601, CSL-P603 when the file cannot be read as a ledger at all.
    """
    with audited(path, public_key, visit) as found:
        if witness is not None:
            found.audit.check_witness(witness)
        return found.verification


@contextmanager
def audited(path: Path, public_key: str, visit: Visit | None = None) -> Iterator[Audited]:
    """Check a ledger's file as `verify`, and keep the tree at hand until the context is left."""
    store = Store.open(path, write=False)
    try:
        with Audit(public_key, State(), Findings()) as audit:
            reading = _Reading(store, audit)
            reading.run(visit)
            audit.check_key()
            reading.check_derived()
            yield Audited(audit, public_key)
    finally:
        store.close()


def member_of(path: Path) -> str | None:
    """Return whose ledger a file says it is, unchecked: only to learn which key to ask for. Raises as `verify`."""
    store = Store.open(path, write=False)
    try:
        row = store.at(0)
        body = None if row is None else parse(row[3])
    except DocumentError:
        return None
    finally:
        store.close()
    return body.data.member if isinstance(body, Genesis) else None


def key_standing(state: State, key: str) -> str:
    """Return what a key is to a ledger, in words."""
    places = [index for index, item in enumerate(state.keys) if item.key == key]
    if not places:
        return "none of the ledger's keys"
    after = state.keys[places[0] + 1 :]
    return "the ledger's newest key" if not after else f"an earlier key, replaced at entry {after[0].seq - 1}"


class _Reading:
    """One pass over a ledger's file."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit
        self._stored: tuple[bytes, bytes] | None = None
        self._end = -1

    def run(self, visit: Visit | None) -> None:
        """Read every entry that was there at the beginning; what is appended meanwhile is left for the next time."""
        with self._store.transaction(write=False):
            self._stored, last = self._store.state(), self._store.last()
            self._end = last[0] if last is not None else -1
            self._check_file()
        for row in self._store.rows():
            if row[0] > self._end:
                break
            before = self._audit.state
            body = self._entry(row)
            if visit is not None:
                visit(row, body, before)
        if self._end < 0:
            self._add("CSL-P616", None, "The ledger holds no entry.")

    def _entry(self, row: Row) -> Body | None:
        seq, kind, rid, content, leaf, signature = row
        body = self._audit.entry(seq, content, signature, leaf)
        if body is not None and (body.kind, body.rid) != (kind, rid):
            self._add("CSL-P612", seq, f"The row says {(kind, rid)}; its signed body says {(body.kind, body.rid)}.")
        return body

    def check_derived(self) -> None:
        """Compare the file's table of releases and its totals with what the entries give."""
        self._check_released()
        stored, state = self._stored, self._audit.state
        if stored is None or not signed(state.key or "0" * 64, STATE_PREFIX, *stored):
            self._add("CSL-P622", None, "The running totals are missing or not signed by the institution.")
        elif stored[0] != state.canonical():
            self._add("CSL-P622", None, "The running totals are not what the entries add up to.")

    def _add(self, code: str, seq: int | None, what: str) -> None:
        self._audit.findings.add(code, seq, what)

    def _check_file(self) -> None:
        found = {str(statement) for statement in self._store.schema()}  # a damaged one may be no text
        missing, added = set(SCHEMA) - found, found - set(SCHEMA)
        for statement in sorted(missing | added):
            verb = "lacks" if statement in missing else "has an unknown"
            self._add("CSL-P621", None, f"The file {verb}: {' '.join(statement.split())[:60]}…")
        damage = self._store.damage()
        if damage is not None:
            self._add("CSL-P601", None, f"SQLite finds damage: {damage}.")

    def _check_released(self) -> None:
        """Walk both lists of releases side by side, by entry."""
        try:
            with translated(self._store.path):
                table = (row for row in self._store.all_released() if row[3] <= self._end)
                for row, is_entry in _differences(table, self._audit.facts.releases()):
                    what = "is not in" if is_entry else "stands only in"
                    where = f"Release {row[1]} of study {row[0][:12]} {what} the file's table of releases."
                    self._add("CSL-P623", row[3], where)
        except IntegrityError as error:
            self._add(error.code, None, error.cause)


def _differences(table: Iterator[ReleasedRow], entries: Iterator[ReleasedRow]) -> Iterator[tuple[ReleasedRow, bool]]:
    """Yield the rows that only one side has, and whether it is the entries'; both sides are sorted by entry, each once."""
    left, right = next(table, None), next(entries, None)
    while left is not None or right is not None:
        if left == right:
            left, right = next(table, None), next(entries, None)
        elif right is None or (left is not None and left[3] <= right[3]):
            assert left is not None
            yield left, False
            left = next(table, None)
        else:
            yield right, True
            right = next(entries, None)
