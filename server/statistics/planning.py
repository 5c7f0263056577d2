"""From queries to rounds: which asker asks when, and how much of a round's sensitivity each is given.

Askers of several rounds begin in the first; those of one round go to the rounds where least is asked. Within a round the squared
sensitivities add up to the square of what was granted: askers with an accuracy to reach get what it needs, the others share the rest by
weight. Where all are served, what is left makes everything more exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from federation.charter import Charter
from federation.contract import FeatureContract
from federation.document import Document
from federation.errors import FederationError
from federation.measures import MOST_CELLS, Cells, Centres
from federation.signing import Signature, sign
from federation.statistics import StatisticsDraft, StatisticsPlan, StatisticsSpec
from federation.study import CONTEXT
from server.planning import (
    SHARE,
    contract_problems,
    declared_sizes,
    least_partners,
    plan_aggregation,
    refuse_draft,
    windowless,
)
from server.statistics.askers import make_asker, problems_of
from server.statistics.asking import Asker, Expected, Setting, sums_of

# A hair less than was granted: the root of a sum of squares is rounded up.
_WITHIN = 1.0 - 1e-9


class SignedStatistics(Document):
    """A planned statistics study with the coordinator's signature."""

    spec: StatisticsSpec
    signature: Signature


@dataclass(frozen=True)
class Turn:
    """One asker's turn: query `place` of the draft asks for its round `local` in the study's round."""

    place: int
    local: int


@dataclass(frozen=True)
class Asked:
    """What one asker asks for in its turn."""

    turn: Turn
    budget: float
    measures: tuple[Cells | Centres, ...]


class Schedule:
    """The askers of a draft, and whose turn it is in which round; deterministic, so that a restart finds the same one."""

    def __init__(self, draft: StatisticsDraft, setting: Setting) -> None:
        self._contract = setting.contract
        self.askers: tuple[Asker, ...] = tuple(make_asker(query, setting) for query in draft.queries)
        self.rounds = max(asker.rounds for asker in self.askers)
        self._turns = self._placed()

    def turns(self, number: int) -> tuple[Turn, ...]:
        """Return whose turn it is in round `number`, in the order of the draft's queries."""
        return self._turns[number - 1]

    def _placed(self) -> list[tuple[Turn, ...]]:
        load = [0.0] * self.rounds
        turns: list[list[Turn]] = [[] for _ in range(self.rounds)]
        order = sorted(range(len(self.askers)), key=lambda place: (-self.askers[place].rounds, place))
        for place in order:
            asker = self.askers[place]
            starts = range(self.rounds - asker.rounds + 1)
            start = min(starts, key=lambda first: (sum(load[first : first + asker.rounds]), first))
            for local in range(1, asker.rounds + 1):
                load[start + local - 1] += asker.weight(local)
                turns[start + local - 1].append(Turn(place, local))
        return [tuple(sorted(found, key=lambda turn: turn.place)) for found in turns]

    def budgets(self, number: int, sensitivity: float) -> dict[Turn, float]:
        """Share out what was granted for one round.

        Raises
        ------
        FederationError
            CSL-S780 when the accuracies asked for need more than was granted.
        """
        turns = self.turns(number)
        needed = {turn: self.askers[turn.place].needed(turn.local) for turn in turns}
        known = {turn: value for turn, value in needed.items() if value is not None}
        square, asked = sensitivity * sensitivity * _WITHIN, sum(value * value for value in known.values())
        if asked > square:
            factor = math.sqrt(asked / square)
            raise FederationError(
                "CSL-S780",
                f"The accuracies asked for need {_times(factor)} the sensitivity that was granted in round {number}: about "
                f"{_times(factor)} its epsilon.",
                "Ask for less accuracy, in fewer groups or fewer queries, or for more epsilon.",
            )
        open_ = {turn: self.askers[turn.place].weight(turn.local) for turn in turns if turn not in known}
        if not open_:
            return {turn: value * math.sqrt(square / asked) for turn, value in known.items()}
        rest, total = square - asked, sum(open_.values())
        shares = {turn: math.sqrt(rest * weight / total) for turn, weight in open_.items()}
        return {turn: known.get(turn, shares.get(turn, 0.0)) for turn in turns}

    def ask(self, number: int, sensitivity: float) -> tuple[Asked, ...]:
        """Return what is asked for in round `number`, in the order in which a round's integers stand. Raises as `budgets` and askers."""
        budgets = self.budgets(number, sensitivity)
        return tuple(
            Asked(turn, value, self.askers[turn.place].ask(turn.local, value)) for turn, value in budgets.items()
        )

    def tell(self, asked: Sequence[Asked], total: NDArray[np.float64], sd: float) -> None:
        """Hand every asker its part of a round's sum.

        Parameters
        ----------
        total, sd:
            The round's integers, float64 [d] in the order of `asked`, and the standard deviation of the noise of each.

        Raises
        ------
        ValueError
            When there are more or fewer integers than were asked for.
        """
        sums = sums_of([measure for item in asked for measure in item.measures], self._contract, total, sd)
        start = 0
        for item in asked:
            end = start + len(item.measures)
            self.askers[item.turn.place].told(item.turn.local, sums[start:end])
            start = end

    def expected(self, sensitivity: float) -> tuple[tuple[Expected, ...], ...]:
        """Say beforehand how exact each query's answer will be. Raises as `budgets`."""
        found: list[dict[int, float]] = [{} for _ in self.askers]
        for number in range(1, self.rounds + 1):
            for turn, value in self.budgets(number, sensitivity).items():
                found[turn.place][turn.local] = value
        return tuple(asker.expected(budgets) for asker, budgets in zip(self.askers, found, strict=True))


