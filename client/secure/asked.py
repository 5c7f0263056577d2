"""What is asked of a secure sum, checked on public inputs before any data are read: that the request is the one that was offered, that the
offer is on the study's and the grant's terms, and that one customer changes the sum by no more than was granted.
"""

from collections.abc import Sequence

from client.secure.granted import plan_of
from client.statistics.asked import check_measures
from client.studies import Opened, OpenStatistics, OpenStudy
from federation.contract import FeatureContract
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError
from federation.messages import EvaluateRequest, SecureGrant, StatisticsRequest, TrainRequest
from federation.secure import SumOffer, SumRequest, request_digest
from federation.study import SecurePlan
from privacy.ledger import Account
from privacy.secure_aggregation.quantisation import sensitivity_of

LABELS = 2
NOTHING_BESIDE = sha256_hex(b"")


def check_asked(study: Opened, asked: SumRequest, contract: FeatureContract) -> None:
    """Check one request for a sum against the study, its grant and its contract.

    Raises
    ------
    IntegrityError
        CSL-C472 when request and offer are not about the same, CSL-C474 for other terms than the study's.
    PolicyError
        CSL-C473 for a number beyond the plan, or of another kind of sum; CSL-C475 when one customer would change the sum by more than was
        granted; CSL-C513 for score bins that are not the study's; as `client.statistics.asked.check_measures`.
    """
    offer, request = asked.offer, asked.asked
    beside = NOTHING_BESIDE if isinstance(request, StatisticsRequest) else request.payload
    said = (request_digest(request), request.study, beside, offer.epoch)
    if said != (offer.request, asked.study, asked.payload, study.rid):
        raise another_request()
    if isinstance(request, StatisticsRequest) or isinstance(study, OpenStatistics):
        _check_statistics(study, asked, contract)
        return
    last = study.evaluation_number
    in_plan = offer.number == request.round < last if isinstance(request, TrainRequest) else offer.number == last
    if not in_plan:
        raise _beyond(offer)
    _check_terms(offer, plan_of(study), dimension(study, offer.number))
    _check_change(offer, request, granted(study))
    if isinstance(request, EvaluateRequest):
        check_edges(study, request.edges)


def _check_statistics(study: Opened, asked: SumRequest, contract: FeatureContract) -> None:
    """Check a round of a statistics study: its measures, and that counts are not scaled once more."""
    offer, request = asked.offer, asked.asked
    if not isinstance(request, StatisticsRequest) or not isinstance(study, OpenStatistics):
        raise _beyond(offer)
    if offer.number != request.round or offer.number > study.spec.plan.rounds:
        raise _beyond(offer)
    dimension = check_measures(study, request, contract)
    _check_terms(offer, plan_of(study), dimension)
    if offer.scale != 1.0:
        raise another_request()


def _beyond(offer: SumOffer) -> PolicyError:
    return PolicyError(
        "CSL-C473",
        f"Sum {offer.number} is beyond the study's plan, or of another kind.",
        "Ask for the planned rounds, and then, of a study of training, for the evaluation.",
    )


def another_request() -> IntegrityError:
    """Return the refusal of a request that is not the one that was offered, or asked for before."""
    return IntegrityError(
        "CSL-C472",
        "What is to be computed is not what the offer of the sum names, or not what it was asked for before.",
        "Send the request that the offer was made for; a later attempt repeats it.",
    )


def granted(study: OpenStudy) -> SecureGrant:
    """Return what was granted. Raises PolicyError CSL-C471 when it was nothing of the kind."""
    if study.grant.secure is None:
        raise PolicyError("CSL-C471", "The study was not granted for secure sums.", "Offer the study anew.")
    return study.grant.secure


def dimension(study: OpenStudy, number: int) -> int:
    """Return how many integers a study's sum of this number has: a round's weights, or the evaluation's counts."""
    counts = LABELS * study.spec.draft.evaluation.bins
    return counts if number == study.evaluation_number else granted(study).dimension


def account_of(study: Opened, number: int) -> Account:
    """Return the account that pays for a study's sum of this number; of the two that pay for statistics, the first."""
    if isinstance(study, OpenStatistics):
        return "training"
    return "holdout" if number == study.evaluation_number else "training"


def check_edges(study: OpenStudy, edges: Sequence[float]) -> None:
    """Refuse score bins that are not those of the study: increasing, one fewer than its bins. Raises PolicyError CSL-C513."""
    if len(edges) + 1 != study.spec.draft.evaluation.bins or any(
        a >= b for a, b in zip(edges, edges[1:], strict=False)
    ):
        raise PolicyError(
            "CSL-C513", "The score bins are not those of the study.", "Send increasing edges, one fewer than bins."
        )


def _check_terms(offer: SumOffer, plan: SecurePlan, integers: int) -> None:
    if (offer.share, offer.n_min, offer.c, offer.d) != (plan.share, plan.n_min, plan.c, integers):
        raise IntegrityError(
            "CSL-C474",
            "The offer of a sum names other terms than the study: its noise, n_min, c or length.",
            "Ask for a sum on the study's own terms.",
        )


def _check_change(offer: SumOffer, request: TrainRequest | EvaluateRequest, grant: SecureGrant) -> None:
    """Refuse a sum that one customer would change by more than was granted: the L2 norm of a round, one cell of the counts."""
    if isinstance(request, TrainRequest):
        weight = 1.0 if request.weight is None else request.weight
        fits = sensitivity_of(offer.scale, request.clip, weight, grant.dimension) <= grant.sensitivity
    else:
        fits = offer.scale.is_integer() and 1.0 <= offer.scale <= grant.histogram_scale
    if not fits:
        raise PolicyError(
            "CSL-C475",
            "One customer would change the sum by more than was granted.",
            "Ask by a smaller scale, clip or weight; counts by a whole number up to the one that was granted.",
        )
