"""The group `consilience node`: what an institution's data engineer and marketing analyst do at home."""

import csv
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from client.check import check
from client.config import NodeConfig, load_node
from client.finish import Decision, ListRules, list_rules
from client.home import Home
from client.install import install
from client.names import WorthWhile
from client.shapes import draw, png, shapes, svg
from client.studies import OpenStudy, Studies
from federation.document import load_yaml
from federation.errors import DataError, DocumentError, StorageError
from federation.files import atomic_write
from federation.messages import read_tensors
from federation.networks import tensor_shapes
from federation.study import MlpModel
from privacy.keys import passphrase_from_file, read_public
from privacy.ledger import LedgerReader
from privacy.policy import Policy

app = typer.Typer(
    no_args_is_help=True,
    help="For institutions. A vault lives in one folder, its HOME: charter, contracts, policy.yaml, node.yaml, keys, ledger, "
    "name lists. Begin with `init`, write node.yaml and policy.yaml, then `check`.",
)
HomeArgument = Annotated[Path, typer.Argument(help="The vault's home folder.", exists=True, file_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="The folder to make.")],
    member: Annotated[str, typer.Option(help="The identifier that the charter will name, such as bank_north.")],
    passphrase_file: Annotated[Path, typer.Option(help="A file (0600) that holds the passphrase for the keys.")],
) -> None:
    """Make a vault's folders, keys and ledger. Prints the public key, which goes into the charter; the private one never leaves."""
    key = install(Home(home), member, passphrase_from_file(passphrase_file))
    typer.echo(f"Made {home}. Public key of {member}: {key}")
    typer.echo(
        "Next: install charter.json, charter.digest and contracts/, write policy.yaml and node.yaml, then `consilience node check`."
    )


