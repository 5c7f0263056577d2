"""Bad input in a table: each fault with its own code, all at once, counts and never a value."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.cohort import Cohort, load_cohort
from client.validation import TITLES, Findings
from federation.errors import DataError
from tests.client.node_files import DECLARED, FLAT, KINDS, PEOPLE_COLUMNS, numeric, people, people_node, person, rfm

CANARY = "CANARY-4711"


def learn(home: Path, rows: list[dict[str, Any]], kind: str = "parquet", **more: Any) -> tuple[Cohort, Findings]:
    return load_cohort(people_node(home, rows, kind, **more), people(), FLAT, "study", "learn")


def faults(home: Path, rows: list[dict[str, Any]] | None = None, **more: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        learn(home, [person(1), person(2)] if rows is None else rows, **more)
    assert CANARY not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_good_rows_become_columns_of_the_contract(tmp_path: Path, kind: str) -> None:
    rows = [person(1, loan="yes", work="Koch"), person(2, AGE=None, work=None, loan=None)]
    cohort, findings = learn(tmp_path, rows, kind)
    assert list(cohort.ids) == ["p1", "p2"]
    np.testing.assert_array_equal(cohort.columns["age"], [30.0, np.nan])
    np.testing.assert_array_equal(cohort.columns["job"], [1, -1])
    np.testing.assert_array_equal(cohort.columns["loan"], [1.0, np.nan])
    assert cohort.label is not None
    assert list(cohort.label) == [1.0, 0.0]
    assert [cohort.columns[name].dtype.kind for name in ("age", "job", "loan")] == ["f", "i", "f"]
    assert not findings.items
    assert findings.columns["age"].missing == 0.5


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        ({"AGE": CANARY}, "CSL-C202", "dropped"),
        ({"AGE": "NaN"}, "CSL-C203", "dropped"),
        ({"AGE": "inf"}, "CSL-C203", "dropped"),
        ({"AGE": "-1e40"}, "CSL-C203", "dropped"),
        ({"y": CANARY}, "CSL-C205", "dropped"),
        ({"y": ""}, "CSL-C209", "dropped"),
        ({"id": " "}, "CSL-C201", "dropped"),
        ({"work": CANARY}, "CSL-C207", "note"),
        ({"loan": CANARY}, "CSL-C208", "note"),
        ({"AGE": "101"}, "CSL-C211", "note"),
    ],
)
def test_each_bad_record_has_its_code(tmp_path: Path, change: dict[str, Any], code: str, severity: str) -> None:
    rows = [person(1, AGE="30"), person(2, AGE="30"), {**person(3, AGE="30"), **change}]
    cohort, findings = learn(tmp_path, rows, "csv")
    assert [(item.code, item.severity, item.count) for item in findings.items] == [(code, severity, 1)]
    assert len(cohort) == (2 if severity == "dropped" else 3)
    assert CANARY not in " ".join(str(item) for item in findings.items)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_typed_nan_and_infinity_are_dropped_unless_declared_missing(tmp_path: Path, bad: float) -> None:
    rows = [person(1), person(2, AGE=bad)]
    cohort, findings = learn(tmp_path, rows)
    assert (list(cohort.ids), [item.code for item in findings.items]) == (["p1"], ["CSL-C203", "CSL-C212"])
    columns = {**PEOPLE_COLUMNS, "age": {"column": "AGE", "unit": "years", "missing": ["NaN", "inf", "-inf"]}}
    assert len(learn(tmp_path, rows, columns=columns)[0]) == 2


def test_minus_one_means_missing_in_every_type(tmp_path: Path) -> None:
    columns = {**PEOPLE_COLUMNS, "age": {"column": "AGE", "unit": "years", "missing": [-1]}}
    for kind, value in (("csv", "-1"), ("parquet", -1.0), ("parquet", -1)):
        cohort, findings = learn(tmp_path, [person(1, AGE=value), person(2, AGE=value)], kind, columns=columns)
        assert np.isnan(cohort.columns["age"]).all()
        assert not findings.items


@pytest.mark.parametrize("kind", KINDS)
def test_duplicate_customers(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bank.db").unlink(missing_ok=True)
    cohort, findings = learn(tmp_path, [person(1, id=CANARY), person(2, id=CANARY), person(3), person(4)], kind)
    assert list(cohort.ids) == ["p3", "p4"]
    assert ("CSL-C108", "dropped", 1) in [(item.code, item.severity, item.count) for item in findings.items]
    assert CANARY not in " ".join(str(item) for item in findings.items)


def test_an_empty_cohort(tmp_path: Path) -> None:
    assert faults(tmp_path, [person(1, y=CANARY)]).code == "CSL-C109"


def test_a_missing_required_column_and_a_missing_optional_one(tmp_path: Path) -> None:
    columns = {name: own for name, own in PEOPLE_COLUMNS.items() if name != "job"}
    assert faults(tmp_path, columns=columns).code == "CSL-C103"
    contract = people(numeric("wealth", "euro", required=False))
    cohort, findings = load_cohort(people_node(tmp_path, [person(1)]), contract, FLAT, "study", "learn")
    assert "wealth" not in cohort.columns
    assert not findings.columns["wealth"].mapped


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"height": {"column": "AGE", "unit": "cm"}}, "CSL-C104"),
        ({"age": {"column": "AGE", "unit": "months"}}, "CSL-C106"),
        ({"age": {"column": "AGE"}}, "CSL-C106"),
        ({"age": {"column": "AGE", "unit": "months", "convert": "weeks to days"}}, "CSL-C106"),
        ({"age": {"column": "AGE", "unit": "years", "values": {"a": "b"}}}, "CSL-C105"),
        ({"job": {"column": "work", "unit": "years"}}, "CSL-C105"),
        ({"loan": {"column": "loan", "values": {"a": "b"}}}, "CSL-C105"),
        ({"job": {"column": "work", "values": {"Koch": "baker"}}}, "CSL-C119"),
        ({"loan": {"column": "y"}}, "CSL-C107"),
        ({"bought": {"column": "loan"}}, "CSL-C107"),
        ({"age": {"column": "GONE", "unit": "years"}}, "CSL-C102"),
    ],
)
def test_faults_of_the_mapping(tmp_path: Path, columns: dict[str, Any], code: str) -> None:
    assert faults(tmp_path, columns={**PEOPLE_COLUMNS, **columns}).code == code


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    columns = {"age": {"column": "GONE", "unit": "months"}, "loan": {"column": "y"}, "moon": {"column": "work"}}
    error = faults(tmp_path, columns=columns)
    assert error.code == "CSL-C100"
    for code in ("CSL-C102", "CSL-C103", "CSL-C104", "CSL-C106", "CSL-C107"):
        assert code in error.cause


def test_units_are_converted(tmp_path: Path) -> None:
    for own, expected in (
        ({"unit": "months", "convert": "months to years"}, 2.5),
        ({"unit": "decades", "scale": 10.0}, 300.0),
    ):
        columns = {**PEOPLE_COLUMNS, "age": {"column": "AGE", **own}}
        assert learn(tmp_path, [person(1)], columns=columns)[0].columns["age"][0] == pytest.approx(expected)


def test_a_node_that_does_not_map_the_contract_or_maps_another_kind(tmp_path: Path) -> None:
    node = people_node(tmp_path, [person(1)])
    with pytest.raises(DataError, match="CSL-C111"):
        load_cohort(node, rfm("recency"), DECLARED, "study", "learn")
    swapped = rfm("recency").model_copy(update={"name": "people"})
    with pytest.raises(DataError, match="CSL-C112"):
        load_cohort(node, swapped, DECLARED, "study", "learn")


def test_learning_without_a_label_and_scoring_without_rows(tmp_path: Path) -> None:
    assert faults(tmp_path, label=None).code == "CSL-C121"
    with pytest.raises(DataError, match="CSL-C122"):
        load_cohort(people_node(tmp_path, [person(1)]), people(), FLAT, "contact", "score")


@pytest.mark.parametrize("stamp", ["x", "", "-1", "1.5", "1e99"])
def test_positions_are_whole_numbers(tmp_path: Path, stamp: str) -> None:
    rows = [person(1, at="5"), person(2, at="6"), person(3, at=stamp)]
    cohort, findings = learn(tmp_path, rows, "csv", position="at")
    assert [item.code for item in findings.items] == ["CSL-C210"]
    assert cohort.position is not None
    assert list(cohort.position) == [5, 6]


def test_money_at_stake_of_a_table(tmp_path: Path) -> None:
    rows = [person(1, worth=12.5), person(2, worth=np.nan), person(3, worth=7.0)]
    cohort, findings = learn(tmp_path, rows, value={"column": "worth", "unit": "euro"})
    assert [item.code for item in findings.of("dropped")] == ["CSL-C203"]
    assert cohort.value is not None
    assert list(cohort.value) == [12.5, 7.0]


def test_hostile_texts_in_the_mapping_are_only_texts(tmp_path: Path) -> None:
    evil = "x'); DROP TABLE consented; --"
    columns = {**PEOPLE_COLUMNS, "job": {"column": "work", "values": {evil: "cook"}, "missing": [evil + "2"]}}
    label = {"column": "y", "yes": [evil], "no": ["no"]}
    rows = [person(1, work=evil, y=evil), person(2, work=evil + "2", id=evil)]
    cohort, _ = learn(tmp_path, rows, columns=columns, label=label)
    assert sorted(zip(cohort.ids, cohort.columns["job"], strict=True)) == [("p1", 1), (evil, -1)]


@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12), min_size=1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_whatever_it_is_can_break_a_reading(tmp_path: Path, texts: list[str]) -> None:
    """Any text in any column is counted, dropped or unknown; what remains is finite or missing."""
    rows = [{**person(0), "id": "anchor", "AGE": "30"}]
    rows += [{"id": f"p{n}", "AGE": text, "work": text, "loan": text, "y": "no"} for n, text in enumerate(texts)]
    cohort, findings = learn(tmp_path, rows)
    assert not np.isinf(cohort.columns["age"]).any()
    assert set(np.unique(cohort.columns["job"])) <= {-1, 0, 1}
    assert len(cohort) + sum(item.count or 0 for item in findings.of("dropped")) == len(rows)


def test_the_codes_are_distinct_and_every_one_has_a_meaning() -> None:
    assert len(set(TITLES.values())) == len(TITLES)
    assert all(code.startswith(("CSL-C1", "CSL-C2")) for code in TITLES)
    manual = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    for code, title in TITLES.items():
        assert f"| {code} | {title}" in manual, code


def test_a_wrong_type_of_customer_column(tmp_path: Path) -> None:
    node = people_node(tmp_path, [person(1)])
    pq.write_table(
        pa.table({"id": [[1]], "AGE": [1.0], "work": ["a"], "loan": ["a"], "y": ["no"]}), tmp_path / "people.parquet"
    )
    with pytest.raises(DataError, match="CSL-C118"):
        load_cohort(node, people(), FLAT, "study", "learn")
