"""A new vault: its folders, its keys, its register of withdrawals and its ledger, each made once and never over what exists.

The ledger is made last, and with it the home is finished. Until then the file `INCOMPLETE` says that whatever keys lie there belong to
nobody, so that the next try makes them anew instead of stumbling over them.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from client.home import FOLDERS, PRIVATE, Home
from client.node_key import ensure_node_key, ensure_runtime_secret
from client.withdrawal import create_register
from federation.charter import COORDINATOR
from federation.contract import Name
from federation.errors import ConsilienceError, DocumentError, IntegrityError, StorageError
from federation.files import sync_folder
from federation.signing import public_hex
from privacy.keys import create_identity, create_secret, load_identity
from privacy.ledger import Ledger, LedgerReader


def install(home: Home, member: str, passphrase: bytes | None = None, *, allow_plain: bool = False) -> str:
    """Make a vault's home and return its public identity key (64 hexadecimal digits), which goes into the charter.

    A call that was killed leaves a home that the same call makes anew, or finds finished; a finished home is never changed.

    Parameters
    ----------
    home, member:
        The folder, and the identifier that the charter will name.
    passphrase, allow_plain:
        Seals the keys; plain keys only where the caller allows them (simulations).

    Raises
    ------
    StorageError
        CSL-C002 when the folders cannot be made; CSL-C450 when a vault, or a part of one, is there already; CSL-C454 while
        another call makes the same home; CSL-F301 when a file cannot be written.
    DocumentError
        CSL-C617 for an identifier that no charter can name; CSL-P503, CSL-P504 for a missing or short passphrase.
    IntegrityError
        CSL-C455 when an earlier call finished this home for another member; CSL-P507 when with another passphrase.
    """
    _check_name(member)
    with _unwritable_told(home):
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            home.folder(name)
    with _begun(home):
        if home.ledger_file.exists():
            return _finished(home, member, passphrase, allow_plain)
        _clear(home)
        try:
            return _make(home, member, passphrase, allow_plain)
        except ConsilienceError:
            if not home.ledger_file.exists():
                _clear(home)
            raise


def incomplete_file(home: Home) -> Path:
    """Return the file that is there while a home is being made."""
    return home.root / "INCOMPLETE"


def _check_name(member: str) -> None:
    try:
        fits = TypeAdapter(Name).validate_python(member) != COORDINATOR
    except ValidationError:
        fits = False
    if not fits:
        raise DocumentError(
            "CSL-C617",
            "A member's identifier is 1 to 48 small letters, digits and underscores, begins with a letter, and is not "
            f'"{COORDINATOR}".',
            "Choose one such as bank_north; it cannot be changed later.",
        )


def _make(home: Home, member: str, passphrase: bytes | None, allow_plain: bool) -> str:
    identity = create_identity(home.identity_key, passphrase=passphrase, allow_plain=allow_plain)
    holdout_key = create_secret(home.holdout_key, passphrase=passphrase, allow_plain=allow_plain)
    store_key = create_secret(home.store_key, use="store", passphrase=passphrase, allow_plain=allow_plain)
    ensure_node_key(home)
    ensure_runtime_secret(home)
    create_register(home, store_key)
    with Ledger.create(home.ledger_file, identity, member=member, holdout_key=holdout_key):
        return public_hex(identity)


def _finished(home: Home, member: str, passphrase: bytes | None, allow_plain: bool) -> str:
    """Return the key of a home whose ledger was made when the call that made it was killed."""
    key = public_hex(load_identity(home.identity_key, passphrase=passphrase, allow_plain=allow_plain))
    with LedgerReader.read(home.ledger_file, key) as reader:
        found = reader.state().member
    if found != member:
        raise IntegrityError(
            "CSL-C455",
            f"{home.root} was made for the member {found}, by an earlier call.",
            "Name that member; or name another folder.",
        )
    _sweep(home)
    return key


@contextmanager
def _begun(home: Home) -> Iterator[None]:
    """Hold the mark of a home that is being made; it stays when the process is killed, or with a ledger that could not be closed."""
    mark = incomplete_file(home)
    if not mark.exists() or home.pin_file.exists():  # with a charter the home was in use, whatever the mark says
        _check_untouched(home)
    with _unwritable_told(home):
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE)
    try:
        _lock(home, mark, descriptor)
        with _unwritable_told(home):
            sync_folder(home.root)  # before any key: else a power cut could leave keys without the mark
        try:
            yield
        except ConsilienceError:
            if not home.ledger_file.exists():
                mark.unlink(missing_ok=True)
            raise
        with _unwritable_told(home):
            mark.unlink()
            sync_folder(home.root)
    finally:
        os.close(descriptor)


def _lock(home: Home, mark: Path, descriptor: int) -> None:
    """Take the mark for this call alone; one that another call has just removed is no mark any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = _is_at(mark, descriptor)
    except BlockingIOError:
        held = False
    if not held:
        raise StorageError(
            "CSL-C454", f"Another call is just making {home.root}.", "Wait for it, and look at what it says."
        )


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _made(home: Home) -> tuple[Path, ...]:
    """Return the files of a new home, in the order in which they are made."""
    return (
        home.identity_key,
        home.holdout_key,
        home.store_key,
        home.node_key,
        home.runtime_secret,
        home.withdrawn_file,
        home.ledger_file,
    )


def _check_untouched(home: Home) -> None:
    for path in _made(home):
        if path.exists() or path.is_symlink():
            raise StorageError(
                "CSL-C450",
                f"{path} exists: a vault is made once, and nothing of it is ever overwritten.",
                "Name another folder; or go on with this vault, which `consilience node status` shows.",
            )


def _clear(home: Home) -> None:
    """Remove the keys of a home that never came to have a ledger."""
    with _unwritable_told(home):
        for path in _made(home):
            path.unlink(missing_ok=True)
    _sweep(home)


def _sweep(home: Home) -> None:
    """Remove what a killed call left under temporary names."""
    with _unwritable_told(home):
        for path in _made(home):
            for left in path.parent.glob(f".{path.name}.*"):
                left.unlink(missing_ok=True)


@contextmanager
def _unwritable_told(home: Home) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            "CSL-C002", f"{home.root} cannot be written: {error.strerror}.", "Correct the rights of the home folder."
        ) from error
