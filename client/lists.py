"""Name lists at rest: Parquet, CSV and a record, each sealed under the vault's store key; opened only to be looked at.

A file's name says what is inside once it is opened: `<study>-<date>-<first 8 digits of the model's digest>.csv` is no CSV
before. Who looks at a list does so by `consilience node names` or `node export`, which note it in the ledger first.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from client.calibration import Calibration
from client.changes import Compared
from client.consent import Excluded
from client.names import Capacity, Listed, TopCustomers, WorthWhile
from client.reasons import REASONS
from client.scores import Scores
from federation.contract import Name, Text
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import IntegrityError
from federation.signing import Hex32
from privacy.sealing import read_sealed, write_sealed

KIND = "name list"
COLUMNS = (
    *("customer", "rank", "score", "decile", "expected_value", "expected_gain", "reason_1", "reason_2", "reason_3"),
    *("score_before", "decile_before", "risen", "fallen"),
)
_KINDS = {
    "rank": pa.int32(),
    "decile": pa.int8(),
    "score": pa.float64(),
    "expected_value": pa.float64(),
    "expected_gain": pa.float64(),
    "score_before": pa.float64(),
    "decile_before": pa.int8(),
}
Row = tuple[str | int | float | None, ...]
PARQUET, CSV, RECORD = ".parquet", ".csv", ".json"
SUFFIXES = (PARQUET, CSV, RECORD)
_STEM = re.compile(r"(?P<study>.+)-(?P<date>\d{4}-\d{2}-\d{2})-[0-9a-f]{8}")
# A cell that begins with one of these (also in full width, also after blanks) is a formula to a spreadsheet.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = "'"
_NOT_YET = "0" * 64


class Counts(Document):
    """What went into a name list: local only, as true counts are private. `withdrawn` were taken off it afterwards."""

    scored: int
    listed: int
    without_value: int
    quoted_in_csv: int
    withdrawn: Annotated[int, Field(ge=0)] = 0


class ListRecord(Document):
    """The sidecar of a name list: where it came from, by which rule, what changed since the scoring before (None the first time), and
    the digests of its two files once opened."""

    study: Name
    model: Hex32
    written: str
    contract: Name
    score_means: Text
    reasons: Literal["exact", "approximate (occlusion)"]
    calibration: Calibration
    capacity: Capacity
    counts: Counts
    compared: Compared | None = None
    parquet_sha256: Hex32
    csv_sha256: Hex32


@dataclass(frozen=True)
class Written:
    """The three files of a name list."""

    parquet: Path
    csv: Path
    record: Path


@dataclass(frozen=True)
class NameList:
    """A name list, opened: its lines, best first, and its files as they are exported: Parquet, and CSV (UTF-8, safe to
    open in a spreadsheet)."""

    stem: str
    record: ListRecord
    listed: tuple[Listed, ...]
    parquet: bytes
    csv: bytes

    @classmethod
    def of(cls, stem: str, record: ListRecord, listed: Sequence[Listed]) -> "NameList":
        """Encode a list's lines, and let its record say how many they are and the digests of what they give."""
        parquet, text = parquet_of(listed), csv_of(listed)
        before = record.counts
        counts = {
            "listed": len(listed),
            "withdrawn": before.listed + before.withdrawn - len(listed),
            "quoted_in_csv": sum(safe_cell(line.customer) != line.customer for line in listed),
        }
        fitting = record.model_copy(
            update={
                "counts": before.model_copy(update=counts),
                "parquet_sha256": sha256_hex(parquet),
                "csv_sha256": sha256_hex(text),
            }
        )
        return cls(stem, fitting, tuple(listed), parquet, text)

    @property
    def fits(self) -> bool:
        """Whether the record is that of the two files."""
        found = (sha256_hex(self.parquet), sha256_hex(self.csv))
        return found == (self.record.parquet_sha256, self.record.csv_sha256)

    def without(self, excluded: Excluded | None) -> "NameList":
        """Return the list without those who withdrew; the others keep their rank."""
        if excluded is None or not self.listed:
            return self
        gone = excluded([line.customer for line in self.listed])
        kept = tuple(line for line, out in zip(self.listed, gone, strict=True) if not out)
        return self if len(kept) == len(self.listed) else NameList.of(self.stem, self.record, kept)


