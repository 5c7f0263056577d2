"""Public groupings and what askers of one round have in common."""

import pytest

from federation.errors import FederationError
from federation.measures import BinsAxis, Cells
from federation.queries import Accuracy, Count, Group, Mean
from server.statistics.counts import CountAsker
from server.statistics.intervals import Span
from server.statistics.means import MeanAsker
from server.statistics.tables import between, group_problems, grouping, grouping_problems, hidden, row, value_problems
from tests.server.statistics.town import CONTRACT, setting


def test_a_numeric_grouping_names_its_bins() -> None:
    found = grouping(Group(column="age", cuts=(30.0, 50.5)), CONTRACT)
    assert found.axis == BinsAxis(column="age", cuts=(30.0, 50.5))
    assert found.labels == ("below 30", "30 to below 50.5", "50.5 and more", "unknown") and found.known == 3


def test_a_flag_and_the_label_have_groups_of_their_own() -> None:
    for name in ("kept", "bought"):
        assert grouping(Group(column=name), CONTRACT).labels == ("no", "yes", "unknown")
    assert grouping(Group(column="region"), CONTRACT).labels == ("north", "south", "west", "unknown")


def test_large_cuts_keep_their_digits() -> None:
    assert between((1234567.0, 1234568.0)) == ("below 1234567", "1234567 to below 1234568", "1234568 and more")


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (Group(column="age"), "no public groups; give cuts"),
        (Group(column="region", cuts=(1.0,)), "has groups of its own and cannot be cut"),
        (Group(column="age", cuts=(50.0, 30.0)), "must increase"),
        (Group(column="shoe"), "is no column of the contract town"),
    ],
)
def test_what_is_no_public_grouping_is_named(group: Group, words: str) -> None:
    assert words in " ".join(group_problems(group, CONTRACT))
    with pytest.raises(ValueError, match=words):
        grouping(group, CONTRACT)


def test_tables_too_large_and_twice_the_same_grouping_are_named() -> None:
    fine = Group(column="age", cuts=tuple(float(x) for x in range(200)))
    other = Group(column="score", cuts=tuple(x / 200 for x in range(200)))
    assert "is too large" in grouping_problems((fine, other), CONTRACT)[0]
    assert "stands twice" in grouping_problems((Group(column="kept"), Group(column="kept")), CONTRACT)[0]


def test_only_numbers_within_the_contract_are_added_up() -> None:
    assert value_problems("income", CONTRACT, 0.0, 500.0) == []
    assert "goes beyond" in value_problems("income", CONTRACT, -1.0, 500.0)[0]
    assert "not numeric" in value_problems("region", CONTRACT)[0]
    assert value_problems("bought", CONTRACT) == []


def test_a_budget_too_small_says_what_it_would_need() -> None:
    asker = MeanAsker(Mean(id="m", kind="mean", of="income"), setting())
    with pytest.raises(FederationError, match="needs 25 to ask anything") as caught:
        asker.ask(1, 24.0)
    assert caught.value.code == "CSL-S710"
    measure = asker.ask(1, 25.0)[0]
    assert isinstance(measure, Cells) and min(term.cap for term in measure.terms) >= 16


@pytest.mark.parametrize("within", [1.0, 20.0, 333.0])
def test_what_is_needed_reaches_the_accuracy_and_not_much_more(within: float) -> None:
    asker = CountAsker(Count(id="n", kind="count", accuracy=Accuracy(within=within)), setting(sd=10_000.0))
    needed = asker.needed(1)
    assert needed is not None
    assert asker.expected({1: needed})[0].within <= within
    assert asker.expected({1: needed - 2.0})[0].within > within
    assert CountAsker(Count(id="n", kind="count"), setting()).needed(1) is None


def test_rows_keep_nine_digits_and_notes_say_what_is_hidden() -> None:
    assert row(("a",), Span(1 / 3, None, 1e-30)).value == 0.333333333
    spans = [Span(5.0, 0.0, 10.0), Span(50.0, 40.0, 60.0)]
    assert "up to 10 customers: 1 of 2 lie within that" in hidden("the counts", spans, 10.0, "customers")
    assert "all of them can be told from 0" in hidden("the counts", spans[1:], 10.0, "customers")
