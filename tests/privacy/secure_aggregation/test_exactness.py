"""What is opened is the sum of the survivors' vectors, exactly: any number of members, any drops that are allowed, both widths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import IntegrityError
from privacy.secure_aggregation.derivation import pair_key
from privacy.secure_aggregation.masking import from_bytes, from_words, mask, to_bytes, to_words, unmask
from tests.privacy.secure_aggregation.federation import Coordinator, federation, vectors_of
from tests.privacy.secure_aggregation.reference import plain_sum

SLOW = settings(max_examples=15)


@st.composite
def sums(draw, most, least=3):
    """Members, terms, and from which call on (1: never ready, 2: ready, no vector) who is away, as many as may be."""
    n = draw(st.integers(least, most))
    c = draw(st.integers(0, n - 3))
    n_min = draw(st.integers(c + 3, n))
    asked = draw(st.integers(_least_asked(n_min, c), n))
    surviving = draw(st.integers(max(n_min, (asked + c) // 2 + 1), asked))
    order = draw(st.permutations(range(n)))
    leaves = dict.fromkeys(order[asked:], 1) | dict.fromkeys(order[surviving:asked], 2)
    return n, n_min, c, {f"member_{place:02d}": call for place, call in leaves.items()}


def _least_asked(n_min, c):
    return next(asked for asked in range(n_min, 200) if max(n_min, (asked + c) // 2 + 1) <= asked)


def run(case, d, w, seed):
    n, n_min, c, drops = case
    roster, members = federation(n, n_min, c)
    vectors = vectors_of(roster.keys, d, seed, (1 << (w - 1)) // n - 1)
    said = Coordinator(roster).run(members, vectors, drops, d=d, w=w)
    survivors = [name for name in vectors if name not in drops]
    assert sorted(said.reveals) == sorted(survivors)
    assert np.array_equal(said.total, plain_sum([vectors[name] for name in survivors]))


@given(sums(14), st.integers(1, 300), st.sampled_from([32, 64]), st.integers(0, 2**32))
@SLOW
def test_the_sum_of_the_survivors(case, d, w, seed):
    run(case, d, w, seed)


@given(sums(30, 15), st.integers(1, 70_000), st.sampled_from([32, 64]))
@settings(max_examples=2)
def test_the_sum_of_many(case, d, w):
    run(case, d, w, 0)


@given(sums(50, 31), st.integers(1, 12), st.sampled_from([32, 64]), st.integers(0, 2**32))
@settings(max_examples=4)
def test_the_sum_of_as_many_as_there_may_be(case, d, w, seed):
    run(case, d, w, seed)


@pytest.mark.parametrize(("d", "w"), [(1_000_000, 32), (1_000_000, 64), (65_536, 32), (32_769, 64)])
def test_the_sum_of_long_vectors(d, w):
    run((5, 3, 0, {"member_01": 2, "member_03": 1}), d, w, 1)


def test_fifty_members_of_whom_five_drop_out():
    drops = {f"member_{place:02d}": 2 for place in (0, 7, 22, 48, 49)}
    run((50, 40, 10, drops), 10, 32, 2)


def test_three_members_by_the_whole_protocol_and_none_may_drop():
    roster, members = federation(3, 3, 0, whole=True)
    vectors = vectors_of(roster.keys, 20, 3)
    assert np.array_equal(Coordinator(roster).run(members, vectors, d=20).total, sum(vectors.values()))
    with pytest.raises(IntegrityError, match="CSL-P813"):
        Coordinator(roster).run(members, vectors, {"member_00": 2}, number=2, d=20)


def test_many_sums_over_the_keys_of_one_study():
    roster, members = federation(6, 4, 1, whole=True)
    for number in (1, 2, 3):
        vectors = vectors_of(roster.keys, 7, number)
        said = Coordinator(roster).run(members, vectors, {f"member_0{number}": 2}, number=number, d=7)
        assert np.array_equal(said.total, sum(v for name, v in vectors.items() if name != f"member_0{number}"))


@pytest.mark.parametrize("call", [3, 4])
def test_a_sum_that_lost_a_member_too_late_is_asked_for_again_without_it(call):
    """Who was asked for its keys and gave none leaves the sum shut; nobody else has to spend anything for another attempt."""
    roster, members = federation(6, 4, 0)
    vectors = vectors_of(roster.keys, 5, 4)
    coordinator = Coordinator(roster)
    with pytest.raises(IntegrityError, match="CSL-P813"):
        coordinator.run(members, vectors, dict.fromkeys(members, call), d=5)
    said = coordinator.run(members, vectors, {"member_02": 1}, d=5, attempt=2)
    assert np.array_equal(said.total, sum(v for name, v in vectors.items() if name != "member_02"))


@given(
    st.integers(2, 9),
    st.sampled_from([(32, np.uint32), (64, np.uint64)]),
    st.integers(0, 2**32),
    st.sets(st.integers(0, 8), max_size=4),
)
def test_whatever_the_words_are_the_sum_is_exact_modulo_the_width(n, width, seed, gone):
    w, kind = width
    generator = np.random.default_rng(seed)
    names = [f"m{place}" for place in range(n)]
    dropped = [name for place, name in enumerate(names) if place in gone and place > 0]
    words = {name: generator.integers(0, 2**w, size=6, dtype=kind) for name in names}
    own = {name: generator.bytes(32) for name in names}
    roots = {frozenset((a, b)): generator.bytes(32) for a in names for b in names if a < b}
    t = generator.bytes(32)
    total, survivors = np.zeros(6, dtype=kind), [name for name in names if name not in dropped]
    for name in survivors:
        peers = {peer: roots[frozenset((name, peer))] for peer in names if peer != name}
        total += mask(words[name], own[name], t, name, peers, peers)
    shown = {
        name: {other: pair_key(roots[frozenset((name, other))], t, name, other) for other in dropped}
        for name in survivors
    }
    unmask(total, t, {name: own[name] for name in survivors}, shown)
    expected = np.zeros(6, dtype=kind)
    for name in survivors:
        expected += words[name]
    assert np.array_equal(total, expected)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.sampled_from([32, 64]))
def test_integers_are_words_and_words_integers(values, w):
    words = to_words(np.array(values, dtype=np.int64), w)
    content = to_bytes(words)
    assert content == b"".join((value % 2**w).to_bytes(w // 8, "little") for value in values)
    assert from_words(from_bytes(content, w, len(values))).tolist() == values
