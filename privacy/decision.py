"""Whether a policy allows a study, and on which terms."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from federation.charter import Charter, Declaration
from federation.errors import PolicyError
from federation.statistics import StatisticsDraft, StatisticsSpec
from federation.study import Draft, Holdout, SecurePlan, StudyDraft, StudySpec, Training
from privacy.plan import Slot
from privacy.policy import (
    CUSTOMERS_PER_DELTA,
    Policy,
    PurposeRule,
    SecureRule,
    StatisticsRule,
    StudyRule,
    describe_holdout,
)

SMALLEST_TRAINING = Training(mode="fedsgd", rounds=1, steps=1, sampling_rate=1e-6)


@dataclass(frozen=True)
class Terms:
    """What a policy grants one study.

    `epsilon`, `delta` hold for each account; `consent` is what a customer must have agreed to; `policy` is the policy's
    digest; `slot` is the plan's slot that the study fills; `eyes` is the number of officers who must approve it first.
    `secure` is how the study's vectors are added up in secret, None for a plain study; `floor` is the epsilon that must hold
    on each account by one's own noise alone, where the policy asks for one. `work` says which rules of the policy it falls
    under; `holdout` is None for statistics, which count everybody.
    """

    policy: str
    epsilon: float
    delta: float
    purpose: str
    consent: str
    contract: str
    holdout: Holdout | None
    declared_size: int
    eyes: int = 0
    slot: Slot | None = None
    secure: SecurePlan | None = None
    floor: float | None = None
    work: Literal["training", "statistics"] = "training"


def decide(
    policy: Policy, spec: StudySpec, charter: Charter, member: str, today: date, taken: Collection[str] = ()
) -> Terms:
    """Decide whether a policy allows a study, on public inputs alone.

    Parameters
    ----------
    policy, spec, charter:
        The policy in force, the study, and the charter that it refers to, all checked already.
    member:
        The institution that decides.
    today:
        The ledger's date (`Ledger.today()`), which a clock set back does not move.
    taken:
        The slots of the plan that other studies filled.

    Raises
    ------
    PolicyError
        CSL-P201 unknown purpose, CSL-P202 contract not allowed (or not for this purpose), CSL-P203 model or mode
        not allowed, CSL-P204 more epsilon than allowed, CSL-P205 delta above 1/(100 x declared size), CSL-P206
        cohort too small, CSL-P207 too few partners, CSL-P208 another hold-out, CSL-P209 not valid on this date,
        CSL-P210 another institution's policy, CSL-P211 nothing declared for the contract, CSL-P212 no free slot of
        the plan fits, CSL-P213 an aggregation that the policy does not allow, CSL-P214 sums in secret on weaker terms than
        the policy asks for, CSL-P215 sums in secret under a plan.
    """
    _check_standing(policy, member, today)
    purpose, rule, epsilon = _foreseen(policy, spec.draft)
    terms = _terms(policy, spec, (purpose, rule, epsilon), charter, member)
    slot = _slot(policy, spec.draft, spec.training, taken) if policy.budget.mode == "plan" else None
    return replace(terms, holdout=rule.holdout, slot=slot)


def decide_statistics(policy: Policy, spec: StatisticsSpec, charter: Charter, member: str, today: date) -> Terms:
    """Decide whether a policy allows a statistics study, on public inputs alone. Parameters as of `decide`.

    Raises
    ------
    PolicyError
        As `decide`; CSL-P202 where no rule for statistics covers the contract and purpose.
    """
    _check_standing(policy, member, today)
    terms = _terms(policy, spec, _foreseen_statistics(policy, spec.draft), charter, member)
    return replace(terms, work="statistics")


def _terms(
    policy: Policy,
    spec: StudySpec | StatisticsSpec,
    foreseen: tuple[PurposeRule, StudyRule | StatisticsRule, float],
    charter: Charter,
    member: str,
) -> Terms:
    """Return what every study is granted by the rules that it falls under, once sizes and partners are enough."""
    draft, (purpose, rule, epsilon) = spec.draft, foreseen
    declaration = _declaration(charter, member, draft.contract)
    _check_sizes(policy, rule, declaration)
    _check_partners(policy, draft, charter)
    return Terms(
        policy=policy.digest(),
        epsilon=epsilon,
        delta=rule.max_delta,
        purpose=purpose.id,
        consent=purpose.consent,
        contract=rule.contract,
        holdout=None,
        declared_size=declaration.size,
        eyes=_eyes(policy, rule, epsilon),
        secure=spec.secure,
        floor=policy.secure.local_noise_floor if spec.secure is not None and policy.secure is not None else None,
    )


def foresee_statistics(
    policy: Policy, draft: StatisticsDraft, charter: Charter | None, today: date
) -> tuple[float, int]:
    """Say what a policy would make of a statistics study that is only drafted; as `foresee`."""
    _check_standing(policy, policy.institution, today)
    _, rule, epsilon = _foreseen_statistics(policy, draft)
    if charter is not None:
        _check_sizes(policy, rule, _declaration(charter, policy.institution, draft.contract))
        _check_partners(policy, draft, charter)
    return epsilon, _eyes(policy, rule, epsilon)


def foresee(policy: Policy, draft: StudyDraft, charter: Charter | None, today: date) -> tuple[float, int]:
    """Say what a policy would make of a study that is only drafted, as far as the draft shows it.

    Returns
    -------
    epsilon, eyes:
        What it would get on each account, and how many officers must approve it first; 0 where none.

    Without a charter, sizes and partners are not looked at; never the budget, nor the length of the training.

    Raises
    ------
    PolicyError
        As `decide`.
    """
    _check_standing(policy, policy.institution, today)
    _, rule, epsilon = _foreseen(policy, draft)
    if charter is not None:
        _check_sizes(policy, rule, _declaration(charter, policy.institution, draft.contract))
        _check_partners(policy, draft, charter)
    if policy.budget.mode == "plan":
        _slot(policy, draft, SMALLEST_TRAINING, ())
    return epsilon, _eyes(policy, rule, epsilon)


def _foreseen(policy: Policy, draft: StudyDraft) -> tuple[PurposeRule, StudyRule, float]:
    """Return the rules that a study falls under, and the epsilon that it would get."""
    purpose, rule = _rule(policy, draft.purpose, draft.contract)
    _check_shape(rule, draft)
    _check_aggregation(policy, draft)
    return purpose, rule, _granted_epsilon(rule, draft.epsilon)


def _foreseen_statistics(policy: Policy, draft: StatisticsDraft) -> tuple[PurposeRule, StatisticsRule, float]:
    purpose = policy.purpose(draft.purpose)
    rule = next(
        (item for item in policy.statistics if item.contract == draft.contract and draft.purpose in item.purposes), None
    )
    if rule is None:
        raise PolicyError(
            "CSL-P202",
            f"The policy allows no statistics on contract {draft.contract} for {draft.purpose}.",
            "Ask your compliance officer to add a rule under `statistics`, or decline the study.",
        )
    _check_aggregation(policy, draft)
    return purpose, rule, _granted_epsilon(rule, draft.epsilon)


def _eyes(policy: Policy, rule: StudyRule | StatisticsRule, epsilon: float) -> int:
    return policy.approval.eyes if epsilon > rule.automatic_epsilon else 0


def _declaration(charter: Charter, member: str, contract: str) -> Declaration:
    declaration = charter.member(member).declaration(contract)
    if declaration is None:
        raise PolicyError(
            "CSL-P211",
            f"The charter has no declaration of {member} for {contract}.",
            "Declare the cohort in the charter first.",
        )
    return declaration


def _check_standing(policy: Policy, member: str, today: date) -> None:
    if member != policy.institution:
        raise PolicyError(
            "CSL-P210",
            f"The policy is that of {policy.institution}, not of {member}.",
            "Install this institution's own policy.",
        )
    if not policy.issued <= today < policy.expires:
        raise PolicyError(
            "CSL-P209",
            f"The policy holds from {policy.issued} until before {policy.expires}; the ledger's date is {today}.",
            "Ask your compliance officer for a policy that is in force.",
        )


def _rule(policy: Policy, purpose_id: str, contract: str) -> tuple[PurposeRule, StudyRule]:
    purpose = policy.purpose(purpose_id)
    rule = next((item for item in policy.studies if item.contract == contract and purpose_id in item.purposes), None)
    if rule is None:
        raise PolicyError(
            "CSL-P202",
            f"The policy allows no study on contract {contract} for {purpose_id}.",
            "Ask your compliance officer to add it, or decline the study.",
        )
    return purpose, rule


def _slot(policy: Policy, draft: StudyDraft, training: Training, taken: Collection[str]) -> Slot:
    """Return the first free slot that is large enough for a study."""
    for slot in policy.budget.slots:
        fits = training.sampling_rate <= slot.sampling_rate and training.steps <= slot.steps
        same = (slot.purpose, slot.contract) == (draft.purpose, draft.contract)
        if slot.id not in taken and same and fits:
            return slot
    raise PolicyError(
        "CSL-P212",
        f"No free slot of the plan has room for {training.steps} steps at rate {training.sampling_rate:g} on "
        f"{draft.contract} for {draft.purpose}.",
        "Decline the study, or sign a new plan: a slot cannot be split or enlarged.",
    )


def _check_sizes(policy: Policy, rule: StudyRule | StatisticsRule, declaration: Declaration) -> None:
    largest = 1.0 / (CUSTOMERS_PER_DELTA * declaration.size)
    delta = max(rule.max_delta, policy.budget.life.delta)  # the life's is never below the period's
    if delta > largest:
        raise PolicyError(
            "CSL-P205",
            f"delta {delta:g} is above 1/({CUSTOMERS_PER_DELTA} x {declaration.size} declared customers) = "
            f"{largest:.3g}.",
            "Lower delta in the policy, for studies, period and life.",
        )
    if declaration.size < policy.smallest_cohort:
        raise PolicyError(
            "CSL-P206",
            f"{declaration.size} customers are declared for {rule.contract}; the policy's smallest cohort is "
            f"{policy.smallest_cohort}.",
            "Decline the study: so small a cohort would need too much noise.",
        )


def _check_partners(policy: Policy, draft: Draft, charter: Charter) -> None:
    able = sum(member.declaration(draft.contract) is not None for member in charter.members)
    fewest = min(max(draft.min_partners, draft.n_min or 1), able)
    if fewest < policy.smallest_partners:
        raise PolicyError(
            "CSL-P207",
            f"The study may go on with {fewest} partners; the policy asks for at least {policy.smallest_partners}.",
            "Ask the coordinator for a study with more partners, or decline it.",
        )


def _check_shape(rule: StudyRule, draft: StudyDraft) -> None:
    if draft.model.kind not in rule.models or draft.mode not in rule.modes:
        raise PolicyError(
            "CSL-P203",
            f"For {rule.contract} the policy allows models {', '.join(rule.models)} by {', '.join(rule.modes)}; "
            f"the study asks for {draft.model.kind} by {draft.mode}.",
            "Ask your compliance officer to add it, or decline the study.",
        )
    if draft.holdout != rule.holdout:
        raise PolicyError(
            "CSL-P208",
            f"The study holds out {describe_holdout(draft.holdout)}; the policy, {describe_holdout(rule.holdout)}.",
            "Ask the coordinator for the policy's rule: it stays the same for the budget's life.",
        )


def _check_aggregation(policy: Policy, draft: Draft) -> None:
    """Refuse a study whose vectors are added up otherwise than the policy allows."""
    rule = policy.secure
    if draft.aggregation == "plain":
        if policy.aggregation == "secure":
            raise PolicyError(
                "CSL-P213",
                "The policy allows studies whose sums alone are opened (aggregation: secure); this one is plain.",
                "Ask the coordinator for a study with aggregation: secure, or your compliance officer to allow plain ones.",
            )
        return
    if rule is None:
        raise PolicyError(
            "CSL-P213",
            "The policy has no rule for studies whose sums alone are opened (aggregation: secure).",
            "Ask your compliance officer to add the rule `secure` to the policy, or decline the study.",
        )
    if policy.budget.mode == "plan":
        raise PolicyError(
            "CSL-P215",
            "The policy's budget is a plan, whose slots describe plain studies only; this study asks for aggregation: secure.",
            "Ask for a plain study, or sign a policy whose budget is open.",
        )
    _check_secure(rule, draft)


def _check_secure(rule: SecureRule, draft: Draft) -> None:
    """Refuse a study that promises less than the rule asks for; all that is wrong is said at once."""
    assert draft.n_min is not None and draft.c is not None
    weaker = []
    if draft.n_min < rule.n_min:
        weaker.append(
            f"opens sums over {draft.n_min} members on (n_min), and the policy asks for {rule.n_min} at least"
        )
    if draft.c < rule.c:
        weaker.append(f"holds while {draft.c} members collude (c), and the policy asks for {rule.c} at least")
    if draft.noise not in rule.noise:
        weaker.append(f"counts on {draft.noise} noise, and the policy allows {' or '.join(rule.noise)} noise only")
    if weaker:
        raise PolicyError(
            "CSL-P214",
            f"The study {'; it '.join(weaker)}.",
            "Ask the coordinator for a study on the policy's terms, or your compliance officer to allow these.",
        )


def _granted_epsilon(rule: StudyRule | StatisticsRule, asked: float | None) -> float:
    if asked is None:
        return rule.max_epsilon
    if not math.isfinite(asked) or asked > rule.max_epsilon:
        raise PolicyError(
            "CSL-P204",
            f"The study asks for epsilon {asked:g}; the policy allows at most {rule.max_epsilon:g} on {rule.contract}.",
            "Ask the coordinator to ask for less, or your compliance officer to allow more.",
        )
    return asked
