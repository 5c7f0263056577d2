"""What may be said of a log record, an exception or a value without saying anything about a customer."""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import PurePath

from federation.errors import ConsilienceError

OURS = "consilience"
WITHHELD = "text withheld"
MAX_TEXT = 200
MAX_EVENT = 2000
MAX_FRAMES = 30

Field = int | float | str | bool | None
FIELDS = "consilience_fields"
_CODE = re.compile(r"CSL-[A-Z][0-9]{3}")
_LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
_STANDARD_NAMES = ("root", "py.warnings")


@dataclass(frozen=True)
class Trouble:
    """What may be said of an exception: its type, our code if it has one, the lines that led to it, and the types of its causes."""

    error: str
    code: str | None
    frames: tuple[str, ...]
    because: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it on one line."""
        return " < ".join((self.error, *self.because)) + "; " + ", ".join(self.frames)

    def as_dict(self) -> dict[str, object]:
        """Return the fields that are not empty, as a log line carries them."""
        found = {"error": self.error, "code": self.code, "because": self.because, "frames": self.frames}
        return {name: value for name, value in found.items() if value}


def where(error: BaseException) -> Trouble:
    """Return an error's type and the lines that led to it; its text may quote a customer's value and is left out."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    places = tuple(f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)
    causes: list[str] = []
    seen, cause = {id(error)}, error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return Trouble(type(error).__name__, _code(error), places, tuple(causes))


def _place(filename: str) -> str:
    return "/".join(PurePath(filename).parts[-3:])


def _code(error: BaseException) -> str | None:
    code = error.code if isinstance(error, ConsilienceError) else ""
    return code if _CODE.fullmatch(code) else None


@dataclass(frozen=True)
class Rules:
    """How values are shown; `causes` lets an error of ours show its cause beside its code."""

    causes: bool

    @property
    def longest(self) -> int:
        """How many characters of a text are shown."""
        return MAX_EVENT if self.causes else MAX_TEXT

    def value(self, value: object) -> Field:
        """Return what is shown of a value: of anything but plain numbers and texts, its type."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real):
            return float(value)
        if isinstance(value, str):
            return _printable(value, self.longest)
        if isinstance(value, PurePath):
            return _printable(str(value), self.longest)
        if isinstance(value, Trouble):
            return _printable(str(value), MAX_EVENT)
        if isinstance(value, ConsilienceError) and (code := _code(value)):
            return _printable(f"{code}  {value.cause} {value.action}", MAX_EVENT) if self.causes else code
        return f"<{type(value).__name__}>"

    def text(self, template: object, arguments: tuple[object, ...]) -> str:
        """Return a record's text; where values do not fit the template, the template alone."""
        if not isinstance(template, str):
            return str(self.value(template))
        try:
            filled = template % tuple(self.value(value) for value in arguments) if arguments else template
        except (TypeError, ValueError):
            filled = template
        return _printable(filled, MAX_EVENT)


def _printable(text: str, most: int) -> str:
    short = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in short)


class SafeRecord(logging.LogRecord):
    """A log record whose text is safe, whichever handler writes it; `ours`: its text was kept."""

    _consilience: tuple[bool, Trouble | None] = (False, None)

    @property
    def ours(self) -> bool:
        """Whether the text is ours."""
        return self._consilience[0]

    @property
    def trouble(self) -> Trouble | None:
        """What may be said of the exception that was logged with it."""
        return self._consilience[1]

    def mark(self, ours: bool, trouble: Trouble | None) -> None:
        """Set what the factory found; one attribute, so that names which other libraries give to theirs stay free."""
        self._consilience = (ours, trouble)


class SafeFactory:
    """Makes every record of the process; nothing that is withheld is kept anywhere in it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def __call__(
        self,
        name: str | None,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: tuple[object, ...],
        exc_info: object,
        func: str | None = None,
        sinfo: str | None = None,
        **_: object,
    ) -> SafeRecord:
        """Return the record of one call of a logger."""
        ours = is_ours(name)
        text = self._rules.text(msg, args) if ours else WITHHELD
        record = SafeRecord(name or "", level or 0, pathname, lineno, text, (), None, func, None)
        error = exc_info[1] if isinstance(exc_info, tuple) else None
        record.mark(ours, where(error) if isinstance(error, BaseException) else None)
        return record


def is_ours(name: str | None) -> bool:
    """Return whether a logger of that name is ours."""
    return name is not None and (name == OURS or name.startswith(f"{OURS}."))


def _known_name(name: str) -> str:
    """Return the part of another library's logger name that is the name of loaded code; the rest could be anything."""
    while name and name not in sys.modules and name not in _STANDARD_NAMES:
        name = name.rpartition(".")[0]
    return name or "other"


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: ts (UTC), level, process, logger, event, and the record's own fields."""

    def __init__(self, process: str, *, causes: bool = False) -> None:
        super().__init__()
        self._process = process
        self._rules = Rules(causes)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        return json.dumps(self.entry(record), allow_nan=False)

    def entry(self, record: logging.LogRecord) -> dict[str, object]:
        """Return the line's fields; a record that was not made safe when it was created is treated as another library's."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        safe = record if isinstance(record, SafeRecord) else None
        ours = safe is not None and safe.ours and is_ours(record.name)
        entry: dict[str, object] = {
            "ts": moment.replace("+00:00", "Z"),
            "level": next((name for least, name in _LEVELS if record.levelno >= least), "debug"),
            "process": self._process,
            "logger": record.name if ours else _known_name(str(record.name)),
            "event": record.getMessage() if ours else WITHHELD,
        }
        if not ours:
            entry["where"] = f"{_printable(str(record.module), MAX_TEXT)}:{record.lineno}"
        if safe is not None and safe.trouble is not None:
            entry |= safe.trouble.as_dict()
        return entry | (self._own_fields(record, entry) if ours else {})

    def _own_fields(self, record: logging.LogRecord, taken: Mapping[str, object]) -> dict[str, object]:
        fields = getattr(record, FIELDS, {})
        assert isinstance(fields, dict)
        shown = {name: self._rules.value(value) for name, value in fields.items() if name not in taken}
        return {name: _finite(value) for name, value in shown.items()}


def _finite(value: Field) -> Field:
    """Return the value, or its word where JSON has no number for it."""
    return str(value) if isinstance(value, float) and not (-float("inf") < value < float("inf")) else value
