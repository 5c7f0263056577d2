"""Consent: which customers agreed to a purpose. Anything but a clear yes, in every row about it, is a no."""

# ruff: noqa: S608 - every name and value in a query is quoted by client.sql

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from client.config import Consent, ConsentRows, NodeConfig
from client.sources import Session
from client.sql import Field, literal
from client.validation import Findings

CONSENTED = "consented"
"""Name of the table of customers who agreed, column `customer` (text)."""

Excluded = Callable[[Sequence[str]], NDArray[np.bool_]]
"""Says for n identifiers who of them withdrew, bool [n]."""
BATCH = 10_000


def attach_consent(
    session: Session, node: NodeConfig, purpose: str, findings: Findings, excluded: Excluded | None = None
) -> None:
    """Create the table `consented` for a purpose; join with it before anything else is read.

    Whom `excluded` names is taken out of it: whatever the consent table says, no row of hers is read. No consent table, or
    a purpose that it does not know, is the fault CSL-C113: silence is not consent.
    """
    consent = node.consent
    if consent is None:
        findings.fault("CSL-C113", "consent", "node.yaml maps no consent table, so nobody has agreed to anything")
        return
    if not isinstance(consent, ConsentRows) and purpose not in consent.purposes:
        findings.fault("CSL-C113", "consent", f'node.yaml maps no consent column for the purpose "{purpose}"')
        return
    before = len(findings.of("fault"))
    relation = session.attach("consent", consent.source, _columns(consent, purpose), findings)
    if len(findings.of("fault")) > before:
        return
    customer, granted, where = _expressions(consent, purpose, relation.fields)
    session.run(
        f"CREATE TEMP TABLE {CONSENTED} AS SELECT customer FROM (SELECT {customer} AS customer, "
        f"coalesce(lower({granted}) IN ({_spellings(consent.yes)}), false) AS agreed "
        f"FROM {relation.name} WHERE {where}) "
        "WHERE customer IS NOT NULL GROUP BY customer HAVING bool_and(agreed)"
    )
    if excluded is not None:
        _take_out(session, excluded)


def _take_out(session: Session, excluded: Excluded) -> None:
    """Delete the rows of those who withdrew, by their number, so that no identifier becomes part of a statement."""
    rows = session.arrays(f"SELECT rowid AS place, customer FROM {CONSENTED}")
    places = np.ma.getdata(rows["place"])[excluded(list(np.ma.getdata(rows["customer"])))]
    for start in range(0, len(places), BATCH):
        numbers = ", ".join(str(int(place)) for place in places[start : start + BATCH])
        session.run(f"DELETE FROM {CONSENTED} WHERE rowid IN ({numbers})")


def consenting(node: NodeConfig, purpose: str, excluded: Excluded | None = None) -> frozenset[str]:
    """Return the identifiers of all customers who agreed to a purpose and did not withdraw, read from the consent table alone.

    Raises
    ------
    DataError
        CSL-C113 when no consent can be read, and the faults of its source.
    """
    findings = Findings()
    sources = [] if node.consent is None else [node.consent.source]
    with Session(node, sources) as session:
        attach_consent(session, node, purpose, findings, excluded)
        findings.stop_on_faults()
        return agreed(session)


def agreed(session: Session) -> frozenset[str]:
    """Return the identifiers in the table `consented` of this session."""
    return frozenset(str(row[0]) for row in session.rows(f"SELECT customer FROM {CONSENTED}"))


def known_customers(node: NodeConfig) -> frozenset[str]:
    """Return the identifiers of all customers in the consent table, whatever they said.

    Raises
    ------
    DataError
        CSL-C113 without a consent table, and the faults of its source.
    """
    consent, findings = node.consent, Findings()
    if consent is None:
        findings.fault("CSL-C113", "consent", "node.yaml maps no consent table")
    findings.stop_on_faults()
    assert consent is not None
    with Session(node, [consent.source]) as session:
        relation = session.attach("consent", consent.source, [consent.customer], findings)
        findings.stop_on_faults()
        customer = relation.fields[consent.customer].text
        found = session.rows(f"SELECT DISTINCT {customer} FROM {relation.name} WHERE {customer} IS NOT NULL")
    return frozenset(str(row[0]) for row in found)


def _columns(consent: Consent, purpose: str) -> list[str]:
    if isinstance(consent, ConsentRows):
        return [consent.customer, consent.purpose, consent.granted]
    return [consent.customer, consent.purposes[purpose]]


def _expressions(consent: Consent, purpose: str, fields: dict[str, Field]) -> tuple[str, str, str]:
    customer = fields[consent.customer].text
    if isinstance(consent, ConsentRows):
        own = consent.names.get(purpose, purpose)
        return customer, fields[consent.granted].text, f"{fields[consent.purpose].text} = {literal(own)}"
    return customer, fields[consent.purposes[purpose]].text, "true"


def _spellings(yes: tuple[str, ...]) -> str:
    return ", ".join(literal(text.lower()) for text in yes) or "NULL"
