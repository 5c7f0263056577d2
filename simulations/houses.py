"""The demo institutions' own tables: each house has its own format, column names and units, as companies do.

A house style maps contract columns to its own names; the same map goes into the institution's node configuration.
"""

import io
import os
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from federation.files import atomic_write, sync_folder
from simulations.datasets import CONTACT, PROFILING
from simulations.sites import HouseStyle

CENTS = 100

BANK_NAMES: Mapping[HouseStyle, Mapping[str, str]] = {
    "csv": {
        "customer": "client_no",
        "position": "call_number",
        "age": "age",
        "job": "profession",
        "marital": "civil_status",
        "education": "schooling",
        "default": "in_default",
        "balance": "mean_balance_eur",
        "housing": "mortgage",
        "loan": "personal_loan",
        "contact": "channel",
        "day": "call_day",
        "month": "call_month",
        "campaign": "calls_this_campaign",
        "pdays": "days_since_last_campaign",
        "previous": "calls_before",
        "poutcome": "last_result",
        "subscribed": "opened_deposit",
    },
    "parquet": {
        "customer": "customer_id",
        "position": "contact_seq",
        "age": "age_years",
        "job": "occupation",
        "marital": "family_status",
        "education": "education_level",
        "default": "has_default",
        "balance": "avg_balance_cents",
        "housing": "has_housing_loan",
        "loan": "has_consumer_loan",
        "contact": "reached_by",
        "day": "day_of_month",
        "month": "month_name",
        "campaign": "n_contacts",
        "pdays": "gap_days",
        "previous": "n_contacts_earlier",
        "poutcome": "earlier_outcome",
        "subscribed": "took_term_deposit",
    },
    "sqlite": {
        "customer": "cust",
        "position": "rowno",
        "age": "age",
        "job": "job_title_group",
        "marital": "marital_state",
        "education": "edu",
        "default": "default_flag",
        "balance": "balance",
        "housing": "home_loan",
        "loan": "other_loan",
        "contact": "phone_kind",
        "day": "dom",
        "month": "mon",
        "campaign": "calls",
        "pdays": "last_call_days",
        "previous": "prev_calls",
        "poutcome": "prev_outcome",
        "subscribed": "deposit",
    },
}

CATEGORY_NAMES: Mapping[HouseStyle, Mapping[str, Mapping[str, str]]] = {
    "csv": {"contact": {"cellular": "mobile", "telephone": "landline"}},
    "parquet": {},
    "sqlite": {"marital": {"divorced": "D", "married": "M", "single": "S"}},
}
"""Where a house spells a contract's categories in its own way: contract column -> contract category -> own spelling."""

LOG_NAMES: Mapping[HouseStyle, Mapping[str, str]] = {
    "csv": {"customer": "account", "day": "order_date", "amount": "total", "category": "category"},
    "parquet": {"customer": "shopper_id", "day": "purchased_on", "amount": "amount_cents", "category": "department"},
    "sqlite": {"customer": "customer_ref", "day": "booked", "amount": "value", "category": "category"},
}

TABLE = "records"
CONSENT = "consent"
_CENT_COLUMNS = {"balance", "amount"}
_FLAGS = ("default", "housing", "loan", "subscribed")


@dataclass(frozen=True)
class House:
    """Where an institution's own tables lie, and how they name things.

    Attributes
    ----------
    style, names:
        The format, and contract column -> its own name.
    cents:
        Contract columns that it keeps in hundredths of the contract's unit.
    data, consent:
        The files; for SQLite both are tables (`records`, `consent`) of one file.
    """

    style: HouseStyle
    names: Mapping[str, str]
    cents: frozenset[str]
    data: Path
    consent: Path


def write_house(
    folder: Path, style: HouseStyle, frame: pd.DataFrame, agreements: pd.DataFrame, names: Mapping[str, str]
) -> House:
    """Write an institution's data and consent tables in its own style, each file atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    used = {column: names[column] for column in frame.columns}
    cents = frozenset(_CENT_COLUMNS & set(used)) if style == "parquet" else frozenset()
    table = frame.copy()
    for column, spelling in CATEGORY_NAMES[style].items():
        if column in used:
            table[column] = table[column].map(spelling)
    for column in cents:
        table[column] = (table[column] * CENTS).round().astype("Int64")
    if style == "csv":
        for column in set(_FLAGS) & set(used):
            table[column] = table[column].map({1: "yes", 0: "no"})
    table = table.rename(columns=used)
    data, granted = _WRITERS[style](folder, table, agreements)
    return House(style, used, cents, data, granted)


def _write_csv(folder: Path, table: pd.DataFrame, agreements: pd.DataFrame) -> tuple[Path, Path]:
    data, granted = folder / "records.csv", folder / "consent.csv"
    answers = agreements.melt("customer", var_name="purpose", value_name="agreed").replace(
        {"agreed": {True: "yes", False: "no"}}
    )
    atomic_write(data, table.to_csv(index=False, sep=";", date_format="%Y-%m-%d").encode())
    atomic_write(granted, answers.to_csv(index=False, sep=";").encode())
    return data, granted


def _write_parquet(folder: Path, table: pd.DataFrame, agreements: pd.DataFrame) -> tuple[Path, Path]:
    paths = folder / "records.parquet", folder / "consent.parquet"
    for path, content in zip(paths, (table, agreements), strict=True):
        buffer = io.BytesIO()
        content.to_parquet(buffer, index=False)
        atomic_write(path, buffer.getvalue())
    return paths


def _write_sqlite(folder: Path, table: pd.DataFrame, agreements: pd.DataFrame) -> tuple[Path, Path]:
    path = folder / "warehouse.sqlite"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        temporary = Path(part) / path.name
        with closing(sqlite3.connect(temporary)) as connection:
            dated = table.assign(
                **{name: table[name].dt.strftime("%Y-%m-%d") for name in table.select_dtypes("datetime").columns}
            )
            dated.to_sql(TABLE, connection, index=False)
            agreements.astype({PROFILING: int, CONTACT: int}).to_sql(CONSENT, connection, index=False)
            connection.commit()
        os.replace(temporary, path)
    sync_folder(folder)
    return path, path


_WRITERS = {"csv": _write_csv, "parquet": _write_parquet, "sqlite": _write_sqlite}
