"""Ray's processes: a cluster of this process's own on this machine, or one that runs already.

Ray serialises what passes between its processes by pickle: who can reach them can run code there. A cluster of our own listens on the
loopback interface alone and answers only those who know a token that is drawn anew in every process. One that runs already is joined with
the token of whoever keeps it, and never without one.
"""

import importlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from federation.errors import ConsilienceError, FederationError

ADDRESS = "RAY_ADDRESS"
_STORE_BYTES = 256 << 20
_LOOPBACK = "127.0.0.1"
_REACHED_SECONDS = 10.0
_FAILURES = (OSError, RuntimeError, ValueError, TimeoutError)  # of Ray's start
_WORKERS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}
_GUARDED = (
    _WORKERS
    | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_AUTO_CONNECT": "0",  # else whatever touches an actor after the end starts another Ray, with nobody's settings
        "RAY_AUTH_MODE": "token",
    }
)
_HERE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"
}  # on any system: without it Ray listens on every interface of the machine


@contextmanager
def own_cluster(cpus: int) -> Iterator[None]:
    """Start Ray on this machine alone, and end it and what it wrote.

    Raises
    ------
    ConsilienceError
        CSL-M219 when Ray runs in this process already, was imported before its variables could be set, or does not start.
    """
    with _environment(_GUARDED | _HERE | {"RAY_AUTH_TOKEN": _token()}):
        ray = _ray()
        if importlib.import_module("ray._private.ray_constants").ENABLE_RAY_CLUSTER:
            raise _imported_before()
        # Ray's sockets lie in its folder, and their paths must be short.
        short = "/tmp" if os.path.isdir("/tmp") else None
        with tempfile.TemporaryDirectory(prefix="csl-", dir=short, ignore_cleanup_errors=True) as folder:
            try:
                _start(ray, cpus, folder)
                yield
            finally:
                ray.shutdown()


@contextmanager
def joined_cluster() -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, and leave it as it was.

    Its token is where Ray looks for it: in RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token.

    Raises
    ------
    ConsilienceError
        CSL-M219 when Ray runs in this process already, or was imported without RAY_AUTH_MODE=token.
    FederationError
        CSL-M213 when RAY_ADDRESS names no cluster, or that does not let us in, or others are at work there.
    """
    address = _address()
    with _environment(_GUARDED):
        ray = _ray()
        try:
            _join(ray, address)
            _check_free(ray, address)
            yield
        finally:
            ray.shutdown()


def _ray() -> ModuleType:
    """Import Ray, which reads its variables then, once; refuse one that runs, or would answer who has no token."""
    ray, core = importlib.import_module("ray"), importlib.import_module("ray._raylet")
    if ray.is_initialized():
        raise ConsilienceError(
            "CSL-M219",
            "Ray runs in this process already, and would be ended with the simulation.",
            "Close it first: one Ray simulation at a time, in a process of its own.",
        )
    if core.get_authentication_mode() != core.AuthenticationMode.TOKEN:
        raise _imported_before()
    return ray


def _imported_before() -> ConsilienceError:
    return ConsilienceError(
        "CSL-M219",
        "Ray was imported in this process before the simulation could set whom it answers.",
        "Start the simulation in a process that has not imported Ray before.",
    )


def _start(ray: ModuleType, cpus: int, folder: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=folder,
        )
    except _FAILURES as error:
        raise ConsilienceError(
            "CSL-M219", f"Ray does not start: {error}", "Free memory and space in /tmp, or take the local engine."
        ) from error
    heard = {node["NodeManagerAddress"] for node in ray.nodes()}
    if heard != {_LOOPBACK}:
        raise ConsilienceError(
            "CSL-M219",
            f"Ray would listen on {', '.join(sorted(heard))}, not on this machine's loopback interface alone.",
            "Start the simulation in a process that has not imported Ray before.",
        )


def _address() -> str:
    """Return the cluster's address, where something answers: Ray itself would try for many minutes."""
    address = os.environ.get(ADDRESS, "").strip()
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        raise FederationError(
            "CSL-M213",
            f"{ADDRESS} does not say which cluster to join{f': {address!r}' if address else ''}.",
            f"Set it to the address of its head node: export {ADDRESS}=HOST:PORT.",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _not_joined(address, error) from error
    return address


def _join(ray: ModuleType, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": _WORKERS})
    except (*_FAILURES, ray.exceptions.AuthenticationError) as error:
        raise _not_joined(address, error) from error


def _check_free(ray: ModuleType, address: str) -> None:
    """Refuse a cluster that others use: Flower's runtime sends work to as many processes as it has processors, free or not."""
    has, free = (found.get("CPU", 0.0) for found in (ray.cluster_resources(), ray.available_resources()))
    if free < max(has, 1.0):
        raise FederationError(
            "CSL-M213",
            f"Of the {has:g} processors of the cluster at {address}, {free:g} are free; Flower's runtime waits for all of them.",
            "Wait until others have finished, or take a cluster of its own.",
        )


def _not_joined(address: str, error: Exception) -> FederationError:
    return FederationError(
        "CSL-M213",
        f"The cluster at {address} cannot be joined: {error}",
        "See that it runs there, with RAY_AUTH_MODE=token, and that this machine knows its token (RAY_AUTH_TOKEN).",
    )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables, here and for the processes that are started; then set them back, and what Ray set."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in {*before, *os.environ}:
            if not (name.startswith("RAY_") or name in values or name == "PYTHONBREAKPOINT"):
                continue
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@cache
def _token() -> str:
    """Return this process's secret, the same as long as it lives: Ray reads it once."""
    return secrets.token_hex(32)
