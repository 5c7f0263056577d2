"""Writing the ledger: decisions and spending, each durable before its consequence."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError
from federation.merkle import leaf_hash
from federation.signing import Signature, public_hex, sign
from privacy.decision import Terms
from privacy.events import PrivacyEvent
from privacy.filter import limits_of
from privacy.ledger.charges import plan_charges, priced
from privacy.ledger.entries import (
    MILLISECONDS_A_DAY,
    ROTATION_CONTEXT,
    SIGNING_PREFIX,
    UNKNOWN,
    Access,
    AccessData,
    Account,
    Approve,
    ApproveData,
    Body,
    Close,
    CloseData,
    Consent,
    ConsentData,
    Genesis,
    GenesisData,
    Known,
    PolicyData,
    PolicyEntry,
    Refuse,
    RefuseData,
    Release,
    ReleaseData,
    Reservation,
    Reserve,
    Restore,
    RestoreData,
    Rotate,
    RotateData,
    RotationStatement,
    Withdraw,
    WithdrawData,
    WitnessData,
    Witnessed,
)
from privacy.ledger.reader import STATE_PREFIX, LedgerReader
from privacy.ledger.refusals import RefusalsData
from privacy.ledger.rules import advance
from privacy.ledger.state import EPOCH, State
from privacy.ledger.store import Store
from privacy.ledger.succession import check_policy
from privacy.policy import Policy

Clock = Callable[[], int]
HOLDOUT_CONTEXT = b"csl1/holdout-key\0"


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
                first = Genesis(seq=0, prev=state.head, ts=clock(), salt=_salt(), data=data)
                draft._append(state, first, UNKNOWN, key)
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

    def activate(self, policy: Policy, signatures: Sequence[Signature]) -> None:
        """Bring a policy into force; the one in force already changes nothing.

        Parameters
        ----------
        policy, signatures:
            The policy, and its officers' signatures in the context `csl1/policy`.

        Raises
        ------
        PolicyError
            CSL-P301 to CSL-P316 when it may not follow what the ledger holds, or too few officers signed; CSL-P413, P414
            for a plan that does not fit; CSL-P104, P105, P109 when it cannot be enforced.
        IntegrityError
            CSL-P314 for a signature that does not fit.
        """
        before = self.state()
        if before.policy_digest == policy.digest():
            return
        check_policy(before, policy, tuple(signatures))  # before the work of pricing
        limits = limits_of(policy)
        data = PolicyData(
            sha256=policy.digest(),
            policy=policy,
            signatures=tuple(signatures),
            limits=limits,
            plan=plan_charges(policy, limits),
        )
        with self._store.transaction():
            state = self._state()
            if state.policy_digest != data.sha256:
                self._write(PolicyEntry, data)

    def approve(self, data: ApproveData) -> None:
        """Write down an officer's signed decision about a study; the same one again changes nothing.

        Raises
        ------
        PolicyError
            CSL-P312 signed under another policy, CSL-P313 by an officer who decided before, CSL-P418 too late.
        IntegrityError
            CSL-P314 for a signature that does not fit, or of nobody who may sign.
        """
        with self._store.transaction():
            if data not in self._decisions(data.statement.study):
                self._write(Approve, data, data.statement.study)

    def reserve(
        self,
        rid: str,
        *,
        study: str,
        charges: Mapping[Account, Sequence[PrivacyEvent]],
        releases: Mapping[Account, int],
        terms: Terms,
        if_broken: Mapping[Account, float] | None = None,
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
            What `privacy.decision.decide` granted, under the policy that is in force here.
        if_broken:
            For a study whose vectors are added up in secret, and only then: the epsilon of each account, at the terms' delta, by
            one's own noise alone.

        Raises
        ------
        PolicyError
            CSL-P401 terms of another policy, CSL-P402 reserved before on other terms, CSL-P403, CSL-P404 and CSL-P412 not
            enough left of the period's, the life's or the purpose's budget, CSL-P406 closed before, CSL-P411 events that
            cost more than the terms grant, CSL-P413 entries were lost, CSL-P415 not approved yet, CSL-P416 declined,
            CSL-P417 no such free slot, CSL-P419 more releases than the events pay for; CSL-P216 an `if_broken` that is
            missing, out of place or below what its events give, CSL-P217 one above the floor of terms or policy.
        """
        limits = self.state().limits
        if limits is None:
            raise PolicyError("CSL-P401", "No policy is in force in the ledger.", "Activate the institution's policy.")
        data = priced(study, charges, releases, terms, limits, if_broken)
        with self._store.transaction():
            known = self._reservation(rid)
            if known is not None and known.data == data:
                if known.closed:
                    raise PolicyError("CSL-P406", "The study is closed.", "Plan a new study.")
                return known
            self._write(Reserve, data, rid)
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
            before = self._store.released_at(rid, number)
            if before is not None and self._entry(self._store.at(before)).body.data == data:
                return
            self._write(Release, data, rid)

    def close(self, rid: str, reason: str = "the study is over") -> tuple[Account, ...]:
        """End a study and return the accounts whose charge comes back: those from which nothing was ever released.

        Raises
        ------
        PolicyError
            CSL-P405 when nothing is reserved.
        """
        with self._store.transaction():
            known = self._reservation(rid)
            if known is not None and known.closed:
                return known.untouched()
            returned = known.untouched() if known is not None else ()
            self._write(Close, CloseData(reason=reason, returned=returned), rid)
        return returned

    def refuse(self, code: str, study: str, why: str) -> None:
        """Write down a refusal; text from outside is shortened and cleaned, so that a refusal can always be written."""
        data = RefuseData(code=code, study=_clean(study, 400), why=_clean(why, 1000))
        with self._store.transaction():
            self._write(Refuse, data)

    def refuse_many(self, count: int, first: int, last: int, codes: Mapping[str, int]) -> None:
        """Write down how many refusals there were between two of the ledger's times, in all and by code; nothing else of them."""
        data = RefusalsData.of(count, first, last, codes)
        with self._store.transaction():
            self._write(Refuse, data)

    def consent(self, rid: str, *, purpose: str, consent: str, digest: str) -> None:
        """Write down the consent under which a study's data were read, at each reading: were it written only when the list
        changed, the number of entries, which witnesses see, would tell whether one customer changed her mind.

        Raises
        ------
        PolicyError
            CSL-P405, CSL-P406 when the study is not reserved and open.
        """
        data = ConsentData(purpose=purpose, consent=consent, salted=digest)
        with self._store.transaction():
            self._write(Consent, data, rid)

    def access(
        self, action: Literal["view", "export", "erase"], what: str, *, actor: str, role: str, count: int
    ) -> None:
        """Write down that somebody is about to see, take or delete something; call it before it happens."""
        data = AccessData(action=action, what=_clean(what, 400), actor=_clean(actor, 400), role=role, count=count)
        with self._store.transaction():
            self._write(Access, data)

    def withdraw(self, *, count: int, registered: int, digest: str, reason: str, actor: str) -> None:
        """Write down that customers withdrew their consent: how many, and a salted digest of the list."""
        data = WithdrawData(
            count=count, registered=registered, salted=digest, reason=_clean(reason, 400), actor=_clean(actor, 400)
        )
        with self._store.transaction():
            self._write(Withdraw, data)

    def witnessed(self, size: int, root: str, witnesses: Sequence[str]) -> None:
        """Write down that others countersigned the ledger's head."""
        data = WitnessData(size=size, root=root, witnesses=tuple(witnesses))
        with self._store.transaction():
            self._write(Witnessed, data)

    def rotate(self, new: Ed25519PrivateKey, reason: str) -> None:
        """Change the institution's key: from the next entry on `new` signs, and this object writes with it.

        Raises
        ------
        PolicyError
            CSL-P317 for a key that was used before.
        """
        with self._store.transaction():
            state = self._state()
            assert state.member is not None
            statement = RotationStatement(
                member=state.member, seq=state.size, prev=state.head, old=public_hex(self._key), new=public_hex(new)
            )
            accepted = sign(new, ROTATION_CONTEXT, statement).value
            data = RotateData(statement=statement, accepted=accepted, reason=_clean(reason, 400))
            self._write(Rotate, data, state_key=new)
        self._key, self._public = new, public_hex(new)
        self.state()  # from now on entries before this one are checked by the old key

    def restore(self, data: RestoreData) -> None:
        """Let this copy go on as the ledger, as two officers signed; the same again changes nothing.

        Raises
        ------
        PolicyError
            CSL-P315 when a signature is missing, CSL-P317 when they signed for another copy.
        IntegrityError
            CSL-P314 for a signature that does not fit, or of nobody who may sign.
        """
        with self._store.transaction():
            if self._entry(self._store.last()).body.data != data:
                self._write(Restore, data)

    def _ts(self, state: State) -> int:
        return max(self._clock(), state.ts)

    def _write(
        self, kind: type[Body], data: Document, rid: str | None = None, *, state_key: Ed25519PrivateKey | None = None
    ) -> None:
        """Append an entry and the totals after it; the caller holds the transaction."""
        state = self._state()
        place = {"seq": state.size, "prev": state.head, "ts": self._ts(state)}
        body = kind.model_validate({**place, "salt": _salt(), "rid": rid, "data": data})
        known = UNKNOWN if rid is None else self._known(rid, body.data.number if isinstance(body, Release) else None)
        self._append(state, body, known, state_key or self._key)

    def _append(self, state: State, body: Body, known: Known, state_key: Ed25519PrivateKey) -> None:
        content = body.canonical()
        leaf = leaf_hash(content)
        after = advance(state, body, leaf, known)
        released = (body.rid, body.data.number, body.data.account, body.seq) if isinstance(body, Release) else None
        row = (body.seq, body.kind, body.rid, content, leaf, self._key.sign(SIGNING_PREFIX + content))
        self._store.insert(row, released)
        totals = after.canonical()
        signature = state_key.sign(STATE_PREFIX + totals)
        self._store.put_state(totals, signature)
        self._parsed = ((totals, signature), after)


def _fingerprint(secret: bytes) -> str:
    return sha256_hex(HOLDOUT_CONTEXT + secret)


def _salt() -> str:
    return secrets.token_hex(16)


def _clean(text: str, length: int) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[:length]
