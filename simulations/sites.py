"""The demo's institutions: public facts only (names, declared sizes, windows, rates of simulated consent, budgets).

The institutions are made: public data sets are split as if each part belonged to a company of its own. Declared sizes
are round numbers that such a company would publish; none is computed from the rows.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Literal

HouseStyle = Literal["csv", "parquet", "sqlite"]


@dataclass(frozen=True)
class Window:
    """A transaction log's declared window: features from [as_of - window_days, as_of), label from [as_of, as_of + horizon_days)."""

    as_of: date
    window_days: int
    horizon_days: int
    typical_purchase: float

    @property
    def complete_until(self) -> date:
        """The day before which the log holds every purchase: the horizon's end."""
        return self.as_of + timedelta(days=self.horizon_days)


@dataclass(frozen=True)
class Site:
    """One institution of the demo.

    Attributes
    ----------
    id, title:
        Member id, and the name that people read.
    group:
        Which part of the public data set it holds.
    style:
        The format of its own tables.
    epsilon:
        What its policy grants one study.
    size:
        Declared number of customers that may train: public and round.
    learns, contacts:
        Share of its customers who agreed to profiling for the study, and to be contacted (simulated).
    lacks:
        Optional contract columns that it does not have.
    window:
        For transaction logs.
    """

    id: str
    title: str
    group: str
    style: HouseStyle
    epsilon: float
    size: int
    learns: float
    contacts: float
    lacks: tuple[str, ...] = ()
    window: Window | None = None

    @property
    def delta(self) -> float:
        """The policy's delta: 1 / (100 * declared size), rounded down to two digits."""
        limit = Decimal(1) / (100 * self.size)
        return float(limit.quantize(Decimal(1).scaleb(limit.adjusted() - 1), ROUND_DOWN))


JOB_GROUPS = {
    "management": "managers",
    "technician": "technicians",
    "blue-collar": "workers",
    "admin.": "offices",
    "services": "services",
    "retired": "retired",
    "entrepreneur": "businesses",
    "self-employed": "businesses",
    "housemaid": "households",
    "unemployed": "households",
    "student": "households",
    "unknown": "households",
}
"""Which bank holds a customer of the public bank data, by the job on the row."""

BANKS = (
    Site("bank_businesses", "Bank for businesses", "businesses", "csv", 2.0, 2_000, 0.78, 0.55),
    Site("bank_households", "Bank for households", "households", "sqlite", 2.0, 2_000, 0.82, 0.60, lacks=("day",)),
    Site("bank_managers", "Bank for managers", "managers", "parquet", 1.0, 6_000, 0.85, 0.50),
    Site("bank_offices", "Bank for clerks", "offices", "csv", 1.5, 3_500, 0.90, 0.65),
    Site("bank_retired", "Bank for the retired", "retired", "sqlite", 4.0, 1_000, 0.74, 0.45),
    Site("bank_services", "Bank for service jobs", "services", "parquet", 3.0, 3_000, 0.88, 0.70),
    Site("bank_technicians", "Bank for technicians", "technicians", "csv", 1.0, 5_500, 0.92, 0.60),
    Site("bank_workers", "Bank for workers", "workers", "parquet", 1.5, 7_000, 0.86, 0.58),
)

CDNOW_WINDOW = Window(date(1997, 10, 1), 273, 273, 30.0)
GROCERY_WINDOW = Window(date(2017, 11, 6), 309, 56, 30.0)

SHOPS = (
    Site("grocery", "Grocery platform", "grocery", "parquet", 3.0, 1_700, 0.85, 0.60, window=GROCERY_WINDOW),
    Site("records_feb", "February record shop", "february", "sqlite", 2.0, 6_000, 0.88, 0.55, window=CDNOW_WINDOW),
    Site("records_jan", "January record shop", "january", "csv", 1.0, 5_500, 0.90, 0.62, window=CDNOW_WINDOW),
    Site("records_mar", "March record shop", "march", "parquet", 1.5, 5_000, 0.84, 0.50, window=CDNOW_WINDOW),
)

TEST_POSITION = 36_168
"""The first row of the test set in the public bank data, in order of date: 80% of its 45,211 rows, fixed for good."""
