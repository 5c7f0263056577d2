"""All that is said of a sweep in one place: what tables, pages and JSON are made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from federation.errors import DocumentError
from simulations.sweeps import comparing
from simulations.sweeps.cautions import cautions
from simulations.sweeps.comparing import Dropouts, Line, Panel
from simulations.sweeps.document import load_sweep
from simulations.sweeps.gains import Gains, gain_by_institution
from simulations.sweeps.metrics import METRICS, Metric
from simulations.sweeps.reading import EPSILON, Results
from simulations.sweeps.store import SWEEP, Store
from simulations.words import count

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
    check_metric(results, metric)
    lines = comparing.frontier(results, metric, by)
    own = metric if metric.own in results.institutions else METRICS["auc"]
    points = comparing.middle(lines)[:MOST_GAINS]
    gains = [gain_by_institution(results, own, point.group) for point in points]
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


def check_metric(results: Results, metric: Metric) -> None:
    """Refuse a metric that no cell has.

    Raises
    ------
    DocumentError
        CSL-M249 when there is nothing finished to compare, or none of it has the metric.
    """
    finished = results.cells[results.cells["done"]]
    if finished.empty:
        raise _nothing_finished(results)
    if metric.column not in finished or finished[metric.column].isna().all():
        raise DocumentError("CSL-M249", f"No finished cell has the metric {metric.name}.", "Name another by --metric.")


def _nothing_finished(results: Results) -> DocumentError:
    """Return what refuses results without a finished cell: what lies in their folder instead, and what computes them."""
    folder = results.folder
    if folder is None:
        return DocumentError(
            "CSL-M249",
            "No cell of this sweep is finished by this version of the program on these files.",
            f"Run `{results.repeat}` first.",
        )
    others = len(set(Store(folder).present()) - set(results.cells["digest"]))
    there = (
        f" {count(others)} cell{' is' if others == 1 else 's are'} there of an older version of the program, of other files or of "
        "another sweep."
        if others
        else ""
    )
    run = f"Run `{results.repeat}` first."
    if _planned(folder):
        run = f"It looks like a folder of plans: give its `consilience simulate plan … --out {folder}` again."
    return DocumentError(
        "CSL-M249",
        f"No cell in {folder} is finished by this version of the program on these files.{there}",
        run,
    )


def _planned(folder: Path) -> bool:
    """Return whether a folder's sweep is what a plan asks for: one study without noise first, then at each epsilon."""
    sweep = load_sweep(folder / SWEEP)
    return sweep.varied() == (EPSILON,) and not sweep.also and sweep.over[EPSILON][0] is None


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
