"""Plays one asker in memory, for benchmarks and tests: exact measures of a population, plus the noise that a federation would add."""

from collections.abc import Mapping, Sequence

import numpy as np

from client.cohort import Cohort
from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.answers import Answer
from federation.contract import FeatureContract
from federation.measures import At, dimension_of, problems_of, sensitivity
from server.statistics.asking import Asker, sums_of


def play(
    asker: Asker,
    contract: FeatureContract,
    cohorts: Sequence[Mapping[At, Cohort]],
    *,
    budget: float,
    sd: float,
    generator: np.random.Generator,
) -> Answer:
    """Run one asker over several institutions' cohorts with normal noise of standard deviation `sd` (grid units) on each summed integer.

    `budget` is its sensitivity in every round. The ratio budget / sd is mu of one round; sd 0 gives the exact answer.
    """
    people = [People.of(contract, item) for item in cohorts]
    for number in range(1, asker.rounds + 1):
        measures = asker.ask(number, budget)
        assert problems_of(measures, contract) == []
        assert sensitivity(measures) <= budget * (1 + 1e-9)
        total = sum(measure_all(measures, item, contract) for item in people)
        noisy = np.asarray(total) + np.rint(generator.normal(0.0, sd, dimension_of(measures, contract)))
        asker.told(number, sums_of(measures, contract, noisy.astype(np.float64), sd))
    return asker.answer()
