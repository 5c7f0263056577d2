"""Who may decide what: whose signatures bring a policy into force, approve a study, or let a ledger go on from a backup."""

from collections.abc import Iterable

from federation.document import Document
from federation.errors import IntegrityError, PolicyError
from federation.signing import Signature, verify
from privacy.comparison import grows
from privacy.ledger.entries import APPROVAL_CONTEXT, RESTORE_CONTEXT, ApproveData, RestoreData
from privacy.policy import CONTEXT, Officer, Policy

TWO = 2


def signatures_needed(old: Policy | None, policy: Policy) -> int:
    """Return how many distinct officers must sign a policy: two where anything grows, and for the first one if it names
    two."""
    if old is None:
        return min(TWO, len(policy.officers))
    return TWO if _reasons(old, policy) else 1


def _reasons(old: Policy, policy: Policy) -> tuple[str, ...]:
    """Return why two officers must sign a policy that follows another."""
    again = (
        ("The plan begins anew: its slots are charged once more.",) if old.budget.slots and policy.budget.slots else ()
    )
    return grows(old, policy) + again


def eligible(old: Policy | None, policy: Policy) -> tuple[Officer, ...]:
    """Return the officers whose signatures count: those in force; beside a single one, those whom the policy names, too."""
    if old is None:
        return policy.officers
    if len(old.officers) >= TWO:
        return old.officers
    known = {officer.key for officer in old.officers}
    return (*old.officers, *(officer for officer in policy.officers if officer.key not in known))


def check_authority(old: Policy | None, policy: Policy, signatures: Iterable[Signature]) -> None:
    """Refuse a policy that too few of the right officers signed.

    Raises
    ------
    IntegrityError
        CSL-P314 for a signature that does not fit, or of nobody who may sign.
    PolicyError
        CSL-P307 when distinct officers' signatures are missing.
    """
    officers = {officer.key: officer.id for officer in eligible(old, policy)}
    signers = _signers(signatures, CONTEXT, policy, officers)
    in_force = old is None or any(old.officer(key) for key in signers)
    needed = signatures_needed(old, policy)
    if len(signers) < needed or not in_force:
        missing = ", ".join(sorted(name for key, name in officers.items() if key not in signers)) or "nobody else"
        reasons = "; ".join(_reasons(old, policy)) if old is not None else "it is the first policy"
        raise PolicyError(
            "CSL-P307",
            f"{len(signers)} of {needed} officers' signatures are there. Who can still sign: {missing}."
            + (f" Two must, because: {reasons}." if needed == TWO else ""),
            "Let them sign by `consilience officer policy sign`.",
        )


def check_approval(policy: Policy, digest: str, data: ApproveData, earlier: tuple[ApproveData, ...]) -> None:
    """Refuse a decision about a study that is not that of an officer in force, or not her first.

    Raises
    ------
    IntegrityError
        CSL-P314 for a signature that does not fit, or of nobody who may sign.
    PolicyError
        CSL-P312 under another policy, CSL-P313 when this officer decided before.
    """
    if data.statement.policy != digest:
        raise PolicyError(
            "CSL-P312",
            "The decision was signed under another policy than the one in force.",
            "Look again, and sign anew.",
        )
    signers = _signers(
        [data.signature], APPROVAL_CONTEXT, data.statement, {item.key: item.id for item in policy.officers}
    )
    if any(item.signature.key in signers and item.statement.policy == digest for item in earlier):
        raise PolicyError(
            "CSL-P313",
            "This officer decided about the study before: nobody confirms an own decision.",
            "Let a second, distinct officer decide.",
        )


def standing(policy: str, eyes: int, decisions: tuple[ApproveData, ...]) -> str:
    """Return `declined`, `approved` or `waiting`: what officers' decisions come to under a policy (digest).

    Approvals count under the policy that they were signed under; one officer's no holds for good, lest another annul it by
    a new version.
    """
    if any(item.statement.decision == "decline" for item in decisions):
        return "declined"
    current = [item for item in decisions if item.statement.policy == policy]
    return "approved" if len({item.signature.key for item in current}) >= eyes else "waiting"


def check_restore(policy: Policy | None, data: RestoreData) -> None:
    """Refuse a restoration that fewer than two officers in force signed.

    Raises
    ------
    IntegrityError
        CSL-P314 for a signature that does not fit, or of nobody who may sign.
    PolicyError
        CSL-P315 when a second officer's signature is missing, or no policy was ever in force.
    """
    officers = {item.key: item.id for item in policy.officers} if policy is not None else {}
    if len(_signers(data.signatures, RESTORE_CONTEXT, data.statement, officers)) < TWO:
        raise PolicyError(
            "CSL-P315",
            "Two distinct officers of the policy in force must sign the restoration.",
            "Let a second officer sign the same statement.",
        )


def _signers(signatures: Iterable[Signature], context: str, document: Document, officers: dict[str, str]) -> set[str]:
    """Return the keys of the officers who signed."""
    signers: set[str] = set()
    for signature in signatures:
        if signature.key not in officers:
            raise IntegrityError(
                "CSL-P314",
                f"The key {signature.key[:16]}… is that of nobody who may sign this.",
                "Sign with the key of an officer whom the policy in force names.",
            )
        try:
            verify(signature, context, document, signature.key)
        except IntegrityError as error:
            raise IntegrityError(
                "CSL-P314",
                f"The signature of {officers[signature.key]} does not fit: what was signed is not what stands here.",
                "Sign the document as it is now.",
            ) from error
        signers.add(signature.key)
    return signers
