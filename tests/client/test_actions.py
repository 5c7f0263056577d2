"""Next actions and value at risk: every customer once, sums that add up, tiers that hold what they say."""

import csv
import io
import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.actions import COLUMNS, KINDS, Summary, ordered, plan, rows_of, summarise, tiers
from client.lists import csv_table, parquet_table
from client.names import Listed
from client.placed import Place, Placements
from client.strategy import NextAction, Strategy
from tests.client.test_strategy import ACTIONS, rule, strategy

GOLD_HIGH = rule(segment=("gold",), band=("high",))
OTHERS = rule(band=("high", "mid"), then=ACTIONS[1])
MAP = strategy([GOLD_HIGH, OTHERS])
NOBODY = Placements()

values = st.none() | st.floats(-100, 1000)
placing = st.sampled_from([Place(), Place("gold"), Place("grey", "old"), Place("strange", "new")])
people = st.lists(st.tuples(st.floats(0, 1), values, values, placing), max_size=40)


def listed(rows: list[tuple[float, float | None]]) -> list[Listed]:
    """Lines for probabilities and mapped money, best first."""
    order = sorted(rows, key=lambda row: -row[0])
    return [
        Listed(
            customer=f"c{place}",
            rank=place + 1,
            score=score,
            decile=1 + place * 10 // len(rows),
            expected_value=None if value is None else score * value,
            expected_gain=None,
            reasons=("Has a loan: yes; raises the score", "", ""),
        )
        for place, (score, value) in enumerate(order)
    ]


def placements(
    found: list[Listed], rows: list[tuple[float, float | None, float | None, Place]], *, worth: bool
) -> Placements:
    pairs = list(zip(found, rows, strict=True))
    return Placements(
        {line.customer: row[3] for line, row in pairs},
        {line.customer: row[2] for line, row in pairs if row[2] is not None} if worth else None,
    )


@settings(max_examples=100)
@given(rows=people, worth=st.booleans(), with_map=st.booleans())
def test_every_customer_has_one_decision_and_all_sums_add_up(
    rows: list[tuple[float, float | None, float | None, Place]], worth: bool, with_map: bool
) -> None:
    found = listed([(row[0], row[1]) for row in rows])
    where = placements(found, rows, worth=worth)
    made: Strategy | None = MAP if with_map else None
    lines = plan(found, made, where)
    assert [item.line for item in lines] == found
    for item in lines:
        own = where.worth.get(item.line.customer) if where.worth is not None else None
        money = (None if own is None else item.line.score * own) if worth else item.line.expected_value
        assert item.value_at_risk == (None if money is None else max(0.0, money))
        if made is None:
            assert item.decided is None and item.action is None
        else:
            assert item.decided == made.decide(item.place.segment, item.place.stage, item.line.score, item.line.decile)
    summary = summarise(lines, made, where)
    total = math.fsum(item.value_at_risk or 0.0 for item in lines)
    assert summary.customers == len(rows) and summary.value_at_risk == pytest.approx(total)
    for groups in (summary.tiers, summary.deciles, summary.segments, summary.stages, summary.actions):
        assert sum(group.customers for group in groups) == len(rows)
        assert math.fsum(group.value_at_risk for group in groups) == pytest.approx(total)
    assert summary.with_action == sum(group.customers for group in summary.actions if group.product)
    assert (summary.top_decile_share is None) == (total == 0)
    if total:
        assert summary.top_decile_share is not None and summary.largest_tenth_share is not None
        assert 0 <= summary.top_decile_share <= summary.largest_tenth_share + 1e-9 <= 1 + 2e-9
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


