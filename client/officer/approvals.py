"""`consilience officer approve | decline | close`: what an officer decides, signed by her own key."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from client.desk import HERE, HomeOption, JsonOption, home_at, nobody_to_ask, print_json
from client.home import Home
from client.inbox import several
from client.officer.keys import PassphraseFd, PassphraseFile
from client.officer.studies import Sight, StudyArgument, inbox, inbox_of, print_decisions, show, study_sight
from client.officer.study_view import missing_words, print_outlook, print_study, standing_of
from client.outlook import Outlook, terms_of
from client.policy_signing import read_passphrase
from client.retention import erase_secrets
from client.roles import require_for
from client.unlock import unlock
from federation.errors import DocumentError, PolicyError
from federation.signing import sign
from privacy.keys import load_identity
from privacy.ledger import Ledger, LedgerReader
from privacy.ledger.authority import check_approval
from privacy.ledger.entries import APPROVAL_CONTEXT, ApprovalStatement, ApproveData, Reservation, Reserve

ReasonOption = Annotated[
    str, typer.Option(help="Why; it stands in the ledger for good. At most 300 characters.", show_default=False)
]
KeyOption = Annotated[Path, typer.Option(help="Your own officer's key file.", show_default=False)]
VaultPassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--vault-passphrase-file",
        help="A file (0600) with the passphrase of the vault's keys; node.yaml's passphrase_file unless given.",
        show_default=False,
    ),
]
LONGEST_REASON = 300
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask again.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `consilience officer`."""
    for command in (inbox, show, approve, decline, close):
        app.command()(command)


