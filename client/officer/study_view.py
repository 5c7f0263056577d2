"""A study as an officer reads it before she decides: every figure and every word from the signed documents themselves."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from client.officer.statistics_view import noise_facts, noise_words, print_questions, statistics_facts, statistics_lines
from client.officer.study_words import (
    broken_words,
    column_words,
    masked,
    members_of,
    printable,
    purpose_facts,
    secrecy_lines,
    secure_terms,
)
from client.outlook import Effect, Outlook
from federation.charter import Charter
from federation.contract import FeatureContract
from federation.messages import StatisticsGrant
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.ledger import Account
from privacy.ledger.authority import standing
from privacy.ledger.entries import ApproveData, Reservation, ReserveData
from privacy.policy import Policy, describe_holdout

__all__ = [
    "STANDINGS",
    "broken_words",
    "column_words",
    "decision_rows",
    "effect_row",
    "figure",
    "if_broken_of",
    "missing_words",
    "outlook_facts",
    "print_outlook",
    "print_study",
    "printable",
    "reservation_facts",
    "secrecy_lines",
    "secure_terms",
    "standing_of",
    "study_facts",
]

_MODELS = {
    "additive": "additive: one curve for each column, added up; it can be read, plotted and explained exactly",
    "logistic": "logistic regression: one weight for each column",
    "mlp": "a neural network (multi-layer perceptron); its reasons are approximate",
}
_MODES = {
    "fedsgd": "one noisy sum of clipped gradients",
    "fedavg": "one noisy change of the model's weights",
}
STANDINGS = {
    "waiting": "waits for the officers",
    "approved": "approved: the next offer of the study is granted",
    "automatic": "needs no approval under the policy in force: the next offer of the study is granted",
    "declined": "declined",
    "refused": "the policy in force would refuse it",
    "open": "granted, and open",
    "closed": "closed",
}


def decision_rows(policy: Policy | None, digest: str | None, decisions: Sequence[ApproveData]) -> list[dict[str, Any]]:
    """Return what officers decided about a study, as rows; only decisions under the policy in force count."""
    rows = []
    for item in decisions:
        officer = policy.officer(item.signature.key) if policy is not None else None
        rows.append(
            {
                "officer": officer.id if officer is not None else f"{item.signature.key[:12]}…",
                "key": item.signature.key,
                "decision": item.statement.decision,
                "reason": item.statement.reason,
                "counts": item.statement.policy == digest,
            }
        )
    return rows


def standing_of(digest: str, eyes: int, decisions: Sequence[ApproveData]) -> tuple[str, int]:
    """Return where a study stands that is not reserved, and how many officers' approvals are missing."""
    found = standing(digest, eyes, tuple(decisions))
    if found == "declined":
        return "declined", 0
    given = {item.signature.key for item in decisions if item.statement.policy == digest}
    if eyes == 0:
        return "automatic", 0
    return found, max(eyes - len(given), 0)


def missing_words(status: str, missing: int) -> str:
    """Say what still has to happen."""
    if status == "waiting":
        return "one officer's decision" if missing == 1 else f"{missing} distinct officers' decisions"
    return STANDINGS[status]


def study_facts(
    spec: StudySpec | StatisticsSpec, charter: Charter, contract: FeatureContract, policy: Policy | None
) -> dict[str, Any]:
    """Return what the study is, in words, as a mapping for tables and JSON; its `kind` is training or statistics."""
    if isinstance(spec, StatisticsSpec):
        return statistics_facts(spec, charter, contract, policy)
    draft, training = spec.draft, spec.training
    return {
        "kind": "training",
        "study": draft.name,
        "digest": spec.digest(),
        "title": draft.title,
        "asked_by": f"the coordinator of {spec.federation} (key {charter.coordinator_key[:12]}…)",
        **purpose_facts(draft.purpose, policy),
        "contract": f"{contract.name}, version {contract.version}: {contract.title}",
        "predicts": contract.label.meaning,
        "features": [
            {"name": column.name, "words": column_words(column), "required": column.required}
            for column in contract.columns
        ],
        "members": members_of(charter, draft.contract),
        "min_partners": max(draft.min_partners, draft.n_min or 1),
        "model": _MODELS[draft.model.kind],
        "mode": draft.mode,
        "holdout": describe_holdout(draft.holdout),
        "rounds": training.rounds,
        "steps": training.steps,
        "sampling_rate": training.sampling_rate,
        "epsilon_asked": draft.epsilon,
        "aggregation": draft.aggregation,
        "secure": secure_terms(spec.secure),
        "intended_use": draft.intended_use,
        "limits": draft.limits,
        "leaves": _leaves(spec),
        "stays": "every record, every score, who took part, who is held out, the name list, and this policy",
    }


