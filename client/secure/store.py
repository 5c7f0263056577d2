"""The secrets of secure sums at rest: one sealed file for a study's pairwise keys, and one for each of its sums.

A sum's vector lies in one file with its state, so that one rename changes both: with the state after the reveal, the vector and the
keys of its mask are gone. Files are replaced whole, never changed. Backups leave this folder out: a copy would outlive the erasure, and
one put back could speak a second time for a sum that was opened.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from federation.document import Document
from federation.errors import DocumentError, IntegrityError
from federation.secure import Attempt, EpochKey, KeyExchange, SumOffer
from federation.signing import Hex32
from privacy.sealing import read_sealed, write_sealed
from privacy.secure_aggregation.epoch import EpochSecrets, KeysMade, KeysSent
from privacy.secure_aggregation.institution import (
    AckedState,
    MaskedState,
    ReadyState,
    RevealedState,
    State,
    ready_of,
)

FOLDER = "secure"
EPOCH = ".epoch"
SUM = ".sum"
_EPOCH_KIND = "secure-epoch"
_SUM_KIND = "secure-sum"
_LENGTH = struct.Struct("<Q")
NOTHING: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class Agreed(Document):
    """The set-up is done: the pairwise keys, and what was said on the way, to be said again. The private keys are gone."""

    kind: Literal["agreed"] = "agreed"
    statement: EpochKey
    exchanges: tuple[KeyExchange, ...]
    received: Hex32
    secrets: EpochSecrets


class EpochState(Document):
    """Where a study's set-up stands, in which attempt."""

    attempt: Attempt
    stage: Annotated[KeysMade | KeysSent | Agreed, Field(discriminator="kind")]

    @property
    def statement(self) -> EpochKey:
        """The public keys that this attempt is about."""
        return self.stage.made.statement if isinstance(self.stage, KeysSent) else self.stage.statement


class SumState(Document):
    """Where one sum stands; `asked` is the digest of the whole request that its vector was made for."""

    asked: Hex32
    state: Annotated[ReadyState | MaskedState | AckedState | RevealedState, Field(discriminator="kind")]


@dataclass(frozen=True, eq=False)
class KeptSum:
    """A sum's state, the digest of the request that it answers, and its vector with this institution's noise, int64 [d]: empty once the
    sum was opened."""

    state: State
    asked: str
    vector: NDArray[np.int64]

    @property
    def offer(self) -> SumOffer:
        """What the state answers."""
        return self.state.offer if isinstance(self.state, RevealedState) else ready_of(self.state).offer


class Secrets:
    """The secrets of one vault's secure sums.

    Raises (all methods)
    --------------------
    IntegrityError
        CSL-C482 for a file that is damaged, or sealed by another store key.
    StorageError
        CSL-P523, CSL-F301 when a file cannot be read or written.
    """

    def __init__(self, folder: Path, store_key: bytes) -> None:
        self._folder = folder
        self._key = store_key

    def epoch(self, rid: str) -> EpochState | None:
        """Return where a study's set-up stands; None before it began."""
        content = self._read(self._folder / f"{rid}{EPOCH}", _EPOCH_KIND)
        if content is None:
            return None
        try:
            return EpochState.from_canonical(content)
        except DocumentError as error:
            raise _damaged(rid) from error

    def keep_epoch(self, rid: str, state: EpochState) -> None:
        """Write durably where a study's set-up stands."""
        write_sealed(self._folder / f"{rid}{EPOCH}", self._key, _EPOCH_KIND, state.canonical())

    def sum(self, rid: str, number: int) -> KeptSum | None:
        """Return where a sum stands; None before it was asked for."""
        content = self._read(self._sum_file(rid, number), _SUM_KIND)
        if content is None:
            return None
        try:
            (length,) = _LENGTH.unpack_from(content)
            said = SumState.from_canonical(content[_LENGTH.size : _LENGTH.size + length])
            vector = np.frombuffer(content[_LENGTH.size + length :], dtype="<i8").astype(np.int64)
        except (struct.error, ValueError, DocumentError) as error:
            raise _damaged(rid) from error
        kept = KeptSum(said.state, said.asked, vector)
        expected = 0 if isinstance(said.state, RevealedState) else kept.offer.d
        if (kept.offer.number, len(vector)) != (number, expected):
            raise _damaged(rid)
        return kept

    def keep_sum(self, rid: str, number: int, kept: KeptSum) -> None:
        """Write durably where a sum stands; its vector is `NOTHING` once it was opened."""
        said = SumState(asked=kept.asked, state=kept.state).canonical()
        content = _LENGTH.pack(len(said)) + said + kept.vector.astype("<i8").tobytes()
        write_sealed(self._sum_file(rid, number), self._key, _SUM_KIND, content)

    def numbers(self, rid: str) -> tuple[int, ...]:
        """Return the numbers of the sums that were asked for, in order."""
        found = (path.stem.rpartition("-")[2] for path in self._folder.glob(f"{rid}-*{SUM}"))
        return tuple(sorted(int(number) for number in found if number.isdecimal()))

    def _sum_file(self, rid: str, number: int) -> Path:
        return self._folder / f"{rid}-{number}{SUM}"

    def _read(self, path: Path, kind: str) -> bytes | None:
        try:
            return read_sealed(path, self._key, kind)
        except IntegrityError as error:
            raise _damaged(path.stem) from error


def rid_of(path: Path) -> str | None:
    """Return the study that a file of the folder belongs to, or None."""
    if path.suffix == EPOCH:
        return path.stem
    return path.stem.rpartition("-")[0] if path.suffix == SUM else None


def files_of(folder: Path, rid: str) -> tuple[Path, ...]:
    """Return the files that hold a study's secrets."""
    return tuple(sorted([*folder.glob(f"{rid}{EPOCH}"), *folder.glob(f"{rid}-*{SUM}")]))


def _damaged(rid: str) -> IntegrityError:
    return IntegrityError(
        "CSL-C482",
        f"The secrets of the sums of study {rid[:12]} are damaged, or sealed by another key.",
        "There is no copy of them: close the study; the other members go on without this institution.",
    )
