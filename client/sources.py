"""Sources: CSV, Parquet and SQL databases behind one query engine that reads mapped columns and nothing else.

The engine is DuckDB with a memory limit; what does not fit spills to a private folder in the node's home. It may open
the files of the mapping and no other path, and it cannot be reconfigured once the session is open. Errors of the
engine and of databases quote rows, so they are never passed on: the code, the place and at most a line number are.
"""

# ruff: noqa: S608 - every name and value in a query is quoted by client.sql

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import duckdb
import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from client.config import CsvSource, NodeConfig, ParquetSource, Source, SqlSource
from client.sql import Field, identifier, literal
from client.validation import Findings
from federation.errors import DataError, StorageError

BATCH = 50_000
_GLOB = re.compile(r"[*?\[\]{}]")
# The engine encrypts what it spills under a key that it draws for the session and never writes. The library it does so with
# has no secure generator (hence the second setting's name): it keeps what a crash leaves behind from being read, searched or
# restored, and is no protection from a cryptanalyst. Who needs that gives the home's tmp an encrypted disk.
_SPILL_ENCRYPTION: dict[str, str | bool | int | float | list[str]] = {
    "temp_file_encryption": True,
    "force_mbedtls_unsafe": True,
}


@dataclass(frozen=True)
class Relation:
    """A view or table inside a session: its name and a field for each own column that was asked for."""

    name: str
    fields: dict[str, Field]


class Session:
    """One reading of an institution's sources; a context manager. Everything that it held is gone when it closes."""

    def __init__(self, node: NodeConfig, sources: Sequence[Source]) -> None:
        self._home = node.home
        self._files = sorted({str(self._home / source.path) for source in sources if not isinstance(source, SqlSource)})
        self._spill = _spill_folder(self._home)
        self._engine = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{node.memory_mb}MiB",
                "threads": node.threads,
                "temp_directory": str(self._spill),
                **_SPILL_ENCRYPTION,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "preserve_insertion_order": False,
            },
        )
        paths = ", ".join(literal(path) for path in self._files)
        self._engine.execute(f"SET allowed_paths = [{paths}]")
        self._engine.execute("SET TimeZone = 'UTC'")
        self._engine.execute("SET enable_external_access = false")
        self._engine.execute("SET lock_configuration = true")

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine and remove what it spilled."""
        self._engine.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def attach(self, name: str, source: Source, columns: Sequence[str], findings: Findings) -> Relation:
        """Make the own `columns` of a source readable as relation `name`, and nothing else of it.

        A source that cannot be opened (CSL-C101, C115), a column that it lacks (C102) and a column that does not hold
        plain values (C118) are faults in `findings`; the relation then has no field for them.
        """
        wanted = list(dict.fromkeys(columns))
        if isinstance(source, SqlSource):
            return self._attach_sql(name, source, wanted, findings)
        path = self._home / source.path
        problem = _file_problem(path)
        if problem is not None:
            findings.fault("CSL-C101", source.path, problem)
            return Relation(name, {})
        reader = _reader(source, path)
        types = {str(row[0]): str(row[1]) for row in self.rows(f"DESCRIBE SELECT * FROM {reader}")}
        present = _present(source.path, wanted, types, findings)
        fields = {own: Field(f"c{index}", types[own]) for index, own in enumerate(present)}
        chosen = ", ".join(f"{identifier(own)} AS {field.alias}" for own, field in fields.items()) or "NULL"
        self.run(f"CREATE TEMP VIEW {name} AS SELECT {chosen} FROM {reader}")
        return Relation(
            name, {own: field for own, field in fields.items() if _is_plain(source.path, own, field, findings)}
        )

    def _attach_sql(self, name: str, source: SqlSource, wanted: list[str], findings: Findings) -> Relation:
        engine = None
        try:
            engine = sa.create_engine(_address(source, self._home))
            with engine.connect() as connection:
                held = sa.inspect(connection).get_columns(source.table, schema=source.namespace)
                present = _present(source.table, wanted, {str(item["name"]): "" for item in held}, findings)
                self.run(
                    f"CREATE TEMP TABLE {name} ({', '.join(f'c{i} VARCHAR' for i in range(max(1, len(present))))})"
                )
                for batch in _batches(connection, source, present):
                    self._engine.register("incoming", batch)
                    self.run(f"INSERT INTO {name} SELECT * FROM incoming")
                    self._engine.unregister("incoming")
        except (sa.exc.SQLAlchemyError, ImportError, _AddressError) as error:
            reason = str(error) if isinstance(error, _AddressError) else type(error).__name__
            findings.fault(
                "CSL-C115", source.table, f"{reason}; check the URL, the driver, the table's name and the rights"
            )
            return Relation(name, {})
        finally:
            if engine is not None:
                engine.dispose()
        return Relation(name, {own: Field(f"c{index}", "VARCHAR") for index, own in enumerate(present)})

    def run(self, query: str) -> None:
        """Execute one statement; raises as `rows`."""
        self.rows(query)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Execute one query and return its rows, few ones.

        Raises
        ------
        DataError
            CSL-C114 when a source is damaged (with the line of a CSV file), CSL-C123 when memory does not suffice.
        """
        try:
            return self._engine.execute(query).fetchall()
        except duckdb.Error as error:
            raise self._refusal(error) from None  # the engine's text quotes the row

    def arrays(self, query: str) -> dict[str, np.ndarray[Any, Any]]:
        """Execute one query and return a (masked, where NULL) array for each of its columns; raises as `rows`."""
        try:
            found = self._engine.execute(query).fetchnumpy()
        except duckdb.Error as error:
            raise self._refusal(error) from None  # the engine's text quotes the row
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}

    def _refusal(self, error: duckdb.Error) -> DataError:
        if isinstance(error, duckdb.OutOfMemoryException):
            return DataError(
                "CSL-C123",
                "The query engine ran out of memory or of disk for spilling.",
                "Raise memory_mb or free disk space.",
            )
        line = re.search(r"(?:Line|line)[: ]+(\d+)", str(error))
        place = f", near line {line.group(1)}" if line else ""
        named = [path for path in self._files if str(path) in str(error)] or self._files
        names = ", ".join(Path(path).name for path in named) or "database"
        return DataError(
            "CSL-C114",
            f"A source ({names}) cannot be read to its end{place}.",
            "Check that the file is whole and that its delimiter and encoding are as node.yaml says.",
        )


