"""The verifier's core: one pass over entries as bytes, whether they come from a ledger's file or from an evidence pack.

Bytes, leaf, chain, signature, time and meaning of each entry are checked; prices are computed anew from the events, limits
anew from the policies, and what the entries claim about heads and witnesses is held against the tree. Each entry costs the
same and memory does not grow: what must be remembered of studies and tree lies in temporary files.
"""

from dataclasses import dataclass
from typing import Self

from federation.errors import ConsilienceError, DocumentError
from federation.merkle import leaf_hash
from federation.note import parse_note
from privacy.cost import Cost
from privacy.filter import limits_of, recompute, run_epsilon
from privacy.ledger.entries import (
    SIGNING_PREFIX,
    Body,
    Genesis,
    PolicyEntry,
    Release,
    Reserve,
    Restore,
    Witnessed,
    parse,
)
from privacy.ledger.facts import Facts
from privacy.ledger.plans import plan_lines
from privacy.ledger.reader import TreeHead, signed
from privacy.ledger.rules import advance, skip
from privacy.ledger.secrecy import is_understated
from privacy.ledger.spool import TreeSpool
from privacy.ledger.state import State
from privacy.plan import plan_events

PRICE_TOLERANCE = 1e-5
"""By how much a recorded price may be below the verifier's own, relative.

A price comes out of Fourier transforms in floating point, which another processor or another release of its libraries
rounds otherwise: by some 1e-9 in most runs, by 1e-6 where the noise is small. 1e-5 of mu^2 is 5e-6 of mu, hence a few millionths
of epsilon: no false alarm in practice, and a ledger that stays within it hides less than that of its whole budget.
"""
MOST_FINDINGS = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a stable code, the entry's number where there is one, what it is, and the file of a pack."""

    code: str
    seq: int | None
    what: str
    file: str = ""

    @property
    def where(self) -> str:
        """Where it is, in words."""
        entry = "" if self.seq is None else f"entry {self.seq}"
        return ", ".join(part for part in (self.file, entry) if part) or "file"


class Findings:
    """What was found so far; after the first thousand, further ones are only counted."""

    def __init__(self) -> None:
        self._items: list[Finding] = []
        self.count = 0

    def add(self, code: str, seq: int | None, what: str, file: str = "") -> None:
        """Add one."""
        self.count += 1
        if len(self._items) < MOST_FINDINGS:
            self._items.append(Finding(code, seq, what, file))

    def all(self) -> tuple[Finding, ...]:
        """Return them in the order in which they were found."""
        return tuple(self._items)


@dataclass(frozen=True)
class Witness(TreeHead):
    """A tree head that somebody else kept. `generation` counts the restorations with losses before it; None when that is not
    known."""

    generation: int | None = None
    who: str = "the witness"


