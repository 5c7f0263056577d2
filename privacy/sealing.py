"""Files at rest: content sealed under the vault's store key, so that a copied disk or a backup shows nothing.

A box is `csl-box1`, a random salt of 32 bytes, a random nonce of 12 bytes, and AES-256-GCM of the content (NIST SP 800-38D).
Each box has a key of its own, HKDF-SHA256 (RFC 5869) of the store key and the salt: random nonces of 96 bits under one
key would bound the number of boxes (2^32 in all, by the same publication, section 8.3); with keys of their own two boxes
share key and nonce with a chance of about 2^-352 for each pair. Header and context (what the file is, and its name) are
the associated data: a box moved to another place does not open there.

What a box does not hide: its length, its file's name and times. What it does not prevent: an old box put back in the place
of a newer one of the same name; who can do that can write to the vault's home.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write

FAMILY = b"csl-box"
MAGIC = FAMILY + b"1"
KEY_BYTES = 32
SALT_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = len(MAGIC) + SALT_BYTES + NONCE_BYTES
OVERHEAD = HEADER_BYTES + TAG_BYTES
PRIVATE = 0o600

RandomBytes = Callable[[int], bytes]


def seal(key: bytes, context: str, content: bytes, *, random: RandomBytes = os.urandom) -> bytes:
    """Return `content` as a box, 68 bytes longer.

    Parameters
    ----------
    key:
        The store key, 32 bytes.
    context:
        What the content is and where it belongs; `unseal` must name the same.
    random:
        Draws salt and nonce: the operating system's generator, but in tests.
    """
    header = MAGIC + random(SALT_BYTES) + random(NONCE_BYTES)
    return header + _cipher(key, header).encrypt(header[-NONCE_BYTES:], content, _bound(header, context))


def unseal(key: bytes, context: str, box: bytes) -> bytes:
    """Return the content of a box.

    Raises
    ------
    IntegrityError
        CSL-P520 when the bytes are no box, CSL-P521 when it was sealed by a newer release, CSL-P522 when key or context
        are others or a bit was changed.
    """
    if not box.startswith(FAMILY) or len(box) < OVERHEAD:
        raise IntegrityError(
            "CSL-P520", f"The sealed {context} is no sealed file, or was cut off.", "Restore it from the backup."
        )
    header, sealed = box[:HEADER_BYTES], box[HEADER_BYTES:]
    if not header.startswith(MAGIC):
        raise IntegrityError(
            "CSL-P521", f"The sealed {context} is of a newer format.", "Read it with the release that wrote it."
        )
    try:
        return _cipher(key, header).decrypt(header[-NONCE_BYTES:], sealed, _bound(header, context))
    except InvalidTag as error:
        raise IntegrityError(
            "CSL-P522",
            f"The sealed {context} does not open: another store key, an altered file, or a file of another name.",
            "Restore the file, or keys/store.key, from the backup.",
        ) from error


def write_sealed(path: Path, key: bytes, kind: str, content: bytes, *, random: RandomBytes = os.urandom) -> None:
    """Seal `content` as a file of a kind and write it (0600), whole or not at all; no part of it is ever on the disk in clear.

    Raises
    ------
    StorageError
        CSL-F301 when it cannot be written.
    """
    atomic_write(path, seal(key, _context(kind, path), content, random=random), mode=PRIVATE)


def read_sealed(path: Path, key: bytes, kind: str) -> bytes | None:
    """Return the content of a sealed file of a kind, or None where there is no such file.

    Raises
    ------
    StorageError
        CSL-P523 when it cannot be read.
    IntegrityError
        As `unseal`.
    """
    try:
        box = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            "CSL-P523", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    return unseal(key, _context(kind, path), box)


def subkey(key: bytes, purpose: str) -> bytes:
    """Return 32 bytes for one purpose by HKDF-SHA256 of the store key: what is keyed for one tells nothing about another."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"csl1/subkey\0" + purpose.encode()).derive(key)


def _cipher(key: bytes, header: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise ValueError("a store key has 32 bytes")
    salt = header[len(MAGIC) : len(MAGIC) + SALT_BYTES]
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"csl1/box\0").derive(key))


def _bound(header: bytes, context: str) -> bytes:
    return header + context.encode()


def _context(kind: str, path: Path) -> str:
    return f"{kind} {path.name}"
