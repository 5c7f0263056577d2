"""From public data sets to the demo's institutions: read what was fetched, and split it by institution.

Everything here is public data. Bank rows carry `position`, their row number in the original file, which is in order of
date; logs carry one row a customer and day of purchase (and category, where the log names one).
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from federation.errors import DataError
from simulations.catalogue import CATALOGUE, DataSet
from simulations.fetch import member_path, present
from simulations.sites import JOB_GROUPS, Site

SEED = 20_261
"""Seed of everything that is simulated (consent); stated wherever its result is shown."""

PROFILING = "profiling"
CONTACT = "contact"
_NEVER_CONTACTED = 999
_MONTH_GROUPS = {1: "january", 2: "february", 3: "march"}
_SCHOOLING = {
    "basic.4y": "primary",
    "basic.6y": "primary",
    "basic.9y": "primary",
    "illiterate": "primary",
    "high.school": "secondary",
    "professional.course": "secondary",
    "university.degree": "tertiary",
}


def fetched(cache: Path, name: str) -> dict[str, Path]:
    """Return the files of a fetched data set, by file name, after checking their digests.

    Raises
    ------
    DataError
        CSL-M110 when the set is not in the cache, or not whole.
    """
    data_set = _named(name)
    if not present(cache, data_set):
        raise DataError(
            "CSL-M110", f"The data set {name} is not in {cache}, or not whole.", "Run `consilience data fetch`."
        )
    return {member.name: member_path(cache, data_set, member) for member in data_set.members}


def _named(name: str) -> DataSet:
    return next(item for item in CATALOGUE if item.name == name)


def bank_full(cache: Path) -> pd.DataFrame:
    """Return the UCI bank set: contract columns, `subscribed` (0/1), `position` and `group`; `duration` is never read.

    Unknown categories and "never contacted before" (-1 days) are missing values, as a bank's own table would have them.
    """
    path = fetched(cache, "bank_full")["bank_full.csv.gz"]
    frame = pd.read_csv(path, sep=";", usecols=lambda column: column != "duration")
    return _bank(frame, never=-1)


def bank_additional(data: Path) -> pd.DataFrame:
    """Return the 2014 set (`bank-additional-full.csv` in the folder `data`) in the same shape; it has no `balance` and no `day`.

    Raises
    ------
    DataError
        CSL-M111 when the file is not there.
    """
    path = _given(data, "bank-additional-full.csv")
    columns = [
        "age",
        "job",
        "marital",
        "education",
        "default",
        "housing",
        "loan",
        "contact",
        "month",
        "campaign",
        "pdays",
        "previous",
    ]
    frame = pd.read_csv(path, sep=";", usecols=[*columns, "poutcome", "y"])
    frame["education"] = frame["education"].map(_SCHOOLING)
    frame["poutcome"] = frame["poutcome"].where(frame["poutcome"] != "nonexistent")
    return _bank(frame, never=_NEVER_CONTACTED)


def _bank(frame: pd.DataFrame, *, never: int) -> pd.DataFrame:
    result = frame.rename(columns={"y": "subscribed"})
    result["group"] = result["job"].map(JOB_GROUPS)
    result["pdays"] = result["pdays"].astype("Float64").where(result["pdays"] != never)
    for name in ("job", "marital", "education", "contact", "poutcome"):
        result[name] = result[name].where(result[name] != "unknown")
    for name in ("default", "housing", "loan", "subscribed"):
        result[name] = result[name].map({"yes": 1, "no": 0}).astype("Int64")
    result["position"] = np.arange(len(result), dtype=np.int64)
    return result


def churn_modelling(data: Path) -> pd.DataFrame:
    """Return `Churn_Modelling.csv`, a teaching set that is probably synthetic, without names; `group` is the country.

    Raises
    ------
    DataError
        CSL-M111 when the file is not there.
    """
    frame = pd.read_csv(
        _given(data, "Churn_Modelling.csv"), sep=";", usecols=lambda name: name not in ("RowNumber", "Surname")
    )
    names = (
        "customer",
        "credit_score",
        "country",
        "gender",
        "age",
        "tenure",
        "balance",
        "products",
        "card",
        "active",
        "salary",
        "exited",
    )
    frame = frame.set_axis(names, axis="columns")
    frame["group"] = frame["country"].str.lower()
    return frame


def cdnow(cache: Path) -> pd.DataFrame:
    """Return CDNOW's purchases: `customer`, `day`, `amount` (dollars) and `group`, the month of the customer's first purchase."""
    path = fetched(cache, "cdnow")["cdnow_master.txt"]
    raw = pd.read_csv(path, sep=r"\s+", dtype={"customer_id": str, "date": str})
    log = pd.DataFrame(
        {
            "customer": raw["customer_id"],
            "day": pd.to_datetime(raw["date"], format="%Y%m%d"),
            "amount": raw["dollar_value"],
        }
    )
    first = log.groupby("customer")["day"].transform("min").dt.month
    log["group"] = first.map(_MONTH_GROUPS)
    return log


def complete_journey(cache: Path) -> pd.DataFrame:
    """Return the grocery purchases: `customer`, `day`, `amount` (dollars), `category` (department) and `group`, one row an item line."""
    files = fetched(cache, "complete_journey")
    raw = pd.read_parquet(
        files["transactions.parquet"], columns=["household_id", "product_id", "sales_value", "transaction_timestamp"]
    )
    products = pd.read_parquet(files["products.parquet"], columns=["product_id", "department"]).drop_duplicates(
        "product_id"
    )
    department = raw["product_id"].map(products.set_index("product_id")["department"])
    return pd.DataFrame(
        {
            "customer": raw["household_id"].astype(str),
            "day": raw["transaction_timestamp"].dt.normalize(),
            "amount": raw["sales_value"],
            "category": department,
            "group": "grocery",
        }
    )


def online_retail(data: Path) -> pd.DataFrame:
    """Return Online Retail II's invoices: `customer`, `day`, `amount` (pounds) and `group`, the country in four parts.

    The first nine days of December 2010 stand in both sheets; those of the sheet 2009-2010 are dropped. Credit notes
    and lines without a customer are dropped.

    Raises
    ------
    DataError
        CSL-M111 when the file is not there.
    """
    raw = pd.read_parquet(_given(data, "online_retail_II_rebuilt.parquet"))
    twice = (raw["sheet"] == "2009-2010") & (raw["InvoiceDate"] >= pd.Timestamp("2010-12-01"))
    credit = raw["Invoice"].astype(str).str.startswith("C")
    raw = raw[~twice & ~credit & raw["Customer ID"].notna() & (raw["Quantity"] > 0)]
    log = pd.DataFrame(
        {
            "customer": raw["Customer ID"].astype("int64").astype(str),
            "day": raw["InvoiceDate"].dt.normalize(),
            "amount": raw["Quantity"] * raw["Price"],
        }
    )
    country = raw["Country"].groupby(log["customer"]).transform("first")
    named = {"United Kingdom": "united_kingdom", "Germany": "germany", "France": "france"}
    log["group"] = country.map(named).fillna("other")
    return log


def _given(data: Path, name: str) -> Path:
    path = data / name
    if not path.is_file():
        raise DataError(
            "CSL-M111", f"{path} is not there.", "Name the folder that holds the benchmark data with --data."
        )
    return path


def of_site(frame: pd.DataFrame, site: Site) -> pd.DataFrame:
    """Return one institution's rows of a bank set, with a `customer` id of its own, without the columns that it lacks."""
    part = frame[frame["group"] == site.group].drop(columns=["group", *site.lacks]).reset_index(drop=True)
    if "customer" not in part.columns:
        part.insert(0, "customer", [f"{site.group[:2].upper()}{number:06d}" for number in range(1, len(part) + 1)])
    return part


def consent(customers: "pd.Series[str]", site: Site, seed: int = SEED) -> pd.DataFrame:
    """Return a simulated consent table: `customer`, and whether she agreed to `profiling` and to `contact` (bool).

    Every customer agrees to profiling with probability `site.learns`, and, independently, to be contacted with
    probability `site.contacts`. Simulated: drawn from `seed` and the site's id, and so the same on every machine.
    """
    ids = np.sort(customers.unique().astype(str))
    key = int.from_bytes(hashlib.sha256(f"{seed}/consent/{site.id}".encode()).digest()[:16], "big")
    draws = np.random.default_rng(key).random((len(ids), 2))
    return pd.DataFrame({"customer": ids, PROFILING: draws[:, 0] < site.learns, CONTACT: draws[:, 1] < site.contacts})
