"""Words that every view of a study uses: columns, members, the purpose, and how replies are added up."""

from collections.abc import Mapping
from typing import Any

from client.reasons import amount
from federation.charter import Charter
from federation.contract import CategoricalColumn, NumericColumn
from federation.study import SecurePlan
from privacy.ledger import Account
from privacy.policy import Policy

_MOST_CATEGORIES = 6


def column_words(column: Any) -> str:  # noqa: ANN401 - one of the contract's three kinds
    """Say what a column holds: its meaning, and the public range or categories outside of which nothing counts."""
    if isinstance(column, NumericColumn):
        return f"{column.meaning}; from {amount(column, column.low)} to {amount(column, column.high)}"
    if isinstance(column, CategoricalColumn):
        shown = ", ".join(column.categories[:_MOST_CATEGORIES])
        more = len(column.categories) - _MOST_CATEGORIES
        return f"{column.meaning}; one of {shown}{f' and {more} more' if more > 0 else ''}"
    return f"{column.meaning}; yes or no"


def printable(text: str) -> str:
    """Return a text without control characters, which could make a terminal show something else than what stands there."""
    return "".join(mark if mark.isprintable() or mark == "\n" else "\N{REPLACEMENT CHARACTER}" for mark in text)


def members_of(charter: Charter, contract: str) -> list[dict[str, Any]]:
    """Return the institutions that declare a contract, with how many customers each declared."""
    return [
        {"member": member.id, "title": member.title, "declared": item.size}
        for member in charter.members
        if (item := member.declaration(contract)) is not None
    ]


def purpose_facts(purpose: str, policy: Policy | None) -> dict[str, Any]:
    """Return a purpose with what the policy in force says of it; None where it says nothing."""
    rule = next((item for item in policy.purposes if item.id == purpose), None) if policy else None
    return {
        "purpose": purpose,
        "meaning": rule.meaning if rule else None,
        "consent": rule.consent if rule else None,
    }


def masked(plan: SecurePlan | None) -> str:
    """Say that what leaves is masked; nothing for a plain study."""
    return "" if plan is None else f", masked, so that only a sum over {plan.n_min} institutions or more can be opened"


def secure_terms(plan: SecurePlan | None) -> dict[str, Any] | None:
    """Return how a study's replies are added up in secret as a mapping; None for a plain study."""
    return None if plan is None else {"noise": plan.noise, "n_min": plan.n_min, "c": plan.c}


def secrecy_lines(terms: Mapping[str, Any] | None, broken: Mapping[Account, float] | None) -> list[str]:
    """Say how a study's replies are added up, and what would hold should that fail; `terms` as `secure_terms` returns them."""
    if terms is None:
        return ["plain: each reply carries this institution's own noise in full, and may be seen by itself"]
    if terms["c"] == 0:
        against = "a coordinator whom no institution helps sees nobody's reply"
    else:
        allies = "any one institution" if terms["c"] == 1 else f"any {terms['c']} institutions"
        against = f"the coordinator and {allies} together see no other's reply"
    lines = [
        f"added up in secret, opened over at least {terms['n_min']} institutions: {against}; {terms['noise']} noise"
    ]
    return lines if broken is None else [*lines, broken_words(broken)]


def broken_words(broken: Mapping[Account, float]) -> str:
    """Say what one's own noise alone would hold."""
    figures = ", ".join(f"{value:.3f} on {account}" for account, value in broken.items())
    return f"should the protocol fail, its own noise alone holds epsilon {figures}; this is stated apart and added to nothing"
