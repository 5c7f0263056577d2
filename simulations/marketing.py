"""`consilience simulate report`: shops and banks count their customers together, a simulated campaign is judged, one page says it all."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from federation.errors import DataError
from simulations import datasets, marketing_campaign, marketing_page
from simulations.catalogue import CATALOGUE
from simulations.demo import CONFIGS
from simulations.fetch import fetch
from simulations.live import LiveView
from simulations.marketing_parts import Rows, campaign_rows, load_asked, run_part
from simulations.marketing_result import MarketingReport
from simulations.sites import BANKS, SHOPS, Site

PAGE = "report.html"
LARGEST_EPSILON = 25.0
"""Twice as much, and twice what training gets, must fit into a policy's budget for life, which is at most 100."""
CAMPAIGN = tuple(marketing_campaign.campaign_site(site) for site in SHOPS)
PARTS = (("value", "churn", SHOPS), ("banks", "propensity", BANKS), ("campaign", "churn", CAMPAIGN))
"""Each part's queries, the training draft whose purpose its policies know beside counting, and who takes part."""
SEEDS = {"consent": datasets.SEED, "campaign": marketing_campaign.SEED}


def run_report(
    out: Path, cache: Path, view: LiveView, configs: Path = CONFIGS, epsilon: float | None = None
) -> MarketingReport:
    """Fetch, found three federations under `out`, ask them, and write the page to `out/report.html`.

    Parameters
    ----------
    epsilon:
        What every institution grants each study for one customer; the query files' own (1) where None.

    Raises
    ------
    StorageError
        CSL-M152 when the configurations are not there, CSL-M120 when a folder under `out` holds something else; CSL-F301.
    OfflineError, IntegrityError
        As `simulations.fetch.fetch`.
    DataError
        CSL-M153 when epsilon is no positive number.
    FederationError
        When a study cannot be run to its end.
    """
    _check(epsilon)
    start = time.monotonic()
    asked = {name: load_asked(configs, name, training, sites, epsilon) for name, training, sites in PARTS}
    view.stage("Public data")
    fetch(cache, say=view.say)
    view.stage("Shops: what their customers are worth, and where they stand (consent is simulated)")
    value, shops = run_part(out, configs, *asked["value"], _shop_rows(cache), view)
    view.stage("Banks: who takes a term deposit (consent is simulated)")
    banks, _ = run_part(out, configs, *asked["banks"], _rows_of(datasets.bank_full(cache)), view)
    view.stage("A campaign of the shops: real customers, SIMULATED outcomes")
    campaign, _ = run_part(out, configs, *asked["campaign"], campaign_rows(shops, value.report), view)
    result = MarketingReport(
        version=version("consilience"),
        started=datetime.now(UTC).strftime("%-d %B %Y"),
        seconds=time.monotonic() - start,
        seeds=SEEDS,
        parts=(value, banks, campaign),
        sources=tuple((item.title, item.source, item.licence) for item in CATALOGUE),
    )
    view.stage("The page")
    marketing_page.write(result, out / PAGE)
    return result


def _check(epsilon: float | None) -> None:
    if epsilon is not None and not 0.0 < epsilon <= LARGEST_EPSILON:
        raise DataError(
            "CSL-M153",
            f"An epsilon of {epsilon:g} cannot be granted.",
            f"Give --epsilon above 0 and at most {LARGEST_EPSILON:g}.",
        )


def _shop_rows(cache: Path) -> Rows:
    logs = [datasets.cdnow(cache), datasets.complete_journey(cache)]
    by_group: Mapping[str, pd.DataFrame] = {group: log for log in logs for group in log["group"].dropna().unique()}
    return lambda site: datasets.of_site(by_group[site.group], site)


def _rows_of(frame: pd.DataFrame) -> Rows:
    def rows(site: Site) -> pd.DataFrame:
        return datasets.of_site(frame, site)

    return rows
