"""Writing the ledger: decisions and spending, each durable before its consequence."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError
from federation.signing import public_hex
from privacy.events import PrivacyEvent
from privacy.filter import limits_of, run_epsilon, run_price
from privacy.ledger.entries import (
    ACCOUNTS,
    MILLISECONDS_A_DAY,
    SIGNING_PREFIX,
    Account,
    AccountCharge,
    Body,
    Close,
    CloseData,
    Genesis,
    GenesisData,
    PolicyData,
    PolicyEntry,
    Refuse,
    RefuseData,
    Release,
    ReleaseData,
    Reservation,
    Reserve,
    ReserveData,
)
from privacy.ledger.merkle import leaf_hash
from privacy.ledger.reader import STATE_PREFIX, LedgerReader
from privacy.ledger.state import EPOCH, State, advance, check_policy
from privacy.ledger.store import Store
from privacy.policy import Policy, Terms

Clock = Callable[[], int]
HOLDOUT_CONTEXT = b"csl1/holdout-key\0"
EPSILON_SLACK = 1e-9


def system_clock() -> int:
    """Return milliseconds since 1970 by the system's clock."""
    return time.time_ns() // 1_000_000


class Ledger(LedgerReader):
    """A ledger opened for writing with the institution's identity key. Safe for threads and for several processes.

    A study's way through it: `reserve` (the whole study, before its data are touched), for each reply `release` (before
    its bytes leave), at the end `close`. Every call is durable when it returns, and repeating a call with the same
    arguments changes nothing.
    """

    def __init__(self, store: Store, key: Ed25519PrivateKey, clock: Clock) -> None:
        super().__init__(store, public_hex(key))
        self._key = key
        self._clock = clock

    @classmethod
    def create(
        cls, path: Path, key: Ed25519PrivateKey, *, member: str, holdout_key: bytes, clock: Clock = system_clock
    ) -> "Ledger":
        """Make an institution's ledger (0600) with its first entry, whole or not at all, and open it.

        Parameters
        ----------
        path, key, member:
            File, identity key and the institution's identifier in the charter.
        holdout_key:
            The 32 bytes that decide who is held out: the ledger keeps their fingerprint, since they may never change.
        clock:
            Milliseconds since 1970.

        Raises
        ------
        StorageError
            CSL-P510 when the file exists; CSL-P511, CSL-P513 when it cannot be written.
        """
        store = Store.create(path)
        try:
            data = GenesisData(member=member, key=public_hex(key), holdout_key=_fingerprint(holdout_key))
            draft = cls(store, key, clock)
            with store.transaction():
                state = State()
                draft._append(state, Genesis(seq=0, prev=state.head, ts=clock(), data=data), None)
        except BaseException:
            store.discard()
            raise
        store.publish(path)
        return cls.open(path, key, clock=clock)

    @classmethod
    def open(cls, path: Path, key: Ed25519PrivateKey, *, clock: Clock = system_clock) -> "Ledger":
        """Open an existing ledger.

        Raises
        ------
        StorageError, IntegrityError
            As `LedgerReader.read`.
        """
        return cls(Store.open(path, write=True), key, clock)._checked()

    def check_holdout_key(self, holdout_key: bytes) -> None:
        """Refuse a hold-out key that is not the one of the budget's life.

        Raises
        ------
        IntegrityError
            CSL-P606.
        """
        genesis = self.entry(0).body
        assert isinstance(genesis, Genesis)
        if genesis.data.holdout_key != _fingerprint(holdout_key):
            raise IntegrityError(
                "CSL-P606",
                "The hold-out key is not the one that this budget began with.",
                "Restore the key from its backup.",
            )

    def today(self) -> date:
        """Return the ledger's date (UTC): the clock's, and never before that of the last entry."""
        return EPOCH + timedelta(days=self.now() // MILLISECONDS_A_DAY)

    def now(self) -> int:
        """Return the ledger's time in milliseconds since 1970: the clock's, and never before that of the last entry."""
        return max(self._clock(), self.state().ts)

    def activate(self, policy: Policy) -> None:
        """Bring a policy into force; the one in force already changes nothing.

        Raises
        ------
        PolicyError
            CSL-P301 to CSL-P305 when it may not follow what the ledger holds; CSL-P104, P105, P109 when it cannot be
            enforced.
        """
        if self.state().policy == policy.digest():
            return
        data = PolicyData(sha256=policy.digest(), policy=policy, limits=limits_of(policy))
        with self._store.transaction():
            state = self._state()
            if state.policy != data.sha256:
                check_policy(state, policy)
                self._append(state, PolicyEntry(seq=state.size, prev=state.head, ts=self._ts(state), data=data), None)

    def reserve(
        self,
        rid: str,
        *,
        study: str,
        charges: Mapping[Account, Sequence[PrivacyEvent]],
        releases: Mapping[Account, int],
        terms: Terms,
    ) -> Reservation:
        """Set aside what a whole study costs, before its data are touched; an open reservation counts in full for ever.

        Parameters
        ----------
        rid:
            The reservation: the study spec's digest.
        study:
            The study's name, for people.
        charges:
            The events of each account that the study uses, priced as one run for each account.
        releases:
            How many replies may leave under each of these accounts.
        terms:
            What `Policy.decide` granted, under the policy that is in force here.

        Raises
        ------
        PolicyError
            CSL-P401 terms of another policy, CSL-P402 reserved before on other terms, CSL-P403 and CSL-P404 not enough
            left of the period's or the life's budget, CSL-P406 closed before, CSL-P411 events that cost more than the
            terms grant.
        """
        limits = self.state().limits
        if limits is None:
            raise PolicyError("CSL-P401", "No policy is in force in the ledger.", "Activate the institution's policy.")
        data = _priced(study, charges, releases, terms, limits.run_delta)
        with self._store.transaction():
            state, known = self._state(), self._reservation(rid)
            if known is not None and known.data == data:
                if known.closed:
                    raise PolicyError("CSL-P406", "The study is closed.", "Plan a new study.")
                return known
            self._append(state, Reserve(seq=state.size, prev=state.head, ts=self._ts(state), rid=rid, data=data), known)
        return Reservation(rid, data, dict.fromkeys(charges, 0))

    def release(self, rid: str, number: int, account: Account, sha256: str, size: int, *, what: str) -> None:
        """Write down that a reply is about to leave; call it when the reply is kept, before its bytes leave.

        Parameters
        ----------
        rid, number:
            The reservation and the reply's number in it, under which the reply is kept.
        account:
            The account that paid for it.
        sha256, size:
            Digest (64 hexadecimal digits) and length of the bytes.
        what:
            What leaves, in words.

        Raises
        ------
        PolicyError
            CSL-P405 nothing reserved, CSL-P406 closed, CSL-P407 nothing reserved on this account, CSL-P408 no release
            left, CSL-P409 the number was released with other bytes.
        """
        data = ReleaseData(number=number, account=account, what=what, sha256=sha256, bytes=size)
        with self._store.transaction():
            before = next((row for row in self._store.released(rid) if row[1] == number), None)
            if before is not None and self._entry(self._store.at(before[3])).body.data == data:
                return
            state = self._state()
            body = Release(seq=state.size, prev=state.head, ts=self._ts(state), rid=rid, data=data)
            self._append(state, body, self._reservation(rid), number_taken=before is not None)

    def close(self, rid: str, reason: str = "the study is over") -> tuple[Account, ...]:
        """End a study and return the accounts whose charge comes back: those from which nothing was ever released.

        Raises
        ------
        PolicyError
            CSL-P405 when nothing is reserved.
        """
        with self._store.transaction():
            state, known = self._state(), self._reservation(rid)
            if known is not None and known.closed:
                return known.untouched()
            returned = known.untouched() if known is not None else ()
            data = CloseData(reason=reason, returned=returned)
            self._append(state, Close(seq=state.size, prev=state.head, ts=self._ts(state), rid=rid, data=data), known)
        return returned

    def refuse(self, code: str, study: str, why: str) -> None:
        """Write down a refusal; text from outside is shortened and cleaned, so that a refusal can always be written."""
        data = RefuseData(code=code, study=_clean(study, 400), why=_clean(why, 1000))
        with self._store.transaction():
            state = self._state()
            self._append(state, Refuse(seq=state.size, prev=state.head, ts=self._ts(state), data=data), None)

    def _ts(self, state: State) -> int:
        return max(self._clock(), state.ts)

    def _append(self, state: State, body: Body, known: Reservation | None, number_taken: bool = False) -> None:
        """Write an entry and the totals after it; the caller holds the transaction."""
        content = body.canonical()
        leaf = leaf_hash(content)
        after = advance(state, body, leaf, known, number_taken)
        released = (body.rid, body.data.number, body.data.account, body.seq) if isinstance(body, Release) else None
        row = (body.seq, body.kind, body.rid, content, leaf, self._key.sign(SIGNING_PREFIX + content))
        self._store.insert(row, released)
        self._put(after)

    def _put(self, state: State) -> None:
        content = state.canonical()
        self._store.put_state(content, self._key.sign(STATE_PREFIX + content))


def _priced(
    study: str,
    charges: Mapping[Account, Sequence[PrivacyEvent]],
    releases: Mapping[Account, int],
    terms: Terms,
    run_delta: float,
) -> ReserveData:
    for account, events in charges.items():
        cost = run_epsilon(tuple(events), terms.delta)
        if cost > terms.epsilon * (1 + EPSILON_SLACK):
            raise PolicyError(
                "CSL-P411",
                f"The study's events cost epsilon {cost:.4g} on the {account} account; {terms.epsilon:.4g} is granted.",
                "Use more noise or fewer steps.",
            )
    lines = tuple(
        AccountCharge(
            account=name,
            events=tuple(charges[name]),
            releases=releases[name],
            cost=run_price(tuple(charges[name]), run_delta),
        )
        for name in ACCOUNTS
        if name in charges
    )
    return ReserveData(
        study=study,
        purpose=terms.purpose,
        contract=terms.contract,
        policy=terms.policy,
        epsilon=terms.epsilon,
        delta=terms.delta,
        run_delta=run_delta,
        library=f"dp-accounting {version('dp-accounting')}",
        charges=lines,
    )


def _fingerprint(secret: bytes) -> str:
    return sha256_hex(HOLDOUT_CONTEXT + secret)


def _clean(text: str, length: int) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[:length]
