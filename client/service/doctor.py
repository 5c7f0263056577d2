"""What may keep a node from taking part, found before anybody has to ask: each finding with the next action. Changes nothing."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from client.config import NodeConfig, load_node
from client.home import Home, check_unlocked
from client.node_key import node_key_line
from client.service.paths import FLOWER, STANDING, SUPERNODE
from client.service.reasons import connection
from client.service.standing import PHASES, read_standing
from client.service.start import link_of
from client.unlock import unlock
from client.witness import check_kept
from federation.charter import Charter, Link
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
from federation.doctor_link import check_link
from federation.doctor_ports import check_port
from federation.errors import ConsilienceError
from federation.flower.bundle import bundle_digest
from federation.flower.commands import environment
from federation.flower.version import check_version
from federation.supervise import read_service
from privacy.keys import read_public
from privacy.ledger import LedgerReader, verify
from privacy.policy import Policy

T = TypeVar("T")
LOOPBACK = "127.0.0.1"
EXPIRY_WARN_DAYS = 30
_LOG_BYTES = 16 << 10


@dataclass(frozen=True)
class Surroundings:
    """What the checks look at beside the home, so that tests can put other things there."""

    today: date
    variables: Mapping[str, str]
    installed: Callable[[], str] = bundle_digest
    reach: Callable[[str, bytes | None], list[Finding]] = check_link


def surroundings() -> Surroundings:
    """Return those of this process."""
    return Surroundings(date.today(), os.environ)


def examine(home: Home, around: Surroundings) -> list[Finding]:
    """Look at everything that a node needs, the network last; what cannot be read is a finding too."""
    findings = [
        *_tried("flower", check_version, "Flower's version is the one that this release uses."),
        *check_versions(),
    ]
    findings += [check_disk(home.root), *_secrets(home)]
    findings += _tried("home", lambda: check_unlocked(home), "Not locked: no restoration is under way.")
    findings += _tried("keys", lambda: unlock(home), "The passphrase opens the vault's keys.")
    findings += _ledger(home, around.today)
    node, charter = _read(findings, "node.yaml", lambda: load_node(home.node_file)), None
    if node is not None:
        charter = _read(findings, "charter", home.charter)
        findings += _ports(home, node)
    if node is not None and charter is not None:
        findings += [*_membership(home, node, charter), *_heads(home, node, charter)]
        link = _read(findings, "link", lambda: link_of(charter))
        if link is not None:
            findings += [_code(link, around.installed), *_network(home, node, link, around)]
    return findings + _service(home, charter)


def _tried(check: str, action: Callable[[], object], what: str) -> list[Finding]:
    try:
        action()
    except ConsilienceError as error:
        return [from_error(check, error)]
    return [good(check, what)]


def _read(findings: list[Finding], check: str, reading: Callable[[], T]) -> T | None:
    try:
        return reading()
    except ConsilienceError as error:
        findings.append(from_error(check, error))
        return None


def _secrets(home: Home) -> list[Finding]:
    return check_rights(
        (home.identity_key, home.holdout_key, home.store_key, home.node_key, home.runtime_secret, home.ledger_file)
    )


def _ledger(home: Home, today: date) -> list[Finding]:
    """Read the ledger from its first entry to its last, and look at the policy that is in force in it."""
    try:
        key = read_public(home.identity_key)
        found = verify(home.ledger_file, key)
        with LedgerReader.read(home.ledger_file, key) as reader:
            policy, exhausted = reader.policy(), reader.state().exhausted
    except ConsilienceError as error:
        return [from_error("ledger", error)]
    if not found.valid:
        codes = ", ".join(sorted({item.code for item in found.findings}))
        return [
            fail("ledger", f"It does not check out: {codes}.", "Run `consilience officer verify`; restore the backup.")
        ]
    findings = [good("ledger", f"{found.head.size} entries, each checked."), _policy(policy, today)]
    if exhausted:
        nothing = "Restored from a copy that may lack entries: nothing remains to spend."
        findings.append(
            fail(
                "budget",
                nothing,
                "It does not come back; docs/officer.md says how to go on.",
            )
        )
    return findings


def _policy(policy: Policy | None, today: date) -> Finding:
    renew = "Let officers sign the next version and activate it: `consilience officer policy --help`."
    if policy is None:
        return fail("policy", "None is in force: every study is refused.", renew)
    left = (policy.expires - today).days
    what = f"Version {policy.version} is in force, until {policy.expires}."
    if left < 0:
        return fail("policy", f"Version {policy.version} expired on {policy.expires}: every study is refused.", renew)
    return warn("policy", what, renew) if left < EXPIRY_WARN_DAYS else good("policy", what)


def _ports(home: Home, node: NodeConfig) -> list[Finding]:
    state = read_service(home.run_folder)
    ports = [node.service.runtime_port, node.service.metrics_port]
    return [check_port(LOOPBACK, port, state) for port in ports if port is not None]


def _membership(home: Home, node: NodeConfig, charter: Charter) -> list[Finding]:
    """Hold keys and mapped contracts against this institution's row of the charter."""
    try:
        row = charter.member(node.member)
        identity, link_key = read_public(home.identity_key), node_key_line(home)
    except ConsilienceError as error:
        return [from_error("charter", error)]
    findings = []
    again = "Restore the key from the backup; or send a new card (`consilience node card`) for the next charter."
    if row.key != identity:
        findings.append(fail("charter", f"It names another identity key for {row.id} than keys/identity.key.", again))
    if row.node_key is not None and row.node_key != link_key:
        findings.append(fail("charter", f"It names another node key for {row.id} than keys/node.key.", again))
    declared = {item.contract for item in row.declares}
    for name in sorted(declared - set(node.contracts)):
        what = f"{name} is declared in the charter and not mapped: a study on it is refused (CSL-C508)."
        findings.append(
            fail("contracts", what, f"Map {name} under `contracts` in node.yaml, and run `consilience node check`.")
        )
    for name in sorted(set(node.contracts) - declared):
        what = f"{name} is mapped and not declared in the charter: no study can use it."
        findings.append(
            warn("contracts", what, "Declare it in a new card for the next charter, or remove the mapping.")
        )
    return findings or [
        good("charter", f"Version {charter.version} of {charter.federation}; own keys and contracts fit.")
    ]


