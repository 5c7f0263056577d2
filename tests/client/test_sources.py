"""Sources: one conformance suite for every kind; least data; a private spill folder; no values in any error."""

import json
import os
import stat
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from client.config import NodeConfig, Source
from client.sources import Session
from client.validation import Findings
from federation.errors import DataError, StorageError
from tests.client.node_files import KINDS, Row, people_node, person, write_node, write_source

CANARY = "CANARY-4711"


def place(home: Path) -> NodeConfig:
    mapping = {
        "kind": "table",
        "source": {"kind": "csv", "path": "unused.csv"},
        "customer": "id",
        "columns": {"age": {"column": "AGE"}},
    }
    return write_node(home, {"people": mapping}, None, memory_mb=128)


def parsed(source: Row) -> Source:
    return TypeAdapter(Source).validate_json(json.dumps(source))


def read(home: Path, source: Row, columns: list[str]) -> tuple[list[tuple[Any, ...]], Findings]:
    """Read the columns as the text that the mapping sees."""
    findings = Findings()
    ready = parsed(source)
    with Session(place(home), [ready]) as session:
        relation = session.attach("it", ready, columns, findings)
        if findings.of("fault"):
            return [], findings
        chosen = ", ".join(relation.fields[own].text for own in columns)
        return session.rows(f"SELECT {chosen} FROM it ORDER BY ALL"), findings


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_yields_the_same_text(tmp_path: Path, kind: str) -> None:
    rows: list[Row] = [
        {"id": 7, "AGE": 30.5, "who": " Ann ", "when": date(2024, 2, 29), "far": 2.0},
        {"id": 8, "AGE": None, "who": None, "when": None, "far": -1.0},
    ]
    found, findings = read(tmp_path, write_source(tmp_path, kind, "t", rows), ["id", "AGE", "who", "when", "far"])
    assert not findings.items
    assert [row[:4] for row in found] == [("7", "30.5", "Ann", "2024-02-29"), ("8", None, None, None)]
    assert [float(row[4]) for row in found] == [2.0, -1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_columns_are_named_together(tmp_path: Path, kind: str) -> None:
    source = write_source(tmp_path, kind, "t", [{"id": "1", "AGE": "2"}])
    _, findings = read(tmp_path, source, ["id", "b", "a"])
    assert [(item.code, item.detail) for item in findings.items] == [
        ("CSL-C102", 'no column "b"'),
        ("CSL-C102", 'no column "a"'),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ['x"; DROP TABLE it; --', "it's", "sp ace", "select", "a;b", "größe", "c0"])
def test_hostile_column_names_are_only_names(tmp_path: Path, kind: str, name: str) -> None:
    if kind == "csv" and ";" in name:
        pytest.skip("the delimiter of this file")
    found, findings = read(tmp_path, write_source(tmp_path, kind, "t", [{"id": "1", name: "v"}]), ["id", name])
    assert (found, findings.items) == ([("1", "v")], [])


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_column_name_reads_its_own_column(tmp_path: Path, name: str) -> None:
    source = write_source(tmp_path, "parquet", "t", [{"other": "wrong", name + "_": "right"}])
    assert read(tmp_path, source, [name + "_"])[0] == [("right",)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_mapped_columns_are_read(tmp_path: Path, kind: str) -> None:
    """Least data: the view holds the mapped columns and no way to name another one."""
    source = parsed(write_source(tmp_path, kind, "t", [{"id": "1", "AGE": "2", "secret": CANARY}]))
    with Session(place(tmp_path), [source]) as session:
        session.attach("it", source, ["id", "AGE"], Findings())
        assert len(session.rows("SELECT * FROM it")[0]) == 2
        assert CANARY not in str(session.rows("SELECT * FROM it"))


def test_sql_statements_name_mapped_columns_only(tmp_path: Path) -> None:
    source = parsed(write_source(tmp_path, "sql", "t", [{"id": "1", "AGE": "2", "secret": CANARY}]))
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        with Session(place(tmp_path), [source]) as session:
            session.attach("it", source, ["id", "AGE"], Findings())
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    selects = [text for text in statements if text.lstrip().upper().startswith("SELECT") and '"t"' in text]
    assert selects
    assert not any("secret" in text or "*" in text for text in selects)


def test_files_that_are_not_there_and_patterns(tmp_path: Path) -> None:
    for source in ({"kind": "csv", "path": "no.csv"}, {"kind": "parquet", "path": "*.parquet"}):
        assert [item.code for item in read(tmp_path, source, ["id"])[1].items] == ["CSL-C101"]


@pytest.mark.parametrize("url", ["sqlite:///missing.db", "nosuchdriver://host/db"])
def test_databases_that_cannot_be_reached(tmp_path: Path, url: str) -> None:
    _, findings = read(tmp_path, {"kind": "sql", "url": url, "table": "t"}, ["id"])
    assert [item.code for item in findings.items] == ["CSL-C115"]
    assert not (tmp_path / "missing.db").exists()


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    write_source(tmp_path, "sql", "t", [{"id": "1"}])
    _, findings = read(tmp_path, {"kind": "sql", "url": "sqlite:///bank.db", "table": "u"}, ["id"])
    assert [item.code for item in findings.items] == ["CSL-C115"]


def test_the_url_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path, "sql", "t", [{"id": "1"}])
    hidden = {"kind": "sql", "url_env": "TEST_BANK_URL", "table": "t"}
    assert [item.code for item in read(tmp_path, hidden, ["id"])[1].items] == ["CSL-C115"]
    monkeypatch.setenv("TEST_BANK_URL", source["url"])
    assert read(tmp_path, hidden, ["id"])[0] == [("1",)]


def test_the_database_is_opened_read_only(tmp_path: Path) -> None:
    source = write_source(tmp_path, "sql", "t", [{"id": "1"}])
    before = (tmp_path / "bank.db").read_bytes()
    read(tmp_path, source, ["id"])
    assert (tmp_path / "bank.db").read_bytes() == before


def test_a_damaged_csv_names_the_line_and_no_value(tmp_path: Path) -> None:
    lines = ["id;AGE", *(f"{number};1" for number in range(3000)), f'"{CANARY};2', "9;9;9;9"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"kind": "csv", "path": "t.csv", "delimiter": ";"}, ["id", "AGE"])
    assert caught.value.code == "CSL-C114"
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing " + CANARY.encode())
    with pytest.raises(DataError, match="CSL-C114") as caught:
        read(tmp_path, {"kind": "parquet", "path": "t.parquet"}, ["id"])
    assert CANARY not in str(caught.value)


