"""Refusals are written, once a day and sixty an hour; the rest are counted, and every one of them stands in some sum."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.refusals import AN_HOUR, MOST_AN_HOUR, Refusals
from federation.errors import StorageError
from privacy.ledger.refusals import MOST_CODES, RefusalsData

DAY = 24 * AN_HOUR
START = 1_770_000_000_000 // DAY * DAY


@dataclass
class Book:
    time: int = START
    full: bool = False
    one: list[tuple[int, str, str, str]] = field(default_factory=list)
    sums: list[RefusalsData] = field(default_factory=list)

    def now(self) -> int:
        return self.time

    def refuse(self, code: str, study: str, why: str) -> None:
        self._write()
        self.one.append((self.time, code, study, why))

    def refuse_many(self, count: int, first: int, last: int, codes: "Counter[str]") -> None:
        self._write()
        self.sums.append(RefusalsData.of(count, first, last, codes))

    def _write(self) -> None:
        if self.full:
            raise StorageError("CSL-P511", "disk full", "free space")

    @property
    def told(self) -> int:
        return len(self.one) + sum(item.count for item in self.sums)


@pytest.fixture
def book() -> Book:
    return Book()


def test_sixty_are_written_and_the_others_summed_up_when_the_hour_is_over(book):
    kept = Refusals(book)
    for number in range(1000):
        book.time += 1000
        kept.note("CSL-C510" if number % 4 else "CSL-F208", f"type {number}", "why")
    assert len(book.one) == MOST_AN_HOUR and not book.sums and kept.counted == 940
    kept.settle()
    assert not book.sums
    book.time = START + 1000 + AN_HOUR
    kept.settle()
    (found,) = book.sums
    assert (found.count, found.first, found.last) == (940, START + 61_000, START + 1_000_000)
    assert {item.code: item.times for item in found.codes} == {"CSL-C510": 705, "CSL-F208": 235} and found.others == 0
    kept.note("CSL-C510", "another", "why")
    assert len(book.one) == MOST_AN_HOUR + 1 and kept.counted == 0


def test_an_hour_without_a_flood_is_not_summed_up(book):
    kept = Refusals(book)
    for number in range(MOST_AN_HOUR):
        kept.note("CSL-C510", f"type {number}", "why")
    book.time += AN_HOUR
    kept.settle()
    kept.close()
    assert book.told == MOST_AN_HOUR and not book.sums


def test_closing_writes_what_was_counted_once(book):
    kept = Refusals(book)
    for number in range(70):
        kept.note("CSL-C510", f"type {number}", "why")
    kept.close()
    kept.close()
    assert [item.count for item in book.sums] == [10]


def test_the_same_refusal_is_written_once_a_day_and_not_counted(book):
    kept = Refusals(book)
    for _ in range(30):
        kept.note("CSL-C528", "study", "waits")
        book.time += AN_HOUR // 2
    kept.close()
    assert len(book.one) == 1 and not book.sums
    book.time = START + DAY
    kept.note("CSL-C528", "study", "waits")
    assert len(book.one) == 2


def test_a_full_disk_loses_no_sum(book):
    kept = Refusals(book)
    for number in range(70):
        kept.note("CSL-C510", f"type {number}", "why")
    book.time += AN_HOUR
    book.full = True
    with pytest.raises(StorageError):
        kept.settle()
    with pytest.raises(StorageError):
        kept.note("CSL-C510", "one more", "why")
    book.full = False
    kept.note("CSL-C510", "one more", "why")
    assert [item.count for item in book.sums] == [10] and len(book.one) == 61


def test_what_is_remembered_is_bounded_whatever_is_sent(book):
    kept = Refusals(book)
    for number in range(40_000):
        kept.note(f"CSL-X{number % 1000:03}", "s" * 1000, f"{number} " + "w" * 1000)
        book.time += 10_000
    assert len(kept._written) <= MOST_AN_HOUR * 25 and len(kept._codes) <= MOST_CODES
    assert all(len(mark) == 32 for mark in kept._written)
    kept.close()
    assert book.told == 40_000 and max(item.others for item in book.sums) > 0


@settings(max_examples=60)
@given(
    steps=st.lists(st.tuples(st.integers(0, 2 * AN_HOUR), st.integers(1, 90), st.integers(0, 3)), max_size=25),
    ending=st.integers(0, AN_HOUR),
)
def test_every_refusal_is_told_once_and_no_hour_sees_more_than_its_share(steps, ending):
    book, sent = Book(), 0
    kept = Refusals(book)
    for gap, many, code in steps:
        book.time += gap
        for _ in range(many):
            sent += 1
            kept.note(f"CSL-C51{code}", "a study", f"reason {sent}")
    book.time += ending
    kept.close()
    assert book.told == sent
    hours = Counter(time // AN_HOUR for time, *_ in book.one)
    assert all(count <= 2 * MOST_AN_HOUR for count in hours.values())  # an hour by the clock touches two of ours
    assert len(book.sums) <= len(steps) + 1
