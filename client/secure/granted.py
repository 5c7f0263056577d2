"""What both a set-up and a sum begin with: a study that was granted for secure sums, and is open today."""

from collections.abc import Iterable

from client.gate import Gate
from client.studies import Opened, Studies
from federation.charter import Charter
from federation.errors import PolicyError
from federation.study import SecurePlan
from privacy.secure_aggregation.roster import Roster


def granted_study(studies: Studies, gate: Gate, rid: str) -> Opened:
    """Return a study that was granted for secure sums, is open, and that today's policy still allows.

    Raises
    ------
    PolicyError
        CSL-C511 for an unknown study, CSL-C471 for a plain one; as `Gate.check_standing`.
    """
    study = studies.opened(rid)
    plan_of(study)
    gate.check_standing(study)
    return study


def plan_of(study: Opened) -> SecurePlan:
    """Return how a study's vectors are added up. Raises PolicyError CSL-C471 for a plain study."""
    if study.spec.secure is None:
        raise PolicyError(
            "CSL-C471",
            "A secure sum was asked for of a study that is not added up in secret.",
            "Ask for the study's rounds by `train` and `evaluate`.",
        )
    return study.spec.secure


def roster_of(charter: Charter, study: Opened, names: Iterable[str]) -> Roster:
    """Return the roster of those who take part, on the study's own terms.

    Raises
    ------
    PolicyError
        CSL-C480 when a member does not declare the study's contract, CSL-P801 when there are fewer than the study's n_min.
    IntegrityError
        CSL-F203 for somebody who is no member.
    """
    plan, contract, members = plan_of(study), study.spec.draft.contract, tuple(names)
    if any(charter.member(name).declaration(contract) is None for name in members):
        raise PolicyError(
            "CSL-C480",
            f"Somebody is to take part who declares nothing for the contract {contract}.",
            "Set the study up with those who declare its contract.",
        )
    return Roster.of(charter, members, plan.n_min, plan.c)
