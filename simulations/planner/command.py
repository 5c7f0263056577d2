"""`consilience simulate plan`: the smallest epsilon that reaches a target, on public or synthetic data."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from federation.errors import DocumentError, ExitCode, StorageError
from simulations.engines.simulation import Privacy, Simulation
from simulations.fetch import default_cache
from simulations.planner import page
from simulations.planner.asking import GRID, STUDIES, check_study, find_study, parse_grid
from simulations.planner.curve import BELOW, BEYOND, MOST_STUDIES
from simulations.planner.plan import Answer, Look, Plan, kept_in, make_plan, reached
from simulations.planner.target import Target, parse_target
from simulations.planner.wording import CAUTION, references, rows, sentence, warnings
from simulations.sweeps.columns import Column, Grid, say_left_out
from simulations.sweeps.document import EngineName, Sweep, load_sweep, tree_of
from simulations.sweeps.metrics import MEANING
from simulations.sweeps.outcome import Run
from simulations.sweeps.reading import EPSILON
from simulations.sweeps.running import Summary, run_sweep
from simulations.sweeps.stopping import announced
from simulations.sweeps.store import SWEEP, Store
from simulations.sweeps.summary import plain
from simulations.sweeps.view import SweepView
from simulations.words import count

_FIGURES = (Column("95% interval", 2), Column("to target", 1), Column("gain / ε", 3), Column("reach it"))
_GRID = ",".join(map("{:g}".format, GRID))

RUN: Run | None = None
"""Given, runs cells in this process; else worker processes do."""


def plan(
    target: Annotated[
        list[str],
        typer.Option(
            help='What to reach: "lift@10% >= 2.5", "auc >= pooled - 0.01", "within 0.01 of pooled"; may stand several times. '
            f"Of metrics {MEANING}"
        ),
    ],
    study: Annotated[
        str, typer.Option(help="A study simulation on public or synthetic data: a YAML file, or a name in --studies.")
    ],
    partners: Annotated[
        int | None, typer.Option(min=1, help="How many institutions, instead of the study's own.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Results folder. Default: out/plans and the study's name, with the number of --partners if given."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How often each epsilon is run.")] = 5,
    grid: Annotated[
        str, typer.Option(help="Epsilons to begin with; more are added where the target is reached.")
    ] = _GRID,
    engine: Annotated[EngineName, typer.Option(help="What computes the rounds.")] = "vectorized",
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that compute at once.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="The table that the study reads is public or synthetic.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page as well.")] = None,
    studies: Annotated[Path, typer.Option(help="Folder of study simulations.")] = STUDIES,
    cache: Annotated[Path | None, typer.Option(help="Folder of fetched data sets.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan as JSON; progress goes to the error output.")
    ] = False,
) -> None:
    """Find the smallest epsilon that reaches a target, with its interval, and what each further epsilon buys.

    Two answers, each with its interval: where the average over seeds reaches the target, and where 80% of single studies do. Of the second
    the upper end is proposed, if it is near and training alone does not reach the target.
    Runs on public or synthetic data alone, and so costs nobody any budget; it speaks of a federation like the simulated one. Never plan
    on an institution's own customers: the advice itself would tell of them. What was computed is kept for the next target.
    """
    targets, epsilons = [parse_target(text) for text in target], parse_grid(grid)
    asked = with_partners(find_study(study, studies), partners)
    check_study(asked, public)
    folder = out or default_folder(asked, partners)
    check_folder(folder, asked)
    looked_up = not Path(study).is_file()
    options: dict[str, object] = {"--studies": studies if looked_up and studies != STUDIES else None}
    options |= {"--partners": partners, "--out": folder, "--seeds": seeds, "--grid": grid, "--engine": engine}
    repeat = _command(study, target, options | {"--cache": cache, "--html": html}, {"--public": public})
    console = Console(stderr=as_json, highlight=False)
    look = computing(folder, workers, cache or default_cache(), console, Steps(targets, epsilons))
    try:
        with announced():
            found = make_plan(asked, targets, look, seeds=seeds, grid=epsilons, engine=engine)
    except KeyboardInterrupt:
        _say_stopped(folder, [*repeat, *_words({"--workers": workers}, {"--json": as_json})])
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    if html is not None:
        page.write(found, html, shlex.join(repeat))
    if as_json:
        typer.echo(json.dumps({**as_tree(found), "repeat": shlex.join(repeat)}))
        return
    show(found, console)
    if html is not None:
        console.print(f"\nPage: {escape(str(html))}", soft_wrap=True)


class Steps:
    """Says which target a plan is at, and what it computes: the grid first, and then one epsilon more each time."""

    def __init__(self, targets: Sequence[Target], grid: Sequence[float]) -> None:
        self._targets, self._grid = targets, frozenset(grid)
        self._before: frozenset[float] = frozenset()
        self._at = 0

    def of(self, sweep: Sweep) -> str:
        """Return in words what this sweep, the plan's next, is for."""
        epsilons = frozenset(value for value in sweep.over[EPSILON] if isinstance(value, float))
        added, closer = sorted(epsilons - self._before), len(epsilons - self._grid)
        if not closer:
            self._at, added = self._at + 1, sorted(self._grid)
        self._before = epsilons
        number = f"target {self._at} of {len(self._targets)}, " if len(self._targets) > 1 else ""
        what = f"closer look {closer}, at ε " if closer else "first look, at ε "
        return f"{number}{self._targets[self._at - 1]}, {what}" + ", ".join(f"{epsilon:g}" for epsilon in added)


