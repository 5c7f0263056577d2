"""Public sets as customers: the demo's banks by job, and its shops by the product's own features over the demo's windows.

Everybody consents here. What a log's features come to is kept in a Parquet file beside the fetched set: they take seconds to compute, and
depend on nothing but the log, the contract, the windows and the code that computes them, all of which are in the file's name.
"""

import hashlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from client import cohort, features, rfm_sql, sql
from client.cohort import load_cohort
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.encoding import sha256_hex
from federation.errors import StorageError
from federation.files import atomic_write
from simulations import datasets
from simulations.fetch import sha256_file
from simulations.houses import LOG_NAMES, write_house
from simulations.institutions import TABLES, node_config
from simulations.partners.customers import Customers, Reader, compact, ranks
from simulations.partners.named import SETS
from simulations.sites import SHOPS, Site

FOLDER = "features"
_CODE: tuple[ModuleType, ...] = (cohort, features, rfm_sql, sql)
_LABEL, _INSTITUTION = "label", "institution"


class Log(NamedTuple):
    """A public log of purchases: its name in the catalogue, and how it is read."""

    name: str
    read: Callable[[Path], pd.DataFrame]


LOGS = {
    "cdnow": Log(SETS["cdnow"], datasets.cdnow),
    "grocery": Log(SETS["grocery"], datasets.complete_journey),
}


def bank(cache: Path, contract: FeatureContract) -> Customers:
    """Return UCI bank-full: institutions by job as in the demo, time by the row's place in the file, which is in order of date.

    Raises
    ------
    DataError
        CSL-M110 when the set was not fetched; CSL-M222, CSL-M223 when it does not fit the contract.
    """
    frame = datasets.bank_full(cache)
    reader = Reader(frame, "The bank set")
    columns, labels = reader.columns(contract), reader.label(contract.label.name)
    reader.finish()
    return Customers(
        contract=contract,
        columns=columns,
        labels=labels,
        institution=frame["group"].to_numpy(dtype=object),
        time=frame["position"].to_numpy(dtype=np.int64, copy=True),
        extra={},
    )


def shops(cache: Path, name: str, contract: FeatureContract) -> Customers:
    """Return a log's customers: institutions as in the demo, time by the first purchase in the window.

    Parameters
    ----------
    name:
        A key of `LOGS`.

    Raises
    ------
    DataError
        CSL-M110 when the set was not fetched.
    """
    table = _kept_table(cache, LOGS[name], contract)
    own = [column.name for column in contract.columns if column.name in table.columns]
    return Customers(
        contract=contract,
        columns={column: compact(table[column].to_numpy()) for column in own},
        labels=table[_LABEL].to_numpy(dtype=np.float64, copy=True),
        institution=table[_INSTITUTION].to_numpy(dtype=object),
        time=ranks(-table["tenure"].to_numpy()),
        extra={},
    )


def _kept_table(cache: Path, log: Log, contract: FeatureContract) -> pd.DataFrame:
    """Return the features as they were kept, or compute and keep them. A file that is damaged is made again."""
    path = cache / FOLDER / f"{log.name}-{_key(cache, log, contract)}.parquet"
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        pass  # not there yet, or damaged
    table = _computed(log.read(cache), contract)
    content = io.BytesIO()
    table.to_parquet(content, index=False, write_page_checksum=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content.getvalue())
    except (OSError, StorageError):
        pass  # a cache that cannot be written costs time alone
    return table


def _key(cache: Path, log: Log, contract: FeatureContract) -> str:
    files = sorted(datasets.fetched(cache, log.name).items())
    parts = [contract.digest(), repr([site.window for site in SHOPS])]
    parts += [f"{name}={sha256_file(path)}" for name, path in files]
    parts += [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in _CODE]
    return sha256_hex("\n".join(parts).encode())[:32]


def _computed(purchases: pd.DataFrame, contract: FeatureContract) -> pd.DataFrame:
    groups = set(purchases["group"])
    found = [_of_shop(purchases, site, contract) for site in SHOPS if site.group in groups]
    return pd.concat(found, ignore_index=True)


def _of_shop(purchases: pd.DataFrame, site: Site, contract: FeatureContract) -> pd.DataFrame:
    """Write a shop's tables, map them as its node.yaml would, and read them as its vault does."""
    assert site.window is not None
    everybody = replace(site, learns=1.0, contacts=1.0)
    rows = datasets.of_site(purchases, everybody)
    agreed = datasets.consent(rows["customer"], everybody)
    declared = Declaration(
        contract=contract.name,
        size=site.size,
        as_of=site.window.as_of,
        window_days=site.window.window_days,
        horizon_days=site.window.horizon_days,
    )
    with tempfile.TemporaryDirectory(prefix="partners-") as folder:
        house = write_house(Path(folder) / TABLES, site.style, rows, agreed, LOG_NAMES[site.style])
        node = node_config(everybody, house, contract).at(Path(folder))
        read, _ = load_cohort(node, contract, declared, datasets.PROFILING, "learn")
    return pd.DataFrame({**read.columns, _LABEL: read.label, _INSTITUTION: site.group})
