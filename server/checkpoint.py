"""The checkpoint: one file that holds everything a study needs to go on after the coordinator was interrupted.

The file is safetensors; its one metadata entry `progress` is the canonical JSON of `Progress`, and `sha256` inside it is the digest of the
rest of it and of the tensors, so that a damaged file is noticed. It is replaced atomically after every round.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from federation.contract import Name
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, StorageError
from federation.files import atomic_write
from federation.messages import dump_tensors
from federation.signing import Hex32, Signature
from federation.study import StudySpec
from server.grants import SignedGrant

Stage = Literal["signed", "granted", "evaluated"]
Count = Annotated[int, Field(ge=0)]
LAST_ATTEMPT = 1000


class Attendance(Document):
    """In how many rounds a member's release was used."""

    member: Name
    rounds: Count


class Scores(Document):
    """One member's released histogram: noisy counts [2, bins], and the noise's standard deviation from its grant."""

    member: Name
    counts: tuple[tuple[int, ...], tuple[int, ...]]
    sigma: Annotated[float, Field(ge=0)]


class ScoreSum(Document):
    """The sum of some members' histograms, which was opened and nothing else: noisy integers [2, bins], each count times `scale`.

    `sigma` is the standard deviation of the noise in each cell, in counts.
    """

    members: tuple[Name, ...]
    total: tuple[tuple[int, ...], tuple[int, ...]]
    scale: Annotated[int, Field(ge=1)]
    sigma: Annotated[float, Field(ge=0)]


class Epoch(Document):
    """How far the set-up of a secure study is: the last attempt that was begun, and once it is done, the members that hold keys."""

    attempt: Annotated[int, Field(ge=0, le=LAST_ATTEMPT)] = 0
    members: tuple[Name, ...] = ()


class Kept(Document):
    """What a checkpoint holds beside tensors; `sha256` is the digest of the rest of it and of the tensors."""

    sha256: Hex32 | None = None


class Progress(Kept):
    """How far a study has come: `stage` is the last step that is done, `round` the last round that is aggregated.

    `epoch` and `score_sum` belong to studies whose vectors are added up in secret; the encoding of others does not have them.
    """

    spec: StudySpec
    signature: Signature
    stage: Stage
    grants: tuple[SignedGrant, ...] = ()
    round: Count = 0
    averaged: Count = 0
    fewest: Count = 0
    attendance: tuple[Attendance, ...] = ()
    edges: tuple[float, ...] = ()
    scores: tuple[Scores, ...] = ()
    epoch: Annotated[Epoch | None, Field(exclude_if=lambda value: value is None)] = None
    score_sum: Annotated[ScoreSum | None, Field(exclude_if=lambda value: value is None)] = None


K = TypeVar("K", bound=Kept)


def save_checkpoint(path: Path, progress: Kept, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Replace the checkpoint; a reader sees the old one or the new one, whole. `tensors` are the course's, none before the grants.

    Raises
    ------
    StorageError
        CSL-F301 when it cannot be written; the old one stays.
    """
    sealed = progress.model_copy(update={"sha256": _seal(progress, tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    atomic_write(path, save(ordered, metadata={"progress": sealed.canonical().decode()}), mode=0o600)


def load_checkpoint(path: Path, kind: type[K]) -> tuple[K, dict[str, NDArray[Any]]] | None:
    """Return what a checkpoint of this kind holds, or None where there is none.

    Raises
    ------
    StorageError
        CSL-S401 when it is damaged or of another release.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as handle:
            progress = kind.from_canonical((handle.metadata() or {})["progress"].encode())
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}
        if progress.sha256 != _seal(progress, tensors):
            raise ValueError("the digest differs")
        return progress, tensors
    except (SafetensorError, OSError, KeyError, ValueError, ConsilienceError) as error:
        raise damaged(path) from error


def _seal(progress: Kept, tensors: Mapping[str, NDArray[Any]]) -> str:
    return sha256_hex(progress.model_copy(update={"sha256": None}).canonical() + dump_tensors(tensors))


def damaged(path: Path) -> StorageError:
    """Return the error for a checkpoint that cannot be used."""
    return StorageError(
        "CSL-S401",
        f"The checkpoint {path} is damaged or of another release.",
        "Restore it from a backup; or delete it and start the study anew, which costs every vault its budget once more.",
    )
