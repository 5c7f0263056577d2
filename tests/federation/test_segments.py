"""Scores, segment rules and their tables: every customer in exactly one place, the same for the coordinator and at home."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.answers import AnswerTable, Row
from federation.contract import FeatureContract
from federation.document import load_yaml, parse_yaml
from federation.errors import DocumentError
from federation.measures import Condition, Rule
from federation.segments import (
    OTHER,
    TRADE,
    UNSCORED,
    SegmentRules,
    StageRules,
    Thresholds,
    check_fit,
    left_over,
    names_of,
    on_columns,
    place_of,
    problems_of_segments,
    problems_of_stages,
    rules_from,
    rules_table,
    score,
    spans_of,
    thresholds_from,
    thresholds_table,
)

CONFIGS = Path(__file__).parents[2] / "configs"
EVERY = list(product(range(1, 6), repeat=3))
COLUMNS = ("recency", "frequency", "monetary")


def bounds(name, low, high):
    return Condition(column=name, ge=None if low <= 1 else float(low), lt=None if high >= 5 else float(high + 1))


spans = st.tuples(st.integers(1, 5), st.integers(1, 5)).map(sorted).filter(lambda span: tuple(span) != (1, 5))
conditions = st.dictionaries(st.sampled_from("rfm"), spans, max_size=3)
edited = st.lists(conditions, min_size=1, max_size=8).map(
    lambda found: tuple(
        Rule(name=f"s{number}", where=tuple(bounds(name, *span) for name, span in where.items()))
        for number, where in enumerate(found)
    )
)
four = st.lists(st.integers(0, 6), min_size=4, max_size=4).map(lambda found: tuple(float(x) for x in sorted(found)))


def fits(rule, r, f, m):
    """Whether scores fulfil a rule, condition by condition."""
    at = {"r": r, "f": f, "m": m}
    return all(
        (item.ge is None or at[item.column] >= item.ge) and (item.lt is None or at[item.column] < item.lt)
        for item in rule.where
    )


def by_hand(rules, r, f, m):
    return next((place for place, rule in enumerate(rules) if fits(rule, r, f, m)), len(rules))


def placed(rules, combinations):
    return place_of(rules, *np.array(combinations, dtype=np.int64).T).tolist()


def test_every_combination_of_scores_stands_in_exactly_one_of_the_trades_segments():
    found = placed(TRADE, EVERY)
    assert found == [by_hand(TRADE, *each) for each in EVERY]
    assert set(found) == set(range(len(TRADE))) and left_over(TRADE) == () and problems_of_segments(TRADE) == []
    assert names_of(TRADE)[found[EVERY.index((5, 5, 5))]] == "champions"
    assert names_of(TRADE)[found[EVERY.index((1, 5, 5))]] == "sleeping_high_value"
    assert names_of(TRADE)[found[EVERY.index((5, 1, 3))]] == "new"
    assert names_of(TRADE)[found[EVERY.index((1, 1, 1))]] == "lost"


def test_who_lacks_a_score_is_unscored_and_not_left_over():
    assert [names_of(TRADE)[place] for place in placed(TRADE, [(0, 5, 5), (5, 0, 5), (5, 5, 0)])] == [UNSCORED] * 3
    some = (TRADE[0],)
    assert names_of(some)[placed(some, [(1, 1, 1)])[0]] == OTHER and len(left_over(some)) == 125 - 8


@given(edited)
def test_edited_rules_place_everybody_once_in_the_first_rule_that_fits(rules):
    found = placed(rules, EVERY)
    assert found == [by_hand(rules, *each) for each in EVERY]
    assert list(left_over(rules)) == [each for each, place in zip(EVERY, found, strict=True) if place == len(rules)]
    lost = {rule.name for place, rule in enumerate(rules) if place not in found}
    assert {problem.partition(":")[0] for problem in problems_of_segments(rules)} == lost


@given(edited, st.tuples(four, four, four), st.lists(st.tuples(*[st.integers(0, 7)] * 3), min_size=1, max_size=20))
def test_a_rule_on_columns_takes_whom_the_rule_on_scores_takes(rules, cuts, customers):
    thresholds = Thresholds(COLUMNS, cuts)
    values = np.array(customers, dtype=np.float64).T - 0.5
    scores = [score(column, four_, name) for column, four_, name in zip(values, cuts, "rfm", strict=True)]
    for rule in rules:
        found = on_columns(rule, thresholds)
        for number in range(len(customers)):
            expected = fits(rule, *(axis[number] for axis in scores))
            at = dict(zip(COLUMNS, values[:, number], strict=True))
            assert expected == (found is not None and fits_columns(found, at))


def fits_columns(rule, at):
    assert {item.column for item in rule.where} == set(COLUMNS)
    return all(
        (item.ge is None or at[item.column] >= item.ge) and (item.lt is None or at[item.column] < item.lt)
        for item in rule.where
    )


def test_a_short_time_since_the_last_purchase_scores_best_and_ties_score_alike():
    values = np.array([0.0, 0.2, 0.2, 0.5, 1.0, np.nan])
    assert score(values, (0.1, 0.2, 0.3, 0.9), "r").tolist() == [5, 3, 3, 2, 1, 0]
    days = np.array([1.0, 1.0, 2.0, 3.0, 4.0, np.nan])
    assert score(days, (2.0, 2.0, 2.0, 4.0), "f").tolist() == [1, 1, 4, 4, 5, 0]


def test_what_is_wrong_with_edited_segments_is_said_in_words():
    wrong = (
        Rule(name="best", where=(bounds("r", 4, 5),)),
        Rule(name="best", where=(bounds("r", 5, 5),)),
        Rule(name="Old ones", where=(Condition(column="recency", ge=3.0),)),
        Rule(name="odd", where=(Condition(column="m", missing=True),)),
        Rule(name="none", where=(Condition(column="f", ge=6.0),)),
        Rule(name="other", where=()),
    )
    said = " | ".join(problems_of_segments(wrong))
    for part in (
        "best: the name stands twice",
        "best: the rules before it take all whom it would take",
        "recency is no score",
        "odd: a score has bounds alone",
        "none: no score fulfils",
        "other: the name is kept",
        "Old ones: a name has small letters",
    ):
        assert part in said
    with pytest.raises(ValueError, match="no score"):
        spans_of(wrong[2])


def test_the_files_hold_what_the_code_holds():
    trade = load_yaml(CONFIGS / "segments" / "trade.yaml", SegmentRules)
    assert trade.segments == TRADE
    stages = load_yaml(CONFIGS / "segments" / "stages.yaml", StageRules)
    assert [rule.name for rule in stages.stages] == ["new", "lost", "growing", "active", "cooling"]
    check_fit(load_yaml(CONFIGS / "contracts" / f"{stages.contract}.yaml", FeatureContract), rules=stages.stages)
    text = b"title: t\nsegments: [{name: a, where: []}, {name: b, where: []}]\n"
    with pytest.raises(DocumentError, match="take all whom it would take"):
        parse_yaml(text, SegmentRules, "mine")


def test_what_is_wrong_with_stages_is_said_in_words():
    rules = (
        Rule(name="all_of_them", where=()),
        Rule(name="late", where=(Condition(column="recency", at="end", ge=0.5),)),
    )
    said = " | ".join(problems_of_stages(rules))
    assert "takes everybody" in said and "leave `at` out" in said
    assert problems_of_stages(rules[:1]) == []
    twice = Rule(name="a", where=(Condition(column="x", any_of=("b", "c")), Condition(column="x", any_of=("c",))))
    assert problems_of_stages([twice]) == ["a: name the groups of a column in one any_of"]
    with pytest.raises(DocumentError, match="leave `at` out"):
        parse_yaml(
            b"title: t\ncontract: rfm\nstages: [{name: a, where: [{column: x, at: end, ge: 1.0}]}]\n",
            StageRules,
            "mine",
        )


names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
groups = st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=3, unique=True)
condition = st.one_of(
    st.builds(lambda column, low: Condition(column=column, ge=low), names, st.floats(-1e6, 1e6)),
    st.builds(lambda column, low: Condition(column=column, ge=low, lt=low + 1.0), names, st.floats(-1e6, 1e6)),
    st.builds(lambda column: Condition(column=column, missing=True), names),
    st.builds(lambda column, found: Condition(column=column, any_of=tuple(found)), names, groups),
)


@given(st.dictionaries(names, st.lists(condition, max_size=4, unique_by=lambda item: item.column), max_size=5))
def test_rules_come_home_in_a_table_as_they_left(rules):
    sent = tuple(Rule(name=name, where=tuple(where)) for name, where in rules.items())
    table = AnswerTable.from_canonical(rules_table(sent, "Rules").canonical())
    assert rules_from(table) == sent


def test_a_table_that_holds_no_rules_is_refused():
    for row in (
        Row(key=("a", "b", "range"), value=None),
        Row(key=("a", "b", "sometimes", ""), value=None),
        Row(key=("a", "b", "range", ""), value=None, low=2.0, high=1.0),
        Row(key=("a", "Not A Column", "unknown", ""), value=None),
    ):
        with pytest.raises(DocumentError, match="CSL-F430"):
            rules_from(AnswerTable(name="rules", title="t", unit="u", rows=(row,)))


@given(st.tuples(four, four, four))
def test_thresholds_come_home_in_a_table_as_they_left(cuts):
    thresholds = Thresholds(COLUMNS, cuts)
    table = thresholds_table(thresholds, cuts, cuts, "Thresholds")
    assert thresholds_from(AnswerTable.from_canonical(table.canonical())) == thresholds
    for spoilt in (table.rows[1:], (*table.rows, table.rows[0]), (*table.rows[:11], Row(key=("m",), value=None))):
        with pytest.raises(DocumentError, match="CSL-F431"):
            thresholds_from(AnswerTable(name="thresholds", title="t", unit="u", rows=spoilt))


def test_a_report_of_another_contract_does_not_fit():
    contract = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
    check_fit(contract, COLUMNS)
    with pytest.raises(DocumentError, match="CSL-F432.*age is no column"):
        check_fit(contract, ("age",))
    with pytest.raises(DocumentError, match="CSL-F432"):
        check_fit(contract, rules=(Rule(name="a", where=(Condition(column="recency", any_of=("late",)),)),))
