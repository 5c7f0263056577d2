"""The node's supervisor: `python -m client.service.start --home HOME` keeps SuperNode and vault worker running, and holds no key itself.

The SuperNode talks to the coordinator and gets the one key that proves it there, no other, no configuration of the node and none of the
variables that may hold passwords of databases. The vault worker has keys and data and talks to nobody but the SuperNode, on this machine.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path

from client.config import NodeConfig, load_node
from client.home import Home, check_unlocked
from client.node_key import ensure_runtime_secret, read_runtime_secret
from client.service.hardening import harden
from client.service.paths import AUTHORITY, FLOWER, RENEWED, STANDING, SUPERNODE, VAULT
from client.service.reasons import explain_supernode, explain_worker
from federation.charter import Charter, Link
from federation.errors import ConsilienceError, DocumentError
from federation.files import atomic_write, check_private
from federation.flower.commands import environment, supernode_command
from federation.logs import log_event, setup_logs
from federation.supervise import Child, Pace, Supervisor

logger = logging.getLogger("consilience.node")
# What a process needs from its surroundings to run and to reach the coordinator; everything else may be somebody's password.
_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"}
    | {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "NOTIFY_SOCKET"}
)
_PASSED_PREFIXES = ("LC_", "PYTHON")
# The link lets a SuperNode that was killed in again about a minute later: it is asked often, so that no half a minute is lost on top.
PACE = Pace(longest=5.0)
Explain = Callable[[int, str], str]


def link_of(charter: Charter) -> Link:
    """Return how the charter says that the coordinator is reached.

    Raises
    ------
    DocumentError
        CSL-C411 when it says nothing.
    """
    if charter.link is None:
        raise DocumentError(
            "CSL-C411",
            "The charter names no address of the coordinator: it is one for simulations on one machine.",
            "Accept the federation's charter by `consilience node charter accept`.",
        )
    return charter.link


def prepare(home: Home) -> tuple[NodeConfig, Charter]:
    """Check what a start needs before anything runs, and return configuration and charter.

    Raises
    ------
    ConsilienceError
        CSL-C006 for a locked home, CSL-C411 without a link; as `load_node`, `Home.charter`, `check_private`, `read_runtime_secret`.
    """
    check_unlocked(home)
    node, charter = load_node(home.node_file), home.charter()
    link_of(charter)
    charter.member(node.member)
    check_private(home.node_key)
    ensure_runtime_secret(home)
    read_runtime_secret(home)
    return node, charter


def passed_on(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the SuperNode may have."""
    return {name: text for name, text in variables.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}


def children(
    home: Home, node: NodeConfig, charter: Charter, variables: Mapping[str, str], explain: Explain = explain_supernode
) -> tuple[Child, ...]:
    """Return the node's two processes; `variables` are for the vault worker alone, beside those of the supervisor."""
    run = home.folder("run").resolve()
    quiet = environment(run / FLOWER)
    command = supernode_command(
        link=node.service.link or link_of(charter).address,
        authority=run / AUTHORITY,
        node_key=home.node_key.resolve(),
        runtime_port=node.service.runtime_port,
        secret=home.runtime_secret.resolve(),
        poll_seconds=node.service.poll_seconds,
    )
    worker = (sys.executable, "-m", "client.service.worker", "--home", str(home.root.resolve()))
    logs = home.folder("logs").resolve()
    return (
        Child(SUPERNODE, command, logs / f"{SUPERNODE}.log", quiet, explain),
        Child(VAULT, worker, logs / f"{VAULT}.log", dict(variables) | quiet, explain_worker(run / STANDING)),
    )


class Story:
    """Logs what the supervisor says, and knows whether the node is being stopped; `run` is where the vault leaves word."""

    def __init__(self, run: Path | None = None) -> None:
        self.stopping = False
        self._run = run

    def __call__(self, event: str, **fields: int | float | str | bool | None) -> None:
        """Log an event."""
        self.stopping = self.stopping or event == "service_stopping"
        log_event(logger, event, severity=logging.INFO, **fields)

    def of_supernode(self, code: int, tail: str) -> str:
        """Return why the SuperNode ended."""
        if self.stopping:
            return "It was stopped."
        if self._run is not None and (self._run / RENEWED).exists():
            (self._run / RENEWED).unlink()
            return "The vault had it started again: it waited for an answer that could not be given."
        return explain_supernode(code, tail)


def serve(home: Home, variables: MutableMapping[str, str]) -> int:
    """Run the node until it is told to stop; `variables`, the process's own, keep only what every process may have.

    Raises
    ------
    ConsilienceError
        As `prepare`; CSL-F310 when the node runs already, CSL-F301 when its folder cannot be written.
    """
    harden()
    node, charter = prepare(home)
    atomic_write(home.folder("run") / AUTHORITY, link_of(charter).authority.encode(), mode=0o600)
    story = Story(home.folder("run"))
    processes = children(home, node, charter, dict(variables), story.of_supernode)
    for name in set(variables) - set(passed_on(variables)):
        del variables[name]
    story("the node starts", member=node.member, federation=charter.federation, charter=charter.digest()[:16])
    return Supervisor(home.folder("run"), processes, pace=PACE, on_event=story).run()


def main(arguments: list[str] | None = None) -> int:
    """Run the process of the command line."""
    parser = argparse.ArgumentParser(description="Keeps a node running; see `consilience node start`.")
    parser.add_argument("--home", type=Path, required=True)
    home = Home(parser.parse_args(arguments).home.resolve())
    with setup_logs("node", causes=True):
        try:
            return serve(home, os.environ)
        except ConsilienceError as error:
            log_event(logger, "the node cannot start", severity=logging.ERROR, code=error.code, cause=error.cause)
            sys.stderr.write(f"{error.code}  {error.cause}\n{error.action}\n")
            return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
