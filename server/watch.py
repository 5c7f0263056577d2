"""Watching a study from its journal: a live picture on a terminal, plain lines elsewhere, or the journal's own lines.

It reads the journal alone, so that it can be begun and left at any time, while the study runs, is interrupted, or is over.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server.events import (
    Delivered,
    Evaluated,
    Event,
    GrantsReceived,
    LeftOut,
    Published,
    Reported,
    Resumed,
    RosterSettled,
    RoundDone,
    RoundStarted,
    SetUpDone,
    SetUpStarted,
    StudySigned,
    SumRepeated,
    Witnessed,
)
from server.journal import JournalLine, Tail
from server.story import MemberStory, Story, told

PAUSE_SECONDS = 0.25
_BAR = 40
_KIB = 1024
_DASH = "–"

Ended = Callable[[], str | None]
"""Returns why nothing more will come, in a sentence ("" when there is nothing to say), or None while the study goes on."""


def no_longer() -> str | None:
    """Say that nothing more will come: for a look at what stands in the journal now."""
    return ""


def watch(
    path: Path,
    console: Console,
    *,
    ended: Ended = no_longer,
    as_json: bool = False,
    counts: bool = False,
    pause: float = PAUSE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Story:
    """Show a study until it ended, and return what its journal told.

    Parameters
    ----------
    path:
        The journal; it need not be there yet.
    console:
        A terminal is shown a picture that moves, anything else one line for each event.
    ended:
        Is asked at every look, `pause` seconds apart; what was written before is still shown.
    as_json:
        Pass the journal's lines on as they are.
    counts:
        The study is one of statistics, which counts and trains no model.

    Raises
    ------
    StorageError, IntegrityError
        CSL-S842, CSL-S841 when the journal cannot be read.
    """
    story, tail = Story(counts=counts), Tail(path)
    with _screen(console, as_json, now) as screen:
        while True:
            over = ended()
            for line in tail.read():
                story = told(story, line)
                screen.line(line, story)
            screen.look(story, over)
            if over is not None:
                return story
            sleep(pause)


class _Screen(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def line(self, line: JournalLine, story: Story) -> None: ...

    def look(self, story: Story, over: str | None) -> None: ...


def _screen(console: Console, as_json: bool, now: Callable[[], datetime]) -> _Screen:
    if as_json:
        return _Lines(console, lambda line, _: line.as_json(), say_end=False)
    if console.is_terminal:
        return _Picture(console, now)
    return _Lines(console, _plain, say_end=True)


class _Lines:
    """One line for each event, whole however long."""

    def __init__(self, console: Console, words: Callable[[JournalLine, Story], str | None], *, say_end: bool) -> None:
        self._out = console.file
        self._words = words
        self._say_end = say_end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.flush()

    def line(self, line: JournalLine, story: Story) -> None:
        text = self._words(line, story)
        if text is not None:
            self._out.write(f"{text}\n")

    def look(self, story: Story, over: str | None) -> None:
        if over and self._say_end:
            self._out.write(f"{over}\n")
        self._out.flush()


class _Picture:
    """A picture that is drawn anew at every look; the last one stays."""

    def __init__(self, console: Console, now: Callable[[], datetime]) -> None:
        self._now = now
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, line: JournalLine, story: Story) -> None:
        pass

    def look(self, story: Story, over: str | None) -> None:
        self._live.update(picture(story, over, self._now()), refresh=True)


def _plain(line: JournalLine, story: Story) -> str | None:
    text = words(line.event, of_report=story.reported is not None)
    return None if text is None else f"{line.ts:%Y-%m-%d %H:%M:%S}Z  {text}"


def words(event: Event, *, of_report: bool = False) -> str | None:
    """Return an event as one line for a person; None for one that the next says better. `of_report`: what is delivered is a report."""
    if isinstance(event, RoundStarted):
        return None
    sayers: dict[type[Event], Callable[..., str]] = {
        StudySigned: _signed,
        Resumed: lambda event: (
            f"goes on with study {event.name} ({event.study[:12]}) after round {event.after_round} of {event.rounds}"
        ),
        RosterSettled: _roster,
        GrantsReceived: _grants,
        LeftOut: lambda event: f"{event.phase}: {event.who} was left out: {event.code} {event.reason}",
        SetUpStarted: _setting_up,
        SetUpDone: _set_up,
        SumRepeated: _again,
        RoundDone: _round,
        Evaluated: _evaluation,
        Reported: lambda event: (
            f"report {event.name} is published: {event.path}; `consilience coordinator reports {event.name}` shows it"
        ),
        Published: lambda event: f"model {event.model[:12]} of {event.name} stands in the registry: {event.folder}",
        Delivered: _report_delivery if of_report else _delivery,
        Witnessed: _witnessed,
    }
    return sayers[type(event)](event)


def _signed(event: StudySigned) -> str:
    return f"study {event.name} signed: {event.study[:12]}, {_rounds(event.rounds)}; invited: {', '.join(event.members) or 'nobody'}"


def _roster(event: RosterSettled) -> str:
    missing = f"; not there: {', '.join(event.missing)}" if event.missing else ""
    return f"proved who they are: {', '.join(event.present) or 'nobody'}{missing}"


def _grants(event: GrantsReceived) -> str:
    granted = ", ".join(f"{name} ε {epsilon:g}" for name, epsilon in zip(event.granted, event.epsilons, strict=False))
    declined = f"; not granted: {', '.join(event.declined)}" if event.declined else ""
    return f"granted: {granted or 'by nobody'}{declined}"


def _setting_up(event: SetUpStarted) -> str:
    again = "" if event.attempt == 1 else f", attempt {event.attempt}"
    return f"agreeing on keys{again}: {', '.join(event.asked) or 'nobody'}"


def _set_up(event: SetUpDone) -> str:
    return f"{len(event.members)} members agreed on keys in {event.seconds:.2f} s: {', '.join(event.members)}"


def _again(event: SumRepeated) -> str:
    return f"{event.phase}: the sum is asked for again, because {event.reason}; nothing was opened"


def _round(event: RoundDone) -> str:
    left_out = f"; left out: {', '.join(event.left_out)}" if event.left_out else ""
    traffic = f"{_size(event.bytes_sent)} sent, {_size(event.bytes_received)} received"
    attempts = f" at attempt {event.attempts}" if event.attempts > 1 else ""
    answered = f"{len(event.answered)} answered in {event.seconds:.2f} s{attempts}"
    return f"round {event.round}/{event.rounds}: {answered}, {traffic}{left_out}"


def _evaluation(event: Evaluated) -> str:
    if event.auc is None or event.interval is None:
        return "evaluation: too few positives for the noise, so nothing is said"
    low, high = event.interval
    return f"evaluation: AUC {event.auc:.3f} ({low:.3f} to {high:.3f}), of {len(event.members)} members"


def _delivery(event: Delivered) -> str:
    agreed = "all hold the same model" if event.agreed else "they do NOT all hold the same model"
    return f"model delivered to {', '.join(event.receipts) or 'nobody'}; {agreed}"


def _report_delivery(event: Delivered) -> str:
    return f"report delivered to {', '.join(event.receipts) or 'nobody'}"


def _witnessed(event: Witnessed) -> str:
    by = ", ".join(("the coordinator", *event.witnesses))
    back = "" if event.returned else "; it did not take the witnessed head back"
    return f"ledger of {event.member} witnessed at {event.size} entries by {by}{back}"


def picture(story: Story, over: str | None, now: datetime) -> RenderableType:
    """Return a study as a terminal shows it; `over` as `Ended` returns it."""
    parts: list[RenderableType] = [_headline(story, over)]
    if story.rounds:
        parts += [_bar(story), _rounds_text(story, now)]
    members = story.members()
    if members:
        parts.append(_table(members, story))
    parts += [Text(f"{ts:%H:%M:%S}Z  {words(event)}", style="yellow") for ts, event in story.left_out]
    for event in (story.evaluated, story.published, story.reported, story.delivered):
        if event is not None:
            parts.append(Text(words(event, of_report=story.reported is not None) or ""))
    if over:
        parts.append(Text(over, style="bold"))
    return Group(*parts)


def _headline(story: Story, over: str | None) -> Text:
    if not story.study:
        return Text("The study has not begun yet." if over is None else "Nothing is known of this study.")
    stage = story.stage if over is None else f"{story.stage}; nothing more is coming"
    text = Text.assemble((story.name, "bold"), f"  {story.study[:12]}  {stage}")
    for ts, after_round in story.resumed:
        text.append(f"\nwent on after round {after_round} at {ts:%Y-%m-%d %H:%M:%S}Z", style="dim")
    return text


def _bar(story: Story) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=story.rounds, completed=story.rounds_done, width=_BAR)
    row.add_row(bar, f"{story.rounds_done}/{_rounds(story.rounds)}")
    return row


def _rounds_text(story: Story, now: datetime) -> Text:
    text = Text(f"{_size(story.bytes_sent)} sent, {_size(story.bytes_received)} received", style="dim")
    last, middle = story.last_round, story.median_seconds
    if last is not None and middle is not None:
        text.append(
            f" · round {last.round} took {last.seconds:.2f} s, median {middle:.2f} s by the coordinator's clock"
        )
    if story.repeated:
        text.append(f" · sums asked for again: {story.repeated}")
    if story.current is not None:
        ts, started = story.current
        waiting = max((now - ts).total_seconds(), 0.0)
        text.append(f"\nround {started.round}: {len(started.asked)} asked, {waiting:.0f} s ago")
    return text


def _table(members: list[MemberStory], story: Story) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    thing = "report" if story.counts else "model"
    for name in ("member", "there", "ε", "answered", "left out", thing, "witnesses", "last reason"):
        table.add_column(name, overflow="fold")
    for item in members:
        table.add_row(
            Text(item.member),
            _yes(item.present),
            "declined" if item.declined else _DASH if item.epsilon is None else f"{item.epsilon:g}",
            f"{item.answered}/{len(story.done)}",
            str(item.left_out or _DASH),
            _yes(item.holds_model),
            _DASH if item.witnesses is None else str(item.witnesses),
            Text(item.last or _DASH, style="yellow" if item.last else ""),
        )
    return table


def _rounds(number: int) -> str:
    return "1 round" if number == 1 else f"{number} rounds"


def _yes(value: bool | None) -> str:
    return _DASH if value is None else "yes" if value else "no"


def _size(value: int) -> str:
    """Write a number of bytes."""
    if value < _KIB:
        return f"{value} bytes"
    kib = value / _KIB
    return f"{kib:.0f} KiB" if kib < _KIB else f"{kib / _KIB:.1f} MiB"
