"""Verification by a stranger: a ledger's file and the institution's public key, nothing else.

Every entry is read in order; its bytes, leaf, chain, signature, time and meaning are checked, prices are computed anew
from the events, limits anew from the policies, and the totals and derived tables of the file are compared with what the
entries give. A fault is reported where it is found, and reading goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation.errors import ConsilienceError, DocumentError
from privacy.filter import limits_of, run_epsilon, run_price
from privacy.ledger.entries import (
    SIGNING_PREFIX,
    Body,
    Close,
    Genesis,
    PolicyEntry,
    Release,
    Reservation,
    Reserve,
    parse,
)
from privacy.ledger.merkle import EMPTY_ROOT, leaf_hash, root
from privacy.ledger.reader import STATE_PREFIX, TreeHead
from privacy.ledger.state import State, advance, skip
from privacy.ledger.store import SCHEMA, ReleasedRow, Row, Store, translated
from privacy.policy import Policy
from privacy.token import Token

PRICE_TOLERANCE = 1e-6  # another machine's floating point may move the last digits of a price
MOST_FINDINGS = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a stable code, the entry's number where there is one, and what it is."""

    code: str
    seq: int | None
    what: str


@dataclass(frozen=True)
class Verification:
    """What a ledger proves. `head` and `state` are computed from the entries alone."""

    head: TreeHead
    state: State
    policy: Policy | None
    findings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def unsigned(self) -> bool:
        """Whether no entry is signed by the key: then a wrong key is the likelier mistake than a forged ledger."""
        return 0 < self.head.size == sum(finding.code == "CSL-P615" for finding in self.findings)


def verify(path: Path, public_key: str, witness: TreeHead | None = None) -> Verification:
    """Check a ledger's file from its first entry to its last.

    Parameters
    ----------
    path:
        The ledger's file; it is not changed (except that SQLite undoes a write that a crash cut short).
    public_key:
        The institution's Ed25519 public key, 64 hexadecimal digits.
    witness:
        An earlier tree head that somebody else kept: shows entries that were cut off at the end, or a history written
        anew.

    Raises
    ------
    StorageError, IntegrityError
        CSL-P505, CSL-P513, CSL-P601, CSL-P603 when the file cannot be read as a ledger at all.
    """
    store = Store.open(path, write=False)
    try:
        return _Audit(store, public_key, witness).run()
    finally:
        store.close()


