"""Transaction contracts: features from the purchases before the cut, the label from those after it.

Two views over one cleaned log part the time: `observed` is [cut - window, cut), `outcome` is [cut, cut + horizon). The
feature query reads the first alone and the label query the second alone, so that nothing can leak across.
"""

# ruff: noqa: S608 - every name and value in a query is quoted by client.sql

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client import sql
from client.config import TransactionMapping
from client.consent import CONSENTED
from client.rfm_sql import FORMULAS, feature_query
from client.sources import Relation, Session
from client.sql import MISSING, NOT_FINITE, OK, UNREADABLE, Parsed
from client.tables import Arrays, Want
from client.units import factor
from client.validation import Findings
from federation.charter import Declaration
from federation.contract import FeatureContract, NumericColumn


@dataclass(frozen=True)
class Window:
    """Days of one reading: features from [start, cut), label from [cut, end); without a label, end is cut."""

    start: date
    cut: date
    end: date
    horizon_days: int

    @property
    def days(self) -> int:
        """Length of the observation window."""
        return (self.cut - self.start).days


@dataclass(frozen=True)
class LogRows:
    """Customers of a transaction contract: ids [n] text, columns by contract name [n], label [n] 0/1, value [n]."""

    ids: NDArray[np.object_]
    columns: Arrays
    label: NDArray[np.float64] | None
    value: NDArray[np.float64] | None


def window_of(declaration: Declaration, want: Want) -> Window | None:
    """Return the days to read: the declared ones to learn (or, without a label, to count), the newest to score; None if undeclared."""
    if declaration.as_of is None or declaration.window_days is None or declaration.horizon_days is None:
        return None
    reach = timedelta(days=declaration.horizon_days)
    length = timedelta(days=declaration.window_days)
    if want == "learn":
        return Window(
            declaration.as_of - length, declaration.as_of, declaration.as_of + reach, declaration.horizon_days
        )
    if want == "count":
        return Window(declaration.as_of - length, declaration.as_of, declaration.as_of, declaration.horizon_days)
    cut = declaration.as_of + reach
    return Window(cut - length, cut, cut, declaration.horizon_days)


def check_mapping(mapping: TransactionMapping, contract: FeatureContract, findings: Findings) -> None:
    """Add every fault that shows in the mapping and the contract alone, before any data are read."""
    for column in contract.columns:
        formula = FORMULAS.get(column.name)
        if formula is None or not isinstance(column, NumericColumn):
            findings.fault("CSL-C116", column.name, f"known are: {', '.join(FORMULAS)}")
        elif formula.relation == "shares" and mapping.category is None and column.required:
            findings.fault("CSL-C103", column.name, "it needs the category column")
    rate = factor(mapping.amount.unit, mapping.typical_basket.unit, mapping.amount.convert, mapping.amount.scale)
    if isinstance(rate, str):
        findings.fault("CSL-C106", "amount", rate.replace("the contract asks for", "typical_basket is in"))


def own_columns(mapping: TransactionMapping, contract: FeatureContract) -> list[str]:
    """Return the institution's columns that this reading needs, and no more."""
    needed = [mapping.customer, mapping.time.column, mapping.amount.column]
    used = [FORMULAS[column.name].relation for column in contract.columns if column.name in FORMULAS]
    return [*needed, mapping.category] if mapping.category is not None and "shares" in used else needed


def check_time(relation: Relation, mapping: TransactionMapping, findings: Findings) -> None:
    """Add the fault CSL-C118 when the time column holds bare numbers and the mapping gives no format for them."""
    field = relation.fields.get(mapping.time.column)
    if (
        field is not None
        and mapping.time.format is None
        and not field.type.startswith(("DATE", "TIMESTAMP", "VARCHAR"))
    ):
        findings.fault(
            "CSL-C118", "time", f'column "{mapping.time.column}" holds {field.type}: state its format, such as %Y%m%d'
        )


