"""What a study left at home is deleted when the policy's retention says so, and each deletion stands in the ledger first.

Ages are by the ledger's time, which never goes back. Name lists, kept scorings and campaigns are as old as the day in their names; kept
replies and participation records are as old as their study's closing, and stay while the study is open, because a restart needs them. The
secrets of a study's secure sums go as soon as it is closed, whatever the days.
A deletion unlinks files that were sealed: what a disk still holds of them opens with the store key alone.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from client import lists, scorings
from client.campaign import store as campaigns
from client.home import Home
from client.participation import SUFFIX as PART
from client.replies import SUFFIX as REPLY
from client.secure.store import FOLDER as SECURE
from client.secure.store import rid_of
from federation.errors import StorageError
from privacy.ledger import Ledger, LedgerReader
from privacy.ledger.entries import MILLISECONDS_A_DAY, Close
from privacy.ledger.state import EPOCH
from privacy.policy import Retention

VAULT = "vault"
LEFT_OVER_DAYS = 1
_FOLDERS = ("lists", scorings.FOLDER, campaigns.FOLDER, "replies", "participation", "models", SECURE)


@dataclass(frozen=True)
class Due:
    """What is older than the retention allows: groups of files that belong together, by what they are called in the ledger."""

    lists: dict[str, tuple[Path, ...]]
    scorings: dict[str, tuple[Path, ...]]
    campaigns: dict[str, tuple[Path, ...]]
    replies: dict[str, tuple[Path, ...]]
    participation: dict[str, tuple[Path, ...]]
    secrets: dict[str, tuple[Path, ...]]
    leftovers: tuple[Path, ...]

    def __bool__(self) -> bool:
        """Return whether there is anything to delete."""
        return bool(self.groups())

    def groups(self) -> list[tuple[str, tuple[Path, ...]]]:
        """Return each group of files under the words that the ledger gets."""
        return [
            *((lists.called(stem), files) for stem, files in self.lists.items()),
            *((scorings.called(stem), files) for stem, files in self.scorings.items()),
            *((campaigns.called(stem), files) for stem, files in self.campaigns.items()),
            *((f"kept replies of study {rid}", files) for rid, files in self.replies.items()),
            *((f"participation in study {rid}", files) for rid, files in self.participation.items()),
            *((_secrets_called(rid), files) for rid, files in self.secrets.items()),
            *([("files of interrupted writing", self.leftovers)] if self.leftovers else []),
        ]


def due(home: Home, retention: Retention, ledger: LedgerReader, now: int) -> Due:
    """Find what is to be deleted at `now`, milliseconds since 1970 by the ledger's time; changes nothing.

    Only closed studies are looked up in the ledger, and only when a file is old enough to matter.

    Raises
    ------
    StorageError
        CSL-C549 when a folder cannot be read.
    """
    today = EPOCH + timedelta(days=now // MILLISECONDS_A_DAY)
    replies = _old_files(home, "replies", REPLY, retention.replies_days, now)
    parts = _old_files(home, "participation", PART, retention.participation_days, now)
    secrets = _secrets(home)
    closed = _closings(ledger, {*replies, *parts, *secrets})
    return Due(
        lists=_old_lists(home, retention.name_lists_days, today),
        scorings=_old_scorings(home, retention.name_lists_days, today),
        campaigns=_old_campaigns(home, retention.name_lists_days, today),
        replies=_over(replies, closed, retention.replies_days, now),
        participation=_over(parts, closed, retention.participation_days, now),
        secrets={rid: files for rid, files in secrets.items() if rid in closed},
        leftovers=_leftovers(home, now),
    )


def _old_campaigns(home: Home, days: int, today: date) -> dict[str, tuple[Path, ...]]:
    """Return campaigns whose last day of outcomes, which is in the files' names, is too long ago."""
    folder = home.folder(campaigns.FOLDER)
    ended = {stem: campaigns.day_of(stem) for stem in campaigns.stems(folder)}
    return {
        stem: campaigns.files_of(folder, stem)
        for stem, day in ended.items()
        if day is not None and today - day > timedelta(days=days)
    }


