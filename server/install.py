"""A new coordinator: its folders, its identity, its authority and the server's certificate, each made once and never over what exists."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from federation.errors import StorageError
from federation.files import atomic_write
from federation.signing import public_hex
from privacy.keys import RandomBytes, create_identity
from server.certificates import CertificateFacts, create_authority, facts_of, issue_server
from server.config import CoordinatorConfig, config_yaml
from server.home import FOLDERS, CoordinatorHome

LINK_SECRET_BYTES = 32


@dataclass(frozen=True)
class Installed:
    """What a new home shows: the public identity key, the authority's and the server's certificate."""

    key: str
    authority: CertificateFacts
    server: CertificateFacts


def install(
    home: CoordinatorHome,
    config: CoordinatorConfig,
    passphrase: bytes | None,
    now: datetime,
    *,
    random: RandomBytes = os.urandom,
) -> Installed:
    """Make a coordinator's home. What fails midway leaves nothing behind that would stand in the way of the next try.

    Parameters
    ----------
    home, config:
        The folder, and what coordinator.yaml will say; its `plain_keys` allows keys without a passphrase.
    passphrase:
        Seals the identity and the authority's key.
    now:
        The present time, with its time zone; certificates begin a day before it.

    Raises
    ------
    StorageError
        CSL-S110 when a coordinator lives there, or an earlier try was cut off by force; CSL-S112 when the folders cannot be made;
        CSL-S125 while another call makes the same home; CSL-F301 when a file cannot be written.
    DocumentError
        CSL-P503, CSL-P504 for a missing or short passphrase.
    """
    files = (
        home.identity_key,
        home.link_secret,
        home.authority_key,
        home.authority_file,
        home.server_key,
        home.server_file,
        home.config_file,
    )
    _check_untouched(home, files)  # before any folder is made
    with _undone_on_failure(home, files):
        identity = create_identity(
            home.identity_key, passphrase=passphrase, allow_plain=config.plain_keys, random=random
        )
        atomic_write(home.link_secret, random(LINK_SECRET_BYTES), mode=0o600)
        authority = create_authority(
            home.authority_key,
            home.authority_file,
            config.federation,
            now,
            passphrase=passphrase,
            allow_plain=config.plain_keys,
            random=random,
        )
        server = issue_server(authority, config.hosts(), home.server_key, home.server_file, config.federation, now)
        atomic_write(home.config_file, config_yaml(config).encode())
        return Installed(public_hex(identity), facts_of(authority.certificate), facts_of(server))


def _check_untouched(home: CoordinatorHome, files: tuple[Path, ...]) -> None:
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there:
        raise StorageError(
            "CSL-S110",
            f"{home.root} is a coordinator's home already, whole or in part: it holds {there[0].relative_to(home.root)}.",
            "Choose another folder; or, where no charter names its keys yet, delete keys/ and tls/ and try again.",
        )


@contextmanager
def _undone_on_failure(home: CoordinatorHome, files: tuple[Path, ...]) -> Iterator[None]:
    """Make the folders; when anything fails, remove the files and those of the folders that were not there before.

    Only one call at a time comes to that point, and only in a home without any of the files: so those that lie there then are its own.
    """
    made: list[Path] = []
    try:
        for folder in (*reversed(home.root.absolute().parents), home.root):
            _make(folder, made)
        with _alone(home):
            _check_untouched(home, files)  # again: another call may have finished since
            try:
                for name in FOLDERS:
                    _make(home.root / name, made)
                yield
            except BaseException:
                for path in files:
                    with suppress(OSError):  # the first fault is the one to be told
                        path.unlink(missing_ok=True)
                raise
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):  # somebody put something there meanwhile: it stays
                folder.rmdir()
        raise


@contextmanager
def _alone(home: CoordinatorHome) -> Iterator[None]:
    """Hold the home's folder for this call alone; a folder that another call has just removed is no home any more."""
    try:
        descriptor = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _not_made(home.root, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(home.root.stat(), os.fstat(descriptor))
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:  # a file system without locks
            raise _not_made(home.root, error) from error
        if not held:
            raise StorageError(
                "CSL-S125", f"Another call is just making {home.root}.", "Wait for it, and look at what it says."
            )
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path, made: list[Path]) -> None:
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            made.append(folder)
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            return  # another call was faster
        raise _not_made(folder, error) from error


def _not_made(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        "CSL-S112",
        f"{folder} cannot be made: {error.strerror}.",
        "Correct the path, or the rights of the folder above.",
    )