@app.command("check")
def check_command(
    home: HomeArgument,
    contract: Annotated[
        str | None, typer.Option(help="Only this contract; all that the policy allows otherwise.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try mapping, consent and contract on your own tables, without releasing anything.

    Shows rows, violations with counts, shares missing and clipped: at this institution only. Exit code 4 when a study could not be served.
    """
    place = Home(home)
    charter, node = place.charter(), load_node(place.node_file)
    policy = load_yaml(place.policy_file, Policy)
    _check_list_rules(list_rules(place), node)
    reports = []
    for rule in policy.studies:
        if contract not in (None, rule.contract):
            continue
        declaration = charter.member(node.member).declaration(rule.contract)
        if declaration is None:
            raise DataError(
                "CSL-C611",
                f"The charter has no declaration of {node.member} for {rule.contract}.",
                "Declare the cohort first.",
            )
        consents = sorted({item.consent for item in policy.purposes if item.id in rule.purposes})
        pinned = place.contract(charter, rule.contract)
        reports += [
            check(node, pinned, declaration, consent, policy.contact_consent, rule.holdout) for consent in consents
        ]
    if not reports:
        raise DataError("CSL-C614", f"The policy allows no study on {contract}.", "Name one of the policy's contracts.")
    if as_json:
        typer.echo(json.dumps([report.as_dict() for report in reports]))
    else:
        for report in reports:
            Console().print(report)
    if not all(report.ok for report in reports):
        raise DataError(
            "CSL-C612",
            "A study could not be served from these tables.",
            "Correct what is listed above, and check again.",
        )


@app.command()
def status(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Show the vault's charter, policy, studies, and the models that it decided upon."""
    place = Home(home)
    with LedgerReader.read(place.ledger_file, read_public(place.identity_key)) as ledger:
        policy = ledger.policy()
        studies = [_study_row(study, ledger, place) for study in _open_studies(place)]
    summary = {
        "member": load_node(place.node_file).member,
        "charter": place.charter().digest(),
        "policy": None if policy is None else {"version": policy.version, "expires": policy.expires.isoformat()},
        "studies": studies,
    }
    if as_json:
        typer.echo(json.dumps(summary))
        return
    console = Console()
    console.print(f"[bold]{summary['member']}[/bold]  charter {str(summary['charter'])[:16]}…")
    console.print(
        "No policy in force." if policy is None else f"Policy version {policy.version}, until {policy.expires}."
    )
    table = Table("study", "rounds released", "ε granted", "model", "on the list")
    for row in studies:
        table.add_row(
            str(row["study"]),
            f"{row['released']} of {row['rounds']}",
            f"{row['epsilon']:g}",
            str(row["model"]),
            str(row["listed"]),
        )
    console.print(table)


@app.command()
def names(
    home: HomeArgument,
    study: Annotated[str | None, typer.Option(help="The study's name; the newest list otherwise.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many lines to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the head of a name list: whom to approach, how likely, and why. It never leaves the institution."""
    found = sorted(Home(home).folder("lists").glob(f"{study or '*'}-*.csv"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise StorageError(
            "CSL-C613",
            "There is no name list yet.",
            "A list is written when a study ends; see `consilience node status`.",
        )
    with found[-1].open(newline="", encoding="utf-8") as handle:
        rows = [row for row, _ in zip(csv.DictReader(handle), range(top), strict=False)]
    if as_json:
        typer.echo(json.dumps({"file": str(found[-1]), "rows": rows}))
        return
    table = Table("customer", "score", "decile", "reasons", title=found[-1].name, show_lines=True)
    for row in rows:
        reasons = "\n".join(row[name] for name in ("reason_1", "reason_2", "reason_3") if row[name])
        table.add_row(row["customer"], f"{float(row['score']):.3f}", row["decile"], reasons)
    Console().print(table)


@app.command("shapes")
def shapes_command(
    home: HomeArgument,
    study: Annotated[str, typer.Option(help="The study's name; its newest adopted model is drawn.")],
    out: Annotated[Path, typer.Option(help="The picture to write, .svg or .png.")],
) -> None:
    """Draw what the adopted model says of each feature: for additive and logistic models the picture is the model itself.

    Only contract and weights are drawn, which every member holds; nothing about own customers is in the picture.
    """
    place = Home(home)
    chosen = next((item for item in reversed(_open_studies(place)) if item.spec.draft.name == study), None)
    decision = None if chosen is None else _decision(place, chosen)
    if chosen is None or decision is None or not decision.adoption.adopted:
        raise StorageError("CSL-C615", f"No model of a study {study} is in use here.", "See `consilience node status`.")
    model = chosen.spec.draft.model
    if isinstance(model, MlpModel) or out.suffix not in (".svg", ".png"):
        raise DocumentError(
            "CSL-C616",
            "Only additive and logistic models are drawn, as .svg or .png.",
            "Name a file that ends in .svg or .png.",
        )
    contract = place.contract(place.charter(), chosen.spec.draft.contract)
    content = (place.folder("models") / f"{chosen.rid}.safetensors").read_bytes()
    weights = read_tensors(content, tensor_shapes(model, contract))["linear.weight"][0]
    figure = draw(shapes(model.kind, contract, weights), contract.label.meaning)
    atomic_write(out, svg(figure) if out.suffix == ".svg" else png(figure))
    typer.echo(f"Wrote {out}.")


def _check_list_rules(rules: ListRules, node: NodeConfig) -> None:
    """Find now what would keep a name list from being written when a study has ended."""
    for contract, capacity in rules.capacity.items():
        mapping = node.contracts.get(contract)
        if mapping is None:
            raise DataError(
                "CSL-C618",
                f"lists.yaml has a rule for {contract}, which node.yaml does not map.",
                "Correct the contract's name in one of them.",
            )
        if isinstance(capacity, WorthWhile) and mapping.value is None:
            raise DataError(
                "CSL-C619",
                f"lists.yaml weighs cost against benefit for {contract}, and node.yaml maps no money for it.",
                "Map `value` in node.yaml, or ask for a number of customers instead.",
            )


def _open_studies(home: Home) -> list[OpenStudy]:
    folder = home.folder("studies")
    studies = Studies(folder)
    return [studies.find(path.stem) for path in sorted(folder.glob("*.json")) if "." not in path.stem]


def _study_row(study: OpenStudy, ledger: LedgerReader, home: Home) -> dict[str, object]:
    reservation = ledger.reservation(study.rid)
    decision = _decision(home, study)
    return {
        "study": study.spec.draft.name,
        "rid": study.rid,
        "rounds": study.spec.training.rounds,
        "released": 0 if reservation is None else reservation.released.get("training", 0),
        "epsilon": study.grant.epsilon,
        "model": "none yet" if decision is None else ("in use" if decision.adoption.adopted else "not adopted"),
        "listed": None if decision is None else decision.listed,
    }


def _decision(home: Home, study: OpenStudy) -> Decision | None:
    path = home.folder("models") / f"{study.rid}.decision.json"
    return Decision.model_validate_json(path.read_bytes()) if path.exists() else None
