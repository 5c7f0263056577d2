"""The tree on disk says the same as the tree in memory, and what a verifier remembers is what was read."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.merkle import (
    EMPTY_ROOT,
    append,
    consistency_proof,
    inclusion_proof,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from privacy.ledger.spool import TreeSpool


def leaves(count):
    return [sha256(str(number).encode()).digest() for number in range(count)]


@settings(max_examples=120)
@given(st.integers(1, 200), st.data())
def test_heads_and_proofs_are_those_of_rfc_9162(count, data):
    items = leaves(count)
    index = data.draw(st.integers(0, count - 1))
    old = data.draw(st.integers(0, count))
    with TreeSpool() as spool:
        for item in items:
            spool.append(item)
        size = data.draw(st.integers(index + 1, count))
        assert spool.root(old) == tree_root(items, old) and spool.leaf(index) == items[index]
        assert spool.inclusion(index, size) == inclusion_proof(items, index, size)
        assert spool.consistency(old, count) == consistency_proof(items, old, count)
        assert verify_inclusion(items[index], index, size, spool.inclusion(index, size), spool.root(size))
        assert verify_consistency(old, count, spool.root(old), spool.root(count), spool.consistency(old, count))


@settings(max_examples=120)
@given(st.integers(0, 120), st.integers(0, 80), st.data())
def test_a_tree_that_is_taken_up_in_the_middle(start, more, data):
    items = leaves(start + more)
    frontier = ()
    for size in range(start):
        frontier = append(size, frontier, items[size])
    with TreeSpool(start, frontier) as spool:
        for item in items[start:]:
            spool.append(item)
        size = data.draw(st.integers(0, start + more + 3))
        inside = start <= size <= start + more
        assert spool.root(size) == (tree_root(items, size) if inside else None)


def test_an_empty_tree():
    with TreeSpool() as spool:
        assert spool.root(0) == EMPTY_ROOT and spool.root(1) is None
