"""Published aggregates of public data sets, and the same aggregates of a generated population: is it plausible?

Each fact is one function that reads a public set and a population alike. `sources.recompute` repeats the published figures.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from simulations.population.generate import START, Population
from simulations.population.membership import Style
from simulations.population.purchases import WINDOW_DAYS

Source = Literal["bank_full", "cdnow", "online_retail", "hillstrom"]

SOURCES: Mapping[Source, str] = {
    "bank_full": "UCI Bank Marketing, bank-full (Moro, Cortez and Rita 2014; CC BY 4.0)",
    "cdnow": "CDNOW master set (Fader and Hardie 2001), purchases 1997-01 to 1998-06",
    "online_retail": "UCI Online Retail II (Chen 2012; CC BY 4.0), 2009-12 to 2011-12",
    "hillstrom": "MineThatData e-mail challenge (Hillstrom 2008), outcome visit",
}
LAPSE_DAYS = 180
"""Without a purchase for so long, a customer of Online Retail II who was active in the year before counts as lapsed."""

_ENTRY_WEEKS, _COHORT_WEEKS = 12, 78
_TOP = 0.2
_STYLES: Mapping[Source, Style] = {"cdnow": "occasional", "online_retail": "regular"}


@dataclass(frozen=True)
class Fact:
    """One aggregate of one public set.

    Attributes
    ----------
    name, meaning, source:
        A short name, what it is in words, and the set that it is an aggregate of.
    published:
        Its value in the public set.
    tolerance:
        How far a population of at least 20,000 people with the default parameters should lie from it at most; a rare seed does not.
    measure:
        Computes it from a table: the set's own or the population's (`view`).
    """

    name: str
    meaning: str
    source: Source
    published: float
    tolerance: float
    measure: Callable[[pd.DataFrame], float]

    def holds(self, value: float) -> bool:
        """Say whether a generated value lies within the tolerance."""
        return abs(value - self.published) <= self.tolerance


@dataclass(frozen=True)
class Checked:
    """A fact beside its value in a population."""

    fact: Fact
    generated: float

    @property
    def holds(self) -> bool:
        """Whether the value lies within the fact's tolerance."""
        return self.fact.holds(self.generated)


def view(population: Population, source: Source) -> pd.DataFrame | None:
    """Return the part of a population that compares with a public set; None where the population has no such part.

    Banks' customers for bank-full and shops' for Hillstrom, as in `Population.tables`. Otherwise the log of the shops of one style
    (`customer`, `day`, `amount`): for CDNOW of those who came in the first 12 weeks, for 78 weeks; for Online Retail II of the window.
    Amounts are without each shop's price level, which is drawn for the shop.
    """
    if source == "bank_full":
        return population.tables.get("bank")
    if source == "hillstrom":
        return population.tables.get("shop")
    names = [item.name for item in population.institutions if item.style == _STYLES[source]]
    if population.purchases is None or not names:
        return None
    log = population.purchases
    log = log[log["institution"].isin(names) & (log["day"] < START + pd.Timedelta(days=WINDOW_DAYS))]
    levels = {item.name: item.price_level for item in population.institutions}
    log = log.assign(amount=log["amount"] / log["institution"].map(levels).astype(float))
    if source == "online_retail":
        return log
    first = log.groupby("customer", sort=False)["day"].transform("min")
    early = first < START + pd.Timedelta(weeks=_ENTRY_WEEKS)
    return log[early & (log["day"] < START + pd.Timedelta(weeks=_COHORT_WEEKS))]


def check(population: Population) -> tuple[Checked, ...]:
    """Measure every fact that this population can be measured by; those of purchases need its log, and shares somebody to be a share of."""
    views = {source: view(population, source) for source in SOURCES}
    found = [
        Checked(fact, fact.measure(table)) for fact in FACTS if (table := views[fact.source]) is not None and len(table)
    ]
    return tuple(item for item in found if math.isfinite(item.generated))


def _quantile(column: str, share: float) -> Callable[[pd.DataFrame], float]:
    return lambda table: float(table[column].astype(float).quantile(share))


