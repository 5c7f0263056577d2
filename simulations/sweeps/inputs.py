"""What a cell's figures come from besides its own document: files, pinned sets, and this program's source, each by its SHA-256."""

import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from federation.encoding import digest
from federation.errors import DataError
from simulations.catalogue import CATALOGUE
from simulations.engines.simulation import Data, PopulationData, PublicData, TableData
from simulations.partners.named import CONFIGS, SETS, contract_file

ROOT = Path(__file__).parents[2]

_RULES = (
    "client/training.py",
    "federation/basis.py",
    "federation/blocks.py",
    "federation/networks.py",
    "privacy/accounting.py",
    "privacy/bookkeeping.py",
    "privacy/dp_optimizer.py",
    "privacy/logistic.py",
    "server/descent.py",
    "server/optimizer.py",
    "server/recipe.py",
    "simulations/analysis.py",
    "simulations/quality.py",
    "simulations/engines",
    "simulations/partners",
)
_LOGS = (
    "client/cohort.py",
    "client/features.py",
    "client/rfm_sql.py",
    "client/sql.py",
    "simulations/datasets.py",
    "simulations/sites.py",
)
_POPULATION = ("simulations/population",)


def inputs(data: Data, configs: Path = CONFIGS) -> dict[str, str]:
    """Return what decides a simulation's figures besides its document, by name: 64 hexadecimal digits each.

    Covered are the contract's file; a table's file; a public set's members, by the digests that the catalogue pins and that reading them
    checks; and the source of the recipe, the accounting, the models, the engines, the partners and the data's own reader or population.
    Not covered are the libraries below (numpy, torch) and the machine: their figures may differ in the last digits.

    Raises
    ------
    DataError
        CSL-M233 when a table or a contract is not there.
    """
    contract = contract_file(data, configs)
    name = data.contract if isinstance(data, TableData) else f"contracts/{contract.name}"
    found = {name: file_digest(contract), "source": source_digest(_source_of(data))}
    if isinstance(data, TableData):
        found[data.path] = file_digest(Path(data.path))
    elif isinstance(data, PublicData):
        found |= _pinned(SETS[data.set])
    return found


def file_digest(path: Path) -> str:
    """Return a file's SHA-256; it is read once for as long as it does not change. Raises DataError CSL-M233."""
    try:
        state = path.stat()
        return _digest_of(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise DataError(
            "CSL-M233",
            f"{path} cannot be read: {error.strerror}.",
            "Check data.path and data.contract: they begin where the command is called.",
        ) from error


@lru_cache(maxsize=64)
def _digest_of(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@cache
def source_digest(parts: tuple[str, ...], root: Path = ROOT) -> str:
    """Return one SHA-256 for the Python source of these modules and packages, read once in a process.

    Parameters
    ----------
    parts:
        Files and folders below `root`; of a folder, every `.py` file at any depth.
    """
    return digest({path.relative_to(root).as_posix(): _plain_digest(path) for path in _sources(parts, root)})


def _plain_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sources(parts: tuple[str, ...], root: Path) -> Iterator[Path]:
    for part in parts:
        yield from (root / part).rglob("*.py") if (root / part).is_dir() else (root / part,)


def _source_of(data: Data) -> tuple[str, ...]:
    if isinstance(data, PopulationData):
        return (*_RULES, *_POPULATION)
    return (*_RULES, *_LOGS) if isinstance(data, PublicData) else _RULES


@cache
def _pinned(name: str) -> dict[str, str]:
    """Return the pinned digests of a set's members."""
    return {f"{name}/{part.name}": part.sha256 for one in CATALOGUE if one.name == name for part in one.members}