def test_nested_values_are_a_wrong_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "AGE": [[1, 2]]}), tmp_path / "t.parquet")
    _, findings = read(tmp_path, {"kind": "parquet", "path": "t.parquet"}, ["id", "AGE"])
    assert [item.code for item in findings.items] == ["CSL-C118"]


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tmp").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="CSL-C002"):
        Session(place(tmp_path), [])


@pytest.mark.parametrize(
    "lines", [["title of the export", "id;AGE", "1;2"], ["id;AGE", "1;2", "1;2;3", "1;2"], ["id;AGE", "1"]]
)
def test_lines_that_do_not_fit_the_header_are_never_skipped_in_silence(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    try:
        _, findings = read(tmp_path, {"kind": "csv", "path": "t.csv", "delimiter": ";"}, ["id", "AGE"])
    except DataError as error:
        assert error.code == "CSL-C114"
    else:
        assert {item.code for item in findings.items} == {"CSL-C102"}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("id,town\n1,Zürich\n".encode(encoding))
    source = {"kind": "csv", "path": "t.csv", "encoding": encoding}
    assert read(tmp_path, source, ["id", "town"])[0] == [("1", "Zürich")]


def test_the_engine_opens_no_other_file_and_cannot_be_reconfigured(tmp_path: Path) -> None:
    source = parsed(write_source(tmp_path, "csv", "t", [{"id": "1"}]))
    (tmp_path / "other.csv").write_text("id\n2\n")
    with Session(place(tmp_path), [source]) as session:
        for query in (
            f"SELECT * FROM read_csv('{tmp_path / 'other.csv'}')",
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            "SET enable_external_access = true",
            "SET memory_limit = '99GB'",
        ):
            with pytest.raises(DataError):
                session.run(query)
    assert not (tmp_path / "out.csv").exists()


def test_spills_only_into_a_private_folder_at_home_and_leaves_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "tmp" / "spill-999999999-old"
    gone.mkdir(parents=True)
    (gone / "rows").write_text(CANARY)
    with Session(place(tmp_path), []) as session:
        session.run(
            f"CREATE TEMP TABLE big AS SELECT '{CANARY}' || hash(range)::VARCHAR AS a, hash(range) AS b FROM range(6000000)"
        )
        folders = list((tmp_path / "tmp").iterdir())
        assert len(folders) == 1
        assert stat.S_IMODE(folders[0].stat().st_mode) == 0o700
        assert f"spill-{os.getpid()}-" in folders[0].name
        spilled = [file.read_bytes() for file in folders[0].rglob("*") if file.is_file()]
        assert sum(map(len, spilled)) > 0
        assert not any(CANARY.encode() in content for content in spilled)
        assert session.rows("SELECT count(*), count(DISTINCT b) FROM big") == [(6000000, 6000000)]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_running_out_of_memory_has_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(place(tmp_path), []) as session:
        assert session._refusal(duckdb.OutOfMemoryException(CANARY)).code == "CSL-C123"


@pytest.mark.parametrize("kind", KINDS)
def test_no_extension_is_fetched(tmp_path: Path, kind: str) -> None:
    people_node(tmp_path, [person(1)], kind)
    with Session(place(tmp_path), []) as session:
        names = "autoinstall_known_extensions", "autoload_known_extensions"
        assert session.rows(f"SELECT current_setting('{names[0]}'), current_setting('{names[1]}')") == [(False, False)]
