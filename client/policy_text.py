"""A policy as a page that a compliance officer can read: YAML with a word about every part."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from privacy.policy import Policy

_HEADER = """\
# What the vault of {institution} is allowed to do. This page stays at home; partners and coordinator never see it.
#
# epsilon says how much one customer can change what leaves (smaller is stricter); delta is the chance that epsilon does
# not hold: at most 1 / (100 x the customers declared in the charter). Write small numbers as 1.0e-6.
# It takes effect when officers have signed it and it stands in the ledger; a changed value makes every signature void.
"""
_COMMENTS = {
    "institution": "",
    "prev": "The version before, by its digest.",
    "issued": "In force from the first day until before the second.",
    "officers": "Who signs policies and approves studies: the public keys. Private keys stay with their owners.",
    "approval": "How many distinct officers must approve a study that no rule lets through by itself.",
    "purposes": "Why customer data may be used, and which consent a customer must have given; without it she never enters.\n"
    "A purpose may have a budget of its own within the period's.",
    "contact_consent": "Only customers who agreed to this may stand on a name list.",
    "studies": "What a study may ask for: less, never more. Above automatic_epsilon it waits for officers; with 0 every\n"
    "study waits. Held-out customers test the model and never train it: fixed for the budget's life.",
    "statistics": "Studies that count customers and add up what is known of them, with noise: which questions they ask is in each\n"
    "study. All customers who agreed count, those who train and those who are held out, so that both accounts pay.\n"
    "Above automatic_epsilon a study waits for officers; with 0 every one does.",
    "budget": "How much may leave in all, counted for each customer, who may be added or removed.\n"
    "open: studies come as they come. plan: studies fill the slots below, and nothing else.\n"
    "The filter adds up what was spent. It and the life budget are fixed for good by the first policy.",
    "smallest_cohort": "Fewer declared customers, or fewer partners in all, and a study is declined.",
    "aggregation": "plain: a reply carries this vault's own noise in full, and may be seen by itself.\n"
    "secure: only sums over several institutions are ever opened; plain studies are refused.",
    "secure": "Studies that add up replies in secret: a sum is opened over at least n_min institutions, of whom up to c may\n"
    "work together with the coordinator. local: this vault's own noise is enough. shared: the honest institutions'\n"
    "noise together is, as long as the protocol holds. local_noise_floor: the epsilon that the own noise alone must\n"
    "hold, should it fail.",
    "reply_grid_seconds": "Replies leave on a grid of so many seconds, so that their delay says little.",
    "retention": "After how many days what a study leaves at home is deleted.",
}
_WIDTH = 110
_BREAKS = re.compile("[\x85\u2028\u2029]")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def policy_yaml(policy: Policy) -> str:
    """Return a policy as commented YAML that reads back as the same policy."""
    values = policy.model_dump(mode="json", exclude_none=True)
    if not policy.budget.slots:
        del values["budget"]["slots"]
    lines = [_HEADER.format(institution=policy.institution)]
    for key, value in values.items():
        comment = _COMMENTS.get(key)
        if comment is not None:
            lines.append("\n" + "".join(f"# {line}\n" for line in comment.split("\n") if line))
        lines.append("\n".join(_entry(key, value, 0)) + "\n")
    return "".join(lines)


def _entry(key: str, value: Any, depth: int) -> list[str]:  # noqa: ANN401 - any JSON value
    """Return the lines of one key, on one line where it is short."""
    indent = "  " * depth
    short = f"{indent}{key}: {_flow(value)}"
    if not isinstance(value, dict | list) or (depth > 0 and len(short) <= _WIDTH):
        return [short]
    if isinstance(value, dict):
        return [f"{indent}{key}:", *(line for name, part in value.items() for line in _entry(name, part, depth + 1))]
    return [f"{indent}{key}:", *(line for item in value for line in _item(item, depth + 1))]


def _item(item: Any, depth: int) -> list[str]:  # noqa: ANN401 - any JSON value
    indent = "  " * depth
    short = f"{indent}- {_flow(item)}"
    if not isinstance(item, dict) or len(short) <= _WIDTH:
        return [short]
    first, *others = (line for name, part in item.items() for line in _entry(name, part, depth + 1))
    return [f"{indent}- {first.lstrip()}", *others]


def _flow(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return a value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "[" + ", ".join(_flow(part) for part in value) + "]"
    if isinstance(value, float):
        return yaml.safe_dump(value).split()[0].replace("e-0", "e-")
    if isinstance(value, str) and _DAY.fullmatch(value):
        return value
    # YAML's own line breaks beyond ASCII are written as they are, and would be read back as spaces: such a text is escaped.
    plain = not (isinstance(value, str) and _BREAKS.search(value))
    return yaml.safe_dump([value], default_flow_style=True, width=1 << 30, allow_unicode=plain).strip()[1:-1]
