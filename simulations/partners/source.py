"""Where a simulation's customers come from: a public set, the synthetic population, or a table in a contract's own columns.

Nothing here reads an institution's data: public and synthetic customers alone, and tables that somebody names as such.
"""

from pathlib import Path

from federation.contract import FeatureContract
from federation.document import load_yaml
from simulations.engines.simulation import Data, PublicData, TableData
from simulations.fetch import default_cache
from simulations.partners import public
from simulations.partners.customers import Customers
from simulations.partners.kept import Newest
from simulations.partners.named import CONFIGS, contract_file
from simulations.partners.people import people
from simulations.partners.tables import table

__all__ = ["CONFIGS", "Customers", "load"]

_kept: Newest[Customers] = Newest(2)


def load(data: Data, cache: Path | None = None, configs: Path = CONFIGS) -> Customers:
    """Return the customers that a simulation names. The two that were asked for last are kept in memory.

    Parameters
    ----------
    cache:
        Folder of fetched public sets; features that take long to compute are kept there too. `simulations.fetch.default_cache` if None.
    configs:
        Folder with the `contracts` of the public sets and the population.

    Raises
    ------
    DataError
        CSL-M110 when a public set was not fetched; CSL-M220 when a table is not there, cannot be read or is empty; CSL-M222 when a column
        is not in it; CSL-M223 when values do not fit.
    DocumentError
        CSL-M200 to CSL-M203 for a population that cannot be; CSL-F103, CSL-F104, CSL-F105 for a contract that cannot be read.
    """
    folder = cache or default_cache()
    files = [contract_file(data, configs), *([Path(data.path)] if isinstance(data, TableData) else [])]
    stamps = tuple(map(_stamp, files))
    return _kept.get((data, folder, configs, stamps), lambda: _read(data, folder, configs))


def _stamp(path: Path) -> tuple[str, int, int]:
    """Tell a file that was changed from the one that was read."""
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0  # reading it says what is wrong
    return str(path.absolute()), found.st_mtime_ns, found.st_size


def _read(data: Data, cache: Path, configs: Path) -> Customers:
    if isinstance(data, TableData):
        return table(data)
    if isinstance(data, PublicData):
        contract = load_yaml(contract_file(data, configs), FeatureContract)
        return public.bank(cache, contract) if data.set == "bank" else public.shops(cache, data.set, contract)
    return people(data, configs / "contracts")
