"""A new vault: its folders, its two keys and its ledger, each made once and never over what exists."""

from client.home import FOLDERS, Home
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
        Seals both keys; plain keys only where the caller allows them (simulations).

    Raises
    ------
    StorageError
        CSL-P501, CSL-P510 when a key or the ledger exists already; CSL-F301 when a file cannot be written.
    DocumentError
        CSL-P503, CSL-P504 for a missing or short passphrase.
    """
    for name in FOLDERS:
        home.folder(name)
    identity = create_identity(home.identity_key, passphrase=passphrase, allow_plain=allow_plain)
    holdout_key = create_secret(home.holdout_key, passphrase=passphrase, allow_plain=allow_plain)
    with Ledger.create(home.ledger_file, identity, member=member, holdout_key=holdout_key):
        return public_hex(identity)
