"""The demo's closing table on the terminal: one for each study, and what federating did and did not do."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulations.results import HELPED_BY, DemoResult, SiteResult, StudyResult
from simulations.words import count

HEADINGS = (
    "used †",
    "ε\ngranted",
    "ε spent\ntrain/eval",
    "AUC\nalone †",
    "AUC\nfed. †",
    "AUC\npooled †",
    "lift\n10% †",
)


def show(result: DemoResult, console: Console) -> None:
    """Print every study's table and verdict."""
    for study in result.studies:
        console.print()
        console.print(_table(study))
        console.print(escape(study.verdict()), soft_wrap=True)
    console.print()
    console.print(
        f"† Seen by no party (customers used, exact AUC and lift): the demo plays them all. Consent is simulated (seed {result.seed}). "
        "Alone: the institution's own model without privacy, as nothing would leave it. Pooled: all records in one place "
        "without privacy, a reference that nobody may train.",
        style="dim",
    )


def _table(study: StudyResult) -> Table:
    table = Table(
        title=escape(study.title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0, pad_edge=False
    )
    table.add_column("institution")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for site in study.sites:
        table.add_row(*_row(site))
    table.add_section()
    means = [f"{study.mean(name):.3f}" for name in ("alone", "federated", "pooled")]
    table.add_row("mean", "", "", "", *means, f"{study.mean('lift'):.1f}", style="bold")
    return table


def _row(site: SiteResult) -> tuple[str, ...]:
    budget = site.budget
    mark = "▲" if site.gain > HELPED_BY else "▼" if site.gain < -HELPED_BY else "·"
    return (
        escape(site.title),
        count(site.customers),
        f"{budget.granted:.1f}",
        f"{budget.training:.2f}/{budget.holdout:.2f}",
        f"{site.alone:.3f}",
        f"{site.federated:.3f} {mark}",
        f"{site.pooled:.3f}",
        f"{site.lift:.1f}",
    )
