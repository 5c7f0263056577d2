from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from server.events import Event, GrantsReceived, LeftOut, Resumed, RosterSettled, RoundStarted, StudySigned
from server.journal import JournalLine
from server.story import MAX_REMEMBERED, Story, told
from tests.server.study_events import EVENTS, MEMBERS, START, beginning, ending, round_done, secure, whole


def story_of(events: list[Event]) -> Story:
    story = Story()
    for number, event in enumerate(events):
        story = told(story, JournalLine(START + timedelta(seconds=number), event))
    return story


def test_a_whole_study() -> None:
    story = story_of(whole(3))
    assert (story.name, story.study, story.rounds, story.rounds_done) == ("churn", "ab" * 32, 3, 3)
    assert (story.median_seconds, story.bytes_sent, story.bytes_received) == (1.0, 3072, 6144)
    assert story.begun == START and story.stage == "witnessing" and story.current is None
    east, north, south, west = story.members()
    assert (east.present, east.epsilon, east.answered, east.left_out, east.holds_model, east.witnesses) == (
        True,
        1.0,
        3,
        0,
        True,
        2,
    )
    assert (north.answered, north.witnesses) == (3, 1)
    assert (south.epsilon, south.answered, south.left_out, south.holds_model, south.witnesses) == (0.5, 2, 1, False, 0)
    assert south.last == "round 2: CSL-S202 did not answer within 60 seconds"
    assert (west.present, west.epsilon, west.answered) == (False, None, 0)
    assert [event.who for _, event in story.left_out] == ["node 99", "south"]


def test_stages_follow_each_other() -> None:
    events = whole(3)
    stages = [story_of(events[:number]).stage for number in range(len(events) + 1)]
    order = [
        "nothing yet",
        "waiting for members",
        "asking for grants",
        "training",
        "evaluating",
        "delivering",
        "witnessing",
    ]
    assert list(dict.fromkeys(stages)) == order
    assert stages == sorted(stages, key=order.index)


def test_going_on_keeps_what_was_and_repeats_no_round() -> None:
    first = [*beginning(4), round_done(1, 4), RoundStarted(2, 4, MEMBERS)]
    again = [
        Resumed("churn", "ab" * 32, 4, 2),
        RosterSettled(MEMBERS[:2], ("south",)),
        round_done(2, 4),
        round_done(3, 4),
    ]
    story = story_of([*first, again[0]])
    assert (story.rounds_done, story.stage, story.current, len(story.resumed)) == (2, "waiting for members", None, 1)
    story = story_of([*first, *again])
    assert (story.rounds_done, story.stage, len(story.done)) == (3, "training", 3)
    assert {item.member: item.answered for item in story.members()} == {"east": 3, "north": 3, "south": 3, "west": 0}
    assert [item.present for item in story.members()] == [True, True, False, False]
    assert story.members()[0].epsilon == 1.0
    late = story_of([*first, Resumed("churn", "ab" * 32, 4, 4), RosterSettled(MEMBERS, ())])
    assert late.stage == "evaluating"


def test_a_journal_may_begin_with_going_on() -> None:
    story = story_of([Resumed("churn", "ab" * 32, 9, 5), RosterSettled(MEMBERS, ())])
    assert (story.name, story.rounds, story.rounds_done, story.stage) == ("churn", 9, 5, "training")


def test_another_study_of_the_same_name_begins_anew() -> None:
    story = story_of([*whole(3), StudySigned("churn", "cd" * 32, 5, MEMBERS)])
    assert (story.rounds, story.rounds_done, story.published, story.witnessed) == (5, 0, None, {})
    assert story == story_of([StudySigned("churn", "cd" * 32, 5, MEMBERS)]) or story.begun is not None


def test_few_are_remembered_and_all_are_counted() -> None:
    story = story_of([LeftOut(f"round {number}", number, "south", "CSL-S202", "") for number in range(50)])
    assert len(story.left_out) == MAX_REMEMBERED and story.members()[0].left_out == 50


def test_declining_shows() -> None:
    story = story_of([*beginning(3)[:-1], GrantsReceived(("east",), (1.0,), ("north", "south"))])
    assert [item.declined for item in story.members()] == [False, True, True, False]


@given(st.lists(EVENTS, max_size=12))
def test_no_order_of_events_breaks_it(events: list[Event]) -> None:
    story = story_of(events)
    assert story.rounds_done >= 0 and len(story.members()) == len({item.member for item in story.members()})


def test_the_end_is_the_end() -> None:
    assert story_of(ending()).stage == "witnessing"


def test_a_secure_study_agrees_on_keys_before_it_trains() -> None:
    events = secure()
    stages = [story_of(events[:number]).stage for number in range(len(events) + 1)]
    assert list(dict.fromkeys(stages))[3:5] == ["training", "agreeing on keys"]
    story = story_of(events)
    assert story.keys is not None and story.keys.members == MEMBERS[:2]
    assert story.repeated == 1 and story.rounds_done == 2 and story.stage == "witnessing"
    east, _, south, _ = story.members()
    assert (east.answered, east.left_out, south.answered) == (2, 0, 0)
    assert south.last == "set-up: CSL-S202 did not answer within 60 seconds"
    assert [type(event).__name__ for _, event in story.left_out] == ["LeftOut", "LeftOut", "SumRepeated"]
