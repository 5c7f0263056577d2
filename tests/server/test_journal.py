import errno
import json
import os
import stat
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import IntegrityError, StorageError
from server.coordinator import run_study
from server.events import Event, Published, RoundDone, StudySigned
from server.journal import SUFFIX, Journal, JournalLine, Tail, decode, follow, read_journal
from server.story import Story, told
from tests.server.fakes import ROUNDS, FakeFederation, draft, short
from tests.server.study_events import EVENTS, START, Ticking, whole, write


@given(EVENTS, st.datetimes(timezones=st.just(UTC)))
def test_any_event_comes_back_as_it_was(event: Event, moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    line = JournalLine(moment, event)
    text = line.as_json()
    assert decode(text) == line and type(decode(text).event) is type(event)
    assert "\n" not in text and text.isascii()
    known = json.loads(text)
    assert known["ts"].endswith("Z") and known["event"] == type(event).__name__


@settings(max_examples=25)
@given(st.lists(EVENTS, min_size=1, max_size=4), st.data())
def test_a_torn_line_is_passed_over_and_taken_off(events: list[Event], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"churn{SUFFIX}", events)
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        torn = data.draw(st.sampled_from([b"", b"\0" * 70_000]))  # some disks leave zeros behind
        path.write_bytes(content[:cut] + torn)
        whole_lines = content[:cut].count(b"\n")
        assert [line.event for line in read_journal(path)] == events[:whole_lines]
        Journal(path, Ticking())(events[0])
        assert [line.event for line in read_journal(path)] == [*events[:whole_lines], events[0]]


def test_it_is_its_owners_and_on_the_disk_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor))[1])
    path = write(tmp_path / "x.jsonl", whole())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(synced) == len(whole()) + 1  # and the folder once
    lines = read_journal(path)
    assert [line.event for line in lines] == whole()
    assert (lines[0].ts - START).total_seconds() == 1


def test_two_writers_never_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    threads = [threading.Thread(target=write, args=(path, whole(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_journal(path)) == 4 * len(whole(10))


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.jsonl", whole())
    before, real, calls = path.read_bytes(), os.write, []

    def full(descriptor: int, content: bytes) -> int:
        calls.append(content)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content[:7])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="CSL-S840.*No space left"):
            Journal(path)(whole()[0])
    assert path.read_bytes() == before
    with pytest.raises(StorageError, match="CSL-S840"):
        Journal(tmp_path / "no" / "x.jsonl")(whole()[0])


LINE = '{"ts": "2026-03-01T12:00:00.000Z", "event": "Delivered", "receipts": [], "agreed": true}'


def test_damage_before_the_end_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for bad in (
        "",
        "{}",
        "[]",
        "7",
        '"ts"',
        "{",
        LINE.replace("true", "1"),
        LINE.replace("[]", "null"),
        LINE.replace("2026", "x"),
    ):
        path.write_text(f"{LINE}\n{bad}\n{LINE}\n")
        tail = Tail(path)
        for _ in range(2):
            with pytest.raises(IntegrityError, match=r"CSL-S841.*line 2:"):
                tail.read()


def test_what_a_later_release_adds_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(LINE.replace("Delivered", "Celebrated") + "\n" + LINE.replace("true", 'true, "mood": 1') + "\n")
    (line,) = read_journal(path)
    assert line.event.agreed is True  # type: ignore[union-attr]


def test_paths_that_are_no_text_do_not_stop_a_study(tmp_path: Path) -> None:
    event = Published("churn", Path(os.fsdecode(b"/home/\xff")), "ab")
    (line,) = read_journal(write(tmp_path / "x.jsonl", [event]))
    assert isinstance(line.event, Published) and line.event.folder == Path("/home/?")


def test_a_journal_that_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "x.jsonl", tmp_path / "file" / "x.jsonl"):
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="CSL-S842"):
            read_journal(path)
    with pytest.raises(StorageError, match="CSL-S842"):
        read_journal(tmp_path)
    with pytest.raises(StorageError, match="CSL-S842"):
        Tail(tmp_path).read()


def test_following_yields_what_comes_and_what_came_last(tmp_path: Path) -> None:
    path, events = tmp_path / "x.jsonl", whole()
    journal, left = Journal(path, Ticking()), list(events)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) > 1:
            journal(left.pop(0))
            with path.open("ab") as handle:  # the next writer tears nothing of ours
                handle.write(b'{"ts"')

    def stop() -> bool:
        if len(left) == 1:
            journal(left.pop(0))
        return not left

    found = [line.event for line in follow(path, stop, sleep=sleep)]
    assert found == events and looks[0] == 0.2


def test_a_journal_in_anothers_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", whole())
    tail = Tail(path)
    assert len(tail.read()) == len(whole()) and tail.read() == []
    path.unlink()
    assert tail.read() == []
    write(path, whole()[:2])
    assert [type(line.event) for line in tail.read()][0] is StudySigned


def test_a_study_that_is_interrupted_and_goes_on_stands_in_one_journal(tmp_path: Path) -> None:
    federation = FakeFederation.make(tmp_path)
    path = tmp_path / f"churn{SUFFIX}"
    journal = Journal(path)

    def run(stop: type | None) -> None:
        def on_event(event: Event) -> None:
            journal(event)
            if stop is not None and isinstance(event, stop):
                raise KeyboardInterrupt

        with federation.grid(None) as grid:
            run_study(grid, draft(), federation.office, derive=short(), on_event=on_event)

    with pytest.raises(KeyboardInterrupt):
        run(RoundDone)
    run(None)
    story = Story()
    for line in read_journal(path):
        story = told(story, line)
    assert (story.rounds_done, len(story.done), len(story.resumed)) == (ROUNDS, ROUNDS, 1)
    assert story.published is not None and story.delivered is not None and story.delivered.agreed
    assert all(item.holds_model and item.epsilon and item.answered == ROUNDS for item in story.members())


def test_rounds_from_before_attempts_were_counted_are_read() -> None:
    old = (
        '{"ts": "2026-03-01T12:00:00.000Z", "event": "RoundDone", "round": 1, "rounds": 2, "answered": ["east"], "left_out": [], '
        '"seconds": 0.5, "bytes_sent": 1, "bytes_received": 2}'
    )
    line = decode(old)
    assert line is not None and line.event == RoundDone(1, 2, ("east",), (), 0.5, 1, 2, attempts=1)
