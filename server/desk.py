"""What every command at the coordinator's home needs: where it is, and how figures are printed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from federation.errors import StorageError
from server.home import CoordinatorHome

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="CONSILIENCE_COORDINATOR",
        help="The coordinator's home folder; the current folder unless given.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
HERE = Path()


def home_at(path: Path) -> CoordinatorHome:
    """Return the home in a folder.

    Raises
    ------
    StorageError
        CSL-S111 when there is none.
    """
    home = CoordinatorHome(path)
    if not home.config_file.exists():
        raise StorageError(
            "CSL-S111",
            f"{path.resolve()} is no coordinator's home: it has no coordinator.yaml.",
            "Name the home by --home or CONSILIENCE_COORDINATOR, or make one by `consilience coordinator init`.",
        )
    return home


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
