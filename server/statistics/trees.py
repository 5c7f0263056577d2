"""Trees: a shallow decision tree for the label, grown level by level, as rules that a person can read.

Every round but the last asks, for each leaf that may still be parted, how each column's public bins and the label go together; the last one
counts the leaves. As customers are in one leaf each, a level costs what one table of each column costs, however many leaves there are; and
columns that tell nothing on one level are left out on the next, so that fewer share the budget (`growing.promising`).

Leaves are told apart by rules that are tried in order: the rules of those who fulfil a question stand before those of the rest, so that a
rule only names the questions that were fulfilled, and whoever is left, the unknown among them, belongs to the rest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from federation.answers import Answer
from federation.contract import FeatureContract, FlagColumn
from federation.errors import FederationError
from federation.measures import (
    LARGEST_CAP,
    MOST_CELLS,
    Cells,
    Centres,
    GroupsAxis,
    Rule,
    RulesAxis,
    Term,
    cells_on,
    column_of,
    problems_of,
)
from federation.queries import Tree
from server.statistics.asking import Expected, Setting, Sum, split_caps
from server.statistics.growing import Question, axis_of, best, promising
from server.statistics.leaves import Leaf, Step, answer_of

Floats = NDArray[np.float64]


@dataclass
class _Node:
    """A place in the tree: a leaf, or a question with two places below it.

    `path` says how it is reached, `open` whether it may be parted.
    """

    path: tuple[Step, ...] = ()
    open: bool = True
    question: Question | None = None
    below: tuple["_Node", ...] = field(default=())

    def leaves(self) -> Iterator["_Node"]:
        """Yield the leaves, those who fulfil a question before the rest."""
        if not self.below:
            yield self
        for node in self.below:
            yield from node.leaves()

    def inner(self) -> Iterator["_Node"]:
        """Yield the places with a question, from the root."""
        if self.below:
            yield self
        for node in self.below:
            yield from node.inner()

    def part(self, question: Question | None) -> None:
        """Part a leaf by a question; without one it stays."""
        self.question, self.open = question, False
        if question is not None:
            self.below = tuple(_Node((*self.path, Step(question.condition, fulfilled))) for fulfilled in (True, False))

    def rule(self, number: int) -> Rule:
        """Return the rule of a leaf: the questions that it fulfils."""
        return Rule(name=f"leaf {number}", where=tuple(step.condition for step in self.path if step.fulfilled))


def check(query: Tree, contract: FeatureContract) -> list[str]:
    """Return everything that is wrong with a query, in words; empty when nothing is."""
    found = _label_problems(query, contract)
    if len(set(query.of)) != len(query.of):
        found.append("a column is named twice in of")
    cells = 0
    for name in query.of:
        try:
            cells += cells_on(axis_of(name, contract), contract) if name != query.label else 0
        except ValueError as error:
            found.append(str(error))
        if name == query.label:
            found.append(f"{name} is the label and stands in of: it would explain itself")
        elif name == contract.label.name:
            found.append(f"{name} is what becomes of customers: it cannot part them beforehand")
    most = (2 ** (query.depth - 1) + 1) * 3 * cells
    if most > MOST_CELLS:
        found.append(
            f"a tree of depth {query.depth} on these columns asks for {most} numbers at once; at most {MOST_CELLS}: take fewer"
        )
    return found + problems_of([Cells(where=query.where, terms=(Term(cap=1),))], contract)


def _label_problems(query: Tree, contract: FeatureContract) -> list[str]:
    try:
        column = column_of(query.label, contract)
    except ValueError as error:
        return [str(error)]
    if not isinstance(column, FlagColumn):
        return [f"{query.label} is no label: it is neither the contract's nor a flag"]
    return []


class TreeAsker:
    """One `tree` query on its way to an answer."""

    def __init__(self, query: Tree, setting: Setting) -> None:
        self._query, self._setting = query, setting
        self._root = _Node()
        self._counts: Sum | None = None
        self._names: tuple[str, ...] = query.of

    @property
    def rounds(self) -> int:
        """One for each level, and one to count the leaves."""
        return self._query.depth + 1

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The leaves' rules, to be tried in order; everybody fulfils the last."""
        return tuple(leaf.rule(number) for number, leaf in enumerate(self._root.leaves(), 1))

    def weight(self, number: int) -> float:
        """Return the same for every round."""
        return self._query.weight

    def needed(self, number: int) -> float | None:
        """Return the sensitivity that makes the rate of a leaf of average size as exact as asked for, counted in the last round."""
        asked = self._query.accuracy
        if asked is None or number != self.rounds:
            return None
        z = replace(self._setting, confidence=asked.confidence).z
        return z * self._setting.sd / (asked.within * self._average())

    def _average(self) -> float:
        return max(self._setting.customers / float(2**self._query.depth), 1.0)

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return each column's table with the label in each leaf, or, last or when nothing may be parted, the leaves' counts alone."""
        names = self._names if self._parting(number) else ()
        try:
            caps = [min(cap, LARGEST_CAP) for cap in split_caps(budget, [1.0] * max(len(names), 1))]
        except ValueError as error:
            raise FederationError(
                "CSL-S755",
                f"Round {number} of {self._query.id} has a budget of {budget:.3g} grid units: too small to ask anything. It needs "
                f"{math.sqrt(max(len(names), 1)):.3g} at least.",
                "Ask fewer queries or columns in the study, or give this query more weight.",
            ) from error
        leaves, label = RulesAxis(rules=self.rules), GroupsAxis(column=self._query.label)
        if not names:
            return (Cells(axes=(leaves, label), where=self._query.where, terms=(Term(cap=caps[0]),)),)
        return tuple(
            Cells(
                axes=(leaves, axis_of(name, self._setting.contract), label),
                where=self._query.where,
                terms=(Term(cap=cap),),
            )
            for name, cap in zip(names, caps, strict=True)
        )

    def _parting(self, number: int) -> bool:
        return number < self.rounds and any(leaf.open for leaf in self._root.leaves())

    def told(self, number: int, sums: Sequence[Sum]) -> None:
        """Part the leaves, or, last, keep their counts. Counts of a tree that had stopped before are the next round's, as good."""
        if not self._parting(number):
            self._counts = sums[0] if self._counts is None else _together(self._counts, sums[0])
            return
        least, contract = float(self._query.smallest_leaf), self._setting.contract
        found = [(name, _customers(item), item.sd / _cap(item)) for name, item in zip(self._names, sums, strict=True)]
        looked = [
            (leaf, [(name, table[place], noise) for name, table, noise in found])
            for place, leaf in enumerate(self._root.leaves())
            if leaf.open
        ]
        for leaf, tables in looked:
            leaf.part(best(tables, least, contract))
        self._names = promising([tables for _, tables in looked], least, contract)

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Say how exact the size of a leaf, and the rate of one of average size, will be."""
        noise = self._setting.z * self._setting.sd / budgets[self.rounds]
        return (
            Expected("size of a leaf", noise * math.sqrt(2.0), "customers"),
            Expected(f"rate of a leaf of {self._average():.0f} customers", noise / self._average(), "share"),
        )

    def answer(self) -> Answer:
        """Return the leaves and the questions."""
        assert self._counts is not None
        table, noise = _customers(self._counts), self._counts.sd / _cap(self._counts)
        leaves = [
            Leaf(node.path, float(table[place, 0]), float(table[place, 1]), noise)
            for place, node in enumerate(self._root.leaves())
        ]
        inner = [(node.path, node.question) for node in self._root.inner() if node.question is not None]
        return answer_of(self._query, leaves, inner, self._setting)


def _cap(item: Sum) -> int:
    assert isinstance(item.measure, Cells)
    return item.measure.terms[0].cap


def _customers(item: Sum) -> Floats:
    """Return customers without and with the label, float64 [leaves, (bins), 2]."""
    return np.asarray(item.values[0, :-1, ..., :2] / _cap(item))


def _together(first: Sum, second: Sum) -> Sum:
    """Return the best sum of two that counted the same: weighted by cap, as noise is the same for each, in the units of the first."""
    a, b = _cap(first), _cap(second)
    va, vb = (first.sd / a) ** 2, (second.sd / b) ** 2
    if va + vb == 0:
        return first
    weight = vb / (va + vb)
    values = (weight * first.values / a + (1.0 - weight) * second.values / b) * a
    return Sum(first.measure, values, math.sqrt(va * vb / (va + vb)) * a)
