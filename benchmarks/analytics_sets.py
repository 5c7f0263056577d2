"""The data sets of the analytics benchmark, as five institutions: read as vaults read them, then dealt out at random."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from client.cohort import Cohort, load_cohort
from client.tables import Want
from federation.charter import Declaration
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.document import load_yaml
from federation.errors import DataError
from federation.measures import At
from federation.study import StudyDraft
from simulations import datasets
from simulations.houses import LOG_NAMES, write_house
from simulations.institutions import TABLES, Federation, Founding, found, node_config
from simulations.sites import CDNOW_WINDOW, Site, Window
from simulations.statistics_play import Party, Table, dealt, round_up

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = ("shop_1", "shop_2", "shop_3", "shop_4", "shop_5")
ARMS = {"No E-Mail": 0, "Mens E-Mail": 1, "Womens E-Mail": 2}
_BOTH: Mapping[At, Want] = {"start": "learn", "end": "score"}
RFM = load_yaml(ROOT / "configs" / "contracts" / "rfm.yaml", FeatureContract)
MAILING = FeatureContract(
    name="mailing",
    version=1,
    title="The e-mail challenge of 2008",
    source="table",
    columns=(
        CategoricalColumn(
            kind="categorical", name="arm", meaning="Which e-mail", categories=("control", "mens", "womens")
        ),
        CategoricalColumn(
            kind="categorical", name="segment", meaning="Area", categories=("Rural", "Surburban", "Urban")
        ),
        NumericColumn(
            kind="numeric",
            name="history",
            meaning="Spent in the past year",
            unit="dollars",
            low=0,
            high=3000,
            scale="log",
            knots=(0, 50, 100, 200, 400, 800, 3000),
        ),
        FlagColumn(kind="flag", name="conversion", meaning="Bought"),
    ),
    label=Label(name="visit", meaning="Visited within two weeks"),
)


def cdnow(cache: Path) -> Mapping[At, Cohort]:
    """Return all customers of CDNOW: features and label at the as-of date, and features at the horizon's end."""
    return of_log(datasets.cdnow(cache), CDNOW_WINDOW, _BOTH)


def retail(data: Path) -> Mapping[At, Cohort]:
    """Return the customers of Online Retail II, as `cdnow`. Raises DataError where the file is not there."""
    from datetime import date  # noqa: PLC0415 - this set alone needs it

    window = Window(date(2011, 6, 12), 365, 180, 300.0)
    return of_log(datasets.online_retail(data), window, _BOTH)


def of_log(rows: pd.DataFrame, window: Window, wanted: Mapping[At, Want]) -> dict[At, Cohort]:
    """Write a shop's tables and read them as its vault does, everybody consenting: each cohort that is wanted, by its time."""
    site = Site("shop", "Shop", "shop", "parquet", 1.0, 10, 1.0, 1.0, window=window)
    declaration = Declaration(
        contract=RFM.name,
        size=site.size,
        as_of=window.as_of,
        window_days=window.window_days,
        horizon_days=window.horizon_days,
    )
    with tempfile.TemporaryDirectory(prefix="analytics-") as folder:
        home = Path(folder)
        agreed = datasets.consent(rows["customer"], site)
        house = write_house(home / TABLES, site.style, rows.drop(columns="group"), agreed, LOG_NAMES[site.style])
        node = node_config(site, house, RFM).at(home)
        return {at: load_cohort(node, RFM, declaration, datasets.PROFILING, want)[0] for at, want in wanted.items()}


def founded(root: Path, cache: Path, epsilon: float) -> Federation:
    """Found five shops with CDNOW's customers dealt out, as homes with tables, policies and ledgers."""
    rows = datasets.cdnow(cache).drop(columns="group")
    ids = np.array(sorted(rows["customer"].unique()), dtype=object)
    draft = load_yaml(ROOT / "configs" / "studies" / "churn.yaml", StudyDraft)
    foundings = []
    for name, part in zip(MEMBERS, dealt(Cohort(ids=ids, columns={}), MEMBERS, 0), strict=True):
        site = Site(name, name, name, "parquet", epsilon, round_up(len(part)), 1.0, 1.0, window=CDNOW_WINDOW)
        own = rows[rows["customer"].isin(set(part.ids))].reset_index(drop=True)
        foundings.append(Founding(site, own, RFM, draft, counting=epsilon))
    return found(root, foundings)


def hillstrom(data: Path) -> Cohort:
    """Return the e-mail challenge's customers under `MAILING`. Raises DataError CSL-M111 where the file is not there."""
    path = data / "hillstrom.csv"
    if not path.is_file():
        raise DataError("CSL-M111", f"{path} is not there.", "Name the folder that holds it with --data.")
    frame = pd.read_csv(path)
    areas = list(frame["zip_code"].map({"Rural": 0, "Surburban": 1, "Urban": 2}))
    return Cohort(
        ids=np.array([f"h{number}" for number in range(len(frame))], dtype=object),
        columns={
            "arm": frame["segment"].map(ARMS).to_numpy(dtype=np.int64),
            "segment": np.array(areas, dtype=np.int64),
            "history": frame["history"].to_numpy(dtype=np.float64),
            "conversion": frame["conversion"].to_numpy(dtype=np.float64),
        },
        label=frame["visit"].to_numpy(dtype=np.float64),
    )


def table_of(contract: FeatureContract, cohorts: Mapping[At, Cohort], seed: int) -> Table:
    """Deal customers out to five institutions; a customer stays with hers at both times."""
    ids = np.array(sorted({name for cohort in cohorts.values() for name in cohort.ids}), dtype=object)
    everybody = Cohort(ids=ids, columns={})
    parties = []
    for name, part in zip(MEMBERS, dealt(everybody, MEMBERS, seed), strict=True):
        mine = set(part.ids)
        own = {
            at: cohort.take(np.array([customer in mine for customer in cohort.ids])) for at, cohort in cohorts.items()
        }
        parties.append(Party(name, own, round_up(len(own["start"]))))
    return Table(contract, parties)


def without_end(cohorts: Mapping[At, Cohort]) -> dict[At, Cohort]:
    """Return the customers at the as-of date alone."""
    return {"start": replace(cohorts["start"])}
