"""From answers to a policy: deltas from declared sizes, noise for the slots of a plan, and the version after another."""

import json
import math
import re
from typing import Any

from pydantic import ValidationError

from client.answers import Answers, Texts, largest_delta, officer_key
from client.questions import MANY
from federation.errors import DocumentError
from privacy.accounting import calibrate_histogram, calibrate_noise
from privacy.policy import Policy

_DIGITS = 4


def build(answers: Answers, before: Policy | None = None) -> Policy:
    """Return the policy that complete answers describe.

    `before` is the policy that it follows: version and `prev` are its successor's. A slot that states an epsilon gets the
    least noise that keeps one study to it, at the delta of the rule for its contract, rounded up.

    Raises
    ------
    DocumentError
        CSL-C633 with every contradiction between the answers.
    PolicyError
        CSL-P107 when no noise brings a slot to its epsilon.
    """
    one = answers.one
    budget = _budget(answers, before)
    studies = [_study(item, budget["period"]["delta"]) for item in answers.many["study"]]
    statistics = [_statistics(item, budget["period"]["delta"]) for item in answers.many.get("statistics", ())]
    deltas = {rule["contract"]: rule["max_delta"] for rule in studies}
    if one["mode"] == "plan":
        budget["slots"] = [_slot(item, deltas) for item in answers.many["slot"]]
    content = {
        "institution": one["institution"],
        "version": 1 if before is None else before.version + 1,
        "prev": None if before is None else before.digest(),
        "issued": one["issued"],
        "expires": one["expires"],
        "officers": [
            {"id": item.get("id"), "key": officer_key(item.get("key", ""))} for item in answers.many["officer"]
        ],
        "approval": {"eyes": int(one["eyes"])},
        "purposes": [_purpose(item, budget["period"]["delta"]) for item in answers.many["purpose"]],
        "contact_consent": one["contact-consent"],
        "studies": studies,
        "statistics": statistics,
        "budget": budget,
        "smallest_cohort": int(one["smallest-cohort"]),
        "smallest_partners": int(one["smallest-partners"]),
        "aggregation": one["aggregation"],
        "secure": _secure(one),
        "reply_grid_seconds": float(one["reply-grid"]),
        "retention": {
            "name_lists_days": int(one["keep-name-lists"]),
            "replies_days": int(one["keep-replies"]),
            "participation_days": int(one["keep-participation"]),
        },
    }
    try:
        return Policy.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise DocumentError("CSL-C633", _listing(error), "Change the answers named, and try again.") from error


def _listing(error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"])
        problems.append(f"  {where + ': ' if where else ''}{item['msg'].removeprefix('Value error, ')}")
    return "The answers do not make a policy:\n" + "\n".join(problems)


def _budget(answers: Answers, before: Policy | None) -> dict[str, Any]:
    one = answers.one
    sound = largest_delta(int(one["size"])) if "size" in one else None
    life = one.get("life-delta", sound)
    period = one.get("period-delta", sound)
    if before is not None:
        life = before.budget.life.delta if life is None else life
        period = before.budget.period.delta if period is None else period
    assert life is not None and period is not None
    if "period-delta" not in one:
        period = min(float(period), float(life))
    spending = {"kind": one["filter"]} | ({"order": int(one["order"])} if one["filter"] == "rdp" else {})
    return {
        "mode": one["mode"],
        "filter": spending,
        "unit": "customer",
        "neighbours": "add_or_remove_one",
        "period": {"days": int(one["period-days"]), "epsilon": float(one["period-epsilon"]), "delta": float(period)},
        "life": {"epsilon": float(one["life-epsilon"]), "delta": float(life)},
    }


def _secure(one: Texts) -> dict[str, Any] | None:
    """Return the rule for sums in secret; None where the answers allow none."""
    if one["secure-noise"].strip() == "none":
        return None
    rule = {
        "n_min": int(one["secure-n-min"]),
        "c": int(one["secure-c"]),
        "noise": re.split(r"[+\s]+", one["secure-noise"]),
    }
    return rule | ({"local_noise_floor": float(one["secure-floor"])} if "secure-floor" in one else {})


def _typed(flag: str, item: Texts) -> dict[str, Any]:
    """Return an item's values in their types, and refuse one that lacks a key."""
    lacking = [
        question.name
        for question in MANY[flag]
        if not question.optional and not (question.name in item or question.default)
    ]
    if lacking:
        raise DocumentError("CSL-C623", f"--{flag}: {', '.join(lacking)} is missing.", "Give it as KEY=VALUE.")
    texts = {question.name: item.get(question.name, question.default) for question in MANY[flag]}
    return {question.name: question.value(texts[question.name]) for question in MANY[flag] if texts[question.name]}


def _purpose(item: Texts, period_delta: float) -> dict[str, Any]:
    values = _typed("purpose", item)
    rule = {key: values[key] for key in ("id", "meaning", "consent")}
    if "epsilon" in values:
        rule["budget"] = {"epsilon": values["epsilon"], "delta": values.get("delta", period_delta)}
    return rule


def _study(item: Texts, period_delta: float) -> dict[str, Any]:
    values = _typed("study", item)
    kind, _, share = values["holdout"].partition(":")
    held = {"share": float(share)} if kind == "hash" else {"position": int(share)}
    return {
        "kind": "training",
        "contract": values["contract"],
        "purposes": values["purposes"],
        "models": values["models"],
        "modes": values["modes"],
        "max_epsilon": values["epsilon"],
        "max_delta": values.get("delta", period_delta),
        "automatic_epsilon": values["automatic"],
        "holdout": {"kind": kind, **held},
    }


def _statistics(item: Texts, period_delta: float) -> dict[str, Any]:
    values = _typed("statistics", item)
    return {
        "contract": values["contract"],
        "purposes": values["purposes"],
        "max_epsilon": values["epsilon"],
        "max_delta": values.get("delta", period_delta),
        "automatic_epsilon": values["automatic"],
    }


def _slot(item: Texts, deltas: dict[str, float]) -> dict[str, Any]:
    values = _typed("slot", item)
    delta = deltas.get(values["contract"])
    if "epsilon" in values and delta is not None:
        noise = _up(calibrate_noise(values["epsilon"], delta, values["rate"], values["steps"]))
        histogram = _up(calibrate_histogram(values["epsilon"], delta, 1))
    elif "noise" in values and "histogram" in values:
        noise, histogram = values["noise"], values["histogram"]
    else:
        raise DocumentError(
            "CSL-C623",
            f"--slot {values['id']}: it needs an epsilon and a rule for its contract, or noise and histogram.",
            "Give epsilon, and a --study for the same contract.",
        )
    return {
        "id": values["id"],
        "purpose": values["purpose"],
        "contract": values["contract"],
        "noise_multiplier": noise,
        "sampling_rate": values["rate"],
        "steps": values["steps"],
        "histogram_sigma": histogram,
    }


def _up(value: float) -> float:
    """Round up to four digits: a page that people read, and never less noise than was computed."""
    step = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return float(f"{math.ceil(value / step) * step:.{_DIGITS + 2}g}")
