"""The model card: what a published model is, who made it with which protection, how good it is, and what it is not for."""

from typing import Annotated, Literal

from pydantic import Field

from federation.contract import Name, Text
from federation.document import Document
from federation.shape_noise import BAND, ShapeNoise
from federation.signing import Hex32, Signature
from federation.study import AdditiveModel, Model, SecurePlan, StudySpec
from server.evaluation import Estimate, Metrics
from server.planning import least_partners

CONTEXT = "csl1/card"
Count = Annotated[int, Field(ge=0)]
Protection = Literal["local noise", "secure sums with local noise", "secure sums with shared noise"]


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
    """Everything that a reader needs to judge a model; every figure in it is public or was paid for by the vaults.

    Where vectors were added up in secret, as `spec.secure` says, there are no figures of single members: `members` is empty.
    `shape_noise` says of an additive model how far noise may have moved its curves; it is not in the encoding where it is empty, so that
    cards from before it was known keep their digests.
    """

    kind: Literal["card"] = "card"
    name: Text
    spec: StudySpec
    study: Hex32
    charter: Hex32
    federation: Name
    model: Hex32
    rounds: Annotated[int, Field(ge=1)]
    fewest_partners: Count
    protection: Protection = "local noise"
    participants: tuple[Participant, ...]
    edges: tuple[float, ...]
    overall: Metrics
    members: tuple[MemberMetrics, ...]
    shape_noise: Annotated[tuple[ShapeNoise, ...], Field(max_length=600, exclude_if=lambda value: not value)] = ()


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
            *_shaped(draft.model),
            f"- **Fewest partners in a round:** {card.fewest_partners} (the study demands {least_partners(draft)})",
            f"- **Protection:** {card.protection}. {promise(card.spec.secure)}",
            "",
            "## Who took part",
            "",
            "Epsilon is for one customer added or removed: once for those who trained, and once for those held out, who are others.",
            "",
            f"| institution | declared customers | rounds | {'in the last sum' if card.spec.secure else 'evaluated'} | epsilon | delta |",
            "| --- | ---: | ---: | --- | ---: | ---: |",
            *(_participant(item, card.rounds) for item in card.participants),
            "",
            "## How good it is",
            "",
            f"{_source(card)} 95% intervals: (what the noise hides) [and another draw of customers too].",
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
            *_noise(card),
            "## To check it",
            "",
            f"- study `{card.study}`",
            f"- charter `{card.charter}`",
            f"- model.safetensors, SHA-256 `{card.model}`",
            f"- feature contract `{card.spec.contract_digest}`",
            "",
        ]
    )


def _shaped(model: Model) -> list[str]:
    """Return what a study asked of an additive model's curves, if anything."""
    if not isinstance(model, AdditiveModel):
        return []
    held = [f"{name} {way}" for name, way in sorted(model.monotone.items())]
    paired = [f"{first} with {second}" for first, second in model.pairs]
    lines = [f"- **Held monotone after training:** {', '.join(held)}"] if held else []
    return lines + ([f"- **Pairs with a surface of their own:** {', '.join(paired)}"] if paired else [])


def _noise(card: ModelCard) -> list[str]:
    """Return how far noise may have moved the curves, widest band of each; nothing where the card does not say."""
    if not card.shape_noise:
        return []
    rows = [
        f"| {item.term} | {BAND * min(item.deviations):.3f} to {BAND * max(item.deviations):.3f} | {BAND * item.missing:.3f} |"
        for item in card.shape_noise
    ]
    return [
        "## How far noise may have moved its curves",
        "",
        "Half the width of the 95% band, in the logit, of what privacy's noise and draws put into each curve before any was held monotone. "
        "Sampling error, of the customers themselves, is not in it.",
        "",
        "| curve | at its points | not known |",
        "| --- | ---: | ---: |",
        *rows,
        "",
    ]


def promise(plan: SecurePlan | None) -> str:
    """Return in words on what the institutions' epsilons rest."""
    if plan is None:
        return "Each institution added the full noise itself; its epsilon holds whatever the others do."
    sums = f"Only sums over at least {plan.n_min} institutions were opened, by the protocol PSA-1"
    if plan.noise == "local":
        return f"{sums}. Each institution added the full noise itself; its epsilon holds whatever the others do."
    return (
        f"{sums}. The institutions' noise adds up: their epsilons hold while {colluders(plan)} with the coordinator, and as long as that "
        "protocol does."
    )


def colluders(plan: SecurePlan) -> str:
    """Return in words how many may collude with the coordinator."""
    few = {0: "none colludes", 1: "no more than one of them colludes"}
    return few.get(plan.c, f"no more than {plan.c} of them collude")


def _source(card: ModelCard) -> str:
    """Return in words what the figures are made of."""
    if card.spec.secure is None:
        return "From noisy score histograms of held-out customers."
    counted = ", ".join(item.member for item in card.participants if item.evaluated)
    return (
        "From one noisy score histogram of all held-out customers, added up in secret: no institution's own figures are known. "
        f"In it: {counted}."
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
