"""What the vault's worker ends with."""

from enum import IntEnum


class WorkerExit(IntEnum):
    """Why the worker could not start: what only a person can mend. It is tried again all the same, at the supervisor's pace."""

    STOPPED = 0
    SYSTEM = 20
    CONFIGURATION = 21
    LOCKED = 22
    CHARTER = 23
    KEYS = 24
    LEDGER = 25
    PORT = 26
