"""A whole population: people, institutions, what these know of their customers, and what the customers did. Seeded; nobody is real."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from federation.errors import DocumentError
from simulations.population.banks import (
    CHANNELS,
    EARLIER,
    JOBS,
    MARITAL,
    SCHOOLING,
    Customers,
    draw_bank,
)
from simulations.population.chance import Codes, at_rate, happens, intercept
from simulations.population.membership import REGIONS, Institution, Membership, divide, draw_regions, enrol, found
from simulations.population.parameters import KINDS, Kind, PopulationParameters, stream
from simulations.population.purchases import Log
from simulations.population.shops import CHANNELS as SHOP_CHANNELS
from simulations.population.shops import draw_shop
from simulations.population.traits import Floats, Traits, at_institution, draw_traits

START = pd.Timestamp("2023-01-01")
"""Day 0 of the purchases; the as-of date is `START` plus the window."""

ARMS = ("control", "contacted")
LABELS = ("churned", "subscribed", "responded")
_CATEGORIES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "bank": {
        "region": REGIONS,
        "channel": CHANNELS,
        "education": SCHOOLING,
        "job": JOBS,
        "marital": MARITAL,
        "earlier": EARLIER,
    },
    "shop": {"region": REGIONS, "channel": SHOP_CHANNELS},
}
_DIGITS = 8

Say = Callable[[str], None]
"""Receives one line of progress for a person."""


@dataclass(frozen=True, eq=False)
class Population:
    """A synthetic population.

    Attributes
    ----------
    parameters, seed:
        What it was made from; the same two give the same population, to the bit.
    institutions:
        Banks, then shops.
    tables:
        By kind that has institutions, one row a customer in order of `position` (0 to n - 1, the rank in time): `customer` (text, her id
        at the institution), `person` (int64, one number for one person everywhere; no institution knows it), `institution` (text),
        `position` (int64), contract columns (numbers float64, flags int8 0/1, categories text; NaN where missing), `churned`,
        `subscribed`, `responded` (int8) and `arm` (`contacted` or `control`, at random).
    truths:
        By kind, in the same order, what only a simulation knows, float64: the chances `churn`, `subscribe`, `respond_control` and
        `respond_contacted` from which the labels were drawn.
    purchases:
        The shops' log, where it was asked for: `institution`, `customer`, `day` (date) and `amount` (money), one row a customer and day,
        from `START` to the end of the horizon.
    """

    parameters: PopulationParameters
    seed: int
    institutions: tuple[Institution, ...]
    tables: Mapping[Kind, pd.DataFrame]
    truths: Mapping[Kind, pd.DataFrame]
    purchases: pd.DataFrame | None = None

    def at(self, name: str) -> pd.DataFrame:
        """Return what one institution has: its own customers, without `person` and without the columns that it lacks.

        Raises
        ------
        DocumentError
            CSL-M202 when the population has no such institution.
        """
        for institution in self.institutions:
            if institution.name == name:
                table = self.tables[institution.kind]
                mine = table[table["institution"] == name]
                return mine.drop(columns=["person", "institution", *institution.lacks]).reset_index(drop=True)
        listed = ", ".join(item.name for item in self.institutions[:8])
        raise DocumentError(
            "CSL-M202", f'The population has no institution "{name}"; it has {listed} ...', "Name one of them."
        )


def generate(
    parameters: PopulationParameters, seed: int, *, purchases: bool = False, say: Say = lambda line: None
) -> Population:
    """Draw a population; time and memory grow with the number of customers.

    Parameters
    ----------
    purchases:
        Whether to keep the shops' log of purchases.
    say:
        Told of each stage before it begins.
    """
    say(f"{parameters.customers:,} people")
    traits = draw_traits(parameters.customers, stream(seed, "traits"))
    region = draw_regions(parameters.customers, stream(seed, "regions"))
    people = divide(traits, parameters, stream(seed, "divide"))
    institutions: list[Institution] = []
    tables: dict[Kind, pd.DataFrame] = {}
    truths: dict[Kind, pd.DataFrame] = {}
    kept: pd.DataFrame | None = None
    for kind in KINDS:
        if not parameters.count(kind):
            continue
        say(f"customers of {parameters.count(kind):,} {kind}s")
        members = found(kind, parameters, stream(seed, f"{kind}/institutions"))
        where = enrol(people[kind], traits, region, members, parameters, stream(seed, f"{kind}/members"))
        local = at_institution(traits, where.person, parameters.consistency, stream(seed, f"{kind}/local"))
        drawn = _drawn(kind, local, region[where.person], where, members, parameters, stream(seed, kind))
        tables[kind], truths[kind] = _tables(kind, where, members, drawn, parameters, stream(seed, f"{kind}/campaign"))
        if drawn.log is not None and purchases:
            kept = _log(drawn.log, tables[kind])
        institutions += members
    return Population(parameters, seed, tuple(institutions), tables, truths, kept)


@dataclass(frozen=True, eq=False)
class _Drawn:
    customers: Customers
    churned: Codes
    churn: Floats
    log: Log | None


def _drawn(
    kind: Kind,
    traits: Traits,
    region: NDArray[np.int64],
    where: Membership,
    members: tuple[Institution, ...],
    parameters: PopulationParameters,
    rng: np.random.Generator,
) -> _Drawn:
    if kind == "shop":
        made = draw_shop(traits, region, where.institution, members, rng)
        return _Drawn(made.customers, made.lapsed, made.lapse, made.log)
    customers = draw_bank(traits, region, rng)
    shift = np.array([item.shift for item in members])[where.institution]
    churn = at_rate(customers.churn + shift, parameters.bank_churn)
    return _Drawn(customers, happens(churn, rng), churn, None)


def _tables(
    kind: Kind,
    where: Membership,
    members: tuple[Institution, ...],
    drawn: _Drawn,
    parameters: PopulationParameters,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw the other outcomes, and put a kind's rows together: (the table, what only the simulation knows)."""
    made, n = drawn.customers, len(where.person)
    time = np.arange(n) / max(1, n - 1) - 0.5
    shift = np.array([item.shift for item in members])[where.institution]
    subscribe = at_rate(made.subscribe + parameters.drift * time - shift, parameters.subscribed(kind))
    control, contacted = _responses(made, parameters)
    arm = happens(np.full(n, parameters.contacted), rng)
    truth = pd.DataFrame(
        {"churn": drawn.churn, "subscribe": subscribe, "respond_control": control, "respond_contacted": contacted}
    )
    columns: dict[str, object] = {
        "customer": _ids(where.institution, members),
        "person": where.person,
        "institution": _texts(where.institution, tuple(item.name for item in members)),
        "position": np.arange(n, dtype=np.int64),
    }
    columns |= {name: _texts(codes, _CATEGORIES[kind][name]) for name, codes in made.codes.items()}
    columns |= made.flags
    columns |= _lacked(made.numbers, where, members)
    columns |= {
        "churned": drawn.churned,
        "subscribed": happens(subscribe, rng),
        "arm": _texts(arm, ARMS),
        "responded": happens(np.where(arm == 1, contacted, control), rng),
    }
    return pd.DataFrame(columns), truth


