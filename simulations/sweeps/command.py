"""`consilience simulate run` and `consilience simulate sweep`: one simulated study from a file, and many."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from federation.document import load_yaml
from federation.errors import DocumentError, ExitCode
from simulations.engines.simulation import Simulation
from simulations.fetch import default_cache
from simulations.sweeps import view
from simulations.sweeps.document import Cell, EngineName, Sweep, cells, check_paths
from simulations.sweeps.outcome import Outcome, Run, measure
from simulations.sweeps.running import Summary, default_workers, measured_pace, run_sweep, time_one
from simulations.sweeps.schedule import kinds
from simulations.sweeps.stopping import announced
from simulations.sweeps.store import DATABASE, RESULTS, Store

RUN: Run = measure
"""How one simulation is run in this process."""

D = TypeVar("D", Simulation, Sweep)

_CACHE_HELP = "Folder of fetched data sets, as in `consilience data fetch`."
_SEED_HELP = "Of who is held out, of draws, noise and faults. Who belongs to whom comes from the file's partners.seed."
_ENGINE_HELP = "What computes the rounds."
_JSON_HELP = "Print the result as JSON; progress goes to the error output."


def run_one(
    file: Annotated[Path, typer.Argument(help="YAML file of one simulation, as in configs/simulations.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help=_SEED_HELP)] = 1,
    engine: Annotated[EngineName, typer.Option(help=_ENGINE_HELP)] = "vectorized",
    cache: Annotated[Path | None, typer.Option(help=_CACHE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Run one simulated study from a file, and print how good its model is at every institution.

    Everything is seeded: run it again, and the figures are the same. Other seeds say how much of a figure is chance.
    """
    simulation = _read(file, Simulation)
    console = Console(stderr=as_json, highlight=False)
    with console.status("Running"):  # shows on a terminal alone
        outcome = Outcome.of(RUN(simulation, seed, engine, cache or default_cache()))
    if as_json:
        typer.echo(json.dumps({"simulation": simulation.model_dump(mode="json"), **outcome.as_tree(), "seeded": True}))
        return
    view.show_one(console, simulation, outcome)


