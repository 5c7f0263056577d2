"""The data sets of the quality benchmark, as institutions: tables written, mapped, read and split as a vault does it.

Everybody consents here, so that the figures speak of the method and not of a simulated share. Institutions are the demo's,
with declared sizes that fit everybody's consent: what may train, rounded to two digits.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from client.cohort import Cohort, load_cohort, split
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.study import HashHoldout, Holdout, PositionHoldout, StudyDraft
from simulations import datasets
from simulations.houses import BANK_NAMES, LOG_NAMES, write_house
from simulations.institutions import TABLES, node_config
from simulations.quality import Party, Trial, two_digits
from simulations.sites import BANKS, SHOPS, HouseStyle, Site, Window

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
HOLDOUT_KEY = hashlib.sha256(b"quality benchmark: one hold-out for all seeds").digest()
"""Fixed, so that alone, federated and pooled are judged on the same customers whatever the seed."""

_ADDITIONAL_TEST = 32_950  # 80% of the 41,188 rows
_RETAIL = Window(date(2011, 6, 12), 365, 180, 300.0)


@dataclass(frozen=True)
class Source:
    """A data set before it is read: where its rows come from, who holds them, and which study they serve."""

    name: str
    title: str
    study: str
    contract: Path
    rows: Callable[[Path], list[pd.DataFrame]]
    sites: tuple[Site, ...]
    holdout: Holdout | None = None
    names: Mapping[HouseStyle, Mapping[str, str]] | None = None


def _plain(group: str, style: HouseStyle = "parquet", window: Window | None = None) -> Site:
    """Return an institution that the demo does not have; its declared size is set once its rows are there."""
    return Site(group, group.replace("_", " ").title(), group, style, 1.0, 1, 1.0, 1.0, window=window)


def _bank_full(cache: Path) -> list[pd.DataFrame]:
    return [datasets.bank_full(cache)]


def _logs(cache: Path) -> list[pd.DataFrame]:
    return [datasets.cdnow(cache), datasets.complete_journey(cache)]


def _bank_additional(data: Path) -> list[pd.DataFrame]:
    return [datasets.bank_additional(data)]


def _churn_modelling(data: Path) -> list[pd.DataFrame]:
    frame = datasets.churn_modelling(data)
    return [frame.assign(position=np.arange(len(frame), dtype=np.int64))]


def _online_retail(data: Path) -> list[pd.DataFrame]:
    return [datasets.online_retail(data)]


_CONTRACTS = ROOT / "configs" / "contracts"
_OWN_NAMES = {
    name: name
    for name in (
        *("customer", "credit_score", "country", "gender", "age", "tenure", "balance"),
        *("products", "card", "active", "salary", "exited", "position"),
    )
}

STUDIES = (
    Source(
        "propensity",
        "UCI bank-full, 8 banks by job, last 20% in order of date held out",
        "propensity",
        _CONTRACTS / "bank_campaign.yaml",
        _bank_full,
        BANKS,
    ),
    Source(
        "churn",
        "CDNOW by month of first purchase, and Complete Journey; a fifth held out by keyed hash",
        "churn",
        _CONTRACTS / "rfm.yaml",
        _logs,
        SHOPS,
    ),
)
"""What the demo shows, and what the targets speak of."""

NO_DRIFT = replace(
    STUDIES[0],
    name="propensity_random",
    title="the same banks, a fifth of all calls held out by keyed hash: no drift, so that the price of privacy shows",
    holdout=HashHoldout(kind="hash", share=0.2),
)
"""Has no target: it keeps the reader from taking a gain on drifting data for a gain by noise."""

MORE = (
    Source(
        "bank_additional",
        "UCI bank-additional, 8 banks by job, no balance and no day, last 20% in order of date held out",
        "propensity",
        _CONTRACTS / "bank_campaign.yaml",
        _bank_additional,
        tuple(replace(site, lacks=()) for site in BANKS),
        PositionHoldout(kind="position", position=_ADDITIONAL_TEST),
    ),
    Source(
        "churn_modelling",
        "Churn_Modelling (a teaching set, probably synthetic), 3 banks by country; a fifth held out by keyed hash",
        "churn",
        HERE / "bank_customers.yaml",
        _churn_modelling,
        tuple(_plain(group) for group in ("france", "germany", "spain")),
        names={"parquet": _OWN_NAMES},
    ),
    Source(
        "online_retail",
        "Online Retail II by country (three of the four are tiny); a fifth held out by keyed hash",
        "churn",
        _CONTRACTS / "rfm.yaml",
        _online_retail,
        tuple(_plain(group, window=_RETAIL) for group in ("france", "germany", "other", "united_kingdom")),
    ),
)
"""What `--data` adds."""


def load(source: Source, folder: Path) -> Trial:
    """Read a data set's files in `folder` and return its institutions, each with its cohort.

    Raises
    ------
    DataError
        CSL-M110, CSL-M111 when the files are not there.
    """
    contract = load_yaml(source.contract, FeatureContract)
    draft = load_yaml(ROOT / "configs" / "studies" / f"{source.study}.yaml", StudyDraft)
    draft = draft.model_copy(update={"contract": contract.name, "holdout": source.holdout or draft.holdout})
    frames = source.rows(folder)
    parties = []
    for site in source.sites:
        frame = next(frame for frame in frames if (frame["group"] == site.group).any())
        everybody = replace(site, learns=1.0, contacts=1.0)
        cohort = _read(source, everybody, datasets.of_site(frame, site), contract)
        parties.append(_party(everybody, cohort, draft.holdout))
    return Trial(source.name, source.title, draft, contract, tuple(parties))


def _read(source: Source, site: Site, rows: pd.DataFrame, contract: FeatureContract) -> Cohort:
    """Write a house's tables, map them as its node.yaml would, and read the cohort as its vault does."""
    names = source.names or (LOG_NAMES if site.window else BANK_NAMES)
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        home = Path(folder)
        agreed = datasets.consent(rows["customer"], site)
        house = write_house(home / TABLES, site.style, rows, agreed, names[site.style])
        node = node_config(site, house, contract).at(home)
        cohort, _ = load_cohort(node, contract, _declaration(site, contract), datasets.PROFILING, "learn")
    return cohort


def _declaration(site: Site, contract: FeatureContract) -> Declaration:
    window = site.window
    if window is None:
        return Declaration(contract=contract.name, size=site.size)
    return Declaration(
        contract=contract.name,
        size=site.size,
        as_of=window.as_of,
        window_days=window.window_days,
        horizon_days=window.horizon_days,
    )


def _party(site: Site, cohort: Cohort, holdout: Holdout) -> Party:
    learning, heldout = split(cohort, holdout, HOLDOUT_KEY)
    expected = (1.0 - holdout.share) * len(cohort) if isinstance(holdout, HashHoldout) else len(learning)
    declared = replace(site, size=two_digits(expected))
    return Party(site.id, declared.size, declared.delta, learning, heldout)
