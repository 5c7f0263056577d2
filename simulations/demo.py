"""The demo: two studies on public data, from raw tables to name lists, every party on this machine, in one command."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import StorageError
from federation.study import StudyDraft
from simulations import datasets, report, study
from simulations.catalogue import CATALOGUE
from simulations.fetch import fetch
from simulations.institutions import Federation, Founding, found
from simulations.live import LiveView
from simulations.results import DemoResult, StudyResult
from simulations.sites import BANKS, SHOPS, Site

REPORT = "report.html"
CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Plan:
    """One study of the demo: its draft, and the institutions that it is for."""

    name: str
    sites: Sequence[Site]


PLANS = (Plan("propensity", BANKS), Plan("churn", SHOPS))


def run_demo(out: Path, cache: Path, view: LiveView, configs: Path = CONFIGS) -> DemoResult:
    """Fetch, found, run both studies, and write the report to `out/report.html`; everything else lies under `out/federation`.

    Raises
    ------
    StorageError
        CSL-M122 when the configurations are not there, CSL-M120 when `out/federation` holds something else; CSL-F301.
    OfflineError, IntegrityError
        As `simulations.fetch.fetch`.
    FederationError
        When a study cannot be run to its end.
    """
    start = time.monotonic()
    drafts = {plan.name: load_draft(configs, plan.name) for plan in PLANS}
    view.stage("Public data")
    fetch(cache, say=view.say)
    view.stage("Institutions: their own tables, keys, policies and budgets; consent is simulated")
    federation = _found(out / "federation", cache, configs, drafts, view)
    results = [_study(federation, drafts[plan.name], plan.sites, view) for plan in PLANS]
    result = DemoResult(
        version=version("consilience"),
        started=datetime.now(UTC).strftime("%-d %B %Y"),
        seconds=time.monotonic() - start,
        seed=datasets.SEED,
        studies=tuple(results),
        sources=tuple((item.title, item.source, item.licence) for item in CATALOGUE),
    )
    report.write(result, out / REPORT)
    return result


def load_draft(configs: Path, name: str) -> StudyDraft:
    """Return a study's draft from the configurations.

    Raises
    ------
    StorageError
        CSL-M122 when it is not there.
    """
    path = configs / "studies" / f"{name}.yaml"
    if not path.is_file():
        raise StorageError(
            "CSL-M122",
            f"{path} is not there.",
            "Run the demo from a checkout, or name its folder configs with --configs.",
        )
    return load_yaml(path, StudyDraft)


def _found(root: Path, cache: Path, configs: Path, drafts: dict[str, StudyDraft], view: LiveView) -> Federation:
    contracts = {
        draft.contract: load_yaml(configs / "contracts" / f"{draft.contract}.yaml", FeatureContract)
        for draft in drafts.values()
    }
    frames = [datasets.bank_full(cache), datasets.cdnow(cache), datasets.complete_journey(cache)]
    foundings = [
        Founding(site, _own(frames, site), contracts[drafts[plan.name].contract], drafts[plan.name])
        for plan in PLANS
        for site in plan.sites
    ]
    federation = found(root, foundings)
    view.say(f"{len(federation.homes)} institutions founded under {root}; charter {federation.charter.digest()[:12]}")
    return federation


def _own(frames: Sequence[pd.DataFrame], site: Site) -> pd.DataFrame:
    """Return a site's rows, out of the set that has its group."""
    return datasets.of_site(next(frame for frame in frames if (frame["group"] == site.group).any()), site)


def _study(federation: Federation, draft: StudyDraft, sites: Sequence[Site], view: LiveView) -> StudyResult:
    view.stage(draft.title)
    outcome = study.run(federation, draft, sites, view.event)
    view.say("comparing with what each institution could have done alone, and with pooled records (seen by no party)")
    return study.gather(federation, draft, sites, outcome)