def _leaves(spec: StudySpec) -> list[str]:
    draft, hidden = spec.draft, masked(spec.secure)
    return [
        f"{spec.training.rounds} times, paid by the training account: {_MODES[draft.mode]}{hidden}",
        f"once, paid by the hold-out's account: noisy counts of held-out customers by score and outcome "
        f"({draft.evaluation.bins} bins of scores){hidden}",
        "the grant: epsilon, delta, noise and the declared number of customers, all of them public",
    ]


def effect_row(effect: Effect) -> dict[str, Any]:
    """Return one budget before and after a study as a mapping."""
    return {
        "account": effect.item.account,
        "budget": effect.item.budget,
        "purpose": effect.item.purpose,
        "delta": effect.item.delta,
        "allowed_epsilon": effect.item.epsilon,
        "before_epsilon": effect.before,
        "after_epsilon": effect.after,
        "left_epsilon": effect.left,
        "share": effect.share,
        "fits": effect.fits,
        "further_studies": effect.again,
    }


def outlook_facts(outlook: Outlook) -> dict[str, Any]:
    """Return what a study would be granted and cost as a mapping."""
    terms = outlook.terms
    return {
        "epsilon": terms.epsilon,
        "delta": terms.delta,
        "consent": terms.consent,
        "slot": terms.slot.id if terms.slot is not None else None,
        "eyes": terms.eyes,
        **_noise(outlook),
        "secure": secure_terms(terms.secure),
        "if_broken": outlook.if_broken,
        "costs": {account: cost.model_dump() for account, cost in outlook.costs.items()},
        "fits": outlook.fits,
        "exhausted": outlook.exhausted,
        "budgets": [effect_row(effect) for effect in outlook.effects],
    }


def _noise(outlook: Outlook) -> dict[str, Any]:
    grant = outlook.grant
    if isinstance(grant, StatisticsGrant):
        return {"noise_multiplier": None, "histogram_sigma": None, "noise": noise_facts(grant, outlook.members)}
    return {"noise_multiplier": grant.noise_multiplier, "histogram_sigma": grant.histogram_sigma, "noise": None}


def reservation_facts(held: Reservation) -> dict[str, Any]:
    """Return what the ledger holds of a granted study as a mapping."""
    return {
        "epsilon": held.data.epsilon,
        "delta": held.data.delta,
        "policy": held.data.policy,
        "slot": held.data.slot,
        "closed": held.closed,
        "if_broken": if_broken_of(held.data),
        "accounts": [
            {
                "account": charge.account,
                "releases_allowed": charge.releases,
                "released": held.released.get(charge.account, 0),
                "cost": charge.cost.model_dump(),
            }
            for charge in held.data.charges
        ],
    }


def if_broken_of(data: ReserveData) -> dict[Account, float] | None:
    """Return what a reservation states for the protocol's failure, by account; None for a plain study."""
    return None if data.if_broken is None else {claim.account: claim.epsilon for claim in data.if_broken}


def figure(value: float | None) -> str:
    """Write an epsilon with three decimals; above 100 where none describes it."""
    return "> 100" if value is None else f"{value:.3f}"


