"""`consilience officer backup | restore | rotate`: what keeps a ledger alive for years."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client.backup import write_backup
from client.desk import HERE, HomeOption, JsonOption, home_at, print_json
from client.home import Home, check_unlocked
from client.officer.keys import PassphraseFd as OfficerPassphraseFd
from client.officer.keys import PassphraseFile as OfficerPassphraseFile
from client.policy_signing import read_passphrase
from client.restoration import Begun, add_signature, begin, finish, read_statement, signatures_file
from client.roles import require_for
from client.rotation import Rotated, next_key_file, prepare, rotate
from client.unlock import PassphraseFd, PassphraseFile, find_opener, unlock
from federation.errors import DocumentError
from federation.heads import read_note
from privacy.keys import load_identity
from privacy.ledger.entries import RestoreStatement

LONGEST_REASON = 300
ReasonOption = Annotated[
    str, typer.Option(help="Why; it stands in the ledger for good. At most 300 characters.", show_default=False)
]
restore_app = typer.Typer(
    no_args_is_help=True,
    help="Bring a home back from a backup, in three steps: `begin` unpacks and checks it and locks it, two officers `sign`, "
    "`finish` opens it. Unless you can show that nothing was written after the backup, nothing remains to spend.",
)


def register(app: typer.Typer) -> None:
    """Add the commands to `consilience officer`."""
    app.command("backup")(backup_command)
    app.command("rotate")(rotate_command)
    app.add_typer(restore_app, name="restore")


def backup_command(
    out: Annotated[
        Path, typer.Argument(help="The file to write, if it ends in .zip; else a folder.", show_default=False)
    ],
    home: HomeOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a backup of the vault's home, while the vault goes on working.

    It holds one moment of the ledger, the sealed keys, policy, charter,
    contracts, studies, kept replies, records of who took part, the register of
    withdrawals and the witnesses' notes, and the node key, which has no
    passphrase and opens nothing. Not the customers' tables, not the name
    lists, and not the passphrase: keep that in another place.

    Keep backups no longer than the policy keeps replies: what retention
    deletes at home lives on in them, sealed.
    """
    place = home_at(home)
    require_for(place, "officer backup")
    check_unlocked(place)
    manifest = write_backup(place, out, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))
    if as_json:
        print_json(
            {"file": str(out), "digest": manifest.digest()} | manifest.model_dump(mode="json", exclude={"files"})
        )
        return
    typer.echo(
        f"Wrote {out}: {len(manifest.files)} files, the ledger of {manifest.member} with {manifest.size} entries."
    )
    typer.echo(f"Tree head {manifest.size}:{manifest.root}")
    typer.echo(f"Digest of the manifest {manifest.digest()}")
    typer.echo("Whoever has both this and the passphrase can act as the institution: keep them apart.")


def _checked_reason(text: str) -> str:
    reason = text.strip()
    if not 1 <= len(reason) <= LONGEST_REASON:
        raise DocumentError(
            "CSL-C760", f"A reason is 1 to {LONGEST_REASON} characters long.", "Write in a sentence why."
        )
    return reason


