"""The coordinator's keys: opened by the passphrase that an option or coordinator.yaml names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import DocumentError
from privacy.keys import load_identity, passphrase_from_descriptor, passphrase_from_file
from server.home import CoordinatorHome

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="A file (0600) with the passphrase of the coordinator's keys; coordinator.yaml's passphrase_file unless given.",
        show_default=False,
    ),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        help="An open file descriptor with the passphrase, such as 3 with `3< <(pass show coordinator)`.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Opener:
    """What opens key files: a passphrase, or none where coordinator.yaml says that the keys are plain."""

    passphrase: bytes | None = field(repr=False)
    allow_plain: bool


def find_opener(home: CoordinatorHome, passphrase_file: Path | None = None, passphrase_fd: int | None = None) -> Opener:
    """Return what opens the keys: the option that is given, else what coordinator.yaml names.

    Raises
    ------
    DocumentError
        CSL-S113 when nothing says how to open the keys, CSL-S114 for both options at once; coordinator.yaml's faults.
    ConsilienceError
        As `privacy.keys.passphrase_from_file` and `passphrase_from_descriptor`.
    """
    if passphrase_file is not None and passphrase_fd is not None:
        raise DocumentError(
            "CSL-S114", "Both a passphrase file and a descriptor are given.", "Give one of the two options."
        )
    if passphrase_file is not None:
        return Opener(passphrase_from_file(passphrase_file), allow_plain=False)
    if passphrase_fd is not None:
        return Opener(passphrase_from_descriptor(passphrase_fd), allow_plain=False)
    config = home.config()
    if config.passphrase_file is not None:
        return Opener(passphrase_from_file(home.root / config.passphrase_file), allow_plain=False)
    if config.plain_keys:
        return Opener(None, allow_plain=True)
    raise DocumentError(
        "CSL-S113",
        "Nothing says how to open the coordinator's keys.",
        "Write passphrase_file: FILE into coordinator.yaml, or give --passphrase-file or --passphrase-fd.",
    )


def unlock_identity(home: CoordinatorHome, opener: Opener) -> Ed25519PrivateKey:
    """Open the coordinator's identity key. Raises as `privacy.keys.load_identity`."""
    return load_identity(home.identity_key, passphrase=opener.passphrase, allow_plain=opener.allow_plain)
