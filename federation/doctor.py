"""What an operator wants to know before asking somebody: findings, each with the next action. The checks that need no network.

Each check takes what it looks at and changes nothing. A finding holds no data of customers: numbers, names of files, versions.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Literal, Protocol

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federation.errors import ConsilienceError, ExitCode, StorageError
from federation.files import check_private
from federation.service_state import ServiceState

Level = Literal["ok", "warn", "fail"]
GIB = 1 << 30
DISK_WARN = 2 * GIB
DISK_FAIL = 200 << 20
_COLOURS: Mapping[Level, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_ESSENTIAL = frozenset({"flwr", "cryptography"})
_QUIET: Mapping[str, str] = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True)
class Finding:
    """What a check found: `ok` unless it fails, what is so, and what to do about it, None where there is nothing to do."""

    check: str
    ok: bool
    level: Level
    what: str
    action: str | None


class Usage(Protocol):
    """A disk's bytes."""

    @property
    def free(self) -> int:
        """Bytes that can still be written."""


def good(check: str, what: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, True, "ok", what, None)


def warn(check: str, what: str, action: str) -> Finding:
    """Return a finding that does not stop the work yet."""
    return Finding(check, True, "warn", what, action)


def fail(check: str, what: str, action: str) -> Finding:
    """Return a finding that stops the work."""
    return Finding(check, False, "fail", what, action)


def from_error(check: str, error: ConsilienceError) -> Finding:
    """Return the finding that an error of ours is."""
    return fail(check, f"{error.code}  {error.cause}", error.action)


