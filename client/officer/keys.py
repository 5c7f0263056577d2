"""`consilience officer init`: an officer's own key."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from client.desk import JsonOption, print_json
from client.policy_signing import read_passphrase
from federation.contract import Name
from federation.errors import DocumentError
from federation.signing import public_hex
from privacy.keys import create_identity

PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="A file (0600) with the passphrase of your key.", show_default=False),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        help="An open file descriptor with the passphrase, such as 3 with `3< <(pass show officer)`.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command("init")(init)


def init(
    file: Annotated[Path, typer.Argument(help="The key file to make; keep it to yourself.", show_default=False)],
    name: Annotated[str, typer.Option(help="Your name in the policy, such as privacy_officer.", show_default=False)],
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Make an officer's key, sealed by your own passphrase, and print its public half.

    You sign policies and approvals with it. It belongs to you alone: not
    into the vault's home, not to the vault's operators. Only the public key
    goes into the policy.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise DocumentError(
            "CSL-C635",
            "An officer's name is 1 to 48 small letters, digits and underscores, and begins with a letter.",
            "Choose one such as privacy_officer; it stands in policies and in evidence.",
        ) from error
    public = public_hex(
        create_identity(file, use="officer", passphrase=read_passphrase(passphrase_file, passphrase_fd))
    )
    if as_json:
        print_json({"id": name, "key": public, "file": str(file)})
        return
    typer.echo(f"Made {file}. Keep a copy of it and its passphrase; nobody can restore them.")
    typer.echo("Into the policy, under officers:")
    typer.echo(f'  - {{id: {name}, key: "{public}"}}')
