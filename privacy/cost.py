"""What a run costs, in whole numbers, and the two ways in which costs of runs that come one after another may be added.

Costs stand in ledgers for ever; what a number means depends on the filter that the policy fixed for the budget's life.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from federation.document import Document

NANO = 10**9
FEMTO = 10**15
_MAX_INTEGER = (1 << 53) - 1  # of canonical JSON

Amount = Annotated[int, Field(ge=0, le=_MAX_INTEGER)]


class TokenFilter(Document):
    """Approximate-GDP tokens: a run costs mu^2 and delta0; valid whatever later studies depend on (`privacy.token`)."""

    kind: Literal["tokens"] = "tokens"


class RdpFilter(Document):
    """Renyi divergence at one order, fixed for the budget's life: a run costs rho (`privacy.rdp`)."""

    kind: Literal["rdp"]
    order: Annotated[int, Field(ge=2, le=256)]


Filter = Annotated[TokenFilter | RdpFilter, Field(discriminator="kind")]


class Cost(Document):
    """The cost of one run, or the sum of many.

    Attributes
    ----------
    nano:
        Under `tokens` mu^2, under `rdp` the Renyi divergence at the policy's order; in units of 1e-9, rounded up.
    femto:
        Under `tokens` the chance delta0 of full disclosure, under `rdp` what the divergence does not cover; in units of
        1e-15, rounded up.
    """

    nano: Amount = 0
    femto: Amount = 0


NOTHING = Cost()


class Bound(Document):
    """One budget as it is enforced: the most that costs may add up to under (epsilon, delta)."""

    epsilon: float
    delta: float
    capacity: Cost

    def share(self, cost: Cost) -> float:
        """Return the part of the capacity that a cost takes: the larger of its two numbers' parts."""
        return max(cost.nano / max(self.capacity.nano, 1), cost.femto / max(self.capacity.femto, 1))


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of `costs`, exact."""
    items = list(costs)
    return Cost(nano=sum(item.nano for item in items), femto=sum(item.femto for item in items))


def less(whole: Cost, part: Cost) -> Cost:
    """Return `whole` without `part`, which it contains."""
    return Cost(nano=whole.nano - part.nano, femto=whole.femto - part.femto)
