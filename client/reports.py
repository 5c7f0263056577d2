"""What statistics studies found, as the coordinator delivered it: kept at home, for the commands that apply it to the own customers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from federation.answers import Answer, StatisticsReport
from federation.document import Document
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write

FOLDER = "reports"
_MILLISECONDS = 1000


class KeptReport(Document):
    """A delivered report, and when it came (milliseconds since 1970)."""

    kind: Literal["kept_report"] = "kept_report"
    received: Annotated[int, Field(ge=0)]
    report: StatisticsReport


@dataclass(frozen=True)
class Found:
    """A report and the answer in it that was looked for."""

    report: StatisticsReport
    answer: Answer
    received: int


class Reports:
    """The reports in one folder, a file for each study."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def keep(self, report: StatisticsReport) -> None:
        """Write a report durably (0600)."""
        kept = KeptReport(received=int(self._clock() * _MILLISECONDS), report=report)
        atomic_write(self._folder / f"{report.study}.json", kept.canonical(), mode=0o600)

    def has(self, study: str) -> bool:
        """Return whether a study's report is kept, whole or damaged."""
        return (self._folder / f"{study}.json").exists()

    def of_study(self, study: str) -> StatisticsReport | None:
        """Return a study's report, or None where none is kept. Raises as `all`."""
        path = self._folder / f"{study}.json"
        return _read(path).report if path.exists() else None

    def all(self) -> tuple[KeptReport, ...]:
        """Return all kept reports, the newest first.

        Raises
        ------
        IntegrityError
            CSL-C496 for a file that is damaged.
        StorageError
            CSL-C504 for one that cannot be read.
        """
        found = [_read(path) for path in sorted(self._folder.glob("*.json"))]
        return tuple(sorted(found, key=lambda item: (-item.received, item.report.study)))

    def newest(self, contract: str, kind: str, name: str | None = None) -> Found:
        """Return the newest answer of a kind (`rfm`, `lifetime` ...) on a contract; of the study called `name`, where it is given.

        Raises
        ------
        StorageError
            CSL-C497 when there is none; as `all`.
        """
        for kept in self.all():
            report = kept.report
            if report.contract != contract or name not in (None, report.name):
                continue
            for answer in report.answers:
                if answer.kind == kind:
                    return Found(report, answer, kept.received)
        raise StorageError(
            "CSL-C497",
            f"No report with an answer of kind {kind} on {contract} was delivered here.",
            "Ask the coordinator to run a query of this kind; this institution must take part in it.",
        )


def _read(path: Path) -> KeptReport:
    try:
        return KeptReport.from_canonical(path.read_bytes())
    except DocumentError as error:
        raise IntegrityError(
            "CSL-C496", f"The report {path} is damaged.", "Delete it, or restore it from the last backup."
        ) from error
    except OSError as error:
        raise StorageError(
            "CSL-C504", f"{error.filename} cannot be read: {error.strerror}.", "Check the rights."
        ) from error
