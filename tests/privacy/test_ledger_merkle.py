import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.ledger.merkle import EMPTY_ROOT, append, leaf_hash, node_hash, root


def definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + definition(leaves[:split]) + definition(leaves[split:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_frontier_gives_the_root_of_the_definition_at_every_size(bodies):
    leaves = [leaf_hash(body) for body in bodies]
    frontier: tuple[bytes, ...] = ()
    for size, leaf in enumerate(leaves):
        assert root(frontier) == definition(leaves[:size])
        assert len(frontier) == size.bit_count()
        frontier = append(size, frontier, leaf)
    assert root(frontier) == definition(leaves)


@pytest.mark.parametrize(
    ("computed", "known"),
    [
        (EMPTY_ROOT, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (leaf_hash(b""), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    ],
)
def test_known_values(computed, known):
    assert computed.hex() == known


def test_leaves_and_nodes_never_coincide():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
