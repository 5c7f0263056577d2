"""The draw: who of those who may be approached is approached, by which arm, and who is held back as control.

Why it is fair. Every customer's place is her HMAC-SHA256 under a key made of the campaign's name and its stated seed: who
stated the seed before the draw could not aim at anybody, the same seed gives the same draw again (so that it can be checked), and
another seed would have exchanged any two customers of a stratum (chosen by, decile, segment) with even odds. Within a stratum the
groups therefore differ by chance alone, which is what comparing them with the control group asks for.

Within every stratum each group gets its share rounded down or up, as by largest remainders; but which groups are rounded up is drawn by
the key, so that rounding up has exactly the chance of the remainder. Plain largest remainders would give the one customer of a small
stratum to the largest arm every time, and the control group would lack such customers. The draws are tied together so that in all, too,
each group gets its share rounded down or up (L. H. Cox, Journal of the American Statistical Association 82 (1987) 520-524).
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from federation.errors import DataError

CONTROL = "control"
UNIT = 1 << 48
WHOLE = 1_000_000
"""Shares count to six digits."""
ChosenBy = Literal["model", "random"]
Stratum = tuple[str, int, str]


@dataclass(frozen=True)
class Candidate:
    """A customer who may be approached: score and decile as in the ranking, her segment, and whether the model listed her."""

    customer: str
    score: float
    decile: int
    segment: str
    listed: bool


@dataclass(frozen=True)
class Member:
    """A customer of a campaign: which arm she is in (or `control`), and whether the model or chance chose her."""

    customer: str
    arm: str
    chosen_by: ChosenBy
    decile: int
    segment: str
    score: float

    @property
    def stratum(self) -> Stratum:
        """What she is drawn within."""
        return (self.chosen_by, self.decile, self.segment)


def draw(
    candidates: Sequence[Candidate], shares: dict[str, float], random_share: float, name: str, seed: str
) -> tuple[Member, ...]:
    """Draw a campaign's members, ordered by identifier.

    Parameters
    ----------
    candidates:
        Everybody who may be approached, once each; the order does not matter.
    shares:
        The share of each arm; what is missing to 1 is the control group.
    random_share:
        The share of the members who are drawn from those whom the model did not list, from 0 to below 1.
    name, seed:
        What the draw is keyed by: two campaigns with the same seed are drawn independently.

    Raises
    ------
    DataError
        CSL-C783 when nobody is listed, or when fewer than asked are not.
    """
    key = hashlib.sha256(b"csl1/campaign\0" + name.encode() + b"\0" + seed.encode()).digest()
    listed = [item for item in candidates if item.listed]
    others = [item for item in candidates if not item.listed]
    wanted = round(len(listed) * random_share / (1 - random_share))
    if not listed or wanted > len(others):
        raise DataError(
            "CSL-C783",
            f"{len(listed)} customers on the model's list may be approached, and {len(others)} others; "
            f"{max(1, wanted)} others were to be drawn."
            if listed
            else "Nobody on the model's list may be approached.",
            "Take a shorter list by --top, or a smaller --random-share.",
        )
    chosen: list[tuple[ChosenBy, Candidate]] = [("model", item) for item in listed]
    chosen += [("random", item) for item in _sample(others, wanted, key)]
    return tuple(sorted(_assign(chosen, shares, key), key=lambda member: member.customer))


def strata_of(candidates: Iterable[Candidate]) -> Counter[tuple[ChosenBy, int]]:
    """Return how many candidates each group is drawn from: (chosen by, decile) -> customers."""
    return Counter(("model" if item.listed else "random", item.decile) for item in candidates)


def rounded(sizes: Sequence[int], parts: Sequence[int], draws: Iterator[int]) -> list[list[int]]:
    """Return how many of each stratum every group gets: size x part / `WHOLE`, rounded down or up, and so is each group's sum.

    Cox's controlled random rounding: each number is rounded up with a chance of exactly its remainder.

    Parameters
    ----------
    sizes:
        Customers of each stratum.
    parts:
        The groups' shares in parts of `WHOLE`; they add up to it.
    draws:
        Whole numbers, uniform from 0 to below `UNIT`.
    """
    table = [[size * part for part in parts] for size in sizes]
    sums = [sum(column) for column in zip(*table, strict=True)] or [0] * len(parts)
    table.append([-total % WHOLE for total in sums])  # makes every column's sum whole; rows' sums are whole already
    while (start := _loose_cell(table)) is not None:
        _round_along(_cycle(table, start), table, next(draws))
    return [[value // WHOLE for value in row] for row in table[:-1]]


def _loose_cell(table: list[list[int]]) -> int | None:
    """Return a column in which something is left to round."""
    return next((place for row in table for place, value in enumerate(row) if value % WHOLE), None)


def _cycle(table: list[list[int]], column: int) -> dict[tuple[int, int], int]:
    """Return cells with remainders and a sign each, as many plus as minus in every row and column.

    From column to column along rows: whatever has one remainder has a second, as its sum is whole; so the walk comes back.
    """
    columns, rows = [column], [-1]
    while True:
        here = columns[-1]
        row = next(place for place, line in enumerate(table) if line[here] % WHOLE and place != rows[-1])
        there = next(place for place, value in enumerate(table[row]) if value % WHOLE and place != here)
        rows.append(row)
        columns.append(there)
        if there in columns[:-1]:
            break
    begin = columns.index(columns[-1])
    signs: Counter[tuple[int, int]] = Counter()
    for step in range(begin, len(columns) - 1):
        signs[rows[step + 1], columns[step]] += 1
        signs[rows[step + 1], columns[step + 1]] -= 1
    return {cell: sign for cell, sign in signs.items() if sign}


def _round_along(cycle: dict[tuple[int, int], int], table: list[list[int]], drawn: int) -> None:
    """Move the remainders of a cycle one way or the other until one is whole, with odds that leave every mean as it is."""
    up = min((-table[row][place] if sign > 0 else table[row][place]) % WHOLE for (row, place), sign in cycle.items())
    down = min((table[row][place] if sign > 0 else -table[row][place]) % WHOLE for (row, place), sign in cycle.items())
    step = up if drawn * (up + down) < down * UNIT else -down
    for (row, place), sign in cycle.items():
        table[row][place] += sign * step


def _sample(others: Sequence[Candidate], wanted: int, key: bytes) -> list[Candidate]:
    """Draw systematically from a start that the key draws, along strata: each customer has the chance wanted / others exactly, and
    each stratum its share up to one customer (W. G. Cochran, Sampling Techniques, 1977, chapter 8)."""
    if not wanted:
        return []
    frame = sorted(others, key=lambda item: (item.decile, item.segment, _hash(key, b"choose", item.customer)))
    start = _whole(key, b"start")  # whole numbers, so that no rounding takes one customer twice
    return [frame[(start + place * UNIT) * len(frame) // (wanted * UNIT)] for place in range(wanted)]


def _assign(chosen: Sequence[tuple[ChosenBy, Candidate]], shares: dict[str, float], key: bytes) -> Iterable[Member]:
    names = [*shares, CONTROL]
    parts = [round(share * WHOLE) for share in shares.values()]
    strata = _strata(chosen, key)
    seats = rounded([len(group) for _, group in strata], [*parts, WHOLE - sum(parts)], _numbers(key))
    for (by, group), counts in zip(strata, seats, strict=True):
        arms = (name for name, count in zip(names, counts, strict=True) for _ in range(count))
        for item, arm in zip(group, arms, strict=True):
            yield Member(item.customer, arm, by, item.decile, item.segment, item.score)


def _strata(chosen: Sequence[tuple[ChosenBy, Candidate]], key: bytes) -> list[tuple[ChosenBy, list[Candidate]]]:
    """Return the strata, each with its customers in an order that the key draws."""
    found: dict[tuple[ChosenBy, int, str], list[Candidate]] = {}
    for by, item in chosen:
        found.setdefault((by, item.decile, item.segment), []).append(item)
    return [
        (stratum[0], sorted(found[stratum], key=lambda item: _hash(key, b"assign", item.customer)))
        for stratum in sorted(found)
    ]


def _numbers(key: bytes) -> Iterator[int]:
    """Yield numbers for the rounding that the key draws."""
    return (_whole(key, b"round %d" % number) for number in count())


def _hash(key: bytes, what: bytes, text: str) -> bytes:
    return hmac.digest(key, what + b"\0" + text.encode(), hashlib.sha256)


def _whole(key: bytes, what: bytes) -> int:
    """A whole number from 0 to below `UNIT` that the key draws."""
    return int.from_bytes(_hash(key, what, "")[:6], "big")
