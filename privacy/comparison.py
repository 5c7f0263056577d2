"""Two versions of a policy side by side, in plain words: what changes, and what of it a second officer must sign."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from privacy.policy import Policy

Effect = Literal["more", "less", "other"]
_Path = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One difference between two policies.

    Attributes
    ----------
    text:
        The difference in plain words, one line.
    effect:
        Whether the new policy allows or discloses `more`, or `less`, or is just different.
    budget:
        Whether a second officer must sign it: more may be spent, or fewer people watch over it.
    fixed:
        Whether no signature allows it: no later policy of the same ledger may change this.
    """

    text: str
    effect: Effect
    budget: bool
    fixed: bool = False


@dataclass(frozen=True)
class _Leaf:
    """How a field is named, which way it allows more (`up`, `down`, or neither), and whether that needs two officers."""

    label: str
    way: Literal["up", "down", "neither"] = "neither"
    budget: bool = False
    fixed: bool = False


_LEAVES = {
    "institution": _Leaf("The institution", budget=True, fixed=True),
    "version": _Leaf("The version"),
    "prev": _Leaf("The version before, by digest,"),
    "issued": _Leaf("The first day in force"),
    "expires": _Leaf("The day on which it is no longer in force", "up"),
    "officers.*.key": _Leaf("The key of officer {0}", budget=True),
    "approval.eyes": _Leaf("The number of officers who must approve a study that waits", "down", True),
    "purposes.*.meaning": _Leaf("Purpose {0}: its meaning"),
    "purposes.*.consent": _Leaf("Purpose {0}: the consent that a customer must have given", budget=True),
    "purposes.*.budget.epsilon": _Leaf("Purpose {0}: the epsilon of its own budget", "up", True),
    "purposes.*.budget.delta": _Leaf("Purpose {0}: the delta of its own budget", "up", True),
    "contact_consent": _Leaf("The consent without which nobody stands on a name list", budget=True),
    "studies.*.kind": _Leaf("Studies on {0}: their kind", budget=True),
    "studies.*.max_epsilon": _Leaf("Studies on {0}: the largest epsilon of a study", "up", True),
    "studies.*.max_delta": _Leaf("Studies on {0}: the largest delta of a study", "up", True),
    "studies.*.automatic_epsilon": _Leaf(
        "Studies on {0}: the largest epsilon that needs nobody's approval", "up", True
    ),
    "statistics.*.max_epsilon": _Leaf("Statistics on {0}: the largest epsilon of a study", "up", True),
    "statistics.*.max_delta": _Leaf("Statistics on {0}: the largest delta of a study", "up", True),
    "statistics.*.automatic_epsilon": _Leaf(
        "Statistics on {0}: the largest epsilon that needs nobody's approval", "up", True
    ),
    "budget.mode": _Leaf("The way of spending", budget=True),
    "budget.unit": _Leaf("The unit of privacy", budget=True),
    "budget.neighbours": _Leaf("What one customer more or less means", budget=True),
    "budget.period.days": _Leaf("The number of days of the period's budget", "down", True),
    "budget.period.epsilon": _Leaf("The epsilon of the period's budget", "up", True),
    "budget.period.delta": _Leaf("The delta of the period's budget", "up", True),
    "budget.life.epsilon": _Leaf("The epsilon of the life budget, which is fixed for good,", "up", True, True),
    "budget.life.delta": _Leaf("The delta of the life budget, which is fixed for good,", "up", True, True),
    "budget.slots.*.purpose": _Leaf("Slot {0}: its purpose", budget=True),
    "budget.slots.*.contract": _Leaf("Slot {0}: its contract", budget=True),
    "budget.slots.*.noise_multiplier": _Leaf("Slot {0}: the noise of a training step", "down", True),
    "budget.slots.*.sampling_rate": _Leaf("Slot {0}: the share of customers in a step", "up", True),
    "budget.slots.*.steps": _Leaf("Slot {0}: the number of steps", "up", True),
    "budget.slots.*.histogram_sigma": _Leaf("Slot {0}: the noise of the evaluation", "down", True),
    "smallest_cohort": _Leaf("The smallest cohort", "down", True),
    "smallest_partners": _Leaf("The smallest number of partners", "down", True),
    "secure.n_min": _Leaf("Sums in secret: the least number of members in a sum", "down", True),
    "secure.c": _Leaf("Sums in secret: the number of colluding members that a study must withstand", "down", True),
    "secure.local_noise_floor": _Leaf("Sums in secret: the epsilon that one's own noise alone must hold", "up", True),
    "reply_grid_seconds": _Leaf("The time grid of replies, in seconds,", "down", True),
    "retention.name_lists_days": _Leaf("The number of days that name lists are kept", "up"),
    "retention.replies_days": _Leaf("The number of days that replies are kept", "up"),
    "retention.participation_days": _Leaf("The number of days that the record of who took part is kept", "up"),
}


