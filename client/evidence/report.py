"""The report for people: what a pack's documents say, as one page of HTML that prints well and needs no other file.

The same documents give the same bytes, so that a verifier renders the report anew and compares.
"""

import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from client.evidence.articles import annex, beside
from client.evidence.budget_view import ACCOUNT_NAMES, budget_rows, enforced, month_rows, purpose_rows
from client.evidence.chart import usage_chart
from client.evidence.check import Checked
from client.evidence.gather import Gathered, Listed
from client.evidence.manifest import SIGNED_ONLY, Manifest
from client.evidence.papers import Papers
from client.evidence.study_view import StudyNames, approval_rows, model_rows, shared_noise, study_blocks
from client.words import day_of, moment_of, percent, plain, short_digests
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.errors import PolicyError
from privacy.comparison import changes
from privacy.ledger.entries import PolicyEntry, RefuseData, Restore, Rotate, Witnessed
from privacy.ledger.reader import Spending, spending_of
from privacy.ledger.refusals import RefusalsData
from privacy.policy import Policy, StatisticsRule, StudyRule, describe_holdout

SUMMED = "only counted: too many were refused within the hour to write each down"


def render_report(manifest: Manifest, checked: Checked, papers: Papers) -> bytes:
    """Return the report of a pack as HTML, UTF-8."""
    template = _environment(autoescape=True).get_template("report.html.j2")
    style = files("client.evidence").joinpath("templates", "report.css").read_text("utf-8")
    return template.render(style=Markup(style), **_view(manifest, checked, papers)).encode()


def render_guide(manifest: Manifest) -> bytes:
    """Return `VERIFY.md`: how a stranger checks the pack, with our program and without it."""
    template = _environment(autoescape=False).get_template("verify.md.j2")
    return template.render(manifest=manifest, key=manifest.keys[-1].key, as_of=moment_of(manifest.as_of)).encode()


