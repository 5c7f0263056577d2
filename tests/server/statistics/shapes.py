"""Made-up customers in round groups, for the askers of segments: a contract of plain columns, and institutions that share the groups."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort
from federation.contract import FeatureContract
from federation.measures import At

Floats = NDArray[np.float64]

CONTRACT = FeatureContract.model_validate_json(
    """{"name": "shapes", "version": 1, "title": "Shapes", "source": "table",
    "columns": [
      {"kind": "numeric", "name": "x", "meaning": "East", "unit": "km", "low": 0, "high": 10, "knots": [0, 5, 10]},
      {"kind": "numeric", "name": "y", "meaning": "North", "unit": "km", "low": 0, "high": 10, "knots": [0, 5, 10]},
      {"kind": "numeric", "name": "spend", "meaning": "Spent", "unit": "euro", "low": 0, "high": 1000, "scale": "log",
       "knots": [0, 10, 1000]},
      {"kind": "flag", "name": "member", "meaning": "Is a member"},
      {"kind": "categorical", "name": "town", "meaning": "Town", "categories": ["a", "b"]}],
    "label": {"name": "left", "meaning": "Left"}}"""
)


def groups(
    generator: np.random.Generator, middles: Sequence[tuple[float, float]], size: int, width: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw points [n, 2] evenly within `width` of the middles, and say of each which group it is from."""
    which = generator.choice(len(middles), size)
    angle, radius = generator.random(size) * 2 * np.pi, width * np.sqrt(generator.random(size))
    return np.asarray(middles)[which] + np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None], which


def cohorts(points: Floats, institutions: int = 3, **more: Floats) -> list[dict[At, Cohort]]:
    """Share points [n, 2], and more columns, out among institutions."""
    columns = {"x": points[:, 0], "y": points[:, 1], **more}
    parts = [np.arange(place, len(points), institutions) for place in range(institutions)]
    return [
        {
            "start": Cohort(
                np.array([f"c{number}" for number in part], dtype=object),
                {name: values[part] for name, values in columns.items()},
            )
        }
        for part in parts
    ]
