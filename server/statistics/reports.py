"""The reports of statistics studies at the coordinator: one file each, signed, for programs, and a readable page beside it."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.answers import StatisticsReport
from federation.document import Document
from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.files import atomic_write
from federation.signing import Signature, sign, verify
from server.statistics.readable import readable

CONTEXT = "csl1/statistics_report"
SUFFIX = ".report.json"


class SealedReport(Document):
    """A report with the coordinator's signature."""

    report: StatisticsReport
    signature: Signature


@dataclass(frozen=True)
class PublishedReport:
    """A report as it lies in the folder, with everything checked."""

    path: Path
    sealed: SealedReport

    @property
    def report(self) -> StatisticsReport:
        """What was found."""
        return self.sealed.report


def report_name(study_name: str, study: str) -> str:
    """Return the name of a study's report: the study's, and the first 12 digits of its digest."""
    return f"{study_name}-{study[:12]}"


class ReportBook:
    """Reports in a folder; a report is never changed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, report: StatisticsReport, key: Ed25519PrivateKey) -> PublishedReport:
        """Write a signed report and its readable page; the same report again changes nothing.

        Raises
        ------
        IntegrityError
            CSL-S785 when another report has the name.
        StorageError
            CSL-F301 when it cannot be written.
        """
        name = report_name(report.name, report.study)
        path = self._root / f"{name}{SUFFIX}"
        sealed = SealedReport(report=report, signature=sign(key, CONTEXT, report))
        if path.exists() and self.load(name).sealed != sealed:
            raise IntegrityError(
                "CSL-S785", f"Another report is published as {name}.", "A report is never changed: run a new study."
            )
        self._root.mkdir(parents=True, exist_ok=True)
        atomic_write(self._root / f"{name}.md", readable(report).encode())
        atomic_write(path, sealed.canonical())
        return PublishedReport(path, sealed)

    def names(self) -> list[str]:
        """Return the names of all reports, sorted."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self._root.glob(f"*{SUFFIX}"))

    def load(self, name: str, coordinator_key: str | None = None) -> PublishedReport:
        """Return a report after checking its signature, by `coordinator_key` where it is given.

        Raises
        ------
        DocumentError
            CSL-S786 when there is no such report.
        IntegrityError
            CSL-S787 when it was changed, CSL-F201/F202 for the signature.
        """
        path = self._root / f"{name}{SUFFIX}"
        if name not in self.names():
            raise DocumentError(
                "CSL-S786", f'No report "{name}" is published here.', "See `consilience coordinator reports`."
            )
        try:
            sealed = SealedReport.from_canonical(path.read_bytes())
        except (OSError, ConsilienceError) as error:
            raise IntegrityError(
                "CSL-S787", f"The report {path} was changed.", "Restore it from a backup; do not use it."
            ) from error
        verify(sealed.signature, CONTEXT, sealed.report, coordinator_key or sealed.signature.key)
        return PublishedReport(path, sealed)
