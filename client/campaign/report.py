"""The report of a campaign: each arm against the control group, overall and by stratum, and the model's choice against chance.

Everybody counts in the arm that she was drawn into, whether or not she was reached (intention to treat): only so are the groups alike.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.campaign import uplift
from client.campaign.draw import CONTROL
from client.campaign.record import CampaignRecord, Design
from client.campaign.store import Campaign, Outcomes
from client.campaign.uplift import Cell, CostPerExtra, Interval, Qini, Rate, Sample
from federation.errors import DataError

ALL_ARMS = "all arms"
FEW = 5
METHODS = (
    "Rates: difference with Newcombe's interval (1998, method 10). Spend and net: difference of means with Welch's interval. Cost for an "
    "extra conversion: Fieller's interval. Model against chance: difference of two differences (MOVER). Qini curve and AUUC: deciles "
    "weighted by population, bootstrap percentiles. All at 95%, each for itself: of twenty intervals one misses by chance."
)
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """One arm, or the control group: members at the draw, who withdrew since, whose outcome is unknown, and the mean score of the rest
    (alike in all groups, up to chance)."""

    name: str
    drawn: int
    withdrew: int
    unknown: int
    mean_score: float | None


@dataclass(frozen=True)
class Effect:
    """An arm against the control group. `uplift`, `visit` and `retained` are differences of rates, `spend` and `net` (spend less the cost
    of the contact) are of means a customer; None where the outcome is not known. `extra` is how many more converted than would have."""

    arm: str
    treated: Rate
    control: Rate
    uplift: Interval
    visit: Interval | None
    retained: Interval | None
    spend: Interval | None
    net: Interval | None
    extra: Interval
    cost: float
    cost_per_extra: CostPerExtra
    smallest_seen: float


@dataclass(frozen=True)
class Slice:
    """An effect within one stratum: `by` is `decile`, `segment` or `chosen by`."""

    by: str
    name: str
    effect: Effect


@dataclass(frozen=True)
class Contest:
    """Whether the model earned its place: the uplift among those whom it chose, less that among those whom chance chose."""

    model: Interval
    random: Interval
    advantage: Interval
    verdict: str


@dataclass(frozen=True)
class Report:
    """All of it; counts and rates of one institution's customers, for that institution alone."""

    campaign: str
    study: str
    status: str
    unit: str
    window: tuple[str, str, str]
    groups: tuple[Group, ...]
    effects: tuple[Effect, ...]
    slices: tuple[Slice, ...]
    contest: Contest | None
    qini: Qini | None
    notes: tuple[str, ...]
    methods: str = METHODS

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a value for JSON."""
        return asdict(self)

    def of(self, by: str) -> list[Slice]:
        """Return the strata of one kind."""
        return [item for item in self.slices if item.by == by]


@dataclass(frozen=True, eq=False)
class _Data:
    """The members whose outcome is known, as arrays [n]."""

    arm: NDArray[np.object_]
    by: NDArray[np.object_]
    decile: NDArray[np.int64]
    segment: NDArray[np.object_]
    outcomes: Outcomes
    design: Design

    @property
    def held(self) -> Mask:
        return np.asarray(self.arm == CONTROL, dtype=bool)


def report_of(campaign: Campaign) -> Report:
    """Compute a campaign's report.

    Raises
    ------
    DataError
        CSL-C793 while no outcomes are in, or when one of the groups has nobody whose outcome is known.
    """
    data = _data(campaign)
    names = [arm.name for arm in data.design.arms]
    everybody = np.ones(len(data.arm), dtype=bool)
    arms = [ALL_ARMS, *names] if len(names) > 1 else names
    effects = tuple(effect for name in arms if (effect := _effect(data, name, everybody)) is not None)
    if not effects or len(effects) < len(arms):
        raise _nothing("A group has nobody whose outcome is known.")
    record, window = campaign.record, data.design.window
    return Report(
        campaign=campaign.name,
        study=record.source.study,
        status=record.status,
        unit=data.design.unit,
        window=(window.contact_from.isoformat(), window.contact_until.isoformat(), window.outcome_until.isoformat()),
        groups=tuple(_groups(campaign)),
        effects=effects,
        slices=tuple(_slices(data, arms)),
        contest=_contest(data),
        qini=uplift.qini(_cells(data, record), _generator(data.design.seed)),
        notes=tuple(_notes(campaign, effects)),
    )


def _data(campaign: Campaign) -> _Data:
    if campaign.outcomes is None:
        raise _nothing("No outcomes are in.")
    known = campaign.outcomes.known
    members = [member for member, told in zip(campaign.members, known, strict=True) if told]
    return _Data(
        arm=np.array([member.arm for member in members], dtype=object),
        by=np.array([member.chosen_by for member in members], dtype=object),
        decile=np.array([member.decile for member in members], dtype=np.int64),
        segment=np.array([member.segment for member in members], dtype=object),
        outcomes=campaign.outcomes.take(known),
        design=campaign.record.design,
    )


def _effect(data: _Data, arm: str, where: Mask) -> Effect | None:
    """Compare an arm with the control group among the members of a mask; None where one of them has nobody there."""
    approached = where & (~data.held if arm == ALL_ARMS else np.asarray(data.arm == arm, dtype=bool))
    held = where & data.held
    if not approached.any() or not held.any():
        return None
    found = data.outcomes
    treated, control = _rate(found.conversion[approached]), _rate(found.conversion[held])
    costs = np.array([data.design.cost_of(str(name)) for name in data.arm[approached]])
    gap = uplift.difference(treated, control)
    return Effect(
        arm=arm,
        treated=treated,
        control=control,
        uplift=gap,
        visit=_rates(found.visit, approached, held),
        retained=_rates(found.retained, approached, held),
        spend=_means(found.spend[approached], found.spend[held]),
        net=_means(found.spend[approached] - costs, found.spend[held]),
        extra=Interval(treated.n * gap.estimate, treated.n * gap.low, treated.n * gap.high),
        cost=float(costs.sum()),
        cost_per_extra=uplift.cost_per_extra(float(costs.mean()), treated, control),
        smallest_seen=uplift.smallest_seen(treated.n, control),
    )


def _rate(flags: Floats) -> Rate:
    told = flags[~np.isnan(flags)]
    return Rate(int(told.sum()), len(told))


def _rates(flags: Floats, approached: Mask, held: Mask) -> Interval | None:
    treated, control = _rate(flags[approached]), _rate(flags[held])
    return uplift.difference(treated, control) if treated.n and control.n else None


def _means(approached: Floats, held: Floats) -> Interval | None:
    first, second = approached[~np.isnan(approached)], held[~np.isnan(held)]
    if min(len(first), len(second)) < 2:
        return None
    return uplift.mean_difference(Sample.of(first), Sample.of(second))


def _slices(data: _Data, arms: Sequence[str]) -> Iterator[Slice]:
    kinds: tuple[tuple[str, NDArray[Any]], ...] = (
        ("chosen by", data.by),
        ("decile", data.decile),
        ("segment", data.segment),
    )
    for kind, values in kinds:
        for value in sorted(set(values.tolist())):
            where = np.asarray(values == value, dtype=bool)
            for arm in arms:
                effect = _effect(data, arm, where)
                if effect is not None:
                    yield Slice(kind, str(value), effect)


def _contest(data: _Data) -> Contest | None:
    model = _effect(data, ALL_ARMS, np.asarray(data.by == "model", dtype=bool))
    chance = _effect(data, ALL_ARMS, np.asarray(data.by == "random", dtype=bool))
    if model is None or chance is None:
        return None
    gap = uplift.advantage(model.uplift, chance.uplift)
    verdict = "not shown: the difference may be chance"
    if gap.above_zero:
        verdict = "yes: approaching those whom the model chose changed more"
    if gap.below_zero:
        verdict = "no: approaching those whom chance chose changed more"
    return Contest(model.uplift, chance.uplift, gap, verdict)


def _cells(data: _Data, record: CampaignRecord) -> list[Cell]:
    """Return what the Qini curve is made of: for each way of being chosen and decile, how many could be chosen and what became of them."""
    cells = []
    for item in record.population:
        where = np.asarray((data.by == item.chosen_by) & (data.decile == item.decile), dtype=bool)
        treated, control = data.outcomes.conversion[where & ~data.held], data.outcomes.conversion[where & data.held]
        cells.append(Cell(item.decile, float(item.eligible), _rate(treated), _rate(control)))
    return cells


def _generator(seed: str) -> np.random.Generator:
    """The bootstrap's generator, keyed by the campaign's stated seed: the same report every time."""
    digest = hashlib.sha256(b"csl1/campaign/bootstrap\0" + seed.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _groups(campaign: Campaign) -> Iterator[Group]:
    assert campaign.outcomes is not None
    arm = np.array([member.arm for member in campaign.members], dtype=object)
    score = np.array([member.score for member in campaign.members], dtype=np.float64)
    for name, drawn in campaign.record.members.items():
        mine = np.asarray(arm == name, dtype=bool)
        known = mine & campaign.outcomes.known
        mean = float(score[known].mean()) if known.any() else None
        yield Group(name, drawn, drawn - int(mine.sum()), int(mine.sum() - known.sum()), mean)


def _notes(campaign: Campaign, effects: Sequence[Effect]) -> Iterator[str]:
    """Yield what a reader must know before she believes the figures."""
    record = campaign.record
    assert record.outcomes is not None
    if record.closed is None:
        yield "The campaign is not closed: outcomes may still change."
    for what, count in (record.outcomes.left_out | record.outcomes.noted).items():
        yield f"Left out or noted when the outcomes were read: {what}: {count:,}."
    if any(item.customers for item in record.overlaps):
        names = ", ".join(f"{item.campaign} ({item.customers:,})" for item in record.overlaps)
        yield f"Members are in other running campaigns as well: {names}. What those changed is mixed into this."
    if any(min(effect.treated.hits, effect.control.hits) < FEW for effect in effects):
        yield f"Fewer than {FEW} conversions in a group: intervals of means and of the Qini curve are too short there."
    gone = record.members
    lost = {name: drawn - sum(m.arm == name for m in campaign.members) for name, drawn in gone.items()}
    if any(lost.values()):
        yield "Members withdrew their consent since the draw, and were taken out; an approach itself can make people withdraw."
    if record.design.random_share == 0:
        yield "Nobody was drawn by chance, so that nothing tells whether the model earned its place."


def _nothing(why: str) -> DataError:
    return DataError(
        "CSL-C793",
        f"There is nothing to report. {why}",
        "Bring the outcomes in by `consilience node campaign outcomes`.",
    )
