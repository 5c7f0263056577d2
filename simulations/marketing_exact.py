"""Exact answers to the questions that were asked: what no party of a federation sees, and a simulation may, since it plays them all.

Later rounds ask what earlier answers, noise and all, made them ask. So that noisy and exact answers are of the same segments, groups and
rules, the askers are told the noisy sums of earlier rounds, and the exact sums of their last one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort, load_cohort
from client.config import load_node
from client.statistics.measuring import measure_all
from client.statistics.people import People
from client.tables import Want
from federation.answers import Answer, AnswerTable, Row
from federation.contract import FeatureContract
from federation.errors import FederationError
from federation.measures import At, Cells, Centres, shape_of
from federation.statistics import StatisticsDraft
from server.checkpoint import load_checkpoint
from server.events import Event, OnEvent, Reported
from server.statistics.asking import Sum
from server.statistics.planning import Schedule, setting_of
from server.statistics.rounds import noise_of
from server.statistics.run import StatisticsProgress
from simulations.datasets import PROFILING
from simulations.institutions import COORDINATOR, Federation
from simulations.marketing_result import Judged

POPULATION = "population"
_WEIGHTED = frozenset({"lifetime"})
"""Kinds of queries that fit a model, in which counts weigh by their noise: exact counts must weigh the same, or another model is fitted."""


@dataclass
class Kept:
    """Keeps the noisy sums of a study when its report is published, before the coordinator drops them; passes every event on."""

    federation: Federation
    name: str
    on_event: OnEvent
    progress: StatisticsProgress | None = None
    sums: dict[str, NDArray[np.int64]] | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Reported):
            found = load_checkpoint(
                self.federation.root / COORDINATOR / "checkpoints" / f"{self.name}.checkpoint", StatisticsProgress
            )
            if found is not None:
                self.progress, self.sums = found
        self.on_event(event)


def exact_answers(kept: Kept, published: Sequence[Answer]) -> tuple[Answer, ...]:
    """Return the exact answers to a study's questions, in the draft's order.

    Raises
    ------
    FederationError
        CSL-M151 when the noisy sums are not there, or do not lead to the published answers.
    """
    progress, sums = kept.progress, kept.sums
    if progress is None or sums is None:
        raise _unlike(kept.name)
    spec = progress.spec
    contract = kept.federation.contracts[spec.draft.contract]
    everybody = tuple(item.grant.member for item in progress.grants)
    holders = everybody if progress.epoch is None else progress.epoch.members
    grants = {item.grant.member: item.grant for item in progress.grants if item.grant.member in holders}
    setting = setting_of(
        spec.draft, contract, {name: grant.declared_size for name, grant in grants.items()}, spec.plan.share
    )
    noisy, exact = Schedule(spec.draft, setting), Schedule(spec.draft, setting)
    people = [_people(kept.federation, spec.draft, name) for name in sorted(grants)]
    sensitivity = min(grant.sensitivity for grant in grants.values())
    for number in range(1, spec.plan.rounds + 1):
        total = sums[f"round_{number}"].astype(np.float64)
        sd, start = noise_of(len(progress.sums[number - 1].members), spec.plan.share), 0
        for turn, budget in noisy.budgets(number, sensitivity).items():
            asked = noisy.askers[turn.place].ask(turn.local, budget)
            released = []
            for item in asked:
                shape = shape_of(item, contract)
                released.append(Sum(item, total[start : start + math.prod(shape)].reshape(shape), sd))
                start += math.prod(shape)
            noisy.askers[turn.place].told(turn.local, released)
            shadow = exact.askers[turn.place]
            shadow.ask(turn.local, budget)
            last = turn.local == shadow.rounds
            said = sd if spec.draft.queries[turn.place].kind in _WEIGHTED else 0.0
            shadow.told(turn.local, [_exactly(item, people, contract, said) for item in asked] if last else released)
    if tuple(asker.answer() for asker in noisy.askers) != tuple(published):
        raise _unlike(kept.name)
    return tuple(asker.answer() for asker in exact.askers)


def _exactly(item: Cells | Centres, people: Sequence[People], contract: FeatureContract, said: float) -> Sum:
    total = np.sum([measure_all([item], own, contract) for own in people], axis=0, dtype=np.float64)
    return Sum(item, total.reshape(shape_of(item, contract)), said)


def _unlike(name: str) -> FederationError:
    return FederationError(
        "CSL-M151",
        f"The sums of the study {name} do not lead to its published report.",
        "Report this: it is a fault of the program.",
    )


def _people(federation: Federation, draft: StatisticsDraft, member: str) -> People:
    """Read a member's customers as its vault reads them."""
    contract, home = federation.contracts[draft.contract], federation.homes[member]
    wanted: dict[At, Want] = {"start": "learn" if (contract.label.name, "start") in draft.columns else "count"}
    if any(at == "end" for _, at in draft.columns):
        wanted["end"] = "score"
    declaration = federation.charter.member(member).declaration(draft.contract)
    assert declaration is not None
    node = load_node(home.node_file)
    cohorts: dict[At, Cohort] = {
        at: load_cohort(node, contract, declaration, PROFILING, want)[0] for at, want in wanted.items()
    }
    return People.of(contract, cohorts)


def compared(noisy: AnswerTable, exact: Answer) -> dict[tuple[str, ...], float]:
    """Return the exact values of a table's rows by their labels; empty where the last round told the table nothing.

    Values without an interval, such as thresholds' rules and model fits, are left out.
    """
    found = next((table for table in exact.tables if table.name == noisy.name), None)
    if found is None:
        return {}
    truth = {row.key: row.value for row in found.rows if row.value is not None}
    if all(truth.get(row.key) == row.value for row in noisy.rows):
        return {}
    return {
        row.key: truth[row.key]
        for row in noisy.rows
        if row.low is not None and row.high is not None and row.key in truth
    }


def judge(noisy: Answer, exact: Answer) -> tuple[Judged, Judged]:
    """Return how often intervals held the exact answer: those for the noise alone, and those that hold the population as well.

    Where the exact answer is zero nothing is judged: an interval that the possible cuts off there holds more than it says.
    """
    alone, both = Judged(0, 0), Judged(0, 0)
    for table in noisy.tables:
        truth = compared(table, exact)
        found = _judge(table.rows, truth)
        if POPULATION in table.title:
            both += found
        else:
            alone += found
    return alone, both


def _judge(rows: Sequence[Row], truth: dict[tuple[str, ...], float]) -> Judged:
    judged = [
        row.low <= truth[row.key] <= row.high
        for row in rows
        if row.value is not None and row.low is not None and row.high is not None and truth.get(row.key, 0.0) != 0.0
    ]
    return Judged(sum(judged), len(judged))