class _Audit:
    """One pass over a ledger's file."""

    def __init__(self, store: Store, public_key: str, witness: TreeHead | None) -> None:
        self._store = store
        self._public = public_key
        self._verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        self._witness = witness
        self._findings: list[Finding] = []
        self._state = State()
        self._expected_prev = self._state.head
        self._expected_seq = 0
        self._policy: Policy | None = None
        self._reservations: dict[str, Reservation] = {}
        self._numbers: dict[tuple[str, int], ReleasedRow] = {}

    def run(self) -> Verification:
        """Read everything and return what was found."""
        with self._store.transaction(write=False):
            stored, last = self._store.state(), self._store.last()
            self._check_file()
        end = last[0] if last is not None else -1  # what is appended while we read is left for the next verification
        self._check_witness()
        for row in self._store.rows():
            if row[0] > end:
                break
            self._entry(row)
        if end < 0:
            self._add("CSL-P616", None, "The ledger holds no entry.")
        if self._witness is not None and self._state.size < self._witness.size:
            self._add(
                "CSL-P625",
                None,
                f"The witness saw {self._witness.size} entries; {self._state.size} are left: the end was cut off.",
            )
        self._check_released(end)
        self._check_stored(stored)
        return Verification(self._head(), self._state, self._policy, tuple(self._findings))

    def _add(self, code: str, seq: int | None, what: str) -> None:
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append(Finding(code, seq, what))

    def _head(self) -> TreeHead:
        nodes = [bytes.fromhex(node) for node in self._state.frontier]
        return TreeHead(self._state.size, (root(nodes) if nodes else EMPTY_ROOT).hex())

    def _check_file(self) -> None:
        missing, added = set(SCHEMA) - self._store.schema(), self._store.schema() - set(SCHEMA)
        for statement in sorted(missing | added):
            verb = "lacks" if statement in missing else "has an unknown"
            self._add("CSL-P621", None, f"The file {verb}: {' '.join(statement.split())[:60]}…")
        damage = self._store.damage()
        if damage is not None:
            self._add("CSL-P601", None, f"SQLite finds damage: {damage}.")

    def _check_witness(self) -> None:
        if self._witness is not None and self._state.size == self._witness.size and self._head() != self._witness:
            self._add("CSL-P625", None, f"The first {self._witness.size} entries are not those that the witness saw.")

    def _entry(self, row: Row) -> None:
        seq, _, _, content, leaf, signature = row
        if seq != self._expected_seq:
            self._add("CSL-P616", seq, f"Entries {self._expected_seq} to {seq - 1} are missing.")
        if leaf_hash(content) != leaf:
            self._add("CSL-P613", seq, "The leaf is not the hash of the body: one of them was changed.")
        if not self._signed(SIGNING_PREFIX, content, signature):
            self._add("CSL-P615", seq, "The signature is not the institution's over this body.")
        try:
            body = parse(content)
        except DocumentError as error:
            self._add("CSL-P611", seq, error.cause)
            self._state = skip(self._state, 0, leaf)
        else:
            self._check_place(row, body)
            self._check_meaning(body, leaf)
        self._expected_seq, self._expected_prev = seq + 1, leaf.hex()
        self._check_witness()

    def _check_place(self, row: Row, body: Body) -> None:
        seq = row[0]
        if (body.seq, body.kind, body.rid) != row[:3]:
            self._add(
                "CSL-P612", seq, f"The row says {row[:3]}; its signed body says {(body.seq, body.kind, body.rid)}."
            )
        if body.prev != self._expected_prev:
            self._add("CSL-P614", seq, "The chain is broken: it does not follow the entry that stands before it.")
        if body.ts < self._state.ts:
            self._add("CSL-P617", seq, "The time goes back.")

    def _check_meaning(self, body: Body, leaf: bytes) -> None:
        known = self._reservations.get(body.rid) if body.rid is not None else None
        try:
            self._recompute(body)
            taken = isinstance(body, Release) and (body.rid, body.data.number) in self._numbers
            self._state = advance(self._state, body, leaf, known, taken)
        except ConsilienceError as error:
            self._add("CSL-P618", body.seq, f"The entry breaks a rule: {error.code}  {error.cause}")
            self._state = skip(self._state, body.ts, leaf)
            return
        self._remember(body, known)

    def _remember(self, body: Body, known: Reservation | None) -> None:
        if isinstance(body, PolicyEntry):
            self._policy = body.data.policy
        elif isinstance(body, Reserve):
            self._reservations[body.rid] = Reservation(body.rid, body.data, {})
        elif isinstance(body, Release) and known is not None:
            used = {**known.released, body.data.account: known.released.get(body.data.account, 0) + 1}
            self._reservations[body.rid] = replace(known, released=used)
            self._numbers[(body.rid, body.data.number)] = (body.rid, body.data.number, body.data.account, body.seq)
        elif isinstance(body, Close) and known is not None:
            self._reservations[body.rid] = replace(known, closed=True)

    def _recompute(self, body: Body) -> None:
        if isinstance(body, Genesis) and body.data.key != self._public:
            self._add("CSL-P624", body.seq, "The genesis names another public key.")
        elif isinstance(body, PolicyEntry):
            if body.data.sha256 != body.data.policy.digest():
                self._add("CSL-P620", body.seq, "The digest is not that of the policy.")
            if body.data.limits != limits_of(body.data.policy):
                self._add("CSL-P620", body.seq, "The limits are not those that the policy's budget gives.")
        elif isinstance(body, Reserve):
            self._check_reserve(body)

    def _check_reserve(self, body: Reserve) -> None:
        for charge in body.data.charges:
            computed = run_price(charge.events, body.data.run_delta)
            if run_epsilon(charge.events, body.data.delta) > body.data.epsilon * (1 + PRICE_TOLERANCE):
                self._add("CSL-P619", body.seq, f"The {charge.account} account's events cost more than was granted.")
            if not _agrees(charge.cost, computed):
                what = (
                    f"The {charge.account} account was charged {charge.cost.mu_squared_nano} nano mu^2 and "
                    f"{charge.cost.delta_femto} "
                    f"femto delta; the events cost {computed.mu_squared_nano} and {computed.delta_femto}."
                )
                self._add("CSL-P619", body.seq, what)
        rules = self._policy.studies if self._policy is not None else ()
        rule = next(
            (item for item in rules if item.contract == body.data.contract and body.data.purpose in item.purposes), None
        )
        if rule is None or body.data.epsilon > rule.max_epsilon or body.data.delta > rule.max_delta:
            self._add("CSL-P618", body.seq, "The study got more than the policy in force allows it.")

    def _check_released(self, end: int) -> None:
        with translated(self._store.path):
            found = [row for row in self._store.all_released() if row[3] <= end]
        expected = sorted(self._numbers.values(), key=lambda row: row[3])
        for row in sorted(set(found) ^ set(expected), key=lambda item: item[3]):
            what = "is not in" if row in expected else "stands only in"
            self._add(
                "CSL-P623", row[3], f"Release {row[1]} of study {row[0][:12]} {what} the file's table of releases."
            )

    def _check_stored(self, stored: tuple[bytes, bytes] | None) -> None:
        if stored is None or not self._signed(STATE_PREFIX, *stored):
            self._add("CSL-P622", None, "The running totals are missing or not signed by the institution.")
        elif stored[0] != self._state.canonical():
            self._add("CSL-P622", None, "The running totals are not what the entries add up to.")

    def _signed(self, prefix: bytes, content: bytes, signature: bytes) -> bool:
        return _signature_fits(self._verifier.verify, signature, prefix + content)


def _signature_fits(check: Callable[[bytes, bytes], None], signature: bytes, content: bytes) -> bool:
    try:
        check(signature, content)
    except InvalidSignature:
        return False
    return True


def _agrees(charged: Token, computed: Token) -> bool:
    slack = 1 + PRICE_TOLERANCE * computed.mu_squared_nano
    return (
        charged.delta_femto == computed.delta_femto and abs(charged.mu_squared_nano - computed.mu_squared_nano) <= slack
    )
