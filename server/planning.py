"""From a draft that a person wrote to a signed study: every open number is derived from public quantities."""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.basis import model_problems
from federation.charter import Charter
from federation.contract import FeatureContract
from federation.document import Document
from federation.errors import DocumentError
from federation.signing import Signature, sign
from federation.study import CONTEXT, Draft, HashHoldout, PositionHoldout, SecurePlan, StudyDraft, StudySpec, Training

# Fine enough that rounding is lost in the noise, and far from where sums of fifty members need words of 64 bits.
SHARE = 16_384.0


class SignedStudy(Document):
    """A planned study with the coordinator's signature."""

    spec: StudySpec
    signature: Signature


def declared_sizes(charter: Charter, contract: str) -> dict[str, int]:
    """Return member -> declared number of customers, for the members that take part in a contract."""
    found = {member.id: member.declaration(contract) for member in charter.members}
    return {member: declaration.size for member, declaration in found.items() if declaration is not None}


def problems_of(draft: StudyDraft, charter: Charter, contract: FeatureContract) -> list[str]:
    """Return everything that keeps a draft from being a study under this charter, in words; empty when nothing does."""
    problems = contract_problems(draft, charter, contract)
    sizes = declared_sizes(charter, draft.contract)
    if len(sizes) < draft.min_partners:
        problems.append(
            f"min_partners: {draft.min_partners} are needed, and {len(sizes)} members declare customers for {draft.contract}"
        )
    if draft.n_min is not None and len(sizes) < draft.n_min:
        problems.append(
            f"n_min: a sum is opened over at least {draft.n_min} members, and {len(sizes)} declare customers for {draft.contract}"
        )
    problems += _holdout_problems(draft, charter, contract)
    problems += model_problems(contract, draft.model)
    return problems


def contract_problems(draft: Draft, charter: Charter, contract: FeatureContract) -> list[str]:
    """Return what is wrong with the contract that a draft names, in words."""
    problems = []
    pinned = charter.contract_digest(draft.contract)
    if pinned is None:
        problems.append(f"contract: the charter pins no contract called {draft.contract}")
    elif pinned != contract.digest():
        problems.append(f"contract: {draft.contract} is not the version that the charter pins")
    if contract.name != draft.contract:
        problems.append(f"contract: the file is for {contract.name}, the draft for {draft.contract}")
    return problems


def windowless(charter: Charter, contract: FeatureContract) -> list[str]:
    """Return the members that declare customers of a transaction contract and no as-of date; none for a table's."""
    if contract.source != "transactions":
        return []
    declared = {member.id: member.declaration(contract.name) for member in charter.members}
    return [name for name, item in declared.items() if item is not None and item.as_of is None]


def refuse_draft(draft: Draft, problems: Sequence[str]) -> None:
    """Refuse a draft that has problems. Raises DocumentError CSL-S101 with every one of them at once."""
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DocumentError(
            "CSL-S101", f"The study {draft.name} has {count}:\n{listing}", "Correct the draft or the charter."
        )


def least_partners(draft: Draft) -> int:
    """Return how many members a study needs: `min_partners`, and for secure sums `n_min` where that is more."""
    return max(draft.min_partners, draft.n_min or 0)


def plan_aggregation(draft: Draft) -> SecurePlan | None:
    """Return how a draft's vectors are added up in secret; None where each vault releases its own."""
    if draft.n_min is None or draft.c is None:
        return None
    return SecurePlan(noise=draft.noise, n_min=draft.n_min, c=draft.c, share=SHARE)


def _holdout_problems(draft: StudyDraft, charter: Charter, contract: FeatureContract) -> list[str]:
    if isinstance(draft.holdout, PositionHoldout) and contract.source == "transactions":
        return ["holdout: customers of a transaction log have no fixed position; hold out by hash"]
    if isinstance(draft.holdout, HashHoldout) and draft.holdout.share > 0.5:
        return ["holdout: more than half of the customers would be held out"]
    dateless = windowless(charter, contract)
    return [f"holdout: no as-of date is declared by {', '.join(dateless)}"] if dateless else []


def check_draft(draft: StudyDraft, charter: Charter, contract: FeatureContract) -> None:
    """Refuse a draft that cannot be a study under this charter.

    Raises
    ------
    DocumentError
        CSL-S101 with every problem at once.
    """
    refuse_draft(draft, problems_of(draft, charter, contract))


def sign_study(
    draft: StudyDraft,
    charter: Charter,
    contract: FeatureContract,
    training: Training,
    nonce: str,
    key: Ed25519PrivateKey,
) -> SignedStudy:
    """Return the study, planned and signed by the coordinator.

    Parameters
    ----------
    training:
        The plan of the training, from the recipe.
    nonce:
        32 hexadecimal digits, fresh for every study, so that the same draft twice is two studies.
    """
    spec = StudySpec(
        draft=draft,
        federation=charter.federation,
        charter=charter.digest(),
        contract_digest=contract.digest(),
        training=training,
        nonce=nonce,
        secure=plan_aggregation(draft),
    )
    return SignedStudy(spec=spec, signature=sign(key, CONTEXT, spec))
