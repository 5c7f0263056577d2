"""The studies that a vault granted, kept under their reservation so that a restart finds them again."""

from pathlib import Path
from typing import Literal

from federation.document import Document
from federation.errors import PolicyError, StorageError
from federation.files import atomic_write
from federation.messages import Grant, StatisticsGrant
from federation.statistics import StatisticsSpec
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


class OpenStatistics(Document):
    """A granted statistics study: its spec and the grant as the coordinator was given it. `rid` is the spec's digest."""

    kind: Literal["open_statistics"] = "open_statistics"
    spec: StatisticsSpec
    grant: StatisticsGrant

    @property
    def rid(self) -> str:
        """The reservation's identifier: the study's digest."""
        return self.grant.study


Opened = OpenStudy | OpenStatistics


class Studies:
    """One file for each granted study."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, study: Opened) -> None:
        """Write a study durably."""
        atomic_write(self._path(study.rid), study.canonical(), mode=0o600)

    def rids(self) -> tuple[str, ...]:
        """Return the digests of the studies that were granted, in order; notes of other kinds lie beside them."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.json") if "." not in path.stem))

    def find(self, rid: str) -> OpenStudy:
        """Return a granted study of training.

        Raises
        ------
        PolicyError
            CSL-C492 when it is a statistics study; as `opened`.
        StorageError
            As `opened`.
        """
        found = self.opened(rid)
        if isinstance(found, OpenStatistics):
            raise PolicyError(
                "CSL-C492",
                f"Study {rid[:12]} is one of statistics.",
                "Ask for its sums by `query.measure` or `query.sum`.",
            )
        return found

    def statistics(self, rid: str) -> OpenStatistics:
        """Return a granted statistics study. Raises as `find`, for one of training."""
        found = self.opened(rid)
        if isinstance(found, OpenStudy):
            raise PolicyError(
                "CSL-C492", f"Study {rid[:12]} is one of training.", "Ask for its rounds by `train` or `query.sum`."
            )
        return found

    def opened(self, rid: str) -> Opened:
        """Return a granted study, whatever it computes.

        Raises
        ------
        PolicyError
            CSL-C511 when this vault granted no such study.
        StorageError
            CSL-C504 when its file cannot be read.
        """
        try:
            content = self._path(rid).read_bytes()
            # A canonical document spells a string in one way, so that this cannot be another document's kind.
            kind = OpenStatistics if b'"kind":"open_statistics"' in content else OpenStudy
            return kind.from_canonical(content)
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


def check_plain(study: Opened) -> None:
    """Refuse a study whose vectors leave only into secure sums. Raises PolicyError CSL-C470."""
    if study.spec.secure is not None:
        raise PolicyError(
            "CSL-C470",
            "The study's vectors leave only into secure sums, never by themselves.",
            "Ask for the study's sums by `query.sum`.",
        )
