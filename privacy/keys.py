"""Key files at rest: 32 secret bytes, sealed under a passphrase, or (only where the caller says so) plain with closed
rights.

Argon2id (RFC 9106, its second recommended choice: 64 MiB, 3 passes, 4 lanes) turns the passphrase into a key for
AES-256-GCM over the raw secret. The file's other fields are the associated data, so that none can be exchanged.
Passphrases come from a file or a file descriptor, never from a command line, where other processes see them.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import Field

from federation.document import Document
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.signing import Hex32, public_hex

MEMORY_KIB = 65_536
PASSES = 3
LANES = 4
SECRET_BYTES = 32
SHORTEST_PASSPHRASE = 12
MAX_FILE_BYTES = 4096

KeyUse = Literal["identity", "holdout", "officer", "store", "authority"]
RandomBytes = Callable[[int], bytes]


class Sealing(Document):
    """How a secret is sealed; the bounds keep a hostile file from asking for all of the machine's memory."""

    kdf: Literal["argon2id"] = "argon2id"
    memory_kib: Annotated[int, Field(ge=MEMORY_KIB, le=1_048_576)] = MEMORY_KIB
    passes: Annotated[int, Field(ge=PASSES, le=16)] = PASSES
    lanes: Annotated[int, Field(ge=1, le=16)] = LANES
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    cipher: Literal["aes-256-gcm"] = "aes-256-gcm"
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]


class KeyFile(Document):
    """A key file: canonical JSON. `secret` is the raw secret (`sealing` None) or its AES-256-GCM box, hexadecimal.

    `public` is the Ed25519 public key where the secret is a signing seed.
    """

    format: Literal["consilience-key-1"] = "consilience-key-1"
    use: KeyUse
    public: Hex32 | None = None
    sealing: Sealing | None = None
    secret: Annotated[str, Field(pattern=r"^([0-9a-f]{64}|[0-9a-f]{96})$")]


def create_identity(
    path: Path,
    *,
    use: KeyUse = "identity",
    passphrase: bytes | None = None,
    allow_plain: bool = False,
    random: RandomBytes = os.urandom,
) -> Ed25519PrivateKey:
    """Draw an Ed25519 signing key, write it to `path` (0600, atomic; never over a file that exists) and return it.

    Raises
    ------
    StorageError
        CSL-P501 when the file exists; CSL-F301 when it cannot be written.
    DocumentError
        CSL-P503 without a passphrase and without `allow_plain`; CSL-P504 for a passphrase that is too short.
    """
    seed = random(SECRET_BYTES)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    _write(path, use, seed, public_hex(key), passphrase, allow_plain, random)
    return key


def create_secret(
    path: Path,
    *,
    use: KeyUse = "holdout",
    passphrase: bytes | None = None,
    allow_plain: bool = False,
    random: RandomBytes = os.urandom,
) -> bytes:
    """Draw 32 secret bytes, write them to `path` and return them. Raises as `create_identity`."""
    secret = random(SECRET_BYTES)
    _write(path, use, secret, None, passphrase, allow_plain, random)
    return secret


def load_identity(
    path: Path, *, use: KeyUse = "identity", passphrase: bytes | None = None, allow_plain: bool = False
) -> Ed25519PrivateKey:
    """Read an Ed25519 signing key.

    Raises
    ------
    StorageError
        CSL-P502 when the file cannot be read; CSL-P505 when others than its owner may open it.
    DocumentError
        CSL-P503 when it is plain and `allow_plain` is not set, or sealed and no passphrase is given; CSL-P506 when it
        is not a key file, or one for another use.
    IntegrityError
        CSL-P507 for a wrong passphrase or an altered file; CSL-P508 when secret and public key do not belong together.
    """
    document, seed = _read(path, use, passphrase, allow_plain)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    if document.public != public_hex(key):
        raise IntegrityError(
            "CSL-P508", f"{path}: the public key is not that of the secret.", "Restore the key file from its backup."
        )
    return key


def load_secret(
    path: Path, *, use: KeyUse = "holdout", passphrase: bytes | None = None, allow_plain: bool = False
) -> bytes:
    """Read 32 secret bytes. Raises as `load_identity`."""
    return _read(path, use, passphrase, allow_plain)[1]


def read_public(path: Path) -> str:
    """Return the public key (64 hexadecimal digits) that a key file names; needs no passphrase.

    Raises
    ------
    StorageError
        CSL-P502 when the file cannot be read.
    DocumentError
        CSL-P506 when it is not a file of a signing key.
    """
    document = _parse(path, _content(path))
    if document.public is None:
        raise DocumentError("CSL-P506", f"{path} holds no signing key.", "Name the file of an identity or officer key.")
    return document.public


def is_sealed(path: Path) -> bool:
    """Return whether a key file is sealed by a passphrase.

    Raises
    ------
    StorageError
        CSL-P502 when the file cannot be read.
    DocumentError
        CSL-P506 when it is no key file.
    """
    return _parse(path, _content(path)).sealing is not None


