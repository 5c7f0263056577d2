"""Offers and grants: each vault is offered the signed study, and what it grants is checked against charter and spec."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from flwr.app import RecordDict
from pydantic import ValidationError

from federation.charter import Charter
from federation.document import Document
from federation.errors import ConsilienceError, DocumentError, IntegrityError, PolicyError
from federation.messages import Grant, Refusal, StatisticsGrant, signature_of, unpack
from federation.signing import Signature
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.accounting import epsilon
from privacy.events import SecureSum
from privacy.secure_aggregation.prices import sums_of
from privacy.secure_aggregation.quantisation import rounding_of
from server.exchange import Failure

# A vault computes 1 / (100 n) in floating point as we do, but perhaps in another order.
_SLACK = 1.0 + 1e-9
# Another processor may price the same sums a hair differently.
PRICE_SLACK = 1.0 + 1e-3
_SAME = 1e-6

G = TypeVar("G", bound=Document)


class SignedGrant(Document):
    """A grant with its vault's signature, as the coordinator keeps it."""

    grant: Grant
    signature: Signature


def accept_grant(
    answer: RecordDict, member: str, spec: StudySpec, charter: Charter, dimension: int | None = None
) -> SignedGrant | Failure:
    """Return the member's grant, or why there is none: CSL-S206 declined, CSL-S207 unreadable, CSL-S304 not what was offered.

    `dimension` is how many numbers a round's vector has; None for a study whose vectors are not added up in secret.
    """

    def differences(grant: Grant) -> list[str]:
        found = _differences(grant, member, spec, charter) + _secure_differences(grant, spec, dimension)
        return found or _mispriced(grant, spec)

    found = offered(answer, Grant, member, charter, differences)
    return found if isinstance(found, Failure) else SignedGrant(grant=found[0], signature=found[1])


def offered(
    answer: RecordDict, model: type[G], member: str, charter: Charter, differences: Callable[[G], list[str]]
) -> tuple[G, Signature] | Failure:
    """Return a member's grant and its signature, or why there is none; `differences` names what of it is not what was offered."""
    key = charter.member(member).key
    if declined(answer, member, key):
        return Failure("CSL-S206", "declined; its reason stays with it")
    try:
        grant, _ = unpack(answer, model, key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)
    wrong = differences(grant)
    if wrong:
        return Failure("CSL-S304", f"granted something else than was offered ({', '.join(wrong)})")
    return grant, signature_of(answer, key)


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


def public_checks(
    grant: Grant | StatisticsGrant, member: str, spec: StudySpec | StatisticsSpec, charter: Charter
) -> dict[str, bool]:
    """Return what of any grant must be as charter and offer have it, and whether it is."""
    declaration = charter.member(member).declaration(spec.draft.contract)
    size = declaration.size if declaration else 0
    asked = spec.draft.epsilon
    return {
        "study": grant.study == spec.digest(),
        "member": grant.member == member,
        "declared_size": grant.declared_size == size,
        "epsilon": asked is None or grant.epsilon <= asked * _SLACK,
        "delta": grant.delta <= _SLACK / (100 * max(size, 1)),
    }


def _differences(grant: Grant, member: str, spec: StudySpec, charter: Charter) -> list[str]:
    checks = public_checks(grant, member, spec, charter) | {
        "sampling_rate": math.isclose(grant.sampling_rate, spec.training.sampling_rate, rel_tol=1e-12),
        "steps": grant.steps == spec.training.steps,
    }
    return [name for name, right in checks.items() if not right]


def _secure_differences(grant: Grant, spec: StudySpec, dimension: int | None) -> list[str]:
    """A secure study is granted in grid units, for vectors of its own length, and with more than rounding takes; a plain one is not."""
    if spec.secure is None or grant.secure is None:
        return [] if (spec.secure is None) == (grant.secure is None) else ["aggregation"]
    checks = {
        "dimension": grant.secure.dimension == dimension,
        "sensitivity": grant.secure.sensitivity >= 2.0 * rounding_of(grant.secure.dimension),
    }
    return [name for name, right in checks.items() if not right]


def _mispriced(grant: Grant, spec: StudySpec) -> list[str]:
    """A member's grant sets scale and clips of all others' sums: it must cost what it says, and say the noise that follows from it."""
    plan, secure = spec.secure, grant.secure
    if plan is None or secure is None:
        return []
    try:
        training, counts = sums_of(secure, plan, grant.sampling_rate, grant.steps)
    except ValidationError:
        return ["sensitivity or histogram_scale beyond all noise"]
    sigma = plan.sigma / secure.histogram_scale
    checks = {
        "noise_multiplier": math.isclose(grant.noise_multiplier, training.noise_multiplier, rel_tol=_SAME),
        "histogram_sigma": math.isclose(grant.histogram_sigma, sigma, rel_tol=_SAME),
        "sensitivity": _price(training, grant.delta) <= grant.epsilon * PRICE_SLACK,
        "histogram_scale": sigma <= grant.declared_size and _price(counts, grant.delta) <= grant.epsilon * PRICE_SLACK,
    }
    return [name for name, right in checks.items() if not right]


@lru_cache(maxsize=256)
def _price(event: SecureSum, delta: float) -> float:
    """Return the epsilon of secure sums; infinity where none describes them."""
    try:
        return epsilon([event], delta)
    except PolicyError:
        return math.inf
