"""The results folder of a sweep: a checked file for each cell by its digest, so that nothing is computed twice or lost in silence."""

import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import JsonValue

from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write
from simulations.sweeps.document import Cell, Sweep, tree_of
from simulations.sweeps.outcome import Outcome, Row

CELLS = "cells"
DAMAGED = "damaged"
SWEEP = "sweep.yaml"
RESULTS = "results.parquet"
DATABASE = "results.duckdb"

_OURS = frozenset({CELLS, DAMAGED, SWEEP, RESULTS, DATABASE})
_CELL_FILE = re.compile(r"[0-9a-f]{64}\.parquet")
_LEFT_OVER = re.compile(r"\.(sweep\.yaml|results\.parquet|results\.duckdb|[0-9a-f]{64}\.parquet)\..*")
_META = b"consilience.cell"
_WHOLE, _PART = "overall", "institution"


@dataclass(frozen=True, eq=False)
class Stored:
    """A cell's file, read and checked.

    Attributes
    ----------
    overall, institutions:
        Names of the figures that its one row for everybody has, and those that its rows for institutions have.
    table:
        All rows: what tells the cell (`cell`, `study`, `algorithm`, `seed`, `engine`, `computed_by`, `settings`, `simulation`, `warnings`,
        `seconds_in_all`), the kind of row, and the figures.
    """

    digest: str
    overall: tuple[str, ...]
    institutions: tuple[str, ...]
    table: pa.Table

    def value(self, column: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return what all rows have in a column."""
        return self.table[column][0].as_py()


class Store:
    """The folder. Its cell files are the results; `results.parquet` and `results.duckdb` are made from them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def opened(self, sweep: Sweep) -> Iterator[None]:
        """Hold the folder for one run alone; make it, note the sweep, and remove what a run that was killed left half-written.

        Raises
        ------
        StorageError
            CSL-M234 when other things lie in it, CSL-M235 when another run is writing there, CSL-M236 when it cannot be made; CSL-F301.
        """
        self.check_folder()
        descriptor = self._hold()
        try:
            for folder in (self.root, self.root / CELLS):
                for left in [path for path in folder.iterdir() if _LEFT_OVER.fullmatch(path.name)]:
                    left.unlink(missing_ok=True)
            tree = json.loads(
                sweep.model_dump_json()
            )  # no two parts are one object, which YAML would write as an alias
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            atomic_write(self.root / SWEEP, text.encode())
            yield
        finally:
            os.close(descriptor)

    def _hold(self) -> int:
        try:
            (self.root / CELLS).mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StorageError(
                "CSL-M236", f"{self.root} cannot be made: {error.strerror}.", "Name another folder with --out."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StorageError(
                "CSL-M235",
                f"Another run is writing to {self.root}.",
                "Wait for it, or name another folder with --out.",
            ) from error
        return descriptor

    def check_folder(self) -> None:
        """Refuse a folder that holds other things than sweeps' results. Raises StorageError CSL-M234."""
        foreign = [path for path in _entries(self.root) if path.name not in _OURS]
        foreign += [path for path in _entries(self.root / CELLS) if not _CELL_FILE.fullmatch(path.name)]
        foreign = [path for path in foreign if not _LEFT_OVER.fullmatch(path.name)]
        if foreign:
            raise StorageError(
                "CSL-M234",
                f"{self.root} holds what no sweep wrote: {foreign[0].name}" + _others(len(foreign) - 1) + ".",
                "Name another folder with --out, or move those files away.",
            )

    def path(self, digest: str) -> Path:
        """Return where a cell's file is, or would be."""
        return self.root / CELLS / f"{digest}.parquet"

    def present(self) -> list[str]:
        """Return the digests of the cells that are there, whole or not, in order."""
        return sorted(path.stem for path in _entries(self.root / CELLS) if _CELL_FILE.fullmatch(path.name))

    def write(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """Write a cell's file: it is there whole, or not at all. Raises StorageError CSL-F301."""
        atomic_write(self.path(cell.digest), _encode(cell, outcome, seconds))

    def read(self, digest: str) -> Stored:
        """Read a cell's file and check it.

        Raises
        ------
        IntegrityError
            CSL-M237 when it is not what was written.
        StorageError
            CSL-M236 when it cannot be opened.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StorageError(
                "CSL-M236",
                f"{path} cannot be read: {error.strerror}.",
                "Correct its rights, or delete it, and run again.",
            ) from error
        stored = _decode(digest, content)
        if stored is None:
            raise IntegrityError(
                "CSL-M237",
                f"{path} is damaged: it is not what was written.",
                "Delete it and run the same command again, or run it with --repair: only this cell is computed again.",
            )
        return stored

    def check(self, repair: bool = False) -> tuple[list[Stored], list[str]]:
        """Read every cell that is there; return them, and the digests of damaged ones, which `repair` moves aside.

        Raises
        ------
        IntegrityError
            CSL-M237 naming the first damaged file, without `repair`.
        """
        whole, damaged = [], []
        for digest in self.present():
            try:
                whole.append(self.read(digest))
            except IntegrityError:
                if not repair:
                    raise
                self._move_aside(digest)
                damaged.append(digest)
        return whole, damaged

    def _move_aside(self, digest: str) -> None:
        folder = self.root / DAMAGED
        try:
            folder.mkdir(exist_ok=True)
            self.path(digest).replace(folder / f"{digest}.parquet")
        except OSError as error:
            raise StorageError(
                "CSL-M238",
                f"{self.path(digest)} cannot be moved aside: {error.strerror}.",
                "Correct the folder's rights, or delete the file, and run again.",
            ) from error


def _entries(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise StorageError(
            "CSL-M236", f"{folder} cannot be read: {error.strerror}.", "Name another folder with --out."
        ) from error


def _others(count: int) -> str:
    return f" and {count} more" if count else ""


def _encode(cell: Cell, outcome: Outcome, seconds: float) -> bytes:
    known: Row = {
        "cell": cell.digest,
        "study": cell.simulation.name,
        "algorithm": cell.simulation.algorithm.kind,
        "seed": cell.seed,
        "engine": cell.engine,
        "computed_by": outcome.engine,
        "settings": _json(cell.settings),
        "simulation": _json(tree_of(cell.simulation)),
        "warnings": _json(list(outcome.warnings)),
        "seconds_in_all": float(seconds),
    }
    parts = [_named(row) for row in outcome.institutions]
    rows = [{**outcome.overall, **known, "row": _WHOLE}, *({**row, **known, "row": _PART} for row in parts)]
    names = list(
        dict.fromkeys([*known, "row", "institution", *outcome.overall, *(name for row in parts for name in row)])
    )
    table = pa.table({name: column([row.get(name) for row in rows]) for name in names})
    parts_have = tuple(dict.fromkeys(name for row in parts for name in row))
    stored = Stored(cell.digest, tuple(outcome.overall), parts_have, table)
    meta = {"overall": stored.overall, "institutions": stored.institutions, "check": _check(stored)}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_META: _json(meta)}), sink, write_page_checksum=True)
    return sink.getvalue()


def _decode(digest: str, content: bytes) -> Stored | None:
    """Return what `_encode` wrote for this cell, or None where the bytes are something else."""
    try:
        table = pq.read_table(io.BytesIO(content), partitioning=None, page_checksum_verification=True)
        meta = json.loads((table.schema.metadata or {})[_META])
        stored = Stored(digest, tuple(meta["overall"]), tuple(meta["institutions"]), table)
        sound = meta["check"] == _check(stored)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    return stored if sound else None


def _named(row: Row) -> Row:
    """Return an institution's figures with its name under a name that says whose it is."""
    return {"institution" if name == "name" else name: value for name, value in row.items()}


def column(values: Sequence[JsonValue]) -> pa.Array:
    """Return values as one column: numbers, words or truth values; whatever else there is among them makes all of them JSON text."""
    kinds = {type(value) for value in values if value is not None}
    for allowed, type_ in (
        ({bool}, pa.bool_()),
        ({int}, pa.int64()),
        ({int, float}, pa.float64()),
        ({str}, pa.string()),
    ):
        if kinds <= allowed and kinds:
            return pa.array(values, type_)
    if not kinds:
        return pa.nulls(len(values), pa.float64())
    return pa.array([None if value is None else _json(value) for value in values], pa.string())


def _check(stored: Stored) -> str:
    """Return the SHA-256 of a cell's name, its figures' names and all its rows."""
    rows = stored.table.to_pylist()
    return hashlib.sha256(_json([stored.digest, stored.overall, stored.institutions, rows]).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
