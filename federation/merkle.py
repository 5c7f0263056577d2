"""The Merkle tree of a log (RFC 6962, section 2.1; RFC 9162, section 2.1): heads, inclusion and consistency proofs.

`MTH({}) = SHA-256()`, `MTH({d}) = SHA-256(0x00 || d)`, and for n > 1 leaves `MTH = SHA-256(0x01 || MTH(left) ||
MTH(right))`, where the left part holds the largest power of two below n. A frontier is the roots of the perfect
subtrees that n leaves fall into, largest first: one for each bit that is set in n.

Proofs are made in one pass over the leaf hashes, in order, and keep only the nodes on the way down to what is proved: a
log of a million entries is read as a stream.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from federation.errors import IntegrityError

EMPTY_ROOT = hashlib.sha256(b"").digest()
HASH_BYTES = 32
MAX_PROOF = 64  # one hash a level; no log has more than 2^63 entries

Proof = tuple[bytes, ...]
_Span = tuple[int, int]  # leaves start to end, end not included


def leaf_hash(body: bytes) -> bytes:
    """Return SHA-256(0x00 || body), 32 bytes."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(size: int, frontier: Sequence[bytes], leaf: bytes) -> tuple[bytes, ...]:
    """Return the frontier of `size + 1` leaves, given that of `size` leaves and the new leaf's hash.

    The new leaf merges with one subtree for every trailing one bit of `size`, as a binary counter carries.
    """
    nodes = list(frontier)
    _grow(nodes, size, leaf)
    return tuple(nodes)


def root(frontier: Sequence[bytes]) -> bytes:
    """Return the tree head of a frontier, 32 bytes."""
    if not frontier:
        return EMPTY_ROOT
    *larger, node = frontier
    for left in reversed(larger):
        node = node_hash(left, node)
    return node


def tree_root(leaves: Iterable[bytes], size: int) -> bytes:
    """Return the head of the tree over the first `size` leaf hashes, 32 bytes; raises as `inclusion_proof`."""
    return _stretch(iter(leaves), size)


def inclusion_proof(leaves: Iterable[bytes], index: int, size: int) -> Proof:
    """Return the audit path of the leaf number `index` in the tree over the first `size` leaf hashes (RFC 9162, 2.1.3.1).

    Time O(size), memory O(log size).

    Raises
    ------
    ValueError
        When not 0 <= index < size.
    IntegrityError
        CSL-F621 when there are fewer than `size` leaves.
    """
    return inclusion_proofs(leaves, index, index + 1, size)[0]


def inclusion_proofs(leaves: Iterable[bytes], start: int, end: int, size: int) -> tuple[Proof, ...]:
    """Return the audit path of each of the leaves `start` to `end` (not included), all in one pass.

    Time O(size + (end - start) log size); memory for the proofs themselves. Raises as `inclusion_proof`.
    """
    if not 0 <= start < end <= size:
        raise ValueError(f"no leaves {start} to {end} in a tree of {size}")
    nodes = _nodes(leaves, size, lambda low, high: low < end and start < high)
    return tuple(tuple(nodes[span] for span in _path(index, size)) for index in range(start, end))


def consistency_proof(leaves: Iterable[bytes], old: int, new: int) -> Proof:
    """Return the proof that the tree of the first `old` leaves is the beginning of that of the first `new` (RFC 9162, 2.1.4.1).

    Empty when `old` is 0 or `new`. Time O(new), memory O(log new).

    Raises
    ------
    ValueError
        When not 0 <= old <= new.
    IntegrityError
        CSL-F621 when there are fewer than `new` leaves.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} is no beginning of one of {new}")
    if old in (0, new):
        return ()
    nodes = _nodes(leaves, new, lambda low, high: low < old < high)
    return tuple(nodes[span] for span in _joint(old, new))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], head: bytes) -> bool:
    """Return whether the leaf hash stands at `index` in the tree of `size` leaves with this head (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or not _well_formed(proof):
        return False
    number, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if number & 1 or number == last:
            node = node_hash(sibling, node)
            while number and not number & 1:
                number, last = number >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and node == head


def verify_consistency(old: int, new: int, old_head: bytes, new_head: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether the tree of `old` leaves with its head is the beginning of the one of `new` (RFC 9162, 2.1.4.2).

    Every tree continues the empty one, and equal sizes have equal heads: both without a proof.
    """
    if not 0 <= old <= new or not _well_formed(proof):
        return False
    if old in (0, new):
        return not proof and old_head == (new_head if old == new else EMPTY_ROOT)
    # an old tree that is one perfect subtree of the new one is its own first node, which the proof leaves out
    path = list(proof) if old & (old - 1) else [old_head, *proof]
    return bool(path) and _climb(old - 1, new - 1, path) == (old_head, new_head)


def _climb(number: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return the old and the new head that a consistency path adds up to, or None when it is too long or too short."""
    while number & 1:
        number, last = number >> 1, last >> 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return None
        if number & 1 or number == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while number and not number & 1:
                number, last = number >> 1, last >> 1
        else:
            after = node_hash(after, node)
        number, last = number >> 1, last >> 1
    return (before, after) if last == 0 else None


def _well_formed(proof: Sequence[bytes]) -> bool:
    return len(proof) <= MAX_PROOF and all(len(node) == HASH_BYTES for node in proof)


def _grow(nodes: list[bytes], size: int, leaf: bytes) -> None:
    node = leaf
    while size & 1:
        node = node_hash(nodes.pop(), node)
        size >>= 1
    nodes.append(node)


def _stretch(leaves: Iterator[bytes], count: int) -> bytes:
    """Return the head over the next `count` leaves."""
    nodes: list[bytes] = []
    size = 0
    for leaf in islice(leaves, count):
        _grow(nodes, size, leaf)
        size += 1
    if size < count:
        raise IntegrityError(
            "CSL-F621",
            "The log holds fewer entries than its head says.",
            "Verify the ledger, and restore it from its last backup.",
        )
    return root(nodes)


def _nodes(leaves: Iterable[bytes], size: int, cut: Callable[[int, int], bool]) -> dict[_Span, bytes]:
    """Return the heads of all subtrees that are met on the way down; a subtree is entered only where `cut(start, end)` says so."""
    stream = iter(leaves)
    found: dict[_Span, bytes] = {}

    def visit(start: int, end: int) -> bytes:
        if end - start > 1 and cut(start, end):
            middle = start + _split(end - start)
            left = visit(start, middle)
            node = node_hash(left, visit(middle, end))
        else:
            node = _stretch(stream, end - start)
        found[start, end] = node
        return node

    visit(0, size)
    return found


def _split(count: int) -> int:
    """Return the largest power of two below `count` (at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _path(index: int, size: int) -> list[_Span]:
    """Return the subtrees beside the way from a leaf up to the head (`PATH` in RFC 9162, 2.1.3.1)."""
    start, end = 0, size
    down: list[_Span] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            down.append((middle, end))
            end = middle
        else:
            down.append((start, middle))
            start = middle
    return down[::-1]


def _joint(old: int, new: int) -> list[_Span]:
    """Return the subtrees of a consistency proof, 0 < old < new (`SUBPROOF` in RFC 9162, 2.1.4.1)."""
    start, end = 0, new
    down: list[_Span] = []
    while old < end:
        middle = start + _split(end - start)
        if old <= middle:
            down.append((middle, end))
            end = middle
        else:
            down.append((start, middle))
            start = middle
    return [*([(start, end)] if start else []), *down[::-1]]
