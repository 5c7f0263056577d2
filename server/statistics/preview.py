"""What a statistics study would cost and how exact its answers would be, from charter, contract and draft alone."""

from typing import Any

from federation.charter import Charter
from federation.contract import FeatureContract
from federation.errors import DocumentError
from federation.question_words import describe
from federation.statistics import StatisticsDraft
from server.planning import declared_sizes, least_partners, plan_aggregation
from server.statistics.grants import foreseen_sensitivity
from server.statistics.planning import Schedule, check_statistics, plan_statistics, rehearse, setting_of

_CUSTOMERS_PER_DELTA = 100


def preview(
    draft: StatisticsDraft, charter: Charter, contract: FeatureContract, epsilon: float | None = None
) -> dict[str, Any]:
    """Return what a draft costs and how exact its answers will be, as `query --json` prints it; `epsilon` replaces the draft's.

    Raises
    ------
    DocumentError
        CSL-S101 for a draft that does not fit, CSL-S781 where no epsilon is known.
    FederationError
        CSL-S780 where the accuracies asked for cannot be had; a query's own code where it has too little to ask anything.
    """
    check_statistics(draft, charter, contract)
    sizes = declared_sizes(charter, draft.contract)
    setting = setting_of(draft, contract, sizes)
    plan, schedule = plan_statistics(draft, setting), Schedule(draft, setting)
    target = draft.epsilon if epsilon is None else epsilon
    if target is None:
        raise DocumentError(
            "CSL-S781",
            "The file names no epsilon: each member's own policy decides, and what it grants is not known beforehand.",
            "Give --epsilon for a preview of what so much would buy.",
        )
    # The largest member's delta is the smallest, and so it buys least; a round is asked of all by the smallest grant.
    delta = 1.0 / (_CUSTOMERS_PER_DELTA * max(sizes.values()))
    sensitivity = foreseen_sensitivity(plan, plan_aggregation(draft), target, delta)
    rehearse(draft, setting, sensitivity)
    expected = schedule.expected(sensitivity)
    return {
        "study": draft.name,
        "members": sizes,
        "least": least_partners(draft),
        "rounds": plan.rounds,
        "epsilon": target,
        "sensitivity": sensitivity,
        "noise": setting.sd,
        "confidence": draft.confidence,
        "queries": [
            {
                "id": query.id,
                "asks": describe(query),
                "expected": [{"what": item.what, "within": item.within, "unit": item.unit} for item in answers],
            }
            for query, answers in zip(draft.queries, expected, strict=True)
        ],
    }
