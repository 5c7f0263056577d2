"""The population's contracts, with the label that is asked for, and its tables as models read them."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from client.cohort import Columns
from federation.contract import CategoricalColumn, FeatureContract, Label
from federation.document import load_yaml
from federation.errors import DocumentError
from simulations.population.parameters import KINDS, Kind

Outcome = Literal["churned", "subscribed", "responded"]

CONTRACTS = Path(__file__).parents[2] / "configs" / "contracts"

_MEANINGS: dict[tuple[Kind, Outcome], str] = {
    ("bank", "churned"): "The customer left the bank in the year after",
    ("bank", "subscribed"): "The customer took a term deposit in the campaign",
    ("bank", "responded"): "The customer asked for an offer within the campaign's window",
    ("shop", "churned"): "The customer bought nothing in the 180 days from the as-of date",
    ("shop", "subscribed"): "The customer took the shop's card",
    ("shop", "responded"): "The customer visited within the campaign's window",
}


def contract_of(kind: Kind, label: Outcome, folder: Path = CONTRACTS) -> FeatureContract:
    """Return a kind's contract with this label; where it is not the label of the file, the name says so.

    Raises
    ------
    DocumentError
        CSL-M202 for a kind or a label that the population does not have; CSL-F103 to CSL-F105 for the file, as `load_yaml`.
    """
    meaning = _MEANINGS.get((kind, label))
    if meaning is None:
        labels = ", ".join(sorted({name for _, name in _MEANINGS}))
        raise DocumentError(
            "CSL-M202",
            f'The population has no label "{label}" for a {kind}; it has {labels} for {" and ".join(KINDS)}.',
            "Name one of them.",
        )
    contract = load_yaml(folder / f"population_{kind}.yaml", FeatureContract)
    if contract.label.name == label:
        return contract
    return contract.model_copy(update={"name": f"{contract.name}_{label}", "label": Label(name=label, meaning=meaning)})


def columns_of(table: pd.DataFrame, contract: FeatureContract) -> Columns:
    """Return a table's columns as models read them: numbers and flags float64, categories int64 places in the contract's list, or -1.

    Columns that the table does not have are left out.
    """
    found: Columns = {}
    for column in contract.columns:
        if column.name not in table.columns:
            continue
        if isinstance(column, CategoricalColumn):
            codes = pd.Categorical(table[column.name], categories=list(column.categories)).codes
            found[column.name] = np.asarray(codes, dtype=np.int64)
        else:
            found[column.name] = table[column.name].to_numpy(dtype=np.float64)
    return found
