"""Small institutions on disk for the tests: tables in any kind of source, and the node.yaml that maps them."""

import csv
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from client.config import NodeConfig, load_node
from federation.charter import Declaration
from federation.contract import CategoricalColumn, Column, FeatureContract, FlagColumn, Label, NumericColumn

Row = dict[str, Any]
KINDS = ("csv", "parquet", "sql")
AS_OF = date(2024, 7, 1)
DECLARED = Declaration(contract="rfm", size=100, as_of=AS_OF, window_days=100, horizon_days=20)
FLAT = Declaration(contract="people", size=100)


def numeric(
    name: str, unit: str = "years", required: bool = True, low: float = 0.0, high: float = 100.0
) -> NumericColumn:
    return NumericColumn(
        kind="numeric", name=name, meaning=name, unit=unit, low=low, high=high, knots=(low, high), required=required
    )


def people(*more: Column) -> FeatureContract:
    """A table contract: age, job, loan, and what is added."""
    columns = (
        numeric("age"),
        CategoricalColumn(kind="categorical", name="job", meaning="Job", categories=("clerk", "cook")),
        FlagColumn(kind="flag", name="loan", meaning="Has a loan"),
        *more,
    )
    label = Label(name="bought", meaning="Bought")
    return FeatureContract(name="people", version=1, title="People", source="table", columns=columns, label=label)


def rfm(*names: str) -> FeatureContract:
    """A transaction contract with the named features."""
    columns = tuple(numeric(name, unit="any", required=name not in {"main_share", "variety"}) for name in names)
    label = Label(name="lapsed", meaning="No purchase")
    return FeatureContract(name="rfm", version=1, title="RFM", source="transactions", columns=columns, label=label)


def write_source(home: Path, kind: str, name: str, rows: list[Row]) -> Row:
    """Write rows as a source and return its part of node.yaml."""
    if kind == "csv":
        with (home / f"{name}.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter=";")
            writer.writeheader()
            writer.writerows(rows)
        return {"kind": "csv", "path": f"{name}.csv", "delimiter": ";"}
    if kind == "parquet":
        pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), home / f"{name}.parquet")
        return {"kind": "parquet", "path": f"{name}.parquet"}
    engine = sa.create_engine(f"sqlite:///{home / 'bank.db'}")
    table = sa.Table(name, sa.MetaData(), *(sa.Column(key, _sql_type(rows, key)) for key in rows[0]))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), rows)
    engine.dispose()
    return {"kind": "sql", "url": "sqlite:///bank.db", "table": name}


def _sql_type(rows: list[Row], key: str) -> Any:
    value = next((row[key] for row in rows if row[key] is not None), "")
    if isinstance(value, date):
        return sa.Date()
    return {bool: sa.Boolean(), int: sa.Integer(), float: sa.Float()}.get(type(value), sa.Text())


def write_node(home: Path, contracts: Row, consent: Row | None, **more: Any) -> NodeConfig:
    """Write node.yaml (JSON is YAML) and load it."""
    content = {"member": "north", "contracts": contracts, **more}
    if consent is not None:
        content["consent"] = consent
    (home / "node.yaml").write_text(json.dumps(content))
    return load_node(home / "node.yaml")


def consent_for(home: Path, ids: list[Any], kind: str = "parquet", **answers: str) -> Row:
    """Everybody agrees to `study` and `contact`, but for the answers given by id."""
    rows = [{"who": who, "study": answers.get(str(who), "yes"), "call": answers.get(str(who), "yes")} for who in ids]
    source = write_source(home, kind, "consent", rows)
    return {"layout": "columns", "source": source, "customer": "who", "purposes": {"study": "study", "contact": "call"}}


PEOPLE_COLUMNS = {
    "age": {"column": "AGE", "unit": "years"},
    "job": {"column": "work", "values": {"Koch": "cook"}},
    "loan": {"column": "loan"},
}


def people_node(
    home: Path,
    rows: list[Row],
    kind: str = "parquet",
    columns: Row | None = None,
    consent: Row | None = None,
    **more: Any,
) -> NodeConfig:
    """A node with one table contract over `rows` (keys: id, AGE, work, loan, y)."""
    mapping = {
        "kind": "table",
        "source": write_source(home, kind, "people", rows),
        "customer": "id",
        "columns": PEOPLE_COLUMNS if columns is None else columns,
        "label": {"column": "y", "yes": ["yes"], "no": ["no"]},
        **more,
    }
    ids = sorted({row["id"] for row in rows if row["id"] is not None})
    return write_node(home, {"people": mapping}, consent or consent_for(home, ids, kind))


def person(number: int, **changes: Any) -> Row:
    """One good row."""
    return {
        "id": f"p{number}",
        "AGE": 30.0,
        "work": "clerk",
        "loan": "no",
        "y": "yes" if number % 2 else "no",
        **changes,
    }


def purchase(who: str, days_before: int, amount: float = 10.0, channel: str | None = "web") -> Row:
    """One purchase, so many days before the as-of date (negative: after)."""
    return {"who": who, "day": AS_OF - timedelta(days=days_before), "paid": amount, "channel": channel}


def shop_node(
    home: Path, rows: list[Row], kind: str = "parquet", consent: Row | None = None, names: bool = True, **more: Any
) -> NodeConfig:
    """A node with one transaction contract over `rows` of `purchase`."""
    mapping = {
        "kind": "transactions",
        "source": write_source(home, kind, "log", rows),
        "customer": "who",
        "time": {"column": "day"},
        "amount": {"column": "paid", "unit": "euro"},
        "typical_basket": {"amount": 10.0, "unit": "euro"},
        "complete_until": (AS_OF + timedelta(days=DECLARED.horizon_days or 0)).isoformat(),
        **({"category": "channel"} if names else {}),
        **more,
    }
    ids = sorted({row["who"] for row in rows})
    return write_node(home, {"rfm": mapping}, consent or consent_for(home, ids))
