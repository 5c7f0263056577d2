"""`consilience simulate population`: a synthetic population's tables, one an institution, and what it compares with."""

import io
import json
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federation.errors import StorageError
from federation.files import atomic_write
from simulations.population.facts import FACTS, SOURCES, Checked, check
from simulations.population.generate import LABELS, START, Population, Say, generate
from simulations.population.parameters import PopulationParameters
from simulations.population.purchases import HORIZON_DAYS, WINDOW_DAYS
from simulations.population.shops import typical_purchase

SUMMARY = "population.json"
NOTE = "Simulated from a seed: nobody in these tables is real, and whoever knows the seed can draw them again."

TOLERANCES_FROM = 20_000
"""For populations of so many people the facts' tolerances are meant."""

_DEFAULTS = PopulationParameters()


def population(
    customers: Annotated[int, typer.Option(help="People in all.")] = _DEFAULTS.customers,
    banks: Annotated[int, typer.Option(help="How many banks.")] = _DEFAULTS.banks,
    shops: Annotated[int, typer.Option(help="How many shops.")] = _DEFAULTS.shops,
    overlap: Annotated[
        float, typer.Option(help="Share of banks' customers who are at another bank too; the same for shops.")
    ] = _DEFAULTS.overlap,
    across: Annotated[
        float, typer.Option(help="Share of the people with a bank who are at a shop too.")
    ] = _DEFAULTS.across,
    seed: Annotated[int, typer.Option(help="The same seed gives the same population.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the tables; files of the same names are replaced.")] = Path(
        "out/population"
    ),
    purchases: Annotated[bool, typer.Option("--purchases", help="Write the shops' logs of purchases as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make up customers of banks and shops, some of them at several: one Parquet table for each institution, and a summary.

    The tables are in the columns of the contracts population_bank and population_shop, with the labels churned, subscribed and
    responded. Beside them, truth_bank.parquet and truth_shop.parquet hold what only a simulation knows: who is the same person,
    and with which chance each label was drawn. The summary compares the population with published aggregates of public data sets.
    """
    started = time.perf_counter()
    console = Console(stderr=as_json, highlight=False)
    parameters = PopulationParameters(customers=customers, banks=banks, shops=shops, overlap=overlap, across=across)
    with console.status("Drawing") as status:  # shows on a terminal alone

        def say(line: str) -> None:
            status.update(f"{escape(line)} ({time.perf_counter() - started:.0f} s)")

        made = generate(parameters, seed, purchases=True, say=say)
        say("comparing with published aggregates")
        checked = check(made)
        summary = _summary(made, checked)
        _write(made, summary, out, purchases, say)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **summary}))
        return
    _show(made, checked, console)
    seconds = time.perf_counter() - started
    console.print(f"\n{NOTE}\nTables: {escape(str(out))}  ({seconds:.1f} s)", soft_wrap=True)


def _summary(made: Population, checked: tuple[Checked, ...]) -> dict[str, Any]:
    return {
        "note": NOTE,
        "simulated": True,
        "seed": made.seed,
        "parameters": made.parameters.model_dump(mode="json"),
        "start": START.date().isoformat(),
        "as_of": (START + pd.Timedelta(days=WINDOW_DAYS)).date().isoformat(),
        "horizon_days": HORIZON_DAYS,
        "institutions": _institutions(made),
        "facts": [
            {
                "name": item.fact.name,
                "meaning": item.fact.meaning,
                "source": SOURCES[item.fact.source],
                "published": item.fact.published,
                "tolerance": item.fact.tolerance,
                "generated": item.generated,
                "holds": item.holds,
            }
            for item in checked
        ],
        "cautions": _cautions(made, checked),
    }


def _cautions(made: Population, checked: tuple[Checked, ...]) -> list[str]:
    """Say what the comparison with published aggregates cannot tell of this population."""
    said, customers = [], made.parameters.customers
    if customers < TOLERANCES_FROM:
        said.append(
            f"Tolerances are meant for {TOLERANCES_FROM:,} customers and more: of {customers:,}, aggregates can lie outside by chance."
        )
    measured = {item.fact.name for item in checked}
    if missing := [fact for fact in FACTS if fact.name not in measured]:
        places = ", ".join(dict.fromkeys(fact.source for fact in missing))
        said.append(
            f"{len(missing)} of {len(FACTS)} aggregates are left out ({places}): this population has nothing to measure them by."
        )
    return said


def _institutions(made: Population) -> list[dict[str, Any]]:
    rates = {kind: table.groupby("institution")[list(LABELS)].mean() for kind, table in made.tables.items()}
    sizes = {kind: table["institution"].value_counts() for kind, table in made.tables.items()}
    return [
        {
            "name": item.name,
            "kind": item.kind,
            "style": item.style,
            "typical_purchase": None if item.style is None else typical_purchase(item),
            "customers": int(sizes[item.kind][item.name]),
            **{label: round(float(rates[item.kind][label][item.name]), 4) for label in LABELS},
            "lacks": list(item.lacks),
        }
        for item in made.institutions
    ]


def _write(made: Population, summary: dict[str, Any], out: Path, purchases: bool, say: Say) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "CSL-M204", f"{out} cannot be made: {error.strerror}.", "Name another folder with --out."
        ) from error
    for place, item in enumerate(made.institutions, start=1):
        say(f"writing table {place} of {len(made.institutions)}")
        _write_table(out / f"{item.name}.parquet", made.at(item.name))
        if purchases and item.kind == "shop" and made.purchases is not None:
            log = made.purchases
            mine = log[log["institution"] == item.name].drop(columns="institution")
            _write_table(out / f"{item.name}_purchases.parquet", mine)
    for kind, truth in made.truths.items():
        who = made.tables[kind][["customer", "institution", "person"]]
        _write_table(out / f"truth_{kind}.parquet", pd.concat([who, truth], axis=1))
    atomic_write(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def _write_table(path: Path, table: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    atomic_write(path, buffer.getvalue())


def _show(made: Population, checked: tuple[Checked, ...], console: Console) -> None:
    sites = Table("institution", "customers", "churned", "subscribed", "responded", "lacks", title="Institutions")
    for row in _institutions(made):
        rates = [f"{row[label]:.1%}" for label in LABELS]
        sites.add_row(row["name"], f"{row['customers']:,}", *rates, ", ".join(row["lacks"]) or "-")
    console.print(sites)
    facts = Table("aggregate", "public set", "published", "generated", "", title="Beside published aggregates")
    for item in checked:
        word = "within" if item.holds else "[yellow]outside[/yellow]"
        fact = item.fact
        facts.add_row(fact.meaning, fact.source, f"{fact.published:,.3g}", f"{item.generated:,.3g}", word)
    console.print(facts)
    for line in _cautions(made, checked):
        console.print(line, soft_wrap=True)
