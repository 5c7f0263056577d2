"""What stands between a policy and its coming into force: in words, for the people who sign it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from federation.charter import Charter
from federation.errors import ConsilienceError, PolicyError
from federation.signing import Signature, verify
from federation.statistics import StatisticsDraft
from federation.study import StudyDraft
from privacy.comparison import grows
from privacy.decision import foresee, foresee_statistics
from privacy.ledger.authority import eligible, signatures_needed
from privacy.ledger.state import State
from privacy.ledger.succession import check_succession
from privacy.policy import CONTEXT, Policy


@dataclass(frozen=True)
class Standing:
    """How far a policy is from its coming into force.

    Attributes
    ----------
    in_force:
        Whether the ledger holds it as the policy in force.
    obstacle:
        Why no signature could bring it into force; None when nothing stands against it.
    needed:
        How many distinct officers must sign.
    signed, may_sign:
        The officers who signed, and those who still may.
    grown:
        The changes for which two must sign.
    """

    in_force: bool
    obstacle: ConsilienceError | None
    needed: int
    signed: tuple[str, ...]
    may_sign: tuple[str, ...]
    grown: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return this in plain words."""
        if self.in_force:
            return ["This policy is in force."]
        if self.obstacle is not None:
            return [f"It cannot come into force: {self.obstacle.cause} {self.obstacle.action}"]
        enough = len(self.signed) >= self.needed
        number = "one officer" if self.needed == 1 else "two distinct officers"
        lines = [f"It takes effect when {number} signed and it is activated."]
        lines += [f"Two must sign because: {text}" for text in self.grown]
        lines.append(f"Signed by: {', '.join(self.signed) or 'nobody yet'}.")
        if enough:
            lines.append("That is enough: `consilience officer policy activate`.")
        else:
            lines.append(f"Who can still sign: {', '.join(self.may_sign) or 'nobody'}.")
        return lines


def standing_of(state: State, policy: Policy, signatures: Iterable[Signature]) -> Standing:
    """Return how far a policy is from its coming into force in a ledger's state."""
    old = state.policy
    officers = {officer.key: officer.id for officer in eligible(old, policy)}
    signers = {signature.key for signature in signatures if signature.key in officers and _holds(signature, policy)}
    try:
        check_succession(state, policy)
        obstacle: ConsilienceError | None = None
    except ConsilienceError as error:
        obstacle = error
    return Standing(
        in_force=state.policy_digest == policy.digest(),
        obstacle=obstacle,
        needed=signatures_needed(old, policy),
        signed=tuple(name for key, name in officers.items() if key in signers),
        may_sign=tuple(name for key, name in officers.items() if key not in signers),
        grown=() if old is None else grows(old, policy),
    )


def _holds(signature: Signature, policy: Policy) -> bool:
    try:
        verify(signature, CONTEXT, policy, signature.key)
    except ConsilienceError:
        return False
    return True


@dataclass(frozen=True)
class Verdict:
    """What a policy would make of a drafted study: `allowed`, `waits` for officers, or `refused`; and why."""

    study: str
    verdict: str
    why: str
    code: str | None = None

    def line(self) -> str:
        """Return this in plain words."""
        return f"Study {self.study}: {self.verdict}. {self.why}"


def verdict_on(policy: Policy, draft: StudyDraft | StatisticsDraft, charter: Charter | None, today: date) -> Verdict:
    """Return what a policy would make of a drafted study, as far as the draft shows it."""
    try:
        if isinstance(draft, StatisticsDraft):
            epsilon, eyes = foresee_statistics(policy, draft, charter, today)
        else:
            epsilon, eyes = foresee(policy, draft, charter, today)
    except PolicyError as error:
        return Verdict(draft.name, "refused", f"{error.code}: {error.cause}", error.code)
    unseen = "" if charter is not None else " Declared sizes and partners were not looked at: give --home."
    left = "" if policy.budget.mode == "plan" else " and as long as the budget lasts"
    if eyes:
        who = "one officer approves" if eyes == 1 else "two distinct officers approve"
        why = f"It asks for epsilon {epsilon:g}: it starts only once {who} it{left}.{unseen}"
        return Verdict(draft.name, "waits", why)
    return Verdict(draft.name, "allowed", f"It would get epsilon {epsilon:g} at once{left}.{unseen}")
