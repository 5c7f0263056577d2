"""Consent: a clear yes in every row about the purpose, or the customer never enters."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.cohort import load_cohort
from client.config import NodeConfig
from federation.errors import DataError
from tests.client.node_files import (
    DECLARED,
    FLAT,
    KINDS,
    Row,
    people,
    people_node,
    person,
    purchase,
    rfm,
    shop_node,
    write_source,
)


def columns_consent(home: Path, rows: list[Row], kind: str = "parquet", **more: object) -> Row:
    source = write_source(home, kind, "agreed", rows)
    return {"layout": "columns", "source": source, "customer": "who", "purposes": {"study": "study"}, **more}


def ids(node: NodeConfig, purpose: str = "study") -> list[str]:
    return list(load_cohort(node, people(), FLAT, purpose, "learn")[0].ids)


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_clear_yes_counts(tmp_path: Path, kind: str) -> None:
    answers = ["yes", "YES", " true ", "1", "no", "", None, "maybe", "withdrawn"]
    rows = [{"who": f"p{number}", "study": answer} for number, answer in enumerate(answers)]
    people_rows = [person(number) for number in range(len(answers) + 1)]  # the last one is in no consent table
    node = people_node(tmp_path, people_rows, kind, consent=columns_consent(tmp_path, rows, kind))
    cohort, findings = load_cohort(node, people(), FLAT, "study", "learn")
    assert list(cohort.ids) == ["p0", "p1", "p2", "p3"]
    assert (findings.customers, findings.without_consent, findings.used) == (10, 6, 4)


def test_contradicting_rows_are_no_consent(tmp_path: Path) -> None:
    rows: list[Row] = [{"who": "p1", "study": "yes"}, {"who": "p1", "study": "no"}, {"who": "p2", "study": "yes"}]
    rows += [{"who": "p2", "study": "yes"}, {"who": "p3", "study": "yes"}, {"who": "p3", "study": None}]
    node = people_node(tmp_path, [person(n) for n in (1, 2, 3)], consent=columns_consent(tmp_path, rows))
    assert ids(node) == ["p2"]


def test_rows_layout_takes_the_purpose_by_the_institutions_own_name(tmp_path: Path) -> None:
    rows = [
        {"who": "p1", "what": "MKT", "ok": "J"},
        {"who": "p2", "what": "OTHER", "ok": "J"},
        {"who": "p3", "what": "MKT", "ok": "N"},
        {"who": "p4", "what": "MKT", "ok": "J"},
        {"who": "p4", "what": "OTHER", "ok": "N"},
    ]
    consent = {
        "layout": "rows",
        "source": write_source(tmp_path, "parquet", "agreed", rows),
        "customer": "who",
        "purpose": "what",
        "granted": "ok",
        "names": {"study": "MKT"},
        "yes": ["j"],
    }
    assert ids(people_node(tmp_path, [person(n) for n in range(1, 5)], consent=consent)) == ["p1", "p4"]


def test_identifiers_agree_across_types(tmp_path: Path) -> None:
    """A number in one table is the text of that number in another, also where missing values made it a fraction."""
    rows = [{"who": "1", "study": "yes"}, {"who": "2", "study": "yes"}, {"who": "03", "study": "yes"}]
    numbered = [person(0, id=1.0), person(1, id=2.0), person(2, id=3.0)]
    node = people_node(tmp_path, numbered, consent=columns_consent(tmp_path, rows))
    assert ids(node) == ["1", "2"]


def test_no_table_and_unknown_purposes_are_refused(tmp_path: Path) -> None:
    node = people_node(tmp_path, [person(1)])
    with pytest.raises(DataError, match="CSL-C113"):
        load_cohort(node, people(), FLAT, "other", "learn")
    with pytest.raises(DataError, match="CSL-C113"):
        load_cohort(node.model_copy(update={"consent": None}).at(tmp_path), people(), FLAT, "study", "learn")


def test_scoring_asks_for_contact_whatever_the_study(tmp_path: Path) -> None:
    rows = [{"who": "p1", "study": "yes", "call": "no"}, {"who": "p2", "study": "no", "call": "yes"}]
    consent = columns_consent(tmp_path, rows) | {"purposes": {"study": "study", "contact": "call"}}
    node = people_node(
        tmp_path, [person(1, at=5), person(2, at=5)], consent=consent, position="at", score={"from_position": 0}
    )
    assert ids(node) == ["p1"]
    assert list(load_cohort(node, people(), FLAT, "contact", "score")[0].ids) == ["p2"]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["yes", "no", "", "yes "])), min_size=1, max_size=12))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_customer_without_consent_never_enters_a_log(tmp_path: Path, answers: list[tuple[int, str]]) -> None:
    (tmp_path / "node.yaml").unlink(missing_ok=True)
    rows = [{"who": f"p{who}", "study": answer} for who, answer in answers]
    agreed = {who for who, _ in answers if all(a.strip() == "yes" for w, a in answers if w == who)} | {9}
    rows.append({"who": "p9", "study": "yes"})
    log = [purchase(f"p{who}", 10 + who) for who in (*range(5), 9)]
    node = shop_node(tmp_path, log, consent=columns_consent(tmp_path, rows))
    cohort, findings = load_cohort(node, rfm("recency"), DECLARED, "study", "learn")
    assert set(cohort.ids) == {f"p{who}" for who in agreed}
    assert findings.without_consent == 6 - len(agreed)
