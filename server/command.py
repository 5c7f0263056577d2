"""`consilience coordinator`: check study drafts before anybody is asked, and look at the registry of models."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.document import load_yaml
from federation.study import StudyDraft
from server.card import render
from server.course import derive_training
from server.home import CoordinatorHome
from server.planning import check_draft, declared_sizes
from server.registry import PublishedModel, Registry

app = typer.Typer(
    no_args_is_help=True,
    help="For the coordinator: check study drafts, look at the registry of models.\n\n"
    "A study begins as a draft in YAML: purpose, feature contract, model, smallest number of partners. Everything else is derived "
    "from what the charter declares, so there is nothing to tune. Begin with `study check`.",
)
study = typer.Typer(no_args_is_help=True, help="Study drafts: what a person writes, and the plan that follows from it.")
models = typer.Typer(
    no_args_is_help=True, help="The registry: one folder for each published model, with its signed card."
)
app.add_typer(study, name="study")
app.add_typer(models, name="models")

HomeOption = Annotated[
    Path, typer.Option("--home", help="The coordinator's home folder.", exists=True, file_okay=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@study.command("check")
def study_check(
    file: Annotated[Path, typer.Argument(help="The draft, such as configs/studies/churn.yaml.", show_default=False)],
    home: Annotated[
        Path | None,
        typer.Option("--home", help="The coordinator's home folder; without it only the file itself is checked."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a draft and show the plan that follows from it.

    All problems are named at once, with line and key. With --home the draft is checked against charter and feature contract too, and
    the plan is derived from the declared sizes: rounds, and the share of customers that each round draws. Nothing is signed or sent.
    """
    draft = load_yaml(file, StudyDraft)
    result: dict[str, Any] = {"study": draft.name, "purpose": draft.purpose, "valid": True}
    if home is not None:
        place = CoordinatorHome(home)
        charter, contract = place.charter(), place.contract(draft.contract)
        check_draft(draft, charter, contract)
        sizes = declared_sizes(charter, draft.contract)
        training = derive_training(draft, sizes, contract)
        result |= {"members": sizes, "plan": training.model_dump(mode="json")}
    typer.echo(json.dumps(result, indent=2) if as_json else _plan_text(draft, result))


def _plan_text(draft: StudyDraft, result: dict[str, Any]) -> str:
    lines = [
        f"{draft.name}: the draft is valid. Purpose {draft.purpose}, {draft.model.kind} model on {draft.contract}, {draft.mode}."
    ]
    if "plan" not in result:
        return "\n".join([*lines, "Give --home to check it against the charter and to see the plan."])
    training, sizes = result["plan"], result["members"]
    lines += [
        f"{len(sizes)} members declare {sum(sizes.values())} customers; the study needs {draft.min_partners} members.",
        f"Plan: {training['rounds']} rounds, {training['steps']} steps in all; each step draws every customer with probability "
        f"{training['sampling_rate']:g}.",
        f"Each vault's own policy decides its epsilon{'' if draft.epsilon is None else f', at most {draft.epsilon:g}'}; "
        f"the evaluation counts held-out customers in {draft.evaluation.bins} bins.",
    ]
    return "\n".join(lines)


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