@settings(max_examples=150)
@given(at_risk=st.lists(st.none() | st.just(0.0) | st.floats(1e-6, 1e6), max_size=60))
def test_tiers_are_cut_where_they_say(at_risk: list[float | None]) -> None:
    found = tiers(at_risk)
    groups = {
        name: [value for value, tier in zip(at_risk, found, strict=True) if tier == name]
        for name in ("A", "B", "C", "")
    }
    assert all(not value for value in groups[""]) and all(
        groups[name] == [v for v in groups[name] if v] for name in "ABC"
    )
    total = math.fsum(value or 0.0 for value in at_risk)
    sums = {name: math.fsum(value or 0.0 for value in groups[name]) for name in "ABC"}
    if total:
        assert sums["A"] >= 0.5 * total * (1 - 1e-9) and sums["A"] + sums["B"] >= 0.8 * total * (1 - 1e-9)
        smallest = min(value or 0.0 for value in groups["A"])
        assert sums["A"] - smallest < 0.5 * total * (1 + 1e-9)  # not one more than needed
        assert smallest >= max((value or 0.0 for name in "BC" for value in groups[name]), default=0.0)


def test_shares_and_counts_of_a_small_town() -> None:
    found = listed([(0.9, 10.0), (0.7, 100.0), (0.5, None), (0.3, -5.0), (0.1, 300.0)] + [(0.05, 0.0)] * 5)
    where = Placements({"c0": Place("gold", "old"), "c1": Place("strange")})
    summary = summarise(plan(found, MAP, where), MAP, where)
    assert summary.value_at_risk == pytest.approx(9 + 70 + 30)
    assert summary.top_decile_share == pytest.approx(9 / 109) and summary.largest_tenth_share == pytest.approx(70 / 109)
    assert (summary.without_value, summary.nothing_at_risk) == (1, 6)
    assert (summary.placed, summary.unknown_place) == (2, 1)
    assert (summary.with_action, summary.by_default) == (4, 6)
    assert [(group.product, group.customers) for group in summary.actions] == [("pen", 3), ("book", 1), ("", 6)]
    assert [(tier.name, tier.customers) for tier in summary.tiers] == [("A", 1), ("B", 1), ("C", 1), ("", 7)]
    assert [group.name for group in summary.segments] == ["gold", "strange", ""]


def test_a_worth_handed_in_takes_the_place_of_the_mapped_money() -> None:
    found = listed([(0.5, 10.0), (0.25, 20.0)])
    lines = plan(found, None, Placements(worth={"c0": 400.0}))
    assert [item.value_at_risk for item in lines] == [200.0, None]


def test_order_by_value_puts_unknown_last() -> None:
    lines = plan(listed([(0.9, None), (0.8, 1.0), (0.7, 50.0), (0.6, 0.0)]), None, NOBODY)
    assert [item.line.customer for item in ordered(reversed(lines), "value")] == ["c2", "c1", "c3", "c0"]
    assert [item.line.customer for item in ordered(reversed(lines), "score")] == ["c0", "c1", "c2", "c3"]


def test_a_table_is_safe_to_open_and_holds_what_was_decided() -> None:
    evil = Listed("=1+1", 1, 0.9, 1, 18.0, None, ("@why", "", ""), 0.5, 3, risen="-1", fallen="")
    rows = rows_of(plan([evil], MAP, Placements({"=1+1": Place("gold")})))
    line = next(csv.DictReader(io.StringIO(csv_table(COLUMNS, rows).decode())))
    assert (line["customer"], line["reason_1"], line["risen"]) == ("'=1+1", "'@why", "'-1")
    assert (line["product"], line["channel"], line["message"], line["band"]) == ("book", "post", "hello", "high")
    table = pq.read_table(io.BytesIO(parquet_table(COLUMNS, KINDS, rows))).to_pylist()[0]
    assert tuple(table) == COLUMNS and table["customer"] == "=1+1" and table["value_at_risk"] == 18.0
    assert (table["decile_before"], table["tier"], table["segment"]) == (3, "A", "gold")
    empty = pq.read_table(io.BytesIO(parquet_table(COLUMNS, KINDS, [])))
    assert empty.num_rows == 0 and tuple(empty.column_names) == COLUMNS


def test_nothing_is_an_action_of_no_names() -> None:
    made = strategy([rule(then="nothing")], default=NextAction(product="pen", channel="post", message="hello"))
    row = dict(zip(COLUMNS, rows_of(plan(listed([(0.5, None)]), made, NOBODY))[0], strict=True))
    assert (row["product"], row["channel"], row["message"], row["value_at_risk"]) == ("", "", "", None)
