"""Questions about purchases: how exact thresholds and segments are, and what cells tell most of expected purchases, on CDNOW."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import questions_sets as sets
from lifetime_sets import Customers, by_records, customers, seen
from questions_sets import Floats, Table, Way

from client.cohort import Cohort
from federation.lifetime import Purchasing, expected_purchases
from federation.queries import Rfm
from federation.segments import LEVELS, TRADE, place_of, score, thresholds_from
from server.statistics.lifetime import FREQUENCY, RECENCY, SHARES, TENURE
from server.statistics.lifetime_fit import PULL_SD, Fitted, Grid, fit_purchasing, purchase_chances, purchasing_of
from server.statistics.rfm import RfmAsker

QUERY = Rfm(id="q", kind="rfm", recency="recency", frequency="frequency", monetary="monetary")
COLUMNS = (QUERY.recency, QUERY.frequency, QUERY.monetary)
SCORED: tuple[Literal["r", "f", "m"], ...] = ("r", "f", "m")
DECLARED = 23_500
WAYS = (Way("the whole budget", 3), Way("a quarter of the squared budget", 3, 0.25))
FOUND = ("thresholds off their levels", "segments, against exact thresholds", "against the same thresholds")
TARGET = 2.0
"""Of the worst run with the whole budget: percentile points of a threshold, and hundredths of all customers in a segment."""
TENTHS = tuple(step / 10.0 for step in range(1, 10))
FINE = Grid((2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0), TENTHS, TENTHS, (1.0,))
ASKED = Grid(FREQUENCY, RECENCY, TENURE, (1.0,))
NOISES, HORIZON, STEP = (0.5, 6.0, 25.0), 1.0, 1e-4
LEAST_VARIANCE = 0.25  # of a count, as the query's own fit takes it: keeps cells without anybody finite


def exact_cuts(values: Floats) -> list[float]:
    """Return the values above the smallest whose share of customers below is nearest to each level."""
    points = np.unique(values)[1:]
    below = np.searchsorted(np.sort(values), points, side="left") / len(values)
    return [float(points[np.argmin(np.abs(below - level))]) for level in LEVELS]


def off_by(values: Floats, level: float, cut: float) -> float:
    """Return by how many percentile points a level lies outside the ranks of the values next to a threshold."""
    low = np.mean(values < values[values < cut].max())
    high = np.mean(values <= values[values >= cut].min())
    return float(100.0 * max(low - level, level - high, 0.0))


def sizes(columns: Sequence[Floats], cuts: Sequence[Sequence[float]]) -> Floats:
    """Return the exact sizes of the trade's segments by these thresholds."""
    scores = [score(values, four, name) for values, four, name in zip(columns, cuts, SCORED, strict=True)]
    return np.bincount(place_of(TRADE, *scores), minlength=len(TRADE) + 2)[: len(TRADE)].astype(np.float64)


def segments(cohort: Cohort, seeds: int) -> list[Table]:
    """Compare thresholds with their levels, and sizes with those by exact thresholds and by the same ones; the worst of each run."""
    columns = [cohort.columns[name] for name in COLUMNS]
    truth = sizes(columns, [exact_cuts(values) for values in columns])
    rows, missed = [], []
    figures: dict[str, list[float]] = {}
    for way in WAYS:
        found = np.array([_worst(cohort, columns, truth, way, seed) for seed in range(seeds)])
        pairs = zip(np.median(found, axis=0), found.max(axis=0), strict=True)
        rows.append([way.name, *(f"{middle:.2f} ({most:.2f})" for middle, most in pairs)])
        figures |= {f"{way.name}; {name}": found[:, place].tolist() for place, name in enumerate(FOUND)}
        if way is WAYS[0] and found[:, :2].max() > TARGET:
            missed.append(f"worst run {found[:, :2].max():.2f}, target {TARGET}")
    title = (
        f"RFM on CDNOW, {len(cohort):,}, shared: worst of a run, points of all customers, {seeds} seeds: median (worst)"
    )
    return [Table(title, ["budget", *FOUND], rows, missed=missed, figures=figures)]


