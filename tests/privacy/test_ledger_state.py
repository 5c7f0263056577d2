"""The rules of the ledger as a pure function, against a slow model that adds everything up anew each time."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from federation.encoding import canonical
from federation.errors import ConsilienceError
from federation.merkle import leaf_hash, tree_root
from federation.signing import public_hex, sign
from privacy.cost import Bound, Cost, total
from privacy.events import SubsampledGaussian
from privacy.filter import limits_of
from privacy.ledger.entries import (
    ROTATION_CONTEXT,
    AccountCharge,
    Approve,
    Close,
    CloseData,
    Genesis,
    GenesisData,
    Known,
    PolicyData,
    PolicyEntry,
    Release,
    ReleaseData,
    Reservation,
    Reserve,
    ReserveData,
    Restore,
    Rotate,
    RotateData,
    RotationStatement,
)
from privacy.ledger.rules import advance
from privacy.ledger.state import State
from tests.privacy.policies import FIRST, SECOND, THIRD, after, decision, policy, restoration, signed

DAY = 86_400_000
EVENT = SubsampledGaussian(noise_multiplier=1.0, sampling_rate=1.0, steps=2)
CHURN, OFFERS = "marketing.churn", "marketing.offers"
WAITING = policy(
    approval__eyes=2,
    studies__0__automatic_epsilon=0.5,
    studies__0__purposes=[CHURN, OFFERS],
    purposes=[
        {"id": CHURN, "meaning": "Keep customers", "consent": "profiling"},
        {"id": OFFERS, "meaning": "Offer more", "consent": "profiling", "budget": {"epsilon": 1.0, "delta": 1e-6}},
    ],
)
LIFE = Cost(nano=250, femto=90)


@dataclass
class Study:
    """What the model remembers of a study that was reserved."""

    purpose: str
    costs: dict[str, Cost]
    releases: dict[str, list[int]] = field(default_factory=lambda: {"training": [], "holdout": []})
    closed: int | None = None

    def counts(self, account: str) -> bool:
        """Whether its cost counts for ever: it is open, or something left."""
        return self.closed is None or bool(self.releases[account])


class Book:
    """Drives `advance` as writer and verifier do, with costs and capacities of the test's own choice."""

    def __init__(self, first=WAITING, *, period=100, own=40, days=30):
        self.state = State()
        self.day = 20_600
        self.leaves = []
        self.studies: dict[str, Study] = {}
        self.known: dict[str, Known] = {}
        self.left: list[tuple[str, str, int]] = []
        self.apply(Genesis, data=GenesisData(member="alder", key="0" * 64, holdout_key="0" * 64))
        assert self.activate(first, period, own, days) is None

    def apply(self, kind, known=None, **fields):
        """Return the code by which an entry is refused, or None when it was taken."""
        body = kind(seq=self.state.size, prev=self.state.head, ts=self.day * DAY, **fields)
        leaf = leaf_hash(body.canonical())
        before = self.state
        try:
            self.state = advance(self.state, body, leaf, known or Known())
        except ConsilienceError as error:
            assert self.state is before
            return error.code
        self.leaves.append(leaf)
        assert State.from_canonical(self.state.canonical()) == self.state
        assert self.state.canonical() == canonical(self.state.model_dump(mode="json"))
        return None

    def activate(self, document, period=100, own=40, days=30, keys=()):
        limits = limits_of(document)
        bounds = {
            "period": limits.period.model_copy(update={"capacity": Cost(nano=period, femto=50)}),
            "life": limits.life.model_copy(update={"capacity": LIFE}),
            "purposes": {OFFERS: Bound(epsilon=1.0, delta=1e-6, capacity=Cost(nano=own, femto=50))},
            "period_days": days,
        }
        data = PolicyData(
            sha256=document.digest(),
            policy=document,
            signatures=signed(document, *keys),
            limits=limits.model_copy(update=bounds),
        )
        code = self.apply(PolicyEntry, data=data)
        if code is None:
            self.policy, self.limits = document, data.limits
        return code

    def reserve(self, rid, costs, purpose=CHURN, epsilon=0.5):
        charges = tuple(
            AccountCharge(account=name, events=(EVENT,), releases=2, cost=cost) for name, cost in costs.items()
        )
        data = ReserveData(
            study="s",
            purpose=purpose,
            contract="shop",
            policy=self.policy.digest(),
            epsilon=epsilon,
            delta=1e-6,
            library="l",
            charges=charges,
        )
        code = self.apply(Reserve, self._known(rid), rid=rid, data=data)
        if code is None:
            self._know(rid, reservation=Reservation(rid, data, dict.fromkeys(costs, 0)))
            self.studies[rid] = Study(purpose, costs)
        return code

    def decide(self, rid, key, yes=True):
        data = decision(rid, self.policy, key, decision="approve" if yes else "decline")
        code = self.apply(Approve, self._known(rid), rid=rid, data=data)
        if code is None:
            self._know(rid, approvals=(*self._known(rid).approvals, data))
        return code

    def release(self, rid, account, number):
        taken = rid in self.studies and number in sum(self.studies[rid].releases.values(), [])
        known = Known(reservation=self._known(rid).reservation, number_taken=taken)
        data = ReleaseData(number=number, account=account, what="w", sha256="0" * 64, bytes=1)
        code = self.apply(Release, known, rid=rid, data=data)
        if code is None:
            self.studies[rid].releases[account].append(number)
            held = known.reservation
            released = {**held.released, account: held.released.get(account, 0) + 1}
            self._know(rid, reservation=Reservation(rid, held.data, released))
            self.left.append((rid, account, self.day))
        return code

    def close(self, rid):
        held = self._known(rid).reservation
        returned = held.untouched() if held is not None else ()
        code = self.apply(Close, self._known(rid), rid=rid, data=CloseData(reason="x", returned=returned))
        if code is None:
            self._know(rid, reservation=Reservation(rid, held.data, held.released, True))
            self.studies[rid].closed = self.day
        return code

    def _known(self, rid):
        return self.known.get(rid, Known())

    def _know(self, rid, **changes):
        old = self._known(rid)
        self.known[rid] = Known(
            changes.get("approvals", old.approvals), changes.get("reservation", old.reservation), False
        )

    # What the model says, from the list of studies alone.

    def life(self, account):
        return total(item.costs[account] for item in self._with(account) if item.counts(account))

    def period(self, account, purpose=None):
        first = self.day - self.limits.period_days + 1
        return total(
            item.costs[account]
            for item in self._with(account)
            if purpose in (None, item.purpose)
            and item.counts(account)
            and (item.closed is None or item.closed >= first)
        )

    def _with(self, account):
        return [item for item in self.studies.values() if account in item.costs]

    def expected_reserve(self, rid, costs, purpose, eyes_needed):
        if rid in self.studies:
            return "CSL-P402"
        if self.state.exhausted:
            return "CSL-P413"
        said = self._known(rid).approvals
        if any(item.statement.decision == "decline" for item in said):
            return "CSL-P416"
        mine = [item for item in said if item.statement.policy == self.policy.digest()]
        if len(mine) < eyes_needed:
            return "CSL-P415"
        for account, cost in costs.items():
            checks = [
                ("CSL-P404", self.life(account), LIFE),
                ("CSL-P403", self.period(account), self.limits.period.capacity),
            ]
            if purpose == OFFERS:
                checks.append(("CSL-P412", self.period(account, purpose), self.limits.purposes[OFFERS].capacity))
            for code, spent, capacity in checks:
                if spent.nano + cost.nano > capacity.nano or spent.femto + cost.femto > capacity.femto:
                    return code
        return None


