"""Who can reach what of the link: institutions the fleet's paths at the public address, and nobody from outside anything else.

The checks ask like a stranger would, and ask nothing that changes anything.
"""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from federation.charter import split_address
from federation.doctor import Finding, fail, good, warn

FLEET_PATH = "/v1/fleet/send-node-heartbeat"
CLOSED = (
    ("POST", "/v1/control/list-runs"),
    ("POST", "/v1/control/../control/list-runs"),
    ("POST", "/v1/fleet/../control/list-runs"),
    ("POST", "/v1/fleet/%2e%2e/control/list-runs"),
    ("POST", "/v1/runtime/get-nodes"),
    ("GET", FLEET_PATH),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/health"),
    ("GET", "/"),
)
"""What a stranger may try at the public address; the link itself answers nearly all of it."""
NOT_FOUND = 404
_BEHIND_IS_DOWN = (502, 503, 504)

Ask = Callable[[str, str], int]
"""Sends a request of a method to a path, and returns the status; raises OSError."""
Connects = Callable[[str, int], bool]


def asker(address: str, authority: bytes, seconds: float = 5.0) -> Ask:
    """Return what asks at an address over TLS, and trusts that authority alone."""
    host, port = split_address(address)
    context = ssl.create_default_context(cadata=authority.decode("ascii", "replace"))

    def ask(method: str, path: str) -> int:
        connection = HTTPSConnection(host, port, timeout=seconds, context=context)
        try:
            connection.request(method, path, body=b"" if method == "POST" else None)
            return connection.getresponse().status
        except HTTPException as error:
            raise OSError(type(error).__name__) from error
        finally:
            connection.close()

    return ask


def check_fleet(address: str, ask: Ask) -> Finding:
    """Look whether the fleet's paths reach the link from the public address."""
    check = "fleet"
    try:
        status = ask("POST", FLEET_PATH)
    except OSError as error:
        return fail(
            check, f"{address} does not answer: {_why(error)}.", "Start the service, and check the address' firewall."
        )
    if status == NOT_FOUND:
        return fail(
            check,
            f"{address} does not let the fleet's paths through.",
            "Let the proxy pass /v1/fleet/ to the link, as `coordinator proxy` prints it.",
        )
    if status in _BEHIND_IS_DOWN:
        return fail(check, f"{address} answers, but the link behind it does not.", "See `coordinator status`.")
    return good(check, f"{address} lets the fleet's paths through to the link.")


def check_closed(address: str, ask: Ask) -> Finding:
    """Look whether the public address answers anything but the fleet's paths."""
    check, open_paths = "closed paths", []
    try:
        for method, path in CLOSED:
            status = ask(method, path)
            if status != NOT_FOUND:
                open_paths.append(f"{method} {path} ({status})")
    except OSError as error:
        return fail(check, f"{address} does not answer: {_why(error)}.", "Start the service, and ask again.")
    if open_paths:
        return fail(
            check,
            f"{address} answers {', '.join(open_paths)}.",
            "Stop the service: whoever reaches control may start runs and let nodes in. Use the proxy that `coordinator proxy` prints.",
        )
    return good(check, f"{address} answers nothing but the fleet's paths ({len(CLOSED)} others were tried).")


def check_same_machine(address: str) -> Finding:
    """Say what it means that the link itself is the address: fit for one machine alone."""
    return warn(
        "closed paths",
        f"{address} is the link itself: whoever has an account on this machine reaches its control.",
        "Set proxy: nginx and another link_port before any party is on another machine.",
    )


def check_loopback_only(port: int, addresses: Iterable[str], connects: Connects) -> Finding:
    """Look whether the link's port is open on an address of this machine that others can reach."""
    tried = list(addresses)
    found = [address for address in tried if connects(address, port)]
    if found:
        return fail(
            "loopback",
            f"The link's port {port} is open at {', '.join(found)}: control has no authentication of its own.",
            "Stop whatever forwards that port; the link itself listens on 127.0.0.1.",
        )
    return good("loopback", f"Port {port} is closed at this machine's {len(tried)} other addresses.")


def connects(address: str, port: int, seconds: float = 2.0) -> bool:
    """Return whether a TCP connection can be made."""
    try:
        socket.create_connection((address, port), seconds).close()
    except OSError:
        return False
    return True


def own_addresses(proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Return this machine's addresses but the loopback ones, sorted; those of its name where the system lists none."""
    found = {*_v4(proc / "net" / "fib_trie"), *_v6(proc / "net" / "if_inet6")} or set(_named())
    return tuple(sorted(address for address in found if not ipaddress.ip_address(address).is_loopback))


def _v4(table: Path) -> Iterable[str]:
    """Read the kernel's routes: an address stands on the line before `/32 host LOCAL`."""
    before = ""
    for line in _lines(table):
        if "/32 host LOCAL" in line:
            yield before
        before = line.replace("|--", "").strip()


def _v6(table: Path) -> Iterable[str]:
    for line in _lines(table):
        address = ipaddress.IPv6Address(int(line.split()[0], 16))
        if not address.is_link_local:  # reached only with the name of the interface
            yield str(address)


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text("ascii", "replace").splitlines()
    except OSError:
        return ()


def _named() -> Iterable[str]:
    try:
        return {str(item[4][0]) for item in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return ()


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
