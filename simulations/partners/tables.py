"""A CSV or Parquet table in a contract's own columns and units, as customers. For public or synthetic data: nothing here protects a row."""

import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from federation.contract import CategoricalColumn, FeatureContract
from federation.document import load_yaml
from federation.errors import DataError
from simulations.engines.simulation import TableData
from simulations.partners.customers import ALL, NOT_KNOWN, AnyArray, Customers, Reader, single, texts

_MISSING = ("", "NA", "NaN", "nan", "null", "NULL")
_BROKEN = (
    pa.ArrowException,
    pd.errors.ParserError,
    pd.errors.EmptyDataError,
    UnicodeDecodeError,
    EOFError,
    zlib.error,
)
_READ = "Name a CSV file with commas in UTF-8 (.csv, .csv.gz), or a Parquet file (.parquet)."


def table(data: TableData) -> Customers:
    """Return a table's customers.

    A cell that is empty is missing; in a column of numbers so is NA, NaN or null. Flags and the label may be 0 and 1, or yes and no.
    Columns of a Parquet file that hold lists or records are passed over, unless they are asked for.

    Raises
    ------
    DataError
        CSL-M220 when the file is not there, cannot be read or has no rows; CSL-M222 when a column is not in it; CSL-M223 when values do
        not fit.
    DocumentError
        CSL-F103, CSL-F104, CSL-F105 for a contract that cannot be read.
    """
    contract = load_yaml(Path(data.contract), FeatureContract)
    path = Path(data.path)
    frame = _read(path, contract, data.institution)
    if frame.empty:
        raise DataError("CSL-M220", f"{path} has no rows.", "Name a table with customers.")
    reader = Reader(frame, path.name)
    columns, labels = reader.columns(contract), reader.label(contract.label.name)
    count = len(frame)
    institution = np.full(count, ALL, dtype=object)
    if data.institution is not None:
        reader.need([data.institution])
        institution = texts(frame[data.institution], NOT_KNOWN)
    time = np.arange(count, dtype=np.int64) if data.time is None else reader.times(data.time)
    reader.finish()
    taken = {*columns, contract.label.name, data.institution}
    return Customers(contract, columns, labels, institution, time, others(frame, taken))


def others(frame: pd.DataFrame, taken: set[str | None]) -> dict[str, AnyArray]:
    """Return the other columns of a table that can divide it: numbers, and text that does not differ in every row; no lists or records."""
    found: dict[str, AnyArray] = {}
    for name in map(str, frame.columns):
        series = frame[name]
        if name in taken or pd.api.types.is_datetime64_any_dtype(series):
            continue
        if pd.api.types.is_numeric_dtype(series):
            found[name] = series.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        elif single(series) and series.nunique() < len(series):
            found[name] = texts(series, NOT_KNOWN)
    return found


def _read(path: Path, contract: FeatureContract, institution: str | None) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path, contract, institution)
    except OSError as error:
        raise DataError("CSL-M220", f"{path} cannot be read: {error.strerror or error}.", _READ) from error
    except _BROKEN as error:
        raise DataError("CSL-M220", f"{path} cannot be read: {error}.", _READ) from error


def _read_csv(path: Path, contract: FeatureContract, institution: str | None) -> pd.DataFrame:
    names = list(pd.read_csv(path, nrows=0, compression=_compression(path)).columns)
    text = {column.name for column in contract.columns if isinstance(column, CategoricalColumn)} | {institution}
    spelled = {name: [""] if name in text else list(_MISSING) for name in names}
    return pd.read_csv(
        path,
        dtype={name: str for name in names if name in text},
        compression=_compression(path),
        keep_default_na=False,
        na_values=spelled,
        low_memory=False,
    )


def _compression(path: Path) -> Literal["gzip"] | None:
    return "gzip" if path.suffix == ".gz" else None
