"""What a person sees of a sweep: progress with the time that is left, the figures by setting, and one simulation's institutions."""

import json
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from pydantic import JsonValue
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulations.engines.simulation import Simulation
from simulations.progress import ProgressView
from simulations.sweeps import fields
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
_WIDE = 12

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
    """Shows a running sweep."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
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
        here = f", {count(event.present)} of them here already" if event.present else ""
        self._say(f"{count(event.cells)} cells{here}")
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
    """Print the figures by setting."""
    paths = [path for path in sweep.varied() if path != "algorithm"]
    table = _table(sweep.title)
    for heading in ("algorithm", *(path.replace(".", ".\n") for path in paths)):
        widest = max(map(len, heading.split("\n")))
        table.add_column(escape(heading), overflow="fold", min_width=min(widest, _WIDE))
    for heading in ("seeds", "mean\nAUC", "least", "most", "worst\nplace", "mean\nlift"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows[:_MOST_ROWS]:
        own = row["settings"].get("algorithm") or {fields.KIND: row["algorithm"]}
        words = [setting("algorithm", own), *(setting(path, row["settings"][path]) for path in paths)]
        shown = [_number(row[name]) for name in ("auc_mean", "auc_mean_least", "auc_mean_most", "auc_worst")]
        table.add_row(
            *map(escape, words),
            str(row["seeds"]) + (" †" if row["rounds_failed_in"] else ""),
            *shown,
            _number(row["lift_mean"], 2),
        )
    console.print(table)
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


def show_one(console: Console, simulation: Simulation, outcome: Outcome) -> None:
    """Print one simulation's institutions, with the engine, the seed, and what to know first."""
    table = _table(simulation.title)
    table.add_column("institution")
    headings = ("declared", "ε", "held out", "base rate", "AUC", "lift\n10%", "rounds\nmissed")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in outcome.institutions[:_MOST_ROWS]:
        table.add_row(*_institution(row))
    if hidden := len(outcome.institutions) - _MOST_ROWS:
        table.caption = f"and {hidden} more institutions: see --json" if hidden > 0 else None
    table.add_section()
    whole = outcome.overall
    blank, heldout, rate = "", _whole(whole.get("heldout")), _number(whole.get("base_rate"))
    auc, mean, lift = (_number(whole.get("auc")), _number(whole.get("auc_mean")), _number(whole.get("lift"), 2))
    own = (mean, _number(whole.get("lift_mean"), 2)) if "lift_mean" in whole else (mean, blank)
    table.add_row("mean of all", *(blank,) * 4, *own, blank, style="bold")
    table.add_row("in one ranking", *(blank,) * 2, heldout, rate, auc, lift, blank, style="bold")
    console.print(table)
    for line in outcome.warnings:
        console.print(escape(line), soft_wrap=True, style="yellow")
    rounds = f", {_whole(whole.get('rounds'))} rounds" if whole.get("rounds") else ""
    console.print(
        f"{simulation.algorithm.kind}{rounds}; engine {escape(outcome.engine)}, seed {outcome.seed}. {CAUTION}",
        soft_wrap=True,
    )


def _institution(row: Row) -> tuple[str, ...]:
    name = escape(str(row["name"])) + (" (lies)" if row.get("poisoner") else "")
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


def _table(title: str) -> Table:
    return Table(
        title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )


def _number(value: JsonValue, places: int = _PLACES) -> str:
    return f"{value:.{places}f}" if isinstance(value, int | float) else "–"


def _whole(value: JsonValue) -> str:
    return count(int(value)) if isinstance(value, int | float) else "–"
