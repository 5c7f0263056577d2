"""A decision tree in words: its leaves as rules, with their sizes and rates, and the questions that made them."""

from collections.abc import Sequence
from dataclasses import dataclass

from federation.answers import Answer, AnswerTable, Row
from federation.contract import FeatureContract, NumericColumn
from federation.measures import Condition, column_of
from federation.queries import Tree
from server.statistics.asking import Setting
from server.statistics.growing import Question
from server.statistics.intervals import Span, amount, share

_LABEL = 200


@dataclass(frozen=True)
class Step:
    """A question on the way to a leaf, and whether it was fulfilled."""

    condition: Condition
    fulfilled: bool


@dataclass(frozen=True)
class Leaf:
    """A leaf: how it is reached, customers without and with the label, and the standard deviation of each one's noise."""

    path: tuple[Step, ...]
    without: float
    having: float
    noise: float

    def size(self, z: float) -> Span:
        """Return how many customers there are, with an interval for the noise."""
        return amount(self.without + self.having, self.noise * 2.0**0.5, z)

    def rate(self, z: float) -> Span:
        """Return the share with the label, with an interval for noise and population; nothing where it might be empty."""
        return share(self.having, self.without, self.noise**2, self.noise**2, z, "share")


def words(condition: Condition, contract: FeatureContract) -> str:
    """Return a condition in words."""
    name = condition.column
    if condition.missing:
        return f"{name} unknown"
    if condition.any_of is not None:
        return f"{name} {' or '.join(condition.any_of)}"
    column = column_of(name, contract)
    unit = f" {column.unit}" if isinstance(column, NumericColumn) and len(column.unit) <= 12 else ""
    return (
        f"{name} below {condition.lt:g}{unit}"
        if condition.lt is not None
        else f"{name} at least {condition.ge:g}{unit}"
    )


def opposite(condition: Condition, contract: FeatureContract) -> str:
    """Return in words who does not fulfil a condition."""
    name = condition.column
    if condition.missing:
        return f"{name} known"
    if condition.any_of is not None:
        return (
            f"{name} neither {' nor '.join(condition.any_of)}"
            if len(condition.any_of) > 1
            else f"{name} not {condition.any_of[0]}"
        )
    turned = (
        Condition(column=name, ge=condition.lt) if condition.lt is not None else Condition(column=name, lt=condition.ge)
    )
    return f"{words(turned, contract)} or unknown"


def rule_text(path: Sequence[Step], contract: FeatureContract) -> str:
    """Return how a leaf is reached, in words."""
    parts = [words(step.condition, contract) if step.fulfilled else opposite(step.condition, contract) for step in path]
    return ", and ".join(parts) if parts else "all customers"


def answer_of(
    query: Tree, leaves: Sequence[Leaf], inner: Sequence[tuple[Sequence[Step], Question]], setting: Setting
) -> Answer:
    """Return the tables leaves, sizes and splits, and a note for each leaf."""
    z, contract = setting.z, setting.contract
    texts = [_cut(f"{number}. {rule_text(leaf.path, contract)}", _LABEL) for number, leaf in enumerate(leaves, 1)]
    tables = [
        AnswerTable(
            name="leaves",
            title=f"Share with {query.label} in each leaf, interval for noise and population",
            unit="share",
            key=("leaf",),
            rows=tuple(_row(text, leaf.rate(z)) for text, leaf in zip(texts, leaves, strict=True)),
        ),
        AnswerTable(
            name="sizes",
            title=f"Customers of each leaf for whom {query.label} is known, interval for the noise",
            unit="customers",
            key=("leaf",),
            rows=tuple(_row(text, leaf.size(z)) for text, leaf in zip(texts, leaves, strict=True)),
        ),
        AnswerTable(
            name="splits",
            title="Questions, and by how much the rates of those who fulfil them and of the rest differ, interval for noise and population",
            unit="share",
            key=("among", "question"),
            rows=tuple(_split(path, question, setting) for path, question in inner),
        ),
    ]
    return Answer(
        id=query.id,
        kind="tree",
        title=query.title or f"Who has {query.label}: a tree",
        tables=tuple(tables),
        notes=(*_notes(query, leaves, setting), *_leaf_notes(leaves, query, setting))[:40],
    )


def _row(text: str, span: Span) -> Row:
    return Row(key=(text,), value=span.value, low=span.low, high=span.high)


def _split(path: Sequence[Step], question: Question, setting: Setting) -> Row:
    contract, half = setting.contract, setting.z * question.sd
    key = (_cut(rule_text(path, contract), _LABEL), _cut(words(question.condition, contract), _LABEL))
    value = question.difference
    return Row(key=key, value=value, low=max(value - half, -1.0), high=min(value + half, 1.0))


def _notes(query: Tree, leaves: Sequence[Leaf], setting: Setting) -> list[str]:
    half = leaves[0].noise * 2.0**0.5 * setting.z
    notes = [
        "A question is only asked where noise and chance do not explain what it tells, and each side has "
        f"{query.smallest_leaf} customers or more.",
        "Each customer is in one leaf. Leaves were counted anew after the questions were chosen, so their noise does not flatter "
        "the choice; the customers are the same, so chance does a little. The differences of the questions are those by which they were "
        "chosen, and look larger than they are.",
        f"A leaf below {half:.0f} customers cannot be told from an empty one.",
    ]
    if len(leaves) == 1:
        notes.append("No question tells more than noise and chance: the tree is its root.")
    return notes


def _leaf_notes(leaves: Sequence[Leaf], query: Tree, setting: Setting) -> list[str]:
    found = []
    for number, leaf in enumerate(leaves, 1):
        rate = leaf.rate(setting.z)
        said = f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})" if rate.value is not None else "cannot be told"
        found.append(_cut(f"{number}. If {rule_text(leaf.path, setting.contract)}: {query.label} {said}.", 2000))
    return found


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