def _heads(home: Home, node: NodeConfig, charter: Charter) -> list[Finding]:
    """Hold the ledger against the heads of it that others keep: a vault on an older copy refuses everything."""

    def compare() -> None:
        with LedgerReader.read(home.ledger_file, read_public(home.identity_key)) as reader:
            check_kept(home.root / "witness", reader, charter, node.member)

    return _tried("witness", compare, "The ledger goes on from every head of it that others signed.")


def _code(link: Link, installed: Callable[[], str]) -> Finding:
    """Hold the installed code against the release that the charter names; the vault runs the installed one in any case."""
    found = installed()
    if found == link.app:
        return good("release", "The installed code is the release that the charter names.")
    return warn(
        "release",
        f"The installed code ({found[:12]}…) is not the release that the charter names ({link.app[:12]}…).",
        "Install that release, or let the federation agree on this one by a new charter.",
    )


def _network(home: Home, node: NodeConfig, link: Link, around: Surroundings) -> list[Finding]:
    quiet = check_telemetry(environment_of(read_service(home.run_folder), SUPERNODE) or environment(Path(FLOWER)))
    proxy = check_proxy(around.variables)
    address = node.service.link or link.address
    try:
        reached = around.reach(address, link.authority.encode())
    except ConsilienceError as error:
        reached = [from_error("link", error)]
    return [quiet, *([] if proxy is None else [proxy]), *reached]


def _service(home: Home, charter: Charter | None) -> list[Finding]:
    """Say how the node's processes fare, whether they are connected, and whether they know the charter that is pinned."""
    state = read_service(home.run_folder)
    findings = check_service(state, f"consilience node start --home {home.root}")
    if state is None:
        return findings
    said = read_standing(home.run_folder / STANDING)
    if any(child.name == SUPERNODE and child.state == "up" for child in state.children):
        findings.append(_connection(home))
    if said is not None and charter is not None and said.charter not in (None, charter.digest()):
        what = "It works under the charter that was pinned when it was started, and another one is pinned now."
        findings.append(fail("service", what, "Restart the node: `consilience node stop`, then `start`."))
    if said is not None and said.phase in ("away", "refused"):
        findings.append(fail("service", f"The vault {PHASES[said.phase]}.", f"See the log of {SUPERNODE}."))
    return findings


def _connection(home: Home) -> Finding:
    found = connection(log_end(home.logs_folder / f"{SUPERNODE}.log"))
    if found == "connected":
        return good("service", "The SuperNode is connected to the link.")
    return warn(
        "service", "The SuperNode is not connected; it tries again and again.", "See the findings about the link above."
    )


def log_end(path: Path) -> str:
    """Return the last 16 KiB of a log; nothing where there is none."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(handle.tell() - _LOG_BYTES, 0))
            return handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