@lru_cache(maxsize=2)
def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("client.evidence"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _view(manifest: Manifest, checked: Checked, papers: Papers) -> dict[str, Any]:
    gathered, state = checked.gathered, checked.audit.state
    names = StudyNames(gathered, papers)
    spent = spending_of(state, state.ts)
    begin = gathered.first_ts if gathered.first_ts is not None else state.ts
    return {
        "beside": beside,
        "annex": {law: [item for item in annex() if item.law == law] for law in ("GDPR", "PIPL")},
        "facts": _facts(manifest, checked, papers),
        "signed_only": SIGNED_ONLY if manifest.first else "",
        "policy": None if state.policy is None else _policy(state.policy),
        "purposes": purpose_rows(gathered, state),
        "contracts": [_contract(item) for item in papers.contracts.values()],
        "members": [(item.title, item.id, item.id == manifest.member) for item in papers.charter.members],
        "policies": _policies(gathered),
        "approvals": approval_rows(gathered, names),
        "budget": budget_rows(spent),
        "exhausted": state.exhausted,
        "months": month_rows(gathered, state),
        "chart": Markup(usage_chart(gathered.points, begin, state.ts)),  # numbers and constants alone
        "studies": study_blocks(gathered, papers),
        "shared_noise": shared_noise(gathered),
        "studies_left_out": gathered.studies_left_out,
        "refusals": _refusals(gathered),
        "withdrawals": _withdrawals(gathered),
        "accesses": _accesses(gathered),
        "models": model_rows(gathered, papers),
        "ledger": _ledger(manifest, gathered, papers),
    }


def _facts(manifest: Manifest, checked: Checked, papers: Papers) -> dict[str, Any]:
    gathered, state = checked.gathered, checked.audit.state
    member = papers.charter.member(manifest.member)
    life = [item for item in spending_of(state, state.ts) if item.budget == "life"]
    return {
        "title": member.title,
        "member": member.id,
        "federation": manifest.federation,
        "first": manifest.first,
        "last": manifest.end - 1,
        "whole": manifest.whole,
        "begin": day_of(gathered.first_ts if gathered.first_ts is not None else state.ts),
        "end": day_of(state.ts),
        "as_of": moment_of(manifest.as_of),
        "size": manifest.head.size,
        "root": manifest.head.root,
        "key": manifest.keys[-1].key,
        "charter": manifest.charter,
        "charter_key": member.key,
        "entries": sum(gathered.kinds.values()),
        "granted": gathered.kinds["reserve"],
        "released": gathered.replies,
        "refused": sum(gathered.refusals.values()),
        "withdrawn": gathered.withdrawn,
        "life": [(ACCOUNT_NAMES[item.account], enforced(item, item.used), plain(item.epsilon)) for item in life],
        "odds": None if not life else _odds(life[0].epsilon, life[0].delta),
        "used": [_sure(item) for item in life],
        "software": manifest.software,
    }


def _odds(epsilon: float, delta: float) -> dict[str, str]:
    """Say an epsilon in words: how sure somebody can become who began with even odds."""
    return {
        "epsilon": plain(epsilon),
        "delta": plain(delta),
        "sure": _sure_of(epsilon),
        "factor": f"{math.exp(min(epsilon, 50.0)):,.{1 if epsilon < 4 else 0}f}",
    }


def _sure(item: Spending) -> tuple[str, str, str]:
    """Say what is in use of a budget in words: account, epsilon, and how sure somebody can become by it."""
    try:
        return (ACCOUNT_NAMES[item.account], plain(item.epsilon_of(item.used)), _sure_of(item.epsilon_of(item.used)))
    except PolicyError:
        return (ACCOUNT_NAMES[item.account], "as planned", _sure_of(item.epsilon))


def _sure_of(epsilon: float) -> str:
    return percent(1.0 / (1.0 + math.exp(-epsilon)))


def _policy(policy: Policy) -> dict[str, Any]:
    period, life = policy.budget.period, policy.budget.life
    return {
        "version": policy.version,
        "eyes": policy.approval.eyes,
        "contact": policy.contact_consent,
        "cohort": f"{policy.smallest_cohort:,}",
        "partners": policy.smallest_partners,
        "grid": f"{policy.reply_grid_seconds:g}",
        "mode": policy.budget.mode,
        "filter": policy.budget.filter.kind,
        "period": f"{period.epsilon:g}",
        "period_delta": plain(period.delta),
        "days": period.days,
        "life": f"{life.epsilon:g}",
        "life_delta": plain(life.delta),
        "retention": policy.retention,
        "secrecy": _secrecy(policy),
        "consents": [(rule.id, rule.meaning, rule.consent) for rule in policy.purposes],
        "rules": [
            *[_rule("training", rule, describe_holdout(rule.holdout)) for rule in policy.studies],
            *[_rule("statistics", rule, "nobody: all are counted") for rule in policy.statistics],
        ],
    }


def _rule(kind: str, rule: StudyRule | StatisticsRule, held_out: str) -> tuple[str, ...]:
    return (
        rule.contract,
        kind,
        ", ".join(rule.purposes),
        f"{rule.max_epsilon:g}",
        plain(rule.max_delta),
        f"{rule.automatic_epsilon:g}",
        held_out,
    )


def _secrecy(policy: Policy) -> str:
    """Say on which terms replies may be added up in secret; nothing where they may not."""
    rule = policy.secure
    if rule is None:
        return ""
    whom = "Only studies" if policy.aggregation == "secure" else "Besides plain ones, studies"
    floor = ""
    if rule.local_noise_floor is not None:
        floor = f"; should that fail, its own noise must still keep a study to epsilon {rule.local_noise_floor:g}"
    return (
        f"{whom} that add up replies in secret are granted, over at least {rule.n_min} institutions, of whom up to {rule.c} may work "
        f"together with the coordinator, with {' or '.join(rule.noise)} noise{floor}."
    )


def _contract(contract: FeatureContract) -> dict[str, Any]:
    return {
        "name": contract.name,
        "title": contract.title,
        "source": "one row a customer" if contract.source == "table" else "computed from purchases",
        "columns": [(column.name, column.meaning, _range(column)) for column in contract.columns],
        "label": (contract.label.name, contract.label.meaning),
    }


def _range(column: NumericColumn | CategoricalColumn | FlagColumn | Label) -> str:
    if isinstance(column, NumericColumn):
        return f"{column.low:g} to {column.high:g} {column.unit}"
    if isinstance(column, CategoricalColumn):
        return f"one of {len(column.categories)} categories"
    return "yes or no"


def _policies(gathered: Gathered) -> dict[str, Any]:
    rows, before = [], None
    for body in gathered.policies.rows:
        rows.append(_policy_row(body, before))
        before = body.data.policy
    return {"rows": rows, "left_out": gathered.policies.left_out}


def _policy_row(body: PolicyEntry, before: Policy | None) -> dict[str, Any]:
    policy = body.data.policy
    names = {item.key: item.id for item in (*policy.officers, *(before.officers if before else ()))}
    return {
        "version": policy.version,
        "seq": body.seq,
        "time": moment_of(body.ts),
        "valid": f"{policy.issued} to before {policy.expires}",
        "digest": body.data.sha256,
        "signers": [names.get(item.key, item.key[:16]) for item in body.data.signatures],
        "changes": [] if before is None else _changes(before, policy),
        "slots": len(policy.budget.slots),
    }


def _changes(before: Policy, policy: Policy) -> list[str]:
    """Return what changed but the numbering, which every version changes."""
    alike = policy.model_copy(update={"version": before.version, "prev": before.prev})
    return [item.text for item in changes(before, alike)]


def _refusals(gathered: Gathered) -> dict[str, Any]:
    sums = sorted(gathered.refusals.items(), key=lambda item: (-item[1], item[0]))
    rows = [(item.seq, moment_of(item.ts), *_refused(item.data)) for item in gathered.refused.rows]
    return {
        "sums": [(code, count, gathered.reasons.get(code, SUMMED)) for code, count in sums],
        "rows": rows,
        "left_out": gathered.refused.left_out,
    }


def _refused(data: RefuseData | RefusalsData) -> tuple[str, str]:
    """Return the study and the code of a refusal; of many, when they were and how many."""
    if isinstance(data, RefuseData):
        return data.study, data.code
    return f"{moment_of(data.first)} to {moment_of(data.last)}", f"{data.count:,} more"


def _withdrawals(gathered: Gathered) -> dict[str, Any]:
    rows = [
        (item.seq, moment_of(item.ts), item.data.count, item.data.reason, item.data.actor, item.data.salted)
        for item in gathered.withdrawals.rows
    ]
    return {"rows": rows, "left_out": gathered.withdrawals.left_out, "customers": gathered.withdrawn}


def _accesses(gathered: Gathered) -> dict[str, Any]:
    rows = [
        (
            item.seq,
            moment_of(item.ts),
            item.data.actor,
            item.data.role,
            item.data.action,
            short_digests(item.data.what),
            item.data.count,
        )
        for item in gathered.accesses.rows
    ]
    sums = sorted((action, role, count) for (action, role), count in gathered.access_sums.items())
    return {"rows": rows, "sums": sums, "left_out": gathered.accesses.left_out}


def _ledger(manifest: Manifest, gathered: Gathered, papers: Papers) -> dict[str, Any]:
    note = papers.note
    return {
        "keys": [(item.seq, item.key) for item in manifest.keys],
        "changes": [_change(item) for item in gathered.changes.rows],
        "witnessed": [_witnessed(item) for item in gathered.witnessed.rows],
        "witnessed_left_out": _left_out(gathered.witnessed),
        "note": None
        if note is None
        else {
            "size": note.size,
            "cosigners": [(name, moment_of(1000 * when)) for name, when in sorted(note.cosigners.items())],
        },
        "kinds": sorted(gathered.kinds.items()),
    }


def _left_out(listed: Listed[Witnessed]) -> int:
    return listed.left_out


def _change(body: Rotate | Restore) -> tuple[int, str, str]:
    if isinstance(body, Rotate):
        said = body.data.statement
        return (body.seq, moment_of(body.ts), f"New key {said.new}: {body.data.reason}")
    lost = "entries may be lost, nothing remains to spend" if body.data.exhausts else "nothing was lost"
    return (body.seq, moment_of(body.ts), f"Restored from a copy of {body.data.statement.size} entries; {lost}.")


def _witnessed(body: Witnessed) -> tuple[int, str, int, str]:
    names = ", ".join(item.partition(" ")[0].removeprefix("consilience/") for item in body.data.witnesses)
    return (body.seq, moment_of(body.ts), body.data.size, names)
