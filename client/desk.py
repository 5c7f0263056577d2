"""What every command at a home needs: where it is, who asks, how figures are printed."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from client.home import Home
from client.withdrawal import Withdrawals
from federation.errors import DocumentError, StorageError
from privacy.keys import read_public
from privacy.ledger import LedgerReader

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="CONSILIENCE_HOME",
        help="The vault's home folder; the current folder unless given.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of tables.")]
HERE = Path()


def home_at(path: Path) -> Home:
    """Return the home in a folder.

    Raises
    ------
    StorageError
        CSL-C005 when there is no vault.
    """
    home = Home(path)
    if not home.ledger_file.exists():
        raise StorageError(
            "CSL-C005",
            f"{path.resolve()} is no vault's home: it has no ledger.",
            "Name the home by --home or CONSILIENCE_HOME, or make one by `consilience node init`.",
        )
    return home


def open_reader(home: Home) -> LedgerReader:
    """Open the home's ledger for reading, with the key that the home itself names. Raises as `LedgerReader.read`."""
    return LedgerReader.read(home.ledger_file, read_public(home.identity_key))


def open_withdrawals(home: Home, store_key: bytes) -> Withdrawals:
    """Return who withdrew, as the ledger says it must be. Raises as `Withdrawals.load` and `open_reader`."""
    with open_reader(home) as reader:
        least = reader.state().withdrawn
    return Withdrawals.load(home, store_key, least)


def nobody_to_ask() -> DocumentError:
    """Return what to raise where a question needs a yes and nobody sits there."""
    return DocumentError(
        "CSL-C630", "Nobody can be asked here, and this needs a yes.", "Give --yes, or run it on a terminal."
    )


def print_json(value: object) -> None:
    """Print one JSON value for a machine."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
