"""What members grant a statistics study, checked against charter and spec, and what it is worth together."""

import math
from functools import lru_cache

from flwr.app import RecordDict
from pydantic import ValidationError

from federation.charter import Charter
from federation.document import Document
from federation.errors import DocumentError, IntegrityError, PolicyError
from federation.messages import StatisticsGrant, signature_of, unpack
from federation.signing import Signature
from federation.statistics import StatisticsPlan, StatisticsSpec
from federation.study import SecurePlan
from privacy.accounting import calibrate_sensitivity, epsilon
from privacy.events import SecureSum
from server.exchange import Failure
from server.grants import declined, unreadable

_SLACK = 1.0 + 1e-9
# Another processor may price the same sums a hair differently.
_PRICE_SLACK = 1.0 + 1e-3


class SignedStatisticsGrant(Document):
    """A grant with its vault's signature, as the coordinator keeps it."""

    grant: StatisticsGrant
    signature: Signature

    @property
    def member(self) -> str:
        """Who granted."""
        return self.grant.member

    @property
    def epsilon(self) -> float:
        """What was granted."""
        return self.grant.epsilon


def accept_statistics_grant(
    answer: RecordDict, member: str, spec: StatisticsSpec, charter: Charter
) -> SignedStatisticsGrant | Failure:
    """Return the member's grant, or why there is none: CSL-S206 declined, CSL-S207 unreadable, CSL-S304 not what was offered."""
    key = charter.member(member).key
    if declined(answer, member, key):
        return Failure("CSL-S206", "declined; its reason stays with it")
    try:
        grant, _ = unpack(answer, StatisticsGrant, key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)
    wrong = _differences(grant, member, spec, charter)
    if wrong:
        return Failure("CSL-S304", f"granted something else than was offered ({', '.join(wrong)})")
    return SignedStatisticsGrant(grant=grant, signature=signature_of(answer, key))


def _differences(grant: StatisticsGrant, member: str, spec: StatisticsSpec, charter: Charter) -> list[str]:
    declaration = charter.member(member).declaration(spec.draft.contract)
    size = declaration.size if declaration else 0
    asked = spec.draft.epsilon
    checks = {
        "study": grant.study == spec.digest(),
        "member": grant.member == member,
        "declared_size": grant.declared_size == size,
        "share": grant.share == spec.plan.share,
        "epsilon": asked is None or grant.epsilon <= asked * _SLACK,
        "delta": grant.delta <= _SLACK / (100 * max(size, 1)),
    }
    # A member's grant sets the scale of all others' sums: it must cost what it says.
    checks["sensitivity"] = price(spec.plan, spec.secure, grant) <= grant.epsilon * _PRICE_SLACK
    return [name for name, right in checks.items() if not right]


def price(plan: StatisticsPlan, secure: SecurePlan | None, grant: StatisticsGrant) -> float:
    """Return the epsilon that a grant's sensitivity costs at its delta by the noise that surely counts; infinity where it has none."""
    sigma, members = (plan.share, 1) if secure is None else (secure.sigma, secure.bearers)
    return _price(sigma, members, grant.sensitivity, plan.rounds, plan.dimension, grant.delta)


@lru_cache(maxsize=256)
def _price(sigma: float, members: int, sensitivity: float, rounds: int, dimension: int, delta: float) -> float:
    try:
        event = SecureSum(
            sigma=sigma,
            members=members,
            sensitivity=sensitivity,
            sampling_rate=1.0,
            steps=rounds,
            dimension=dimension,
        )
        return epsilon([event], delta)
    except (ValidationError, PolicyError):
        return math.inf


def foreseen_sensitivity(plan: StatisticsPlan, secure: SecurePlan | None, epsilon: float, delta: float) -> float:
    """Return what a member would grant at (epsilon, delta), where its policy asks for no floor by its own noise.

    Raises
    ------
    PolicyError, DocumentError
        As `privacy.accounting.calibrate_sensitivity`.
    """
    sigma, members = (plan.share, 1) if secure is None else (secure.sigma, secure.bearers)
    return calibrate_sensitivity(
        epsilon, delta, 1.0, plan.rounds, sigma=sigma, dimension=plan.dimension, members=members
    )
