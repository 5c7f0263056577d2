"""One table and one database from all cells' files: `results.parquet` for data frames, `results.duckdb` for questions in SQL."""

import io
import json
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from federation.errors import StorageError
from federation.files import atomic_write, sync_folder
from simulations.sweeps import fields
from simulations.sweeps.store import DATABASE, RESULTS, Store, Stored

_ABOUT = (
    "cell",
    "current",
    "study",
    "algorithm",
    "seed",
    "engine",
    "computed_by",
    "settings",
    "simulation",
    "warnings",
    "seconds_in_all",
)
_SHORT = ("cell", "current", "study", "algorithm", "seed", "settings")
_JSON = frozenset({"settings", "simulation", "warnings"})


def rebuild(store: Store, current: Collection[str], varied: Iterable[str]) -> None:
    """Make `results.parquet` and `results.duckdb` anew from all cells in the folder.

    The database has a row for each cell in `cells`, and for each institution of each cell in `institutions`. `settings` names in every cell
    what this sweep, or an earlier one in the same folder, varied; `current` tells which cells this sweep asks for.

    Parameters
    ----------
    current:
        Digests of this sweep's cells.
    varied:
        Paths that this sweep varies.

    Raises
    ------
    IntegrityError
        CSL-M237 when a cell's file is damaged.
    StorageError
        CSL-M239 when the database cannot be written, CSL-F301 when the table cannot; what was there before stays.
    """
    found, _ = store.check()
    if not found:
        return
    names = list(dict.fromkeys([*varied, *(path for one in found for path in json.loads(one.value("settings")))]))
    table = pa.concat_tables([_said(one, names, one.digest in current) for one in found], promote_options="permissive")
    table = table.replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(table, sink, write_page_checksum=True)
    atomic_write(store.root / RESULTS, sink.getvalue())
    _write_database(
        store.root / DATABASE, table, _union(one.overall for one in found), _union(one.institutions for one in found)
    )


def _said(one: Stored, names: list[str], current: bool) -> pa.Table:
    """Return a cell's rows with the values of all varied fields, whichever sweep varied them."""
    tree = json.loads(one.value("simulation"))
    settings = json.dumps({name: fields.look(tree, name) for name in names})
    count = one.table.num_rows
    place = one.table.column_names.index("settings")
    table = one.table.set_column(place, "settings", pa.array([settings] * count, pa.string()))
    return table.add_column(1, "current", pa.array([current] * count, pa.bool_()))


def _union(parts: Iterable[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _write_database(path: Path, table: pa.Table, overall: list[str], institutions: list[str]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    draft = Path(name)
    draft.unlink()  # DuckDB makes its file itself
    try:
        with duckdb.connect(draft) as connection:
            connection.register("every_row", table)
            connection.execute(_query("cells", [*_ABOUT, *overall], "overall"))
            connection.execute(_query("institutions", [*_SHORT, *institutions], "institution"))
            connection.unregister("every_row")
            connection.execute("CHECKPOINT")
        with open(draft, "rb") as handle:
            os.fsync(handle.fileno())
        draft.chmod(0o644)
        draft.replace(path)
        sync_folder(path.parent)
    except (OSError, duckdb.Error) as error:
        raise StorageError(
            "CSL-M239",
            f"{path} cannot be written: {type(error).__name__}.",
            "Free space or correct the rights, and run the same command again: the cells are kept.",
        ) from error
    finally:
        for left in path.parent.glob(f"{draft.name}*"):
            left.unlink(missing_ok=True)


def _query(name: str, columns: list[str], row: str) -> str:
    """Return the statement that makes one table; figures' names are our own, and quoted all the same."""
    chosen = ", ".join(_column(column) for column in dict.fromkeys(columns))
    return f"CREATE TABLE {name} AS SELECT {chosen} FROM every_row WHERE row = '{row}' ORDER BY cell, institution"  # noqa: S608


def _column(name: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return f"CAST({quoted} AS JSON) AS {quoted}" if name in _JSON else quoted
