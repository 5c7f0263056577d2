"""What a person sees of a sweep: progress with the time that is left, the figures by setting, and one simulation's institutions."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from pydantic import JsonValue
from rich.console import Console
from rich.markup import escape

from simulations.engines.simulation import Simulation
from simulations.progress import ProgressView
from simulations.sweeps import fields
from simulations.sweeps.columns import Column, Grid, say_left_out, worded
from simulations.sweeps.document import Cell, Sweep
from simulations.sweeps.outcome import Outcome, Row
from simulations.sweeps.running import Begun, Computed, Event
from simulations.sweeps.store import Stored
from simulations.sweeps.workers import Failure
from simulations.words import count

PLAIN_LINES = 20
"""Without a terminal, about so many lines of progress."""

_MINUTE, _HOUR = 60, 3600
_MOST_ROWS = 60
_PLACES = 3
_SETTING, _NAME = 24, 18
_FIGURES = (("seeds", 0), ("mean\nAUC", 0), ("least", 2), ("most", 2), ("worst\nplace", 1), ("mean\nlift", 1))
_INSTITUTION = (
    ("declared", 3),
    ("ε", 0),
    ("held out", 2),
    ("base rate", 4),
    ("AUC", 0),
    ("lift\n10%", 1),
    ("rounds\nmissed", 5),
)
"""Headings of figures, each with its rank as in `Column`."""

CAUTION = (
    "Draws, noise and faults were made from the seed, so that figures can be repeated: nothing here protects anybody."
)


def duration(seconds: float) -> str:
    """Write a stretch of time as a person would say it."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


