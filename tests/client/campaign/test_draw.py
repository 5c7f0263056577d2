"""The draw: everybody once, shares as stated, the same by the same seed, and nobody favoured."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.campaign.draw import CONTROL, UNIT, WHOLE, Candidate, draw, rounded, strata_of
from client.campaign.uplift import Rate, difference
from federation.errors import DataError
from tests.client.campaign.parts import SHARES, candidates

SHARE_SETS = st.lists(st.floats(0.02, 0.45), min_size=1, max_size=4).filter(lambda parts: sum(parts) < 0.99)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    SHARE_SETS,
    st.floats(0, 0.6),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20),
)
@settings(max_examples=150)
def test_everybody_once_and_as_many_as_the_shares_say(n, listed, parts, random_share, seed):
    people = candidates(n, min(listed, n))
    shares = {f"arm{number}": part for number, part in enumerate(parts)}
    mine = min(listed, n)
    wanted = round(mine * random_share / (1 - random_share))
    if wanted > n - mine:
        with pytest.raises(DataError, match="CSL-C783"):
            draw(people, shares, random_share, "spring", seed)
        return
    members = draw(people, shares, random_share, "spring", seed)
    assert [member.customer for member in members] == sorted({member.customer for member in members})
    by = {person.customer: person for person in people}
    assert all((member.chosen_by == "model") == by[member.customer].listed for member in members)
    assert Counter(member.chosen_by for member in members) == Counter(model=mine, random=wanted)
    counts = Counter(member.arm for member in members)
    assert set(counts) <= {*shares, CONTROL}
    for name, share in {**shares, CONTROL: 1 - sum(parts)}.items():
        assert abs(counts[name] - share * len(members)) < 1.001
    assert all(
        (by[member.customer].decile, by[member.customer].segment, by[member.customer].score)
        == (member.decile, member.segment, member.score)
        for member in members
    )


@given(st.lists(st.integers(1, 60), max_size=30), SHARE_SETS, st.integers(0, 2**32))
@settings(max_examples=150)
def test_rounding_gives_every_stratum_and_every_group_its_share_up_to_one(sizes, shares, seed):
    parts = [round(share * WHOLE) for share in shares]
    parts.append(WHOLE - sum(parts))
    generator = random.Random(seed)
    seats = rounded(sizes, parts, iter(lambda: generator.randrange(UNIT), None))
    assert [sum(row) for row in seats] == sizes
    for size, row in zip(sizes, seats, strict=True):
        assert all(
            size * part // WHOLE <= given <= -(-size * part // WHOLE) for given, part in zip(row, parts, strict=True)
        )
    for part, column in zip(parts, zip(*seats, strict=True), strict=False):
        assert sum(sizes) * part // WHOLE <= sum(column) <= -(-sum(sizes) * part // WHOLE)


def test_within_a_stratum_the_shares_hold_too():
    members = draw(candidates(20_000, 4000), SHARES, 0.3, "spring", "seed")
    sizes = Counter(member.stratum for member in members)
    for stratum, size in sizes.items():
        arms = Counter(member.arm for member in members if member.stratum == stratum)
        for name, share in {**SHARES, CONTROL: 0.2}.items():
            assert abs(arms[name] - share * size) < 1.001
    picked = Counter((member.decile, member.segment) for member in members if member.chosen_by == "random")
    others = Counter((p.decile, p.segment) for p in candidates(20_000, 4000) if not p.listed)
    rate = sum(picked.values()) / sum(others.values())
    assert all(abs(picked[stratum] - rate * count) <= 1 for stratum, count in others.items())


def test_the_same_seed_gives_the_same_draw_whatever_the_order_and_another_one_another():
    people = candidates(800, 200)
    first = draw(people, SHARES, 0.2, "spring", "seed")
    shuffled = people.copy()
    random.Random(3).shuffle(shuffled)
    assert draw(shuffled, SHARES, 0.2, "spring", "seed") == first
    assert draw(people, SHARES, 0.2, "spring", "seeds") != first
    assert draw(people, SHARES, 0.2, "autumn", "seed") != first


def test_two_campaigns_by_one_seed_hold_back_different_customers():
    people = candidates(5000, 5000)
    held = [
        {member.customer for member in draw(people, SHARES, 0.0, name, "seed") if member.arm == CONTROL}
        for name in ("spring", "autumn")
    ]
    assert abs(len(held[0] & held[1]) - 5000 * 0.04) < 5 * np.sqrt(5000 * 0.04 * 0.96)


def test_nobody_is_favoured_by_her_stratum_or_her_number():
    """Over 3,000 seeds everybody is in each arm as often as its share says: in strata of one, two and six customers.

    27 frequencies, each within 4.5 standard deviations: by chance one fails in less than 1 of 5,000 runs.
    """
    people = [Candidate(f"p{place}", 0.5, decile, "other", True) for place, decile in enumerate([1, 2, 2, *[3] * 6])]
    runs, found = 3000, Counter[tuple[str, str]]()
    for seed in range(runs):
        found.update((member.customer, member.arm) for member in draw(people, SHARES, 0.0, "x", str(seed)))
    for person in people:
        for arm, share in {**SHARES, CONTROL: 0.2}.items():
            slack = 4.5 * np.sqrt(runs * share * (1 - share))
            assert abs(found[person.customer, arm] - runs * share) < slack, (person.customer, arm)


def test_chance_chooses_everybody_off_the_list_alike():
    """Over 3,000 seeds, 20 frequencies, each within 4.5 standard deviations."""
    people = candidates(25, 5)
    runs, found = 3000, Counter[str]()
    for seed in range(runs):
        members = draw(people, SHARES, 0.5, "x", str(seed))
        found.update(member.customer for member in members if member.chosen_by == "random")
    chance = 5 / 20
    for person in people[5:]:
        assert abs(found[person.customer] - runs * chance) < 4.5 * np.sqrt(runs * chance * (1 - chance))


def test_where_nothing_was_done_the_groups_hardly_ever_differ():
    """An approach without effect, 600 draws over the same customers: a 95% interval misses zero in 5% of them, found within 2% to 8%."""
    people = candidates(400, 400)
    generator = np.random.default_rng(5)
    would = {person.customer: bool(generator.random() < 0.3 * person.score) for person in people}
    missed = 0
    for seed in range(600):
        members = draw(people, {"mail": 0.5}, 0.0, "x", str(seed))
        groups = {arm: [would[m.customer] for m in members if m.arm == arm] for arm in ("mail", CONTROL)}
        treated, control = (Rate(sum(group), len(group)) for group in groups.values())
        found = difference(treated, control)
        missed += not found.low <= 0 <= found.high
    assert 0.005 <= missed / 600 <= 0.08


def test_too_few_to_draw_is_said():
    with pytest.raises(DataError, match="Nobody on the model's list"):
        draw(candidates(10, 0), SHARES, 0.2, "x", "s")
    with pytest.raises(DataError, match="2 others; 8 others were to be drawn"):
        draw(candidates(10, 8), SHARES, 0.5, "x", "s")


def test_strata_count_everybody_who_could_be_chosen():
    found = strata_of(candidates(100, 15))
    assert found["model", 1] == 10 and found["model", 2] == 5 and found["random", 2] == 5
    assert sum(found.values()) == 100
