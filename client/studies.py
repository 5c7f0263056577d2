"""The studies that a vault granted, kept under their reservation so that a restart finds them again."""

from pathlib import Path
from typing import Literal

from federation.document import Document
from federation.errors import PolicyError, StorageError
from federation.files import atomic_write
from federation.messages import Grant
from federation.study import StudySpec


class OpenStudy(Document):
    """A granted study: its spec and the grant as the coordinator was given it. `rid` is the spec's digest."""

    kind: Literal["open_study"] = "open_study"
    spec: StudySpec
    grant: Grant

    @property
    def rid(self) -> str:
        """The reservation's identifier: the study's digest."""
        return self.grant.study

    @property
    def evaluation_number(self) -> int:
        """The number of the release that answers the evaluation; rounds are numbered from 1."""
        return self.spec.training.rounds + 1


class Studies:
    """One file for each granted study."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, study: OpenStudy) -> None:
        """Write a study durably."""
        atomic_write(self._path(study.rid), study.canonical(), mode=0o600)

    def rids(self) -> tuple[str, ...]:
        """Return the digests of the studies that were granted, in order; notes of other kinds lie beside them."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.json") if "." not in path.stem))

    def find(self, rid: str) -> OpenStudy:
        """Return a granted study.

        Raises
        ------
        PolicyError
            CSL-C511 when this vault granted no such study.
        StorageError
            CSL-C504 when its file cannot be read.
        """
        try:
            return OpenStudy.from_canonical(self._path(rid).read_bytes())
        except FileNotFoundError as error:
            raise PolicyError(
                "CSL-C511", f"Study {rid[:12]} was not granted here.", "Offer the study before its rounds."
            ) from error
        except OSError as error:
            raise StorageError(
                "CSL-C504", f"{error.filename} cannot be read: {error.strerror}.", "Check the rights."
            ) from error

    def _path(self, rid: str) -> Path:
        return self._folder / f"{rid}.json"
