"""A made-up federation of shops on the contract `rfm`, at both times, for the askers of segments and stages."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort
from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.measures import At, Cells, Centres, shape_of
from server.statistics.asking import Setting, Sum

CONFIGS = Path(__file__).parents[3] / "configs"
RFM = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
BUDGET = 2000.0
SD = 16_384.0
"""Together: counts with the whole budget of a round have noise of 8.2 customers."""


def features(generator: np.random.Generator, size: int) -> dict[str, NDArray[np.float64]]:
    """Draw customers: many with one purchase, heavy-tailed amounts, recency in [0, 1]; nothing known of the rhythm of one purchase."""
    frequency = np.minimum(1.0 + generator.geometric(0.45, size) - 1.0, 365.0)
    tenure = generator.random(size)
    recency = tenure * np.where(frequency > 1, generator.beta(1.0, 2.0, size), 1.0)
    overdue = np.where(frequency > 1, recency / np.maximum(tenure - recency, 1e-3) * (frequency - 1.0), np.nan)
    return {
        "recency": recency,
        "frequency": frequency,
        "monetary": np.exp(generator.normal(0.0, 0.7, size)),
        "tenure": tenure,
        "overdue": overdue,
        "trend": np.where(frequency > 1, generator.uniform(-1.0, 1.0, size), np.nan),
    }


def cohorts(generator: np.random.Generator, size: int = 6000, shops: int = 3) -> list[dict[At, Cohort]]:
    """Draw both times of each shop: a fifth leave until the end, and as many come."""
    found: list[dict[At, Cohort]] = []
    for shop in range(shops):
        ids = np.array([f"{shop}-{number:06d}" for number in range(size // shops)], dtype=object)
        start = Cohort(ids, features(generator, len(ids)))
        later = features(generator, len(ids))
        stayed = generator.random(len(ids)) < 0.8
        end = Cohort(np.where(stayed, ids, ids + "-new"), later)
        found.append({"start": start, "end": end})
    return found


def pooled(shops: list[dict[At, Cohort]], name: str) -> NDArray[np.float64]:
    """Return a column of all customers at the start."""
    return np.concatenate([shop["start"].columns[name] for shop in shops])


def exact(measures: tuple[Cells | Centres, ...], shops: list[dict[At, Cohort]]) -> list[NDArray[np.float64]]:
    """Return each measure's sums over all shops, without noise, float64 of its shape."""
    people = [People.of(RFM, shop) for shop in shops]
    total = np.sum([measure_all(measures, item, RFM) for item in people], axis=0).astype(np.float64)
    parts, start = [], 0
    for item in measures:
        shape = shape_of(item, RFM)
        size = int(np.prod(shape))
        parts.append(total[start : start + size].reshape(shape))
        start += size
    return parts


def noisy(
    measures: tuple[Cells | Centres, ...], parts: list[NDArray[np.float64]], generator: np.random.Generator
) -> list[Sum]:
    """Return the sums with normal noise of `SD`."""
    return [
        Sum(item, part + generator.normal(0.0, SD, part.shape), SD) for item, part in zip(measures, parts, strict=True)
    ]


def setting(customers: int = 6000, confidence: float = 0.95) -> Setting:
    """Return the askers' setting."""
    return Setting(RFM, customers, SD, confidence)
