"""Files of the home that the service cannot do without."""

from pathlib import Path

from federation.errors import StorageError


def read_bytes(path: Path) -> bytes:
    """Return a file of the home. Raises StorageError CSL-S814."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            "CSL-S814",
            f"{path} cannot be read: {error.strerror}.",
            "Make the home by `coordinator init`, or restore the file.",
        ) from error
