"""`consilience coordinator`: found a federation, run its service and its studies, look at the registry of models."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from server.card import render
from server.desk import HomeOption, JsonOption
from server.founding_command import certificate, charter, init
from server.home import CoordinatorHome
from server.query_command import query, reports
from server.registry import PublishedModel, Registry
from server.service_command import register
from server.study_command import study

app = typer.Typer(
    no_args_is_help=True,
    help="For the coordinator: found a federation, run its service and its studies, look at the registry of models.\n\n"
    "Everything lies in one folder, the home, which --home or CONSILIENCE_COORDINATOR names. Begin with `init`, then `charter`. "
    "A study begins as a draft in YAML: purpose, feature contract, model, smallest number of partners. Everything else is derived "
    "from what the charter declares, so there is nothing to tune: see `study`. "
    "Statistics are asked by `query`. `start` runs the service, and `doctor` says what is amiss.",
)
models = typer.Typer(
    no_args_is_help=True, help="The registry: one folder for each published model, with its signed card."
)
app.command()(init)
app.add_typer(certificate, name="certificate")
app.add_typer(charter, name="charter")
register(app)
app.add_typer(study, name="study")
app.command()(query)
app.command()(reports)
app.add_typer(models, name="models")


@models.command("list")
def models_list(home: HomeOption = Path("."), as_json: JsonOption = False) -> None:
    """List the published models, after checking each one's signature and digest.

    AUC is on all institutions' held-out customers together, with its 95% interval for another draw of customers.
    """
    registry = Registry(CoordinatorHome(home).registry)
    rows = [_summary(registry.load(name)) for name in registry.names()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo("No model is published yet. Studies publish here when they are finished.")
    else:
        for row in rows:
            typer.echo(
                f"{row['name']}  {_auc_text(row)}  {row['partners']} partners, {row['rounds']} rounds  {row['title']}"
            )


def _auc_text(row: dict[str, Any]) -> str:
    if row["auc"] is None:
        return "AUC uninformative"
    low, high = row["auc_interval"]
    return f"AUC {row['auc']:.3f} ({low:.3f} to {high:.3f})"


def _summary(model: PublishedModel) -> dict[str, Any]:
    card = model.card
    auc = card.overall.auc
    return {
        "name": card.name,
        "title": card.spec.draft.title,
        "purpose": card.spec.draft.purpose,
        "partners": sum(item.rounds > 0 for item in card.participants),
        "rounds": card.rounds,
        "auc": auc.value,
        "auc_interval": None if auc.population is None else list(auc.population),
        "model": card.model,
        "card": card.digest(),
    }


@models.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="A name from `models list`.", show_default=False)],
    home: HomeOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Show a model's card: who took part with which epsilon, how good it is, what it is for and what not.

    The card's signature is checked against the charter's coordinator key, and the weights against the digest in the card.
    """
    place = CoordinatorHome(home)
    model = Registry(place.registry).load(name, place.charter().coordinator_key)
    typer.echo(model.sealed.canonical().decode() if as_json else render(model.card))