def _mean(column: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: float(table[column].astype(float).mean())


def _share(column: str, value: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: float((table[column].dropna() == value).mean())


def _rate(column: str, value: object) -> Callable[[pd.DataFrame], float]:
    return lambda table: float(table.loc[table[column] == value, "subscribed"].astype(float).mean())


def _overdrawn(table: pd.DataFrame) -> float:
    return float((table["balance"] < 0).mean())


def _approached(table: pd.DataFrame) -> float:
    return float(table["earlier"].notna().mean())


def _older(table: pd.DataFrame) -> float:
    return float(table.loc[table["age"] >= 65, "subscribed"].astype(float).mean())


def _days(log: pd.DataFrame) -> "pd.Series[float]":
    """Return amounts by customer and day of purchase."""
    return log.groupby(["customer", "day"], sort=False)["amount"].sum()


def _once(log: pd.DataFrame) -> float:
    return float((_days(log).groupby("customer", sort=False).size() == 1).mean())


def _purchases(log: pd.DataFrame) -> float:
    return float(_days(log).groupby("customer", sort=False).size().mean())


def _busiest(log: pd.DataFrame) -> float:
    return float(_days(log).groupby("customer", sort=False).size().quantile(0.99))


def _top_share(log: pd.DataFrame) -> float:
    spent = np.sort(log.groupby("customer", sort=False)["amount"].sum().to_numpy())[::-1]
    return float(spent[: max(1, round(_TOP * len(spent)))].sum() / spent.sum())


def _median_amount(log: pd.DataFrame) -> float:
    return float(_days(log).median())


def _lapsed(log: pd.DataFrame) -> float:
    end = log["day"].max() + pd.Timedelta(days=1)
    then = end - pd.Timedelta(days=LAPSE_DAYS)
    before = log[(log["day"] < then) & (log["day"] >= then - pd.Timedelta(days=365))]
    active = before["customer"].drop_duplicates()
    return float(1.0 - active.isin(log.loc[log["day"] >= then, "customer"]).mean())


def _control(table: pd.DataFrame) -> float:
    return float(table.loc[table["arm"] == "control", "responded"].mean())


def _uplift(table: pd.DataFrame) -> float:
    return float(table.loc[table["arm"] == "contacted", "responded"].mean()) - _control(table)


FACTS: tuple[Fact, ...] = (
    Fact("age_q25", "Age, first quartile (years)", "bank_full", 33.0, 2.0, _quantile("age", 0.25)),
    Fact("age_median", "Age, median (years)", "bank_full", 39.0, 2.0, _quantile("age", 0.5)),
    Fact("age_q75", "Age, third quartile (years)", "bank_full", 48.0, 2.0, _quantile("age", 0.75)),
    Fact("married", "Share married", "bank_full", 0.602, 0.04, _share("marital", "married")),
    Fact("single", "Share single", "bank_full", 0.283, 0.04, _share("marital", "single")),
    Fact(
        "tertiary",
        "Share with tertiary education, of those known",
        "bank_full",
        0.307,
        0.04,
        _share("education", "tertiary"),
    ),
    Fact(
        "blue_collar",
        "Share of blue-collar workers, of jobs known",
        "bank_full",
        0.217,
        0.03,
        _share("job", "blue-collar"),
    ),
    Fact("students", "Share of students, of jobs known", "bank_full", 0.021, 0.012, _share("job", "student")),
    Fact("retired", "Share of the retired, of jobs known", "bank_full", 0.050, 0.02, _share("job", "retired")),
    Fact("housing", "Share with a housing loan", "bank_full", 0.556, 0.03, _mean("housing")),
    Fact("loan", "Share with a personal loan", "bank_full", 0.160, 0.02, _mean("loan")),
    Fact("default", "Share with credit in default", "bank_full", 0.018, 0.005, _mean("default")),
    Fact("balance_median", "Balance, median (euro)", "bank_full", 448.0, 80.0, _quantile("balance", 0.5)),
    Fact("balance_q75", "Balance, third quartile (euro)", "bank_full", 1428.0, 250.0, _quantile("balance", 0.75)),
    Fact("overdrawn", "Share with a balance below 0", "bank_full", 0.083, 0.02, _overdrawn),
    Fact("approached", "Share who were in an earlier campaign", "bank_full", 0.183, 0.015, _approached),
    Fact("subscribed", "Share who take a deposit", "bank_full", 0.117, 0.01, _mean("subscribed")),
    Fact("subscribed_housing", "The same, with a housing loan", "bank_full", 0.077, 0.02, _rate("housing", 1)),
    Fact("subscribed_free", "The same, without a housing loan", "bank_full", 0.167, 0.02, _rate("housing", 0)),
    Fact("subscribed_loan", "The same, with a personal loan", "bank_full", 0.067, 0.02, _rate("loan", 1)),
    Fact("subscribed_students", "The same, students", "bank_full", 0.287, 0.10, _rate("job", "student")),
    Fact("subscribed_older", "The same, from 65 years on", "bank_full", 0.421, 0.10, _older),
    Fact(
        "subscribed_success",
        "The same, after a success in an earlier campaign",
        "bank_full",
        0.647,
        0.10,
        _rate("earlier", "success"),
    ),
    Fact("cdnow_once", "Share with a single day of purchase in 78 weeks", "cdnow", 0.511, 0.06, _once),
    Fact("cdnow_purchases", "Days of purchase in 78 weeks, mean", "cdnow", 2.868, 0.50, _purchases),
    Fact("cdnow_busiest", "The same, 99th percentile", "cdnow", 19.0, 6.0, _busiest),
    Fact("cdnow_amount", "Amount of a day of purchase, median (dollars)", "cdnow", 26.73, 6.0, _median_amount),
    Fact("cdnow_top", "Share of spending by the top 20%", "cdnow", 0.678, 0.04, _top_share),
    Fact("retail_once", "Share with a single day of purchase in two years", "online_retail", 0.288, 0.05, _once),
    Fact("retail_purchases", "Days of purchase in two years, mean", "online_retail", 5.630, 1.00, _purchases),
    Fact("retail_amount", "Amount of a day of purchase, median (pounds)", "online_retail", 313.2, 80.0, _median_amount),
    Fact("retail_top", "Share of spending by the top 20%", "online_retail", 0.772, 0.06, _top_share),
    Fact(
        "retail_lapsed", "Share of last year's customers who lapse for 180 days", "online_retail", 0.427, 0.07, _lapsed
    ),
    Fact("visit_control", "Share who visit, not contacted", "hillstrom", 0.106, 0.012, _control),
    Fact("visit_uplift", "What a contact adds to it, mean", "hillstrom", 0.061, 0.016, _uplift),
)
