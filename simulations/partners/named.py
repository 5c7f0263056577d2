"""What the data that a simulation names stand for: a set of the catalogue, and a contract's file. Nothing is read here."""

from pathlib import Path

from simulations.engines.simulation import Data, PublicData, TableData

CONFIGS = Path(__file__).parents[2] / "configs"

SETS = {"bank": "bank_full", "cdnow": "cdnow", "grocery": "complete_journey"}
"""Names of the public sets in the catalogue."""


def contract_file(data: Data, configs: Path = CONFIGS) -> Path:
    """Return the file of the contract by which these data are read.

    Parameters
    ----------
    configs:
        Folder with the `contracts` of the public sets and the population.
    """
    if isinstance(data, TableData):
        return Path(data.contract)
    if isinstance(data, PublicData):
        return configs / "contracts" / ("bank_campaign.yaml" if data.set == "bank" else "rfm.yaml")
    return configs / "contracts" / f"population_{data.of}.yaml"
