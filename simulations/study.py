"""Run one study of a federation on this machine, by the coordinator's and the vaults' own code, and gather what it showed."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from flwr.app import UserConfig
from flwr.clientapp import ClientApp

from client.adoption import delong
from client.app import VaultShelf, make_app
from client.config import load_node
from client.decisions import read_decision
from client.home import Home
from client.lists import read_list
from client.names import Listed
from client.scoring import logits_of
from client.shapes import draw, shapes, svg
from client.unlock import unlock_store
from federation.contract import FeatureContract
from federation.messages import read_tensors
from federation.networks import Network, build, load_weights, tensor_shapes, weights_of
from federation.study import AdditiveModel, MlpModel, StudyDraft
from privacy.accounting import epsilon
from privacy.keys import load_secret
from privacy.ledger import LedgerReader
from server.app import build_app
from server.events import Event, OnEvent, Published, RoundDone
from server.home import CoordinatorHome
from server.registry import PublishedModel, Registry
from simulations import analysis
from simulations.analysis import Floats, Truth
from simulations.cards import estimate_of, released_roc, sections_of
from simulations.datasets import PROFILING
from simulations.institutions import COORDINATOR, Federation
from simulations.local_grid import LocalGrid, run_study
from simulations.results import Budget, Curve, NameList, NameRow, SiteResult, StudyResult
from simulations.sites import Site

SHAPES_SHOWN = 6
NAMES_SHOWN = 6
HALF_WIDTH = 1.959964
"""Of a two-sided 95% interval, in standard errors."""


@dataclass
class Meter:
    """Adds up what a study's rounds moved, notes what was published, and passes every event on."""

    on_event: OnEvent
    sent: int = 0
    received: int = 0
    published: str = ""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, RoundDone):
            self.sent += event.bytes_sent
            self.received += event.bytes_received
        elif isinstance(event, Published):
            self.published = event.name
        self.on_event(event)


@dataclass(frozen=True)
class Outcome:
    """A study that was run: the published model, how long it took, and the bytes that its rounds moved."""

    published: PublishedModel
    seconds: float
    sent: int
    received: int


@dataclass(frozen=True)
class Scored:
    """One institution's held-out customers: labels, and logits by its own model, the federation's and the pooled reference."""

    site: Site
    truth: Truth
    alone: Floats
    federated: Floats
    pooled: Floats

    @property
    def labels(self) -> Floats:
        """Labels, 0 or 1, [n]."""
        return self.truth.heldout_labels


def run(federation: Federation, draft: StudyDraft, sites: Sequence[Site], on_event: OnEvent) -> Outcome:
    """Run a study by the ServerApp and the ClientApp that a real federation runs, one vault for each site."""
    vaults = make_app(VaultShelf())
    nodes: dict[int, tuple[ClientApp, UserConfig]] = {
        number: (vaults, {"home": str(federation.homes[site.id].root)}) for number, site in enumerate(sites, start=1)
    }
    home = CoordinatorHome(federation.root / COORDINATOR)
    config: UserConfig = {"coordinator-home": str(home.root), "study": draft.name, "allow-plain-key": True}
    meter = Meter(on_event)
    start = time.monotonic()
    with LocalGrid(nodes) as grid:
        run_study(build_app(meter), grid, config)
    published = Registry(home.registry).load(meter.published, federation.charter.coordinator_key)
    return Outcome(published, time.monotonic() - start, meter.sent, meter.received)


def gather(federation: Federation, draft: StudyDraft, sites: Sequence[Site], outcome: Outcome) -> StudyResult:
    """Compare the published model with what each institution could have done alone, and read ledgers, lists and card."""
    contract = federation.contracts[draft.contract]
    network = _network(draft, contract, outcome.published)
    scored = _score(federation, draft, sites, network)
    labels = np.concatenate([item.labels for item in scored])
    federated = np.concatenate([item.federated for item in scored])
    pooled = np.concatenate([item.pooled for item in scored])
    at_home = np.concatenate([analysis.calibrated_at_home(item.federated, item.labels) for item in scored])
    card = outcome.published.card
    rid = card.study
    return StudyResult(
        name=draft.name,
        title=draft.title,
        summary=f"Predicted: {_small(contract.label.meaning)}. Learned from: {_small(contract.title)}.",
        model=draft.model.kind,
        mode=draft.mode,
        rounds=card.rounds,
        seconds=outcome.seconds,
        sent=outcome.sent,
        received=outcome.received,
        base_rate=float(labels.mean()),
        sites=tuple(_site_result(item, federation.homes[item.site.id], rid) for item in scored),
        roc=(
            analysis.roc("pooled", labels, pooled),
            analysis.roc("federated", labels, federated),
            released_roc(card.overall),
        ),
        lift=(analysis.lift_curve("pooled", labels, pooled), analysis.lift_curve("federated", labels, federated)),
        calibration=_calibration(labels, federated, at_home),
        released_auc=estimate_of(card.overall.auc),
        shapes=_shapes(draft, contract, network),
        names=_names([item.site for item in scored], federation, rid),
        card=sections_of(card),
    )