def write_list(
    folder: Path,
    listed: Sequence[Listed],
    scores: Scores,
    *,
    store_key: bytes,
    study: str,
    model_digest: str,
    when: datetime,
    capacity: TopCustomers | WorthWhile,
    calibration: Calibration,
    compared: Compared | None = None,
) -> Written:
    """Seal and write a name list as Parquet and CSV with its record: each whole or not at all, readable by its owner only.

    Files are called `<study>-<date>-<first 8 digits of the model's digest>`; the same again replaces them. The record
    is written last and holds the digests of the other two, so a list whose record does not fit was interrupted.

    Raises
    ------
    StorageError
        CSL-F301 when a file cannot be written.
    """
    value = scores.cohort.value
    counts = Counts(
        scored=len(scores),
        listed=len(listed),
        without_value=len(scores) if value is None else int(np.count_nonzero(~np.isfinite(value))),
        quoted_in_csv=0,
    )
    record = ListRecord(
        study=study,
        model=model_digest,
        written=when.isoformat(timespec="seconds"),
        contract=scores.contract.name,
        score_means=f"Probability of: {scores.contract.label.meaning}"[:400],
        reasons="exact" if scores.exact else "approximate (occlusion)",
        calibration=calibration,
        capacity=capacity,
        counts=counts,
        compared=compared,
        parquet_sha256=_NOT_YET,
        csv_sha256=_NOT_YET,
    )
    stem = f"{study}-{when:%Y-%m-%d}-{model_digest[:8]}"
    return _write(folder, NameList.of(stem, record, listed), store_key)


def stems(folder: Path, study: str | None = None) -> list[str]:
    """Return the names of the lists in a folder, of one study or of all, by name; needs no key."""
    found = {path.stem for path in folder.iterdir() if path.suffix in SUFFIXES and _STEM.fullmatch(path.stem)}
    return sorted(stem for stem in found if study is None or study_of(stem) == study)


def study_of(stem: str) -> str:
    """Return the study that a list is named after."""
    match = _STEM.fullmatch(stem)
    return match["study"] if match else stem


def called(stem: str) -> str:
    """Return what a list is called in the ledger."""
    return f"{KIND} {stem}"


def day_of(stem: str) -> date | None:
    """Return the day (UTC) on which a list was written, as its name says; None for a name that says none."""
    match = _STEM.fullmatch(stem)
    try:
        return date.fromisoformat(match["date"]) if match else None
    except ValueError:
        return None