def _worst(cohort: Cohort, columns: Sequence[Floats], truth: Floats, way: Way, seed: int) -> list[float]:
    answer = sets.ask(RfmAsker(QUERY, sets.setting(sets.RFM, DECLARED)), sets.RFM, cohort, way, seed)
    cuts = thresholds_from(answer.table("thresholds")).cuts
    off = [
        off_by(values, level, cut)
        for values, four in zip(columns, cuts, strict=True)
        for level, cut in zip(LEVELS, four, strict=True)
    ]
    found = np.array([answer.table("segments").value(rule.name) for rule in TRADE], dtype=np.float64)
    return [max(off), *(float(100 * np.abs(found - own).max() / len(cohort)) for own in (truth, sizes(columns, cuts)))]


def cells(cache: Path) -> list[Table]:
    """Say for several levels of noise how well expected purchases are told from many cells, and from those that are asked for."""
    people = customers(cache)
    model = by_records(people)[0]
    rows, figures = [], {}
    for noise in NOISES:
        fine = off_by_parameters(people, model, fine_covariance(people, model, noise))
        fitted = asked_fit(people, model, noise)
        asked, alone = (off_by_parameters(people, model, part) for part in (fitted.covariance, fitted.noise))
        rows.append([f"{noise:g}", f"{fine:.3f}", f"{asked:.3f}", f"{alone:.3f}"])
        figures[f"{noise:g}"] = [fine, asked, alone]
    head = [
        "noise of a count (customers)",
        _shape(FINE, " x "),
        _shape(ASKED, ", tenure apart in "),
        "by the noise alone",
    ]
    title = "Error of expected purchases over their standard deviation, predicted at CDNOW's parameters"
    return [Table(title, head, rows, figures=figures)]


def _shape(grid: Grid, then: str) -> str:
    return f"{len(grid.frequency) + 1} x {len(grid.recency) + 1}{then}{len(grid.tenure) + 1}"


def fine_covariance(people: Customers, model: Purchasing, noise: float) -> Floats:
    """Return the covariance of the parameters' logarithms, [4, 4], from one table of frequency x recency x tenure."""
    theta, present = _logs(model), _present(people, FINE)
    chance = purchase_chances(model, FINE)
    mean = chance * present
    slopes = [(purchase_chances(purchasing_of(theta + STEP * row), FINE) * present - mean) / STEP for row in np.eye(4)]
    kinds = chance[..., None] * np.eye(len(present))
    jacobian = np.concatenate([np.stack(slopes, axis=-1), kinds], axis=-1).reshape(mean.size, -1)
    weighted = jacobian / (mean.ravel() + noise**2 + LEAST_VARIANCE)[:, None]
    pull = np.concatenate([np.full(4, PULL_SD**-2), np.full(len(present), 1e-12)])
    return np.asarray(np.linalg.inv(jacobian.T @ weighted + np.diag(pull))[:4, :4])


def asked_fit(people: Customers, model: Purchasing, noise: float) -> Fitted:
    """Return the query's own fit to what the model expects; its two tables share what gives one table this noise."""
    present = _present(people, ASKED)
    parts = np.array(SHARES[:2]) / sum(SHARES[:2])
    first, second = (float(item) for item in noise / np.sqrt(parts))
    return fit_purchasing(ASKED, purchase_chances(model, ASKED) @ present, present, (first, second))


def off_by_parameters(people: Customers, model: Purchasing, covariance: Floats) -> float:
    """Return how far expected purchases are off, over all customers, as a share of the standard deviation of what is expected."""
    theta, records = _logs(model), seen(people.features)
    exact = expected_purchases(model, *records, HORIZON)
    moved = [expected_purchases(purchasing_of(theta + STEP * row), *records, HORIZON) for row in np.eye(4)]
    slopes = np.stack([(item - exact) / STEP for item in moved], axis=1)
    return float(np.sqrt(np.einsum("ni,ij,nj->n", slopes, covariance, slopes).mean()) / exact.std())


def _logs(model: Purchasing) -> Floats:
    return np.log([model.r, model.alpha, model.a, model.b])


def _present(people: Customers, grid: Grid) -> Floats:
    """Return the customers by cell of tenure."""
    return np.histogram(seen(people.features)[2], [0.0, *grid.tenure, 1.0])[0].astype(np.float64)
