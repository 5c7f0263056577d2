"""The group `consilience node`: what an institution's data engineer and marketing analyst do at home."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from client.check import CheckReport, check
from client.config import NodeConfig, load_node
from client.consent import Excluded
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, open_withdrawals, print_json
from client.home import Home
from client.install import install
from client.list_rules import ListRules, list_rules
from client.names import WorthWhile
from client.node import founding, service
from client.node import strategy as strategy_group
from client.node.actions import actions
from client.node.campaign import app as campaign_app
from client.node.keep import purge_command
from client.node.lists import export, names
from client.node.scores import scores
from client.node.segments import segments_command
from client.node.shapes import shapes_command
from client.node.studies import granted_row, print_secret, studies
from client.node.value import value
from client.officer.studies import opened_studies
from client.roles import require_for
from client.unlock import PassphraseFd, PassphraseFile, unlock_store
from federation.charter import Charter
from federation.document import load_yaml
from federation.errors import DataError, PolicyError
from privacy.keys import passphrase_from_file
from privacy.ledger.state import State
from privacy.ledger.succession import check_succession
from privacy.policy import Policy

app = typer.Typer(
    no_args_is_help=True,
    help="For institutions. A vault lives in one folder, its home: charter, contracts, policy.yaml, node.yaml, keys, ledger, "
    "name lists. Begin with `init`, join by `card` and `charter`, write node.yaml and policy.yaml, then `check`. Every command "
    "but `init` takes the home from --home, from CONSILIENCE_HOME, or from the current folder.",
)


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="The folder to make.")],
    member: Annotated[str, typer.Option(help="The identifier that the charter will name, such as bank_north.")],
    passphrase_file: Annotated[Path, typer.Option(help="A file (0600) that holds the passphrase for the keys.")],
    as_json: JsonOption = False,
) -> None:
    """Make a vault's folders, keys and ledger. Prints the public key, which goes into the charter; the private one never leaves.

    Run it as the service account that shall own the home. Three keys are made
    under keys/, sealed by the passphrase: identity, hold-out and store. Keep
    a copy of them and of the passphrase apart from each other: without the
    store key nothing that the vault keeps can be read again. Beside them lie
    two without a passphrase, which open nothing of the vault's: node.key, by
    which the link knows the node, and runtime.secret. If the command was
    killed, run it again.
    """
    key = install(Home(home), member, passphrase_from_file(passphrase_file))
    if as_json:
        print_json({"home": str(home), "member": member, "key": key})
        return
    typer.echo(f"Made {home}. Public key of {member}: {key}")
    typer.echo(
        "Next: write roles.yaml, membership.yaml and node.yaml (its passphrase_file says where the passphrase lies); send the "
        "coordinator your `consilience node card`; sign and accept the charter; write policy.yaml, then `consilience node check`."
    )


@app.command("check")
def check_command(
    home: HomeOption = HERE,
    contract: Annotated[
        str | None, typer.Option(help="Only this contract; all that the policy allows otherwise.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Try keys, policy, mapping, consent and contract on your own tables, without releasing anything.

    For operators. Shows rows, violations with counts, shares missing and
    clipped: at this institution only. The policy is the one in force in the
    ledger, else policy.yaml; it warns where the two differ. Customers who
    withdrew count as without consent. Exit code 4 when a study could not be
    served.
    """
    place = home_at(home)
    require_for(place, "node check")
    charter, node = place.charter(), load_node(place.node_file)
    _check_list_rules(list_rules(place), node)
    withdrawn = open_withdrawals(place, unlock_store(place, passphrase_file, passphrase_fd))
    with open_reader(place) as ledger:
        policy, warnings = _policy(place, ledger.state())
    if node.plain_keys:
        warnings.append("node.yaml says plain_keys: the keys lie open on the disk; for simulations alone.")
    reports = _reports(place, charter, node, policy, contract, withdrawn.excluded)
    if as_json:
        print_json({"reports": [report.as_dict() for report in reports], "warnings": warnings})
    else:
        console = Console()
        for report in reports:
            console.print(report)
        for line in warnings:
            console.print(f"Warning: {line}", style="yellow", highlight=False, markup=False)
    if not all(report.ok for report in reports):
        raise DataError(
            "CSL-C612",
            "A study could not be served from these tables.",
            "Correct what is listed above, and check again.",
        )


