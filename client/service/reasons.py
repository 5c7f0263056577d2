"""Why a process of the node ended, or does not get on, in words for whoever runs the node, with the next action.

What Flower's SuperNode prints is read for the phrases below and for nothing else: any other text of a log is passed on to nobody.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from client.service.standing import read_standing
from client.service.worker_exit import WorkerExit
from federation.exit_reason import plain_reason
from federation.flower.printed import (
    ADDRESS_INVALID,
    CONNECTED,
    ENDED,
    KEY_INVALID,
    NOT_LET_IN,
    RETRIES,
    SECRET_UNREADABLE,
    TLS_FAILED,
    VERSIONS_DIFFER,
)

_CLOCK = "Set this machine's clock (`timedatectl`): the link takes 5 seconds ahead of its own and 5 minutes behind."
_REFUSED = (
    f"The link refused this node's signature: its clock is off, or the coordinator no longer knows its key. {_CLOCK} "
    "If it is right, ask the coordinator whether this institution stands in the charter that is in force there."
)
_PHRASES: Mapping[str, str] = MappingProxyType(
    {
        TLS_FAILED: "The encrypted connection to the link could not be made. It is tried again by itself; if it lasts, "
        "`consilience node doctor` says where it fails.",
        NOT_LET_IN: "The link does not let this node in: it does not know the node's key yet, or counts the SuperNode that ran before "
        "as still on line, for about a minute after it was killed. It is tried again by itself; if it lasts, ask the coordinator to "
        "start under the charter that names this node's key.",
        "certificate has expired": "The coordinator's certificate has expired, or this machine's clock is ahead. Ask the coordinator to "
        "renew it (`consilience coordinator certificate renew`); see `consilience node doctor`.",
        "certificate is not yet valid": f"The coordinator's certificate is not valid yet: this machine's clock is behind. {_CLOCK}",
        "unable to get local issuer certificate": "The coordinator's certificate is not from the charter's authority. Do not go on: ask "
        "the coordinator, by a way that you trust, whether it was made anew; that needs a new charter.",
        "self-signed certificate": "The coordinator's certificate is not from the charter's authority: something between, such as an "
        "inspecting firewall, may answer in its place. Let the connection through untouched.",
        "certificate is not valid for": "The coordinator's certificate is for another name than the address that is used. Correct "
        "`service.link` in node.yaml, or ask the coordinator to renew the certificate with this name.",
        KEY_INVALID: "keys/node.key is no P-384 key. Restore it from the backup.",
        SECRET_UNREADABLE: "keys/runtime.secret cannot be read. Correct its rights, or move it away and start the node again: it makes a "
        "new one.",
        ADDRESS_INVALID: "The address of the link is none. Correct `service.link` in node.yaml: host:port.",
        VERSIONS_DIFFER: "Coordinator and node run different releases of Flower. Agree on one release of this software.",
        "ddress already in use": "The SuperNode's port on this machine is taken. Stop who listens there (`consilience node doctor` says "
        "who), or choose another `service.runtime_port` in node.yaml.",
    }
)
_OF_WORKER: Mapping[int, str] = MappingProxyType(
    {
        WorkerExit.SYSTEM: "The vault cannot run on this system.",
        WorkerExit.CONFIGURATION: "node.yaml is not valid.",
        WorkerExit.LOCKED: "The home was restored from a backup, and officers have not signed for it.",
        WorkerExit.CHARTER: "The charter is not the one that is pinned, or does not name this institution.",
        WorkerExit.KEYS: "The vault's keys cannot be opened.",
        WorkerExit.LEDGER: "The ledger or something beside it does not check out.",
        WorkerExit.PORT: "The port for metrics is taken.",
    }
)


def explain_supernode(code: int, tail: str) -> str:
    """Return why the SuperNode ended, from its exit code and the last lines that it printed."""
    if code == 0 and ENDED in tail:
        return _REFUSED  # what it does when the link answers 401; the supervisor asks nobody when it stops it itself
    # A SuperNode that was connected before ends with 0 when TLS fails.
    return plain_reason(1 if code == 0 and TLS_FAILED in tail else code, tail, _PHRASES)


def explain_worker(standing: Path) -> Callable[[int, str], str]:
    """Return what says why the vault's worker ended: in the words that it left in `standing`, where it could not start."""

    def explain(code: int, tail: str) -> str:
        said = read_standing(standing)
        if code in _OF_WORKER and said is not None and said.failure is not None:
            failure = said.failure
            cause = " ".join(failure.cause.split())  # several lines where a document has several problems
            return f"{_OF_WORKER[code]} {failure.code}  {cause} {failure.action}"
        return _OF_WORKER.get(code) or plain_reason(code, tail)

    return explain


def connection(log: str) -> str:
    """Say how a running SuperNode gets on with the link, from the end of its log: "connected", "trying" or "starting"."""
    places = {"connected": max(log.rfind(text) for text in CONNECTED), "trying": log.rfind(RETRIES)}
    last = max(places, key=lambda name: places[name])
    return last if places[last] > log.rfind("Starting Flower SuperNode") else "starting"
