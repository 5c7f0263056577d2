"""How good a simulated model is, exactly, on held-out customers: a simulation may look, a real federation pays for every look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from simulations import analysis
from simulations.engines.work import Floats, Rows

SHARES = {"lift_01": 0.01, "lift_05": 0.05, "lift_10": 0.1, "lift_20": 0.2}
_LEAST_LOGIT = -30.0


@dataclass(frozen=True)
class Judged:
    """Figures over everybody's held-out customers, and by institution (NaN where a figure does not exist)."""

    overall: dict[str, float]
    by_institution: tuple[dict[str, float], ...]


def judge(heldout: Rows, logits: Floats) -> Judged:
    """Judge logits [N] of the held-out rows, each by the model that its institution would use.

    A logit that is NaN stands for no model: no figure of a part that holds one exists. Overall figures beside those of everybody's
    customers together: mean and least AUC of the institutions, and the means of their lifts; `lift` and `lift_mean` are those at 10%.
    """
    labels = heldout.labels.numpy().astype(np.float64)
    parts = tuple(
        _figures(labels[start:stop], logits[start:stop])
        for start, stop in zip(heldout.offsets[:-1].tolist(), heldout.offsets[1:].tolist(), strict=True)
    )
    aucs = [part["auc"] for part in parts]
    overall = _figures(labels, logits) | {"auc_mean": _over(np.mean, aucs), "auc_worst": _over(np.min, aucs)}
    overall |= {f"{name}_mean": _over(np.mean, [part[name] for part in parts]) for name in SHARES}
    return Judged(overall | {"lift": overall["lift_10"], "lift_mean": overall["lift_10_mean"]}, parts)


def _over(summary: Callable[[Floats], np.floating], values: Sequence[float]) -> float:
    known = np.array([value for value in values if not np.isnan(value)])
    return float(summary(known)) if len(known) else float("nan")


def _figures(labels: Floats, logits: Floats) -> dict[str, float]:
    found = {"heldout": float(len(labels)), "base_rate": float(labels.mean()) if len(labels) else float("nan")}
    both = 0.0 < found["base_rate"] < 1.0 and not np.isnan(logits).any()
    nan = float("nan")
    found["auc"] = analysis.auc(labels, logits) if both else nan
    for name, share in SHARES.items():
        found[name] = analysis.lift(labels, logits, share) if both else nan
    found["log_loss"] = log_loss(labels, logits) if len(labels) else nan
    return found


def log_loss(labels: Floats, logits: Floats) -> float:
    """Return the mean of ln(1 + exp(-s)), s the logit with the label's sign; logits are cut at 30."""
    signed = np.clip(np.where(labels > 0, logits, -logits), _LEAST_LOGIT, -_LEAST_LOGIT)
    return float(np.mean(np.log1p(np.exp(-signed))))
