"""Running totals of one account: what was charged for life, and what counts within the last days, in all and by purpose.

A reservation that is open counts in full in every period, for ever. When it is closed, its charge goes into the bucket
of that day, and a period's figure is the open charges plus the buckets of the last `days` days. So whatever was released
within any `days` consecutive days was within the budget together: a release lies between reserve and close, and when the
last of the studies concerned was admitted, each of the others was open or in a bucket of those days.
"""

from typing import Annotated, NamedTuple

from pydantic import Field

from federation.document import Document
from federation.study import Purpose
from privacy.cost import NOTHING, Amount, Cost, less, total

LONGEST_PERIOD = 366


class DayTotal(NamedTuple):
    """What was charged by studies closed on one day; three integers, as a year has 366 of them in every window."""

    day: Annotated[int, Field(ge=0)]
    nano: Amount
    femto: Amount

    @property
    def spent(self) -> Cost:
        """What was charged."""
        return Cost(nano=self.nano, femto=self.femto)


class Window(Document):
    """Charges that count against a budget of some days: `open` for open studies, `days` for closed ones."""

    open: Cost = NOTHING
    days: tuple[DayTotal, ...] = ()

    def spent(self, day: int, days: int) -> Cost:
        """Return what counts on `day` against a budget of `days` days."""
        counted = [item for item in self.days if item.day > day - days]
        return Cost(
            nano=self.open.nano + sum(item.nano for item in counted),
            femto=self.open.femto + sum(item.femto for item in counted),
        )

    def opened(self, cost: Cost) -> "Window":
        """Return the window with an open charge more."""
        return self.model_copy(update={"open": total([self.open, cost])})

    def closed(self, day: int, cost: Cost, returned: bool) -> "Window":
        """Return the window with an open charge less, which is given back or counted on `day`."""
        update: dict[str, object] = {"open": less(self.open, cost)}
        if not returned and cost != NOTHING:
            kept = [item for item in self.days if item.day > day - LONGEST_PERIOD]
            if kept and kept[-1].day == day:
                cost = total([kept.pop().spent, cost])
            update["days"] = (*kept, DayTotal(day, cost.nano, cost.femto))
        return self.model_copy(update=update)


class AccountState(Document):
    """One account: `life` is everything charged and not returned; the windows hold all of it, and each purpose's part."""

    life: Cost = NOTHING
    all: Window = Window()
    purposes: dict[Purpose, Window] = {}

    def purpose(self, name: str) -> Window:
        """Return the window of one purpose."""
        return self.purposes.get(name, Window())

    def opened(self, purpose: str | None, cost: Cost) -> "AccountState":
        """Return the account with an open charge more; `purpose` None charges life and period, a purpose its part."""
        if purpose is None:
            return self.model_copy(update={"life": total([self.life, cost]), "all": self.all.opened(cost)})
        return self._with(purpose, self.purpose(purpose).opened(cost))

    def closed(self, purpose: str | None, day: int, cost: Cost, returned: bool) -> "AccountState":
        """Return the account with an open charge less."""
        if purpose is not None:
            return self._with(purpose, self.purpose(purpose).closed(day, cost, returned))
        life = less(self.life, cost) if returned else self.life
        return self.model_copy(update={"life": life, "all": self.all.closed(day, cost, returned)})

    def _with(self, purpose: str, window: Window) -> "AccountState":
        return self.model_copy(update={"purposes": {**self.purposes, purpose: window}})
