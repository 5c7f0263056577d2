"""`coordinator start`: checks that everything is in place, then keeps link, executor and, where wanted, nginx running."""

import os
import shutil
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from federation.charter import Charter, split_address
from federation.errors import FederationError, IntegrityError, StorageError
from federation.files import atomic_write, check_private
from federation.flower.bundle import bundle_digest
from federation.flower.commands import environment, superlink_command
from federation.flower.version import check_version
from federation.signing import public_hex
from federation.supervise import Child
from server.certificates import check_server
from server.config import CoordinatorConfig
from server.home import CoordinatorHome
from server.service import proxy
from server.service.executor import check_app
from server.service.reading import read_bytes
from server.unlock import find_opener, unlock_identity

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def check_ready(home: CoordinatorHome, now: datetime | None = None) -> None:
    """Refuse to start what could not work, with the reason, before anything is started.

    Raises
    ------
    ConsilienceError
        For another Flower (F330), coordinator.yaml, the charter (S103, F204), another app than the charter's (S806, S807), the server's
        certificate and key (S115 to S122), the identity (S102, P50x), the link's secret (F311, F312), another address or authority than
        the charter's (S808), a port that is taken (S809), and nginx that is not there (S810).
    """
    check_version()
    config, charter = home.config(), home.charter()
    check_app(charter, bundle_digest())
    check_same_link(home, config, charter)
    check_server(home.server_key, home.server_file, home.authority_file, config.hosts(), now or datetime.now(UTC))
    check_private(home.link_secret)
    check_identity(home, charter)
    check_port("127.0.0.1", config.link_port, "link_port")
    if config.proxy == "nginx":
        find_nginx()
        check_port(*split_address(config.listens), "listen")


def check_same_link(home: CoordinatorHome, config: CoordinatorConfig, charter: Charter) -> None:
    """Compare the charter's link with coordinator.yaml and the authority of this home. Raises IntegrityError CSL-S808."""
    link = charter.link
    same_address = link is not None and link.address == config.address
    same_authority = link is not None and link.authority.encode() == read_bytes(home.authority_file)
    if not (same_address and same_authority):
        what = "address" if not same_address else "authority"
        raise IntegrityError(
            "CSL-S808",
            f"The charter names another {what} than this home: no institution would find its way here.",
            "Correct coordinator.yaml, or draft a charter with what it says now and have it sealed.",
        )


def check_identity(home: CoordinatorHome, charter: Charter) -> None:
    """Open the identity key and compare it with the charter's. Raises IntegrityError CSL-S102, and as `unlock_identity`."""
    if public_hex(unlock_identity(home, find_opener(home))) != charter.coordinator_key:
        raise IntegrityError(
            "CSL-S102",
            "The charter names another key for the coordinator.",
            "Install the key that the members' charter names.",
        )


def check_port(host: str, port: int, key: str) -> None:
    """Refuse a port on which this account cannot listen.

    Raises
    ------
    FederationError
        CSL-S809 when it is taken, not allowed, or on an address that is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise FederationError(
                "CSL-S809",
                f"Nothing can listen on {host}:{port}: {(error.strerror or 'it has no such address').lower()}.",
                f"End the process that has it, or name another {key} in coordinator.yaml.",
            ) from error


def find_nginx() -> str:
    """Return the path of nginx. Raises StorageError CSL-S810 when it is not installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path=_SYSTEM_PATH)
    if found is None:
        raise StorageError(
            "CSL-S810",
            "nginx is not installed, and coordinator.yaml wants it before the link.",
            "Install the system's package nginx; its own service is not needed.",
        )
    return found


def link_child(home: CoordinatorHome, config: CoordinatorConfig) -> Child:
    """Return the link: Flower's SuperLink on loopback, with TLS, node authentication and its state in SQLite or memory."""
    command = superlink_command(
        port=config.link_port,
        certificate=home.server_file.absolute(),
        key=home.server_key.absolute(),
        authority=home.authority_file.absolute(),
        secret=home.link_secret.absolute(),
        database=None if config.memory_state else home.run.absolute() / "link.sqlite",
    )
    return Child("link", command, home.logs / "link.log", environment(home.run.absolute() / "flower"))


def executor_child(home: CoordinatorHome) -> Child:
    """Return the executor."""
    command = (sys.executable, "-m", "server.service.executor", "--home", str(home.root.absolute()))
    return Child("executor", command, home.logs / "executor.log", environment(home.run.absolute() / "flower"))


def proxy_child(home: CoordinatorHome, config: CoordinatorConfig) -> Child:
    """Write nginx's configuration into a folder of its own, and return nginx. Raises as `find_nginx` and `proxy.render`."""
    folder = home.run.absolute() / proxy.FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write(folder / proxy.FILE, proxy.render(config, home.root).encode(), mode=0o600)
    return Child("nginx", proxy.command(find_nginx(), folder, root=os.geteuid() == 0), home.logs / "nginx.log")


def children(home: CoordinatorHome) -> tuple[Child, ...]:
    """Return what is to run for a home, in the order of their start."""
    config = home.config()
    for folder in (home.run, home.logs):
        _make(folder)
    between = (proxy_child(home, config),) if config.proxy == "nginx" else ()
    return (link_child(home, config), executor_child(home), *between)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "CSL-S816", f"{folder} cannot be made: {error.strerror}.", "Correct the rights of the home, and try again."
        ) from error
