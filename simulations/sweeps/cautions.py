"""What to know before a sweep's figures: unlike base rates, who was not judged, failed rounds, no models, and what runs said themselves."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from simulations.sweeps.comparing import NOBODY, finished, grounds, titled, troubled
from simulations.sweeps.reading import Results

FACTOR = 2.0
"""Base rates further apart than this are worth a warning."""

MOST = 8
"""At most so many lines of a kind."""

_JUDGED = ("auc", "auc_mean", "log_loss")
_NUMBER = re.compile(r"\d+")
_ONE_CLASS = re.compile(r"institutions? holds? out one class only")
_NO_MODEL = re.compile(r"No round in which weights move succeeded")
_FAILED = re.compile(r"rounds? failed for want of answers")
_OF_REFERENCES_TOO = re.compile(rf"{_ONE_CLASS.pattern}|does not read")


def cautions(results: Results) -> list[str]:
    """Return sentences, the weightiest first; none where nothing is to be said. What runs said of the same is not repeated."""
    groups = [(_named(results, part), part) for _, part in results.cells.groupby("group", sort=False)]
    found = {
        _ONE_CLASS: _not_judged(results),
        _NO_MODEL: _without_model(groups),
        _FAILED: _failed_rounds(groups),
    }
    told = [same for same, lines in found.items() if lines]
    others = {line: n for line, n in results.warnings.items() if not any(same.search(line) for same in told)}
    return [*_base_rates(results), *(line for lines in found.values() for line in lines), *_said(results, others)]


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


def _not_judged(results: Results) -> list[str]:
    """Say over how many institutions means are taken, where some hold out one class only."""
    places = results.institutions
    if "base_rate" not in places:
        return []
    rows = places.merge(results.cells[["digest", "seed", "ground"]], on="digest").dropna(subset=["base_rate"])
    rates = rows["base_rate"].astype(float)
    rows = rows.assign(judged=(rates > 0) & (rates < 1))
    names, said = grounds(results), []
    for ground, part in rows.groupby("ground", sort=False):
        judged = [frozenset(one.loc[one["judged"], "name"]) for _, one in part.groupby("seed")]
        line = _means_over(judged, part["name"].nunique())
        name = names[str(ground)]
        said += [f"{name}: {line}" if name else line] if line else []
    return _few(said)


def _means_over(judged: Sequence[frozenset[str]], of: int) -> str:
    """Say over whom a ground's means are taken, given who is judged in each seed; nothing where all are."""
    numbers = sorted(map(len, judged))
    few, many = numbers[0], numbers[-1]
    if few == of:
        return ""
    if not many:
        return f"no institution of {of} has an auc or a lift: all held out one class only."
    apart = ", not the same ones in each seed" if len(set(judged)) > 1 else ""
    over = f"{few} to {many}" if few < many else str(many)
    return f"auc and lift are means over {over} of {of} institutions{apart}: the others held out one class only."


def _failed_rounds(groups: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
    return _few(
        [
            f"{name}: in {number} of {finished(cells)} finished runs rounds failed ({cells['rounds_failed'].sum():.0f} in all); "
            "everybody paid for them."
            for name, cells in groups
            if (number := troubled(cells))
        ]
    )


def _without_model(groups: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
    return _few(
        [
            f"{name}: {number} of {done} finished runs left no model; "
            + ("the figures are of the others alone." if number < done else "there are no figures.")
            for name, cells in groups
            if (number := without_model(cells)) and (done := finished(cells))
        ]
    )


def without_model(cells: pd.DataFrame) -> int:
    """Return how many cells finished without any figure to judge a model by."""
    judged = [column for column in _JUDGED if column in cells]
    return int((cells["done"] & cells[judged].isna().all(axis=1)).sum()) if judged else 0


def _few(lines: list[str]) -> list[str]:
    rest = len(lines) - MOST
    return lines if rest <= 0 else [*lines[:MOST], f"and the same of {rest} more settings."]


def _said(results: Results, warnings: Mapping[str, int]) -> list[str]:
    """Return what runs said of themselves; lines that differ in their first number alone are one.

    Beside the number of cells that said it stands how many can: training alone or pooled has no rounds and no budget to speak of.
    """
    done = finished(results.cells)
    able = finished(results.cells[~results.cells["kind"].isin(NOBODY)])
    lines = []
    for tail, found in _alike(warnings).items():
        numbers = sorted(number for number, _ in found if number is not None)
        head = "" if not numbers else f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
        times = sum(times for _, times in found)
        few = able < done and times <= able and not _OF_REFERENCES_TOO.search(tail)
        of = f"{able} finished cells, alone and pooled aside" if few else f"{done} finished cells"
        lines.append(f"{head}{tail} (said by {times} of {of})")
    return _few(lines)


def _alike(warnings: Mapping[str, int]) -> dict[str, list[tuple[int | None, int]]]:
    alike: dict[str, list[tuple[int | None, int]]] = {}
    for line, times in warnings.items():
        first = _NUMBER.match(line)
        number = None if first is None else int(first[0])
        alike.setdefault(line if first is None else line[first.end() :], []).append((number, times))
    return alike
