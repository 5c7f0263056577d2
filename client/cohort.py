"""Cohorts: the customers who take part, read through mapping, consent and contract; and their split by hold-out."""

import hmac
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client import features, tables
from client.config import Mapping, NodeConfig, Source, TableMapping
from client.consent import Excluded, agreed, attach_consent
from client.sources import Session
from client.tables import Want
from client.validation import ColumnFacts, Findings
from federation.charter import Declaration
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.errors import DataError
from federation.study import HashHoldout, Holdout

Columns = dict[str, np.ndarray[Any, Any]]
"""By contract column: numeric float64 in the contract's unit (NaN missing, not yet clipped); categorical int64 index
(-1 unknown); flag float64 0/1 (NaN missing). A column that the institution lacks is absent."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Customers in order of id: ids [n] text; columns; label [n] 0/1; position [n]; value [n], money at stake."""

    ids: NDArray[np.object_]
    columns: Columns
    label: NDArray[np.float64] | None = None
    position: NDArray[np.int64] | None = None
    value: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.ids)

    def take(self, chosen: NDArray[Any]) -> "Cohort":
        """Return the customers of an index or boolean array [n]."""
        return Cohort(
            ids=self.ids[chosen],
            columns={name: array[chosen] for name, array in self.columns.items()},
            label=None if self.label is None else self.label[chosen],
            position=None if self.position is None else self.position[chosen],
            value=None if self.value is None else self.value[chosen],
        )


def load_cohort(
    node: NodeConfig,
    contract: FeatureContract,
    declaration: Declaration,
    purpose: str,
    want: Want,
    excluded: Excluded | None = None,
) -> tuple[Cohort, Findings]:
    """Read the cohort of a study, and what was found on the way.

    Parameters
    ----------
    purpose:
        What the customers must have agreed to, by the name that node.yaml's consent gives it: to be learnt
        from, or to be contacted.
    want:
        "learn": features before the as-of date and the label after it (or the table's labelled rows). "count": the same without
        label and value, for statistics. "score": the
        newest features, without label (or the rows that the mapping names).
    excluded:
        Who withdrew (`client.withdrawal.Withdrawals.excluded`): they count as without consent, and no row of theirs is read.

    Raises
    ------
    DataError
        CSL-C1xx, with every structural fault at once; bad records are counted in the findings instead, and contribute
        nothing.
    """
    findings = Findings()
    cohort = read_cohort(node, contract, declaration, purpose, want, findings, excluded)
    return cohort, findings


def read_cohort(
    node: NodeConfig,
    contract: FeatureContract,
    declaration: Declaration,
    purpose: str,
    want: Want,
    findings: Findings,
    excluded: Excluded | None = None,
) -> Cohort:
    """Read as `load_cohort`, into `findings`, which keeps what was found before an error."""
    mapping = node.contracts.get(contract.name)
    if mapping is None:
        findings.fault("CSL-C111", contract.name, "node.yaml has no entry for it under contracts")
    elif mapping.kind != contract.source:
        findings.fault(
            "CSL-C112", contract.name, f"the mapping is of kind {mapping.kind}, the contract asks for {contract.source}"
        )
    findings.stop_on_faults()
    assert mapping is not None
    with Session(node, _sources(node, mapping, want)) as session:
        attach_consent(session, node, purpose, findings, excluded)
        if isinstance(mapping, TableMapping):
            cohort = _from_table(session, mapping, contract, want, findings)
        else:
            cohort = _from_log(session, mapping, contract, declaration, want, findings)
        if want != "score":
            findings.consented = agreed(session)
    _describe(cohort, contract, findings)
    if not len(cohort):
        findings.fault("CSL-C109", contract.name, f'no customer is left for the purpose "{purpose}"')
        findings.stop_on_faults()
    return cohort


def _sources(node: NodeConfig, mapping: Mapping, want: Want) -> list[Source]:
    source = tables.table_source(mapping, want) if isinstance(mapping, TableMapping) else mapping.source
    return [source] if node.consent is None else [source, node.consent.source]


def _from_table(
    session: Session, mapping: TableMapping, contract: FeatureContract, want: Want, findings: Findings
) -> Cohort:
    tables.check_mapping(mapping, contract, want, findings)
    source = tables.table_source(mapping, want)
    relation = session.attach("customers", source, tables.own_columns(mapping, want), findings)
    findings.stop_on_faults()
    rows = tables.read_table(session, relation, mapping, contract, want, findings)
    return Cohort(rows.ids, rows.columns, rows.label, rows.position, rows.value)


def _from_log(
    session: Session,
    mapping: Mapping,
    contract: FeatureContract,
    declaration: Declaration,
    want: Want,
    findings: Findings,
) -> Cohort:
    assert not isinstance(mapping, TableMapping)
    features.check_mapping(mapping, contract, findings)
    window = features.window_of(declaration, want)
    if window is None:
        findings.fault("CSL-C117", contract.name, "the charter must declare as_of, window_days and horizon_days")
    relation = session.attach("purchases", mapping.source, features.own_columns(mapping, contract), findings)
    features.check_time(relation, mapping, findings)
    findings.stop_on_faults()
    assert window is not None
    rows = features.read_log(session, relation, mapping, contract, window, findings)
    findings.without_consent = findings.customers - len(rows.ids)
    return Cohort(rows.ids, rows.columns, rows.label, None, rows.value)


def _describe(cohort: Cohort, contract: FeatureContract, findings: Findings) -> None:
    """Add the shares missing and clipped of each column, as a person at the institution wants to see them."""
    findings.used = len(cohort)
    for column in contract.columns:
        values = cohort.columns.get(column.name)
        if values is None or not len(values):
            findings.columns[column.name] = ColumnFacts(mapped=values is not None, missing=1.0)
        elif isinstance(column, CategoricalColumn):
            findings.columns[column.name] = ColumnFacts(mapped=True, missing=float(np.mean(values < 0)))
        else:
            clipped = 0
            if isinstance(column, NumericColumn):
                clipped = int(np.count_nonzero((values < column.low) | (values > column.high)))
                findings.note("CSL-C211", column.name, clipped)
            share = clipped / len(values) if isinstance(column, NumericColumn) else None
            findings.columns[column.name] = ColumnFacts(
                mapped=True, missing=float(np.mean(np.isnan(values))), clipped=share
            )
    if cohort.label is not None and len(cohort) and np.all(cohort.label == cohort.label[0]):
        findings.note("CSL-C212", contract.label.name, len(cohort), "there is nothing to tell apart")


def split(cohort: Cohort, holdout: Holdout, key: bytes) -> tuple[Cohort, Cohort]:
    """Return (training, held out), decided for each customer by her record alone.

    By hash: HMAC-SHA256(key, UTF-8 of the id), its first 8 bytes as a big-endian share of 2^64, is below the share held
    out. By position: the stamp is at or after the fixed position.

    Raises
    ------
    DataError
        CSL-C120 when the study holds out by position and the mapping has none.
    """
    if isinstance(holdout, HashHoldout):
        limit = int(holdout.share * 2**64)
        digests = b"".join(hmac.digest(key, identifier.encode(), "sha256")[:8] for identifier in cohort.ids)
        held = np.frombuffer(digests, dtype=">u8") < np.uint64(limit)
    elif cohort.position is None:
        raise DataError(
            "CSL-C120", "The study holds out by position and node.yaml maps none.", "Map `position` in node.yaml."
        )
    else:
        held = cohort.position >= holdout.position
    return cohort.take(~held), cohort.take(held)
