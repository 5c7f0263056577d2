"""A statistics study in memory: the coordinator's planning and askers, the vaults' exact sums, and the noise that they would add, seeded.

For benchmarks and researchers: no messages, ledgers or files. `epsilon`, declared sizes and the draft's terms give the same sensitivity
that vaults would grant; the noise is the discrete Gaussian of each member.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort
from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.answers import Answer, MemberTerms, StatisticsReport
from federation.contract import FeatureContract
from federation.measures import At, Cells, Centres
from federation.statistics import StatisticsDraft
from privacy.mechanisms.discrete_gaussian import discrete_gaussian
from privacy.randomness import RandomSource
from server.planning import plan_aggregation
from server.statistics.grants import foreseen_sensitivity
from server.statistics.planning import Schedule, plan_statistics, setting_of
from server.statistics.rounds import noise_of

CUSTOMERS_PER_DELTA = 100
NO_STUDY = "0" * 64


@dataclass(frozen=True)
class Party:
    """One institution: its customers at the times that the queries look at, and the number that it declares."""

    name: str
    cohorts: Mapping[At, Cohort]
    declared: int


@dataclass(frozen=True)
class Played:
    """The answers, the number of rounds, and the sensitivity of each (grid units)."""

    draft: StatisticsDraft
    answers: tuple[Answer, ...]
    rounds: int
    sensitivity: float
    members: tuple[MemberTerms, ...]

    @property
    def report(self) -> StatisticsReport:
        """The answers as institutions are given them; `study` says that no real one stands behind it."""
        draft = self.draft
        return StatisticsReport(
            study=NO_STUDY,
            name=draft.name,
            title=draft.title,
            purpose=draft.purpose,
            contract=draft.contract,
            aggregation=draft.aggregation,
            noise=draft.noise,
            confidence=draft.confidence,
            rounds=self.rounds,
            members=self.members,
            answers=self.answers,
        )


class Table:
    """Institutions at one table; their customers are aligned once, for as many studies as are played."""

    def __init__(self, contract: FeatureContract, parties: Sequence[Party]) -> None:
        self._contract = contract
        self._sizes = {party.name: party.declared for party in parties}
        self._people = [People.of(contract, party.cohorts) for party in parties]

    def play(self, draft: StatisticsDraft, epsilon: float, source: RandomSource | None) -> Played:
        """Play one study at `epsilon` for everybody; without a source there is no noise, and the answers are exact.

        Raises
        ------
        ConsilienceError
            As askers, `Schedule.budgets` and `privacy.accounting.calibrate_sensitivity`.
        """
        setting = setting_of(draft, self._contract, self._sizes)
        plan, secure = plan_statistics(draft, setting), plan_aggregation(draft)
        deltas = {1.0 / (CUSTOMERS_PER_DELTA * size) for size in self._sizes.values()}
        sensitivity = min(foreseen_sensitivity(plan, secure, epsilon, delta) for delta in deltas)
        schedule = Schedule(draft, setting)
        sd = noise_of(len(self._people), plan.share) if source is not None else 0.0
        for number in range(1, plan.rounds + 1):
            asked = schedule.ask(number, sensitivity)
            parts = [self._sum(measure, plan.share, source) for item in asked for measure in item.measures]
            schedule.tell(asked, np.concatenate(parts).astype(np.float64), sd)
        members = tuple(
            MemberTerms(
                member=name,
                declared_size=size,
                epsilon=epsilon,
                delta=1.0 / (CUSTOMERS_PER_DELTA * size),
                rounds=plan.rounds,
            )
            for name, size in self._sizes.items()
        )
        return Played(draft, tuple(asker.answer() for asker in schedule.askers), plan.rounds, sensitivity, members)

    def _sum(self, measure: Cells | Centres, share: float, source: RandomSource | None) -> NDArray[np.int64]:
        exact = [measure_all([measure], people, self._contract) for people in self._people]
        total: NDArray[np.int64] = np.sum(np.stack(exact), axis=0, dtype=np.int64)
        return total + self._noise(total.size, share, source)

    def _noise(self, size: int, share: float, source: RandomSource | None) -> NDArray[np.int64]:
        if source is None:
            return np.zeros(size, dtype=np.int64)
        sampler = discrete_gaussian(share)
        parts = [sampler.sample(size, source) for _ in self._people]
        total: NDArray[np.int64] = np.sum(np.stack(parts), axis=0, dtype=np.int64)
        return total


def dealt(cohort: Cohort, names: Sequence[str], seed: int) -> list[Cohort]:
    """Deal customers out at random to institutions of (almost) equal size."""
    order = np.random.default_rng(seed).permutation(len(cohort))
    return [cohort.take(np.sort(part)) for part in np.array_split(order, len(names))]


def round_up(count: int) -> int:
    """Return a declared size for so many customers: rounded up to two digits, as an institution would publish it."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return math.ceil(count / step) * step