def rehearse(draft: StatisticsDraft, setting: Setting, sensitivity: float) -> None:
    """Share out all rounds, and let every query ask its first question: one that has too little says so before any data are read.

    Raises
    ------
    FederationError
        As `Schedule.budgets`; a query's own code where it has too little to ask anything.
    """
    schedule = Schedule(draft, setting)
    for number in range(1, schedule.rounds + 1):
        for turn, budget in schedule.budgets(number, sensitivity).items():
            if turn.local == 1:
                schedule.askers[turn.place].ask(1, budget)


def _times(factor: float) -> str:
    """Write a factor rounded up, so that what is read off is enough."""
    return f"{math.ceil(factor):,} times" if factor >= 10 else f"{math.ceil(factor * 100) / 100:g} times"


def setting_of(
    draft: StatisticsDraft, contract: FeatureContract, sizes: Mapping[str, int], share: float = SHARE
) -> Setting:
    """Return the public numbers that askers share, for these members and their declared sizes."""
    return Setting(
        contract=contract,
        customers=sum(sizes.values()),
        sd=share * math.sqrt(len(sizes)),
        confidence=draft.confidence,
    )


def problems_of_statistics(draft: StatisticsDraft, charter: Charter, contract: FeatureContract) -> list[str]:
    """Return everything that keeps a draft from being a study under this charter, in words; empty when nothing does."""
    problems = contract_problems(draft, charter, contract)
    sizes, least = declared_sizes(charter, draft.contract), least_partners(draft)
    if len(sizes) < least:
        problems.append(
            f"members: {least} are needed, and {len(sizes)} declare customers for {draft.contract}"
            if sizes
            else f"members: nobody declares customers for {draft.contract}"
        )
    dateless = windowless(charter, contract)
    if dateless:
        problems.append(f"members: no as-of date is declared by {', '.join(dateless)}")
    return problems + query_problems(draft, contract)


def query_problems(draft: StatisticsDraft, contract: FeatureContract) -> list[str]:
    """Return what is wrong with the queries themselves, each named by its id."""
    return [f"{query.id}: {problem}" for query in draft.queries for problem in problems_of(query, contract)]


def check_statistics(draft: StatisticsDraft, charter: Charter, contract: FeatureContract) -> None:
    """Refuse a draft that cannot be a study under this charter.

    Raises
    ------
    DocumentError
        CSL-S101 with every problem at once.
    """
    refuse_draft(draft, problems_of_statistics(draft, charter, contract))


def plan_statistics(draft: StatisticsDraft, setting: Setting) -> StatisticsPlan:
    """Return a draft's plan: as many rounds as its longest query asks, and the noise that all studies have.

    The length of a round is left open up to the largest that there is: it costs next to nothing (`privacy.distributions.sum_distance`), and
    what is asked for in a round may depend on the one before.
    """
    return StatisticsPlan(rounds=Schedule(draft, setting).rounds, dimension=MOST_CELLS, share=SHARE)


def sign_statistics(
    draft: StatisticsDraft, charter: Charter, contract: FeatureContract, nonce: str, key: Ed25519PrivateKey
) -> SignedStatistics:
    """Return the study, planned and signed by the coordinator."""
    setting = setting_of(draft, contract, declared_sizes(charter, draft.contract))
    spec = StatisticsSpec(
        draft=draft,
        federation=charter.federation,
        charter=charter.digest(),
        contract_digest=contract.digest(),
        plan=plan_statistics(draft, setting),
        nonce=nonce,
        secure=plan_aggregation(draft),
    )
    return SignedStatistics(spec=spec, signature=sign(key, CONTEXT, spec))
