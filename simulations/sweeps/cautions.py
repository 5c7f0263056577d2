"""What to know before a sweep's figures: unlike base rates, rounds that failed, runs without a model, and what runs said themselves."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from simulations.sweeps.comparing import titled, troubled
from simulations.sweeps.reading import Results

FACTOR = 2.0
"""Base rates further apart than this are worth a warning."""

MOST = 8
"""At most so many lines of a kind."""

_JUDGED = ("auc", "auc_mean", "log_loss")
_NUMBER = re.compile(r"\d+")


def cautions(results: Results) -> list[str]:
    """Return sentences, the weightiest first; none where nothing is to be said."""
    groups = [(_named(results, part), part) for _, part in results.cells.groupby("group", sort=False)]
    return [*_base_rates(results), *_without_model(groups), *_failed_rounds(groups), *_said(results)]


def _named(results: Results, cells: pd.DataFrame) -> str:
    settings = {path: str(cells[path].iloc[0]) for path in results.varied()}
    kind = str(cells["kind"].iloc[0])
    return f"{kind}, {titled(settings)}" if bool(cells["reference"].iloc[0]) else titled(settings)


def _base_rates(results: Results) -> list[str]:
    """Warn of the settings in which institutions' shares of the label differ most, over all seeds' held-out customers."""
    places = results.institutions
    if not {"base_rate", "heldout"} <= set(places.columns):
        return []
    rows = places.merge(results.cells[["digest", "ground"]], on="digest").dropna(subset=["base_rate", "heldout"])
    rows = rows.assign(cases=rows["base_rate"].astype(float) * rows["heldout"].astype(float))
    sums = rows.groupby(["ground", "name"])[["cases", "heldout"]].sum()
    rates = (sums["cases"] / sums["heldout"].where(sums["heldout"] > 0)).dropna().groupby("ground")
    ends = zip(rates.min().tolist(), rates.max().tolist(), strict=True)
    wide = [(most / least if least else math.inf, least, most) for least, most in ends if most > FACTOR * least]
    if not wide:
        return []
    _, least, most = max(wide)
    return [
        f"Base rates of institutions differ by more than a factor of {FACTOR:g} (from {least:.1%} to {most:.1%} of held-out "
        "customers): figures in one ranking over all (auc_ranking) reward a model that knows where a customer is from, not who. Judge by "
        "auc or lift, the means over institutions."
    ]


def _failed_rounds(groups: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
    return _few(
        [
            f"{name}: in {number} of {_done(cells)} finished runs rounds failed ({cells['rounds_failed'].sum():.0f} in all); "
            "everybody paid for them."
            for name, cells in groups
            if (number := troubled(cells))
        ]
    )


def _without_model(groups: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
    return _few(
        [
            f"{name}: {number} of {_done(cells)} finished runs left no model; the figures are of the others alone."
            for name, cells in groups
            if (number := without_model(cells))
        ]
    )


def without_model(cells: pd.DataFrame) -> int:
    """Return how many cells finished without any figure to judge a model by."""
    judged = [column for column in _JUDGED if column in cells]
    return int((cells["done"] & cells[judged].isna().all(axis=1)).sum()) if judged else 0


def _done(cells: pd.DataFrame) -> int:
    return int(cells["done"].sum())


def _few(lines: list[str]) -> list[str]:
    rest = len(lines) - MOST
    return lines if rest <= 0 else [*lines[:MOST], f"and the same of {rest} more settings."]


def _said(results: Results) -> list[str]:
    """Return what runs said of themselves; lines that differ in their first number alone are one."""
    finished, _ = results.finished()
    lines = []
    for tail, found in _alike(results.warnings).items():
        numbers = sorted(number for number, _ in found if number is not None)
        head = "" if not numbers else f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
        lines.append(f"{head}{tail} (said by {sum(times for _, times in found)} of {finished} finished cells)")
    return _few(lines)


def _alike(warnings: Mapping[str, int]) -> dict[str, list[tuple[int | None, int]]]:
    alike: dict[str, list[tuple[int | None, int]]] = {}
    for line, times in warnings.items():
        first = _NUMBER.match(line)
        number = None if first is None else int(first[0])
        alike.setdefault(line if first is None else line[first.end() :], []).append((number, times))
    return alike
