"""`coordinator doctor`: what stands in the way, or soon will, each with the next action."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from federation.charter import Charter, split_address
from federation.doctor import (
    Finding,
    check_disk,
    check_proxy,
    check_rights,
    check_service,
    check_telemetry,
    check_versions,
    environment_of,
    fail,
    from_error,
    good,
    warn,
)
from federation.doctor_link import check_certificate_file, check_link
from federation.doctor_ports import check_port
from federation.errors import ConsilienceError
from federation.flower.bundle import bundle_digest
from federation.flower.commands import environment
from federation.service_state import ServiceState, read_service
from server.certificates import check_server
from server.config import CoordinatorConfig, is_loopback
from server.home import CoordinatorHome
from server.service import exposure, proxy
from server.service.executor import check_app
from server.service.reading import read_bytes
from server.service.start import check_identity, check_same_link, find_nginx
from server.service.studies import StudyBook, StudyRecord

STUCK_SECONDS = 900.0
MANY_TRIES = 3
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_BYTES = 512  # struct timex is smaller everywhere; all zero asks and changes nothing
RENEW = "Run `coordinator certificate renew`, and restart the coordinator."


def _clock_state() -> int | None:
    """Ask the kernel for the state of its clock (adjtimex(2) with no modes set)."""
    if not sys.platform.startswith("linux"):
        return None
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return int(state) if state >= 0 else None


@dataclass(frozen=True)
class Look:
    """What the checks look at beside the home; tests give their own."""

    now: Callable[[], float] = time.time
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    addresses: Callable[[], tuple[str, ...]] = exposure.own_addresses
    connects: exposure.Connects = exposure.connects
    asker: Callable[[str, bytes], exposure.Ask] = exposure.asker
    link: Callable[[str, bytes], list[Finding]] = check_link
    clock: Callable[[], int | None] = _clock_state


def examine(home: CoordinatorHome, look: Look | None = None) -> list[Finding]:
    """Return every finding about a coordinator's home and its service; nothing is changed."""
    look = look or Look()
    findings = [*check_versions(), check_telemetry(_around_link(home))]
    findings += [found for found in (check_proxy(look.environment), check_clock(look.clock())) if found is not None]
    findings.append(check_disk(home.root))
    try:
        config = home.config()
        state = read_service(home.run)
    except ConsilienceError as error:
        return [*findings, from_error("coordinator.yaml", error)]
    findings += check_rights(secrets_of(home, config))
    findings += check_certificates(home, config, look.now)
    findings += check_charter(home, config)
    findings += check_service(state, "consilience coordinator start")
    findings += check_ports(config, state)
    findings += check_nginx(home, config, state)
    if state is not None:
        findings += check_doors(home, config, look)
    findings += check_studies(StudyBook(home.root), look.now())
    return findings


def _around_link(home: CoordinatorHome) -> dict[str, str]:
    """Return what Flower's link was started with, or would be."""
    try:
        state = read_service(home.run)
    except ConsilienceError:  # said where the service is looked at
        state = None
    return environment_of(state, "link") or environment(home.run / "flower")


def secrets_of(home: CoordinatorHome, config: CoordinatorConfig) -> list[Path]:
    """Return the files that must be the owner's alone."""
    files = [home.identity_key, home.authority_key, home.server_key, home.link_secret]
    return [*files, home.root / config.passphrase_file] if config.passphrase_file is not None else files


def check_clock(state: int | None) -> Finding | None:
    """Say whether the system keeps its clock by others; None where it does not tell."""
    if state is None:
        return None
    if state == _UNSYNCHRONISED:
        return warn(
            "clock",
            "This machine's clock is not synchronised; institutions whose clocks differ by minutes are refused.",
            "Turn on time synchronisation (chrony or systemd-timesyncd; see `timedatectl`).",
        )
    return good("clock", "Synchronised.")


def check_certificates(home: CoordinatorHome, config: CoordinatorConfig, now: Callable[[], float]) -> list[Finding]:
    """Look at the server's certificate and key, and until when certificate and authority are valid."""
    findings = check_certificate_file(home.server_file, now=now, renew=RENEW)
    findings += check_certificate_file(
        home.authority_file, now=now, renew="Make a new authority in a new home, and draft the next charter from there."
    )
    try:
        moment = datetime.fromtimestamp(now(), UTC)
        check_server(home.server_key, home.server_file, home.authority_file, config.hosts(), moment)
    except ConsilienceError as error:
        if all(finding.ok for finding in findings):
            findings.append(from_error("certificate", error))
    return findings