class Audit:
    """One pass over a ledger's entries.

    Parameters
    ----------
    public_key:
        The key that the institution is known by; used for entries as long as the entries themselves name none.
    start:
        The totals before the first entry that is read: empty for a whole ledger.
    findings:
        Where to put what is found.
    """

    def __init__(self, public_key: str, start: State, findings: Findings) -> None:
        self.state = start
        self.findings = findings
        self.tree = TreeSpool(start.size, [bytes.fromhex(node) for node in start.frontier])
        self.facts = Facts()
        self._losses: list[int] = []  # at how many entries each restoration with losses took the ledger up
        self._public = public_key
        self._expected_seq = start.size
        self._expected_prev = start.head

    def close(self) -> None:
        """Delete the temporary files."""
        self.tree.close()
        self.facts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> TreeHead:
        """The tree head over everything read."""
        found = self.tree.root(self.tree.size)
        assert found is not None
        return TreeHead(self.state.size, found.hex())

    def entry(self, seq: int, content: bytes, signature: bytes, leaf: bytes | None = None) -> Body | None:
        """Check the next entry and return what it says; None when it cannot be read.

        Parameters
        ----------
        seq, content, signature:
            The place where it stands, its bytes and its signature (64 bytes).
        leaf:
            The leaf (32 bytes) that is written beside it, where one is.
        """
        if seq != self._expected_seq:
            self._add("CSL-P616", seq, f"Entries {self._expected_seq} to {seq - 1} are missing.")
        computed = leaf_hash(content)
        if leaf is not None and leaf != computed:
            self._add("CSL-P613", seq, "The leaf is not the hash of the body: one of them was changed.")
        stored = computed if leaf is None else leaf
        body = self._parsed(seq, content)
        if not signed(self._signer(seq, body), SIGNING_PREFIX, content, signature):
            self._add("CSL-P615", seq, "The signature is not the institution's over this body.")
        if body is None:
            self.state = skip(self.state, 0, stored)
        else:
            self._check_place(seq, body)
            self._check_meaning(seq, body, stored)
        self.tree.append(stored)
        self._expected_seq, self._expected_prev = seq + 1, stored.hex()
        return body

    def recall(self, body: Body) -> None:
        """Take up an entry from before the start, so that later ones about its study are understood."""
        known = self.facts.known(body)
        twice = isinstance(body, Reserve) and known.reservation is not None
        if twice or (isinstance(body, Release) and (known.number_taken or known.reservation is None)):
            self._add(
                "CSL-P618", body.seq, "The entry breaks a rule: a study or release stands twice, or is paid by nobody."
            )
            return
        self.facts.remember(body)

    def check_key(self) -> None:
        """Report when the key that the institution is known by is none of the ledger's."""
        if self.state.keys and all(item.key != self._public for item in self.state.keys):
            newest = self.state.keys[-1].key
            self._add("CSL-P624", None, f"The ledger is under another key: {newest}, not {self._public}.")

    def check_witness(self, witness: TreeHead) -> None:
        """Report when what a witness saw is not the beginning of these entries."""
        generation = witness.generation if isinstance(witness, Witness) else None
        who = witness.who if isinstance(witness, Witness) else "the witness"
        if generation is not None and generation > self.state.restores:
            what = (
                f"{who} saw it after {generation} restorations with losses; this copy knows of {self.state.restores}."
            )
            self._add("CSL-P625", None, what)
            return
        if self._is_excused(generation, witness.size):
            return
        if witness.size > self.state.size:
            what = f"{who} saw {witness.size} entries; {self.state.size} are left: the end was cut off."
            self._add("CSL-P625", None, what)
        elif not self._is_head(witness.size, witness.root):
            self._add("CSL-P625", None, f"The first {witness.size} entries are not those that {who} saw.")

    def _is_excused(self, generation: int | None, size: int) -> bool:
        """Return whether a restoration said openly that entries which a head covered are lost."""
        index = None if generation is None else generation - (self.state.restores - len(self._losses))
        return index is not None and (index < 0 or (index < len(self._losses) and size > self._losses[index]))

    def _add(self, code: str, seq: int | None, what: str) -> None:
        self.findings.add(code, seq, what)

    def _parsed(self, seq: int, content: bytes) -> Body | None:
        try:
            return parse(content)
        except DocumentError as error:
            self._add("CSL-P611", seq, error.cause)
            return None

    def _signer(self, seq: int, body: Body | None) -> str:
        """Return the key that must have signed an entry: the ledger's own then, which its first entry names."""
        if isinstance(body, Genesis) and not self.state.keys:
            return body.data.key
        return self.state.key_at(seq) or self._public

    def _check_place(self, seq: int, body: Body) -> None:
        if body.seq != seq:
            self._add("CSL-P612", seq, f"The entry's own number is {body.seq}.")
        if body.prev != self._expected_prev:
            self._add("CSL-P614", seq, "The chain is broken: it does not follow the entry that stands before it.")
        if body.ts < self.state.ts:
            self._add("CSL-P617", seq, "The time goes back.")

    def _check_meaning(self, seq: int, body: Body, leaf: bytes) -> None:
        known = self.facts.known(body)
        try:
            self._recompute(seq, body)
            after = advance(self.state, body, leaf, known)
        except ConsilienceError as error:
            self._refuse(seq, body, leaf, f"{error.code}  {error.cause}")
        except (ValueError, ArithmeticError) as error:  # figures beyond all bounds, which only a forger writes
            self._refuse(seq, body, leaf, f"its figures cannot be added up ({type(error).__name__}).")
        else:
            if after.restores > self.state.restores:
                self._losses.append(self.state.size)
            self.state = after
            self.facts.remember(body)

    def _refuse(self, seq: int, body: Body, leaf: bytes, why: str) -> None:
        self._add("CSL-P618", seq, f"The entry breaks a rule: {why}")
        self.state = skip(self.state, body.ts, leaf)

    def _recompute(self, seq: int, body: Body) -> None:
        if isinstance(body, PolicyEntry):
            self._check_policy(seq, body)
        elif isinstance(body, Reserve):
            self._check_prices(seq, body)
        elif isinstance(body, Witnessed):
            if not self._is_head(body.data.size, body.data.root):
                self._add("CSL-P627", seq, "The head that others are said to have signed is none of this ledger.")
        elif isinstance(body, Restore):
            self._check_restore(seq, body)

    def _check_policy(self, seq: int, body: PolicyEntry) -> None:
        data = body.data
        if data.sha256 != data.policy.digest():
            self._add("CSL-P620", seq, "The digest is not that of the policy.")
        if data.limits != limits_of(data.policy):
            self._add("CSL-P620", seq, "The limits are not those that the policy's budget gives.")
        costs = {(charge.account, charge.purpose): charge.cost for charge in data.plan}
        for account, purpose, slots in plan_lines(data.policy.budget.slots):
            charged = costs.get((account, purpose))  # a missing one breaks a rule of its own
            if charged is not None:
                computed = recompute(plan_events(slots, account), charged, data.limits.filter)
                self._compare(seq, f"plan on the {account} account", charged, computed)

    def _check_prices(self, seq: int, body: Reserve) -> None:
        limits = self.state.limits
        for charge in body.data.charges:
            if run_epsilon(charge.events, body.data.delta) > body.data.epsilon * (1 + PRICE_TOLERANCE):
                self._add("CSL-P619", seq, f"The {charge.account} account's events cost more than was granted.")
            claim = body.data.broken(charge.account)
            if claim is not None and is_understated(charge, claim.epsilon, body.data.delta, PRICE_TOLERANCE):
                what = "would disclose more by its own noise alone than is stated for a failure of the protocol"
                self._add("CSL-P619", seq, f"The {charge.account} account {what}.")
            if limits is not None and body.data.slot is None:
                computed = recompute(charge.events, charge.cost, limits.filter)
                self._compare(seq, f"{charge.account} account", charge.cost, computed)

    def _compare(self, seq: int, what: str, charged: Cost, computed: Cost) -> None:
        slack = 1 + PRICE_TOLERANCE * computed.nano
        if charged.femto != computed.femto or abs(charged.nano - computed.nano) > slack:
            self._add(
                "CSL-P619",
                seq,
                f"The {what} was charged {charged.nano} x 1e-9 and {charged.femto} x 1e-15; "
                f"the events cost {computed.nano} and {computed.femto}.",
            )

    def _check_restore(self, seq: int, body: Restore) -> None:
        """Hold what officers said against the head on which it rests; rules of its own are the ledger's (`advance`)."""
        said = body.data.statement
        if not said.complete or not body.data.note:
            return
        checkpoint = parse_note(body.data.note).checkpoint
        if checkpoint.size <= said.size and not self._is_head(checkpoint.size, checkpoint.root):
            self._add("CSL-P626", seq, "The restore says that nothing was lost, and its note shows another ledger.")

    def _is_head(self, size: int, root: str) -> bool:
        """Return whether the tree had this head; one from before the start cannot be told here, and passes."""
        if size < self.tree.start:
            return True
        found = self.tree.root(size)
        return found is not None and found.hex() == root