RIDS = st.sampled_from([f"{number:064x}" for number in range(12)])
ACCOUNTS = st.sampled_from(["training", "holdout"])
COSTS = st.builds(Cost, nano=st.integers(0, 60), femto=st.integers(0, 9))


class LedgerMachine(RuleBasedStateMachine):
    """Any order of entries: each is taken or refused exactly as the model says, and the totals are those of the model."""

    @initialize()
    def begin(self):
        self.book = Book()
        self.identities = 0

    @rule(days=st.integers(0, 40))
    def wait(self, days):
        self.book.day += days

    @rule(
        rid=RIDS,
        training=COSTS,
        holdout=st.none() | COSTS,
        purpose=st.sampled_from([CHURN, OFFERS]),
        waits=st.integers(0, 3),
    )
    def reserve(self, rid, training, holdout, purpose, waits):
        costs = {"training": training} | ({} if holdout is None else {"holdout": holdout})
        eyes = 2 if waits == 0 else 0
        expected = self.book.expected_reserve(rid, costs, purpose, eyes)
        assert self.book.reserve(rid, costs, purpose, 1.0 if eyes else 0.5) == expected

    @rule(rid=RIDS, key=st.sampled_from([FIRST, SECOND, THIRD]), yes=st.integers(0, 4))
    def decide(self, rid, key, yes):
        book = self.book
        before = {(item.signature.key, item.statement.policy) for item in book._known(rid).approvals}
        expected = None
        if rid in book.studies:
            expected = "CSL-P418"
        elif key is THIRD:
            expected = "CSL-P314"
        elif (public_hex(key), book.policy.digest()) in before:
            expected = "CSL-P313"
        assert book.decide(rid, key, yes > 0) == expected

    @rule(rid=RIDS, account=ACCOUNTS, number=st.integers(0, 3))
    def release(self, rid, account, number):
        study = self.book.studies.get(rid)
        if study is None:
            expected = "CSL-P405"
        elif study.closed is not None:
            expected = "CSL-P406"
        elif self.book.state.exhausted:
            expected = "CSL-P413"
        elif account not in study.costs:
            expected = "CSL-P407"
        elif number in sum(study.releases.values(), []):
            expected = "CSL-P409"
        else:
            expected = "CSL-P408" if len(study.releases[account]) == 2 else None
        assert self.book.release(rid, account, number) == expected

    @rule(rid=RIDS)
    def close(self, rid):
        study = self.book.studies.get(rid)
        expected = "CSL-P405" if study is None else "CSL-P406" if study.closed is not None else None
        assert self.book.close(rid) == expected

    @rule(period=st.integers(40, 120), own=st.integers(20, 60), days=st.integers(1, 60))
    def next_policy(self, period, own, days):
        assert self.book.activate(after(self.book.policy), period, own, days, [FIRST]) is None

    @rule()
    def rotate(self):
        self.identities += 1
        new = Ed25519PrivateKey.from_private_bytes(f"identity {self.identities}".encode().ljust(32, b"."))
        state = self.book.state
        said = RotationStatement(member="alder", seq=state.size, prev=state.head, old=state.key, new=public_hex(new))
        data = RotateData(statement=said, accepted=sign(new, ROTATION_CONTEXT, said).value, reason="r")
        assert self.book.apply(Rotate, data=data) is None
        assert self.book.state.key == public_hex(new) and self.book.state.key_at(state.size) == state.key

    @precondition(lambda self: self.book.state.size > 25)
    @rule()
    def restore(self):
        state = self.book.state
        assert self.book.apply(Restore, data=restoration("alder", state.size, state.tree_root())) is None
        assert self.book.state.exhausted

    @invariant()
    def totals_are_those_of_the_model(self):
        book = self.book
        for account in ("training", "holdout"):
            found = book.state.account(account)
            assert found.life == book.life(account)
            assert found.life.nano <= LIFE.nano and found.life.femto <= LIFE.femto
            assert found.all.spent(book.day, book.limits.period_days) == book.period(account)
            for purpose in (CHURN, OFFERS):
                window = found.purpose(purpose)
                assert window.spent(book.day, book.limits.period_days) == book.period(account, purpose)

    @invariant()
    def the_tree_is_that_of_the_leaves(self):
        assert self.book.state.size == len(self.book.leaves)
        assert self.book.state.head == self.book.leaves[-1].hex()
        assert self.book.state.tree_root() == tree_root(self.book.leaves, self.book.state.size).hex()


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLedger = LedgerMachine.TestCase


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), RIDS, st.integers(1, 60)),
        st.tuples(st.just("release"), RIDS, st.integers(0, 1)),
        st.tuples(st.just("close"), RIDS, st.just(0)),
        st.tuples(st.just("wait"), RIDS, st.integers(0, 35)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS)