def print_outlook(console: Console, outlook: Outlook) -> None:
    """Print what a study would be granted, and each budget before and after it."""
    terms, grant = outlook.terms, outlook.grant
    granted = f"It would be granted epsilon {terms.epsilon:g} at delta {terms.delta:g} on each account"
    if isinstance(grant, StatisticsGrant):
        console.print(f"{granted}; both pay it, since everybody is counted.")
        console.print(noise_words(noise_facts(grant, outlook.members)))
    else:
        unit = "clip for training" if terms.secure is None else "one customer's part of a sum"
        console.print(
            f"{granted}; noise {grant.noise_multiplier:.2f} x {unit}, sigma {grant.histogram_sigma:.2f} for counts."
        )
    if terms.secure is not None:
        for line in secrecy_lines(secure_terms(terms.secure), outlook.if_broken):
            console.print(f"{line[0].upper()}{line[1:]}.")
    if terms.slot is not None:
        console.print(f"It fills slot {terms.slot.id} of the plan, which is paid for: it costs nothing more.")
    table = Table(
        title="Budgets: the epsilon that is enforced",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in ("account", "budget"):
        table.add_column(column, no_wrap=True)
    for column in ("allowed", "before", "after", "takes", "left then", "further"):
        table.add_column(column, justify="right", no_wrap=True)
    for effect in outlook.effects:
        after = figure(effect.after) if effect.fits else "[red]does not fit[/]"
        again = "-" if effect.again is None or not effect.fits else str(effect.again)
        row = (f"{effect.item.epsilon:.3f}", figure(effect.before), after, f"{effect.share:.1%}")
        table.add_row(effect.item.account, effect.item.budget, *row, f"{effect.left:.3f}", again)
    console.print(table)
    if outlook.exhausted:
        console.print("[red]The ledger was restored from a copy that may lack entries: nothing remains to spend.[/]")


def print_study(console: Console, facts: dict[str, Any]) -> None:
    """Print what a study is."""
    console.print(f"[bold]{escape(printable(facts['title']))}[/]  ({facts['study']}, digest {facts['digest']})")
    console.print(f"Status: {facts['status_words']}.\n")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    counting = facts["kind"] == "statistics"
    lines = statistics_lines(facts, secrecy_lines(facts["secure"], None)[0]) if counting else _lines(facts)
    for name, text in lines:
        grid.add_row(name, escape(printable(text)))
    console.print(grid)
    if counting:
        print_questions(console, facts)
    console.print(f"\n[bold]{'Columns looked at' if counting else 'Features asked for'}[/]")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for item in facts["features"]:
        optional = "" if item["required"] else " (may be missing)"
        later = " at the end of the horizon" if item.get("when") == "end" else ""
        table.add_row(f"- {item['name']}{later}", escape(printable(f"{item['words']}{optional}")))
    console.print(Padding(table, (0, 0, 1, 0)))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    members = ", ".join(f"{item['title']} ({item['declared']:,} customers declared)" for item in facts["members"])
    asked = "as much as the policy grants" if facts["epsilon_asked"] is None else f"{facts['epsilon_asked']:g}"
    return [
        ("asked by", facts["asked_by"]),
        ("purpose", f"{facts['purpose']}: {facts['meaning'] or 'not in the policy in force'}"),
        ("whose data", f"only customers who agreed to {facts['consent']}" if facts["consent"] else "nobody's"),
        ("contract", facts["contract"]),
        ("predicts", facts["predicts"]),
        ("who takes part", f"{members}; at least {facts['min_partners']} of them"),
        ("model", facts["model"]),
        (
            "training",
            f"{facts['rounds']} rounds, {facts['steps']} steps in all; each draws {facts['sampling_rate']:.2%} of customers",
        ),
        ("held out", facts["holdout"]),
        ("added up", secrecy_lines(facts["secure"], None)[0]),
        ("epsilon asked", asked),
        ("leaves", ";\n".join(facts["leaves"])),
        ("stays here", facts["stays"]),
        ("intended use", facts["intended_use"]),
        ("limits", facts["limits"]),
    ]
