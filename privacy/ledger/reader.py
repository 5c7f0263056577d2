"""Reading a ledger with the institution's public key: entries, reservations, what was spent. Nothing is believed
unsigned."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation.errors import DocumentError, IntegrityError
from privacy.events import PrivacyEvent
from privacy.filter import Limits
from privacy.ledger.entries import (
    ACCOUNTS,
    MILLISECONDS_A_DAY,
    SIGNING_PREFIX,
    Account,
    Close,
    Entry,
    PolicyEntry,
    Reservation,
    Reserve,
    parse,
)
from privacy.ledger.merkle import leaf_hash, root
from privacy.ledger.state import State
from privacy.ledger.store import Row, Store
from privacy.policy import Policy
from privacy.token import Token, token_epsilon, total

STATE_PREFIX = b"ledger1-state\0"


@dataclass(frozen=True)
class TreeHead:
    """The RFC 6962 tree head: number of entries and root (64 hexadecimal digits)."""

    size: int
    root: str


@dataclass(frozen=True)
class Spending:
    """What one account has spent of one budget, in tokens and as the epsilon that they enforce at the budget's `delta`.

    `spent` is by closed studies, `reserved` by open ones; both count. `left_epsilon` is the largest study that still
    fits.
    """

    account: Account
    budget: str
    epsilon: float
    delta: float
    capacity: Token
    spent: Token
    reserved: Token

    @property
    def used(self) -> Token:
        """Everything that counts against the budget."""
        return total([self.spent, self.reserved])

    @property
    def left(self) -> Token:
        """What remains; never below zero."""
        return Token(
            mu_squared_nano=max(self.capacity.mu_squared_nano - self.used.mu_squared_nano, 0),
            delta_femto=max(self.capacity.delta_femto - self.used.delta_femto, 0),
        )

    def epsilon_of(self, token: Token) -> float:
        """Return the epsilon that a token enforces at this budget's delta."""
        return token_epsilon(token.mu_squared_nano, token.delta_femto, self.delta)

    @property
    def left_epsilon(self) -> float:
        """The largest epsilon of one further study, as the filter prices it; 0 when no share of delta is left."""
        return (
            self.epsilon_of(Token(mu_squared_nano=self.left.mu_squared_nano, delta_femto=0))
            if self.left.delta_femto
            else 0.0
        )


class LedgerReader:
    """A ledger opened for reading."""

    def __init__(self, store: Store, public_key: str) -> None:
        self._store = store
        self._public = public_key
        self._verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))

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
            self.entry(0)
            self.state()
        except BaseException:
            self.close_file()
            raise
        return self

    def _check_owner(self) -> None:
        with self._store.transaction(write=False):
            row = self._store.at(0)
        if row is None or f'"key":"{self._public}"'.encode() not in row[3]:
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
            CSL-P602 when they do not belong to the last entry; the ledger is then locked.
        """
        with self._store.transaction(write=False):
            return self._state()

    def _state(self) -> State:
        found, last = self._store.state(), self._store.last()
        if found is None or last is None or not self._signed(STATE_PREFIX, *found):
            raise self._locked()
        state = State.from_canonical(found[0])
        if state.size != last[0] + 1 or state.head != last[4].hex():
            raise self._locked()
        return state

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

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Yield entries by number, each with its leaf and signature checked. Raises as `entry`."""
        for row in self._store.rows(start):
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
        if not same or not self._signed(SIGNING_PREFIX, content, signature):
            raise self._broken(seq)
        return Entry(body, content, leaf, signature)

    def _broken(self, seq: int) -> IntegrityError:
        return IntegrityError(
            "CSL-P605", f"{self.path}: entry {seq} does not check out.", "Run consilience officer verify."
        )

    def _signed(self, prefix: bytes, content: bytes, signature: bytes) -> bool:
        try:
            self._verifier.verify(signature, prefix + content)
        except InvalidSignature:
            return False
        return True

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
        released: dict[str, int] = dict.fromkeys([charge.account for charge in body.data.charges], 0)
        for _, _, account, _ in self._store.released(rid):
            released[account] = released.get(account, 0) + 1
        return Reservation(rid, body.data, released, self._store.of_kind(rid, "close") is not None)

    def has_reservation(self, rid: str) -> bool:
        """Return whether a study was ever reserved under `rid`."""
        return self.reservation(rid) is not None

    def has_release(self, rid: str, number: int) -> bool:
        """Return whether a reply of a study was released under `number`."""
        with self._store.transaction(write=False):
            return any(row[1] == number for row in self._store.released(rid))

    def tree_head(self) -> TreeHead:
        """Return number of entries and Merkle root; needs the running totals only."""
        state = self.state()
        return TreeHead(state.size, root([bytes.fromhex(node) for node in state.frontier]).hex())

    def policy(self) -> Policy | None:
        """Return the policy that came into force last, or None."""
        digest, found = self.state().policy, None
        for entry in self.entries():
            if isinstance(entry.body, PolicyEntry) and entry.body.data.sha256 == digest:
                found = entry.body.data.policy
        return found

    def spending(self, now: int) -> tuple[Spending, ...]:
        """Return for each account what is spent of the period's and of the life's budget at `now` (milliseconds since
        1970).

        Empty before a policy is in force.
        """
        state = self.state()
        limits = state.limits
        if limits is None:
            return ()
        day = max(now, state.ts) // MILLISECONDS_A_DAY
        return tuple(item for account in ACCOUNTS for item in _spending(state, limits, account, day))

    def events(self, account: Account) -> tuple[PrivacyEvent, ...]:
        """Return every event charged to an account and not returned, for reports; reads the whole ledger."""
        held: dict[str, tuple[PrivacyEvent, ...]] = {}
        for entry in self.entries():
            body = entry.body
            if isinstance(body, Reserve):
                charge = body.data.charge(account)
                held[body.rid] = charge.events if charge else ()
            elif isinstance(body, Close) and account in body.data.returned:
                held.pop(body.rid, None)
        return tuple(event for events in held.values() for event in events)


def _spending(state: State, limits: Limits, account: Account, day: int) -> tuple[Spending, Spending]:
    totals = state.account(account)
    recent = _less(totals.period(day, limits.period_days), totals.open)
    closed = _less(totals.life, totals.open)
    name = f"{limits.period_days} days"
    return (
        Spending(account, name, limits.period_epsilon, limits.period_delta, limits.period, recent, totals.open),
        Spending(account, "life", limits.life_epsilon, limits.life_delta, limits.life, closed, totals.open),
    )


def _less(whole: Token, part: Token) -> Token:
    return Token(
        mu_squared_nano=whole.mu_squared_nano - part.mu_squared_nano, delta_femto=whole.delta_femto - part.delta_femto
    )
