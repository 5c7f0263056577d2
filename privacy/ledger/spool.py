"""A log's Merkle tree while it is read: every node on disk, so that any head and any proof is at hand and memory stays
the same however long the log is.

Nodes lie in the order in which they are finished (post-order): the leaf number n at place 2n - popcount(n), and the root
of the perfect subtree over leaves a to a + 2^k at place 2a - popcount(a) + 2^(k+1) - 2.
"""

import os
import tempfile
from collections.abc import Iterable
from typing import Self

from federation.merkle import EMPTY_ROOT, HASH_BYTES, Proof, node_hash, root


class TreeSpool:
    """The tree over a log's leaves, kept in a private temporary file that vanishes when it is closed.

    Parameters
    ----------
    size, frontier:
        Where the log is taken up: number of leaves before, and the roots (32 bytes each) of the perfect subtrees that
        they fall into, largest first. Heads and proofs inside what came before are not to be had then.
    """

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        self._file = tempfile.TemporaryFile(prefix="consilience-tree-")
        self._size = self.start = size
        self._frontier = list(frontier)
        self._first = _place(size)
        self._given = dict(zip(_subtrees(size), self._frontier, strict=True))
        self._flushed = True

    @property
    def size(self) -> int:
        """Number of leaves, those before `start` included."""
        return self._size

    def close(self) -> None:
        """Forget the tree."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash (32 bytes)."""
        nodes, carry = [leaf], self._size
        while carry & 1:
            nodes.append(node_hash(self._frontier.pop(), nodes[-1]))
            carry >>= 1
        self._frontier.append(nodes[-1])
        self._file.write(b"".join(nodes))
        self._size += 1
        self._flushed = False

    def root(self, size: int) -> bytes | None:
        """Return the head over the first `size` leaves; None when the tree does not reach so far, or begins later."""
        if not self.start <= size <= self._size:
            return None
        if size == self._size:
            return root(self._frontier)
        return self._hash(0, size) if size else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash number `index`, start <= index < size."""
        return self._hash(index, index + 1)

    def inclusion(self, index: int, size: int) -> Proof:
        """Return the audit path of a leaf in the tree over the first `size` leaves (RFC 9162, 2.1.3.1); for a tree from
        its first leaf on."""
        low, high = 0, size
        down: list[bytes] = []
        while high - low > 1:
            middle = low + (1 << ((high - low - 1).bit_length() - 1))
            if index < middle:
                down.append(self._hash(middle, high))
                high = middle
            else:
                down.append(self._hash(low, middle))
                low = middle
        return tuple(reversed(down))

    def consistency(self, old: int, new: int) -> Proof:
        """Return the proof that the tree of `old` leaves begins that of `new` (RFC 9162, 2.1.4.1), 0 <= old <= new; for a
        tree from its first leaf on. Empty when `old` is 0 or `new`."""
        if old in (0, new):
            return ()
        low, high = 0, new
        down: list[bytes] = []
        while old < high:
            middle = low + (1 << ((high - low - 1).bit_length() - 1))
            if old <= middle:
                down.append(self._hash(middle, high))
                high = middle
            else:
                down.append(self._hash(low, middle))
                low = middle
        return (*([self._hash(low, high)] if low else []), *reversed(down))

    def _hash(self, low: int, high: int) -> bytes:
        """Return the head over leaves `low` to `high`, a subtree of some tree over this log."""
        count = high - low
        if count & (count - 1) == 0:
            return self._node(_place(low) + 2 * count - 2)
        middle = low + (1 << (count.bit_length() - 1))
        return node_hash(self._hash(low, middle), self._hash(middle, high))

    def _node(self, place: int) -> bytes:
        if place < self._first:
            return self._given[place]
        if not self._flushed:
            self._file.flush()
            self._flushed = True
        return os.pread(self._file.fileno(), HASH_BYTES, (place - self._first) * HASH_BYTES)


def _place(leaf: int) -> int:
    """Return where a leaf lies."""
    return 2 * leaf - leaf.bit_count()


def _subtrees(size: int) -> list[int]:
    """Return where the roots of the perfect subtrees of `size` leaves lie, largest first."""
    places, low = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            places.append(_place(low) + (2 << level) - 2)
            low += 1 << level
    return places
