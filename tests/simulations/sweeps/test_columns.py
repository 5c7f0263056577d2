import io

import pytest
from rich.console import Console

from simulations.sweeps.columns import Column, Grid, say_left_out, worded

ROWS = [("a bank with a long name", "0.5", "0.123", "0.1 to 0.2"), ("another", "10", "0.456", "0.3 to 0.4")]


def grid():
    found = Grid(
        "A title",
        worded("name", least=10),
        Column("ε"),
        Column("mean\nAUC", 1),
        Column("95% interval", 2),
        Column("x", 2),
    )
    for row in ROWS:
        found.add(*row, "7")
    return found


def shown(found, width):
    sink = io.StringIO()
    left_out = found.show(Console(file=sink, width=width, highlight=False))
    return sink.getvalue(), left_out


@pytest.mark.parametrize("width", range(24, 80))
def test_figures_are_whole_or_left_out_and_named(width):
    text, left_out = shown(grid(), width)
    words = text.replace("\n", " ").split()
    assert "0.5" in words and "10" in words and "…" not in text
    for name, figures in (("mean AUC", ("0.123", "0.456")), ("95% interval", ("0.1 to 0.2", "0.3 to 0.4"))):
        assert all((figure in text) == (name not in left_out) for figure in figures)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert {"a", "bank", "long", "name", "another"} <= set(words)  # names fold and are there all the same


def test_the_least_important_go_first_and_together():
    whole, room = grid().width(), grid().width(least=True)
    assert room < whole
    assert shown(grid(), whole)[1] == shown(grid(), room)[1] == ()
    assert shown(grid(), room - 1)[1] == ("95% interval", "x")
    assert shown(grid(), 24)[1] == ("mean AUC", "95% interval", "x")


def test_columns_that_stay_are_not_cut_even_where_there_is_no_room():
    text, _ = shown(grid(), 8)
    assert "0.5" in text and "10" in text and "…" not in text


def test_what_is_between_brackets_is_no_style():
    found = Grid("[bold]title", worded("[red]name"))
    found.add("[link]x")
    text, _ = shown(found, 60)
    assert "[bold]title" in text and "[red]name" in text and "[link]x" in text


def test_what_was_left_out_is_said_once():
    sink = io.StringIO()
    console = Console(file=sink, width=40)
    say_left_out(console, ())
    assert sink.getvalue() == ""
    say_left_out(console, ("declared", "mean [AUC]", "declared"))
    assert sink.getvalue() == "Left out at 40 columns: declared, mean [AUC]. A wider terminal, or --json, shows all.\n"
