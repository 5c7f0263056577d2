"""A backup of a vault's home: one moment of the ledger and everything that goes with it, whole or not at all.

The ledger is copied first and the files after it: whatever the ledger speaks of was written before it, so that no entry of the copy
lacks its files. Name lists stay out: retention deletes them, and a backup would keep them; and so do the customers' tables and the
passphrase, which never belong beside the keys that it opens. The secrets of secure sums stay out as well: they are erased when a sum is
opened, a copy would not be, and one that was put back could speak a second time. A restored vault leaves its running secure studies to
the other members.
"""

import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Literal, Protocol

from pydantic import Field

from client.config import load_node
from client.home import Home
from federation.contract import Name, Text
from federation.document import Document
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write, sync_folder
from federation.signing import Hex32
from privacy.keys import is_sealed, read_public
from privacy.ledger import LedgerReader

MANIFEST = "MANIFEST.json"
FILES = (
    "charter.digest",
    "charter.json",
    "lists.yaml",
    "tiers.yaml",
    "membership.yaml",
    "node.yaml",
    "policy.sig",
    "policy.yaml",
    "roles.yaml",
    "withdrawn.bin",
)
KEPT_FOLDERS = (
    "charters",
    "contracts",
    "inbox",
    "keys",
    "models",
    "participation",
    "replies",
    "reports",
    "strategies",
    "studies",
    "witness",
)
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"
_PATH = re.compile(rf"{_PART}(/{_PART}){{0,3}}", re.ASCII)
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 1 << 28
_ENCRYPTED = 0x1


class BackupFile(Document):
    """One file of a backup: its path in the home, digest and length."""

    path: Annotated[str, Field(max_length=1000)]
    sha256: Hex32
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Document):
    """What a backup holds: whose home, under which key, and the ledger's head at that moment."""

    format: Literal["consilience-backup-1"] = "consilience-backup-1"
    member: Name
    key: Hex32
    size: Annotated[int, Field(ge=1)]
    root: Hex32
    made: Text
    plain_keys: bool
    files: Annotated[tuple[BackupFile, ...], Field(min_length=1)]


def write_backup(home: Home, target: Path, made: str) -> Manifest:
    """Write a backup of a home while its vault goes on working; `target` is a folder, or a file if it ends in `.zip`.

    Parameters
    ----------
    home, target:
        The vault's home, and a path where nothing is yet.
    made:
        When, in words; it stands in the manifest.

    Raises
    ------
    StorageError
        CSL-C740 when something is at `target`; CSL-C741 when it cannot be written.
    DocumentError
        CSL-C742 for a key without a passphrase in a home that is no simulation's.
    IntegrityError
        CSL-C743 when the identity key is not that of the ledger; CSL-C744 for a file that is none.
    """
    _check_free(target)
    with staged(target) as folder:
        manifest = _gather(home, folder, made)
        atomic_write(folder / MANIFEST, manifest.canonical(), mode=0o600)
        if target.suffix == ".zip":
            _publish_zip(folder, manifest, target)
        else:
            publish_folder(folder, target)
    return manifest