class _AddressError(Exception):
    """A database address that leads nowhere; the text is safe to show."""


def _present(where: str, wanted: list[str], types: dict[str, str], findings: Findings) -> list[str]:
    for own in wanted:
        if own not in types:
            findings.fault("CSL-C102", where, f'no column "{own}"')
    return [own for own in wanted if own in types]


def _is_plain(where: str, own: str, field: Field, findings: Findings) -> bool:
    if not field.scalar:
        findings.fault("CSL-C118", where, f'column "{own}" holds {field.type.split("(")[0]}, not plain values')
    return field.scalar


def _file_problem(path: Path) -> str | None:
    if _GLOB.search(str(path)):
        return "a path must name one file, without any of * ? [ ] { }"
    if not path.is_file():
        return "it is a folder, not a file" if path.is_dir() else "no such file"
    if not os.access(path, os.R_OK):
        return "no right to read it"
    return None


def _reader(source: CsvSource | ParquetSource, path: Path) -> str:
    if isinstance(source, ParquetSource):
        return f"read_parquet({literal(str(path))})"
    return (
        f"read_csv({literal(str(path))}, delim = {literal(source.delimiter)}, encoding = {literal(source.encoding)}, "
        "header = true, skip = 0, comment = '', all_varchar = true, quote = '\"', escape = '\"', strict_mode = true)"
    )


def _address(source: SqlSource, home: Path) -> sa.URL:
    """Return the database's URL; an SQLite file is taken relative to home and opened read-only, never created."""
    text = source.url if source.url is not None else os.environ.get(source.url_env or "")
    if not text:
        raise _AddressError(f"the environment variable {source.url_env} is not set")
    url = sa.make_url(text)
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return url
    path = home / url.database
    if not path.is_file():
        raise _AddressError("no such database file")
    return url.set(database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})


def _batches(connection: sa.Connection, source: SqlSource, columns: list[str]) -> Iterator[pa.Table]:
    """Stream the columns as text, so that a database and a CSV file with the same content are read alike."""
    if not columns:
        return
    table = sa.table(sa.quoted_name(source.table, quote=True), schema=source.namespace)
    chosen: list[sa.ColumnClause[object]] = [sa.column(sa.quoted_name(own, quote=True)) for own in columns]
    statement = sa.select(*chosen).select_from(table).execution_options(yield_per=BATCH)
    for rows in connection.execute(statement).partitions():
        yield pa.table(
            {f"c{index}": pa.array([_text(row[index]) for row in rows], pa.string()) for index in range(len(columns))}
        )


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def _spill_folder(home: Path) -> Path:
    """Make a private folder for spilling, and remove those of processes that are gone."""
    root = home / "tmp"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        for old in root.glob("spill-*-*"):
            process = old.name.split("-")[1]
            if process.isdigit() and not _alive(int(process)):
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"spill-{os.getpid()}-", dir=root))
    except OSError as error:
        raise StorageError(
            "CSL-C002", f"{root} cannot be written: {error.strerror}.", "Correct the rights of the home folder."
        ) from error


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
