"""The vault's keys: opened by the passphrase that an option or node.yaml names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.config import load_node
from client.home import Home
from federation.errors import DocumentError
from privacy.keys import load_identity, load_secret, passphrase_from_descriptor, passphrase_from_file

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="A file (0600) with the passphrase of the vault's keys; node.yaml's passphrase_file unless given.",
        show_default=False,
    ),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        help="An open file descriptor with the passphrase, such as 3 with `3< <(pass show vault)`.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Keys:
    """A vault's opened keys: its identity, the 32 bytes that decide who is held out, the 32 bytes that seal files."""

    identity: Ed25519PrivateKey = field(repr=False)
    holdout: bytes = field(repr=False)
    store: bytes = field(repr=False)


@dataclass(frozen=True)
class Opener:
    """What opens key files: a passphrase, or none where node.yaml says that the keys are plain."""

    passphrase: bytes | None = field(repr=False)
    allow_plain: bool


def unlock(home: Home, passphrase_file: Path | None = None, passphrase_fd: int | None = None) -> Keys:
    """Open the vault's three keys; about half a second, as the passphrase is stretched for each.

    The passphrase comes from the option that is given; else from the file that node.yaml names as `passphrase_file`; with
    `plain_keys: true` in node.yaml (simulations) there is none.

    Raises
    ------
    DocumentError
        CSL-C540 when nothing says how to open the keys, CSL-C541 for both options at once; node.yaml's faults.
    ConsilienceError
        As `privacy.keys.load_identity`.
    """
    opener = find_opener(home, passphrase_file, passphrase_fd)
    return Keys(identity=_identity(home, opener), holdout=_secret(home, opener), store=_store(home, opener))


def unlock_store(home: Home, passphrase_file: Path | None = None, passphrase_fd: int | None = None) -> bytes:
    """Open the key of what lies at rest alone. Raises as `unlock`."""
    return _store(home, find_opener(home, passphrase_file, passphrase_fd))


def find_opener(home: Home, passphrase_file: Path | None, passphrase_fd: int | None) -> Opener:
    """Return what opens the keys. Raises as `unlock`."""
    if passphrase_file is not None and passphrase_fd is not None:
        raise DocumentError(
            "CSL-C541", "Both a passphrase file and a descriptor are given.", "Give one of the two options."
        )
    if passphrase_file is not None:
        return Opener(passphrase_from_file(passphrase_file), allow_plain=False)
    if passphrase_fd is not None:
        return Opener(passphrase_from_descriptor(passphrase_fd), allow_plain=False)
    node = load_node(home.node_file)
    if node.passphrase_file is not None:
        return Opener(passphrase_from_file(node.home / node.passphrase_file), allow_plain=False)
    if node.plain_keys:
        return Opener(None, allow_plain=True)
    raise DocumentError(
        "CSL-C540",
        "Nothing says how to open the vault's keys.",
        "Write passphrase_file: FILE into node.yaml, or give --passphrase-file or --passphrase-fd.",
    )


def _identity(home: Home, opener: Opener) -> Ed25519PrivateKey:
    return load_identity(home.identity_key, passphrase=opener.passphrase, allow_plain=opener.allow_plain)


def _secret(home: Home, opener: Opener) -> bytes:
    return load_secret(home.holdout_key, passphrase=opener.passphrase, allow_plain=opener.allow_plain)


def _store(home: Home, opener: Opener) -> bytes:
    return load_secret(home.store_key, use="store", passphrase=opener.passphrase, allow_plain=opener.allow_plain)
