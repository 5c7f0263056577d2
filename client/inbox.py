"""The studies that wait for the officers: what the coordinator offered and no rule of the policy lets through by itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar

from pydantic import Field

from federation.document import Document
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write, sync_folder
from federation.signing import Hex32, Signature, verify
from federation.statistics import StatisticsSpec
from federation.study import CONTEXT, Epsilon, StudySpec

MOST_WAITING = 1000
MAX_BYTES = 1 << 20
_DECLINED = "declined"


class PendingStudy(Document):
    """A study that waits, of training or of statistics: its spec as the coordinator signed it, and what it would be granted.

    `policy` is the digest of the policy under which it began to wait, `epsilon` and `delta` what that policy would grant,
    `received` the ledger's time in milliseconds since 1970.
    """

    kind: Literal["pending_study"] = "pending_study"
    spec: StudySpec | StatisticsSpec
    signature: Signature
    policy: Hex32
    epsilon: Epsilon
    delta: Annotated[float, Field(gt=0, lt=1)]
    received: Annotated[int, Field(ge=0)]

    @property
    def rid(self) -> str:
        """The study's digest: this, and nothing else, is what officers decide about."""
        return self.spec.digest()

    def check(self, coordinator_key: str) -> None:
        """Refuse a study that the charter's coordinator did not sign. Raises IntegrityError CSL-F201, CSL-F202."""
        verify(self.signature, CONTEXT, self.spec, coordinator_key)


class Planned(Protocol):
    """Anything that holds a study's spec and knows its digest."""

    @property
    def rid(self) -> str:
        """The study's digest."""

    @property
    def spec(self) -> StudySpec | StatisticsSpec:
        """The study."""


S = TypeVar("S", bound=Planned)


class Inbox:
    """One file (0600) for each study that waits, named by its digest; studies that were declined lie in a folder beside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, study: PendingStudy) -> None:
        """Write a study durably; one that waits already goes on waiting since the time when it first came.

        Raises
        ------
        StorageError
            CSL-C650 when 1,000 studies wait already; CSL-F301 when it cannot be written.
        """
        path = self._path(study.rid)
        if path.exists():
            known = _read(path)
            study = study.model_copy(update={"received": known.received})
            if study == known:
                return
        elif len(self._files()) >= MOST_WAITING:
            raise StorageError(
                "CSL-C650",
                f"{MOST_WAITING} studies wait for the officers: the inbox takes no more.",
                "Decide about them by `consilience officer approve` or `decline`; then let the coordinator offer again.",
            )
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(path, study.canonical(), mode=0o600)

    def list(self) -> tuple[PendingStudy, ...]:
        """Return the studies that wait, the longest waiting first. Raises as `find`."""
        found = [_read(path) for path in self._files()]
        return tuple(sorted(found, key=lambda study: (study.received, study.rid)))

    def declined(self) -> tuple[PendingStudy, ...]:
        """Return the studies that were declined, by digest. Raises as `find`."""
        return tuple(_read(path) for path in sorted((self._folder / _DECLINED).glob("*.json")))

    def find(self, text: str) -> PendingStudy:
        """Return the one waiting study of this name, or whose digest begins with `text`.

        Raises
        ------
        DocumentError
            CSL-C651 when there is none, CSL-C652 when there are several.
        StorageError, IntegrityError
            CSL-C653 when a file cannot be read, CSL-C654 when it does not hold the study that its name says.
        """
        return pick(text, self.list())

    def remove(self, rid: str) -> None:
        """Take a study out of the inbox: it was granted, or waits no longer; one that is not there is no error.

        Raises StorageError CSL-C653.
        """
        try:
            self._path(rid).unlink(missing_ok=True)
        except OSError as error:
            raise _storage(self._path(rid), error) from error

    def decline(self, rid: str) -> None:
        """Put a study that was declined aside, where it can still be read. Raises StorageError CSL-C653."""
        aside = self._folder / _DECLINED
        try:
            if self._path(rid).exists():
                aside.mkdir(mode=0o700, exist_ok=True)
                self._path(rid).replace(aside / f"{rid}.json")
                sync_folder(self._folder)
        except OSError as error:
            raise _storage(self._path(rid), error) from error

    def _files(self) -> tuple[Path, ...]:
        return tuple(sorted(self._folder.glob("*.json")))

    def _path(self, rid: str) -> Path:
        return self._folder / f"{rid}.json"


def fits(text: str, study: Planned) -> bool:
    """Return whether a study is called `text`, or its digest begins so."""
    return study.spec.draft.name == text or (bool(text) and study.rid.startswith(text))


def pick(text: str, studies: Iterable[S]) -> S:
    """Return the one study of this name, or whose digest begins with `text`. Raises DocumentError CSL-C651, CSL-C652."""
    found = [study for study in studies if fits(text, study)]
    if not found:
        raise DocumentError(
            "CSL-C651",
            f'No study here is called "{text}", and no digest begins so.',
            "See `consilience officer inbox` and `consilience officer ledger`.",
        )
    if len(found) > 1:
        raise several(text, [study.rid for study in found])
    return found[0]


def several(text: str, digests: Sequence[str]) -> DocumentError:
    """Return the error that a name fits several studies."""
    some = ", ".join(digest[:12] for digest in digests[:5])
    return DocumentError(
        "CSL-C652", f'{len(digests)} studies fit "{text}": {some}.', "Name one by the beginning of its digest."
    )


def _read(path: Path) -> PendingStudy:
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_BYTES)
    except OSError as error:
        raise _storage(path, error) from error
    try:
        study = PendingStudy.from_canonical(content)
    except DocumentError as error:
        raise _not_it(path) from error
    if study.rid != path.stem:
        raise _not_it(path)
    return study


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError("CSL-C653", f"{path} cannot be read or moved: {error.strerror}.", "Check its rights.")


def _not_it(path: Path) -> IntegrityError:
    return IntegrityError(
        "CSL-C654",
        f"{path} does not hold the study that its name says: it was altered or damaged.",
        "Move it away; the coordinator may offer the study again.",
    )