def passed(findings: Iterable[Finding]) -> bool:
    """Return whether nothing fails."""
    return all(finding.ok for finding in findings)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return what the command ends with: 0 unless something fails."""
    return int(ExitCode.OK if passed(findings) else ExitCode.FEDERATION)


def report(findings: Sequence[Finding], as_json: bool, *, width: int = 100, colour: bool = False) -> str:
    """Return the findings as text for a person, or as JSON: `ok` and the findings with their fields."""
    if as_json:
        return json.dumps({"ok": passed(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.level, style=_COLOURS[finding.level]), Text(finding.check), Text(finding.what))
        if finding.action:
            table.add_row("", "", Text(f"→ {finding.action}", style="bold"))
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False)
    console.print(table)
    console.print(Text(_summary(findings)))
    return out.getvalue()


def _summary(findings: Sequence[Finding]) -> str:
    failing = sum(finding.level == "fail" for finding in findings)
    warnings = sum(finding.level == "warn" for finding in findings)
    if not failing and not warnings:
        return f"{len(findings)} checks, all well."
    return f"{len(findings)} checks: {failing} {'fails' if failing == 1 else 'fail'}, {warnings} to look at."


def check_versions(
    package: str = "consilience",
    *,
    find: Callable[[str], metadata.Distribution] = metadata.distribution,
    python: Sequence[int] = sys.version_info[:3],
) -> list[Finding]:
    """Compare Python and the installed packages with what this installation asks for; nothing of them is imported.

    Another version of Flower fails, because its internals are used; another one of the rest is to look at, and a missing one fails.
    """
    try:
        own = find(package)
    except metadata.PackageNotFoundError:
        return [fail("versions", f"{package} is not installed.", "Install it as the README says.")]
    running = ".".join(str(part) for part in python[:3])
    wanted = own.metadata["Requires-Python"] if "Requires-Python" in own.metadata else ""
    findings = []
    if not SpecifierSet(wanted).contains(running, prereleases=True):
        findings.append(
            fail("python", f"This is Python {running}; {wanted} is needed.", "Install it in such a Python.")
        )
    needs = [Requirement(text) for text in own.requires or ()]
    needs = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    findings += [finding for need in needs if (finding := _version(need, find))]
    return findings or [
        good("versions", f"{package} {own.version}, Python {running}, {len(needs)} packages as pinned.")
    ]


def _version(need: Requirement, find: Callable[[str], metadata.Distribution]) -> Finding | None:
    install = "Install again from the pinned list (constraints.txt)."
    try:
        version = find(need.name).version
    except metadata.PackageNotFoundError:
        return fail("versions", f"{need.name} is not installed.", install)
    if need.specifier.contains(version, prereleases=True):
        return None
    tell = fail if need.name in _ESSENTIAL else warn
    return tell("versions", f"{need.name} is {version}; {need.specifier} is what was tested.", install)


def check_disk(folder: Path, *, usage: Callable[[Path], Usage] = shutil.disk_usage) -> Finding:
    """Look at the free space where `folder` lies: below 2 GiB is to look at, below 200 MiB fails."""
    try:
        free = usage(folder).free
    except OSError as error:
        return fail("disk", f"{folder} cannot be looked at: {error.strerror}.", "Check the path and its rights.")
    what = f"{folder}: {free / GIB:.1f} GiB free." if free >= GIB else f"{folder}: {free >> 20} MiB free."
    if free < DISK_FAIL:
        return fail("disk", what, "Free space now: with a full disk nothing is answered, and nothing is lost.")
    if free < DISK_WARN:
        return warn("disk", what, "Free space, or move the folder to a larger disk.")
    return good("disk", what)


def check_rights(paths: Sequence[Path], *, check: Callable[[Path], None] = check_private) -> list[Finding]:
    """Look whether each secret is there and nobody's but its owner's."""
    findings = []
    for path in paths:
        try:
            check(path)
        except StorageError as error:
            findings.append(from_error("private files", error))
    count = f"{len(paths)} files" if len(paths) != 1 else "1 file"
    return findings or [good("private files", f"{count} with secrets, closed to others.")]


def environment_of(state: ServiceState | None, process: str) -> dict[str, str] | None:
    """Return the variables that a service's process was started with; None where it does not run, or the system does not tell."""
    pids = [child.pid for child in state.children if child.name == process] if state is not None else []
    if not pids or pids[0] is None:
        return None
    try:
        content = Path("/proc", str(pids[0]), "environ").read_bytes()
    except OSError:
        return None
    pairs = (item.partition(b"=") for item in content.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def check_telemetry(environment: Mapping[str, str]) -> Finding:
    """Look whether Flower's telemetry and update check are off: both are on unless a variable says otherwise."""
    loud = [name for name, value in _QUIET.items() if environment.get(name) != value]
    if not loud:
        return good("telemetry", "Flower's telemetry and update check are off.")
    setting = " ".join(f"{name}={_QUIET[name]}" for name in loud)
    return fail("telemetry", "Flower would send telemetry or ask for updates.", f"Set {setting} for the service.")


def check_proxy(environment: Mapping[str, str]) -> Finding | None:
    """Say when a proxy stands in the environment: Flower's processes go through it, these checks do not. None without one."""
    names = [name for name in _PROXIES if environment.get(name)]
    if not names:
        return None
    return warn(
        "proxy",
        f"{names[0]} is set: the service goes through that proxy, these checks did not.",
        "Unset it for the service, or name the link's host in NO_PROXY, unless the proxy is wanted.",
    )


def check_service(state: ServiceState | None, start: str) -> list[Finding]:
    """Say how the processes of a service fare; `start` is the command that starts it."""
    if state is None:
        return [warn("service", "It does not run.", f"Start it: {start}")]
    findings = []
    for child in state.children:
        if child.state == "up":
            again = f", started again {child.restarts} times (last: {child.reason})" if child.restarts else ""
            findings.append(good("service", f"{child.name} is up, process {child.pid}{again}."))
        else:
            reason = child.reason or "It has not been started yet."
            findings.append(fail("service", f"{child.name} is down. {reason}", f"See the log of {child.name}."))
    return findings or [warn("service", "It runs, and has not said how it fares.", "Look again in a few seconds.")]