def _policy(home: Home, state: State) -> tuple[Policy, list[str]]:
    """Return the policy to check against, and where policy.yaml differs from the one in force."""
    file = load_yaml(home.policy_file, Policy) if home.policy_file.exists() else None
    if file is None and state.policy is None:
        raise PolicyError("CSL-C556", "There is no policy.", "Write one by `consilience officer policy new`.")
    if file is None:
        assert state.policy is not None
        return state.policy, []
    if state.policy is not None and file.digest() == state.policy.digest():
        return file, []
    now = "no policy is" if state.policy is None else f"version {state.policy.version} is"
    warnings = [f"policy.yaml, version {file.version}, is not in force; {now}. It counts once it is activated."]
    try:
        check_succession(state, file)
    except PolicyError as error:
        warnings.append(f"policy.yaml could not come into force: {error.code}  {error.cause}")
    return state.policy or file, warnings


def _reports(
    home: Home,
    charter: Charter,
    node: NodeConfig,
    policy: Policy,
    contract: str | None,
    excluded: Excluded | None,
) -> list[CheckReport]:
    reports: list[CheckReport] = []
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
        pinned = home.contract(charter, rule.contract)
        reports += [
            check(node, pinned, declaration, consent, policy.contact_consent, rule.holdout, excluded=excluded)
            for consent in consents
        ]
    if not reports:
        raise DataError("CSL-C614", f"The policy allows no study on {contract}.", "Name one of the policy's contracts.")
    return reports


@app.command()
def status(
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Show the running service, the vault's charter, policy, studies, and the models that it decided upon.

    Of a study whose vectors are added up in secret it says on which terms, and how
    far set-up and sums got.

    For everybody with a role. Names no customer; how many stand on a list is
    private all the same, and stays at the institution.
    """
    place = home_at(home)
    require_for(place, "node status")
    store_key = unlock_store(place, passphrase_file, passphrase_fd)
    with open_reader(place) as ledger:
        policy = ledger.policy()
        rows = [granted_row(place, ledger, store_key, study) for study in opened_studies(place)]
    summary: dict[str, Any] = {
        "member": load_node(place.node_file).member,
        "charter": place.charter().digest(),
        "policy": None if policy is None else {"version": policy.version, "expires": policy.expires.isoformat()},
        "withdrawn": len(open_withdrawals(place, store_key)),
        "studies": rows,
        "service": service.service_facts(place),
    }
    if as_json:
        print_json(summary)
    else:
        _print_status(Console(), summary)


def _print_status(console: Console, summary: dict[str, Any]) -> None:
    console.print(f"[bold]{summary['member']}[/bold]  charter {str(summary['charter'])[:16]}…")
    policy = summary["policy"]
    console.print(
        "No policy in force." if policy is None else f"Policy version {policy['version']}, until {policy['expires']}."
    )
    service.print_service(console, summary["service"])
    table = Table("study", "rounds released", "ε granted", "model", "on the list")
    for row in summary["studies"]:
        table.add_row(
            str(row["study"]),
            f"{row['released']} of {row['rounds']}",
            f"{row['epsilon']:g}",
            str(row["model"]),
            str(row["listed"]),
        )
    console.print(table)
    print_secret(console, summary["studies"])


app.command()(names)
app.command()(export)
app.command()(scores)
app.command()(actions)
app.add_typer(strategy_group.app, name="strategy")
app.command()(value)
app.command()(studies)
app.command("purge")(purge_command)
app.command("segments")(segments_command)
app.command("shapes")(shapes_command)
app.add_typer(campaign_app, name="campaign")
founding.register(app)
service.register(app)


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