def _lacked(numbers: dict[str, Floats], where: Membership, members: tuple[Institution, ...]) -> dict[str, Floats]:
    """Empty a column for the customers of an institution that lacks it."""
    held = dict(numbers)
    for name in sorted({name for item in members for name in item.lacks}):
        lacking = np.array([name in item.lacks for item in members])[where.institution]
        held[name] = np.where(lacking, np.nan, held[name])
    return held


def _responses(made: Customers, parameters: PopulationParameters) -> tuple[Floats, Floats]:
    """Return the chance of a response without and with a contact, float64 [n] each, at the rate and the average uplift asked for."""
    if not len(made.respond):
        return made.respond, made.respond
    base = made.respond + intercept(made.respond, parameters.response)
    effect = made.persuade - made.persuade.mean()
    wanted = parameters.response + parameters.uplift

    def excess(shift: float) -> float:
        return float(expit(base + effect + shift).mean()) - wanted

    low, high = -120.0, 120.0
    if excess(low) >= 0.0:
        shift = low
    elif excess(high) <= 0.0:
        shift = high
    else:
        shift = float(brentq(excess, low, high, xtol=1e-6))
    control: Floats = expit(base)
    contacted: Floats = expit(base + effect + shift)
    return control, contacted


def _texts(codes: NDArray[np.int8] | NDArray[np.int64], names: tuple[str, ...]) -> pd.Series:
    """Return codes as text, missing where the code is -1; built by Arrow, since a million Python strings take their time."""
    values = pa.array(names, type=pa.large_string()).take(pa.array(codes, mask=codes < 0))
    return pd.Series(pd.array(values, dtype=pd.StringDtype("pyarrow", na_value=np.nan)))


def _ids(institution: NDArray[np.int64], members: tuple[Institution, ...]) -> pd.Series:
    """Number each institution's customers from 1 in order of position, with the institution's name before it."""
    order = np.argsort(institution, kind="stable")
    sizes = np.bincount(institution, minlength=len(members))
    number = np.empty(len(institution), dtype=np.int64)
    number[order] = np.arange(len(institution)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    names = pa.array([item.name for item in members], type=pa.large_string()).take(pa.array(institution))
    digits = pc.utf8_lpad(pc.cast(pa.array(number), pa.large_string()), width=_DIGITS, padding="0")
    joined = pc.binary_join_element_wise(names, digits, pa.scalar("-", pa.large_string()))
    return pd.Series(pd.array(joined, dtype=pd.StringDtype("pyarrow", na_value=np.nan)))


def _log(log: Log, table: pd.DataFrame) -> pd.DataFrame:
    day = START.to_datetime64().astype("datetime64[D]") + log.day.astype("timedelta64[D]")
    return pd.DataFrame(
        {
            "institution": table["institution"].take(log.customer).reset_index(drop=True),
            "customer": table["customer"].take(log.customer).reset_index(drop=True),
            "day": day.astype("datetime64[s]"),
            "amount": log.amount,
        }
    )