def read_log(
    session: Session,
    relation: Relation,
    mapping: TransactionMapping,
    contract: FeatureContract,
    window: Window,
    findings: Findings,
) -> LogRows:
    """Compute the features of consenting customers with a purchase in the window; ids in order.

    A log that is declared to end before the label is known is the fault CSL-C110; one that seems to, a note. Raises
    DataError for faults found until then.
    """
    when = sql.calendar_day(relation.fields[mapping.time.column], mapping.time.format)
    amount = sql.number(relation.fields[mapping.amount.column])
    customer = relation.fields[mapping.customer].text
    _count_rows(session, relation, customer, when, amount, mapping, window, findings)
    findings.stop_on_faults()
    category = relation.fields[mapping.category].text if mapping.category in relation.fields else "NULL::VARCHAR"
    rate = factor(mapping.amount.unit, mapping.typical_basket.unit, mapping.amount.convert, mapping.amount.scale)
    session.run(
        f"CREATE TEMP TABLE log AS SELECT * FROM (SELECT {customer} AS customer, {when.value} AS day, "
        f"{amount.value} * {rate!r}::DOUBLE AS amount, {category} AS category FROM {relation.name} "
        f"WHERE {_is_purchase(when, amount)}) AS purchase SEMI JOIN {CONSENTED} USING (customer) "
        f"WHERE day >= {sql.day(window.start)} AND day < {sql.day(window.end)}"
    )
    for view, low, high in (("observed", window.start, window.cut), ("outcome", window.cut, window.end)):
        session.run(
            f"CREATE TEMP VIEW {view} AS SELECT * FROM log WHERE day >= {sql.day(low)} AND day < {sql.day(high)}"
        )
    names = [
        column.name
        for column in contract.columns
        if FORMULAS[column.name].relation == "days" or mapping.category is not None
    ]
    query = feature_query(names, window.cut, window.days, mapping.typical_basket.amount)
    session.run(f"CREATE TEMP TABLE features AS {query}")
    session.run("CREATE TEMP TABLE buyers AS SELECT DISTINCT customer, true AS bought FROM outcome")
    arrays = session.arrays("SELECT * FROM features LEFT JOIN buyers USING (customer) ORDER BY customer")
    return _rows(arrays, names, mapping, window)


def _rows(arrays: Arrays, names: list[str], mapping: TransactionMapping, window: Window) -> LogRows:
    def floats(name: str) -> NDArray[np.float64]:
        return np.ma.filled(np.ma.asarray(arrays[name], dtype=np.float64), np.nan)

    bought = ~np.ma.getmaskarray(np.ma.asarray(arrays["bought"]))
    return LogRows(
        ids=np.ma.getdata(arrays["customer"]).astype(object),
        columns={name: floats(name) for name in names},
        label=np.where(bought, 0.0, 1.0) if window.end > window.cut else None,
        value=floats("total_spent") * (window.horizon_days / window.days) if mapping.value == "spend" else None,
    )


def _is_purchase(when: Parsed, amount: Parsed) -> str:
    return f"{when.state} = {OK} AND {amount.state} = {OK} AND {amount.value} >= 0"


def _count_rows(
    session: Session,
    relation: Relation,
    customer: str,
    when: Parsed,
    amount: Parsed,
    mapping: TransactionMapping,
    window: Window,
    findings: Findings,
) -> None:
    """Count rows, bad records and customers in one scan; a row is counted under the first thing wrong with it."""
    purchase = "who IS NOT NULL AND dated = 0 AND counted = 0 AND value >= 0"
    inside = f"{purchase} AND day >= {sql.day(window.start)} AND day < {sql.day(window.cut)}"
    found: list[Any] = list(
        session.rows(
            f"SELECT count(*), count(*) FILTER (who IS NULL), "
            f"count(*) FILTER (who IS NOT NULL AND dated <> {OK}), "
            f"count(*) FILTER (who IS NOT NULL AND dated = {OK} AND counted IN ({MISSING}, {UNREADABLE})), "
            f"count(*) FILTER (who IS NOT NULL AND dated = {OK} AND counted = {NOT_FINITE}), "
            f"count(*) FILTER (who IS NOT NULL AND dated = {OK} AND counted = {OK} AND value < 0), "
            f"count(DISTINCT who) FILTER ({inside}), max(day) FILTER ({purchase}) "
            f"FROM (SELECT {customer} AS who, {when.value} AS day, {when.state} AS dated, "
            f"{amount.value} AS value, {amount.state} AS counted FROM {relation.name})"
        )[0]
    )
    findings.rows, findings.customers = int(found[0]), int(found[6])
    for code, where, count in zip(
        ("CSL-C201", "CSL-C204", "CSL-C202", "CSL-C203", "CSL-C206"),
        ("customer", "time", "amount", "amount", "amount"),
        found[1:6],
        strict=True,
    ):
        findings.dropped(code, where, int(count))
    _check_end(mapping, window, found[7], findings)


def _check_end(mapping: TransactionMapping, window: Window, last: date | None, findings: Findings) -> None:
    """The label is known once the log is complete to the horizon's end; only the declared date may stop the reading.

    The last purchase in the log may be one customer's: were the reading stopped or not by her, everybody would see it.
    """
    needed = f"the log must be complete until {window.end.isoformat()}"
    if mapping.complete_until is not None:
        if mapping.complete_until < window.end:
            findings.fault("CSL-C110", "time", needed)
    elif last is not None and last + timedelta(days=1) < window.end:
        missing = (window.end - last).days - 1
        findings.note("CSL-C110", "time", missing, f"quiet days at the end; {needed}: if it is, set complete_until")