class SweepView(ProgressView):
    """Shows a running sweep; `part` says which, where a command runs several."""

    def __init__(self, console: Console, part: str = "") -> None:
        super().__init__(console)
        self._part = part
        self._cells = 0

    def event(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, Begun):
            self._begun(event)
        else:
            self._computed(event)

    def _begun(self, event: Begun) -> None:
        self._cells = event.cells
        for digest in event.moved:
            self._say(f"damaged, moved aside: {digest}.parquet")
        which = "all" if event.present == event.cells else f"{count(event.present)} of them"
        here = f", {which} here already" if event.present else ""
        part = f"{self._part}: " if self._part else ""
        self._say(f"{part}{count(event.cells)} cells{here}")
        self._task = self._progress.add_task("cells", total=event.cells, completed=event.present, note="")

    def _computed(self, event: Computed) -> None:
        what = event.answer.what
        if isinstance(what, Failure):
            self._say(f"failed: {named(event.answer.cell)}: {what.code} {what.cause}")
        left = f"about {duration(event.left)} left" if event.left else ""
        if self._task is not None:
            self._progress.update(self._task, completed=event.done, note=left)
        every = max(1, self._cells // PLAIN_LINES)
        if not self._console.is_terminal and (event.done % every == 0 or event.done == self._cells):
            self._say(f"{count(event.done)} of {count(self._cells)}" + (f", {left}" if left else ""))

    def _say(self, line: str) -> None:
        self._console.print(escape(line), soft_wrap=True)


def named(cell: Cell) -> str:
    """Return a cell's algorithm, settings and seed in one line."""
    settings = [f"{path} {setting(path, value)}" for path, value in cell.settings.items() if path != "algorithm"]
    return ", ".join([cell.simulation.algorithm.kind, *settings, f"seed {cell.seed}"])


def setting(path: str, value: JsonValue) -> str:
    """Write a setting's value: an object by its kind, and by what differs from the defaults."""
    return _short(fields.telling(Simulation, path, value))


def _short(value: JsonValue) -> str:
    if isinstance(value, dict):
        rest = [f"{name} {_short(part)}" for name, part in value.items() if name != fields.KIND]
        return ", ".join([*([str(value[fields.KIND])] if fields.KIND in value else []), *rest]) or "as usual"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def figures(wanted: Sequence[Cell], stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Return one row for each setting of a sweep: algorithm, settings, and over its seeds the median of each figure.

    `auc_mean` and `lift_mean` are means of the institutions' own, the first with the least and the most of a seed; `auc` and `lift` are
    those of everybody's held-out customers in one ranking, where a model that knows its institution's base rate has an advantage.
    `rounds_failed_in` counts the seeds in which rounds failed.
    """
    by_digest = {one.digest: one for one in stored}
    groups: dict[str, tuple[Cell, list[Stored]]] = {}
    for cell in wanted:
        if cell.digest in by_digest:
            key = json.dumps([cell.simulation.algorithm.kind, cell.settings])
            groups.setdefault(key, (cell, []))[1].append(by_digest[cell.digest])
    return [
        {
            "algorithm": cell.simulation.algorithm.kind,
            "settings": cell.settings,
            "seeds": len(found),
            "auc_mean": _median(found, "auc_mean"),
            "auc_mean_least": _over(found, "auc_mean", min),
            "auc_mean_most": _over(found, "auc_mean", max),
            "auc": _median(found, "auc"),
            "auc_worst": _median(found, "auc_worst"),
            "lift_mean": _median(found, "lift_mean"),
            "lift": _median(found, "lift"),
            "rounds_failed_in": sum(value > 0 for value in _values(found, "rounds_failed")),
        }
        for cell, found in groups.values()
    ]


def _values(found: Sequence[Stored], name: str) -> list[float]:
    values = [one.value(name) for one in found if name in one.overall]
    return [float(value) for value in values if value is not None]


def _median(found: Sequence[Stored], name: str) -> float | None:
    return _over(found, name, median)


def _over(found: Sequence[Stored], name: str, how: Callable[[list[float]], float]) -> float | None:
    values = _values(found, name)
    return how(values) if values else None


def show_figures(console: Console, sweep: Sweep, rows: Sequence[dict[str, Any]]) -> None:
    """Print the figures by setting: a column for each that is varied, or all in one column of words where the terminal is too narrow."""
    grid = _figures(sweep, rows[:_MOST_ROWS], stacked=False)
    if grid.width() > console.width:
        grid = _figures(sweep, rows[:_MOST_ROWS], stacked=True)
    say_left_out(console, grid.show(console))
    if len(rows) > _MOST_ROWS:
        console.print(f"and {len(rows) - _MOST_ROWS} more settings; all are in the results")
    console.print(
        "Medians over seeds. Mean AUC: of the institutions' own, on their held-out customers, with the least and the most of a seed; worst "
        "place: the AUC of the worst institution; mean lift: of the institutions' own, among their best-scored 10%. "
        + CAUTION,
        style="dim",
        soft_wrap=True,
    )
    if any(row["rounds_failed_in"] for row in rows):
        console.print("† rounds failed in some of these runs.", style="yellow")


def _figures(sweep: Sweep, rows: Sequence[dict[str, Any]], stacked: bool) -> Grid:
    paths = [path for path in sweep.varied() if path != "algorithm"]
    headings = ["setting"] if stacked else ["algorithm", *(path.replace(".", ".\n") for path in paths)]
    figured = [Column(heading, rank) for heading, rank in _FIGURES]
    grid = Grid(sweep.title, *(worded(heading, least=_SETTING) for heading in headings), *figured)
    for row in rows:
        own = setting("algorithm", row["settings"].get("algorithm") or {fields.KIND: row["algorithm"]})
        words = [own, *(setting(path, row["settings"][path]) for path in paths)]
        shown = [_number(row[name]) for name in ("auc_mean", "auc_mean_least", "auc_mean_most", "auc_worst")]
        grid.add(
            *([", ".join([own, *_said(sweep, row, paths)])] if stacked else words),
            str(row["seeds"]) + (" †" if row["rounds_failed_in"] else ""),
            *shown,
            _number(row["lift_mean"], 2),
        )
    return grid


def _said(sweep: Sweep, row: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    """Return a row's settings in words: those of every combination, and of the others what differs from the base."""
    base = sweep.study.model_dump(mode="json")
    ends = Counter(path.rpartition(".")[2] for path in paths)
    said = []
    for path in paths:
        value, last = row["settings"][path], path.rpartition(".")[2]
        kinds = fields.paths(Simulation).get(path, ()) if path.startswith("algorithm.") else ()
        known = not kinds or row["algorithm"] in kinds
        if known and (path in sweep.over or value != fields.look(base, path)):
            said.append(f"{last if ends[last] == 1 else path} {setting(path, value)}")
    return said


def show_one(console: Console, simulation: Simulation, outcome: Outcome) -> None:
    """Print one simulation's institutions, with the engine, the seed, and what to know first."""
    grid = Grid(simulation.title, worded("institution", least=_NAME), *(Column(*column) for column in _INSTITUTION))
    for row in outcome.institutions[:_MOST_ROWS]:
        grid.add(*_institution(row))
    whole = outcome.overall
    blank, heldout, rate = "", _whole(whole.get("heldout")), _number(whole.get("base_rate"))
    auc, mean, lift = (_number(whole.get("auc")), _number(whole.get("auc_mean")), _number(whole.get("lift"), 2))
    own = (mean, _number(whole.get("lift_mean"), 2)) if "lift_mean" in whole else (mean, blank)
    have, of = sum(row.get("auc") is not None for row in outcome.institutions), len(outcome.institutions)
    averaged = "mean of all" if have == of else f"mean of {have} of {of}"
    grid.add(averaged, *(blank,) * 4, *own, blank, style="bold", after_line=True)
    grid.add("in one ranking", *(blank,) * 2, heldout, rate, auc, lift, blank, style="bold")
    left_out = grid.show(console)
    if of > _MOST_ROWS:
        console.print(f"and {of - _MOST_ROWS} more institutions: see --json")
    say_left_out(console, left_out)
    for line in outcome.warnings:
        console.print(escape(line), soft_wrap=True, style="yellow")
    rounds = f", {_whole(whole.get('rounds'))} rounds" if whole.get("rounds") else ""
    console.print(
        f"{simulation.algorithm.kind}{rounds}; engine {escape(outcome.engine)}, seed {outcome.seed}. {CAUTION}",
        soft_wrap=True,
    )


def _institution(row: Row) -> tuple[str, ...]:
    name = str(row["name"]) + (" (lies)" if row.get("poisoner") else "")
    epsilon = row.get("epsilon")
    return (
        name,
        _whole(row.get("declared")),
        "none" if epsilon is None else f"{epsilon:g}",
        _whole(row.get("heldout")),
        _number(row.get("base_rate")),
        _number(row.get("auc")),
        _number(row.get("lift"), 2),
        _whole(row.get("missed")),
    )


def _number(value: JsonValue, places: int = _PLACES) -> str:
    return f"{value:.{places}f}" if isinstance(value, int | float) else "–"


def _whole(value: JsonValue) -> str:
    return count(int(value)) if isinstance(value, int | float) else "–"
