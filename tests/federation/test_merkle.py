import hashlib
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import IntegrityError
from federation.merkle import (
    EMPTY_ROOT,
    MAX_PROOF,
    append,
    consistency_proof,
    inclusion_proof,
    inclusion_proofs,
    leaf_hash,
    node_hash,
    root,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(min_value=1, max_value=130)


def split(count: int) -> int:
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def definition(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + definition(leaves[:k]) + definition(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """PATH of RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return ()
    k = split(len(leaves))
    if m < k:
        return (*path(m, leaves[:k]), definition(leaves[k:]))
    return (*path(m - k, leaves[k:]), definition(leaves[:k]))


def subproof(m: int, leaves: Sequence[bytes], complete: bool) -> tuple[bytes, ...]:
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    if m == len(leaves):
        return () if complete else (definition(leaves),)
    k = split(len(leaves))
    if m <= k:
        return (*subproof(m, leaves[:k], complete), definition(leaves[k:]))
    return (*subproof(m - k, leaves[k:], False), definition(leaves[:k]))


def some(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(8, "big")) for number in range(count)]


def flips(proof: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """Every proof that differs in one bit, lacks one hash, repeats one, or has one more."""
    changed = []
    for place, node in enumerate(proof):
        for bit in range(8 * len(node)):
            flipped = bytearray(node)
            flipped[bit // 8] ^= 1 << bit % 8
            changed.append((*proof[:place], bytes(flipped), *proof[place + 1 :]))
        changed.append((*proof[:place], *proof[place + 1 :]))
        changed.append((*proof[:place], node, *proof[place:]))
    return [*changed, (*proof, EMPTY_ROOT), (EMPTY_ROOT, *proof), (*proof, b"")]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_frontier_gives_the_root_of_the_definition_at_every_size(bodies):
    leaves = [leaf_hash(body) for body in bodies]
    frontier: tuple[bytes, ...] = ()
    for size, leaf in enumerate(leaves):
        assert root(frontier) == definition(leaves[:size]) == tree_root(leaves, size)
        assert len(frontier) == size.bit_count()
        frontier = append(size, frontier, leaf)
    assert root(frontier) == definition(leaves) == tree_root(iter(leaves), len(leaves))


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


def test_inclusion_of_every_leaf_at_every_size_is_the_definitions():
    for size in range(1, 34):
        leaves = some(size)
        head = definition(leaves)
        for index in range(size):
            proof = inclusion_proof(leaves, index, size)
            assert proof == path(index, leaves)
            assert verify_inclusion(leaves[index], index, size, proof, head)


@given(SIZES, st.data())
def test_inclusion_proofs_of_a_stretch_are_those_of_its_leaves(size, data):
    leaves = some(size + 3)
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    expected = tuple(path(index, leaves[:size]) for index in range(start, end))
    assert inclusion_proofs(iter(leaves), start, end, size) == expected


def test_consistency_between_all_sizes_is_the_definitions():
    for new in range(34):
        leaves = some(new)
        head = definition(leaves)
        for old in range(new + 1):
            proof = consistency_proof(leaves, old, new)
            assert proof == (subproof(old, leaves, True) if old else ())
            assert verify_consistency(old, new, definition(leaves[:old]), head, proof)


@given(SIZES, st.data())
def test_proofs_are_short_and_read_no_leaf_twice(size, data):
    old = data.draw(st.integers(0, size))
    stream = iter([*some(size), b"beyond"])
    proof = consistency_proof(stream, old, size)
    assert len(proof) <= size.bit_length() + 1 <= MAX_PROOF
    assert old in (0, size) or list(stream) == [b"beyond"]


@settings(max_examples=30)
@given(st.integers(min_value=1, max_value=40), st.data())
def test_no_changed_inclusion_proof_holds(size, data):
    leaves = some(size)
    index = data.draw(st.integers(0, size - 1))
    head, proof = definition(leaves), path(index, leaves)
    assert not any(verify_inclusion(leaves[index], index, size, wrong, head) for wrong in flips(proof))
    others = [(other, index, size, head) for other in leaves if other != leaves[index]]
    others += [(leaves[index], other, size, head) for other in range(-1, size + 2) if other != index]
    others += [(leaves[index], index, size, definition(leaves[:-1]))]
    assert not any(verify_inclusion(leaf, at, count, proof, top) for leaf, at, count, top in others)


@settings(max_examples=30)
@given(st.integers(min_value=1, max_value=40), st.data())
def test_no_changed_consistency_proof_holds(new, data):
    leaves = some(new)
    old = data.draw(st.integers(0, new))
    before, after, proof = definition(leaves[:old]), definition(leaves), consistency_proof(leaves, old, new)
    assert not any(verify_consistency(old, new, before, after, wrong) for wrong in flips(proof))
    assert not verify_consistency(old, new, leaf_hash(b"other"), after, proof)
    assert not verify_consistency(old + 1, old, before, after, proof) and not verify_consistency(
        -1, new, before, after, proof
    )
    if old:
        assert not verify_consistency(old, new, before, leaf_hash(b"other"), proof)


@given(st.integers(min_value=2, max_value=60), st.data())
def test_no_proof_joins_two_histories(size, data):
    """A changed entry in the common part: neither history's proof leads from the one to the other."""
    leaves = some(size)
    old = data.draw(st.integers(1, size - 1))
    forged = list(leaves)
    forged[data.draw(st.integers(0, old - 1))] = leaf_hash(b"forged")
    before, after = definition(leaves[:old]), definition(forged)
    for proof in (consistency_proof(leaves, old, size), consistency_proof(forged, old, size)):
        assert not verify_consistency(old, size, before, after, proof)


def test_two_empty_trees_are_equal_only_by_their_head():
    assert verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, ())
    assert not verify_consistency(0, 0, EMPTY_ROOT, leaf_hash(b""), ())
    assert not verify_consistency(0, 5, leaf_hash(b""), definition(some(5)), ())


@pytest.mark.parametrize(
    "ask",
    [
        lambda leaves: inclusion_proof(leaves, 5, 5),
        lambda leaves: inclusion_proof(leaves, -1, 5),
        lambda leaves: inclusion_proofs(leaves, 3, 3, 5),
        lambda leaves: consistency_proof(leaves, 6, 5),
        lambda leaves: consistency_proof(leaves, -1, 5),
    ],
)
def test_what_a_tree_does_not_have_cannot_be_proved(ask):
    with pytest.raises(ValueError, match="tree of"):
        ask(some(5))


@pytest.mark.parametrize(
    "ask",
    [
        lambda leaves: tree_root(leaves, 6),
        lambda leaves: inclusion_proof(leaves, 1, 6),
        lambda leaves: consistency_proof(leaves, 3, 6),
    ],
)
def test_a_log_that_is_shorter_than_its_head_is_noticed(ask):
    with pytest.raises(IntegrityError) as caught:
        ask(some(5))
    assert caught.value.code == "CSL-F621"


def test_a_long_log_is_read_once_and_fast():
    count = 100_000
    leaves = some(count)
    head = tree_root(leaves, count)
    started = time.process_time()
    proof = consistency_proof(iter(leaves), 65_537, count)
    assert time.process_time() - started < 5.0
    assert verify_consistency(65_537, count, tree_root(leaves, 65_537), head, proof)
