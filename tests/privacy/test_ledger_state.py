"""The rules of the ledger as a pure function, against a slow reading of what they promise."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import PolicyError
from privacy.events import SubsampledGaussian
from privacy.filter import limits_of
from privacy.ledger.entries import (
    AccountCharge,
    Close,
    CloseData,
    Genesis,
    GenesisData,
    PolicyData,
    PolicyEntry,
    Release,
    ReleaseData,
    Reservation,
    Reserve,
    ReserveData,
)
from privacy.ledger.merkle import leaf_hash
from privacy.ledger.state import State, advance
from privacy.token import Token

DAY = 86_400_000
PERIOD = 30
PERIOD_BUDGET, LIFE_BUDGET = 100, 250


@dataclass
class Study:
    cost: dict[str, int]
    reserved: int
    releases: list[tuple[str, int]] = field(default_factory=list)
    closed: int | None = None


class Book:
    """Drives `advance` as writer and verifier do, and keeps its own plain history beside it."""

    def __init__(self, policy):
        self.state = State()
        self.day = 20_600
        self.studies: list[Study] = []
        self.known: dict[str, Reservation] = {}
        caps = {"mu": PERIOD_BUDGET, "life": LIFE_BUDGET}
        limits = limits_of(policy).model_copy(
            update={
                "period": Token(mu_squared_nano=caps["mu"], delta_femto=10**9),
                "life": Token(mu_squared_nano=caps["life"], delta_femto=10**9),
                "period_days": PERIOD,
            }
        )
        self.digest = policy.digest()
        self.apply(Genesis, data=GenesisData(member="alder", key="0" * 64, holdout_key="0" * 64))
        self.apply(PolicyEntry, data=PolicyData(sha256=self.digest, policy=policy, limits=limits))

    def apply(self, kind, known=None, taken=False, **fields):
        body = kind(seq=self.state.size, prev=self.state.head, ts=self.day * DAY, **fields)
        self.state = advance(self.state, body, leaf_hash(body.canonical()), known, taken)

    def reserve(self, costs):
        rid = f"r{len(self.studies)}"
        event = SubsampledGaussian(noise_multiplier=1.0, sampling_rate=1.0, steps=1)
        charges = tuple(
            AccountCharge(account=name, events=(event,), releases=2, cost=Token(mu_squared_nano=cost, delta_femto=1))
            for name, cost in costs.items()
        )
        data = ReserveData(
            study="s",
            purpose="p",
            contract="shop",
            policy=self.digest,
            epsilon=1.0,
            delta=1e-6,
            run_delta=1e-9,
            library="l",
            charges=charges,
        )
        self.apply(Reserve, rid=rid, data=data)
        self.known[rid] = Reservation(rid, data, {})
        self.studies.append(Study(costs, self.day))

    def release(self, index, account):
        rid, study = f"r{index}", self.studies[index]
        number = len(study.releases)
        data = ReleaseData(number=number, account=account, what="w", sha256="0" * 64, bytes=1)
        self.apply(Release, self.known[rid], rid=rid, data=data)
        study.releases.append((account, self.day))
        used = dict(self.known[rid].released)
        used[account] = used.get(account, 0) + 1
        self.known[rid] = replace(self.known[rid], released=used)

    def close(self, index):
        rid = f"r{index}"
        self.apply(Close, self.known[rid], rid=rid, data=CloseData(reason="x", returned=self.known[rid].untouched()))
        self.known[rid] = replace(self.known[rid], closed=True)
        self.studies[index].closed = self.day

    def check(self):
        for account in ("training", "holdout"):
            self._check_windows(account)
            charged = [
                study.cost.get(account, 0)
                for study in self.studies
                if study.closed is None or any(name == account for name, _ in study.releases)
            ]
            assert self.state.account(account).life.mu_squared_nano == sum(charged) <= LIFE_BUDGET

    def _check_windows(self, account):
        """Whatever was released within any 30 days on end was within the period's budget together."""
        days = {day for study in self.studies for name, day in study.releases if name == account}
        for first in days:
            window = range(first, first + PERIOD)
            inside = [
                study.cost[account]
                for study in self.studies
                if any(name == account and day in window for name, day in study.releases)
            ]
            assert sum(inside) <= PERIOD_BUDGET


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(1, 60), st.integers(0, 60)),
        st.tuples(st.just("release"), st.integers(0, 30), st.sampled_from(["training", "holdout"])),
        st.tuples(st.just("close"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 35)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_no_period_and_no_life_is_ever_overspent(make_policy, steps):
    book = Book(make_policy())
    for name, *values in steps:
        before = book.state
        try:
            if name == "reserve":
                book.reserve({"training": values[0], **({"holdout": values[1]} if values[1] else {})})
            elif name == "wait":
                book.day += values[0]
            elif book.studies and name == "release":
                book.release(values[0] % len(book.studies), values[1])
            elif book.studies:
                book.close(values[0] % len(book.studies))
        except PolicyError:
            assert book.state == before
        book.check()


def test_a_study_that_fits_is_admitted_to_the_last_unit(make_policy):
    book = Book(make_policy())
    book.reserve({"training": 60})
    book.reserve({"training": 40, "holdout": 100})
    assert book.state.training.period(book.day, PERIOD).mu_squared_nano == PERIOD_BUDGET
    try:
        book.reserve({"training": 1})
    except PolicyError as error:
        assert error.code == "CSL-P403"
    else:
        raise AssertionError("one unit too many was admitted")


def test_days_beyond_the_longest_period_are_forgotten(make_policy):
    book = Book(make_policy())
    for index in range(3):
        book.reserve({"training": 10})
        book.release(index, "training")
        book.close(index)
        book.day += 200
    assert [item.day for item in book.state.training.days] == [20_800, 21_000]
    assert book.state.training.life.mu_squared_nano == 30
