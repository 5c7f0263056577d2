"""What members grant a statistics study, checked against charter and spec, and what it is worth together."""

import math
from functools import lru_cache

from flwr.app import RecordDict
from pydantic import ValidationError

from federation.charter import Charter
from federation.document import Document
from federation.errors import PolicyError
from federation.messages import StatisticsGrant
from federation.signing import Signature
from federation.statistics import StatisticsPlan, StatisticsSpec
from federation.study import SecurePlan
from privacy.accounting import calibrate_sensitivity, epsilon
from privacy.events import SecureSum
from server.exchange import Failure
from server.grants import PRICE_SLACK, offered, public_checks


class SignedStatisticsGrant(Document):
    """A grant with its vault's signature, as the coordinator keeps it."""

    grant: StatisticsGrant
    signature: Signature


def accept_statistics_grant(
    answer: RecordDict, member: str, spec: StatisticsSpec, charter: Charter
) -> SignedStatisticsGrant | Failure:
    """Return the member's grant, or why there is none: CSL-S206 declined, CSL-S207 unreadable, CSL-S304 not what was offered."""
    found = offered(answer, StatisticsGrant, member, charter, lambda grant: _differences(grant, member, spec, charter))
    return found if isinstance(found, Failure) else SignedStatisticsGrant(grant=found[0], signature=found[1])


def _differences(grant: StatisticsGrant, member: str, spec: StatisticsSpec, charter: Charter) -> list[str]:
    checks = public_checks(grant, member, spec, charter) | {"share": grant.share == spec.plan.share}
    # A member's grant sets the scale of all others' sums: it must cost what it says.
    checks["sensitivity"] = price(spec.plan, spec.secure, grant) <= grant.epsilon * PRICE_SLACK
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
