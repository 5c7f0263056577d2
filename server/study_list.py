"""The list of studies: how far each is, with how many members, since when, and why it is not running."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from federation.errors import ConsilienceError
from server.home import CoordinatorHome
from server.journal import read_journal
from server.service.studies import StudyBook, StudyRecord
from server.story import Story, told
from server.study_desk import counts


def study_rows(place: CoordinatorHome) -> list[dict[str, Any]]:
    """Return a row for every study that is kept or was ever started, by name."""
    book = StudyBook(place.root)
    return [_row(place, book, name) for name in sorted({*_drafts(place), *book.names()})]


def _drafts(place: CoordinatorHome) -> list[str]:
    return [path.stem for path in (place.root / "studies").glob("*.yaml")]


def _row(place: CoordinatorHome, book: StudyBook, name: str) -> dict[str, Any]:
    statistics = counts(place, name)
    kind = None if statistics is None else "statistics" if statistics else "training"
    fields = {"study": name, "kind": kind}
    try:
        record, story = book.read(name), _story(book.journal(name), statistics)
    except ConsilienceError as error:
        return fields | _fields("damaged", None, Story(), f"{error.code}  {error.cause}")
    if record is None:
        return fields | _fields("proposed", None, Story(), "")
    stage = f" ({story.stage})" if record.state == "running" and story.study else ""
    reason = "" if record.state in ("running", "starting") else " ".join(filter(None, (record.code, record.reason)))
    given = _fields(f"{record.state}{stage}", record.since, story, reason, record)
    if statistics:  # what is delivered is a report, and no model
        given["model"], given["report"] = None, record.delivered
    return fields | given


def _fields(
    state: str, since: float | None, story: Story, reason: str, record: StudyRecord | None = None
) -> dict[str, Any]:
    members = story.members()
    moment = None if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return {
        "state": state,
        "wanted": None if record is None else record.wanted,
        "round": story.rounds_done,
        "rounds": story.rounds,
        "members": [item.member for item in members if item.present],
        "granted": sum(item.epsilon is not None for item in members),
        "since": moment,
        "reason": reason,
        "model": None if record is None else record.delivered,
        "report": None,
    }


def _story(path: Path, statistics: bool | None) -> Story:
    story = Story(counts=bool(statistics))
    if path.exists():
        for line in read_journal(path):
            story = told(story, line)
    return story


def study_table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows of `study_rows` as a terminal shows them."""
    table = Table(box=None, pad_edge=False)
    for title in ("study", "state", "round", "members", "since (UTC)"):
        table.add_column(title, no_wrap=title == "study")
    table.add_column("why", overflow="fold")
    for row in rows:
        done = f"{row['round']}/{row['rounds']}" if row["rounds"] else ""
        since = "" if row["since"] is None else row["since"].removesuffix("+00:00").replace("T", " ")
        members = str(len(row["members"]) or "")
        table.add_row(*(Text(text) for text in (row["study"], row["state"], done, members, since, row["reason"])))
    return table
