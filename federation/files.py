"""Files that are either whole or not there."""

import os
import stat
import tempfile
from pathlib import Path

from federation.errors import StorageError


def atomic_write(path: Path, content: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and are renamed;
    then the folder entry itself is flushed. With `durable` false nothing is flushed: what is written
    survives the end of this process, but not that of the machine.

    Raises
    ------
    StorageError
        CSL-F301 when the disk is full, read-only, or the folder is missing; the old file is untouched.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            "CSL-F301",
            f"{path} cannot be written: {error.strerror}.",
            "Free space or correct the rights, and try again.",
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_private(path: Path) -> None:
    """Refuse a file with a secret that is not there, or that others than its owner may open.

    Raises
    ------
    StorageError
        CSL-F311 when it is missing, cannot be looked at or is no plain file; CSL-F312 when group or others have any right to it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise StorageError(
            "CSL-F311",
            f"{path} cannot be read: {error.strerror}.",
            "Restore it from its backup, or make it anew by the command that made it.",
        ) from error
    if not stat.S_ISREG(mode):
        raise StorageError("CSL-F311", f"{path} is not a plain file.", "Put the secret's own file in its place.")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StorageError(
            "CSL-F312",
            f"{path} can be opened by others than its owner (mode {stat.S_IMODE(mode):04o}).",
            f"Run chmod 600 {path}, and replace the secret if others may have read it.",
        )