def passphrase_from_file(path: Path) -> bytes:
    """Return a file's content as a passphrase, without the line's end; the file must belong to its owner alone.

    Raises
    ------
    StorageError
        CSL-P502, CSL-P505 as `load_identity`.
    DocumentError
        CSL-P504 when it is too short.
    """
    _closed(path)
    return _passphrase(_content(path))


def passphrase_from_descriptor(descriptor: int) -> bytes:
    """Read a passphrase from an open file descriptor (a pipe, as `3< <(pass show vault)` gives one) to its end.

    Raises
    ------
    StorageError
        CSL-P502 when it cannot be read.
    DocumentError
        CSL-P504 when it is too short.
    """
    try:
        with os.fdopen(descriptor, "rb") as handle:
            return _passphrase(handle.read(MAX_FILE_BYTES))
    except OSError as error:
        raise StorageError(
            "CSL-P502",
            f"File descriptor {descriptor} cannot be read: {error.strerror}.",
            "Open it for reading in the shell.",
        ) from error


def _passphrase(content: bytes) -> bytes:
    passphrase = content.rstrip(b"\r\n")
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise DocumentError(
            "CSL-P504", f"The passphrase has fewer than {SHORTEST_PASSPHRASE} characters.", "Use several random words."
        )
    return passphrase


def _write(
    path: Path,
    use: KeyUse,
    secret: bytes,
    public: str | None,
    passphrase: bytes | None,
    allow_plain: bool,
    random: RandomBytes,
) -> None:
    if path.exists() or path.is_symlink():
        raise StorageError(
            "CSL-P501", f"{path} exists: a key is never overwritten.", "Choose another path, or move the old key away."
        )
    if passphrase is None:
        if not allow_plain:
            raise _needs_passphrase(path)
        document = KeyFile(use=use, public=public, secret=secret.hex())
    else:
        sealing = Sealing(salt=random(16).hex(), nonce=random(12).hex())
        blank = KeyFile(use=use, public=public, sealing=sealing, secret="0" * 96)
        box = AESGCM(_derive(_passphrase(passphrase), sealing)).encrypt(
            bytes.fromhex(sealing.nonce), secret, _bound(blank)
        )
        document = blank.model_copy(update={"secret": box.hex()})
    atomic_write(path, document.canonical(), mode=0o600)


def _read(path: Path, use: KeyUse, passphrase: bytes | None, allow_plain: bool) -> tuple[KeyFile, bytes]:
    _closed(path)
    document = _parse(path, _content(path))
    if document.use != use:
        raise DocumentError(
            "CSL-P506", f"{path} is a key for {document.use}, not for {use}.", "Name the right key file."
        )
    if document.sealing is None:
        if not allow_plain:
            raise DocumentError(
                "CSL-P503",
                f"{path} is not sealed by a passphrase.",
                "Make a sealed key; plain ones are for simulations alone.",
            )
        return document, bytes.fromhex(document.secret)
    if passphrase is None:
        raise _needs_passphrase(path)
    cipher = AESGCM(_derive(passphrase, document.sealing))
    try:
        secret = cipher.decrypt(bytes.fromhex(document.sealing.nonce), bytes.fromhex(document.secret), _bound(document))
    except InvalidTag as error:
        raise IntegrityError(
            "CSL-P507",
            f"{path} does not open: the passphrase is wrong, or the file was altered.",
            "Try the right passphrase, or the backup.",
        ) from error
    return document, secret


def _derive(passphrase: bytes, sealing: Sealing) -> bytes:
    kdf = Argon2id(
        salt=bytes.fromhex(sealing.salt),
        length=32,
        iterations=sealing.passes,
        lanes=sealing.lanes,
        memory_cost=sealing.memory_kib,
    )
    return kdf.derive(passphrase)


def _bound(document: KeyFile) -> bytes:
    """Return the associated data: everything in the file but the box."""
    return document.model_copy(update={"secret": ""}).canonical()


def _parse(path: Path, content: bytes) -> KeyFile:
    try:
        document = KeyFile.from_canonical(content)
        fits = len(document.secret) == (64 if document.sealing is None else 96)
    except DocumentError:
        fits = False
    if not fits:
        raise DocumentError(
            "CSL-P506", f"{path} is not a key file.", "Name the right file, or restore it from its backup."
        )
    return document


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(MAX_FILE_BYTES)
    except OSError as error:
        raise StorageError(
            "CSL-P502", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error


def _closed(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise StorageError(
            "CSL-P502", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    if stat.S_ISDIR(mode):
        raise StorageError("CSL-P502", f"{path} cannot be read: it is a folder.", "Name the file itself.")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StorageError(
            "CSL-P505",
            f"{path} can be opened by others than its owner (mode {stat.S_IMODE(mode):04o}).",
            f"Run chmod 600 {path}, and replace the secret if others may have read it.",
        )


def _needs_passphrase(path: Path) -> DocumentError:
    return DocumentError(
        "CSL-P503", f"{path} needs a passphrase, and none is given.", "Give it from a file or a file descriptor."
    )
