"""A policy in plain words: what it allows and what it refuses."""

from federation.study import Purpose
from privacy.accounting import gaussian_mu
from privacy.cost import NANO, Bound, Filter, TokenFilter
from privacy.filter import Limits, limits_of
from privacy.plan import plan_epsilon
from privacy.policy import Policy, PurposeRule, SecureRule, StatisticsRule, StudyRule, describe_holdout


def explain(policy: Policy) -> list[str]:
    """Return in plain words, one line each, what a policy allows and refuses.

    Raises
    ------
    PolicyError
        CSL-P112 when nothing fits into a budget at the policy's order.
    """
    limits = limits_of(policy)
    return [
        f"{policy.institution}, version {policy.version}, in force from {policy.issued} until before {policy.expires}.",
        *[_purpose(rule, limits.period_days) for rule in policy.purposes],
        *[_study(policy, rule) for rule in policy.studies],
        *[_statistics(policy, rule) for rule in policy.statistics],
        *_budget(policy, limits),
        *_authority(policy),
        *_aggregation(policy),
        f"A study needs {policy.smallest_cohort} declared customers here and {policy.smallest_partners} partners in "
        "all.",
        f"Name lists hold only customers who agreed to {policy.contact_consent}; they never leave.",
        f"Replies leave on a grid of {policy.reply_grid_seconds:g} seconds.",
        f"Kept at home: name lists {policy.retention.name_lists_days} days, replies {policy.retention.replies_days}, "
        f"records of who took part {policy.retention.participation_days}; then deleted.",
        _refused(policy),
    ]


def studies_within(bound: Bound, epsilon: float, delta: float, filter_: Filter) -> float:
    """Return about how many studies of (`epsilon`, `delta`) fit into a budget.

    An estimate: each is taken for one Gaussian mechanism with that epsilon and delta, whose cost is mu^2 in tokens and
    alpha mu^2 / 2 as Renyi divergence at order alpha (Mironov 2017, Corollary 3).
    """
    squared = gaussian_mu(epsilon, delta) ** 2
    each = squared if isinstance(filter_, TokenFilter) else filter_.order * squared / 2.0
    return bound.capacity.nano / (NANO * each)


def _purpose(rule: PurposeRule, days: int) -> str:
    own = ""
    if rule.budget is not None:
        own = f" Within any {days} days on end at most epsilon {rule.budget.epsilon:g}, delta {rule.budget.delta:g}."
    return f"{rule.id}: {rule.meaning}; only customers who agreed to {rule.consent}.{own}"


def _study(policy: Policy, rule: StudyRule) -> str:
    return (
        f"On {rule.contract}, for {', '.join(rule.purposes)}: models {', '.join(rule.models)} by "
        f"{', '.join(rule.modes)}; epsilon at most {rule.max_epsilon:g} and delta {rule.max_delta:g} a study; "
        f"held out: {describe_holdout(rule.holdout)}. {_waits(policy, rule)}"
    )


def _statistics(policy: Policy, rule: StatisticsRule) -> str:
    return (
        f"Statistics on {rule.contract}, for {', '.join(rule.purposes)}: counts and sums with noise, over all customers who agreed, "
        f"those who train and those who are held out alike, so that both accounts pay; epsilon at most {rule.max_epsilon:g} and delta "
        f"{rule.max_delta:g} a study. {_waits(policy, rule)}"
    )


def _waits(policy: Policy, rule: StudyRule | StatisticsRule) -> str:
    eyes = "an officer's approval" if policy.approval.eyes == 1 else "two distinct officers' approval"
    if rule.automatic_epsilon == 0:
        return f"Every study waits for {eyes}."
    if rule.automatic_epsilon == rule.max_epsilon:
        return "No study waits for anybody's approval."
    return f"Up to epsilon {rule.automatic_epsilon:g} a study starts by itself; above, it waits for {eyes}."


def _budget(policy: Policy, limits: Limits) -> list[str]:
    period, life = policy.budget.period, policy.budget.life
    lines = [
        f"Everything that leaves within any {period.days} days on end keeps, for each customer, to epsilon "
        f"{period.epsilon:g} and delta {period.delta:g}; everything for good, to epsilon {life.epsilon:g} and delta "
        f"{life.delta:g}. Customers who train and customers who are held out each have this whole budget.",
        _filter(limits.filter),
    ]
    if policy.budget.mode == "plan":
        return lines + _plan(policy)
    lines.append("Studies come as they come, as long as the budget lasts.")
    return [
        *lines,
        *[_room(rule, limits) for rule in policy.studies],
        *[_room(rule, limits) for rule in policy.statistics],
    ]


