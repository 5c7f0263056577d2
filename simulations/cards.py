"""A published model's card in the report's terms: what the coordinator sees, and nothing else."""

from federation.study import StudyDraft
from server.card import ModelCard, promise
from server.evaluation import Estimate as NoisyEstimate
from server.evaluation import Metrics
from server.planning import least_partners
from simulations.results import Curve, Estimate
from simulations.words import scientific


def estimate_of(found: NoisyEstimate) -> Estimate:
    """Return a metric with the interval for the population."""
    low, high = found.population if found.population is not None else (None, None)
    return Estimate(found.value, low, high)


def released_roc(metrics: Metrics) -> Curve:
    """Return the ROC points that the noisy histogram gives; a bin too thin to say anything about counts as empty."""
    bins = [item for item in reversed(metrics.calibration) if item.observed is not None]
    positives = [item.customers * (item.observed or 0.0) for item in bins]
    negatives = [item.customers - yes for item, yes in zip(bins, positives, strict=True)]
    x, y = _shares(negatives), _shares(positives)
    return Curve("released", x, y)


def _shares(counts: list[float]) -> tuple[float, ...]:
    whole, running, points = sum(counts), 0.0, [0.0]
    for value in counts:
        running += value
        points.append(running / whole if whole > 0 else 0.0)
    return tuple(points)


def sections_of(card: ModelCard) -> tuple[tuple[str, str], ...]:
    """Return the model card as (heading, text)."""
    draft: StudyDraft = card.spec.draft
    who = "; ".join(
        f"{item.title}: {item.rounds} of {card.rounds} rounds, ε {item.epsilon:g}, δ {scientific(item.delta)}"
        for item in card.participants
    )
    return (
        ("Model", f"{card.name}: {draft.model.kind} on the contract {draft.contract}, trained by {draft.mode}"),
        ("Intended use", draft.intended_use),
        ("Limits", draft.limits),
        ("Purpose", draft.purpose),
        (
            "Protection",
            f"{card.protection}. {promise(card.spec.secure)}",
        ),
        ("Who took part", who),
        ("Partners", f"at least {card.fewest_partners} in every round; the study demands {least_partners(draft)}"),
        ("AUC", _told(card.overall.auc)),
        ("KS", _told(card.overall.ks)),
        ("Lift, top 10%", _told(card.overall.lift)),
        ("Study", card.study),
        ("Charter", card.charter),
        ("Weights, SHA-256", card.model),
    )


def _told(found: NoisyEstimate) -> str:
    if found.value is None or found.noise is None or found.population is None:
        return "uninformative: too few customers for the noise"
    noise, population = found.noise, found.population
    return (
        f"{found.value:.3f} (95%: {noise[0]:.3f} to {noise[1]:.3f} for what the noise hides, "
        f"{population[0]:.3f} to {population[1]:.3f} with other customers too)"
    )
