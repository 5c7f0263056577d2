"""What `study` and `query` do alike: keep a draft, say that its study is wanted, watch it to its end."""

import re
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console

from federation.drafts import AnyDraft
from federation.errors import DocumentError, ExitCode, FederationError
from federation.files import atomic_write
from federation.service_state import is_running
from federation.statistics import StatisticsDraft
from server.events import Delivered, Published, Reported
from server.home import CoordinatorHome
from server.journal import read_journal
from server.registry import Registry
from server.service.studies import StudyBook, StudyRecord
from server.statistics.reports import ReportBook
from server.watch import watch


def keep_draft(place: CoordinatorHome, draft: AnyDraft, file: Path) -> Path:
    """Keep a checked draft under studies/, as it was written, and return where.

    Raises
    ------
    FederationError
        CSL-S805 when a study of this name is not finished, and the draft is another.
    """
    kept = place.root / "studies" / f"{draft.name}.yaml"
    content = file.read_bytes()
    if kept.exists() and kept.read_bytes() != content and _is_begun(place, draft.name):
        raise FederationError(
            "CSL-S805",
            f"The study {draft.name} is not finished, and {file} is another draft than the one it was begun with.",
            "Give the new draft another name; or stop the study and delete its file under checkpoints/, which gives it up.",
        )
    another = _differs(place, draft)
    # the draft first: a crash in between then leaves a study that asks for --again, and not one that costs budget unasked
    atomic_write(kept, content)
    if another:
        StudyBook(place.root).forget_delivered(draft.name)
    return kept


def want_study(
    place: CoordinatorHome,
    name: str,
    *,
    again: bool = False,
    keep_trying: bool = False,
    roster_seconds: float,
    grant_seconds: float,
) -> str:
    """Write down that a study whose draft is kept is to run, and return what a person is told.

    Raises
    ------
    FederationError
        CSL-S804 when it is finished, unless `again` says that it may cost budget anew.
    """
    book = StudyBook(place.root)
    known = book.read(name)
    done = None if again else _finished_name(place, book, name)
    if done is not None:
        raise FederationError(
            "CSL-S804",
            f"The study {name} is finished: it gave {done}.",
            f"To learn anew, from today's data, use `study start {name} --again`: every institution then pays from its budget once more.",
        )
    runs_already = known is not None and known.wanted == "running" and not known.over
    book.want(name, keep_trying=keep_trying, roster_seconds=roster_seconds, grant_seconds=grant_seconds)
    lines = [f"{name}: {'is wanted already' if runs_already else 'wanted from now on'}."]
    if not is_running(place.run):
        lines.append("The service does not run; it begins with this study at `consilience coordinator start`.")
    return "\n".join(lines)


def _is_begun(place: CoordinatorHome, name: str) -> bool:
    record = StudyBook(place.root).read(name)
    wanted = record is not None and record.wanted == "running"
    return wanted or (place.root / "checkpoints" / f"{name}.checkpoint").exists()


def _differs(place: CoordinatorHome, draft: AnyDraft) -> bool:
    """Whether the draft kept under this name says something else; one that is gone or damaged says nothing."""
    try:
        return place.draft(draft.name) != draft
    except DocumentError:
        return False


def _finished_name(place: CoordinatorHome, book: StudyBook, name: str) -> str | None:
    """Return the model or report of a finished study; None where `start` begins a first one or goes on with one.

    Where the record is lost and no checkpoint says that there is something to go on with, journal, registry and reports tell.
    """
    known = book.read(name)
    if known is not None:
        return (known.delivered or "what is published here") if known.state == "finished" else None
    if _is_begun(place, name):
        return None
    published = [*Registry(place.registry).names(), *ReportBook(place.reports).names()]
    models = [found for found in published if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{12}}", found)]
    return ", ".join(models) or _delivered_name(book.journal(name))


def _delivered_name(path: Path) -> str | None:
    """Return the last model or report that a journal says was delivered."""
    published = delivered = None
    for line in read_journal(path) if path.exists() else ():
        if isinstance(line.event, Published | Reported):
            published = line.event.name
        elif isinstance(line.event, Delivered):
            delivered = published or "no longer named"
    return delivered


def counts(place: CoordinatorHome, name: str) -> bool | None:
    """Whether the draft that is kept under a name asks for statistics; None where it is gone or cannot be read."""
    try:
        return isinstance(place.draft(name), StatisticsDraft)
    except DocumentError:
        return None


def watch_study(place: CoordinatorHome, name: str, as_json: bool) -> None:
    """Watch a study until it ends; exit with the federation's code where it did not finish."""
    book = StudyBook(place.root)
    if book.read(name) is None:
        raise FederationError(
            "CSL-S802", f"The study {name} was never started.", "See `coordinator study list` for its name."
        )
    # soft_wrap keeps a line whole where the output is a file
    watch(
        book.journal(name),
        Console(soft_wrap=True),
        ended=_ended(place, book, name),
        as_json=as_json,
        counts=bool(counts(place, name)),
    )
    record = book.read(name)
    if record is not None and record.state != "finished":
        raise typer.Exit(int(ExitCode.FEDERATION))


def _ended(place: CoordinatorHome, book: StudyBook, name: str) -> Callable[[], str | None]:
    def ended() -> str | None:
        record = book.read(name)
        if record is None:
            return "It is no longer known here."
        if record.over:
            return _sentence(record)
        if not is_running(place.run):
            return "The service does not run; `consilience coordinator start` goes on with this study."
        return None

    return ended


def _sentence(record: StudyRecord) -> str:
    code = f"{record.code}  " if record.code else ""
    return f"{code}{record.state}: {record.reason}"
