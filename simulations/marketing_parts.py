"""The parts of the marketing report: each a federation of its own and one statistics study, run to its end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from client.cohort import load_cohort
from client.config import load_node
from client.consent import consenting
from federation.answers import StatisticsReport
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.drafts import load_statistics
from federation.errors import StorageError
from federation.files import atomic_write
from federation.statistics import StatisticsDraft
from privacy.accounting import epsilon as epsilon_of
from privacy.ledger import LedgerReader
from privacy.ledger.entries import ACCOUNTS
from server.statistics.reports import SUFFIX
from simulations import marketing_campaign as campaign
from simulations.counting import CountingOutcome, count_together
from simulations.datasets import CONTACT, PROFILING
from simulations.demo import load_draft
from simulations.institutions import Federation, Founding, found
from simulations.live import LiveView
from simulations.marketing_exact import Kept, exact_answers, judge
from simulations.marketing_result import Account, Judged, Part
from simulations.sites import Site

Rows = Callable[[Site], pd.DataFrame]


@dataclass(frozen=True)
class Asked:
    """A part before it is run: its draft of queries, the training draft whose purpose its policies know, and who takes part."""

    name: str
    draft: StatisticsDraft
    training: str
    sites: tuple[Site, ...]


def load_asked(
    configs: Path, name: str, training: str, sites: Sequence[Site], epsilon: float | None
) -> tuple[Asked, FeatureContract]:
    """Read a part's queries and contract from the configurations; `epsilon` replaces that of the file.

    Raises
    ------
    StorageError
        CSL-M152 when they are not there.
    DocumentError
        As `federation.drafts.load_statistics`.
    """
    path = configs / "queries" / f"{name}.yaml"
    if not path.is_file():
        raise StorageError(
            "CSL-M152", f"{path} is not there.", "Run it from a checkout, or name its folder configs with --configs."
        )
    draft = load_statistics(path)
    if epsilon is not None:
        draft = draft.model_copy(update={"epsilon": epsilon})
    contract = load_yaml(configs / "contracts" / f"{draft.contract}.yaml", FeatureContract)
    return Asked(name, draft, training, tuple(sites)), contract


def run_part(
    out: Path, configs: Path, asked: Asked, contract: FeatureContract, rows: Rows, view: LiveView
) -> tuple[Part, Federation]:
    """Found the part's institutions under `out/<name>`, count together, and answer the same questions exactly.

    Raises
    ------
    ConsilienceError
        As `simulations.institutions.found`, `simulations.counting.count_together` and `simulations.marketing_exact.exact_answers`.
    """
    start = time.monotonic()
    draft, root = asked.draft, out / asked.name
    assert draft.epsilon is not None
    training = load_draft(configs, asked.training).model_copy(update={"contract": contract.name})
    names = dict(zip(campaign.COLUMNS, campaign.COLUMNS, strict=True)) if asked.name == "campaign" else None
    federation = found(
        root, [Founding(site, rows(site), contract, training, draft.epsilon, names) for site in asked.sites]
    )
    view.say(f"{len(asked.sites)} institutions founded under {root}; asking {len(draft.queries)} queries")
    kept = Kept(federation, draft.name, view.event)
    outcome = count_together(federation, draft, [site.id for site in asked.sites], kept)
    view.say("answering the same questions exactly, as no party could")
    answers = outcome.published.report.answers
    exact = exact_answers(kept, answers)
    judged = [judge(noisy, true) for noisy, true in zip(answers, exact, strict=True)]
    part = Part(
        name=asked.name,
        draft=draft,
        contract=contract,
        report=outcome.published.report,
        exact=exact,
        alone=sum((item[0] for item in judged), Judged(0, 0)),
        both=sum((item[1] for item in judged), Judged(0, 0)),
        accounts=tuple(_account(federation, outcome, site) for site in asked.sites),
        sites=asked.sites,
        seconds=time.monotonic() - start,
        integers=sum(item.size for item in (kept.sums or {}).values()),
        sent=outcome.sent,
        received=outcome.received,
        files=_beside(out, asked.name, outcome),
    )
    return part, federation


def campaign_rows(federation: Federation, report: StatisticsReport) -> Rows:
    """Return what makes each shop's campaign table, from the homes of the federation that counted first, and from its report."""

    def rows(site: Site) -> pd.DataFrame:
        contract = federation.contracts[report.contract]
        declaration = federation.charter.member(site.id).declaration(contract.name)
        assert declaration is not None
        node = load_node(federation.homes[site.id].node_file)
        cohort = load_cohort(node, contract, declaration, PROFILING, "count")[0]
        return campaign.simulated(cohort, consenting(node, CONTACT), contract, report, site)

    return rows


def _account(federation: Federation, outcome: CountingOutcome, site: Site) -> Account:
    """Read what an institution's ledger says that the study cost each of its two accounts."""
    report = outcome.published.report
    terms = next(item for item in report.members if item.member == site.id)
    key = federation.charter.member(site.id).key
    with LedgerReader.read(federation.homes[site.id].ledger_file, key) as ledger:
        spent = {account: epsilon_of(ledger.events(account), terms.delta) for account in ACCOUNTS}
    return Account(
        title=site.title,
        declared=terms.declared_size,
        granted=terms.epsilon,
        delta=terms.delta,
        training=spent["training"],
        holdout=spent["holdout"],
        rounds=terms.rounds,
    )


def _beside(out: Path, name: str, outcome: CountingOutcome) -> tuple[str, str]:
    """Copy the published report and its readable form beside the page; return their names."""
    path = outcome.published.path
    files = (f"{name}.report.json", f"{name}.report.md")
    for target, source in zip(files, (path, path.with_name(path.name.removesuffix(SUFFIX) + ".md")), strict=True):
        atomic_write(out / target, source.read_bytes())
    return files
