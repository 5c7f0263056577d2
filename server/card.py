"""The model card: what a published model is, who made it with which protection, how good it is, and what it is not for."""

from typing import Annotated, Literal

from pydantic import Field

from federation.contract import Name, Text
from federation.document import Document
from federation.signing import Hex32, Signature
from federation.study import StudySpec
from server.evaluation import Estimate, Metrics

CONTEXT = "csl1/card"
Count = Annotated[int, Field(ge=0)]


class Participant(Document):
    """One institution's part: the rounds it took part in, and the terms that it granted, as it declared and signed them.

    `epsilon` and `delta` hold for the customers who trained, and again for those held out, who are other customers;
    `evaluated` says whether its held-out customers were counted at all.
    """

    member: Name
    title: Text
    declared_size: Annotated[int, Field(ge=1)]
    rounds: Count
    evaluated: bool
    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    noise_multiplier: Annotated[float, Field(gt=0)]
    histogram_sigma: Annotated[float, Field(gt=0)]


class MemberMetrics(Document):
    """How the model does on one institution's held-out customers."""

    member: Name
    metrics: Metrics


class ModelCard(Document):
    """Everything that a reader needs to judge a model; every figure in it is public or was paid for by the vaults."""

    kind: Literal["card"] = "card"
    name: Text
    spec: StudySpec
    study: Hex32
    charter: Hex32
    federation: Name
    model: Hex32
    rounds: Annotated[int, Field(ge=1)]
    fewest_partners: Count
    protection: Literal["local noise"] = "local noise"
    participants: tuple[Participant, ...]
    edges: tuple[float, ...]
    overall: Metrics
    members: tuple[MemberMetrics, ...]


class SealedCard(Document):
    """A card with the coordinator's signature."""

    card: ModelCard
    signature: Signature


def render(card: ModelCard) -> str:
    """Return the card as Markdown, for people."""
    draft, training = card.spec.draft, card.spec.training
    spread = training.steps // training.rounds
    steps = "" if spread == 1 else f", {spread} local steps each"
    return "\n".join(
        [
            f"# {draft.title}",
            "",
            f"Model `{card.name}` of the federation *{card.federation}*.",
            "",
            f"- **Intended use:** {draft.intended_use}",
            f"- **Limits:** {draft.limits}",
            f"- **Purpose:** {draft.purpose}",
            f"- **Model:** {draft.model.kind} on the contract {draft.contract}; trained by {training.mode} in {card.rounds} rounds{steps}",
            f"- **Fewest partners in a round:** {card.fewest_partners} (the study demands {draft.min_partners})",
            f"- **Protection:** {card.protection}. Each institution added the full noise itself; its epsilon holds whatever the others do.",
            "",
            "## Who took part",
            "",
            "Epsilon is for one customer added or removed: once for those who trained, and once for those held out, who are others.",
            "",
            "| institution | declared customers | rounds | evaluated | epsilon | delta |",
            "| --- | ---: | ---: | --- | ---: | ---: |",
            *(_participant(item, card.rounds) for item in card.participants),
            "",
            "## How good it is",
            "",
            "From noisy score histograms of held-out customers. 95% intervals: (what the noise hides) [and another draw of customers too].",
            "",
            "| on | AUC | KS | lift in the top 10% |",
            "| --- | --- | --- | --- |",
            _metrics("all together", card.overall),
            *(_metrics(item.member, item.metrics) for item in card.members),
            "",
            "### Calibration, all together",
            "",
            "| predicted | customers, about | observed | 95% interval |",
            "| --- | ---: | ---: | --- |",
            *_calibration(card.overall),
            "",
            "## To check it",
            "",
            f"- study `{card.study}`",
            f"- charter `{card.charter}`",
            f"- model.safetensors, SHA-256 `{card.model}`",
            f"- feature contract `{card.spec.contract_digest}`",
            "",
        ]
    )


def _participant(item: Participant, rounds: int) -> str:
    return (
        f"| {item.title} ({item.member}) | {item.declared_size} | {item.rounds} of {rounds} | {'yes' if item.evaluated else 'no'} "
        f"| {item.epsilon:.3g} | {item.delta:.2g} |"
    )


def _metrics(who: str, metrics: Metrics) -> str:
    if not metrics.informative:
        return f"| {who} | uninformative: too few customers for the noise | | |"
    return f"| {who} | {_figure(metrics.auc)} | {_figure(metrics.ks)} | {_figure(metrics.lift)} |"


def _figure(estimate: Estimate) -> str:
    if estimate.value is None or estimate.noise is None or estimate.population is None:
        return "uninformative"
    noise, population = estimate.noise, estimate.population
    return f"{estimate.value:.3f} ({noise[0]:.3f} to {noise[1]:.3f}) [{population[0]:.3f} to {population[1]:.3f}]"


def _calibration(metrics: Metrics) -> list[str]:
    rows = []
    for item in metrics.calibration:
        observed = "too few" if item.observed is None else f"{item.observed:.3f}"
        interval = "" if item.interval is None else f"{item.interval[0]:.3f} to {item.interval[1]:.3f}"
        rows.append(f"| {item.low:.3f} to {item.high:.3f} | {item.customers} | {observed} | {interval} |")
    return rows
