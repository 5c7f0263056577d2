"""Customers who withdrew their consent: a sealed register of keyed tags. Whoever stands in it is never read again.

The register only grows: a yes in the consent table does not undo a withdrawal. It is made with the vault, so that a register
that is not there is a fault and not an empty one.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from client.consent import Excluded
from client.home import Home
from client.tags import join_tags, list_digest, split_tags, tag, tags_of
from federation.errors import IntegrityError, StorageError
from privacy.sealing import read_sealed, subkey, write_sealed

KIND = "withdrawals"


@dataclass(frozen=True)
class Withdrawals:
    """The register as it stood when it was read."""

    tags: frozenset[bytes] = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def load(cls, home: Home, store_key: bytes, least: int = 0) -> "Withdrawals":
        """Read the register of a home; `least` is how many customers the ledger says that it holds.

        Raises
        ------
        IntegrityError
            CSL-C545 when it is missing, CSL-C546 when it is damaged, CSL-C562 when it is an older copy; as
            `privacy.sealing.unseal`.
        StorageError
            CSL-P523 when it cannot be read.
        """
        content = read_sealed(home.withdrawn_file, store_key, KIND)
        if content is None:
            raise IntegrityError(
                "CSL-C545",
                f"{home.withdrawn_file} is missing: nobody knows who withdrew.",
                "Restore it from the backup; without it the vault reads no customer.",
            )
        found = cls(split_tags(content), _key(store_key))
        if len(found) < least:
            raise IntegrityError(
                "CSL-C562",
                f"{home.withdrawn_file} holds {len(found)} customers; by the ledger {least} withdrew: it is an older copy.",
                "Restore the newest copy; until then the vault reads no customer.",
            )
        return found

    @property
    def version(self) -> str:
        """A name for this state of the register: another one when a customer was added, 64 hexadecimal digits."""
        return hashlib.sha256(join_tags(self.tags)).hexdigest()

    @property
    def excluded(self) -> Excluded | None:
        """The rule to give `load_cohort` and `consenting`; None while nobody withdrew, which costs nothing."""
        return self.mask if self.tags else None

    def mask(self, customers: Sequence[str]) -> NDArray[np.bool_]:
        """Return for each of n identifiers whether the customer withdrew, bool [n]."""
        return np.fromiter((tag(self.key, str(customer)) in self.tags for customer in customers), dtype=bool)

    def plus(self, customers: Iterable[str]) -> "Withdrawals":
        """Return the register as it would be with more customers; writes nothing."""
        return Withdrawals(self.tags | tags_of(self.key, customers), self.key)

    def __len__(self) -> int:
        """Return how many customers withdrew."""
        return len(self.tags)


def create_register(home: Home, store_key: bytes) -> None:
    """Write the register of a new vault, with nobody in it.

    Raises
    ------
    StorageError
        CSL-C548 when there is one, CSL-F301 when it cannot be written.
    """
    if home.withdrawn_file.exists():
        raise StorageError(
            "CSL-C548", f"{home.withdrawn_file} exists: who withdrew is never forgotten.", "Choose another folder."
        )
    write_sealed(home.withdrawn_file, store_key, KIND, b"")


def register(home: Home, store_key: bytes, customers: Iterable[str]) -> Withdrawals:
    """Add customers to the register, durably, and return it; those who stand in it already change nothing.

    One process at a time: what two add at once is added by both. Raises as `Withdrawals.load`, and StorageError CSL-F301.
    """
    with _alone(home):
        known = Withdrawals.load(home, store_key)
        grown = known.plus(customers)
        if grown.tags != known.tags:
            write_sealed(home.withdrawn_file, store_key, KIND, join_tags(grown.tags))
    return grown


def withdrawal_digest(store_key: bytes, customers: Iterable[str]) -> str:
    """Return the salted digest of one withdrawal's customers, which the ledger keeps: 64 hexadecimal digits."""
    return list_digest(subkey(store_key, "withdrawal digest"), customers)


def _key(store_key: bytes) -> bytes:
    return subkey(store_key, "withdrawals")


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the home's folder against other processes that add withdrawals."""
    try:
        descriptor = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(
            "CSL-C002", f"{home.root} cannot be opened: {error.strerror}.", "Correct the rights of the home folder."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
