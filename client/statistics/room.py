"""What a vault holds of its customers while a statistics study is open: the columns that its queries name, and no others."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort, load_cohort
from client.config import NodeConfig, TableMapping
from client.consent import Excluded
from client.statistics.measuring import measure_all
from client.statistics.people import People
from client.studies import OpenStatistics
from client.tables import Want
from client.workroom import empty_cohort
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.errors import ConsilienceError
from federation.files import atomic_write
from federation.logs import where
from federation.measures import At, dimension_of
from federation.messages import StatisticsRequest
from privacy.randomness import RandomSource
from privacy.secure_aggregation.quantisation import add_noise

logger = logging.getLogger("consilience.vault")


@dataclass(frozen=True)
class CountingRoom:
    """The customers of one granted statistics study, read once: a snapshot for all its rounds.

    `fault` holds what was wrong with the data when they could not be read; then nobody is counted, and releases carry noise alone.
    """

    contract: FeatureContract
    people: People
    ids: NDArray[np.object_]
    consented: frozenset[str]
    fault: str | None

    @classmethod
    def read(
        cls,
        node: NodeConfig,
        contract: FeatureContract,
        declaration: Declaration,
        study: OpenStatistics,
        consent: str,
        excluded: Excluded | None = None,
    ) -> "CountingRoom":
        """Read the consenting customers who did not withdraw, at the as-of date, and at the horizon's end where a query looks there."""
        cohorts: dict[At, Cohort] = {}
        consented: frozenset[str] = frozenset()
        faults: list[str] = []
        for at, want in _wanted(study.spec.draft.columns, contract).items():
            names = {name for name, when in study.spec.draft.columns if when == at}
            # Each reading fails for itself: were one customer's absence at the end to empty the start too, she would show.
            try:
                narrow, narrowed = _narrowed(node, contract, names)
                cohorts[at], findings = load_cohort(narrowed, narrow, declaration, consent, want, excluded)
                consented |= findings.consented
            except Exception as error:  # noqa: BLE001 - after the grant no fault may show, foreseen or not: nobody is counted instead
                cohorts[at] = empty_cohort(contract)
                known = isinstance(error, ConsilienceError)
                faults.append(str(error) if known else f"Internal error: {type(error).__name__}.")
        people = People.of(contract, cohorts)
        ids = np.concatenate([cohort.ids for cohort in cohorts.values()])
        return cls(contract, people, ids, consented, "\n".join(faults) or None)

    def vector(self, request: StatisticsRequest, share: float, source: RandomSource, x_max: float) -> NDArray[np.int64]:
        """Return one round's vector with this institution's noise, int64 [d].

        Every integer is cut at `x_max` before the noise is added, which brings no two vectors further apart.
        """
        bound = int(x_max)
        return add_noise(np.clip(self._exact(request), -bound, bound), share, source)

    def _exact(self, request: StatisticsRequest) -> NDArray[np.int64]:
        """Return the sums without noise; zeros where they cannot be formed, lest a refusal, which has none, depend on customers."""
        try:
            return measure_all(request.measures, self.people, self.contract)
        except Exception as error:  # noqa: BLE001 - the measures were checked: whatever fails now may fail for what stands in the data
            logger.error("study %s: nobody counted in round %d: %s", request.study[:12], request.round, where(error))
            return np.zeros(dimension_of(request.measures, self.contract), dtype=np.int64)

    def note_fault(self, folder: Path, rid: str) -> None:
        """Write a data fault where the institution itself can read it; nobody else does."""
        if self.fault is not None:
            atomic_write(folder / f"{rid}.fault.json", json.dumps({"fault": self.fault}).encode(), mode=0o600)


def _wanted(named: frozenset[tuple[str, str]], contract: FeatureContract) -> dict[At, Want]:
    """Return what is read for each time that the named columns belong to; the start always, since counts need no column.

    A table has no end of a horizon: what it has to be scored is never counted.
    """
    wanted: dict[At, Want] = {"start": "learn" if (contract.label.name, "start") in named else "count"}
    if contract.source == "transactions" and any(at == "end" for _, at in named):
        wanted["end"] = "score"
    return wanted


def _narrowed(node: NodeConfig, contract: FeatureContract, names: set[str]) -> tuple[FeatureContract, NodeConfig]:
    """Return contract and mapping with these columns alone, one at least: what is not read cannot leak.

    Of a table neither position nor value is read: a record without them is counted too. A log is read by one thread: several add up a
    customer's purchases in an order that depends on everybody's, and the last bits of what comes out decide at a cut.
    """
    columns = tuple(column for column in contract.columns if column.name in names) or contract.columns[:1]
    kept = {column.name for column in columns}
    narrow = contract.model_copy(update={"columns": columns})
    mapping = node.contracts.get(contract.name)
    if not isinstance(mapping, TableMapping):
        return narrow, node.model_copy(update={"threads": 1})
    mapped = {name: item for name, item in mapping.columns.items() if name in kept}
    own = mapping.model_copy(update={"columns": mapped, "position": None, "value": None})
    return narrow, node.model_copy(update={"contracts": {**node.contracts, contract.name: own}})
