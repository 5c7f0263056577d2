"""Reading a ledger with the institution's public key: entries, reservations, what was spent. Nothing is believed
unsigned."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation.errors import DocumentError, IntegrityError
from federation.merkle import leaf_hash
from privacy.cost import Bound, Cost, Filter, less, total
from privacy.events import PrivacyEvent
from privacy.filter import Limits, cost_epsilon, left_epsilon
from privacy.ledger.entries import (
    ACCOUNTS,
    MILLISECONDS_A_DAY,
    SIGNING_PREFIX,
    Account,
    Approve,
    ApproveData,
    Close,
    Entry,
    Known,
    PolicyEntry,
    Reservation,
    Reserve,
    parse,
)
from privacy.ledger.state import State
from privacy.ledger.store import Row, Store
from privacy.plan import plan_events
from privacy.policy import Policy

STATE_PREFIX = b"ledger1-state\0"


@dataclass(frozen=True)
class TreeHead:
    """The RFC 6962 tree head: number of entries and root (64 hexadecimal digits)."""

    size: int
    root: str


@dataclass(frozen=True)
class Spending:
    """What one account has spent of one budget, as costs and as the epsilon that they enforce at the budget's `delta`.

    `budget` names it: a number of days, `life`, or a purpose. `spent` is by closed studies, `reserved` by open ones and by
    the plan in force; both count. `exhausted`: entries were lost, and nothing remains.
    """

    account: Account
    budget: str
    purpose: str | None
    filter: Filter
    bound: Bound
    spent: Cost
    reserved: Cost
    exhausted: bool = False

    @property
    def epsilon(self) -> float:
        """The budget's epsilon."""
        return self.bound.epsilon

    @property
    def delta(self) -> float:
        """The budget's delta."""
        return self.bound.delta

    @property
    def used(self) -> Cost:
        """Everything that counts against the budget."""
        return total([self.spent, self.reserved])

    def epsilon_of(self, cost: Cost) -> float:
        """Return the epsilon that costs enforce at this budget's delta."""
        return cost_epsilon(self.filter, cost, self.bound.delta)

    @property
    def left_epsilon(self) -> float:
        """The largest epsilon of one further study, as the filter prices it; 0 when nothing is left."""
        return 0.0 if self.exhausted else left_epsilon(self.filter, self.bound, self.used)


