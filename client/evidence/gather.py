"""What a report tells of a stretch of a ledger, gathered entry by entry.

The same entries give the same facts, whether a pack is made or checked. Lists are cut at a stated length, sums never.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from privacy.cost import NOTHING, Cost, total
from privacy.ledger.entries import (
    ACCOUNTS,
    MILLISECONDS_A_DAY,
    Access,
    Approve,
    ApproveData,
    Body,
    Close,
    Consent,
    PolicyEntry,
    Refuse,
    RefuseData,
    Release,
    Reserve,
    ReserveData,
    Restore,
    Rotate,
    Withdraw,
    Witnessed,
)
from privacy.ledger.state import EPOCH, State

MOST_STUDIES = 1_000
MOST_ROWS = 500
MOST_POINTS = 800
MOST_MONTHS = 1_000
LAST_DAY = 2_900_000  # in the year 9909
OTHERS = ("others", "others")

T = TypeVar("T")


@dataclass
class ReleaseGroup:
    """Replies of one kind that left under one study: how many, their size, when, and the first and last entry."""

    account: str
    what: str
    count: int = 0
    size: int = 0
    first_ts: int = 0
    last_ts: int = 0
    first_seq: int = 0
    last_seq: int = 0

    def add(self, body: Release) -> None:
        """Count one more."""
        if not self.count:
            self.first_ts, self.first_seq = body.ts, body.seq
        self.count += 1
        self.size += body.data.bytes
        self.last_ts, self.last_seq = body.ts, body.seq


@dataclass
class Study:
    """One study: what was decided and reserved, and what left. `reserved` is None before it was granted."""

    rid: str
    name: str
    reserved: ReserveData | None = None
    reserved_ts: int = 0
    reserved_seq: int = 0
    before: bool = False
    decisions: list[tuple[int, int, ApproveData]] = field(default_factory=list)
    consents: list[Consent] = field(default_factory=list)
    releases: dict[tuple[str, str], ReleaseGroup] = field(default_factory=dict)
    closed: Close | None = None


@dataclass
class Listed(Generic[T]):
    """The first entries of a kind, and how many there are."""

    rows: list[T] = field(default_factory=list)
    count: int = 0

    def add(self, row: T) -> None:
        """Count one more, and keep it while there is room."""
        self.count += 1
        if len(self.rows) < MOST_ROWS:
            self.rows.append(row)

    @property
    def left_out(self) -> int:
        """How many are not among the rows."""
        return self.count - len(self.rows)


@dataclass(frozen=True)
class Point:
    """The shares of each account's budgets that are used, after an entry: life and period, training and hold-out."""

    ts: int
    shares: tuple[float, float, float, float]


@dataclass
class MonthSpent:
    """What was reserved in one month (UTC), by account; plans count in the month in which they came into force."""

    studies: int = 0
    releases: int = 0
    costs: dict[str, Cost] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, NOTHING))

    def charge(self, account: str, cost: Cost) -> None:
        """Add a cost."""
        self.costs[account] = total([self.costs[account], cost])


