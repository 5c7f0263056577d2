"""`consilience node purge`: deletes now what the policy's retention no longer allows to be kept."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from client.desk import HERE, HomeOption, JsonOption, home_at, print_json
from client.home import check_unlocked
from client.retention import Due, due, purge
from client.roles import require_for
from client.unlock import PassphraseFd, PassphraseFile, unlock
from federation.errors import PolicyError
from privacy.ledger import Ledger, LedgerReader
from privacy.policy import Retention


def purge_command(
    home: HomeOption = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Delete name lists, kept scorings, kept replies and participation records that are older than the policy allows.

    For operators and officers. The vault does the same when it starts and
    after each study; run this, from a timer, where a vault is seldom started.
    Days count by the ledger's time: a list from the day in its name, the rest
    from the closing of its study. Each deletion stands in the ledger first.
    """
    place = home_at(home)
    actor = require_for(place, "node purge")
    check_unlocked(place)
    keys = unlock(place, passphrase_file, passphrase_fd)
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        retention = _retention(ledger)
        if dry_run:
            found = due(place, retention, ledger, ledger.now())
        else:
            found = purge(place, retention, ledger, actor=actor.account, role=actor.role)
    if as_json:
        print_json(
            {"dry_run": dry_run, "deleted": [{"what": what, "files": len(files)} for what, files in found.groups()]}
        )
        return
    _show(found, dry_run)


def _retention(ledger: LedgerReader) -> Retention:
    policy = ledger.policy()
    if policy is None:
        raise PolicyError(
            "CSL-C555",
            "No policy is in force, so nothing says how long to keep what.",
            "Bring a policy into force first.",
        )
    return policy.retention


def _show(found: Due, dry_run: bool) -> None:
    console = Console()
    if not found:
        console.print("Nothing is older than the policy allows.")
        return
    console.print("Would be deleted:" if dry_run else "Deleted, each noted in the ledger:")
    for what, files in found.groups():
        console.print(f"  {escape(what)}: {len(files)} files", highlight=False)