def purge(home: Home, retention: Retention, ledger: Ledger, *, actor: str = VAULT, role: str = VAULT) -> Due:
    """Delete what is older than the retention allows, and return what was deleted.

    The ledger's entry comes first: a crash between the two leaves a file that the next purge deletes, never a deletion that
    nobody wrote down. `count` in the entry is the number of files.

    Raises
    ------
    StorageError
        CSL-C549 when a file cannot be deleted; the ledger's own when the entry cannot be written: then nothing is deleted.
    """
    found = due(home, retention, ledger, ledger.now())
    for what, files in found.groups():
        _erase(ledger, what, files, actor, role)
    return found


def erase_secrets(home: Home, ledger: Ledger, rid: str, *, actor: str, role: str) -> int:
    """Delete the secrets of a closed study's sums at once, as `purge` would later, and return the number of files.

    Where there are none, nothing is written into the ledger.

    Raises
    ------
    StorageError
        As `purge`.
    """
    files = _secrets(home).get(rid, ())
    if files:
        _erase(ledger, _secrets_called(rid), files, actor, role)
    return len(files)


def _secrets_called(rid: str) -> str:
    return f"secrets of the sums of study {rid}"


def _erase(ledger: Ledger, what: str, files: tuple[Path, ...], actor: str, role: str) -> None:
    ledger.access("erase", what, actor=actor, role=role, count=len(files))
    for path in files:
        _unlink(path)


def _old_lists(home: Home, days: int, today: date) -> dict[str, tuple[Path, ...]]:
    folder = home.folder("lists")
    written = {stem: lists.day_of(stem) for stem in lists.stems(folder)}
    return {
        stem: lists.files_of(folder, stem)
        for stem, day in written.items()
        if day is not None and today - day > timedelta(days=days)
    }


def _old_scorings(home: Home, days: int, today: date) -> dict[str, tuple[Path, ...]]:
    written = {path: scorings.day_of(path.stem) for path in scorings.files(home)}
    return {
        path.stem: (path,) for path, day in written.items() if day is not None and today - day > timedelta(days=days)
    }


def _old_files(home: Home, name: str, suffix: str, days: int, now: int) -> dict[str, list[Path]]:
    """Return a folder's files by study, for studies whose files were all written longer ago than `days`: they closed later
    than that, so that only for these the ledger must be asked."""
    found: dict[str, list[Path]] = {}
    young: set[str] = set()
    for path in _files(home.folder(name)):
        if path.suffix == suffix and not path.name.startswith("."):
            rid = path.stem.rpartition("-")[0] if suffix == REPLY else path.stem
            found.setdefault(rid, []).append(path)
            if _age(path, now) <= days:
                young.add(rid)
    return {rid: files for rid, files in found.items() if rid not in young}


def _secrets(home: Home) -> dict[str, tuple[Path, ...]]:
    """Return the files with secrets of secure sums, by study."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in _files(home.folder(SECURE)):
        rid = rid_of(path)
        if rid is not None and not path.name.startswith("."):
            found[rid] = (*found.get(rid, ()), path)
    return found


def _closings(ledger: LedgerReader, rids: Collection[str]) -> dict[str, int]:
    """Return when each of the studies was closed, in milliseconds since 1970; one that is open is not in it."""
    closed = {rid for rid in rids if (held := ledger.reservation(rid)) is not None and held.closed}
    if not closed:
        return {}
    bodies = (entry.body for entry in ledger.entries())
    return {body.rid: body.ts for body in bodies if isinstance(body, Close) and body.rid in closed}


def _over(files: dict[str, list[Path]], closed: dict[str, int], days: int, now: int) -> dict[str, tuple[Path, ...]]:
    return {
        rid: tuple(sorted(paths))
        for rid, paths in files.items()
        if rid in closed and now - closed[rid] > days * MILLISECONDS_A_DAY
    }


def _leftovers(home: Home, now: int) -> tuple[Path, ...]:
    """Return temporary files that a crash left behind: nobody will finish them."""
    found = [path for name in _FOLDERS for path in _files(home.folder(name)) if path.name.startswith(".")]
    return tuple(path for path in found if _age(path, now) > LEFT_OVER_DAYS)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except OSError as error:
        raise _failed(folder, error) from error


def _age(path: Path, now: int) -> float:
    try:
        return (now - path.stat().st_mtime_ns // 1_000_000) / MILLISECONDS_A_DAY
    except FileNotFoundError:  # another process finished with it
        return 0.0


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: OSError) -> StorageError:
    return StorageError(
        "CSL-C549",
        f"{path} cannot be read or deleted: {error.strerror}.",
        "Correct its rights, and run `consilience node purge`.",
    )
