"""The public sets that the population is held against; read where they are, never copied."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import betaln, gammaln

from federation.errors import DataError
from simulations import datasets
from simulations.population.facts import FACTS, SOURCES, Source
from simulations.population.traits import Floats


def public_table(source: Source, cache: Path, data: Path) -> pd.DataFrame:
    """Read one public set as its facts read it: a table of customers, or a log of purchases.

    Parameters
    ----------
    cache, data:
        The folder of fetched sets, as `consilience data fetch` fills it, and the folder of those that no package holds.

    Raises
    ------
    DataError
        CSL-M110 or CSL-M111 when the set is not there.
    """
    if source == "bank_full":
        return datasets.bank_full(cache).rename(columns={"poutcome": "earlier"})
    if source == "cdnow":
        return datasets.cdnow(cache)
    if source == "online_retail":
        return datasets.online_retail(data)
    path = data / "hillstrom.csv"
    if not path.is_file():
        raise DataError(
            "CSL-M111", f"{path} is not there.", "Name the folder that holds the benchmark data with --data."
        )
    raw = pd.read_csv(path, usecols=["segment", "visit"])
    arm = np.where(raw["segment"] == "No E-Mail", "control", "contacted")
    return pd.DataFrame({"arm": arm, "responded": raw["visit"]})


def recompute(cache: Path, data: Path) -> Mapping[str, float]:
    """Compute every fact anew from the public sets, by name of the fact; raises as `public_table`."""
    tables = {source: public_table(source, cache, data) for source in SOURCES}
    return {fact.name: fact.measure(tables[fact.source]) for fact in FACTS}


def fit_rhythm(log: pd.DataFrame, end: pd.Timestamp) -> Floats:
    """Fit the purchase process to a log observed until `end`: r, alpha, a, b by maximum likelihood, in weeks, float64 [4].

    The likelihood is equation 6 of Fader, Hardie and Lee 2005, with days of purchase for purchases.
    """
    days = log.drop_duplicates(["customer", "day"]).groupby("customer")["day"].agg(["min", "max", "size"])
    repeats = days["size"].to_numpy(dtype=np.float64) - 1.0
    last = (days["max"] - days["min"]).dt.days.to_numpy() / 7.0
    whole = (end - days["min"]).dt.days.to_numpy() / 7.0

    def loss(logs: Floats) -> float:
        r, alpha, a, b = np.exp(logs)
        base = gammaln(r + repeats) - gammaln(r) + r * np.log(alpha)
        stays = betaln(a, b + repeats) - betaln(a, b) - (r + repeats) * np.log(alpha + whole)
        some = np.maximum(repeats, 1.0)
        left = betaln(a + 1.0, b + some - 1.0) - betaln(a, b) - (r + repeats) * np.log(alpha + last)
        return -float((base + np.logaddexp(stays, np.where(repeats > 0.0, left, -np.inf))).sum())

    found = minimize(loss, np.log([0.3, 6.0, 0.5, 2.0]), method="Nelder-Mead", options={"maxiter": 2000})
    fitted: Floats = np.exp(found.x)
    return fitted
