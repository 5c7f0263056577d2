"""The strategy map: which customer is offered what, through which channel, in which words; the institution's own, editable YAML.

Rules stand in order and the first that fits decides: segment x life-cycle stage x band of the score -> product, channel, message. A
customer whom nobody placed, or whose segment the map does not list, is matched by `any` alone. What no rule decides, the default does;
a map without one is no map. Nothing here reads a customer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from client.home import Home
from federation.contract import Name, Text
from federation.document import Document, load_yaml
from federation.errors import DocumentError

FOLDER = "strategies"
ANY = "any"
NOTHING = "nothing"
UNPLACED = ""
DEFAULT = 0
"""Number of the default, where a rule's number is asked for; rules count from 1."""
_DECILES = 10
_SHOWN = 6

# What a segment or a stage is called is its report's affair: any short text.
Group = Annotated[str, Field(pattern=r"^\S(.{0,62}\S)?$")]
Wanted = Literal["any"] | Annotated[tuple[Group, ...], Field(min_length=1, max_length=50)]
Named = Annotated[tuple[Group, ...], Field(max_length=50)]
Cells = NDArray[np.bool_]


class ProbabilityBands(Document):
    """Bands by calibrated probability: name -> smallest probability, highest first; the last begins at 0."""

    kind: Literal["probability"]
    at_least: Annotated[dict[Name, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _falling(self) -> Self:
        limits = list(self.at_least.values())
        if limits[-1] != 0.0 or any(left <= right for left, right in pairwise(limits)):
            raise ValueError("bands must fall from the highest to one that begins at 0")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The bands' names, the highest first."""
        return tuple(self.at_least)

    def of(self, score: float, decile: int) -> str:
        """Return the band of a customer by her probability; the decile is not looked at."""
        return next(name for name, least in self.at_least.items() if score >= least)


class DecileBands(Document):
    """Bands by decile: name -> last decile in it, 1 (the highest tenth) to 10; for scores whose level is not to be trusted."""

    kind: Literal["decile"]
    up_to: Annotated[dict[Name, Annotated[int, Field(ge=1, le=10)]], Field(min_length=1, max_length=10)]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        limits = list(self.up_to.values())
        if limits[-1] != _DECILES or any(left >= right for left, right in pairwise(limits)):
            raise ValueError("bands must rise from the first deciles to one that ends at 10")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The bands' names, the highest first."""
        return tuple(self.up_to)

    def of(self, score: float, decile: int) -> str:
        """Return the band of a customer by her decile; the probability is not looked at."""
        return next(name for name, last in self.up_to.items() if decile <= last)


class NextAction(Document):
    """What to offer, through which channel, and the key of the message."""

    product: Name
    channel: Name
    message: Name


Then = NextAction | Literal["nothing"]


class Rule(Document):
    """One row of the map: whom it is for (`any`, or a list of names), and what happens then; `nothing` leaves her in peace."""

    segment: Wanted = "any"
    stage: Wanted = "any"
    band: Wanted = "any"
    then: Then
    why: Text | None = None


@dataclass(frozen=True)
class Decided:
    """What the map says of one customer: her band, the action (None: nothing), and the number of the rule, 0 for the default."""

    band: str
    action: NextAction | None
    rule: int


class Strategy(Document):
    """A strategy map for the scores of one contract. `products`, `channels` and `messages` say in words what their names mean."""

    title: Text
    contract: Name
    score: Literal["churn", "propensity"]
    segments: Named = ()
    stages: Named = ()
    bands: Annotated[ProbabilityBands | DecileBands, Field(discriminator="kind")]
    products: Annotated[dict[Name, Text], Field(max_length=500)]
    channels: Annotated[dict[Name, Text], Field(max_length=50)]
    messages: Annotated[dict[Name, Text], Field(max_length=1000)]
    rules: Annotated[tuple[Rule, ...], Field(max_length=200)]
    default: Then

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for what, names in (("segments", self.segments), ("stages", self.stages), ("bands", self.bands.names)):
            if len(set(names)) != len(names) or ANY in names:
                raise ValueError(f'{what} must be distinct, and none may be called "{ANY}"')
        return self

    @cached_property
    def _known(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(self.segments), frozenset(self.stages)

    def knows(self, segment: str, stage: str) -> bool:
        """Return whether the map lists both; who was not placed is known as such."""
        segments, stages = self._known
        return (segment in segments or segment == UNPLACED) and (stage in stages or stage == UNPLACED)

    def decide(self, segment: str, stage: str, score: float, decile: int) -> Decided:
        """Return what the first rule that fits says.

        Parameters
        ----------
        segment, stage:
            Where the customer was placed; empty, or a name that the map does not list, fits `any` alone.
        score, decile:
            Her calibrated probability, and her tenth, 1 to 10.
        """
        band = self.bands.of(score, decile)
        for number, rule in enumerate(self.rules, start=1):
            wanted = ((rule.segment, segment), (rule.stage, stage), (rule.band, band))
            if all(names == ANY or own in names for names, own in wanted):
                return Decided(band, _action(rule.then), number)
        return Decided(band, _action(self.default), DEFAULT)


@dataclass(frozen=True)
class Finding:
    """Something about a map: a `fault` keeps it from being used, a `note` is for its author to look at."""

    kind: Literal["fault", "note"]
    what: Literal["unknown name", "unreachable", "overlap", "gap", "unused"]
    rules: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Checked:
    """A map looked through: findings, faults first, and how many of the `cells` (segment x stage x band) each number decides."""

    findings: tuple[Finding, ...]
    decides: tuple[int, ...]
    cells: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that keep the map from being used."""
        return tuple(item for item in self.findings if item.kind == "fault")


def check_strategy(strategy: Strategy) -> Checked:
    """Look a map through on every combination of segment, stage and band, those of customers whom nobody placed among them.

    Faults are names that the map does not define, and rules that never decide because earlier ones match all that they match. Notes are
    overlaps of rules that contend (an exception before its general rule does not), combinations of listed names that only the default
    decides, and names that no rule uses. `decides` holds the default first, then each rule.
    """
    axes = ((*strategy.segments, UNPLACED), (*strategy.stages, UNPLACED), strategy.bands.names)
    matches = [_cells(rule, axes) for rule in strategy.rules]
    first = np.zeros([len(axis) for axis in axes], dtype=np.int64)
    for number in range(len(matches), 0, -1):
        first[matches[number - 1]] = number
    decides = np.bincount(first.reshape(-1), minlength=len(matches) + 1)
    findings = [
        *_unknown(strategy),
        *_unreachable(matches, first),
        *_overlaps(strategy, matches, decides, axes),
        *_gaps(first == DEFAULT, axes),
        *_unused(strategy),
    ]
    ordered = sorted(findings, key=lambda item: item.kind != "fault")
    return Checked(tuple(ordered), tuple(int(count) for count in decides), first.size)


def load_strategy(path: Path) -> Strategy:
    """Read a map and refuse one with faults.

    Raises
    ------
    DocumentError
        CSL-C763 with every fault at once; CSL-F103 to F105 as `federation.document.load_yaml`.
    """
    strategy = load_yaml(path, Strategy)
    faults = check_strategy(strategy).faults
    if faults:
        listing = "\n".join(f"  {fault.text}" for fault in faults)
        raise DocumentError(
            "CSL-C763",
            f"The strategy map {path} has {_many(len(faults), 'fault')}:\n{listing}",
            "Correct it, and look it through by `consilience node strategy check`.",
        )
    return strategy


def strategy_of(home: Home, contract: str) -> Strategy | None:
    """Read the home's map for a contract, `strategies/<contract>.yaml`; None where there is none.

    Raises
    ------
    DocumentError
        CSL-C764 when the file is a map for another contract; as `load_strategy`.
    """
    path = home.root / FOLDER / f"{contract}.yaml"
    if not path.exists():
        return None
    strategy = load_strategy(path)
    if strategy.contract != contract:
        raise DocumentError(
            "CSL-C764",
            f"{path} is a map for scores of {strategy.contract}, not of {contract}.",
            f"Let its `contract` say {contract}, or rename the file.",
        )
    return strategy


def in_words(names: Wanted) -> str:
    """Return what a rule wants on one axis, for a person."""
    return names if isinstance(names, str) else " or ".join(names)


def _action(then: Then) -> NextAction | None:
    return then if isinstance(then, NextAction) else None


def _cells(rule: Rule, axes: tuple[tuple[str, ...], ...]) -> Cells:
    """Return the combinations that a rule matches, bool [segments + 1, stages + 1, bands]."""
    wanted = (rule.segment, rule.stage, rule.band)
    masks = [
        np.array([names == ANY or name in names for name in axis]) for names, axis in zip(wanted, axes, strict=True)
    ]
    cells: Cells = masks[0][:, None, None] & masks[1][None, :, None] & masks[2][None, None, :]
    return cells


def _unknown(strategy: Strategy) -> Iterator[Finding]:
    lists = {"segment": strategy.segments, "stage": strategy.stages, "band": strategy.bands.names}
    for number, rule in enumerate(strategy.rules, start=1):
        for axis, known in lists.items():
            names = getattr(rule, axis)
            for name in () if names == ANY else names:
                if name not in known:
                    yield _fault_of_name(number, axis, name)
        yield from _unknown_action(strategy, number, rule.then)
    yield from _unknown_action(strategy, DEFAULT, strategy.default)


def _unknown_action(strategy: Strategy, number: int, then: Then) -> Iterator[Finding]:
    if isinstance(then, NextAction):
        tables = {"product": strategy.products, "channel": strategy.channels, "message": strategy.messages}
        for axis, known in tables.items():
            if getattr(then, axis) not in known:
                yield _fault_of_name(number, axis, getattr(then, axis))


def _fault_of_name(number: int, axis: str, name: str) -> Finding:
    where = "The default" if number == DEFAULT else f"Rule {number}"
    return Finding("fault", "unknown name", (number,), f"{where}: the map has no {axis} {name}.")


def _unreachable(matches: list[Cells], first: NDArray[np.int64]) -> Iterator[Finding]:
    for number, own in enumerate(matches, start=1):
        before = tuple(int(n) for n in np.unique(first[own]))
        if before and number not in before:  # what matches nothing names something unknown, which is said already
            names = f"rule {before[0]}" if len(before) == 1 else f"rules {', '.join(str(n) for n in before)}"
            text = f"Rule {number} never decides: {names} before it take all that it matches."
            yield Finding("fault", "unreachable", (number, *before), text)


def _overlaps(
    strategy: Strategy, matches: list[Cells], decides: NDArray[np.int64], axes: tuple[tuple[str, ...], ...]
) -> Iterator[Finding]:
    """Find pairs of rules that contend: they share combinations, say different things, and neither is the other's exception.

    A later rule that lies around an earlier one, or leaves open an axis that the earlier names and names none besides, is its fallback:
    the usual way to write a map.
    """
    for later, rule in enumerate(strategy.rules, start=1):
        for earlier, before in enumerate(strategy.rules[: later - 1], start=1):
            if rule.then == before.then or _axes_of(rule) < _axes_of(before):
                continue
            one, two = matches[earlier - 1], matches[later - 1]
            shared = one & two
            partly = shared.any() and (one & ~two).any() and (two & ~one).any()
            if partly and decides[later] and decides[earlier]:
                text = (
                    f"Rules {earlier} and {later} both match {_many(int(shared.sum()), 'combination')}, such as "
                    f"{next(_listed(shared, axes))}; rule {earlier} comes first."
                )
                yield Finding("note", "overlap", (earlier, later), text)


def _axes_of(rule: Rule) -> frozenset[str]:
    """Return the axes on which a rule names something."""
    return frozenset(axis for axis in ("segment", "stage", "band") if getattr(rule, axis) != ANY)


def _gaps(left: Cells, axes: tuple[tuple[str, ...], ...]) -> Iterator[Finding]:
    """Find combinations of listed names that no rule matches; of an axis without names, the one place there is counts."""
    inner = left[: max(1, len(axes[0]) - 1), : max(1, len(axes[1]) - 1)]
    names = tuple(axis[: max(1, len(axis) - 1)] for axis in axes[:2]) + (axes[2],)
    if not inner.any():
        return
    found = list(_listed(inner, names))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    yield Finding(
        "note", "gap", (DEFAULT,),
        f"Only the default decides {len(found)} of {inner.size} combinations: {'; '.join(found[:_SHOWN])}{more}.",
    )  # fmt: skip


def _unused(strategy: Strategy) -> Iterator[Finding]:
    used = [
        then for then in (*(rule.then for rule in strategy.rules), strategy.default) if isinstance(then, NextAction)
    ]
    tables = {"product": strategy.products, "channel": strategy.channels, "message": strategy.messages}
    for axis, known in tables.items():
        idle = [name for name in known if name not in {getattr(then, axis) for then in used}]
        if idle:
            yield Finding("note", "unused", (), f"No rule uses the {axis} {', '.join(idle)}.")


def _listed(cells: Cells, axes: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    for place in np.argwhere(cells):
        yield " / ".join(axis[at] or "not placed" for axis, at in zip(axes, place, strict=True))


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