class Gathered:
    """The facts of a stretch of entries. Call `before` for context entries, then `entry` for each of the stretch."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.policies: Listed[PolicyEntry] = Listed()
        self.studies: dict[str, Study] = {}
        self.studies_left_out = 0
        self.refusals: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self.refused: Listed[Refuse] = Listed()
        self.accesses: Listed[Access] = Listed()
        self.access_sums: Counter[tuple[str, str]] = Counter()
        self.withdrawals: Listed[Withdraw] = Listed()
        self.withdrawn = 0
        self.witnessed: Listed[Witnessed] = Listed()
        self.changes: Listed[Rotate | Restore] = Listed()
        self.months: dict[tuple[int, int], MonthSpent] = {}
        self.purposes: dict[str, MonthSpent] = {}
        self.points: list[Point] = []
        self.first_ts: int | None = None
        self.replies = 0
        self._stride = 1
        self._skipped = 0

    def before(self, body: Body) -> None:
        """Take up an entry from outside the stretch: it names studies and policies, and counts for nothing else."""
        if isinstance(body, PolicyEntry):
            self.policies.add(body)
        elif isinstance(body, Reserve):
            study = self._study(body.rid, body.data.study)
            if study is not None:
                study.reserved, study.reserved_ts, study.reserved_seq = body.data, body.ts, body.seq
                study.before = True
        elif isinstance(body, Approve):
            self._decide(body)

    def entry(self, body: Body, state: State) -> None:
        """Take up an entry of the stretch; `state` are the totals after it."""
        self.kinds[body.kind] += 1
        self.first_ts = body.ts if self.first_ts is None else self.first_ts
        if isinstance(body, Reserve | Release | Close | Approve | Consent):
            self._of_study(body)
        else:
            self._other(body)
        if isinstance(body, Reserve | Close | PolicyEntry | Restore):
            self._point(body.ts, state)

    def end(self, state: State) -> None:
        """Close the stretch with the totals at its end."""
        self._point(state.ts, state, always=True)

    def _of_study(self, body: Reserve | Release | Close | Approve | Consent) -> None:
        if isinstance(body, Approve):
            self._decide(body)
            return
        study = self._study(body.rid, body.data.study if isinstance(body, Reserve) else body.rid[:12])
        if isinstance(body, Reserve):
            self._reserve(study, body)
        elif isinstance(body, Release):
            self._release(study, body)
        elif study is not None and isinstance(body, Close):
            study.closed = body
        elif study is not None and isinstance(body, Consent) and len(study.consents) < MOST_ROWS:
            study.consents.append(body)

    def _reserve(self, study: Study | None, body: Reserve) -> None:
        if study is not None:
            study.reserved, study.reserved_ts, study.reserved_seq = body.data, body.ts, body.seq
        else:
            self.studies_left_out += 1
        for sums in (self._month(body.ts), self._purpose(body.data.purpose)):
            sums.studies += 1
            for charge in body.data.charges:
                sums.charge(charge.account, charge.cost)

    def _release(self, study: Study | None, body: Release) -> None:
        reserved = None if study is None else study.reserved
        # Both accounts pay for a round of statistics, by an entry each, and one reply leaves.
        if reserved is None or reserved.work == "training" or body.data.account == "training":
            self.replies += 1
            self._month(body.ts).releases += 1
            if reserved is not None:
                self._purpose(reserved.purpose).releases += 1
        if study is None:
            return
        kind = (body.data.account, body.data.what)
        if kind not in study.releases and len(study.releases) >= MOST_ROWS:
            kind = (body.data.account, "other")
        study.releases.setdefault(kind, ReleaseGroup(*kind)).add(body)

    def _decide(self, body: Approve) -> None:
        study = self._study(body.rid, body.data.name)
        if study is not None and len(study.decisions) < MOST_ROWS:
            study.decisions.append((body.seq, body.ts, body.data))

    def _other(self, body: Body) -> None:
        if isinstance(body, PolicyEntry):
            self.policies.add(body)
            for charge in body.data.plan:
                if charge.purpose is None:
                    self._month(body.ts).charge(charge.account, charge.cost)
        elif isinstance(body, Refuse):
            self._refuse(body)
        elif isinstance(body, Access):
            kind = (body.data.action, body.data.role)
            self.access_sums[kind if kind in self.access_sums or len(self.access_sums) < MOST_ROWS else OTHERS] += 1
            self.accesses.add(body)
        elif isinstance(body, Withdraw):
            self.withdrawn += body.data.count
            self.withdrawals.add(body)
        elif isinstance(body, Witnessed):
            self.witnessed.add(body)
        elif isinstance(body, Rotate | Restore):
            self.changes.add(body)

    def _refuse(self, body: Refuse) -> None:
        data = body.data
        self.refused.add(body)
        if isinstance(data, RefuseData):
            self.refusals[data.code] += 1
            self.reasons.setdefault(data.code, data.why)
            return
        for item in data.codes:
            self.refusals[item.code] += item.times
        if data.others:
            self.refusals[OTHERS[0]] += data.others

    def _study(self, rid: str, name: str) -> Study | None:
        if rid not in self.studies and len(self.studies) < MOST_STUDIES:
            self.studies[rid] = Study(rid, name)
        return self.studies.get(rid)

    def _purpose(self, name: str) -> MonthSpent:
        room = name in self.purposes or len(self.purposes) < MOST_ROWS
        return self.purposes.setdefault(name if room else OTHERS[0], MonthSpent())

    def _month(self, ts: int) -> MonthSpent:
        """Return the month of a time; after a thousand months, which no true ledger has, the last one takes the rest."""
        moment = EPOCH + timedelta(days=min(ts // MILLISECONDS_A_DAY, LAST_DAY))
        month = (moment.year, moment.month)
        if month not in self.months and len(self.months) >= MOST_MONTHS:
            month = max(self.months)
        return self.months.setdefault(month, MonthSpent())

    def _point(self, ts: int, state: State, *, always: bool = False) -> None:
        """Note how much is used; when the points become too many, every other one is dropped."""
        self._skipped += 1
        if state.limits is None or (self._skipped < self._stride and not always):
            return
        self._skipped = 0
        self.points.append(Point(ts, _shares(state)))
        if len(self.points) > MOST_POINTS:
            self.points = self.points[::2]
            self._stride *= 2


def _shares(state: State) -> tuple[float, float, float, float]:
    limits = state.limits
    assert limits is not None
    day, days = state.ts // MILLISECONDS_A_DAY, limits.period_days
    shares = []
    for name in ACCOUNTS:
        account = state.account(name)
        for bound, used in ((limits.life, account.life), (limits.period, account.all.spent(day, days))):
            shares.append(min(bound.share(used), 1.0))
    return (shares[0], shares[1], shares[2], shares[3])