def check_charter(home: CoordinatorHome, config: CoordinatorConfig) -> list[Finding]:
    """Look whether the pinned charter is whole, and names this key, address, authority and app; and at its contracts."""
    try:
        charter = home.charter()
    except ConsilienceError as error:
        return [from_error("charter", error)]
    told = f"{charter.federation}, version {charter.version}, {len(charter.members)} members, signed by all."
    findings = [good("charter", told)]
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_identity(home, charter),
        lambda: check_same_link(home, config, charter),
        lambda: check_app(charter, bundle_digest()),
    )
    for check in checks:
        try:
            check()
        except ConsilienceError as error:
            findings.append(from_error("charter", error))
    return [*findings, *check_contracts(home, charter)]


def check_contracts(home: CoordinatorHome, charter: Charter) -> list[Finding]:
    """Compare the feature contracts in the home with those that the charter pins."""
    findings = []
    for pinned in charter.contracts:
        try:
            if home.contract(pinned.name).digest() != pinned.sha256:
                findings.append(
                    fail(
                        "contracts",
                        f"contracts/{pinned.name}.yaml is not the version that the charter pins.",
                        "Restore it from charter/sealed.json by `coordinator charter seal`, or from a member's home.",
                    )
                )
        except ConsilienceError as error:
            findings.append(from_error("contracts", error))
    return findings or [good("contracts", f"{len(charter.contracts)} as pinned.")]


def check_ports(config: CoordinatorConfig, state: ServiceState | None) -> list[Finding]:
    """Look whether the service's ports are free, or its own."""
    places = [("127.0.0.1", config.link_port)]
    if config.proxy == "nginx":
        places.append(split_address(config.listens))
    if config.metrics_port is not None:
        places.append(("127.0.0.1", config.metrics_port))
    return [check_port(host, port, state) for host, port in places]


def check_nginx(home: CoordinatorHome, config: CoordinatorConfig, state: ServiceState | None) -> Iterator[Finding]:
    """Look whether nginx is there where it is wanted, and runs by the present coordinator.yaml."""
    if config.proxy != "nginx":
        return
    try:
        yield good("nginx", f"Installed: {find_nginx()}.")
        rendered = proxy.render(config, home.root)
    except ConsilienceError as error:
        yield from_error("nginx", error)
        return
    file = home.run / proxy.FOLDER / proxy.FILE
    if state is not None and (not file.exists() or file.read_text("utf-8", "replace") != rendered):
        yield warn("nginx", "It runs by an older coordinator.yaml.", "Stop the coordinator and start it again.")


def check_doors(home: CoordinatorHome, config: CoordinatorConfig, look: Look) -> list[Finding]:
    """Ask at the link on loopback, at the public address, and at this machine's other addresses."""
    try:
        authority = read_bytes(home.authority_file)
    except ConsilienceError as error:
        return [from_error("link", error)]
    local = f"127.0.0.1:{config.link_port}"
    findings = look.link(local, authority)
    host, port = split_address(config.address)
    if is_loopback(host) and port == config.link_port:
        findings.append(exposure.check_same_machine(config.address))
    else:
        findings += look.link(config.address, authority)
        ask = look.asker(config.address, authority)
        findings += [exposure.check_fleet(config.address, ask), exposure.check_closed(config.address, ask)]
    findings.append(exposure.check_loopback_only(config.link_port, look.addresses(), look.connects))
    return findings


def check_studies(book: StudyBook, now: float) -> list[Finding]:
    """Look for studies that wait for long, fail, or have said nothing for a while."""
    findings = []
    for name in book.names():
        try:
            record = book.read(name)
        except ConsilienceError as error:
            findings.append(from_error("studies", error))
            continue
        found = None if record is None else _study(record, _last_word(book, record), now)
        if found is not None:
            findings.append(found)
    return findings or [good("studies", "None is stuck.")]


def _last_word(book: StudyBook, record: StudyRecord) -> float:
    journal = book.journal(record.study)
    return max(record.since, journal.stat().st_mtime if journal.exists() else 0.0)


def _study(record: StudyRecord, last_word: float, now: float) -> Finding | None:
    name = record.study
    if record.state == "failed":
        return warn("studies", f"{name} failed: {record.reason}", f"Put that right, then `study start {name}`.")
    if record.wanted == "stopped":
        return None
    if record.state == "waiting" and record.tries >= MANY_TRIES:
        return warn(
            "studies", f"{name} waits after {record.tries} tries: {record.reason}.", "See `study watch` and the logs."
        )
    quiet = now - last_word - record.roster_seconds - record.grant_seconds
    if record.state in ("starting", "running") and quiet > STUCK_SECONDS:
        return warn(
            "studies",
            f"{name} has said nothing for {quiet / 60:.0f} minutes.",
            "See `coordinator status` for the members that are connected, and the study's log.",
        )
    return None