@dataclass(frozen=True)
class _List:
    """How the items of a list are named, which field names each, and whether one more or one less needs two officers."""

    item: str
    key: str = ""
    added: Effect = "more"
    removed: Effect = "less"
    more_budget: bool = True
    fewer_budget: bool = False


_LISTS = {
    "officers": _List("Officer {0}", "id", "other", "other", True, True),
    "purposes": _List("Purpose {0}", "id", more_budget=False),
    "studies": _List("The rule for studies on {0}", "contract"),
    "studies.*.purposes": _List("Studies on {1}: purpose {0}"),
    "studies.*.models": _List("Studies on {1}: the model {0}", more_budget=False),
    "studies.*.modes": _List("Studies on {1}: the mode {0}", more_budget=False),
    "statistics": _List("The rule for statistics on {0}", "contract"),
    "statistics.*.purposes": _List("Statistics on {1}: purpose {0}"),
    "budget.slots": _List("Slot {0} of the plan", "id"),
    "secure.noise": _List("Sums in secret: {0} noise"),
}


def changes(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Return every difference between two policies, in the order of a policy's fields; none when they are equal."""
    return tuple(_walk((), "", old.model_dump(mode="json"), new.model_dump(mode="json")))


def grows(old: Policy, new: Policy) -> tuple[str, ...]:
    """Return the changes that two distinct officers must sign, in plain words; none when one officer is enough."""
    return tuple(change.text for change in changes(old, new) if change.budget)


def _walk(path: _Path, subject: str, old: Any, new: Any) -> Iterator[Change]:  # noqa: ANN401 - any JSON value
    """Yield the differences below a path, in which `*` stands for an item of a list and `subject` names it."""
    if old == new:
        return
    pattern = ".".join(path)
    if pattern == "purposes.*.budget" and None in (old, new):
        yield _purpose_budget(subject, old, new)
    elif pattern in _CHOICES and (pattern == "aggregation" or None in (old, new)):
        yield _CHOICES[pattern](old, new)
    elif path[-1:] in (("holdout",), ("filter",)):
        yield _whole(pattern, subject, old, new)
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            yield from _walk((*path, key), subject, old.get(key), new.get(key))
    elif pattern in _LISTS:
        yield from _list(path, subject, old or [], new or [])  # an empty list may stand in no encoding at all
    else:
        yield _leaf(pattern, subject, old, new)


def _leaf(pattern: str, subject: str, old: Any, new: Any) -> Change:  # noqa: ANN401 - any JSON value
    leaf = _LEAVES.get(pattern)
    if leaf is None:  # a field that has no words of its own yet: say so, and let two officers look at it
        leaf = _Leaf(pattern.replace("*", "{0}"), budget=True)
    before, after = _shown(old, new)
    label = leaf.label.format(subject)
    if leaf.way == "neither" or old is None or new is None:
        return Change(f"{label} changes from {before} to {after}.", "other", leaf.budget, leaf.fixed)
    rises = new > old
    more = rises == (leaf.way == "up")
    verb = "rises" if rises else "falls"
    if isinstance(old, str):
        verb = "moves"
    return Change(
        f"{label} {verb} from {before} to {after}.", "more" if more else "less", more and leaf.budget, leaf.fixed
    )


def _list(path: _Path, subject: str, old: list[Any], new: list[Any]) -> Iterator[Change]:
    pattern = ".".join(path)
    words = _LISTS[pattern]
    before, after = _named(old, words.key), _named(new, words.key)
    for name in after:
        if name not in before:
            yield Change(f"{words.item.format(name, subject)} is new.", words.added, words.more_budget)
    for name in before:
        if name not in after:
            yield Change(f"{words.item.format(name, subject)} is gone.", words.removed, words.fewer_budget)
    for name in before:
        if name in after:
            yield from _walk((*path, "*"), name, before[name], after[name])
    if [name for name in before if name in after] != [name for name in after if name in before]:
        where = pattern.replace("*", subject)
        yield Change(f"The list {where} stands in another order, which changes nothing else.", "other", False)


def _named(items: list[Any], key: str) -> dict[str, Any]:
    return {item[key]: item for item in items} if key else {item: item for item in items}


def _purpose_budget(subject: str, old: dict[str, float] | None, new: dict[str, float] | None) -> Change:
    if new is None:
        assert old is not None
        text = f"Purpose {subject} loses its own budget (epsilon {old['epsilon']:g}, delta {old['delta']:g})."
        return Change(text, "more", True)
    text = f"Purpose {subject} gets a budget of its own (epsilon {new['epsilon']:g}, delta {new['delta']:g})."
    return Change(text, "less", False)


def _aggregation(old: str, new: str) -> Change:
    if new == "secure":
        return Change(
            "Plain studies are refused from now on: only sums are opened (aggregation: secure).", "less", False
        )
    text = (
        "Plain studies are allowed again, whose replies are seen one by one (aggregation changes from secure to plain)."
    )
    return Change(text, "more", True)


def _secure_rule(old: dict[str, Any] | None, new: dict[str, Any] | None) -> Change:
    if new is None:
        return Change("Sums in secret: the rule is gone, and studies that ask for them are refused.", "less", False)
    floor = new.get("local_noise_floor")
    held = "no floor for one's own noise" if floor is None else f"one's own noise alone must hold epsilon {floor:g}"
    terms = f"sums over {new['n_min']} members at least, up to {new['c']} colluding, {' or '.join(new['noise'])} noise"
    return Change(f"Sums in secret are allowed by a new rule: {terms}, {held}.", "more", True)


def _floor(old: float | None, new: float | None) -> Change:
    if new is None:
        text = f"Sums in secret: the floor for one's own noise (epsilon {old:g}) is gone."
        return Change(text, "more", True)
    return Change(f"Sums in secret: one's own noise alone must hold epsilon {new:g}.", "less", False)


_CHOICES: dict[str, Callable[[Any, Any], Change]] = {
    "aggregation": _aggregation,
    "secure": _secure_rule,
    "secure.local_noise_floor": _floor,
}
"""Parts whose coming or going is said in words of its own."""


def _whole(pattern: str, subject: str, old: dict[str, Any], new: dict[str, Any]) -> Change:
    """Name a choice that is fixed for the budget's life as a whole."""
    label = "The filter" if pattern == "budget.filter" else f"Studies on {subject}: who is held out"
    before, after = (" ".join(f"{key} {value}" for key, value in choice.items()) for choice in (old, new))
    return Change(f"{label}, fixed for the budget's life, changes from {before} to {after}.", "other", True, True)


def _shown(old: Any, new: Any) -> tuple[str, str]:  # noqa: ANN401 - any JSON value
    """Return two values as text, with all their digits where fewer would look alike."""
    before, after = (_text(value) for value in (old, new))
    return (before, after) if before != after else (repr(old), repr(new))


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
