"""The synthetic population's bank or shop customers, drawn for a simulation. Nobody in it is real."""

from pathlib import Path

import numpy as np

from simulations.engines.simulation import PopulationData
from simulations.partners.customers import Customers, compact, texts
from simulations.partners.tables import others
from simulations.population.contracts import columns_of, contract_of
from simulations.population.generate import generate
from simulations.population.parameters import PopulationParameters

_NOBODYS = {"customer", "person", "institution", "position"}


def people(data: PopulationData, contracts: Path) -> Customers:
    """Draw a population that founds institutions of one kind, and return their customers; who is at two of them has a row at each.

    Institutions keep the populations' own names; time is the population's position. Other outcomes, and the campaign's arm, are extra.
    Who is one person is kept: only the simulation knows it, no institution does.

    Parameters
    ----------
    contracts:
        Folder of the population's contracts.

    Raises
    ------
    DocumentError
        CSL-M200 to CSL-M203 for a population that cannot be; CSL-F103 to CSL-F105 for a contract that cannot be read.
    """
    contract = contract_of(data.of, data.label, contracts)
    banks, shops = (data.institutions, 0) if data.of == "bank" else (0, data.institutions)
    parameters = PopulationParameters(customers=data.customers, banks=banks, shops=shops, overlap=data.overlap)
    table = generate(parameters, data.seed).tables[data.of]
    columns = {name: compact(array) for name, array in columns_of(table, contract).items()}
    return Customers(
        contract=contract,
        columns=columns,
        labels=table[data.label].to_numpy(dtype=np.float64),
        institution=texts(table["institution"], ""),
        time=table["position"].to_numpy(dtype=np.int64, copy=True),
        extra=others(table, {*_NOBODYS, *columns, data.label}),
        person=table["person"].to_numpy(dtype=np.int64, copy=True),
    )
