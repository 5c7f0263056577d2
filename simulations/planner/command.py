"""`consilience simulate plan`: the smallest epsilon that reaches a target, on public or synthetic data."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federation.errors import DocumentError
from simulations.engines.simulation import Simulation
from simulations.fetch import default_cache
from simulations.planner import page
from simulations.planner.asking import GRID, STUDIES, check_study, find_study, parse_grid
from simulations.planner.curve import BELOW, BEYOND, MOST_STUDIES
from simulations.planner.plan import Answer, Look, Plan, kept_in, make_plan, reached
from simulations.planner.target import parse_target
from simulations.planner.wording import CAUTION, references, rows, sentence, warnings
from simulations.sweeps.document import EngineName, Sweep
from simulations.sweeps.metrics import MEANING
from simulations.sweeps.outcome import Run
from simulations.sweeps.running import Summary, run_sweep
from simulations.sweeps.summary import plain
from simulations.sweeps.view import SweepView

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
    out: Annotated[Path | None, typer.Option(help="Results folder. Default: out/plans and the study's name.")] = None,
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

    Two answers: where the average over seeds reaches the target, and where 80% of single studies do, which is the one to propose.
    Runs on public or synthetic data alone, and so costs nobody any budget; it speaks of a federation like the simulated one. Never plan
    on an institution's own customers: the advice itself would tell of them. What was computed is kept for the next target.
    """
    targets, epsilons = [parse_target(text) for text in target], parse_grid(grid)
    asked = with_partners(find_study(study, studies), partners)
    check_study(asked, public)
    folder = out or Path("out/plans") / asked.name
    console = Console(stderr=as_json, highlight=False)
    look = computing(folder, workers, cache or default_cache(), console)
    found = make_plan(asked, targets, look, seeds=seeds, grid=epsilons, engine=engine)
    repeat = _repeat(
        study,
        target,
        {"--partners": partners, "--out": folder, "--seeds": seeds, "--grid": grid, "--engine": engine},
        public,
    )
    if html is not None:
        page.write(found, html, repeat)
    if as_json:
        typer.echo(json.dumps({**as_tree(found), "repeat": repeat}))
        return
    show(found, console)
    if html is not None:
        console.print(f"\nPage: {escape(str(html))}", soft_wrap=True)


def computing(folder: Path, workers: int | None, cache: Path, console: Console) -> Look:
    """Return what computes a plan's cells into a folder and shows progress while it does."""

    def compute(sweep: Sweep) -> Summary:
        with SweepView(console) as view:
            return run_sweep(sweep, folder, workers=workers, cache=cache, progress=view.event, run=RUN)

    return kept_in(folder, compute)


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


def _repeat(study: str, targets: Sequence[str], options: dict[str, object], public: bool) -> str:
    words = ["consilience", "simulate", "plan", "--study", study]
    words += [word for text in targets for word in ("--target", text)]
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join([*words, *(["--public"] if public else [])])


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
        "most_studies": MOST_STUDIES,
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
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("ε", metric.name, "95% interval", "to target", "gain / ε", "reach it"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows(answer):
            table.add_row(*row[:4], *row[5:])
        console.print(table)
        for name, value, interval in references(answer):
            console.print(f"  {escape(name)}: {value} ({interval})", soft_wrap=True)
    for line in warnings(found):
        console.print(escape(line), soft_wrap=True)
    console.print(f"\n{found.computed} cells computed now. {CAUTION}", style="dim")
