"""Draws from a law on finitely many integers, by a cumulative table of 128 bits: exact but for 2^-128 an entry, and fast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from privacy.randomness import RandomSource

TABLE_BITS = 128
_WORD = (1 << 64) - 1


class TableSampler:
    """Draws an index by a uniform integer of 128 bits, looked up in cumulative probabilities.

    The high 64 bits decide nearly always; the low ones are drawn only when the high ones equal those of a table entry, which gives
    the same law. A sampler holds no state: any number of threads may draw from it.

    Parameters
    ----------
    cumulative:
        2^128 P(index <= i) as integers for i = 0, 1, ..., never falling, all below 2^128; the last index, whose value would be 2^128,
        is left out. Where each is within one unit of the exact value, the law of a draw is within `len(cumulative)` 2^-128 of the exact
        one in total variation.
    """

    def __init__(self, cumulative: Sequence[int]) -> None:
        self._high = np.array([value >> 64 for value in cumulative], dtype=np.uint64)
        self._low = np.array([value & _WORD for value in cumulative], dtype=np.uint64)
        bits = min(max(len(cumulative).bit_length() + 4, 12), 20)
        self._shift = np.uint64(64 - bits)
        self._guide = self._guide_table(bits)

    def _guide_table(self, bits: int) -> NDArray[np.int32]:
        """The answer for each leading `bits` bits, or -1 where they do not settle it."""
        first = np.arange(1 << bits, dtype=np.uint64) << self._shift
        last = first | ((np.uint64(1) << self._shift) - np.uint64(1))
        below = np.searchsorted(self._high, first, side="left")
        settled = below == np.searchsorted(self._high, last, side="right")
        below[~settled] = -1
        return below.astype(np.int32)

    def draw(self, n: int, source: RandomSource) -> NDArray[np.int64]:
        """Return `n` independent indices, each from 0 to the table's length: int64 [n]."""
        high = source.integers64(n)
        index: NDArray[np.int64] = self._guide[high >> self._shift].astype(np.int64)
        open_ = np.flatnonzero(index < 0)
        if open_.size:
            index[open_] = self._search(high[open_], source)
        return index

    def _search(self, high: NDArray[np.uint64], source: RandomSource) -> NDArray[np.int64]:
        """Count the table entries that are not above each value, drawing its low word where the high word ties."""
        first = np.searchsorted(self._high, high, side="left")
        after = np.searchsorted(self._high, high, side="right")
        tied = np.flatnonzero(first != after)
        for position, low in zip(tied.tolist(), source.integers64(tied.size), strict=True):
            entries = self._low[first[position] : after[position]]
            first[position] += np.searchsorted(entries, low, side="right")
        return first.astype(np.int64)