class LedgerReader:
    """A ledger opened for reading."""

    def __init__(self, store: Store, public_key: str) -> None:
        self._store = store
        self._public = public_key
        self._keys: State | None = None
        self._parsed: tuple[tuple[bytes, bytes], State] | None = None

    @classmethod
    def read(cls, path: Path, public_key: str) -> "LedgerReader":
        """Open a ledger for reading with its institution's public key (64 hexadecimal digits).

        Raises
        ------
        StorageError, IntegrityError
            CSL-P505, CSL-P513, CSL-P601 to CSL-P604 when it cannot be read, is damaged, or another's.
        """
        reader = cls(Store.open(path, write=False), public_key)
        return reader._checked()

    def _checked(self) -> Self:
        try:
            self._check_owner()
            self.state()  # first: it names the keys of the entries before a rotation
            self.entry(0)
        except BaseException:
            self.close_file()
            raise
        return self

    def _check_owner(self) -> None:
        """Say plainly that it is another's ledger, before a signature fails to fit."""
        with self._store.transaction(write=False):
            found = self._store.state()
        if found is not None and f'"key":"{self._public}"'.encode() not in found[0]:
            raise IntegrityError(
                "CSL-P604", f"{self.path} is not the ledger of this key.", "Name the key of the ledger's institution."
            )

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self._store.path

    def close_file(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_file()

    def state(self) -> State:
        """Return the running totals, checked against their signature and the last entry.

        Raises
        ------
        IntegrityError
            CSL-P602 when they do not belong to the last entry; the ledger is then locked. CSL-P607 when the key is one from
            before a rotation.
        """
        with self._store.transaction(write=False):
            return self._state()

    def _state(self) -> State:
        found, last = self._store.state(), self._store.last()
        if found is None or last is None:
            raise self._locked()
        state = self._believed(found)
        if state.size != last[0] + 1 or state.head != last[4].hex() or state.key != self._public:
            raise self._locked()
        self._keys = state
        return state

    def _believed(self, found: tuple[bytes, bytes]) -> State:
        """Return the totals in signed bytes; those that this object checked or wrote last are not checked and read again."""
        if self._parsed is None or self._parsed[0] != found:
            if not signed(self._public, STATE_PREFIX, *found):
                raise self._rotated(found) or self._locked()
            self._parsed = (found, State.from_canonical(found[0]))
        return self._parsed[1]

    def _rotated(self, found: tuple[bytes, bytes]) -> IntegrityError | None:
        """Return the error that says that the key is one from before a rotation, if it is."""
        try:
            keys = State.from_canonical(found[0]).keys
        except DocumentError:
            return None
        after = [item for item in keys if item.key == self._public]
        if not after or keys[-1] in after or not signed(keys[-1].key, STATE_PREFIX, *found):
            return None
        since = keys[keys.index(after[0]) + 1].seq
        return IntegrityError(
            "CSL-P607",
            f"{self.path}: the institution's key was changed; from entry {since} on another one signs.",
            "Use the new key: start the vault again.",
        )

    def _locked(self) -> IntegrityError:
        return IntegrityError(
            "CSL-P602",
            f"{self.path}: the running totals do not belong to the last entry.",
            "Run consilience officer verify, and restore the ledger from its last backup.",
        )

    def entry(self, seq: int) -> Entry:
        """Return an entry, its leaf and signature checked.

        Raises
        ------
        IntegrityError
            CSL-P605 when there is none or it does not check out.
        """
        with self._store.transaction(write=False):
            return self._entry(self._store.at(seq))

    def entries(self, start: int = 0, kinds: Collection[str] | None = None) -> Iterator[Entry]:
        """Yield entries by number, each with its leaf and signature checked; only of some `kinds` where given.

        What the others hold is then not looked at. Raises as `entry`.
        """
        for row in self._store.rows(start):
            if kinds is None or row[1] in kinds:
                yield self._entry(row)

    def _entry(self, row: Row | None) -> Entry:
        if row is None:
            raise IntegrityError("CSL-P605", f"{self.path}: the entry is not there.", "Run consilience officer verify.")
        seq, kind, rid, content, leaf, signature = row
        try:
            body = parse(content)
        except DocumentError as error:
            raise self._broken(seq) from error
        same = (body.seq, body.kind, body.rid) == (seq, kind, rid) and leaf_hash(content) == leaf
        if not same or not signed(self._key_at(seq), SIGNING_PREFIX, content, signature):
            raise self._broken(seq)
        return Entry(body, content, leaf, signature)

    def _broken(self, seq: int) -> IntegrityError:
        return IntegrityError(
            "CSL-P605", f"{self.path}: entry {seq} does not check out.", "Run consilience officer verify."
        )

    def _key_at(self, seq: int) -> str:
        """Return the key that signed an entry; keys before the present one are in the signed totals."""
        state = self._keys
        return self._public if state is None or seq >= state.keys[-1].seq else state.key_at(seq) or self._public

    def reservation(self, rid: str) -> Reservation | None:
        """Return what the ledger holds of a study by its rid, or None."""
        with self._store.transaction(write=False):
            return self._reservation(rid)

    def _reservation(self, rid: str) -> Reservation | None:
        row = self._store.of_kind(rid, "reserve")
        if row is None:
            return None
        body = self._entry(row).body
        assert isinstance(body, Reserve)
        released = dict.fromkeys([charge.account for charge in body.data.charges], 0) | self._store.counts(rid)
        closed = self._store.of_kind(rid, "close") is not None
        return Reservation(rid, body.data, released, closed, self._store.was_read(rid))

    def _known(self, rid: str, number: int | None = None) -> Known:
        taken = number is not None and self._store.released_at(rid, number) is not None
        return Known(self._decisions(rid), self._reservation(rid), taken)

    def _decisions(self, rid: str) -> tuple[ApproveData, ...]:
        bodies = [self._entry(row).body for row in self._store.decisions(rid)]
        return tuple(body.data for body in bodies if isinstance(body, Approve))

    def decisions(self, rid: str) -> tuple[ApproveData, ...]:
        """Return what officers decided about a study, in order."""
        with self._store.transaction(write=False):
            return self._decisions(rid)

    def has_reservation(self, rid: str) -> bool:
        """Return whether a study was ever reserved under `rid`."""
        return self.reservation(rid) is not None

    def has_release(self, rid: str, number: int) -> bool:
        """Return whether a reply of a study was released under `number`."""
        with self._store.transaction(write=False):
            return self._store.released_at(rid, number) is not None

    def tree_head(self) -> TreeHead:
        """Return number of entries and Merkle root; needs the running totals only."""
        state = self.state()
        return TreeHead(state.size, state.tree_root())

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the leaves (32 bytes each) of the entries from `start` until before `end`."""
        return self._store.leaves(start, self.state().size if end is None else end)

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the ledger (0600) to a path where nothing is yet, while others go on writing.

        Raises
        ------
        StorageError
            CSL-P511, CSL-P513 when it cannot be written.
        """
        self._store.copy_to(path)

    def policy(self) -> Policy | None:
        """Return the policy that is in force, or None."""
        return self.state().policy

    def spending(self, now: int) -> tuple[Spending, ...]:
        """Return for each account what is spent of the period's and of the life's budget at `now` (milliseconds since
        1970).

        Empty before a policy is in force.
        """
        return spending_of(self.state(), now)

    def events(self, account: Account, purpose: str | None = None) -> tuple[PrivacyEvent, ...]:
        """Return every event charged to an account and not returned, for reports; reads the whole ledger.

        A plan counts whole from the day that it comes into force, whether its slots were filled or not; what its studies
        reserve is part of it.
        """
        held: dict[str, tuple[PrivacyEvent, ...]] = {}
        plan: tuple[str, tuple[PrivacyEvent, ...]] | None = None
        for entry in self.entries():
            body = entry.body
            if isinstance(body, PolicyEntry):
                plan = self._next_plan(held, plan, body, account, purpose)
            elif isinstance(body, Reserve):
                charge = body.data.charge(account)
                if body.data.slot is not None:
                    plan = None if charge is not None else plan
                elif charge is not None and purpose in (None, body.data.purpose):
                    held[body.rid] = charge.events
            elif isinstance(body, Close) and account in body.data.returned:
                held.pop(body.rid, None)
        return tuple(event for events in held.values() for event in events)

    @staticmethod
    def _next_plan(
        held: dict[str, tuple[PrivacyEvent, ...]],
        untouched: tuple[str, tuple[PrivacyEvent, ...]] | None,
        body: PolicyEntry,
        account: Account,
        purpose: str | None,
    ) -> tuple[str, tuple[PrivacyEvent, ...]] | None:
        """Drop the last plan if no study was reserved under it, and add the new policy's."""
        if untouched is not None:
            held.pop(untouched[0], None)
        slots = tuple(slot for slot in body.data.policy.budget.slots if purpose in (None, slot.purpose))
        if not slots:
            return None
        held[body.data.sha256] = plan_events(slots, account)
        return body.data.sha256, held[body.data.sha256]


def signed(key: str, prefix: bytes, content: bytes, signature: bytes) -> bool:
    """Return whether `key` (64 hexadecimal digits) signed `prefix || content`."""
    try:
        _verifier(key).verify(signature, prefix + content)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=64)
def _verifier(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


def spending_of(state: State, now: int) -> tuple[Spending, ...]:
    """Return what is spent of each account's budgets by a ledger's totals; see `LedgerReader.spending`."""
    limits = state.limits
    if limits is None:
        return ()
    day = max(now, state.ts) // MILLISECONDS_A_DAY
    return tuple(item for account in ACCOUNTS for item in _spending(state, limits, account, day))


def _spending(state: State, limits: Limits, account: Account, day: int) -> list[Spending]:
    totals, days = state.account(account), limits.period_days

    def line(name: str, purpose: str | None, bound: Bound, used: Cost, reserved: Cost) -> Spending:
        return Spending(account, name, purpose, limits.filter, bound, less(used, reserved), reserved, state.exhausted)

    rows = [
        line(f"{days} days", None, limits.period, totals.all.spent(day, days), totals.all.open),
        line("life", None, limits.life, totals.life, totals.all.open),
    ]
    for purpose, bound in sorted(limits.purposes.items()):
        window = totals.purpose(purpose)
        rows.append(line(f"{purpose}, {days} days", purpose, bound, window.spent(day, days), window.open))
    return rows
