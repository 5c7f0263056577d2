"""A pack's archive: a ZIP of stored files in exactly one form, so that the same files always are the same bytes.

No compression, no dates, no extra fields, no comments, names in order: whoever reads a pack knows what every byte of the
archive must be, and any other one is found. Reading takes the memory of one block, whatever a file claims to hold.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from federation.errors import DocumentError, IntegrityError, StorageError

MAX_FILES = 20_000
MAX_PACK_BYTES = 2 << 30
MAX_LINE_BYTES = 4 << 20
BLOCK = 1 << 20

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION, _MADE_BY = 10, (3 << 8) | 10
_DATE = (1 << 5) | 1  # 1980-01-01, the first that the format knows
_RIGHTS = 0o100644 << 16
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,2}", re.ASCII)
_LONGEST_NAME = 160


@dataclass(frozen=True)
class Stored:
    """Where a file lies in the archive, how long it is, and its SHA-256."""

    offset: int
    size: int
    sha256: str


class Files(Protocol):
    """A pack's files, in an archive or in a folder where one is being made."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted."""

    def read(self, name: str, most: int) -> bytes:
        """Return a file of at most `most` bytes."""

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield a file's lines without their ends."""

    def digest(self, name: str) -> str:
        """Return a file's SHA-256."""


