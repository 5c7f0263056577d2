"""Logs as lines of JSON that no customer's data can be in, by construction.

What a process logs is made safe where a record is *created*, before any handler sees it. A record of another library keeps where it comes
from and loses its text, because nobody knows what a database driver or a data frame quotes. A record of ours (`consilience.*`) keeps its
text, which is a constant of our code: numbers are filled in, texts are cut and stripped of control characters, an error gives its code
alone unless the process never sees customers, and of everything else only the type is named. Of an exception there remain its type and the
lines of code that led to it, never its words. Warnings, and errors that nobody caught, go the same way.
"""

import contextlib
import json
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

from federation.errors import StorageError
from federation.log_records import FIELDS, OURS, Field, JsonLines, Rules, SafeFactory, Trouble, is_ours, where

__all__ = ["Field", "Logs", "RotatingFile", "Trouble", "log_event", "setup_logs", "where"]

MAX_BYTES = 10_000_000
KEEP = 5

logger = logging.getLogger("consilience.process")


def log_event(logger: logging.Logger, event: str, /, *, severity: int = logging.INFO, **fields: Field) -> None:
    """Log something that happened, with fields of its own beside `event`, a constant text.

    Fields are numbers, truth values and texts (cut to 200 characters where a process may see customers); a field that is named like one
    that every line has is left out.
    """
    logger.log(severity, event, extra={FIELDS: fields})


class _Target(Protocol):
    def write(self, line: str) -> None: ...

    def close(self) -> None: ...


class _StreamTarget:
    """An open text stream, which stays open."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

    def close(self) -> None:
        """Leave the stream to whoever opened it."""


class RotatingFile:
    """A log file of one process, for its owner alone, of a bounded size; full ones go to `name.1`, `name.2` and so on.

    Raises
    ------
    StorageError
        CSL-F370 when the file cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise StorageError(
                "CSL-F370",
                f"The log {path} cannot be written: {error.strerror}.",
                "Correct the rights of its folder, or free space, and start again.",
            ) from error

    def write(self, line: str) -> None:
        """Append a line in one piece, after the file was rotated when it would become too large."""
        content = line.encode("utf-8", "replace")
        size = os.fstat(self._descriptor).st_size
        if size and size + len(content) > self._max_bytes:
            self._rotate()
        written = os.write(self._descriptor, content)
        if written < len(content):  # a full disk: no half line is left behind
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError("the disk is full")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)
        return descriptor

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._numbered(number), self._numbered(number + 1))
        if self._keep:
            os.replace(self._path, self._numbered(1))
        else:
            self._path.unlink()
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class _LineHandler(logging.Handler):
    """Writes lines; what cannot be written is counted and told with the next line: a full disk must not stop the process."""

    def __init__(self, target: _Target, lines: JsonLines) -> None:
        super().__init__()
        self._target = target
        self._lines = lines
        self._lost = 0
        self.setFormatter(lines)

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass over what other libraries say below a warning: without its text it says nothing."""
        return (is_ours(record.name) or record.levelno >= logging.WARNING) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        entry = self._lines.entry(record) | ({"lost": self._lost} if self._lost else {})
        try:
            self._target.write(json.dumps(entry, allow_nan=False) + "\n")
        except (OSError, ValueError):
            self._lost += 1
        else:
            self._lost = 0

    def close(self) -> None:
        """Close the target."""
        self._target.close()
        super().close()


@dataclass
class Logs:
    """The logs of a process while they are set up; `close` puts back what was there before."""

    handler: logging.Handler
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Use it as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Put back what was there before."""
        self.close()

    def close(self) -> None:
        """Put back what was there before, once."""
        while self._undo:
            self._undo.pop()()


def setup_logs(
    process: str,
    target: TextIO | Path | None = None,
    *,
    level: int = logging.INFO,
    causes: bool = False,
    max_bytes: int = MAX_BYTES,
    keep: int = KEEP,
) -> Logs:
    """Let this process log lines of JSON that are free of customers' data, and nothing else.

    Parameters
    ----------
    process:
        What the process is called in each line.
    target:
        A stream, or a file that this process alone writes (rotated by size); standard error unless given.
    level:
        From which level on our own records are written; other libraries' are from warnings on.
    causes:
        Whether our errors show their cause beside the code. For processes that never see customers' data: a cause may hold a count.
    max_bytes, keep:
        How large a file may become, and how many full ones are kept.

    Raises
    ------
    StorageError
        CSL-F370 when the file cannot be opened.
    """
    out = RotatingFile(target, max_bytes, keep) if isinstance(target, Path) else _StreamTarget(target or sys.stderr)
    logs = Logs(_LineHandler(out, JsonLines(process, causes=causes)))
    root, ours = logging.getLogger(), logging.getLogger(OURS)
    logs._undo += [logs.handler.close, *_take_over(root, ours), _set_factory(Rules(causes)), *_set_hooks()]
    root.addHandler(logs.handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(level)
    return logs


def _take_over(root: logging.Logger, ours: logging.Logger) -> Iterator[Callable[[], None]]:
    """Take all handlers away, so that nothing is written beside the lines; yield what gives them back."""
    known = [item for item in list(logging.Logger.manager.loggerDict.values()) if isinstance(item, logging.Logger)]
    for item in {root, ours, *known}:
        yield _restoring(item)
        item.handlers, item.propagate, item.disabled = [], True, False


def _restoring(item: logging.Logger) -> Callable[[], None]:
    before = (item.handlers, item.propagate, item.disabled, item.level)

    def restore() -> None:
        item.handlers, item.propagate, item.disabled = before[:3]
        item.setLevel(before[3])

    return restore


def _set_factory(rules: Rules) -> Callable[[], None]:
    before, raising = logging.getLogRecordFactory(), logging.raiseExceptions

    def restore() -> None:
        logging.setLogRecordFactory(before)
        logging.raiseExceptions = raising

    logging.setLogRecordFactory(SafeFactory(rules))
    logging.raiseExceptions = False  # logging's own report of a failing handler quotes arguments
    return restore


def _set_hooks() -> list[Callable[[], None]]:
    """Let warnings and errors that nobody caught be logged like everything else, by type and place."""
    main, thread, unraisable = sys.excepthook, threading.excepthook, sys.unraisablehook

    def restore() -> None:
        sys.excepthook, threading.excepthook, sys.unraisablehook = main, thread, unraisable

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        logger.critical("the process ends by an error that nobody foresaw", exc_info=(kind, error, trace))

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            logger.critical("a thread ended by an error that nobody foresaw", exc_info=found.exc_value)

    def ignored(found: "sys.UnraisableHookArgs") -> None:
        logger.error("an error could not be passed on", exc_info=found.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, ignored
    logging.captureWarnings(True)
    return [restore, lambda: logging.captureWarnings(False)]