def test_what_leaves_within_any_thirty_days_on_end_is_within_the_periods_budget(steps):
    book = Book()
    for name, rid, value in steps:
        if name == "wait":
            book.day += value
        elif name == "reserve":
            book.reserve(rid, {"training": Cost(nano=value)})
        elif name == "release":
            book.release(rid, "training", value)
        else:
            book.close(rid)
    for first in {day for _, _, day in book.left}:
        inside = {rid for rid, _, day in book.left if first <= day < first + 30}
        assert sum(book.studies[rid].costs["training"].nano for rid in inside) <= 100


def test_a_study_that_fits_is_admitted_to_the_last_unit():
    book = Book()
    rids = [f"{number:064x}" for number in range(4)]
    assert book.reserve(rids[0], {"training": Cost(nano=60)}) is None
    assert book.reserve(rids[1], {"training": Cost(nano=40), "holdout": Cost(nano=100)}) is None
    assert book.period("training") == Cost(nano=100)
    assert book.reserve(rids[2], {"training": Cost(nano=1)}) == "CSL-P403"
    assert book.reserve(rids[2], {"training": Cost(femto=50)}) is None
    assert book.reserve(rids[3], {"training": Cost(femto=1)}) == "CSL-P403"


def test_days_beyond_the_longest_period_are_forgotten():
    book = Book()
    for number in range(3):
        rid = f"{number:064x}"
        assert book.reserve(rid, {"training": Cost(nano=10)}) is None
        assert book.release(rid, "training", 1) is None
        assert book.close(rid) is None
        book.day += 200
    assert [item.day for item in book.state.training.all.days] == [20_800, 21_000]
    assert book.state.training.life.nano == 30


def test_an_entry_before_the_genesis_and_a_second_genesis_are_refused():
    book = Book()
    genesis = GenesisData(member="alder", key="0" * 64, holdout_key="0" * 64)
    assert book.apply(Genesis, data=genesis) == "CSL-P306"
    book.state = State()
    assert book.activate(after(book.policy)) == "CSL-P306"


def test_a_close_returns_what_was_untouched_and_nothing_else():
    book = Book()
    rid = "0" * 64
    assert book.reserve(rid, {"training": Cost(nano=10), "holdout": Cost(nano=10)}) is None
    assert book.release(rid, "training", 1) is None
    for returned in ((), ("training",), ("training", "holdout")):
        data = CloseData(reason="x", returned=returned)
        assert book.apply(Close, book.known[rid], rid=rid, data=data) == "CSL-P410"
    assert book.close(rid) is None
