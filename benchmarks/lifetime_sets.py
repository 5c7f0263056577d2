"""CDNOW as the lifetime query sees it, and the maximum likelihood of everybody's own records: shared by the parts of `lifetime.py`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.lifetime import Purchasing, Spending, log_likelihood, log_likelihood_of_mean
from federation.queries import Lifetime
from server.statistics.asking import Setting
from server.statistics.lifetime import LifetimeAsker
from simulations.datasets import cdnow
from simulations.sites import CDNOW_WINDOW

ROOT = Path(__file__).resolve().parents[1]
Floats = NDArray[np.float64]
COLUMNS = ("frequency", "recency", "tenure", "monetary")
CONTRACT = load_yaml(ROOT / "configs" / "contracts" / "rfm.yaml", FeatureContract)
SD = 16_384.0 * 5**0.5
"""Of the noise of five members' sums, in grid units."""


def asker_of(customers: int, sd: float) -> LifetimeAsker:
    """Return the asker of the lifetime query by the contract for purchases."""
    names = dict(zip(COLUMNS, COLUMNS, strict=True))
    return LifetimeAsker(Lifetime(id="worth", kind="lifetime", **names), Setting(CONTRACT, customers, sd, 0.95))


def purchase_days(cache: Path) -> pd.DataFrame:
    """Return CDNOW's purchases, one row a customer and day."""
    return cdnow(cache).groupby(["customer", "day"], as_index=False)["amount"].sum()


@dataclass(frozen=True)
class Customers:
    """Features at the cut, and days of purchase and typical purchases in the horizon after it."""

    features: pd.DataFrame
    days: Floats
    worth: Floats


def features_at(days: pd.DataFrame, cut: pd.Timestamp) -> pd.DataFrame:
    """Return the contract's features at `cut` by the days of purchase before it, one row a customer."""
    log, window = days[days["day"] < cut].groupby("customer"), CDNOW_WINDOW.window_days
    return pd.DataFrame(
        {
            "frequency": log.size().astype(float),
            "recency": (cut - log["day"].max()).dt.days / window,
            "tenure": (cut - log["day"].min()).dt.days / window,
            "monetary": log["amount"].sum() / log.size() / CDNOW_WINDOW.typical_purchase,
        }
    )


def seen(features: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Return x, t_x and T in windows."""
    tenure = features["tenure"].to_numpy()
    return features["frequency"].to_numpy() - 1.0, tenure - features["recency"].to_numpy(), tenure


def customers(cache: Path) -> Customers:
    """Return CDNOW's customers at the demo's cut."""
    cut, basket = pd.Timestamp(CDNOW_WINDOW.as_of), CDNOW_WINDOW.typical_purchase
    days = purchase_days(cache)
    features = features_at(days, cut)
    end = cut + pd.Timedelta(days=CDNOW_WINDOW.horizon_days)
    after = days[(days["day"] >= cut) & (days["day"] < end)].groupby("customer")
    bought = after.size().reindex(features.index).fillna(0.0).to_numpy(dtype=np.float64)
    spent = after["amount"].sum().reindex(features.index).fillna(0.0).to_numpy(dtype=np.float64)
    return Customers(features, bought, spent / basket)


def by_records(people: Customers) -> tuple[Purchasing, Spending]:
    """Return the maximum likelihood of everybody's own records, without privacy."""
    by_customer, frequency = seen(people.features), people.features["frequency"].to_numpy()
    mean = people.features["monetary"].to_numpy()
    paid = mean > 0

    def purchases(logs: Floats) -> float:
        return -float(np.sum(log_likelihood(Purchasing(*np.exp(logs)), *by_customer)))

    def amounts(logs: Floats) -> float:
        p, above, v = np.exp(logs)
        return -float(np.sum(log_likelihood_of_mean(Spending(p, 1 + above, v), frequency[paid], mean[paid])))

    options = {"xatol": 1e-5, "fatol": 1e-5, "maxiter": 4000}
    first = np.exp(minimize(purchases, np.log([0.5, 0.2, 1.0, 3.0]), method="Nelder-Mead", options=options).x)
    second = np.exp(minimize(amounts, np.log([2.0, 2.0, 1.0]), method="Nelder-Mead", options=options).x)
    return Purchasing(*first), Spending(second[0], 1.0 + second[1], second[2])
