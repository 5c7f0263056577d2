"""The institution's identity key is changed: the next key lies beside the present one until the ledger names it.

First the next key is made, so that the members can sign a charter that names it. Then the ledger's entry, signed by both keys, is
appended, and after it the key file is replaced, which destroys the old secret. Nobody needs it any more: what it signed is verified by
its public half, which the ledger keeps. The same call again finishes what was interrupted, and never begins a second change: that
would leave the charter with a key that nobody holds.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.home import Home
from client.unlock import Opener
from federation.errors import IntegrityError, PolicyError, StorageError
from federation.files import sync_folder
from federation.signing import public_hex
from privacy.keys import create_identity, load_identity
from privacy.ledger import Clock, Ledger, LedgerReader, system_clock


@dataclass(frozen=True)
class Rotated:
    """The public keys before and after, 64 hexadecimal digits each."""

    old: str
    new: str


def next_key_file(home: Home) -> Path:
    """Return where the next key waits until the ledger names it."""
    return home.root / "keys" / "identity.next.key"


def prepare(home: Home, opener: Opener) -> str:
    """Make the next key, if there is none yet, and return its public half: the charter can name it before it signs.

    Raises
    ------
    ConsilienceError
        As `privacy.keys.create_identity` and `load_identity`.
    """
    path = next_key_file(home)
    if path.exists():
        return public_hex(_load(path, opener))
    return public_hex(create_identity(path, passphrase=opener.passphrase, allow_plain=opener.allow_plain))


def rotate(home: Home, opener: Opener, reason: str, clock: Clock = system_clock) -> Rotated:
    """Change the identity key to the one that was prepared; the same again finishes.

    Raises
    ------
    PolicyError
        CSL-C762 when no key was prepared, which is also how it is after the change.
    ConsilienceError
        When a key does not open or the ledger cannot be written. CSL-P317 when the key was used before. CSL-C759 when the next
        key's file cannot take its place; calling again finishes.
    """
    present = _load(home.identity_key, opener)
    old = public_hex(present)
    if not next_key_file(home).exists():
        raise PolicyError(
            "CSL-C762",
            f"No next key is prepared; the present one is {old}.",
            "If this is the new key, all is done; else make one by `consilience officer rotate --prepare`.",
        )
    key = _load(next_key_file(home), opener)
    if not _named(home, public_hex(key)):
        with Ledger.open(home.ledger_file, present, clock=clock) as ledger:
            ledger.rotate(key, reason)
    try:
        os.replace(next_key_file(home), home.identity_key)
        sync_folder(home.identity_key.parent)
    except OSError as error:
        raise StorageError(
            "CSL-C759",
            f"{home.identity_key} cannot be replaced: {error.strerror}. The ledger names the new key already.",
            "Correct the rights, and run the command again: it finishes.",
        ) from error
    return Rotated(old, public_hex(key))


def _named(home: Home, public: str) -> bool:
    """Whether the ledger names the next key already: an earlier call was interrupted after its entry."""
    try:
        with LedgerReader.read(home.ledger_file, public):
            return True
    except IntegrityError as error:
        if error.code == "CSL-P604":
            return False
        raise


def _load(path: Path, opener: Opener) -> Ed25519PrivateKey:
    return load_identity(path, passphrase=opener.passphrase, allow_plain=opener.allow_plain)
