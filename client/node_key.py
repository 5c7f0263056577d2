"""What an institution's SuperNode goes by: its P-384 key for the link, and the secret that it shares with the vault's worker.

Neither can open or sign anything of the vault's. The key is what Flower reads, so it has no passphrase: whoever holds it can take the
SuperNode's place at the link and gets what the coordinator sends, and can give no answer that the identity key has not signed.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from client.home import PRIVATE, Home
from federation.errors import DocumentError, StorageError
from federation.files import atomic_write, check_private

SECRET_BYTES = 32
_MAX_KEY_BYTES = 4096


def ensure_node_key(home: Home) -> bool:
    """Make the node key (0600) if there is none, and return whether it was made.

    The curve's own generator in OpenSSL draws it; a key that is there is never replaced: to change it, move it away first.

    Raises
    ------
    StorageError
        CSL-F301 when it cannot be written.
    """
    path = home.node_key
    if path.exists() or path.is_symlink():
        return False
    key = ec.generate_private_key(ec.SECP384R1())
    atomic_write(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), PRIVATE)
    return True


def ensure_runtime_secret(home: Home) -> None:
    """Make the secret of SuperNode and worker (32 bytes, 0600) if there is none. Raises StorageError CSL-F301."""
    path = home.runtime_secret
    if not (path.exists() or path.is_symlink()):
        atomic_write(path, os.urandom(SECRET_BYTES), PRIVATE)


def node_key_line(home: Home) -> str:
    """Return the public half of the node key as the charter names it: an OpenSSH line without a comment.

    Raises
    ------
    StorageError
        CSL-F311 when the file is missing, CSL-F312 when others than its owner may open it; CSL-C451 when it cannot be read.
    DocumentError
        CSL-C452 when it is no P-384 key in OpenSSH's format without a passphrase.
    """
    path = home.node_key
    check_private(path)
    try:
        key = load_ssh_private_key(_content(path), password=None)
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        NotImplementedError,
    ) as error:  # the last for a compressed point
        raise _no_node_key(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _no_node_key(path)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def read_runtime_secret(home: Home) -> bytes:
    """Return the secret that SuperNode and worker share.

    Raises
    ------
    StorageError
        CSL-F311, CSL-F312, CSL-C451 as `node_key_line`.
    DocumentError
        CSL-C453 when it is too short to be one.
    """
    path = home.runtime_secret
    check_private(path)
    secret = _content(path)
    if len(secret) != SECRET_BYTES:
        raise DocumentError(
            "CSL-C453",
            f"{path} holds {len(secret)} bytes; the secret has {SECRET_BYTES}.",
            "Remove it and start the node again: it makes a new one.",
        )
    return secret


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise StorageError(
            "CSL-C451", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error


def _no_node_key(path: Path) -> DocumentError:
    return DocumentError(
        "CSL-C452",
        f"{path} is no P-384 key in OpenSSH's format without a passphrase.",
        "Restore it from the backup; or move it away, let `consilience node card` make a new one, and send the card.",
    )
