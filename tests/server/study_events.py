"""Events and journals of made-up studies, for tests of what is written and shown of them."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hypothesis import strategies as st

from server.events import (
    Delivered,
    Evaluated,
    Event,
    GrantsReceived,
    LeftOut,
    Published,
    RosterSettled,
    RoundDone,
    RoundStarted,
    SetUpDone,
    SetUpStarted,
    StudySigned,
    SumRepeated,
    Witnessed,
)
from server.journal import Journal

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MEMBERS = ("east", "north", "south")
PUBLISHED = Published("churn_1", Path("/registry/churn_1"), "cd" * 32)


class Ticking:
    """A clock that goes on by a second at every look."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> datetime:
        self.seconds += 1
        return START + timedelta(seconds=self.seconds)


def round_done(number: int, rounds: int, seconds: float = 0.25, left_out: tuple[str, ...] = ()) -> RoundDone:
    answered = tuple(name for name in MEMBERS if name not in left_out)
    return RoundDone(number, rounds, answered, left_out, seconds, 1024, 2048)


def beginning(rounds: int, study: str = "ab" * 32) -> list[Event]:
    return [
        StudySigned("churn", study, rounds, (*MEMBERS, "west")),
        LeftOut("roster", 0, "node 99", "CSL-S301", "did not prove to be a member of this charter"),
        RosterSettled(MEMBERS, ("west",)),
        GrantsReceived(MEMBERS, (1.0, 2.5, 0.5), ()),
    ]


def ending() -> list[Event]:
    return [
        Evaluated(MEMBERS, 0.7, (0.65, 0.75)),
        PUBLISHED,
        Delivered(("east", "north"), True),
        Witnessed("east", 9, ("north", "south"), True),
        Witnessed("north", 12, ("east",), True),
        Witnessed("south", 3, (), False),
    ]


def whole(rounds: int = 3) -> list[Event]:
    """A study whose second round `south` misses."""
    middle: list[Event] = []
    for number in range(1, rounds + 1):
        missing = ("south",) if number == 2 else ()
        middle.append(RoundStarted(number, rounds, MEMBERS))
        middle += [LeftOut("round 2", 2, name, "CSL-S202", "did not answer within 60 seconds") for name in missing]
        middle.append(round_done(number, rounds, number / 2, missing))
    return [*beginning(rounds), *middle, *ending()]


def secure(rounds: int = 2) -> list[Event]:
    """A study that is added up in secret: its keys take two attempts, and so does its second round."""
    middle: list[Event] = [
        SetUpStarted(1, MEMBERS),
        LeftOut("set-up", 0, "south", "CSL-S202", "did not answer within 60 seconds"),
        SetUpStarted(2, MEMBERS[:2]),
        SetUpDone(MEMBERS[:2], 2, 61.5),
        RoundStarted(1, rounds, MEMBERS[:2]),
        round_done(1, rounds, left_out=("south",)),
        RoundStarted(2, rounds, MEMBERS[:2]),
        SumRepeated("round 2", 2, 1, "1 members are ready; 2 are needed"),
        RoundDone(2, rounds, MEMBERS[:2], (), 0.5, 1024, 2048, 2),
    ]
    return [*beginning(rounds), *middle, *ending()]


def write(path: Path, events: list[Event]) -> Path:
    journal = Journal(path, Ticking())
    for event in events:
        journal(event)
    return path


def _values(hint: Any) -> st.SearchStrategy[Any]:
    text = st.text(max_size=30)
    numbers = st.floats(allow_nan=False)
    known: dict[Any, st.SearchStrategy[Any]] = {
        str: text,
        int: st.integers(-(2**80), 2**80),
        float: numbers,
        bool: st.booleans(),
        Path: text.filter(lambda item: "\0" not in item).map(Path),
        tuple[str, ...]: st.lists(text, max_size=4).map(tuple),
        tuple[float, ...]: st.lists(numbers, max_size=4).map(tuple),
        float | None: st.none() | numbers,
        tuple[float, float] | None: st.none() | st.tuples(numbers, numbers),
    }
    return known[hint]


def _events(kind: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{item.name: _values(hints[item.name]) for item in fields(kind)})


EVENTS: st.SearchStrategy[Event] = st.one_of([_events(kind) for kind in get_args(Event)])
