"""The Merkle tree over the ledger's entries (RFC 6962, section 2.1), grown leaf by leaf in O(log n).

`MTH({}) = SHA-256()`, `MTH({d}) = SHA-256(0x00 || d)`, and for n > 1 leaves `MTH = SHA-256(0x01 || MTH(left) ||
MTH(right))`, where the left part holds the largest power of two below n. A frontier is the roots of the perfect
subtrees that n leaves fall into, largest first: one for each bit that is set in n.
"""

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


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
    node = leaf
    while size & 1:
        node = node_hash(nodes.pop(), node)
        size >>= 1
    return (*nodes, node)


def root(frontier: Sequence[bytes]) -> bytes:
    """Return the tree head of a frontier, 32 bytes."""
    if not frontier:
        return EMPTY_ROOT
    *larger, node = frontier
    for left in reversed(larger):
        node = node_hash(left, node)
    return node
