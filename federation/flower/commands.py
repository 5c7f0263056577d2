"""How Flower's own processes are started: the link of a coordinator, the SuperNode of an institution."""

import sys
from pathlib import Path


def environment(flower_home: Path) -> dict[str, str]:
    """Return the variables that keep Flower's processes quiet and apart: no telemetry, no update check, own folder, own code."""
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(flower_home),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # no code from the folder in which somebody starts it
    }


def superlink_command(
    *, port: int, certificate: Path, key: Path, authority: Path, secret: Path, database: Path | None
) -> tuple[str, ...]:
    """Return the command of the link, Flower's own with more patience: loopback, TLS, node keys, no code of the app in its own process.

    Parameters
    ----------
    port:
        Where fleet, control and runtime are served, on 127.0.0.1.
    certificate, key, authority:
        The server's certificate and key, and the authority that issued it (PEM files).
    secret:
        The file with the secret that the executor shares with the link.
    database:
        An SQLite file; None keeps the link's state in memory.
    """
    return (
        sys.executable,
        *("-m", "federation.flower.superlink"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ca-certfile", str(authority)),
        "--enable-supernode-auth",
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
        "--disable-runtime-dependency-installation",
        *(() if database is None else ("--database", str(database))),
    )


def supernode_command(
    *, link: str, authority: Path, node_key: Path, runtime_port: int, secret: Path, poll_seconds: float
) -> tuple[str, ...]:
    """Return the command of a SuperNode: Flower's own with shorter pauses, which hands every message to the vault's worker.

    Parameters
    ----------
    link:
        Address of the link, host:port.
    authority:
        The PEM file of the certificate authority that the charter names.
    node_key:
        The P-384 private key by which it proves itself to the link.
    runtime_port:
        Where the worker asks for messages, on 127.0.0.1.
    secret:
        The file with the secret that the worker shares with it.
    poll_seconds:
        The shortest pause between two questions to the link.
    """
    return (
        *(sys.executable, "-m", "federation.flower.supernode", "--poll-seconds", f"{poll_seconds:g}"),
        *("--superlink", link, "--root-certificates", str(authority)),
        *("--auth-supernode-private-key", str(node_key)),
        *("--host", "127.0.0.1", "--port", str(runtime_port)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
    )
