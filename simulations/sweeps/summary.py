"""All that is said of a sweep in one place: what tables, pages and JSON are made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from simulations.sweeps import comparing
from simulations.sweeps.cautions import cautions
from simulations.sweeps.comparing import Dropouts, Gains, Line, Panel
from simulations.sweeps.metrics import METRICS, Metric
from simulations.sweeps.reading import Results

MOST_GAINS = 4
"""Gains by institution are shown for so many lines, each at its epsilon nearest to 1."""


@dataclass(frozen=True, eq=False)
class Summary:
    """A sweep's results, compared.

    Attributes
    ----------
    lines, trusted:
        The metric against epsilon: of the sweep's settings, and of one party that everybody trusts with the same budget.
    gains, own:
        Gains by institution, and the metric that they are of: that of the comparison where institutions have it, else the AUC.
    dropouts, panels:
        Empty where dropouts, or algorithms, were not varied.
    cautions:
        What to know before the figures.
    """

    results: Results
    metric: Metric
    lines: tuple[Line, ...]
    trusted: tuple[Line, ...]
    gains: tuple[Gains, ...]
    own: Metric
    dropouts: tuple[Dropouts, ...]
    panels: tuple[Panel, ...]
    cautions: tuple[str, ...]

    def as_tree(self) -> dict[str, Any]:
        """Return it as JSON values: NaN becomes null."""
        finished, asked = self.results.finished()
        return {
            "sweep": self.results.name,
            "metric": self.metric.name,
            "seeded": True,
            "cells": {"finished": finished, "asked": asked},
            "cautions": list(self.cautions),
            "frontier": plain(self.lines),
            "pooled_dp": plain(self.trusted),
            "gains": plain(self.gains),
            "dropouts": plain(self.dropouts),
            "repeat": self.results.repeat,
        }


def summarise(results: Results, metric: Metric, by: str | None = None) -> Summary:
    """Compare everything that a sweep has to compare.

    Raises
    ------
    DocumentError
        CSL-M249 when there is nothing finished, or nothing that has the metric; CSL-M250 for an unknown `by`.
    """
    comparing.check_metric(results, metric)
    lines = comparing.frontier(results, metric, by)
    own = metric if metric.own in results.institutions else METRICS["auc"]
    points = comparing.middle(lines)[:MOST_GAINS]
    gains = [comparing.gain_by_institution(results, own, point.group) for point in points]
    return Summary(
        results,
        metric,
        tuple(lines),
        tuple(comparing.pooled_private(results, metric)),
        tuple(found for found in gains if any(row.gain.have for row in found.rows)),
        own,
        tuple(comparing.cost_of_dropouts(results, metric, by)),
        tuple(comparing.side_by_side(results, metric)),
        tuple(cautions(results)),
    )


def plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return dataclasses, tuples and floats as JSON values; what is no finite number becomes None."""
    if isinstance(value, Metric):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return value
