"""Trees: the best question without noise, every customer in one leaf, nothing grown out of nothing, and budgets kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.errors import FederationError
from federation.measures import Cells, GroupsAxis, RulesAxis, Term, problems_of, sensitivity, shape_of
from federation.queries import Accuracy, Tree
from server.statistics.asking import Setting, Sum
from server.statistics.growing import axis_of, best, promising, questions
from server.statistics.leaves import Leaf, Step, rule_text
from server.statistics.trees import TreeAsker, check
from simulations.asker_play import play
from tests.server.statistics.town import CONTRACT, Town, setting, town

SHARE = 16_384.0
SD = SHARE * 5**0.5


def query(**changes: object) -> Tree:
    of = ("age", "income", "score", "region", "arm")
    return Tree.model_validate(
        {"id": "q", "kind": "tree", "of": of, "label": "bought", "depth": 2, "smallest_leaf": 50} | changes
    )


def per_round(mu: float, rounds: int) -> float:
    return mu / rounds**0.5 * SHARE


def strong(seed: int, size: int = 6000) -> Town:
    """A town where age, region and the score decide."""
    found = town(np.random.default_rng(seed), size)
    frame = found.frame
    rate = np.where(frame["age"] >= 45, 0.6, 0.1) + np.where(frame["region"] == "south", 0.3, 0.0) * (
        frame["age"] >= 45
    )
    label = (np.random.default_rng(seed + 1).random(size) < rate).astype(float)
    frame["bought"] = label
    for place, cohort in enumerate(found.cohorts):
        object.__setattr__(cohort["start"], "label", label[place :: len(found.cohorts)])
    return found


def exact_leaves(asker: TreeAsker, people: Town) -> np.ndarray:
    """Customers by leaf and label, [leaves + 1, 3], as vaults count them."""
    measure = Cells(axes=(RulesAxis(rules=asker.rules), GroupsAxis(column="bought")), terms=(Term(cap=1),))
    total = sum(measure_all([measure], People.of(CONTRACT, cohort), CONTRACT) for cohort in people.cohorts)
    return np.asarray(total).reshape(len(asker.rules) + 1, 3)


def test_without_noise_the_tree_is_scikit_learns_on_the_same_bins():
    people = strong(3)
    asker = TreeAsker(query(of=("age", "score"), depth=2), setting())
    answer = play(asker, CONTRACT, people.cohorts, budget=1e6, sd=0.0, generator=np.random.default_rng(0))
    bins = np.stack(
        [np.searchsorted(axis_of(name, CONTRACT).cuts, people.frame[name], side="right") for name in ("age", "score")],
        axis=1,
    )
    reference = DecisionTreeClassifier(max_depth=1).fit(bins, people.frame["bought"])
    first = answer.table("splits").rows[0]
    assert reference.tree_.feature[0] == 0 and first.key[1] in ("age below 45 years", "age at least 45 years")
    assert reference.tree_.threshold[0] == 1.5
    # the second level finds nothing, as scikit-learn's leaves at the first level are what was drawn
    rates = sorted(row.value for row in answer.table("leaves").rows)
    assert rates == pytest.approx(sorted(reference.tree_.value[1:, 0, 1]), abs=1e-6)


def test_without_noise_the_root_asks_the_question_with_the_largest_gain():
    people = strong(4)
    asker = TreeAsker(query(depth=1), setting())
    answer = play(asker, CONTRACT, people.cohorts, budget=1e6, sd=0.0, generator=np.random.default_rng(0))
    frame, label = people.frame, people.frame["bought"].to_numpy()

    def gini(chosen: np.ndarray) -> float:
        sides = [label[chosen], label[~chosen]]
        return len(label) * label.mean() * (1 - label.mean()) - sum(len(s) * s.mean() * (1 - s.mean()) for s in sides)

    gains = {
        f"{name} {cut:g}": gini((frame[name] < cut).to_numpy())
        for name in ("age", "income", "score")
        for cut in axis_of(name, CONTRACT).cuts
    }
    gains |= {
        f"{name} {group}": gini((frame[name] == group).to_numpy())
        for name in ("region", "arm")
        for group in frame[name].dropna().unique()
    }
    assert max(gains, key=gains.get) == "age 45" and "age" in answer.table("splits").rows[0].key[1]
    counts = exact_leaves(asker, people)[:-1, :2]
    assert [row.value for row in answer.table("sizes").rows] == pytest.approx(counts.sum(axis=1).tolist(), abs=1e-6)
    assert [row.value for row in answer.table("leaves").rows] == pytest.approx(
        (counts[:, 1] / counts.sum(axis=1)).tolist(), abs=1e-6
    )


def test_at_epsilon_one_a_tree_ranks_nearly_as_well_as_without_noise():
    people = strong(5, 20_000)
    found = {}
    for sd in (0.0, SD):
        scores = []
        for seed in range(3):
            asker = TreeAsker(query(), setting(customers=20_000))
            answer = play(
                asker,
                CONTRACT,
                people.cohorts,
                budget=per_round(0.22, 3) if sd else 1e6,
                sd=sd,
                generator=np.random.default_rng(seed),
            )
            counts, rates = exact_leaves(asker, people)[:-1, :2], [row.value for row in answer.table("leaves").rows]
            labels = np.concatenate([np.repeat([0, 1], row) for row in counts])
            scores.append(roc_auc_score(labels, np.repeat(rates, counts.sum(axis=1))))
        found[sd] = np.mean(scores)
    assert found[0.0] > 0.75 and found[SD] > found[0.0] - 0.02


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.0, 30.0, 3e4]), st.floats(3.0, 1e6))
def test_every_customer_is_in_the_leaf_that_the_words_say_and_budgets_are_kept(seed, depth, sd, budget):
    generator = np.random.default_rng(seed)
    people = town(generator, 300, 2)
    asker, twin = (TreeAsker(query(depth=depth, smallest_leaf=1), setting()) for _ in range(2))
    for number in range(1, asker.rounds + 1):
        measures = asker.ask(number, budget)
        assert twin.ask(number, budget) == measures and problems_of(measures, CONTRACT) == []
        assert sensitivity(measures) <= budget * (1 + 1e-9)
        sums = [
            Sum(item, generator.normal(500 * item.terms[0].cap, sd, shape_of(item, CONTRACT)), sd) for item in measures
        ]
        if sd == 30.0:
            sums = [Sum(item.measure, item.values * generator.uniform(0, 2, item.values.shape), sd) for item in sums]
        asker.told(number, sums)
        twin.told(number, sums)
    assert asker.answer() == twin.answer()
    counts = exact_leaves(asker, people)
    assert counts.sum() == len(people.frame) and counts[-1].sum() == 0
    for place, leaf in enumerate(asker._root.leaves()):
        inside = np.ones(len(people.frame), dtype=bool)
        for step in leaf.path:
            fulfil = _fulfil(step, people)
            inside &= fulfil if step.fulfilled else ~fulfil
        assert inside.sum() == counts[place].sum()


def _fulfil(step: Step, people: Town) -> np.ndarray:
    values, asked = people.frame[step.condition.column], step.condition
    if asked.missing:
        return values.isna().to_numpy()
    if asked.any_of is not None:
        return values.isin(asked.any_of).to_numpy()
    return (values < asked.lt if asked.lt is not None else values >= asked.ge).to_numpy()


def test_a_tree_grows_out_of_nothing_as_seldom_as_it_says():
    """At most one of twenty by Bonferroni; 0.05 + 3 standard errors over 200 draws is 0.097."""
    generator = np.random.default_rng(20)
    noise, names = 40.0, ("age", "income", "score", "region", "arm")
    grown = 0
    for _ in range(200):
        tables = []
        for name in names:
            bins = shape_of(Cells(axes=(axis_of(name, CONTRACT),), terms=(Term(cap=1),)), CONTRACT)[1]
            size = np.append(generator.multinomial(20_000, np.full(bins - 1, 1 / (bins - 1))), 0)
            having = generator.binomial(size, 0.2)
            tables.append(
                (name, np.stack([size - having, having], axis=1) + generator.normal(0, noise, (bins, 2)), noise)
            )
        grown += best(tables, 200.0, CONTRACT) is not None
    assert grown / 200 <= 0.097


def test_columns_that_tell_most_are_gone_on_with():
    flat, clear = (
        np.array([[800.0, 200.0]] * 4 + [[0.0, 0.0]]),
        np.array([[900.0, 100.0]] * 2 + [[300.0, 700.0]] * 2 + [[0.0, 0.0]]),
    )
    names = ("age", "region", "arm", "score", "income")
    widths = {
        name: shape_of(Cells(axes=(axis_of(name, CONTRACT),), terms=(Term(cap=1),)), CONTRACT)[1] for name in names
    }
    tables = [(name, np.resize(clear if name == "age" else flat, (widths[name], 2)), 10.0) for name in names]
    kept = promising([tables], 10.0, CONTRACT)
    assert "age" in kept and len(kept) == 3


def test_intervals_of_rates_hold_the_population_as_often_as_they_say():
    """2000 draws: 0.02 is four standard errors."""
    generator, z = np.random.default_rng(21), setting().z
    for size, rate, noise in ((3000, 0.1, 40.0), (500, 0.6, 20.0), (20_000, 0.03, 30.0)):
        held = counted = 0
        for _ in range(2000):
            having = generator.binomial(size, rate)
            leaf = Leaf((), size - having + generator.normal(0, noise), having + generator.normal(0, noise), noise)
            span, whole = leaf.rate(z), leaf.size(z)
            held += span.low <= rate <= span.high
            counted += whole.low <= size <= whole.high
        assert abs(held / 2000 - 0.95) <= 0.02 and abs(counted / 2000 - 0.95) <= 0.02


def test_counts_of_a_tree_that_stopped_early_are_put_together():
    people = town(np.random.default_rng(6))
    asker = TreeAsker(query(of=("age", "region"), depth=3, smallest_leaf=100_000), setting())
    answer = play(asker, CONTRACT, people.cohorts, budget=1e5, sd=1e5, generator=np.random.default_rng(1))
    (row,) = answer.table("sizes").rows
    assert row.key == ("1. all customers",) and any("its root" in note for note in answer.notes)
    # one round looked, three counted: the interval is narrower by the root of three
    assert row.high - row.value == pytest.approx(setting().z * 2**0.5 / 3**0.5, rel=1e-3)


def test_words_for_both_sides_of_a_question():
    below, at_least, groups, unknown = (
        next(
            condition
            for condition, _ in questions(name, np.ones((6 if name == "age" else 4, 2)), 1.0, CONTRACT)
            if test(condition)
        )
        for name, test in (
            ("age", lambda item: item.lt == 45),
            ("age", lambda item: item.ge == 45),
            ("region", lambda item: item.any_of and len(item.any_of) == 2),
            ("region", lambda item: item.missing),
        )
    )
    said = [
        rule_text((Step(item, fulfilled),), CONTRACT)
        for item in (below, at_least, groups, unknown)
        for fulfilled in (True, False)
    ]
    assert said[:4] == [
        "age below 45 years",
        "age at least 45 years or unknown",
        "age at least 45 years",
        "age below 45 years or unknown",
    ]
    assert " or " in said[4] and "neither" in said[5] and said[6:] == ["region unknown", "region known"]


def test_a_budget_that_is_too_small_is_refused_and_an_accuracy_is_met():
    asker = TreeAsker(query(accuracy=Accuracy(within=0.05)), setting())
    with pytest.raises(FederationError) as caught:
        asker.ask(1, 2.0)
    assert caught.value.code == "CSL-S755" and "2.24" in caught.value.cause
    budget = asker.needed(3)
    assert asker.needed(1) is None and asker.expected({3: budget})[1].within == pytest.approx(0.05)
    # the promise: the noise of the rate of an average leaf stays within it, whatever the rate
    cap, size = budget, setting().customers / 4
    for rate in (0.0, 0.3, 1.0):
        noise = setting().sd / cap * np.hypot(rate, 1 - rate) / size
        assert setting().z * noise <= 0.05 * (1 + 1e-9)


def test_all_that_is_wrong_with_a_query_is_named():
    wrong = query(
        of=("age", "age", "bought", "nothing"), label="region", where=({"column": "bought", "any_of": ("yes",)},)
    )
    found = check(wrong, CONTRACT)
    for part in (
        "region is no label",
        "twice",
        "bought is what becomes",
        "nothing is no column",
        "not chosen by what became",
    ):
        assert any(part in problem for problem in found), part
    assert any("stands in of" in problem for problem in check(query(of=("kept",), label="kept"), CONTRACT))
    assert any("no column" in problem for problem in check(query(label="nobody"), CONTRACT))
    assert check(query(), CONTRACT) == [] and check(query(label="kept"), CONTRACT) == []
    assert isinstance(setting(), Setting)
