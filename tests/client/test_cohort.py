"""Cohorts and their split: decided by the record and the key alone, the same for ever."""

import hashlib
import hmac
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort import Cohort, load_cohort, split
from federation.errors import DataError
from federation.study import HashHoldout, PositionHoldout
from tests.client.node_files import FLAT, people, people_node, person, write_source

KEY = b"k" * 32
HASH = HashHoldout(kind="hash", share=0.3)


def cohort_of(ids: list[str], position: list[int] | None = None) -> Cohort:
    array = np.array(ids, dtype=object)
    number = np.arange(len(ids), dtype=np.float64)
    stamps = None if position is None else np.array(position, dtype=np.int64)
    return Cohort(array, {"age": number}, label=number % 2, position=stamps, value=number * 2)


@given(st.sets(st.text(max_size=10), min_size=1), st.floats(0.01, 0.99))
def test_hash_split_is_the_published_rule(ids: set[str], share: float) -> None:
    ordered = sorted(ids)
    training, held = split(cohort_of(ordered), HashHoldout(kind="hash", share=share), KEY)
    expected = [
        name
        for name in ordered
        if int.from_bytes(hmac.new(KEY, name.encode(errors="surrogatepass"), hashlib.sha256).digest()[:8])
        < int(share * 2**64)
    ]
    assert list(held.ids) == expected
    assert sorted([*training.ids, *held.ids]) == ordered


@given(st.sets(st.integers(0, 10_000), min_size=2))
def test_a_customers_side_does_not_depend_on_the_others(numbers: set[int]) -> None:
    names = [f"c{number}" for number in sorted(numbers)]
    held = set(split(cohort_of(names), HASH, KEY)[1].ids)
    for name in names:
        assert (len(split(cohort_of([name]), HASH, KEY)[1]) == 1) == (name in held)


def test_another_key_is_another_split_and_the_share_is_met() -> None:
    names = [f"c{number}" for number in range(20_000)]
    one, two = (split(cohort_of(names), HASH, key)[1] for key in (KEY, b"j" * 32))
    assert set(one.ids) != set(two.ids)
    for held in (one, two):
        assert abs(len(held) / len(names) - 0.3) < 0.015


def test_fifty_thousand_customers_in_under_a_second() -> None:
    cohort = cohort_of([f"customer-{number}" for number in range(50_000)])
    start = time.process_time()
    split(cohort, HASH, KEY)
    assert time.process_time() - start < 1.0


def test_position_split_and_what_it_needs() -> None:
    training, held = split(cohort_of(["a", "b", "c"], [3, 5, 4]), PositionHoldout(kind="position", position=4), KEY)
    assert (list(training.ids), list(held.ids)) == (["a"], ["b", "c"])
    with pytest.raises(DataError, match="CSL-C120"):
        split(cohort_of(["a"]), PositionHoldout(kind="position", position=4), KEY)


def test_take_keeps_every_part_aligned() -> None:
    cohort = cohort_of(["a", "b", "c"], [0, 1, 2])
    for chosen in (np.array([2, 0]), np.array([True, False, True])):
        part = cohort.take(chosen)
        assert part.label is not None
        assert part.value is not None
        assert part.position is not None
        for who, age, label, position, value in zip(
            part.ids, part.columns["age"], part.label, part.position, part.value, strict=True
        ):
            row = "abc".index(who)
            assert (age, label, position, value) == (row, row % 2, row, row * 2)


def test_scoring_takes_the_rows_from_a_position_or_of_a_second_table(tmp_path: Path) -> None:
    rows = [person(number, at=number) for number in range(5)]
    node = people_node(tmp_path, rows, position="at", score={"from_position": 3})
    assert list(load_cohort(node, people(), FLAT, "contact", "score")[0].ids) == ["p3", "p4"]
    assert len(load_cohort(node, people(), FLAT, "study", "learn")[0]) == 5
    second = [{key: value for key, value in person(number).items() if key != "y"} for number in (1, 4)]
    node = people_node(tmp_path, rows, score={"source": write_source(tmp_path, "csv", "next", second)})
    cohort, _ = load_cohort(node, people(), FLAT, "contact", "score")
    assert (list(cohort.ids), cohort.label) == (["p1", "p4"], None)


def test_scoring_does_not_read_the_label(tmp_path: Path) -> None:
    rows = [{key: value for key, value in person(number, at=1).items() if key != "y"} for number in range(3)]
    node = people_node(tmp_path, rows, position="at", score={"from_position": 0})
    assert len(load_cohort(node, people(), FLAT, "contact", "score")[0]) == 3
    with pytest.raises(DataError, match="CSL-C102"):
        load_cohort(node, people(), FLAT, "study", "learn")


def test_the_order_is_by_id_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [person(number) for number in (3, 1, 2)]
    assert list(load_cohort(people_node(tmp_path, rows), people(), FLAT, "study", "learn")[0].ids) == ["p1", "p2", "p3"]
