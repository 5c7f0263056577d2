"""`consilience simulate compare` and `consilience simulate plot`: what a sweep showed, as tables, pictures and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from federation.errors import StorageError
from simulations.sweeps import canvas, page, plots
from simulations.sweeps.columns import Column, Grid, say_left_out, worded
from simulations.sweeps.comparing import Dropouts, Line
from simulations.sweeps.gains import Gains
from simulations.sweeps.matching import Matched, between
from simulations.sweeps.metrics import MEANING, METRICS, Metric, metric_of
from simulations.sweeps.reading import Results, read
from simulations.sweeps.summary import Summary, plain, summarise
from simulations.sweeps.view import CAUTION
from simulations.sweeps.wording import FAILED_NOTE, SAME_PLACES, counted, difference_text, finished, runs, seeds, span

_METRIC_HELP = f"What is compared: {', '.join(METRICS)}; lift is lift@10%. Of these {MEANING}"
_BY_HELP = "Path of the setting that lines are named by first, such as partners.count."

_NAME, _SETTING = 18, 24
_FIGURES = (
    Column("mean"),
    Column("95% interval", 2),
    Column("to alone", 1),
    Column("to pooled", 3),
    Column("seeds"),
)
_GAINS = (
    Column("declared", 4),
    Column("alone", 3),
    Column("federated", 2),
    Column("gain"),
    Column("95% interval", 1),
    Column("seeds", 5),
)
_DROPOUTS = (Column("missed\nrounds"), Column("mean", 1), Column("difference\nto none"), Column("seeds", 2))
_BETWEEN = (Column("first", 1), Column("second", 1), Column("difference"), Column("seeds", 2))


def compare(
    results: Annotated[Path, typer.Argument(help="Results folder of a sweep.")],
    second: Annotated[
        Path | None, typer.Argument(help="Another one, to compare with by seed where both ran the same simulation.")
    ] = None,
    metric: Annotated[str, typer.Option(help=_METRIC_HELP)] = "auc",
    by: Annotated[str | None, typer.Option(help=_BY_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Say what a sweep showed: utility against privacy, who gains by federating and who loses, what dropouts cost.

    Means are over seeds, with 95% intervals (Student's t, from three seeds on); differences are taken seed by seed. Cells that failed,
    are missing or left no model show in the number of seeds.
    """
    chosen = metric_of(metric)
    summary = summarise(read(results), chosen, by)
    other = None if second is None else read(second)
    matched = [] if other is None else between(summary.results, other, chosen)
    if as_json:
        tree = summary.as_tree()
        typer.echo(json.dumps(tree if other is None else {**tree, "between": plain(matched)}))
        return
    console = Console(highlight=False)
    show(summary, console)
    if other is not None:
        _show_between(matched, other, chosen, console)
    console.print(f"\n{CAUTION} Intervals are over seeds alone: they say nothing of other data.", style="dim")


def plot(
    results: Annotated[Path, typer.Argument(help="Results folder of a sweep.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures, as SVG and PNG.")],
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page as well.")] = None,
    metric: Annotated[str, typer.Option(help=_METRIC_HELP)] = "auc",
    by: Annotated[str | None, typer.Option(help=_BY_HELP)] = None,
) -> None:
    """Draw what a sweep showed: utility against privacy, gain by institution, the cost of dropouts, algorithms side by side."""
    summary = summarise(read(results), metric_of(metric), by)
    written = save_all(summary, out)
    if html is not None:
        page.write(summary, html)
        written.append(html)
    for path in written:
        typer.echo(str(path))


