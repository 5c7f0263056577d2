"""Errors that a person can act on: a stable code, the cause, and the next action."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `consilience` command; a number is never used again for something else."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    DOCUMENT = 3
    DATA = 4
    POLICY = 5
    INTEGRITY = 6
    OFFLINE = 7
    FEDERATION = 8
    STORAGE = 9
    INTERRUPTED = 130


class ConsilienceError(Exception):
    """Base of every error that reaches a person.

    Parameters
    ----------
    code:
        Stable identifier, `CSL-` and a letter for the package (F, P, C, S, M) and three digits.
    cause:
        What happened and why, without any customer's data.
    action:
        What the reader should do next.
    """

    exit_code = ExitCode.INTERNAL

    def __init__(self, code: str, cause: str, action: str) -> None:
        separator = "\n" if "\n" in cause else " "
        super().__init__(f"{code}  {cause}{separator}{action}")
        self.code = code
        self.cause = cause
        self.action = action

    def as_dict(self) -> dict[str, str]:
        """Return code, cause and action, as `--json` prints them."""
        return {"code": self.code, "cause": self.cause, "action": self.action}


class DocumentError(ConsilienceError):
    """A document (charter, contract, study, policy, node configuration) is not valid."""

    exit_code = ExitCode.DOCUMENT


class DataError(ConsilienceError):
    """An institution's own table does not fit its mapping or the contract."""

    exit_code = ExitCode.DATA


class PolicyError(ConsilienceError):
    """The institution's policy or its budget does not allow what was asked."""

    exit_code = ExitCode.POLICY


class IntegrityError(ConsilienceError):
    """A signature, digest, chain or key does not check out."""

    exit_code = ExitCode.INTEGRITY


class OfflineError(ConsilienceError):
    """Something that must be fetched cannot be reached."""

    exit_code = ExitCode.OFFLINE


class FederationError(ConsilienceError):
    """The federation cannot go on: too few partners, a deadline passed, a reply that does not fit."""

    exit_code = ExitCode.FEDERATION


class StorageError(ConsilienceError):
    """A file cannot be written or read: full disk, wrong rights, newer format."""

    exit_code = ExitCode.STORAGE
