"""Why a process ended, in words for whoever keeps it running."""

import json
import re
import signal
from collections.abc import Mapping
from types import MappingProxyType

from federation.errors import ExitCode
from federation.leash import CANNOT_START

_CODE = re.compile(r"CSL-[A-Z][0-9]{3}\b")
_GRAVE = frozenset({"error", "critical"})
_LONGEST = 400
_PHRASES: Mapping[str, str] = MappingProxyType(
    {
        "cannot be started: No such file": "Its program is not installed.",
        "cannot be started: Permission denied": "Its program may not be executed by this user.",
        "Address already in use": "Its port is taken by another process.",
        "address already in use": "Its port is taken by another process.",
        "No space left on device": "The disk is full.",
        "MemoryError": "The machine's memory is full.",
        "Cannot assign requested address": "It is to listen on an address that is none of this machine's.",
    }
)
_MEANING: Mapping[int, str] = MappingProxyType(
    {
        ExitCode.OK: "It ended by itself, without an error.",
        ExitCode.INTERNAL: "It ended with an error; its log says more.",
        ExitCode.USAGE: "It does not understand its command line.",
        ExitCode.DOCUMENT: "A document that it reads is not valid; its log says which.",
        ExitCode.DATA: "The tables do not fit their mapping or the contract; its log says where.",
        ExitCode.POLICY: "Policy or budget does not allow it; its log says more.",
        ExitCode.INTEGRITY: "A signature, digest, chain or key does not check out; its log says which.",
        ExitCode.OFFLINE: "It cannot reach what it needs; its log says what.",
        ExitCode.FEDERATION: "The federation cannot go on; its log says why.",
        ExitCode.STORAGE: "A file cannot be written or read; its log says which.",
        ExitCode.INTERRUPTED: "It was interrupted.",
        CANNOT_START: "Its program cannot be started.",
    }
)


def plain_reason(code: int, tail: str, phrases: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return why a process ended, one line.

    Only known phrases and errors of our own are passed on: any other text of a log could quote what was read.

    Parameters
    ----------
    code:
        The exit code; negative for the number of the signal that killed it.
    tail:
        The last lines that it printed in this run.
    phrases:
        What its log may hold -> what that means, asked before all else; the phrase that stands last counts.
    """
    if code < 0:
        return _of_signal(-code)
    if code != ExitCode.OK:
        said = _by_phrase(tail, phrases) or _by_error(tail) or _by_phrase(tail, _PHRASES)
        if said:
            return said
    return _MEANING.get(code, f"It ended with exit code {code}; its log says more.")


def _of_signal(number: int) -> str:
    if number == signal.SIGKILL:
        return "It was killed (signal 9): by hand, or by the system for want of memory."
    name = next((known.name for known in signal.Signals if known == number), f"signal {number}")
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return f"It was told to stop ({name})."
    return f"It crashed ({name})."


def _by_phrase(tail: str, phrases: Mapping[str, str]) -> str | None:
    places = {tail.rfind(phrase): meaning for phrase, meaning in phrases.items() if phrase in tail}
    return places[max(places)] if places else None


def _by_error(tail: str) -> str | None:
    """Return the last error of our own: a line that begins with its code, or a log line of level error that names one."""
    for line in reversed(tail.splitlines()):
        said = line if _CODE.match(line) else _of_record(line)
        if said:
            return " ".join(said.split())[:_LONGEST]
    return None


def _of_record(line: str) -> str | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    grave = str(record.get("level", "")).lower() in _GRAVE
    record = record["error"] if isinstance(record.get("error"), dict) else record if grave else {}
    code = record.get("code")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    cause = record.get("cause")
    return f"{code}  {cause}" if isinstance(cause, str) else code
