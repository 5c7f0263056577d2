"""Which policy may follow which: what no signature can change, and whose signatures the rest needs."""

from federation.errors import PolicyError
from federation.signing import Signature
from federation.study import Holdout
from privacy.ledger.authority import check_authority
from privacy.ledger.state import State
from privacy.policy import Policy, check_holdouts


def check_policy(state: State, policy: Policy, signatures: tuple[Signature, ...]) -> None:
    """Refuse a policy that may not come into force after what the ledger holds.

    Raises
    ------
    PolicyError
        As `check_succession`, and CSL-P307 when officers' signatures are missing.
    IntegrityError
        CSL-P314 for a signature that does not fit, or of nobody who may sign.
    """
    check_succession(state, policy)
    check_authority(state.policy, policy, signatures)


def check_succession(state: State, policy: Policy) -> None:
    """Refuse a policy that no signature could bring into force after what the ledger holds.

    Raises
    ------
    PolicyError
        CSL-P301 another institution's, CSL-P302 an old version, CSL-P303 another life budget, CSL-P305 another hold-out rule,
        CSL-P309 not the successor of the policy in force, CSL-P310 another filter, CSL-P311 while studies of a plan are open.
    """
    if policy.institution != state.member:
        raise PolicyError(
            "CSL-P301",
            f"The ledger is that of {state.member}; the policy, of {policy.institution}.",
            "Install this institution's policy.",
        )
    before = state.policy
    if before is not None and policy.version <= before.version:
        raise PolicyError(
            "CSL-P302",
            f"Version {before.version} of the policy was in force; version {policy.version} is not newer.",
            "Give a changed policy the next version number.",
        )
    if policy.prev != state.policy_digest:
        raise PolicyError(
            "CSL-P309",
            f"The policy follows {_short(policy.prev)}; in force is {_short(state.policy_digest)}.",
            "Write the digest of the policy in force as `prev`, and let it be signed again.",
        )
    if state.plan is not None and state.plan.open:
        raise PolicyError(
            "CSL-P311",
            f"{len(state.plan.open)} studies of the plan in force are still open.",
            "Wait for their end, or close them by `consilience officer close`.",
        )
    if before is not None:
        _check_fixed(before, policy)
    _check_holdouts(state, policy)


def _check_fixed(before: Policy, policy: Policy) -> None:
    if policy.budget.life != before.budget.life:
        life = before.budget.life
        raise PolicyError(
            "CSL-P303",
            f"The life budget is fixed at epsilon {life.epsilon:g}, delta {life.delta:g}.",
            "Write the same life budget into the new policy.",
        )
    if policy.budget.filter != before.budget.filter:
        raise PolicyError(
            "CSL-P310",
            f"The filter is fixed for the budget's life: {before.budget.filter.model_dump_json()}.",
            "Keep it: costs in different units cannot be added up.",
        )


def _check_holdouts(state: State, policy: Policy) -> None:
    changed = sorted(
        rule.contract for rule in policy.studies if state.holdouts.get(rule.contract, rule.holdout) != rule.holdout
    )
    try:
        check_holdouts(holdouts_of(state, policy))
    except ValueError:
        changed = changed or sorted(rule.contract for rule in policy.studies)
    if changed:
        raise PolicyError(
            "CSL-P305",
            f"The hold-out rule of {', '.join(changed)} does not agree with that of an earlier policy.",
            "Keep the rule: training and hold-out are separate accounts only while no customer changes sides.",
        )


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}…"


def holdouts_of(state: State, policy: Policy) -> dict[str, Holdout]:
    """Return every hold-out rule that ever stood in a policy, with those of this one."""
    return {**state.holdouts, **{rule.contract: rule.holdout for rule in policy.studies}}