@restore_app.command("begin")
def restore_begin(
    backup: Annotated[Path, typer.Argument(help="The backup, a .zip file or a folder.", show_default=False)],
    reason: ReasonOption,
    home: Annotated[
        Path,
        typer.Option(help="The new home, a path where nothing is yet.", envvar="CONSILIENCE_HOME", show_default=False),
    ],
    complete: Annotated[
        bool, typer.Option("--complete", help="You give your word that the vault wrote nothing after this backup.")
    ] = False,
    note: Annotated[
        Path | None,
        typer.Option(help="With --complete: the ledger's last head as others countersigned it.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Unpack a backup into a new home, check everything in it, and lock it until two officers have signed.

    With --complete and --note the budget goes on as it stood. Without them
    entries may be missing, and so everything that was left counts as spent:
    for good, whatever is found later.
    """
    if complete != (note is not None):
        raise DocumentError(
            "CSL-C761",
            "--complete and --note belong together: your word, and a countersigned head that bears it out.",
            "Give both, or neither: then nothing remains to spend.",
        )
    text = None if note is None else read_note(note)
    begun = begin(
        backup,
        home,
        _checked_reason(reason),
        note=text,
        allowed=lambda place: require_for(place, "officer restore"),
    )
    _print_begun(begun, home, as_json)


def _print_begun(begun: Begun, home: Path, as_json: bool) -> None:
    if as_json:
        print_json({"home": str(home), "file": str(begun.file), **begun.statement.model_dump(mode="json")})
        return
    manifest = begun.manifest
    typer.echo(f"Unpacked the backup of {manifest.made} into {home}: {manifest.size} entries, all of them verified.")
    _print_statement(begun.statement)
    typer.echo("The home is locked. Two officers sign, each with an own key:")
    typer.echo(f"  consilience officer restore sign {begun.file} --key FILE --passphrase-file FILE")
    typer.echo("Then:")
    typer.echo(f"  consilience officer restore finish --home {home}")


def _print_statement(statement: RestoreStatement) -> None:
    typer.echo(f"Restoration of {statement.member}: {statement.reason}")
    if statement.complete:
        typer.echo("The officers say that the vault wrote nothing after the backup: the budget goes on as it stood.")
    else:
        typer.echo("Entries may be missing: with this signed, nothing remains to spend, for good.")


@restore_app.command("sign")
def restore_sign(
    file: Annotated[Path, typer.Argument(help="The statement: restore.json of the new home.", show_default=False)],
    key: Annotated[Path, typer.Option(help="Your own officer's key file.", show_default=False)],
    passphrase_file: OfficerPassphraseFile = None,
    passphrase_fd: OfficerPassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a restoration with your own key; two officers of the policy in force must.

    Read what it says first: who signs that a backup is complete answers
    for it when entries turn up that were written after it.
    """
    statement = read_statement(file)
    signer = load_identity(key, use="officer", passphrase=read_passphrase(passphrase_file, passphrase_fd))
    signatures = add_signature(file, signer)
    if as_json:
        print_json({"file": str(signatures_file(file)), "signatures": len(signatures), **statement.model_dump()})
        return
    _print_statement(statement)
    typer.echo(f"Signed: {signatures_file(file)} holds {len(signatures)} of 2 signatures.")


@restore_app.command("finish")
def restore_finish(
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Write the signed restoration into the ledger and unlock the home; run it again if it was interrupted."""
    place = home_at(home)
    require_for(place, "officer restore")
    state = finish(place, unlock(place, passphrase_file, passphrase_fd).identity)
    if as_json:
        print_json({"home": str(home), "size": state.size, "exhausted": state.exhausted, "key": state.key})
        return
    typer.echo(f"The ledger of {state.member} goes on after entry {state.size - 1}, and the home is open again.")
    if state.exhausted:
        typer.echo("Nothing remains to spend: no study will be granted, whatever the policy says.")
    typer.echo(f"The charter must name this key for {state.member}: {state.key}")


def rotate_command(
    reason: Annotated[
        str, typer.Option(help="Why; it stands in the ledger for good. At most 300 characters.", show_default=False)
    ] = "",
    prepare_only: Annotated[
        bool, typer.Option("--prepare", help="First: make the next key and print it, so that a charter can name it.")
    ] = False,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Change the institution's identity key, by a ledger entry that the old and the new key sign.

    With --prepare you get the next key, and the members sign a charter that
    names it. Then run the command without it, install that charter, and start
    the vault again. The old secret is destroyed; what it signed stays valid.
    Run the command again if it was interrupted.
    """
    place = home_at(home)
    require_for(place, "officer rotate")
    check_unlocked(place)
    opener = find_opener(place, passphrase_file, passphrase_fd)
    if prepare_only:
        _print_next(place, prepare(place, opener), as_json)
        return
    done = rotate(place, opener, _checked_reason(reason))
    _print_rotated(done, as_json)


def _print_next(home: Home, public: str, as_json: bool) -> None:
    if as_json:
        print_json({"next": public, "file": str(next_key_file(home))})
        return
    typer.echo(f"The next key: {public}")
    typer.echo("Let the members sign a charter that names it; then run the command without --prepare, with --reason.")


def _print_rotated(done: Rotated, as_json: bool) -> None:
    if as_json:
        print_json({"old": done.old, "new": done.new})
        return
    typer.echo("The institution's key is changed, and the old one destroyed.")
    typer.echo(f"New public key: {done.new}")
    typer.echo(
        "Until the charter names it, the vault answers nobody: install the charter that does, and start it again."
    )