def computing(folder: Path, workers: int | None, cache: Path, console: Console, steps: Steps) -> Look:
    """Return what computes a plan's cells into a folder and shows progress while it does."""

    def compute(sweep: Sweep) -> Summary:
        with SweepView(console, steps.of(sweep)) as view:
            return run_sweep(sweep, folder, workers=workers, cache=cache, progress=view.event, run=RUN)

    return kept_in(folder, compute)


def default_folder(study: Simulation, partners: int | None) -> Path:
    """Return where a plan is kept: a study among another number of institutions has a folder of its own."""
    return Path("out/plans") / (study.name if partners is None else f"{study.name}-{partners}")


def check_folder(folder: Path, study: Simulation) -> None:
    """Refuse a folder that holds another study's plan, or a sweep, whose tables this plan would replace.

    Other targets, seeds, grids and engines of the same study go into one folder: they share cells.

    Raises
    ------
    StorageError
        CSL-M263.
    """
    path = folder / SWEEP
    if not path.is_file():
        return
    try:
        held = load_sweep(path)
        same = held.varied() == (EPSILON,) and _without_budget(held.study) == _without_budget(study)
    except DocumentError:  # of another version, or no sweep at all: not this plan's
        same = False
    if not same:
        raise StorageError(
            "CSL-M263",
            f"{folder} holds the plan of another study, of this one before it was changed, or a sweep.",
            "Name another folder with --out.",
        )


def _without_budget(study: Simulation) -> dict[str, Any]:
    return tree_of(study.model_copy(update={"privacy": Privacy(epsilon=None)}))


def with_partners(study: Simulation, partners: int | None) -> Simulation:
    """Return the study among another number of institutions. Raises DocumentError CSL-M257 when it cannot have so many."""
    if partners is None:
        return study
    tree = study.model_dump(mode="json")
    tree["partners"]["count"] = partners
    try:
        return Simulation.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DocumentError(
            "CSL-M257",
            f"--partners {partners} does not fit the study {study.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            "Name another number of institutions.",
        ) from error


def _command(study: str, targets: Sequence[str], options: Mapping[str, object], flags: Mapping[str, bool]) -> list[str]:
    """Return the words of the command that makes the same plan: with all options that decide it."""
    asked = [word for text in targets for word in ("--target", text)]
    return ["consilience", "simulate", "plan", "--study", study, *asked, *_words(options, flags)]


def _words(options: Mapping[str, object], flags: Mapping[str, bool]) -> list[str]:
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return [*words, *(name for name, given in flags.items() if given)]


def _say_stopped(folder: Path, again: Sequence[str]) -> None:
    kept = count(len(Store(folder).present()))
    typer.echo(f"\nStopped. {kept} cells are kept in {folder}. Go on with:\n  {shlex.join(again)}", err=True)


def as_tree(found: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    return {
        "study": found.study.name,
        "seeded": True,
        "seeds": found.seeds,
        "engine": found.engine,
        "computed": found.computed,
        "failed": found.failed,
        "caution": CAUTION,
        "cautions": list(found.cautions),
        "answers": [_tree(answer) for answer in found.answers],
    }


def _tree(answer: Answer) -> dict[str, Any]:
    found, ends = answer.found, {BELOW: "below", BEYOND: "beyond"}

    def end(value: float | None) -> float | str | None:
        return None if value is None else ends.get(value, value)

    return {
        "target": str(answer.target),
        "reached": reached(found.epsilon) or found.epsilon == BELOW,
        "epsilon": end(found.epsilon),
        "interval": [end(found.low), end(found.high)],
        "epsilon_most_studies": end(found.most),
        "interval_most_studies": [end(found.most_low), end(found.most_high)],
        "most_studies": MOST_STUDIES,
        "proposed": answer.proposed,
        "alone_reaches": answer.alone_reaches,
        "institutions_alone": None if answer.by_themselves is None else list(answer.by_themselves),
        "says": sentence(answer),
        "steps": plain(answer.steps),
        "alone": plain(answer.alone),
        "pooled": plain(answer.pooled),
        "no_noise": plain(answer.bare),
    }


def show(found: Plan, console: Console) -> None:
    """Print a plan."""
    for answer in found.answers:
        metric = answer.target.metric
        console.print(f"\n[bold]{escape(sentence(answer))}[/bold]", soft_wrap=True)
        grid = Grid("", Column("ε"), Column(metric.name), *_FIGURES)
        for row in rows(answer):
            grid.add(*row[:4], *row[5:])
        say_left_out(console, grid.show(console))
        for name, value, interval in references(answer):
            console.print(f"  {escape(name)}: {value} ({interval})", soft_wrap=True)
    for line in warnings(found):
        console.print(escape(line), soft_wrap=True)
    console.print(f"\n{found.computed} cells computed now. {CAUTION}", style="dim")