def _small(text: str) -> str:
    return text[0].lower() + text[1:]


def _network(draft: StudyDraft, contract: FeatureContract, published: PublishedModel) -> Network:
    network = build(draft.model, contract)
    load_weights(network, read_tensors(published.content, tensor_shapes(draft.model, contract)))
    return network


def _score(federation: Federation, draft: StudyDraft, sites: Sequence[Site], network: Network) -> list[Scored]:
    contract = federation.contracts[draft.contract]
    kind = "additive" if isinstance(draft.model, MlpModel) else draft.model.kind
    truths = [_truth(federation, draft, site, kind) for site in sites]
    pooled = analysis.fit(truths)
    return [
        Scored(
            site=site,
            truth=truth,
            alone=_alone(truth, _truth(federation, draft, site, "logistic" if kind == "additive" else "additive")),
            federated=logits_of(draft.model, contract, network, truth.cohort.columns),
            pooled=analysis.logits(pooled, truth.heldout),
        )
        for site, truth in zip(sites, truths, strict=True)
    ]


def _alone(*encoded: Truth) -> Floats:
    """Return the logits of the institution's best own model: of its regressions on each encoding, chosen with hindsight."""
    scores = [analysis.logits(analysis.fit([truth]), truth.heldout) for truth in encoded]
    labels = encoded[0].heldout_labels
    return max(scores, key=lambda own: analysis.auc(labels, own))


def _truth(federation: Federation, draft: StudyDraft, site: Site, kind: Literal["additive", "logistic"]) -> Truth:
    home = federation.homes[site.id]
    declaration = federation.charter.member(site.id).declaration(draft.contract)
    assert declaration is not None
    key = load_secret(home.holdout_key, allow_plain=True)
    contract = federation.contracts[draft.contract]
    return analysis.truth_of(load_node(home.node_file), contract, declaration, PROFILING, draft.holdout, key, kind)


def _site_result(scored: Scored, home: Home, rid: str) -> SiteResult:
    labels, site = scored.labels, scored.site
    found = delong(np.stack([scored.federated, scored.alone]), labels)
    between = np.array([1.0, -1.0])
    error = math.sqrt(max(0.0, float(between @ found.covariance @ between)))
    return SiteResult(
        id=site.id,
        title=site.title,
        declared=site.size,
        customers=len(scored.truth.training_labels),
        tested=len(labels),
        consent=site.learns,
        budget=_budget(home, site, rid),
        alone=analysis.auc(labels, scored.alone),
        federated=analysis.auc(labels, scored.federated),
        pooled=analysis.auc(labels, scored.pooled),
        lift=analysis.lift(labels, scored.federated),
        margin=HALF_WIDTH * error,
    )


def _budget(home: Home, site: Site, rid: str) -> Budget:
    """Read what the institution's ledger says of the period's budget."""
    with LedgerReader.read(home.ledger_file, home.charter().member(site.id).key) as ledger:
        reservation = ledger.reservation(rid)
        assert reservation is not None
        now = time.time_ns() // 1_000_000
        period = {item.account: item for item in ledger.spending(now) if item.budget != "life"}
        spent = {account: epsilon(ledger.events(account), item.delta) for account, item in period.items()}
    charged = {account: item.epsilon_of(item.used) for account, item in period.items()}
    return Budget(
        whole=period["training"].epsilon,
        granted=reservation.data.epsilon,
        delta=period["training"].delta,
        training=spent["training"],
        holdout=spent["holdout"],
        charged_training=charged["training"],
        charged_holdout=charged["holdout"],
        left=min(item.left_epsilon for item in period.values()),
    )


def _calibration(labels: Floats, federated: Floats, at_home: Floats) -> tuple[Curve, ...]:
    return (
        analysis.calibration_curve("federated", labels, analysis.probability(federated)),
        analysis.calibration_curve("calibrated", labels, at_home),
    )


def _shapes(draft: StudyDraft, contract: FeatureContract, network: Network) -> str:
    if isinstance(draft.model, MlpModel):
        return ""
    pairs = draft.model.pairs if isinstance(draft.model, AdditiveModel) else ()
    found = shapes(draft.model.kind, contract, weights_of(network)["linear.weight"][0], pairs=pairs)[:SHAPES_SHOWN]
    return svg(draw(found, contract.label.meaning)).decode()


def _names(sites: Sequence[Site], federation: Federation, rid: str) -> NameList | None:
    """Return the head of the first institution's list that was written, or None when nobody adopted the model."""
    for site in sites:
        home = federation.homes[site.id]
        key = unlock_store(home)
        decision = read_decision(home, rid, key)
        if decision is not None and decision.list_file is not None:
            found = read_list(home.folder("lists"), Path(decision.list_file).stem, key)
            return NameList(site.title, len(found.listed), tuple(map(_name_row, found.listed[:NAMES_SHOWN])))
    return None


def _name_row(line: Listed) -> NameRow:
    return NameRow(line.customer, line.score, line.decile, tuple(reason for reason in line.reasons if reason))
