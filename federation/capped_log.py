"""What a process prints, in files that never grow past a limit."""

import os
from pathlib import Path

MAX_BYTES = 8 << 20
KEPT = 3
_TAIL_BYTES = 16 << 10
_TAIL_LINES = 40


class CappedLog:
    """A log of at most `(kept + 1) * (max_bytes + one write)` bytes: PATH, then the older PATH.1 to PATH.kept.

    A disk that is full costs lines, never the process that prints them: what cannot be written is counted, and a line says how much was
    lost once there is room again. The last lines of the present run stay in memory.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._max = max_bytes
        self._kept = kept
        self._descriptor: int | None = None
        self._size = 0
        self._tail = b""
        self._lost = 0

    @property
    def lost(self) -> int:
        """Bytes that could not be written since the last that could."""
        return self._lost

    def begin(self) -> None:
        """Forget the last lines: they were another run's."""
        self._tail = b""

    def tail(self) -> str:
        """Return the last lines of this run, 40 and 16 KiB at most."""
        return "\n".join(self._tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])

    def write(self, chunk: bytes) -> None:
        """Add what was printed; a new file is begun after a full line where there is one. Never raises for a disk."""
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        try:
            self._open()
            if self._size >= self._max:
                self._rotate()
            if self._size and self._size + len(chunk) > self._max:
                cut = chunk.find(b"\n") + 1
                self._append(chunk[:cut])
                self._rotate()
                self._append(chunk[cut:])
            else:
                self._append(chunk)
        except OSError:
            self._lost += len(chunk)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        if self._descriptor is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size

    def _append(self, chunk: bytes) -> None:
        if self._lost:
            notice, self._lost = self._lost, 0
            try:
                self._put(f"\n({notice} bytes were lost: they could not be written.)\n".encode())
            except OSError:
                self._lost = notice
                raise
        self._put(chunk)

    def _put(self, chunk: bytes) -> None:
        assert self._descriptor is not None
        while chunk:
            written = os.write(self._descriptor, chunk)
            self._size += written
            chunk = chunk[written:]

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        if not self._kept:
            self._path.unlink(missing_ok=True)
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
