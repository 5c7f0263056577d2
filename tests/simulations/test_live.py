import io

from rich.console import Console

from server.events import (
    Delivered,
    Evaluated,
    Event,
    GrantsReceived,
    LeftOut,
    RosterSettled,
    RoundDone,
    RoundStarted,
    StudySigned,
    Witnessed,
)
from simulations.live import PLAIN_EVERY, LiveView

MEMBERS = ("north", "south")
WITNESSED = (Witnessed("north", 9, ("south", "west"), True), Witnessed("south", 12, ("north",), True))


def story(rounds: int) -> list[Event]:
    done = [RoundDone(number, rounds, MEMBERS, (), 0.25, 1000, 2000) for number in range(1, rounds + 1)]
    return [
        StudySigned("churn", "ab" * 32, rounds, MEMBERS),
        RosterSettled(MEMBERS, ("west",)),
        GrantsReceived(MEMBERS, (1.0, 2.5), ("west",)),
        RoundStarted(1, rounds, MEMBERS),
        LeftOut("train", 1, "west", "CSL-S202", "did not answer"),
        *done,
        Evaluated(MEMBERS, 0.7, (0.65, 0.75)),
        Evaluated(MEMBERS, None, None),
        Delivered(MEMBERS, True),
        *WITNESSED,
    ]


def shown(terminal: bool, rounds: int) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    with LiveView(console) as view:
        view.stage("A study [with brackets]")
        for event in story(rounds):
            view.event(event)
    return out.getvalue()


def test_plain_lines_where_nobody_watches() -> None:
    text = shown(False, 2 * PLAIN_EVERY + 5)
    assert "\x1b" not in text and "\r" not in text
    assert text.count("round ") - text.count("train, round") == 3
    assert "A study [with brackets]" in text
    assert "north ε 1, south ε 2.5; declined: west" in text
    assert "not there: west" in text
    assert "AUC 0.700 (0.650 to 0.750)" in text
    assert "nothing is said" in text
    assert "all hold the same model" in text


def test_ledgers_are_called_witnessed_when_all_are() -> None:
    line = "2 ledgers' heads witnessed by the coordinator and by others, at least 1 each"
    assert shown(False, 3).count(line) == 1
    for last in ([], [Witnessed("south", 12, ("north",), False)], [Witnessed("south", 12, (), True)]):
        out = io.StringIO()
        with LiveView(Console(file=out, width=120)) as view:
            for event in [*story(3)[:-1], *last]:
                view.event(event)
        assert "witnessed" not in out.getvalue()


def test_a_terminal_sees_a_bar_and_no_line_a_round() -> None:
    text = shown(True, 2 * PLAIN_EVERY)
    assert f"{2 * PLAIN_EVERY}/{2 * PLAIN_EVERY}" in text
    assert "2 answered · 0.25 s" in text
    assert "round 10/20" not in text


def test_the_terminal_is_left_in_order_when_interrupted() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    try:
        with LiveView(console) as view:
            view.event(story(3)[0])
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert out.getvalue().rstrip().endswith("\x1b[?25h")
