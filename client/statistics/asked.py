"""What is asked of a statistics study, checked on public inputs before any data are read."""

from client.studies import OpenStatistics
from federation.contract import FeatureContract
from federation.errors import IntegrityError, PolicyError
from federation.measures import columns_of, dimension_of, problems_of, sensitivity
from federation.messages import StatisticsRequest


def check_measures(study: OpenStatistics, request: StatisticsRequest, contract: FeatureContract) -> int:
    """Check one round's measures against the study and its grant, and return how many integers they have.

    Raises
    ------
    PolicyError
        CSL-C512 for a round beyond the plan, CSL-C493 for columns that the study's queries do not name, CSL-C494 for more integers than
        planned, CSL-C475 when one customer would change the sum by more than was granted.
    IntegrityError
        CSL-C495 for measures that do not fit the contract.
    """
    plan, draft = study.spec.plan, study.spec.draft
    if request.round > plan.rounds:
        raise PolicyError(
            "CSL-C512", f"Round {request.round} is beyond the study's plan.", "Stop at the last planned round."
        )
    wrong = problems_of(request.measures, contract)
    if wrong:
        raise IntegrityError(
            "CSL-C495",
            f"The measures do not fit the contract {contract.name}: {wrong[0]}",
            "Both sides must run the same release.",
        )
    foreign = sorted({name for name, at in columns_of(request.measures) if (name, at) not in draft.columns})
    if foreign:
        raise PolicyError(
            "CSL-C493",
            f"The round looks at {', '.join(foreign)}, which no query of the study names.",
            "Plan a study whose queries name it: officers decide on what they were shown.",
        )
    dimension = dimension_of(request.measures, contract)
    if dimension > plan.dimension:
        raise PolicyError(
            "CSL-C494",
            f"The round asks for {dimension} integers; the study planned {plan.dimension} at most.",
            "Ask for no more than was planned.",
        )
    if sensitivity(request.measures) > study.grant.sensitivity:
        raise PolicyError(
            "CSL-C475",
            "One customer would change the sum by more than was granted.",
            "Ask by smaller caps.",
        )
    return dimension
