"""Whom a campaign may be drawn from: today's ranking of those who agreed to be contacted, less those whom other campaigns hold."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from client.campaign import store
from client.campaign.draw import CONTROL, Candidate, Member, draw, strata_of
from client.campaign.record import OTHER, SEGMENTS, CampaignRecord, Design, Drawn, Overlap, Source
from client.campaign.store import Campaign
from client.consent import Excluded
from client.names import Listed
from client.placed import OWN_TABLE, Placements
from federation.errors import DataError, PolicyError, StorageError

_NOT_YET = "0" * 64
OverlapRule = Literal["refuse", "allow", "leave out"]


@dataclass(frozen=True)
class Frame:
    """What a draw is made from. `ranked` is everybody who may be contacted today, `listed` the identifiers on the model's list, in
    words `listed_by`; `segments` maps customers to segments, by what `placed_by` says (empty for nothing); `running` is the other open
    campaigns' members."""

    study: str
    model: str
    ranked: Sequence[Listed]
    listed: frozenset[str]
    listed_by: str
    segments: Mapping[str, str]
    placed_by: str
    running: Mapping[str, frozenset[str]]


def running(folder: Path, store_key: bytes, excluded: Excluded | None) -> dict[str, frozenset[str]]:
    """Return the members, control groups included, of every campaign that is not closed. Raises as `store.read_campaign`."""
    found = {}
    for stem in store.stems(folder):
        if store.read_record(folder, stem, store_key).closed is None:
            campaign = store.read_campaign(folder, stem, store_key, whole=False).without(excluded)
            found[campaign.name] = frozenset(member.customer for member in campaign.members)
    return found


def draw_campaign(design: Design, frame: Frame, rule: OverlapRule, when: datetime) -> Campaign:
    """Draw a campaign's members and write its record; stores nothing.

    Raises
    ------
    DataError
        CSL-C783 when too few may be approached.
    PolicyError
        CSL-C784 when members are in another running campaign and the rule is to refuse.
    DocumentError
        As `Window.check_after`.
    """
    design.window.check_after(when.date())
    busy = frozenset[str]().union(*frame.running.values()) if rule == "leave out" else frozenset[str]()
    free = [line for line in frame.ranked if line.customer not in busy]
    candidates = [
        Candidate(
            line.customer,
            line.score,
            line.decile,
            frame.segments.get(line.customer, OTHER),
            line.customer in frame.listed,
        )
        for line in free
    ]
    members = draw(candidates, design.shares, design.random_share, design.name, design.seed)
    overlaps = tuple(_overlaps({member.customer for member in members}, frame.running))
    if overlaps and rule == "refuse":
        raise _overlap(overlaps)
    source = Source(
        study=frame.study,
        model=frame.model,
        listed_by=frame.listed_by,
        eligible=len(candidates),
        not_eligible=len(frame.listed - {line.customer for line in frame.ranked}),
        elsewhere=len(frame.ranked) - len(free),
        placed_by=frame.placed_by,
    )
    record = _record(design, source, candidates, members, overlaps, when)
    return Campaign(store.stem_of(design.name, design.window.outcome_until), record, members)


def check_name(folder: Path, name: str) -> None:
    """Refuse a name that a campaign has.

    Raises
    ------
    StorageError
        CSL-C781.
    """
    if any(store.name_of(stem) == name for stem in store.stems(folder)):
        raise StorageError(
            "CSL-C781", f"There is a campaign {name}.", "Choose another name: a campaign is drawn once and never again."
        )


def segments_of(placements: Placements, customers: Iterable[str]) -> dict[str, str]:
    """Return customers' segments by the contract's names; whom nobody placed, or rules place in a segment of another name, is `other`.

    Raises
    ------
    DataError
        CSL-C794 when a table of one's own names a segment that the contract does not have.
    """
    found = {customer: placements.place(customer).segment for customer in customers}
    strange = sum(bool(segment) and segment not in SEGMENTS for segment in found.values())
    if strange and placements.placed_by == OWN_TABLE:
        raise DataError(
            "CSL-C794",
            f"The table of segments places {strange} customers in a segment that the campaign contract does not have.",
            f"Take the contract's segments, or leave the cell empty: {', '.join(SEGMENTS)}.",
        )
    return {customer: segment if segment in SEGMENTS else OTHER for customer, segment in found.items()}


def listed_by_list(stem: str) -> str:
    """Return how a record says that the model's list was a name list."""
    return f"name list {stem}"


def listed_by_rank(top: int) -> str:
    """Return how a record says that the model's list was the head of the ranking."""
    return f"the first {top:,} of the ranking on the day of the draw"


def head(ranked: Iterable[Listed], top: int) -> frozenset[str]:
    """Return the identifiers of the first of a ranking."""
    return frozenset(line.customer for line in ranked if line.rank <= top)


def _record(
    design: Design,
    source: Source,
    candidates: Sequence[Candidate],
    members: Sequence[Member],
    overlaps: tuple[Overlap, ...],
    when: datetime,
) -> CampaignRecord:
    counts = Counter(member.arm for member in members)
    strata = sorted(strata_of(candidates).items())
    return CampaignRecord(
        design=design,
        drawn=when.isoformat(timespec="seconds"),
        source=source,
        population=tuple(Drawn(chosen_by=by, decile=decile, eligible=count) for (by, decile), count in strata),
        members={name: counts[name] for name in (*design.shares, CONTROL)},
        overlaps=overlaps,
        sha256=_NOT_YET,
    )


def _overlaps(members: Collection[str], others: Mapping[str, frozenset[str]]) -> Iterable[Overlap]:
    for name, busy in sorted(others.items()):
        count = len(busy.intersection(members))
        if count:
            yield Overlap(campaign=name, customers=count)


def _overlap(overlaps: Sequence[Overlap]) -> PolicyError:
    names = ", ".join(f"{item.campaign} ({item.customers:,})" for item in overlaps)
    return PolicyError(
        "CSL-C784",
        f"Customers of this draw are in other running campaigns: {names}. What those change would be mixed into this one.",
        "Close the others, draw from the rest by --leave-out-running, or accept it by --allow-overlap, which the record notes.",
    )