def files_of(folder: Path, stem: str) -> tuple[Path, ...]:
    """Return the paths of a list's files that are there."""
    return tuple(path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").exists())


def read_list(folder: Path, stem: str, store_key: bytes) -> NameList:
    """Open a name list.

    Raises
    ------
    IntegrityError
        CSL-C551 when a file is missing or the record does not fit (its writing was interrupted); as `privacy.sealing.unseal`.
    StorageError
        CSL-P523 when a file cannot be read.
    """
    found = _read(folder, stem, store_key)
    if found is None or not found.fits:
        raise IntegrityError(
            "CSL-C551",
            f"The name list {stem} is not whole: its writing was interrupted.",
            "If a withdrawal was interrupted, run it again; else restore the list from the backup.",
        )
    return found


def newest(folder: Path, store_key: bytes, study: str | None = None) -> NameList | None:
    """Open the list that was written last, of one study or of all; None where there is none. Raises as `read_list`."""
    days = [(day, stem) for stem in stems(folder, study) if (day := day_of(stem)) is not None]
    last = [stem for day, stem in days if day == max(days)[0]]
    lists = [read_list(folder, stem, store_key) for stem in last]
    return max(lists, key=lambda found: found.record.written, default=None)


def strip(folder: Path, stem: str, store_key: bytes, excluded: Excluded | None) -> int:
    """Rewrite a list without those who withdrew, and return how many lines it lost.

    The Parquet file is written first and is what counts: a rewriting that was interrupted is finished by the next one. Raises as
    `read_list`, and StorageError CSL-F301.
    """
    before = _read(folder, stem, store_key)
    if before is None:
        return 0
    after = before.without(excluded)
    if after is not before or not before.fits:
        _write(folder, NameList.of(stem, after.record, after.listed), store_key)
    return len(before.listed) - len(after.listed)


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: one apostrophe is put before it if it looks like one.

    A text that begins with an apostrophe gets one as well, so that removing exactly one leading apostrophe always
    gives the original.
    """
    risky = text.startswith((_QUOTE, *_FORMULA_STARTS)) or text.lstrip().startswith(_FORMULA_STARTS)
    return _QUOTE + text if risky else text


def _write(folder: Path, name_list: NameList, store_key: bytes) -> Written:
    paths = [folder / f"{name_list.stem}{suffix}" for suffix in SUFFIXES]
    record = name_list.record.model_dump_json(indent=2).encode()
    for path, content in zip(paths, (name_list.parquet, name_list.csv, record), strict=True):
        write_sealed(path, store_key, KIND, content)
    return Written(*paths)


def _read(folder: Path, stem: str, store_key: bytes) -> NameList | None:
    """Open a list's files, whether or not they fit together; None when one is missing or says nothing."""
    parquet, text, record = (read_sealed(folder / f"{stem}{suffix}", store_key, KIND) for suffix in SUFFIXES)
    if parquet is None or record is None:
        return None
    try:
        return NameList(stem, ListRecord.model_validate_json(record), tuple(_lines(parquet)), parquet, text or b"")
    except (ValidationError, pa.ArrowException, KeyError):
        return None


def _lines(parquet: bytes) -> Iterable[Listed]:
    for row in pq.read_table(io.BytesIO(parquet)).to_pylist():
        yield Listed(
            customer=row["customer"],
            rank=row["rank"],
            score=row["score"],
            decile=row["decile"],
            expected_value=row["expected_value"],
            expected_gain=row["expected_gain"],
            reasons=tuple(row[f"reason_{place}"] for place in range(1, REASONS + 1)),
            # lists from before scorings were compared lack these
            score_before=row.get("score_before"),
            decile_before=row.get("decile_before"),
            risen=row.get("risen", ""),
            fallen=row.get("fallen", ""),
        )


def parquet_of(listed: Sequence[Listed]) -> bytes:
    """Return lines as a Parquet file with `COLUMNS`; identifiers and texts as they are."""
    return parquet_table(COLUMNS, _KINDS, _rows(listed))


def csv_of(listed: Sequence[Listed]) -> bytes:
    """Return lines as CSV: UTF-8, comma, all texts in quotes, safe for a spreadsheet; money that is not known is an empty cell."""
    return csv_table(COLUMNS, _rows(listed))


def parquet_table(names: Sequence[str], kinds: Mapping[str, pa.DataType], rows: Sequence[Row]) -> bytes:
    """Return rows as a Parquet file; a column is text unless `kinds` says otherwise."""
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    arrays = [pa.array(list(values), type=field.type) for values, field in zip(columns, schema, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    return sink.getvalue()


def csv_table(names: Sequence[str], rows: Iterable[Row]) -> bytes:
    """Return rows as CSV: UTF-8, comma, all texts in quotes, each text made safe by `safe_cell`; None is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(names)
    for row in rows:
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().encode()


def _rows(listed: Iterable[Listed]) -> list[Row]:
    return [
        (
            line.customer,
            line.rank,
            line.score,
            line.decile,
            line.expected_value,
            line.expected_gain,
            *line.reasons[:REASONS],
            line.score_before,
            line.decile_before,
            line.risen,
            line.fallen,
        )
        for line in listed
    ]
