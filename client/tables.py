"""Table contracts: one row a customer, mapped column by column to the contract."""

# ruff: noqa: S608 - every name and value in a query is quoted by client.sql

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from client import sql
from client.config import ColumnMapping, Source, TableMapping
from client.consent import CONSENTED
from client.sources import Relation, Session
from client.sql import MISSING, NOT_FINITE, OK, UNREADABLE, Parsed
from client.units import factor
from client.validation import Findings
from federation.contract import CategoricalColumn, Column, FeatureContract, NumericColumn

Want = Literal["learn", "count", "score"]
AnyArray = np.ndarray[Any, Any]
Arrays = dict[str, AnyArray]

_NUMBER_STATES = {UNREADABLE: "CSL-C202", NOT_FINITE: "CSL-C203"}


@dataclass(frozen=True)
class TableRows:
    """Customers of a table contract: ids [n] text, columns by contract name [n], label [n] 0/1, position, value [n]."""

    ids: NDArray[np.object_]
    columns: Arrays
    label: NDArray[np.float64] | None
    position: NDArray[np.int64] | None
    value: NDArray[np.float64] | None


def check_mapping(mapping: TableMapping, contract: FeatureContract, want: Want, findings: Findings) -> None:
    """Add every fault that shows in the mapping and the contract alone, before any data are read."""
    names = {column.name for column in contract.columns}
    for name, own in mapping.columns.items():
        if name == contract.label.name:
            findings.fault("CSL-C107", name, "the contract's label is mapped as a feature")
        elif name not in names:
            findings.fault("CSL-C104", name)
        if mapping.label is not None and own.column == mapping.label.column:
            findings.fault("CSL-C107", name, "the feature is read from the label's column")
    for column in contract.columns:
        if column.name in mapping.columns:
            _check_column(column, mapping.columns[column.name], findings)
        elif column.required:
            findings.fault("CSL-C103", column.name)
    if want == "learn" and mapping.label is None:
        findings.fault("CSL-C121", contract.label.name)
    if want == "score" and mapping.score is None:
        findings.fault("CSL-C122", "score", "say from which position on, or in which source")


def _check_column(column: Column, own: ColumnMapping, findings: Findings) -> None:
    given = own.model_fields_set - {"column", "missing"}
    if isinstance(column, NumericColumn):
        allowed = {"unit", "convert", "scale"}
        rate = factor(own.unit, column.unit, own.convert, own.scale)
        if isinstance(rate, str):
            findings.fault("CSL-C106", column.name, rate)
    elif isinstance(column, CategoricalColumn):
        allowed = {"values"}
        for target in sorted(set(own.values.values()) - set(column.categories)):
            findings.fault("CSL-C119", column.name, f'"{target}"')
    else:
        allowed = {"yes", "no"}
    for key in sorted(given - allowed):
        findings.fault("CSL-C105", column.name, f"`{key}` has no meaning for a {column.kind} column")


def table_source(mapping: TableMapping, want: Want) -> Source:
    """Return the source that holds the rows to learn from or to score."""
    second = mapping.score.source if want == "score" and mapping.score is not None else None
    return second if second is not None else mapping.source


def own_columns(mapping: TableMapping, want: Want) -> list[str]:
    """Return the institution's columns that this reading needs, and no more: without a label for scoring."""
    needed = [mapping.customer, *(own.column for own in mapping.columns.values())]
    if want == "learn" and mapping.label is not None:
        needed.append(mapping.label.column)
    if mapping.position is not None and (want == "learn" or _from_position(mapping, want) is not None):
        needed.append(mapping.position)
    if mapping.value is not None and want != "count":
        needed.append(mapping.value.column)
    return needed


def read_table(
    session: Session,
    relation: Relation,
    mapping: TableMapping,
    contract: FeatureContract,
    want: Want,
    findings: Findings,
) -> TableRows:
    """Read the consenting customers of a table; a record with a bad number, label or position contributes nothing.

    A customer with several rows contributes nothing (CSL-C108) and stops nobody else: a fault of the whole reading would
    tell the coordinator that there is one. Raises DataError for faults found until then.
    """
    customer = relation.fields[mapping.customer].text
    _count_rows(session, relation, customer, findings)
    findings.stop_on_faults()
    parsed = _expressions(relation, mapping, contract, want)
    chosen = ", ".join(f"{item.value} AS v{i}, {item.state} AS s{i}" for i, item in enumerate(parsed.values()))
    start = _from_position(mapping, want)
    where = (
        "" if start is None else f" WHERE {parsed['position'].state} = {OK} AND {parsed['position'].value} >= {start}"
    )
    inner = f"SELECT {customer} AS customer, {chosen} FROM {relation.name}{where}"
    single = f"SELECT {customer} AS customer FROM {relation.name} GROUP BY ALL HAVING count(*) = 1"
    arrays = session.arrays(
        f"SELECT * FROM ({inner}) SEMI JOIN {CONSENTED} USING (customer) SEMI JOIN ({single}) AS single USING (customer) "
        "ORDER BY customer"
    )
    values = {role: np.ma.getdata(arrays[f"v{i}"]) for i, role in enumerate(parsed)}
    states = {role: np.ma.getdata(arrays[f"s{i}"]) for i, role in enumerate(parsed)}
    ids = np.ma.getdata(arrays["customer"]).astype(object)
    return _assemble(ids, values, states, mapping, contract, findings)