def sweep(
    file: Annotated[Path, typer.Argument(help="YAML file of a sweep, as in configs/simulations.")],
    out: Annotated[Path | None, typer.Option(help="Results folder. Default: out/sweeps and the sweep's name.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes that compute at once. Default: one a core.")
    ] = None,
    engine: Annotated[EngineName | None, typer.Option(help=f"{_ENGINE_HELP} Default: the file's.")] = None,
    cache: Annotated[Path | None, typer.Option(help=_CACHE_HELP)] = None,
    cell_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="A cell that takes longer has failed. Default: no limit.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged result files aside, and compute their cells again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many cells there are, and write nothing.")
    ] = False,
    time_first: Annotated[
        bool,
        typer.Option("--time", help="With --dry-run: compute one cell, keep nothing, and say how long all would take."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Compute many simulated studies: every combination of the fields that a file varies, with several seeds.

    Every cell is kept as soon as it is computed: stop it with Ctrl-C and give the same command again, and it goes on where it was.
    results.parquet and results.duckdb in the folder hold the figures of all cells and institutions.
    """
    asked = _read(file, Sweep)
    check_paths(asked)
    if engine is not None:
        asked = asked.model_copy(update={"engine": engine})
    folder = out or Path("out/sweeps") / asked.name
    data = cache or default_cache()
    console = Console(stderr=as_json, highlight=False)
    if dry_run:
        _plan(asked, folder, workers, data if time_first else None, console, as_json)
        return
    try:
        with announced(), view.SweepView(console) as live:
            summary = run_sweep(
                asked,
                folder,
                workers=workers,
                cache=data,
                repair=repair,
                progress=live.event,
                limit=None if cell_minutes is None else 60.0 * cell_minutes,
            )
    except KeyboardInterrupt:
        again = _again(file, out, workers, engine, cache, cell_minutes, repair, as_json)
        _say_stopped(asked, folder, again)
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    _report(asked, folder, summary, console, as_json)
    summary.raise_failures()


def _read(path: Path, model: type[D]) -> D:
    """Read a file as one or the other document; say so where it is the other one."""
    try:
        return load_yaml(path, model)
    except DocumentError as error:
        other: type[Simulation] | type[Sweep] = Simulation if model is Sweep else Sweep
        try:
            load_yaml(path, other)
        except DocumentError:
            raise error from None
        what, name = ("one simulation", "run") if other is Simulation else ("a sweep", "sweep")
        raise DocumentError("CSL-M243", f"{path} is {what}.", f"Call consilience simulate {name} {path}") from error


def _plan(asked: Sweep, folder: Path, workers: int | None, cache: Path | None, console: Console, as_json: bool) -> None:
    """Print what a sweep would do."""
    wanted = cells(asked)
    store = Store(folder)
    store.check_folder()
    present = set(store.present())
    missing = [cell for cell in wanted if cell.digest not in present]
    pace = measured_pace([store.read(cell.digest) for cell in wanted if cell.digest in present])
    if cache is not None and missing:
        pace.note(missing[0].simulation.algorithm.kind, time_one(missing[0], cache, RUN))
    count = workers or default_workers(asked.engine)
    own = cells(asked.model_copy(update={"references": False}))
    plan: dict[str, Any] = {
        "sweep": asked.name,
        "cells": len(wanted),
        "present": len(wanted) - len(missing),
        "seeds": list(asked.each_seed()),
        "engine": asked.engine,
        "workers": count,
        "fields": {path: _values(path, own) for path in asked.varied()},
        "algorithms": dict(kinds(wanted)),
        "seconds": pace.left(kinds(missing), count, started=cache is not None),
    }
    if as_json:
        typer.echo(json.dumps(plan))
        return
    _show_plan(plan, console)


def _show_plan(plan: dict[str, Any], console: Console) -> None:
    lines = [
        f"{plan['sweep']}: {plan['cells']} cells, {plan['present']} of them here already; {len(plan['seeds'])} seeds"
    ]
    lines += [
        f"  {path}: {'; '.join(view.setting(path, value) for value in values)}"
        for path, values in plan["fields"].items()
    ]
    lines.append("  " + ", ".join(f"{number} {algorithm}" for algorithm, number in plan["algorithms"].items()))
    seconds = plan["seconds"]
    by = f"{plan['workers']} workers, engine {plan['engine']}"
    if seconds is None:
        lines.append(f"Too few cells were timed to say how long it takes: add --time to compute one ({by}).")
    else:
        lines.append(f"The rest takes about {view.duration(seconds)} ({by}), as far as the cells timed so far tell.")
    for line in lines:
        console.print(escape(line), soft_wrap=True)


def _values(path: str, wanted: list[Cell]) -> list[Any]:
    """Return a field's values in all cells, each once."""
    return [json.loads(text) for text in dict.fromkeys(json.dumps(cell.settings[path]) for cell in wanted)]


def _report(asked: Sweep, folder: Path, summary: Summary, console: Console, as_json: bool) -> None:
    store, wanted = Store(folder), cells(asked)
    present = set(store.present())
    rows = view.figures(wanted, [store.read(cell.digest) for cell in wanted if cell.digest in present])
    if as_json:
        failed = [
            {"cell": cell.digest, "settings": cell.settings, "seed": cell.seed, **failure.as_tree()}
            for cell, failure in summary.failed
        ]
        tree = {
            "sweep": asked.name,
            "folder": str(folder),
            "results": str(folder / RESULTS),
            "database": str(folder / DATABASE),
            "engine": asked.engine,
            "seeded": True,
            "cells": summary.cells,
            "present": summary.present,
            "computed": summary.computed,
            "failed": failed,
            "seconds": summary.seconds,
            "figures": rows,
        }
        typer.echo(json.dumps(tree))
        return
    view.show_figures(console, asked, rows)
    console.print(
        f"\n{summary.computed} cells computed in {view.duration(summary.seconds)}, {summary.present} were here. "
        f"Results: {escape(str(folder / RESULTS))} and {escape(str(folder / DATABASE))}",
        soft_wrap=True,
    )


def _say_stopped(asked: Sweep, folder: Path, again: str) -> None:
    kept = set(Store(folder).present())
    wanted = cells(asked)
    done = sum(cell.digest in kept for cell in wanted)
    typer.echo(f"\nStopped. {done} of {len(wanted)} cells are kept. Go on with:\n  {again}", err=True)


def _again(
    file: Path,
    out: Path | None,
    workers: int | None,
    engine: str | None,
    cache: Path | None,
    cell_minutes: float | None,
    repair: bool,
    as_json: bool,
) -> str:
    """Return the command that goes on: the same again."""
    options = {"--out": out, "--workers": workers, "--engine": engine, "--cache": cache, "--cell-minutes": cell_minutes}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    flags = [name for name, given in (("--repair", repair), ("--json", as_json)) if given]
    return shlex.join(["consilience", "simulate", "sweep", str(file), *words, *flags])
