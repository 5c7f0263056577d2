import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from federation.errors import IntegrityError
from server.events import Delivered, Evaluated, Event, GrantsReceived, Resumed, RosterSettled, RoundStarted
from server.journal import Journal, JournalLine
from server.story import Story, told
from server.watch import picture, watch, words
from tests.server.study_events import EVENTS, MEMBERS, START, Ticking, beginning, round_done, secure, whole, write


def shown(path: Path, *, terminal: bool = False, as_json: bool = False, over: str = "") -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=150, color_system=None)
    watch(path, console, as_json=as_json, ended=lambda: over, now=lambda: START)
    return out.getvalue()


def test_plain_lines_where_nobody_watches(tmp_path: Path) -> None:
    text = shown(write(tmp_path / "x.jsonl", whole()), over="stopped: CSL-S501 too few")
    assert "\x1b" not in text and "\r" not in text
    for part in (
        "2026-03-01 12:00:01Z  study churn signed: abababababab, 3 rounds; invited: east, north, south, west",
        "roster: node 99 was left out: CSL-S301 did not prove to be a member of this charter",
        "proved who they are: east, north, south; not there: west",
        "granted: east ε 1, north ε 2.5, south ε 0.5",
        "round 2: south was left out: CSL-S202 did not answer within 60 seconds",
        "round 2/3: 2 answered in 1.00 s, 1 KiB sent, 2 KiB received; left out: south",
        "evaluation: AUC 0.700 (0.650 to 0.750), of 3 members",
        "model cdcdcdcdcdcd of churn_1 stands in the registry: /registry/churn_1",
        "model delivered to east, north; all hold the same model",
        "ledger of east witnessed at 9 entries by the coordinator, north, south",
        "ledger of south witnessed at 3 entries by the coordinator; it did not take the witnessed head back",
        "\nstopped: CSL-S501 too few\n",
    ):
        assert part in text, part
    assert len(text.splitlines()) == len(whole()) - 3 + 1


def test_a_secure_study_says_how_its_keys_and_sums_came_about(tmp_path: Path) -> None:
    text = shown(write(tmp_path / "x.jsonl", secure()))
    for part in (
        "agreeing on keys: east, north, south",
        "set-up: south was left out: CSL-S202",
        "agreeing on keys, attempt 2: east, north",
        "2 members agreed on keys in 61.50 s: east, north",
        "round 1/2: 2 answered in 0.25 s, 1 KiB sent",
        "round 2: the sum is asked for again, because 1 members are ready; 2 are needed; nothing was opened",
        "round 2/2: 2 answered in 0.50 s at attempt 2, 1 KiB sent",
    ):
        assert part in text, part
    assert "sums asked for again: 1" in shown(tmp_path / "x.jsonl", terminal=True)
    assert "asked for again" not in shown(write(tmp_path / "y.jsonl", whole()), terminal=True)


def test_json_is_passed_on_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", whole())
    assert shown(path, as_json=True, over="not said here") == path.read_text()
    assert shown(path, as_json=True, terminal=True) == path.read_text()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()][0] == "StudySigned"


def test_a_terminal_sees_a_picture(tmp_path: Path) -> None:
    text = shown(write(tmp_path / "x.jsonl", whole()), terminal=True)
    for part in ("churn", "3/3 rounds", "south", "0.5", "2/3", "median 1.00 s by the coordinator's clock", "AUC 0.700"):
        assert part in text, part
    assert "3 KiB sent, 6 KiB received" in text and "witnessing; nothing more is coming" in text


def drawn(story: Story, over: str | None = None, seconds: int = 0) -> str:
    out = io.StringIO()
    Console(file=out, width=150, color_system=None).print(picture(story, over, START + timedelta(seconds=seconds)))
    return out.getvalue()


def story_of(events: list[Event]) -> Story:
    story = Story()
    for event in events:
        story = told(story, JournalLine(START, event))
    return story


def test_a_running_round_says_how_long_it_waits() -> None:
    story = story_of([*beginning(3), round_done(1, 3), RoundStarted(2, 3, MEMBERS)])
    text = drawn(story, seconds=7)
    assert "round 2: 3 asked, 7 s ago" in text and "1/3 rounds" in text and "nothing more" not in text
    assert "0 s ago" in drawn(story, seconds=-600)  # a watcher's clock that was set back


def test_an_interrupted_and_resumed_study_is_one(tmp_path: Path) -> None:
    first = [*beginning(4), round_done(1, 4), round_done(2, 4)]
    again = [Resumed("churn", "ab" * 32, 4, 2), RosterSettled(MEMBERS, ("west",)), round_done(3, 4)]
    path = write(tmp_path / "x.jsonl", [*first, *again])
    assert "goes on with study churn (abababababab) after round 2 of 4" in shown(path)
    text = shown(path, terminal=True)
    assert "3/4 rounds" in text and "went on after round 2" in text


def test_before_anything_is_there(tmp_path: Path) -> None:
    assert shown(tmp_path / "x.jsonl") == ""
    assert "Nothing is known of this study" in shown(tmp_path / "x.jsonl", terminal=True)
    assert "has not begun yet" in drawn(Story())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_running_study_is_followed_to_its_end(tmp_path: Path, terminal: bool) -> None:
    path, left = tmp_path / "x.jsonl", whole()
    journal = Journal(path, Ticking())
    out = io.StringIO()

    def ended() -> str | None:
        if len(left) == 1:
            journal(left.pop(0))
        return "It is finished." if not left else None

    console = Console(file=out, force_terminal=terminal, width=150, color_system=None)
    story = watch(path, console, ended=ended, sleep=lambda _: journal(left.pop(0)), now=lambda: START)
    assert len(story.witnessed) == 3
    assert "It is finished." in out.getvalue()
    assert ("ledger of south" in out.getvalue()) is not terminal


def test_the_terminal_is_left_in_order_when_interrupted(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(write(tmp_path / "x.jsonl", whole()), console, ended=lambda: None, sleep=sleep)
    assert out.getvalue().rstrip().endswith("\x1b[?25h")


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("nothing\n")
    with pytest.raises(IntegrityError, match="CSL-S841"):
        shown(tmp_path / "x.jsonl", terminal=True)


def test_what_did_not_go_well_is_plain() -> None:
    assert words(Evaluated(MEMBERS, None, None)) == "evaluation: too few positives for the noise, so nothing is said"
    assert "they do NOT all hold the same model" in str(words(Delivered(MEMBERS, False)))
    assert words(GrantsReceived((), (), MEMBERS)) == "granted: by nobody; not granted: east, north, south"


@given(st.lists(EVENTS, max_size=6))
def test_every_event_can_be_shown(events: list[Event]) -> None:
    for event in events:
        assert (words(event) is None) == isinstance(event, RoundStarted)
    drawn(story_of(events), "over")
