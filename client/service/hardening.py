"""What keeps a process's memory, and with it the vault's keys, off the disk and out of other processes' reach."""

import ctypes
import os
import resource
import sys

from federation.errors import StorageError

_SET_DUMPABLE = 4  # prctl(2), PR_SET_DUMPABLE


def harden() -> None:
    """Let this process leave no core dump, let no other process of its user read its memory, and make its files private.

    Nothing here keeps memory out of swap: encrypt the swap, or have none (docs/node.md).

    Raises
    ------
    StorageError
        CSL-C410 when the system does not let it.
    """
    os.umask(0o077)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    except (OSError, ValueError) as error:
        raise StorageError(
            "CSL-C410",
            "The system does not let the vault switch off core dumps, which would put its keys on the disk.",
            "Allow prctl and setrlimit to the service, and start it again.",
        ) from error