def read_backup(source: Path, folder: Path) -> Manifest:
    """Unpack a backup into an empty folder (files 0600), every file compared with the manifest.

    Raises
    ------
    StorageError
        CSL-C745 when the backup cannot be read; CSL-C741 when the folder cannot be written.
    IntegrityError
        CSL-C746 when it is no backup, or lacks a file, has one too many, or one that was changed.
    """
    with _translated(source), _opened(source) as bundle:
        names = bundle.names()
        if MANIFEST not in names:
            raise _no_backup(source, "it has no manifest")
        with bundle.open(MANIFEST) as handle:
            content = handle.read(_LARGEST_MANIFEST + 1)
        try:
            manifest = Manifest.from_canonical(content)
        except DocumentError as error:
            raise _no_backup(source, "its manifest cannot be read") from error
        wanted = [item.path for item in manifest.files]
        if sorted([*wanted, MANIFEST]) != sorted(names) or not all(map(_belongs, wanted)):
            raise _no_backup(source, "its files are not those of the manifest")
        for item in manifest.files:
            with bundle.open(item.path) as handle:
                digest, length = _copy(handle, folder / item.path, item.bytes)
            if (digest, length) != (item.sha256, item.bytes):
                raise _no_backup(source, f"{item.path} was changed")
    return manifest


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder (0700) beside `target`, which is removed at the end unless it was published.

    Raises
    ------
    StorageError
        CSL-C741.
    """
    with _writing(target):
        folder = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}."))
    try:
        with _writing(target):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(folder: Path, target: Path) -> None:
    """Give a staged folder its name, durably, where nothing is yet. Raises StorageError CSL-C740, CSL-C741."""
    for inner in (folder, *(path for path in folder.rglob("*"))):
        _sync(inner)
    _check_free(target)
    with _writing(target):
        os.rename(folder, target)
        sync_folder(target.absolute().parent)


def check_keys_sealed(home: Home, plain: bool) -> None:
    """Refuse plain keys, unless `plain` says that the home is a simulation's; the node key never has a passphrase.

    Raises
    ------
    DocumentError
        CSL-C742.
    """
    for path in sorted((home.root / "keys").glob("*.key")):
        if not plain and path != home.node_key and not is_sealed(path):
            raise DocumentError(
                "CSL-C742",
                f"{path.name} is not sealed by a passphrase: whoever finds the backup could sign as the institution.",
                "Seal the keys; a simulation's home says `plain_keys: true` in node.yaml.",
            )


def _gather(home: Home, folder: Path, made: str) -> Manifest:
    plain = home.node_file.exists() and load_node(home.node_file).plain_keys
    check_keys_sealed(home, plain)
    copy = Home(folder)
    with _opened_ledger(home) as reader:
        reader.copy_to(copy.ledger_file)
    files = [_listed(copy.ledger_file, folder)]
    for path in _kept(home):
        relative = path.relative_to(home.root)
        if not _belongs(relative.as_posix()) or path.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
            raise IntegrityError(
                "CSL-C744", f"{path} is no file that belongs into a home.", "Move it away, and try again."
            )
        try:
            handle = path.open("rb")
        except FileNotFoundError:  # retention deleted it, or it was a temporary file
            continue
        with handle:
            digest, length = _copy(handle, folder / relative)
        files.append(BackupFile(path=relative.as_posix(), sha256=digest, bytes=length))
    check_keys_sealed(copy, plain)
    with _opened_ledger(copy) as reader:
        state = reader.state()
    assert state.member is not None and state.key is not None
    return Manifest(
        member=state.member,
        key=state.key,
        size=state.size,
        root=state.tree_root(),
        made=made,
        plain_keys=plain,
        files=tuple(sorted(files, key=lambda item: item.path)),
    )


def _opened_ledger(home: Home) -> LedgerReader:
    """Open a home's ledger by the home's own key."""
    try:
        return LedgerReader.read(home.ledger_file, read_public(home.identity_key))
    except IntegrityError as error:
        if error.code not in ("CSL-P604", "CSL-P607"):
            raise
        raise IntegrityError(
            "CSL-C743",
            "The identity key is not the one of the ledger: it is just being changed, or that was interrupted.",
            "Finish `consilience officer rotate`, and make the backup again.",
        ) from error


def _kept(home: Home) -> Iterator[Path]:
    """Yield the files of a home that a backup holds; what begins with a dot is temporary, and the runtime secret is of this machine."""
    yield from (home.root / name for name in FILES if (home.root / name).exists())
    for name in KEPT_FOLDERS:
        for path in sorted((home.root / name).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(home.root).parts)
            if not hidden and path != home.runtime_secret and not (path.is_dir() and not path.is_symlink()):
                yield path


def _belongs(path: str) -> bool:
    """Whether a path is one of a home that a backup holds; none of them leads elsewhere."""
    first, _, rest = path.partition("/")
    known = first in KEPT_FOLDERS if rest else first in (*FILES, "ledger.sqlite")
    return known and _PATH.fullmatch(path) is not None


def _listed(path: Path, folder: Path) -> BackupFile:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return BackupFile(path=path.relative_to(folder).as_posix(), sha256=digest, bytes=path.stat().st_size)


def _copy(source: IO[bytes], target: Path, most: int | None = None) -> tuple[str, int]:
    """Copy to a new file (0600) and return digest and length; stop above `most` bytes."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, length = hashlib.sha256(), 0
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        while (chunk := source.read(_CHUNK)) and (most is None or length <= most):
            handle.write(chunk)
            digest.update(chunk)
            length += len(chunk)
    return digest.hexdigest(), length


def _publish_zip(folder: Path, manifest: Manifest, target: Path) -> None:
    """Pack a staged backup into one file: stored, not compressed, since most of it is sealed."""
    packed = folder / f".{target.name}"
    with _writing(target):
        with open(os.open(packed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            with zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
                for name in (MANIFEST, *(item.path for item in manifest.files)):
                    with (
                        (folder / name).open("rb") as source,
                        archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member,
                    ):
                        shutil.copyfileobj(source, member, _CHUNK)
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(packed, target)
        except FileExistsError as error:
            raise _taken(target) from error
        sync_folder(target.absolute().parent)


class _Bundle(Protocol):
    def names(self) -> list[str]: ...

    def open(self, name: str) -> IO[bytes]: ...


class _FolderBundle:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        found = [path for path in self._folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        return [path.relative_to(self._folder).as_posix() for path in found]

    def open(self, name: str) -> IO[bytes]:
        return open(os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW), "rb")


class _ZipBundle:
    def __init__(self, archive: zipfile.ZipFile, source: Path) -> None:
        self._archive = archive
        self._source = source

    def names(self) -> list[str]:
        return self._archive.namelist()

    def open(self, name: str) -> IO[bytes]:
        info = self._archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
            raise _no_backup(self._source, f"{name} is packed in another way")
        return self._archive.open(info)


@contextmanager
def _opened(source: Path) -> Iterator[_Bundle]:
    if source.is_dir():
        yield _FolderBundle(source)
        return
    with zipfile.ZipFile(source) as archive:
        yield _ZipBundle(archive, source)


@contextmanager
def _translated(source: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise _no_backup(source, "it is no whole zip file") from error
    except OSError as error:
        raise StorageError(
            "CSL-C745", f"{source} cannot be read: {error.strerror or error}.", "Check the path and its rights."
        ) from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            "CSL-C741",
            f"{target} cannot be written: {error.strerror or error}; nothing is there now.",
            "Free space or correct the rights, and try again.",
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise _taken(target)


def _taken(target: Path) -> StorageError:
    return StorageError("CSL-C740", f"{target} exists: nothing is written over it.", "Name a path where nothing is.")


def _no_backup(source: Path, why: str) -> IntegrityError:
    return IntegrityError("CSL-C746", f"{source} is no whole backup: {why}.", "Take another copy of the backup.")
