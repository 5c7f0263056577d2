"""Statistics studies: what is asked, what is planned, and what is granted.

A statistics study has a number of rounds; in each the coordinator asks for measures (`federation.measures`), and every vault adds the same
noise. Noise, number of rounds, the most that one customer may change a round's sum, and its length are fixed before the first round; which
measures are asked for in a round may depend on earlier answers, within the columns that the draft's queries name.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.contract import Name
from federation.document import Document
from federation.measures import MOST_CELLS
from federation.queries import Query
from federation.signing import Hex32
from federation.study import Draft, SecurePlan

MOST_ROUNDS = 100


class StatisticsDraft(Draft):
    """What a person writes under `configs/queries`: the queries of one report. `confidence` is that of all its intervals."""

    kind: Literal["statistics"]
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    queries: Annotated[tuple[Query, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [query.id for query in self.queries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each query has an id of its own; more than once: {', '.join(twice)}")
        return self

    @property
    def columns(self) -> frozenset[tuple[str, str]]:
        """The columns that the queries look at, each with when (`start`, `end`)."""
        return frozenset(pair for query in self.queries for pair in query.columns)


class StatisticsPlan(Document):
    """The plan of a statistics study.

    Attributes
    ----------
    rounds:
        How many sums are asked for, at most.
    dimension:
        Integers in a sum, at most.
    share:
        Parameter, in grid units, of the discrete Gaussian noise that every member adds to every integer.
    """

    rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS)]
    dimension: Annotated[int, Field(ge=1, le=MOST_CELLS)]
    share: Annotated[float, Field(ge=200.0, le=65_536.0)]


class StatisticsSpec(Document):
    """A planned statistics study: nothing left open. `epsilon` None means that each vault's own policy decides."""

    kind: Literal["statistics"] = "statistics"
    draft: StatisticsDraft
    federation: Name
    charter: Hex32
    contract_digest: Hex32
    plan: StatisticsPlan
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    secure: Annotated[SecurePlan | None, Field(exclude_if=lambda value: value is None)] = None

    @model_validator(mode="after")
    def _aggregation_agrees(self) -> Self:
        draft, plan = self.draft, self.secure
        planned = None if plan is None else (plan.noise, plan.n_min, plan.c, plan.share)
        asked = (draft.noise, draft.n_min, draft.c, self.plan.share)
        if planned != (None if draft.aggregation == "plain" else asked):
            raise ValueError("the plan is for another aggregation than the draft")
        return self
