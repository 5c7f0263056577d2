"""Offers and grants: each vault is offered the signed study, and what it grants is checked against charter and spec."""

import math

from flwr.app import RecordDict

from federation.charter import Charter
from federation.document import Document
from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.messages import Grant, Refusal, signature_of, unpack
from federation.signing import Signature
from federation.study import StudySpec
from server.exchange import Failure

# A vault computes 1 / (100 n) in floating point as we do, but perhaps in another order.
_SLACK = 1.0 + 1e-9


class SignedGrant(Document):
    """A grant with its vault's signature, as the coordinator keeps it."""

    grant: Grant
    signature: Signature


def accept_grant(answer: RecordDict, member: str, spec: StudySpec, charter: Charter) -> SignedGrant | Failure:
    """Return the member's grant, or why there is none: CSL-S206 declined, CSL-S207 unreadable, CSL-S304 not what was offered."""
    key = charter.member(member).key
    if declined(answer, member, key):
        return Failure("CSL-S206", "declined; its reason stays with it")
    try:
        grant, _ = unpack(answer, Grant, key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)
    wrong = _differences(grant, member, spec, charter)
    if wrong:
        return Failure("CSL-S304", f"granted something else than was offered ({', '.join(wrong)})")
    return SignedGrant(grant=grant, signature=signature_of(answer, key))


def declined(answer: RecordDict, member: str, key: str) -> bool:
    """Return whether the answer is this member's signed refusal."""
    try:
        refusal, _ = unpack(answer, Refusal, key)
    except (IntegrityError, DocumentError):
        return False
    return refusal.member == member


def unreadable(error: ConsilienceError) -> Failure:
    """Return the failure for an answer that is damaged, unsigned or not of the agreed form; only our own code is shown."""
    return Failure("CSL-S207", f"sent an answer that does not fit ({error.code})")


def _differences(grant: Grant, member: str, spec: StudySpec, charter: Charter) -> list[str]:
    declaration = charter.member(member).declaration(spec.draft.contract)
    size = declaration.size if declaration else 0
    asked = spec.draft.epsilon
    checks = {
        "study": grant.study == spec.digest(),
        "member": grant.member == member,
        "declared_size": grant.declared_size == size,
        "sampling_rate": math.isclose(grant.sampling_rate, spec.training.sampling_rate, rel_tol=1e-12),
        "steps": grant.steps == spec.training.steps,
        "epsilon": asked is None or grant.epsilon <= asked * _SLACK,
        "delta": grant.delta <= _SLACK / (100 * max(size, 1)),
    }
    return [name for name, right in checks.items() if not right]
