"""A new vault: its folders, its three keys, its register of withdrawals and its ledger, each made once and never over what exists."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from client.home import FOLDERS, Home
from client.withdrawal import create_register
from federation.contract import Name
from federation.errors import ConsilienceError, DocumentError, StorageError
from federation.signing import public_hex
from privacy.keys import create_identity, create_secret
from privacy.ledger import Ledger


def install(home: Home, member: str, passphrase: bytes | None = None, *, allow_plain: bool = False) -> str:
    """Make a vault's home and return its public identity key (64 hexadecimal digits), which goes into the charter.

    Parameters
    ----------
    home, member:
        The folder, and the identifier that the charter will name.
    passphrase, allow_plain:
        Seals the keys; plain keys only where the caller allows them (simulations).

    Raises
    ------
    StorageError
        CSL-C002 when the folders cannot be made; CSL-P501, CSL-P510 when a key or the ledger exists already; CSL-F301 when
        a file cannot be written.
    DocumentError
        CSL-C617 for an identifier that no charter can name; CSL-P503, CSL-P504 for a missing or short passphrase.
    """
    try:
        TypeAdapter(Name).validate_python(member)
    except ValidationError as error:
        raise DocumentError(
            "CSL-C617",
            "A member's identifier is 1 to 48 small letters, digits and underscores, and begins with a letter.",
            "Choose one such as bank_north; it cannot be changed later.",
        ) from error
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            home.folder(name)
    except OSError as error:
        raise StorageError(
            "CSL-C002", f"{home.root} cannot be written: {error.strerror}.", "Correct the rights of the home folder."
        ) from error
    made: list[Path] = []
    try:
        identity = create_identity(home.identity_key, passphrase=passphrase, allow_plain=allow_plain)
        made.append(home.identity_key)
        holdout_key = create_secret(home.holdout_key, passphrase=passphrase, allow_plain=allow_plain)
        made.append(home.holdout_key)
        store_key = create_secret(home.store_key, use="store", passphrase=passphrase, allow_plain=allow_plain)
        made.append(home.store_key)
        create_register(home, store_key)
        made.append(home.withdrawn_file)
        with Ledger.create(home.ledger_file, identity, member=member, holdout_key=holdout_key):
            return public_hex(identity)
    except ConsilienceError:
        for path in made:  # keys of no ledger, which would stand in the way of the next try
            path.unlink(missing_ok=True)
        raise