def _room(rule: StudyRule | StatisticsRule, limits: Limits) -> str:
    def many(bound: Bound) -> str:
        return f"about {int(studies_within(bound, rule.max_epsilon, rule.max_delta, limits.filter))}"

    own = [f"{many(limits.purposes[name])} of them for {name}" for name in rule.purposes if name in limits.purposes]
    kind = "statistics studies" if isinstance(rule, StatisticsRule) else "studies"
    within = f"{many(limits.period)} {kind} on {rule.contract} fit into {limits.period_days} days"
    inside = f" ({', '.join(own)})" if own else ""
    return f"At their largest epsilon, {within}{inside}, and {many(limits.life)} in all; smaller ones more often."


def _filter(filter_: Filter) -> str:
    if isinstance(filter_, TokenFilter):
        return "Spending is added up as Gaussian tokens, a few percent above the exact figure; this is fixed for good."
    return f"Spending is added up as Renyi divergence at order {filter_.order}; this is fixed for good."


def _plan(policy: Policy) -> list[str]:
    slots, period = policy.budget.slots, policy.budget.period
    deltas = {rule.contract: rule.max_delta for rule in policy.studies}
    lines = [f"Studies fill one of {len(slots)} slots, in any order; what fits into no free slot is refused."]
    lines += [
        f"Slot {slot.id}: one study for {slot.purpose} on {slot.contract}, at most {slot.steps} steps at rate "
        f"{slot.sampling_rate:g}, noise {slot.noise_multiplier:g} or more, evaluation's sigma {slot.histogram_sigma:g} "
        f"or more: epsilon {plan_epsilon([slot], 'training', deltas[slot.contract]):.3g}."
        for slot in slots
    ]
    training, holdout = plan_epsilons(policy, period.delta)
    lines.append(
        f"The whole plan together: epsilon {training:.4g} for customers who train, {holdout:.4g} for customers who are "
        f"held out, at delta {period.delta:g}. It is charged at once when the policy comes into force."
    )
    return lines


def plan_epsilons(policy: Policy, delta: float, purpose: Purpose | None = None) -> tuple[float, float]:
    """Return the plan's epsilon for training and for held-out customers, of all slots or of one purpose's; rounded up.

    Raises
    ------
    PolicyError
        As `privacy.plan.plan_epsilon`.
    """
    slots = [slot for slot in policy.budget.slots if purpose in (None, slot.purpose)]
    return plan_epsilon(slots, "training", delta), plan_epsilon(slots, "holdout", delta)


def _aggregation(policy: Policy) -> list[str]:
    rule = policy.secure
    if rule is None:
        return [
            "Each reply carries this institution's own noise in full, and the coordinator sees it by itself. Studies that add up "
            "replies in secret are refused."
        ]
    plain = (
        "Plain studies are refused: of what leaves, only a sum over several institutions is ever opened."
        if policy.aggregation == "secure"
        else "Plain studies are allowed, whose replies the coordinator sees one by one; so are studies that add up replies in secret."
    )
    allies = "one institution works" if rule.c == 1 else f"{rule.c} institutions work"
    whom = "a coordinator whom no institution helps" if rule.c == 0 else f"a coordinator with whom {allies} together"
    return [
        f"{plain} These must open no sum over fewer than {rule.n_min} institutions, and keep each reply secret from {whom}.",
        *[_NOISES[noise] for noise in rule.noise],
        *_floor(rule),
    ]


_NOISES = {
    "local": "Local noise is allowed: this institution's own noise alone keeps a study's epsilon, whatever becomes of the secret.",
    "shared": (
        "Shared noise is allowed: a study's epsilon is kept by the honest institutions' noise together, of which this one adds a share. "
        "It holds as long as the protocol does (docs/security.md says what that takes)."
    ),
}


def _floor(rule: SecureRule) -> list[str]:
    if rule.local_noise_floor is not None:
        return [
            f"Should the protocol fail, this institution's own noise must still keep a study to epsilon {rule.local_noise_floor:g} on each "
            "account: no study gets more than that allows."
        ]
    if "shared" in rule.noise:
        return [
            "Should the protocol fail, its own share of the noise is all that is left; no floor is set for that. The ledger states for "
            "each study which epsilon would hold then, apart from what it is charged."
        ]
    return []


def _authority(policy: Policy) -> list[str]:
    names = ", ".join(officer.id for officer in policy.officers)
    return [
        f"Officers: {names}. The next policy needs one of their signatures, and two where the budget grows, where fewer "
        "people watch over it, or where officers change."
    ]


def _refused(policy: Policy) -> str:
    also = ", what no slot is large enough for" if policy.budget.mode == "plan" else ""
    if policy.aggregation == "secure":
        also += ", plain studies"
    elif policy.secure is None:
        also += ", sums in secret"
    first = "" if policy.statistics else "statistics of every kind, "
    return f"Refused: {first}every other purpose, contract, model, mode and hold-out{also}, and any request beyond these figures."
