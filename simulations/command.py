"""`consilience simulate`: many institutions on this machine."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from simulations import closing, marketing_page
from simulations.demo import CONFIGS, REPORT, run_demo
from simulations.fetch import default_cache
from simulations.live import LiveView
from simulations.marketing import PAGE, run_report
from simulations.planner.command import plan
from simulations.population.command import population
from simulations.rehearsal import rehearse
from simulations.sweeps.command import run_one, sweep
from simulations.sweeps.compare_command import compare, plot

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run federations of many institutions on this machine, on public or synthetic data.",
)
app.command(name="run")(run_one)
app.command()(sweep)
app.command()(compare)
app.command()(plot)
app.command()(plan)
app.command()(population)


@app.callback()
def simulate() -> None:
    """Run federations of many institutions on this machine, on public or synthetic data.

    demo, report and federation run the product itself: vaults, policies, ledgers, signatures. run, sweep and plan ask what a study would
    give, quickly and many times: the same training and noise, seeded, without what does not change a number.
    """


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the report and the institutions' folders; made anew by every run.")
    ] = Path("out/demo"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of fetched data sets, as in `consilience data fetch`.")
    ] = None,
    configs: Annotated[Path, typer.Option(help="Folder with contracts and studies.")] = CONFIGS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to the error output.")
    ] = False,
) -> None:
    """Eight banks and four shops learn together: two studies from raw tables to name lists.

    Fetches public data (36 MB, once), gives every institution tables, keys, a policy and a budget of its own, trains a propensity and a
    churn model with differential privacy, and writes report.html. Takes about a minute on two cores.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)  # institutions run beside each other, one core each
    console = Console(stderr=as_json, highlight=False)
    with LiveView(console) as view:
        result = run_demo(out, cache or default_cache(), view, configs)
    if as_json:
        typer.echo(json.dumps({"report": str(out / REPORT), **asdict(result)}))
        return
    closing.show(result, console)
    console.print(f"\nReport: {escape(str(out / REPORT))}  ({result.seconds:.0f} s)", soft_wrap=True)


@app.command()
def report(
    out: Annotated[
        Path, typer.Option(help="Folder for the page and the institutions' folders; made anew by every run.")
    ] = Path("out/report"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of fetched data sets, as in `consilience data fetch`.")
    ] = None,
    configs: Annotated[Path, typer.Option(help="Folder with contracts, queries and studies.")] = CONFIGS,
    epsilon: Annotated[
        float | None,
        typer.Option(help="What each institution grants each study for one customer; the files' own without."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to the error output.")
    ] = False,
) -> None:
    """Shops and banks count their customers together, and one page says what marketing would ask.

    Segments, life-cycle stages, expected value, groups, who stops buying, who takes a deposit, and whether a (simulated) campaign
    worked: every number with its interval, and beside it the exact answer that no party sees. Takes about a minute on two cores.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    console = Console(stderr=as_json, highlight=False)
    with LiveView(console) as view:
        result = run_report(out, cache or default_cache(), view, configs, epsilon)
    if as_json:
        typer.echo(json.dumps({"page": str(out / PAGE), **result.as_tree()}))
        return
    console.print()
    for line in marketing_page.held(result):
        console.print(escape(line), soft_wrap=True)
    console.print(f"\nPage: {escape(str(out / PAGE))}  ({result.seconds:.0f} s)", soft_wrap=True)


@app.command()
def federation(
    out: Annotated[Path, typer.Option(help="Folder for all parties' folders; made anew by every run.")] = Path(
        "out/federation"
    ),
    members: Annotated[int, typer.Option(min=3, max=8, help="How many banks take part.")] = 5,
    rounds: Annotated[int, typer.Option(min=5, max=100, help="Rounds of training.")] = 10,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of fetched data sets, as in `consilience data fetch`.")
    ] = None,
    configs: Annotated[Path, typer.Option(help="Folder with contracts and studies.")] = CONFIGS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; progress goes to the error output.")
    ] = False,
) -> None:
    """Separate processes, as in production: a coordinator and banks, each with its own folder, keys, services and ports.

    Prints every command that it runs, with whose hands: the charter is drafted, signed and accepted, officers bring their policies into
    force, the services start (TLS, node keys, on 127.0.0.1 only), a short study runs, and each bank reads its scores. On machines of
    your own you type the same commands with other addresses. Takes three to five minutes on two cores; every party's folder and
    commands.log stay.
    """
    console = Console(stderr=as_json, highlight=False)
    result = rehearse(
        out,
        cache or default_cache(),
        configs,
        members,
        rounds,
        lambda line: console.print(escape(line), soft_wrap=True),
    )
    if as_json:
        typer.echo(json.dumps(asdict(result)))
        return
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in result.seconds.items())
    console.print(
        f"\nThe study is {result.study['state']}: {rounds} rounds, {members} banks, one model in every vault."
    )
    console.print(f"{seconds}. Folders and commands.log: {escape(result.root)}", soft_wrap=True)