def approve(
    study: StudyArgument,
    reason: ReasonOption,
    key: KeyOption,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    vault_passphrase_file: VaultPassphraseFile = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Approve a study that waits: sign its digest, under the policy in force, with your own key.

    STUDY is its name or the beginning of its digest. You are shown the whole
    study and asked, before anything is written.

    What is approved is the digest. A study that is changed afterwards is
    another study, and waits again; so does this one when another policy comes
    into force. Where the policy asks for four eyes, a second, distinct officer
    must approve.
    """
    place = home_at(home)
    require_for(place, "officer approve")
    signer = load_identity(key, use="officer", passphrase=read_passphrase(passphrase_file, passphrase_fd))
    with Ledger.open(place.ledger_file, unlock(place, vault_passphrase_file).identity) as ledger:
        _decide(_Decision("approve", reason, signer), study, place, ledger, yes, as_json)


def decline(
    study: StudyArgument,
    reason: ReasonOption,
    key: KeyOption,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    vault_passphrase_file: VaultPassphraseFile = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decline a study that waits; one officer is enough.

    STUDY is its name or the beginning of its digest. The coordinator learns
    only that it was refused, as with every other refusal.
    """
    place = home_at(home)
    require_for(place, "officer decline")
    signer = load_identity(key, use="officer", passphrase=read_passphrase(passphrase_file, passphrase_fd))
    with Ledger.open(place.ledger_file, unlock(place, vault_passphrase_file).identity) as ledger:
        _decide(_Decision("decline", reason, signer), study, place, ledger, yes, as_json)


@dataclass(frozen=True)
class _Decision:
    """What an officer says, and the key by which she says it."""

    word: Literal["approve", "decline"]
    reason: str
    signer: Ed25519PrivateKey


def _checked_reason(text: str) -> str:
    reason = text.strip()
    if not 1 <= len(reason) <= LONGEST_REASON:
        raise DocumentError(
            "CSL-C657",
            f"A reason is 1 to {LONGEST_REASON} characters long.",
            "Write in a sentence why: it stands in the ledger for good.",
        )
    return reason


def _decide(said: _Decision, text: str, home: Home, ledger: Ledger, yes: bool, as_json: bool) -> None:
    """Check everything that the ledger will check, show the study, ask, and write the decision down."""
    study, charter, state = inbox_of(home).find(text), home.charter(), ledger.state()
    study.check(charter.coordinator_key)
    rid = study.rid
    terms = terms_of(study.spec, charter, state, ledger.now())
    assert state.policy is not None
    statement = ApprovalStatement(
        study=rid, policy=terms.policy, decision=said.word, reason=_checked_reason(said.reason)
    )
    signature = sign(said.signer, APPROVAL_CONTEXT, statement)
    data = ApproveData(name=study.spec.draft.name, statement=statement, signature=signature)
    check_approval(state.policy, terms.policy, data, ledger.decisions(rid))
    facts, outlook = study_sight(home, ledger, Sight(study, "waiting"))
    if not yes:
        _ask(said, facts, outlook, Console(highlight=False, stderr=as_json))
    ledger.approve(data)
    status, missing = standing_of(terms.policy, terms.eyes, ledger.decisions(rid))
    if status == "declined":
        inbox_of(home).decline(rid)
    officer = state.policy.officer(signature.key)
    result = {
        "study": study.spec.draft.name,
        "digest": rid,
        "decision": said.word,
        "officer": officer.id if officer is not None else signature.key,
        "policy": terms.policy,
        "status": status,
        "missing": missing,
        "fits": outlook is None or outlook.fits,
    }
    if as_json:
        print_json(result)
    else:
        _print_result(result)


def _ask(said: _Decision, facts: dict[str, Any], outlook: Outlook | None, console: Console) -> None:
    print_study(console, facts)
    print_decisions(console, facts)
    if outlook is not None:
        print_outlook(console, outlook)
    _agree(f"{said.word.capitalize()} this study, digest {facts['digest'][:12]}…?")


def _print_result(result: dict[str, Any]) -> None:
    done = "approved" if result["decision"] == "approve" else "declined"
    typer.echo(f"{result['officer']} {done} {result['study']} ({result['digest'][:12]}…); it stands in the ledger.")
    if result["status"] == "declined":
        typer.echo("The study is declined under the policy in force: every offer of it is refused.")
    elif result["missing"]:
        typer.echo(f"Still missing: {missing_words('waiting', result['missing'])}.")
    else:
        typer.echo("Nothing is missing: the next offer of the study will be granted. Let the coordinator run it again.")
    if result["status"] != "declined" and not result["fits"]:
        typer.echo("Warning: it does not fit the budget as it is now, and would be refused for that. See `show`.")


def close(
    study: StudyArgument,
    reason: ReasonOption,
    home: HomeOption = HERE,
    vault_passphrase_file: VaultPassphraseFile = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """End a study that was granted: nothing of it leaves any more.

    STUDY is its name or the beginning of its digest. Open, it counts in every
    period for ever; closed, from today on for the period's days. Only an
    account from which nothing ever left gets its charge back. What has left
    stays paid for.

    Of a study that is added up in secret nothing comes back once its data were
    read: masked vectors leave before their sum is opened. The secrets of its
    sums are erased.
    """
    place = home_at(home)
    actor = require_for(place, "officer close")
    reason = _checked_reason(reason)
    with Ledger.open(place.ledger_file, unlock(place, vault_passphrase_file).identity) as ledger:
        held = find_reservation(ledger, study)
        back = held.untouched()
        kept = [charge.account for charge in held.data.charges if charge.account not in back]
        if not yes:
            _ask_close(held, back, kept)
        returned = ledger.close(held.rid, f"{reason} (by {actor.account})")
        erased = erase_secrets(place, ledger, held.rid, actor=actor.account, role=actor.role)
    if as_json:
        print_json({"study": held.data.study, "digest": held.rid, "returned": list(returned), "erased": erased})
        return
    typer.echo(f"Closed {held.data.study} ({held.rid[:12]}…). Given back: {', '.join(returned) or 'nothing'}.")
    if erased:
        typer.echo(f"Erased the secrets of its sums: {erased} files.")


def _ask_close(held: Reservation, back: Sequence[str], kept: Sequence[str]) -> None:
    typer.echo(f"{held.data.study}, digest {held.rid}: epsilon {held.data.epsilon:g} is reserved.", err=True)
    for account in kept:
        count = held.released.get(account, 0)
        left = (
            f"{count} releases left the house"
            if count
            else "no sum was opened, but the data were read, and masked vectors may have left"
        )
        typer.echo(f"  {account}: {left}; nothing comes back from this account.", err=True)
    for account in back:
        typer.echo(f"  {account}: nothing left the house; its charge comes back.", err=True)
    if held.data.slot is not None:
        typer.echo(f"  Slot {held.data.slot} of the plan stays taken.", err=True)
    _agree("Close it? It cannot be opened again.")


def _agree(question: str) -> None:
    """Ask; a no ends the command, and so does an input that ends without an answer, where nobody sits before it."""
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        typer.echo("", err=True)
        raise nobody_to_ask() from None
    if not agreed:
        raise typer.Abort


def find_reservation(reader: LedgerReader, text: str) -> Reservation:
    """Return the one open reservation of this name, or whose digest begins with `text`.

    Raises
    ------
    PolicyError
        CSL-C658 when there is none.
    DocumentError
        CSL-C652 when several fit.
    """
    found: dict[str, Reservation] = {}
    for entry in reader.entries(kinds=("reserve",)):
        body = entry.body
        if isinstance(body, Reserve) and (body.data.study == text or (text and body.rid.startswith(text))):
            held = reader.reservation(body.rid)
            if held is not None and not held.closed:
                found[body.rid] = held
    if not found:
        raise PolicyError(
            "CSL-C658",
            f'No study called "{text}" is granted and open, and no digest of one begins so.',
            "See `consilience officer ledger --kind reserve`; a study that waits is declined, not closed.",
        )
    if len(found) > 1:
        raise several(text, list(found))
    return next(iter(found.values()))