def save_all(summary: Summary, out: Path) -> list[Path]:
    """Draw every picture that the sweep has something for, and return the files.

    Raises
    ------
    StorageError
        CSL-M252 when the folder cannot be made; CSL-F301 when a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "CSL-M252", f"{out} cannot be made: {error.strerror}.", "Name another folder with --out."
        ) from error
    figures = {"frontier": plots.frontier(summary.lines, summary.metric, summary.trusted)}
    figures |= {
        f"gains-{number}": plots.gains(found, summary.own) for number, found in enumerate(summary.gains, start=1)
    }
    if summary.dropouts:
        figures["dropouts"] = plots.dropouts(summary.dropouts, summary.metric)
    if summary.panels:
        figures["algorithms"] = plots.algorithms(summary.panels, summary.metric)
    return [path for name, figure in figures.items() for path in canvas.save(figure, out, name)]


def show(summary: Summary, console: Console) -> None:
    """Print the comparison as tables."""
    console.print(f"[bold]{escape(summary.results.title)}[/bold]: {escape(finished(summary.results))}", soft_wrap=True)
    for line in summary.cautions:
        console.print(escape(line), soft_wrap=True, style="yellow")
    left_out = _show_lines((*summary.lines, *summary.trusted), summary.metric, console)
    for found in summary.gains:
        left_out += _show_gains(found, summary.own, console)
    if summary.gains:
        console.print(SAME_PLACES, style="dim", soft_wrap=True)
    if summary.dropouts:
        left_out += _dropouts_grid(summary.dropouts, summary.metric).show(console)
    say_left_out(console, left_out)


def _show_lines(lines: Sequence[Line], metric: Metric, console: Console) -> list[str]:
    """Print a table for each line; the references stand below the first line on their data. Return which columns were left out."""
    told: set[str] = set()
    left_out: list[str] = []
    for line in lines:
        grid = Grid(f"{metric.title}: {line.title}", worded("ε"), *_FIGURES)
        for point in line.points:
            to = [difference_text(value, metric, point.value.have) for value in (point.to_alone, point.to_pooled)]
            seen = runs(point.value, point.troubled)
            grid.add(point.budget, metric.shown(point.value.value), span(point.value, metric), *to, seen)
        for name, value in (("alone", line.alone), ("pooled", line.pooled)):
            if value is not None and line.ground not in told:
                row = (name, metric.shown(value.value), span(value, metric), "", "", seeds(value))
                grid.add(*row, style="dim")
        told.add(line.ground)
        left_out += grid.show(console)
    if any(point.troubled for line in lines for point in line.points):
        console.print(FAILED_NOTE)
    return left_out


def _show_gains(found: Gains, metric: Metric, console: Console) -> tuple[str, ...]:
    title = f"Gain by institution over training alone, {metric.short}: {found.title}"
    grid = Grid(title, worded("institution", least=_NAME), *_GAINS)
    for row in found.rows:
        mark = {1: " ▲", -1: " ▼", 0: " ·"}[row.gain.certain]
        grid.add(
            row.name + (" (lies)" if row.poisoner else ""),
            str(row.declared),
            metric.shown(row.alone.value),
            metric.shown(row.federated.value),
            metric.shown(row.gain.value, signed=True) + mark,
            span(row.gain, metric, signed=True),
            seeds(row.gain),
        )
    left_out = grid.show(console)
    console.print(counted(found), soft_wrap=True)
    return left_out


def _dropouts_grid(found: Sequence[Dropouts], metric: Metric) -> Grid:
    grid = Grid(f"Dropouts: {metric.title}", worded("", least=_SETTING), *_DROPOUTS)
    for line in found:
        rows = zip(line.shares, line.values, line.costs, line.troubled, strict=True)
        for place, (share, value, cost, troubled) in enumerate(rows):
            grid.add(
                line.title if place == 0 else "",
                f"{100 * share:g}%",
                metric.shown(value.value),
                difference_text(cost, metric, value.have),
                runs(value, troubled),
            )
    return grid


def _show_between(matched: Sequence[Matched], other: Results, metric: Metric, console: Console) -> None:
    console.print(f"\n[bold]{escape(other.title)}[/bold]: {escape(finished(other))}", soft_wrap=True)
    if not matched:
        console.print("The two sweeps have no simulation in common: compare each by itself.")
        return
    title = f"Second less first, seed by seed: {metric.title}"
    grid = Grid(title, worded("", least=_SETTING), *_BETWEEN)
    for row in matched:
        figures = (
            metric.shown(row.first.value),
            metric.shown(row.second.value),
            difference_text(row.change, metric, row.change.have),
        )
        grid.add(row.title, *figures, seeds(row.change))
    say_left_out(console, grid.show(console))
