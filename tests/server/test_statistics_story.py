"""How a statistics study is told: it counts and reports, and neither trains nor evaluates."""

import io
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from server.events import (
    Delivered,
    Evaluated,
    Event,
    Reported,
    Resumed,
    RosterSettled,
    RoundDone,
    RoundStarted,
    StudySigned,
)
from server.journal import JournalLine
from server.story import Story, told
from server.watch import picture, watch, words
from tests.server.study_events import MEMBERS, PUBLISHED, START, beginning, ending, round_done, secure, write

REPORTED = Reported("people-abababababab", Path("/reports/people-abababababab.report.json"), "cd" * 32)
AFTER = [event for event in ending() if not isinstance(event, Evaluated) and event != PUBLISHED]


def study(rounds: int = 2) -> list[Event]:
    middle: list[Event] = []
    for number in range(1, rounds + 1):
        middle += [RoundStarted(number, rounds, MEMBERS), round_done(number, rounds)]
    return [*beginning(rounds), *middle, REPORTED, *AFTER]


def story_of(events: list[Event], counts: bool = True) -> Story:
    story = Story(counts=counts)
    for event in events:
        story = told(story, JournalLine(START, event))
    return story


def drawn(story: Story) -> str:
    out = io.StringIO()
    Console(file=out, width=150, color_system=None).print(picture(story, None, START + timedelta(seconds=5)))
    return out.getvalue()


def test_it_counts_and_reports():
    events = study()
    stages = [story_of(events[:number]).stage for number in range(len(events) + 1)]
    order = [
        "nothing yet",
        "waiting for members",
        "asking for grants",
        "counting",
        "reporting",
        "delivering",
        "witnessing",
    ]
    assert list(dict.fromkeys(stages)) == order
    assert "agreeing on keys" in {story_of(secure()[:number]).stage for number in range(len(secure()))}


def test_after_an_interruption_it_counts_on():
    first = [*beginning(3), round_done(1, 3)]
    again: list[Event] = [Resumed("churn", "ab" * 32, 3, 1), RosterSettled(MEMBERS, ("west",))]
    assert story_of([*first, *again]).stage == "counting"
    done: list[Event] = [Resumed("churn", "ab" * 32, 3, 3), RosterSettled(MEMBERS, ("west",))]
    assert story_of([*first, *done]).stage == "reporting"


def test_a_new_study_of_the_same_name_is_still_one_of_statistics():
    story = story_of([*study(), StudySigned("churn", "ef" * 32, 1, MEMBERS), RosterSettled(MEMBERS, ())])
    assert story.reported is None and story.counts
    assert (
        story_of([*study(), StudySigned("churn", "ef" * 32, 1, MEMBERS), RoundStarted(1, 1, MEMBERS)]).stage
        == "counting"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_who_watches_reads_no_word_of_models(tmp_path, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=150, color_system=None)
    watch(write(tmp_path / "x.jsonl", study(1)), console, counts=True, now=lambda: START)
    text = out.getvalue()
    assert "report people-abababababab is published" in text
    assert "report delivered to east, north" in text and "1/1 round" in text.replace("round 1/1", "1/1 round")
    for word in ("model", "train", "evaluat", "AUC", "1 rounds"):
        assert word not in text, word


def test_the_picture_says_who_has_the_report():
    text = drawn(story_of(study()))
    (head,) = [line for line in text.splitlines() if line.startswith("member")]
    assert "report" in head and "model" not in head
    south = [line for line in text.splitlines() if line.startswith("south")][0].split()
    assert south[:2] == ["south", "yes"] and "no" in south
    counting = drawn(story_of(study()[:7]))
    assert "counting" in counting and "1/2 rounds" in counting


def test_a_training_study_is_told_as_before():
    assert words(Delivered(MEMBERS, True)) == "model delivered to east, north, south; all hold the same model"
    assert words(RoundDone(1, 1, MEMBERS, (), 1.0, 0, 0), of_report=True) == words(
        RoundDone(1, 1, MEMBERS, (), 1.0, 0, 0)
    )
    assert words(Delivered((), True), of_report=True) == "report delivered to nobody"