class Folder:
    """Files in a folder, as a pack is made from them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted."""
        return tuple(sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()))

    def read(self, name: str, most: int) -> bytes:
        """Return a file of at most `most` bytes."""
        with (self.root / name).open("rb") as handle:
            return _limited(handle.read(most + 1), name, most)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield a file's lines without their ends."""
        with (self.root / name).open("rb") as handle:
            yield from _lines(iter(lambda: handle.read(BLOCK), b""), name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        with self.create(name) as handle:
            handle.write(content)

    def create(self, name: str) -> BinaryIO:
        """Open a new file for writing."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")

    def digest(self, name: str) -> str:
        """Return a file's SHA-256."""
        return self.measure(name)[1]

    def measure(self, name: str) -> tuple[int, str]:
        """Return a file's length and SHA-256."""
        found = sha256()
        with (self.root / name).open("rb") as handle:
            for block in iter(lambda: handle.read(BLOCK), b""):
                found.update(block)
            return handle.tell(), found.hexdigest()


def write_archive(folder: Folder, target: BinaryIO) -> None:
    """Write all files of a folder as one archive, and flush it to the disk.

    Raises
    ------
    StorageError
        CSL-C684 when they are more than a pack may hold.
    """
    directory: list[bytes] = []
    names = folder.names
    sizes = sum((folder.root / name).stat().st_size for name in names)
    if len(names) > MAX_FILES or sizes > MAX_PACK_BYTES - (1 << 24):
        raise StorageError(
            "CSL-C684",
            f"The evidence would be {len(names)} files of {sizes} bytes, more than a pack holds.",
            "Make several packs, each of a shorter time.",
        )
    for name in names:
        offset = target.tell()
        crc, size = _crc(folder.root / name)
        target.write(_local(name, crc, size))
        with (folder.root / name).open("rb") as source:
            for block in iter(lambda: source.read(BLOCK), b""):
                target.write(block)
        directory.append(_central(name, crc, size, offset))
    target.write(_ending(directory, target.tell()))
    target.flush()
    os.fsync(target.fileno())


class Archive:
    """A pack's archive, opened for reading: its form was checked from the first byte to the last."""

    def __init__(self, handle: BinaryIO, files: dict[str, Stored]) -> None:
        self._handle = handle
        self.files = files

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an archive and check its form.

        Raises
        ------
        StorageError
            CSL-C692 when it cannot be read.
        DocumentError
            CSL-C690 when it is no pack at all.
        IntegrityError
            CSL-C801 for an archive in another form: changed, cut off, with bytes before or after it; CSL-C802 for names that are
            not allowed, or stand twice; CSL-C811 when it is too large.
        """
        try:
            handle = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            _check_kind(handle, path)
            files = _index(handle)
        except OSError as error:
            handle.close()
            raise _unreadable(path, error) from error
        except BaseException:
            handle.close()
            raise
        return cls(handle, files)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted."""
        return tuple(self.files)

    def digest(self, name: str) -> str:
        """Return a file's SHA-256."""
        return self.files[name].sha256

    def read(self, name: str, most: int) -> bytes:
        """Return a file of at most `most` bytes.

        Raises
        ------
        IntegrityError
            CSL-C811 when it is larger; CSL-C803 when the archive was changed while it is read.
        """
        if self.files[name].size > most:
            raise _too_large(name, most)
        return b"".join(self._blocks(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield a file's lines without their ends. Raises as `read`."""
        return _lines(self._blocks(name), name)

    def _blocks(self, name: str) -> Iterator[bytes]:
        stored, found = self.files[name], sha256()
        done = 0
        while done < stored.size:
            block = os.pread(self._handle.fileno(), min(BLOCK, stored.size - done), stored.offset + done)
            if not block:
                break
            found.update(block)
            done += len(block)
            yield block
        if found.hexdigest() != stored.sha256:
            raise IntegrityError(
                "CSL-C803", f"{name} was changed while it was read.", "Copy the pack, and verify it again."
            )


def _index(handle: BinaryIO) -> dict[str, Stored]:
    """Read the archive once from end to end, and hold every byte of its form against the one that it must be."""
    size = os.fstat(handle.fileno()).st_size
    if size > MAX_PACK_BYTES:
        raise IntegrityError(
            "CSL-C811", f"It has {size} bytes; a pack has at most {MAX_PACK_BYTES}.", "Ask for a smaller one."
        )
    files: dict[str, Stored] = {}
    directory: list[bytes] = []
    handle.seek(0)
    last = ""
    while True:
        offset = handle.tell()
        mark = handle.read(4)
        if mark != _LOCAL_MARK:
            break
        name, crc, length = _read_local(handle)
        _check_name(name, last, len(files))
        files[name] = _read_content(handle, name, crc, length)
        directory.append(_central(name, crc, length, offset))
        last = name
    expected = _ending(directory, offset)
    handle.seek(offset)
    if handle.read(len(expected)) != expected:
        raise _malformed("its directory is not that of its files, or it was cut off")
    if handle.read(1):
        raise _malformed("bytes stand after its end")
    return files


def _read_local(handle: BinaryIO) -> tuple[str, int, int]:
    rest = handle.read(_LOCAL.size - 4)
    if len(rest) != _LOCAL.size - 4:
        raise _malformed("it was cut off")
    _, version, flags, method, time, date, crc, packed, size, name_length, extra = _LOCAL.unpack(_LOCAL_MARK + rest)
    raw = handle.read(min(name_length, _LONGEST_NAME))
    name = raw.decode("ascii", "replace")
    if method != 0 or packed != size:
        raise _malformed(f"{_shown(name)} is compressed, and a pack's files never are")
    if (version, flags, time, date, extra) != (_VERSION, 0, 0, _DATE, 0) or len(raw) != name_length:
        raise _malformed(f"the header of {_shown(name)} has fields that a pack does not have")
    return name, crc, size


def _read_content(handle: BinaryIO, name: str, crc: int, size: int) -> Stored:
    offset, left = handle.tell(), size
    found, checksum = sha256(), 0
    while left:
        block = handle.read(min(BLOCK, left))
        if not block:
            raise _malformed(f"it was cut off in {name}")
        found.update(block)
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    if checksum != crc:
        raise IntegrityError("CSL-C803", f"{name} was changed: its checksum is another.", _ASK)
    return Stored(offset, size, found.hexdigest())


def _check_name(name: str, last: str, count: int) -> None:
    if count >= MAX_FILES:
        raise IntegrityError("CSL-C811", f"It has more than {MAX_FILES} files.", "Ask for a smaller one.")
    if not _NAME.fullmatch(name):
        raise IntegrityError("CSL-C802", f"The name {_shown(name)} is none that a pack may have.", _ASK)
    if name == last:
        raise IntegrityError("CSL-C802", f"{name} stands twice.", _ASK)
    if name < last:
        raise IntegrityError("CSL-C802", f"{name} stands after {last}: twice, or out of order.", _ASK)


def _check_kind(handle: BinaryIO, path: Path) -> None:
    """Tell a pack that was tampered with from a file that is none: a pack's last file but one is its signature."""
    size = os.fstat(handle.fileno()).st_size
    start = handle.read(4)
    handle.seek(max(0, size - (4 << 20)))
    tail = handle.read(4 << 20)
    if start == _LOCAL_MARK:
        handle.seek(0)
        if b"VERIFY.md" in handle.read(64) or b"manifest.sig" in tail:
            return
    elif b"manifest.sig" in tail and _END_MARK in tail:
        raise _malformed("bytes stand before its beginning, or its first ones were changed")
    raise DocumentError(
        "CSL-C690", f"{path} is no evidence pack.", "Name the .zip that `consilience officer evidence` wrote."
    )


def _local(name: str, crc: int, size: int) -> bytes:
    raw = name.encode("ascii")
    return _LOCAL.pack(_LOCAL_MARK, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(raw), 0) + raw


def _central(name: str, crc: int, size: int, offset: int) -> bytes:
    raw = name.encode("ascii")
    fields = (_MADE_BY, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(raw), 0, 0, 0, 0, _RIGHTS, offset)
    return _CENTRAL.pack(_CENTRAL_MARK, *fields) + raw


def _ending(directory: list[bytes], offset: int) -> bytes:
    content = b"".join(directory)
    count = len(directory)
    return content + _END.pack(_END_MARK, 0, 0, count, count, len(content), offset, 0)


def _crc(path: Path) -> tuple[int, int]:
    checksum = size = 0
    with path.open("rb") as source:
        for block in iter(lambda: source.read(BLOCK), b""):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
    return checksum, size


def _lines(blocks: Iterable[bytes], name: str) -> Iterator[bytes]:
    held = b""
    for block in blocks:
        *whole, held = (held + block).split(b"\n")
        yield from whole
        if len(held) > MAX_LINE_BYTES:
            raise _too_large(f"a line of {name}", MAX_LINE_BYTES)
    if held:
        raise IntegrityError("CSL-C804", f"{name} does not end with the end of a line.", _ASK)


def _limited(content: bytes, name: str, most: int) -> bytes:
    if len(content) > most:
        raise _too_large(name, most)
    return content


_ASK = "Ask the institution for the pack again, and keep this one as evidence."


def _shown(name: str) -> str:
    return repr(name[:_LONGEST_NAME])


def _malformed(what: str) -> IntegrityError:
    return IntegrityError("CSL-C801", f"The archive is not as it was made: {what}.", _ASK)


def _too_large(what: str, most: int) -> IntegrityError:
    return IntegrityError("CSL-C811", f"{what} is larger than {most} bytes.", _ASK)


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError("CSL-C692", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights.")