def _from_position(mapping: TableMapping, want: Want) -> int | None:
    return mapping.score.from_position if want == "score" and mapping.score is not None else None


def _count_rows(session: Session, relation: Relation, customer: str, findings: Findings) -> None:
    counts = session.rows(
        "SELECT sum(n), count(customer), sum(n) FILTER (customer IS NULL), "
        "count(*) FILTER (n > 1 AND customer IS NOT NULL), "
        f"count(customer) FILTER (customer NOT IN (SELECT customer FROM {CONSENTED})) "
        f"FROM (SELECT {customer} AS customer, count(*) AS n FROM {relation.name} GROUP BY ALL)"
    )[0]
    rows, customers, nameless, twice, refused = (int(count or 0) for count in counts)
    findings.rows, findings.customers, findings.without_consent = rows, customers, refused
    findings.dropped("CSL-C201", "customer", nameless)
    findings.dropped("CSL-C108", "customer", twice, "one row a customer is asked for")


def _expressions(relation: Relation, mapping: TableMapping, contract: FeatureContract, want: Want) -> dict[str, Parsed]:
    """Return the parsers by role: `column:<contract name>`, `label`, `position`, `value`."""
    fields = relation.fields
    parsed: dict[str, Parsed] = {}
    for name, own in mapping.columns.items():
        column, field = contract.column(name), fields[own.column]
        if isinstance(column, NumericColumn):
            parsed[f"column:{name}"] = sql.number(field, own.missing)
        elif isinstance(column, CategoricalColumn):
            parsed[f"column:{name}"] = sql.category(field, own.values, column.categories, own.missing)
        else:
            parsed[f"column:{name}"] = sql.flag(field, own.yes, own.no, own.missing)
    if want == "learn" and mapping.label is not None:
        parsed["label"] = sql.flag(fields[mapping.label.column], mapping.label.yes, mapping.label.no)
    if mapping.position is not None and mapping.position in fields:
        parsed["position"] = sql.whole(fields[mapping.position])
    if mapping.value is not None and want != "count":
        parsed["value"] = sql.number(fields[mapping.value.column])
    return parsed


def _assemble(
    ids: NDArray[np.object_],
    values: Arrays,
    states: Arrays,
    mapping: TableMapping,
    contract: FeatureContract,
    findings: Findings,
) -> TableRows:
    keep = np.ones(len(ids), dtype=bool)
    columns: Arrays = {}
    for name, own in mapping.columns.items():
        role, column = f"column:{name}", contract.column(name)
        if isinstance(column, NumericColumn):
            columns[name] = _scaled(values[role], states[role], own, column.unit)
            keep &= _drop(states[role], _NUMBER_STATES, name, findings)
            continue
        code = "CSL-C207" if isinstance(column, CategoricalColumn) else "CSL-C208"
        findings.note(code, name, int(np.count_nonzero(states[role] == UNREADABLE)))
        fine = states[role] == OK
        if isinstance(column, CategoricalColumn):
            columns[name] = np.where(fine, values[role], -1).astype(np.int64)
        else:
            columns[name] = np.where(fine, values[role], np.nan).astype(np.float64)
    for role, codes in (
        ("label", {MISSING: "CSL-C209", UNREADABLE: "CSL-C205"}),
        ("position", {MISSING: "CSL-C210", UNREADABLE: "CSL-C210"}),
        ("value", _NUMBER_STATES),
    ):
        if role in states:
            keep &= _drop(states[role], codes, role, findings)
    return TableRows(
        ids=ids[keep],
        columns={name: array[keep] for name, array in columns.items()},
        label=values["label"][keep].astype(np.float64) if "label" in values else None,
        position=values["position"][keep].astype(np.int64) if "position" in values else None,
        value=values["value"][keep].astype(np.float64) if "value" in values else None,
    )


def _scaled(value: AnyArray, state: AnyArray, own: ColumnMapping, unit: str) -> NDArray[np.float64]:
    rate = factor(own.unit, unit, own.convert, own.scale)
    assert isinstance(rate, float)  # check_mapping refused anything else
    return np.where(state == OK, value, np.nan).astype(np.float64) * rate


def _drop(state: AnyArray, codes: dict[int, str], where: str, findings: Findings) -> NDArray[np.bool_]:
    for value, code in codes.items():
        findings.dropped(code, where, int(np.count_nonzero(state == value)))
    return ~np.isin(state, list(codes))
