"""A statistics study as an officer reads it: its questions one by one in plain words, who counts, and how far noise moves an answer."""

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from client.officer.study_words import column_words, masked, members_of, printable, purpose_facts, secure_terms
from federation.charter import Charter
from federation.contract import FeatureContract
from federation.measures import column_of
from federation.messages import StatisticsGrant
from federation.question_words import describe
from federation.statistics import StatisticsSpec
from privacy.policy import Policy

COUNTED = (
    "all customers who agreed, those who train and those who are held out alike: both accounts pay, and each customer's epsilon is what "
    "stands here"
)
_Z = 1.959964  # the normal's two-sided 95%


def statistics_facts(
    spec: StatisticsSpec, charter: Charter, contract: FeatureContract, policy: Policy | None
) -> dict[str, Any]:
    """Return what a statistics study asks, in words, as a mapping for tables and JSON."""
    draft, plan = spec.draft, spec.plan
    return {
        "kind": "statistics",
        "study": draft.name,
        "digest": spec.digest(),
        "title": draft.title,
        "asked_by": f"the coordinator of {spec.federation} (key {charter.coordinator_key[:12]}…)",
        **purpose_facts(draft.purpose, policy),
        "contract": f"{contract.name}, version {contract.version}: {contract.title}",
        "counted": COUNTED,
        "features": [_looked_at(name, at, contract) for name, at in sorted(draft.columns)],
        "questions": [
            {
                "id": query.id,
                "kind": query.kind,
                "title": query.title,
                "words": describe(query),
                "query": query.model_dump(mode="json"),
            }
            for query in draft.queries
        ],
        "members": members_of(charter, draft.contract),
        "min_partners": max(draft.min_partners, draft.n_min or 1),
        "rounds": plan.rounds,
        "numbers": plan.dimension,
        "share": plan.share,
        "confidence": draft.confidence,
        "epsilon_asked": draft.epsilon,
        "aggregation": draft.aggregation,
        "secure": secure_terms(spec.secure),
        "leaves": [
            f"{plan.rounds} times, paid by both accounts: at most {plan.dimension:,} counts and sums, each with noise"
            f"{masked(spec.secure)}",
            "the grant: epsilon, delta, noise, by how much one customer may change a sum, and the declared number of customers, all of "
            "them public",
        ],
        "stays": "every record, who was counted, every count without noise, and this policy",
    }


def noise_facts(grant: StatisticsGrant, members: int) -> dict[str, Any]:
    """Return the noise of a grant as a mapping: how far it moves a count in 95 of 100 cases, where a round asks for one table of counts.

    A count is multiplied by a cap, at most the sensitivity, before noise of parameter `share` is added; the sum of `members` institutions'
    counts has as many times the variance.

    `one_count_within`, `sum_within`: customers, this institution's own noise, and that of all together.
    """
    own = _Z * grant.share / max(math.floor(grant.sensitivity), 1)
    return {
        "share": grant.share,
        "sensitivity": grant.sensitivity,
        "members": members,
        "one_count_within": own,
        "sum_within": own * math.sqrt(members),
    }


def noise_words(facts: dict[str, Any]) -> str:
    """Say in words what `noise_facts` says."""
    return (
        f"Noise {facts['share']:,.0f} on every number, of which one customer changes a whole round by {facts['sensitivity']:,.0f} at most. "
        f"Where a round asks for nothing but one table of counts, this institution's own noise moves a count by up to "
        f"{facts['one_count_within']:.3g} customers in 95 of 100 cases, and the sum over {facts['members']} institutions by up to "
        f"{facts['sum_within']:.3g} or more, if another grants less; questions that share a round are each less exact."
    )


def _looked_at(name: str, at: str, contract: FeatureContract) -> dict[str, Any]:
    """Return one column that the study looks at; one that the contract does not have, as such: the vault refuses its rounds."""
    try:
        column = column_of(name, contract)
    except ValueError:
        return {
            "name": name,
            "when": at,
            "words": "no column of this contract: the vault refuses to look at it",
            "required": False,
        }
    label = name == contract.label.name
    words = f"{column_words(column)}{', known only afterwards' if label else ''}"
    return {"name": name, "when": at, "words": words, "required": column.required}


def statistics_lines(facts: dict[str, Any], added_up: str) -> list[tuple[str, str]]:
    """Return a statistics study's facts as pairs of name and text; `added_up` says how replies are."""
    members = ", ".join(f"{item['title']} ({item['declared']:,} customers declared)" for item in facts["members"])
    asked = "as much as the policy grants" if facts["epsilon_asked"] is None else f"{facts['epsilon_asked']:g}"
    return [
        ("asked by", facts["asked_by"]),
        ("purpose", f"{facts['purpose']}: {facts['meaning'] or 'not in the policy in force'}"),
        ("whose data", f"only customers who agreed to {facts['consent']}" if facts["consent"] else "nobody's"),
        ("who counts", facts["counted"]),
        ("contract", facts["contract"]),
        ("who takes part", f"{members}; at least {facts['min_partners']} of them"),
        (
            "questions",
            f"{len(facts['questions'])}, in {facts['rounds']} rounds; what a round asks for may depend on earlier answers, but stays "
            "within the columns below",
        ),
        ("added up", added_up),
        ("epsilon asked", asked),
        ("leaves", ";\n".join(facts["leaves"])),
        ("stays here", facts["stays"]),
    ]


def print_questions(console: Console, facts: dict[str, Any]) -> None:
    """Print a statistics study's questions, one by one."""
    console.print(
        f"\n[bold]Questions, each answered with an interval that holds in {100 * facts['confidence']:.4g}% of all cases[/]"
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, item in enumerate(facts["questions"], start=1):
        title = "" if item["title"] is None else f"{item['title']}. "
        table.add_row(f"{number}. {item['id']}", escape(printable(f"{title}{item['words']}")))
    console.print(Padding(table, (0, 0, 0, 0)))
