"""Trees for a label from noisy tables: how well they rank customers who were held out, beside scikit-learn's tree."""

from collections.abc import Mapping

import numpy as np
import questions_sets as sets
from questions_sets import LOCAL, SHARED, Floats, Table, Way
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from client.cohort import Cohort
from client.statistics.measuring import cell_of
from client.statistics.people import People
from federation.contract import FeatureContract
from federation.measures import RulesAxis
from federation.queries import Tree
from server.statistics.trees import TreeAsker

DEPTHS, SMALLEST_LEAF, TRAINS = (2, 3, 4), 200, 0.7
PARTS = (Way("a twelfth, local", 1, 1.0 / 12.0), Way("a twelfth, shared", 3, 1.0 / 12.0))
PART_DEPTHS = (2, 3)

Split = tuple[FeatureContract, Cohort, Cohort]
"""The contract, customers to learn from, and those held out."""


def split(contract: FeatureContract, cohort: Cohort) -> Split:
    """Hold three tenths out at random."""
    order = np.random.default_rng(3).permutation(len(cohort))
    end = int(TRAINS * len(cohort))
    return contract, cohort.take(order[:end]), cohort.take(order[end:])


def auc(whole: Split, depth: int, way: Way | None, seed: int) -> float:
    """Return the AUC on the customers held out of one tree, by its leaves' rates as they were released."""
    contract, learning, held = whole
    names = tuple(column.name for column in contract.columns)
    query = Tree(id="q", kind="tree", of=names, label=contract.label.name, depth=depth, smallest_leaf=SMALLEST_LEAF)
    asker = TreeAsker(query, sets.setting(contract, len(learning)))
    answer = sets.ask(asker, contract, learning, way, seed)
    rates = np.array([np.nan if row.value is None else row.value for row in answer.table("leaves").rows])
    rates = np.where(np.isnan(rates), np.nanmean(rates), rates)
    place = cell_of(RulesAxis(rules=asker.rules), People.of(contract, {"start": held}), contract)
    return _auc(held, rates[place])


def free_auc(whole: Split, depth: int) -> float:
    """Return the AUC of scikit-learn's tree of the same depth and smallest leaf."""
    contract, learning, held = whole
    tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=SMALLEST_LEAF, random_state=0)
    tree.fit(sets.encoded(learning, contract), learning.label)
    return _auc(held, tree.predict_proba(sets.encoded(held, contract))[:, 1])


def _auc(held: Cohort, scores: Floats) -> float:
    return float(roc_auc_score(held.label, scores))


def ranked(cohorts: Mapping[str, tuple[FeatureContract, Cohort]], seeds: int) -> list[Table]:
    """Compare AUCs, with a query's whole budget, and with the twelfth of it."""
    splits = {name: split(*item) for name, item in cohorts.items()}
    return [_whole(splits, seeds), _parted(splits, seeds)]


def _whole(splits: Mapping[str, Split], seeds: int) -> Table:
    rows: list[list[str]] = []
    figures: dict[str, list[float]] = {}
    for name, whole in splits.items():
        for depth in DEPTHS:
            noisy = {way.name: [auc(whole, depth, way, seed) for seed in range(seeds)] for way in (LOCAL, SHARED)}
            plain = {"scikit-learn": [free_auc(whole, depth)], "without noise": [auc(whole, depth, None, 0)]}
            title = f"{name}, {len(whole[1]) + len(whole[2]):,}, {len(whole[0].columns)} columns; depth {depth}"
            rows.append([title, *(f"{one[0]:.3f}" for one in plain.values()), *map(_shown, noisy.values())])
            figures |= {f"{title}; {kind}": found for kind, found in (plain | noisy).items()}
    head = ["set", "scikit-learn", "without noise", LOCAL.name, SHARED.name]
    return Table(f"AUC of trees on customers held out, {seeds} seeds: mean (least)", head, rows, figures=figures)


def _parted(splits: Mapping[str, Split], seeds: int) -> Table:
    rows: list[list[str]] = []
    figures: dict[str, list[float]] = {}
    for name, whole in splits.items():
        for depth in PART_DEPTHS:
            noisy = {way.name: [auc(whole, depth, way, seed) for seed in range(seeds)] for way in PARTS}
            title = f"{name}, {len(whole[1]):,} to learn from; depth {depth}"
            rows.append([title, *map(_shown, noisy.values())])
            figures |= {f"{title}; {kind}": found for kind, found in noisy.items()}
    head = ["set", *(way.name for way in PARTS)]
    return Table(
        f"The same with a twelfth of the squared budget, {seeds} seeds: mean (least)", head, rows, figures=figures
    )


def _shown(found: list[float]) -> str:
    return f"{np.mean(found):.3f} ({min(found):.3f})"
