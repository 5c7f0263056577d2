"""Whether a port can be listened on, and if not, whether it is our own service that listens there."""

import errno
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from federation.doctor import Finding, fail, good
from federation.service_state import ServiceState

_LISTENING = "0A"  # TCP_LISTEN in Linux's include/net/tcp_states.h, as /proc/net/tcp prints it
_FIRST_FREE_FOR_ALL = 1024


def check_port(
    host: str,
    port: int,
    state: ServiceState | None,
    *,
    trial: Callable[[str, int], None] | None = None,
    holders: Callable[[int], set[int]] | None = None,
) -> Finding:
    """Look whether `port` of `host` is free, or held by a process of the service whose `state` is given.

    Where the system does not say who holds a port, a service that runs is taken for the holder.

    Parameters
    ----------
    trial:
        Listens for an instant; raises OSError.
    holders:
        Process numbers of who listens on a port, as far as this user may see them.
    """
    name = f"port {port}"
    try:
        (trial or _listen)(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(name, state, (holders or listeners)(port))
        return _refused(name, host, port, error)
    return good(name, f"Free on {host}.")


def listeners(port: int, proc: Path = Path("/proc")) -> set[int]:
    """Return the numbers of the processes that listen on a TCP port, of this user's only where others' are hidden; none without /proc."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    found: set[int] = set()
    if not wanted:
        return found
    for folder in proc.iterdir():
        if folder.name.isdigit() and not wanted.isdisjoint(_links(folder / "fd")):
            found.add(int(folder.name))
    return found


def _listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)
        trial.listen(1)


def _taken(name: str, state: ServiceState | None, pids: set[int]) -> Finding:
    if state is not None:
        own = {child.pid for child in state.children if child.pid}
        if not pids or any(_session(pid) in own for pid in pids):
            return good(name, "Held by our own service.")
    who = f" (process {', '.join(str(pid) for pid in sorted(pids))})" if pids else ""
    return fail(name, f"Another process listens there{who}.", "Stop that process, or choose another port.")


def _refused(name: str, host: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EACCES and port < _FIRST_FREE_FOR_ALL:
        return fail(
            name,
            "This user may not listen on a port below 1024.",
            "Choose a higher port and forward to it, or grant CAP_NET_BIND_SERVICE to the service.",
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return fail(name, f"{host} is no address of this machine.", "Correct the address to listen on.")
    return fail(name, f"Cannot be listened on: {error.strerror}.", "Choose another port.")


def _session(pid: int) -> int | None:
    """Return the session of a process: each child of a service leads one of its own."""
    with suppress(OSError):
        return os.getsid(pid)
    return None


def _inodes(port: int, proc: Path) -> Iterable[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _links(folder: Path) -> set[str]:
    links: set[str] = set()
    with suppress(OSError):
        for entry in folder.iterdir():
            with suppress(OSError):
                links.add(os.readlink(entry))
    return links
