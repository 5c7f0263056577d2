"""The answers that make a policy, as texts: read from flags, or from an earlier policy."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from client.questions import MANY, NONE_OF, ONE, Question
from federation.errors import DocumentError
from privacy.keys import read_public
from privacy.plan import Slot
from privacy.policy import CUSTOMERS_PER_DELTA, Policy, SecureRule

Texts = dict[str, str]
_KEYED = re.compile(r",\s*(?=[a-z_]+=)")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass
class Answers:
    """Answers as texts: `one` by flag, `many` by flag and then by key."""

    one: Texts = field(default_factory=dict)
    many: dict[str, tuple[Texts, ...]] = field(default_factory=dict)


def read_flags(one: Mapping[str, str | None], many: Mapping[str, Iterable[str]]) -> Answers:
    """Return the answers that flags give, each checked; `none` empties a list that may be empty.

    Raises
    ------
    DocumentError
        CSL-C623 for a flag whose value does not fit.
    """
    answers = Answers({name: text for name, text in one.items() if text is not None})
    for question in ONE:
        if question.name in answers.one:
            _checked(question, answers.one[question.name], question.name)
    for name, texts in many.items():
        given = tuple(texts)
        if name in NONE_OF and given == ("none",):
            answers.many[name] = ()
        elif given:
            answers.many[name] = tuple(_fields(name, text) for text in given)
    return answers


def _fields(flag: str, text: str) -> Texts:
    """Read `key=value,key=value`; for an officer also `ID=KEY`."""
    pairs = [(key.strip(), value.strip()) for key, _, value in (part.partition("=") for part in _KEYED.split(text))]
    if flag == "officer" and len(pairs) == 1:
        pairs = [("id", pairs[0][0]), ("key", pairs[0][1])]
    fields = dict(pairs)
    questions = {question.name: question for question in MANY[flag]}
    unknown = [key for key in fields if key not in questions]
    if unknown or len(fields) != len(pairs) or any(not value for value in fields.values()):
        raise _wrong(flag, f'"{text}" is not KEY=VALUE,KEY=VALUE with the keys {", ".join(questions)}, each once')
    for key, value in fields.items():
        if (flag, key) != ("officer", "key"):  # a key may still be the name of a file
            _checked(questions[key], value, f"{flag}, {key}")
    return fields


def _checked(question: Question, text: str, name: str) -> None:
    try:
        question.value(text)
    except ValueError as error:
        raise _wrong(name, f'"{text}": {error}') from error


def _wrong(flag: str, what: str) -> DocumentError:
    return DocumentError("CSL-C623", f"--{flag}: {what}.", "Correct it; `--help` shows what each flag takes.")


def answers_of(policy: Policy, today: date) -> Answers:
    """Return the answers that lead to a policy's successor: the same, with its dates moved on to begin today."""
    budget, kept = policy.budget, policy.retention
    one = {
        "institution": policy.institution,
        "issued": str(today),
        "expires": str(today + (policy.expires - policy.issued)),
        "eyes": str(policy.approval.eyes),
        "contact-consent": policy.contact_consent,
        "mode": budget.mode,
        "filter": budget.filter.kind,
        "period-days": str(budget.period.days),
        "period-epsilon": repr(budget.period.epsilon),
        "period-delta": repr(budget.period.delta),
        "life-epsilon": repr(budget.life.epsilon),
        "life-delta": repr(budget.life.delta),
        "smallest-cohort": str(policy.smallest_cohort),
        "smallest-partners": str(policy.smallest_partners),
        "aggregation": policy.aggregation,
        "reply-grid": repr(policy.reply_grid_seconds),
        "keep-name-lists": str(kept.name_lists_days),
        "keep-replies": str(kept.replies_days),
        "keep-participation": str(kept.participation_days),
    }
    if budget.filter.kind == "rdp":
        one["order"] = str(budget.filter.order)
    one |= _secure_texts(policy.secure)
    many = {
        "officer": tuple({"id": officer.id, "key": officer.key} for officer in policy.officers),
        "purpose": tuple(_purpose_texts(policy)),
        "study": tuple(_study_texts(policy)),
        "statistics": tuple(_statistics_texts(policy)),
        "slot": tuple(_slot_texts(slot) for slot in budget.slots),
    }
    return Answers(one, {name: items for name, items in many.items() if items})


def _secure_texts(rule: SecureRule | None) -> Texts:
    if rule is None:
        return {"secure-noise": "none"}
    floor = {} if rule.local_noise_floor is None else {"secure-floor": repr(rule.local_noise_floor)}
    return {"secure-noise": "+".join(rule.noise), "secure-c": str(rule.c), "secure-n-min": str(rule.n_min)} | floor


def _purpose_texts(policy: Policy) -> Iterable[Texts]:
    for rule in policy.purposes:
        own = rule.budget
        extra = {} if own is None else {"epsilon": repr(own.epsilon), "delta": repr(own.delta)}
        yield {"id": rule.id, "meaning": rule.meaning, "consent": rule.consent} | extra


def _study_texts(policy: Policy) -> Iterable[Texts]:
    for rule in policy.studies:
        held = rule.holdout
        yield {
            "contract": rule.contract,
            "purposes": "+".join(rule.purposes),
            "models": "+".join(rule.models),
            "modes": "+".join(rule.modes),
            "epsilon": repr(rule.max_epsilon),
            "delta": repr(rule.max_delta),
            "automatic": repr(rule.automatic_epsilon),
            "holdout": f"hash:{held.share!r}" if held.kind == "hash" else f"position:{held.position}",
        }


def _statistics_texts(policy: Policy) -> Iterable[Texts]:
    for rule in policy.statistics:
        yield {
            "contract": rule.contract,
            "purposes": "+".join(rule.purposes),
            "epsilon": repr(rule.max_epsilon),
            "delta": repr(rule.max_delta),
            "automatic": repr(rule.automatic_epsilon),
        }


def _slot_texts(slot: Slot) -> Texts:
    return {
        "id": slot.id,
        "purpose": slot.purpose,
        "contract": slot.contract,
        "rate": repr(slot.sampling_rate),
        "steps": str(slot.steps),
        "noise": repr(slot.noise_multiplier),
        "histogram": repr(slot.histogram_sigma),
    }


def largest_delta(size: int) -> float:
    """Return 1/(100 x size), rounded down to two digits: the largest sound delta for `size` declared customers."""
    exact = 1.0 / (CUSTOMERS_PER_DELTA * size)
    for text in (f"{exact:.1e}", f"{exact * 0.95:.1e}", f"{exact * 0.9:.1e}"):
        if float(text) * CUSTOMERS_PER_DELTA * size <= 1.0:
            return float(text)
    return exact


def without_deltas(before: Answers) -> Answers:
    """Return an earlier policy's answers without the deltas that follow from the declared size; the life's is fixed."""
    one = {name: text for name, text in before.one.items() if name != "period-delta"}
    many = {
        name: tuple({key: text for key, text in item.items() if key != "delta"} for item in items)
        for name, items in before.many.items()
    }
    return Answers(one, many)


def officer_key(text: str) -> str:
    """Return the public key that a text is (64 hexadecimal digits), or that the key file it names holds.

    Raises
    ------
    ConsilienceError
        CSL-P502, CSL-P506 when it is neither.
    """
    return text if _HEX.fullmatch(text) else read_public(Path(text))
