"""The link's Control API, over loopback: registering nodes, starting and stopping runs. It has no authentication of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from federation.encoding import sha256_hex
from federation.errors import FederationError
from federation.flower.errors import LINK_ERRORS, explain

T = TypeVar("T")
_RUNS = 100


@dataclass(frozen=True)
class NodeRow:
    """A registered node: its id, its public key (OpenSSH line without comment), and what the link last knew of it."""

    node_id: int
    key: str
    status: str


@dataclass(frozen=True)
class RunRow:
    """A run: `status` is pending, starting, running or finished; `sub` says how it finished."""

    run_id: int
    status: str
    sub: str
    details: str

    @property
    def live(self) -> bool:
        """Whether it has not finished."""
        return self.status != "finished"


class Control:
    """Speaks to one link. A context manager; every method raises `federation.flower.errors.explain`'s errors.

    Raises
    ------
    OfflineError
        CSL-F331 when the link does not answer.
    FederationError
        CSL-F332 when it refuses.
    """

    def __init__(self, address: str, ca: bytes) -> None:
        """Connect lazily to `address` (host:port); `ca` is the authority's PEM."""
        self._address = address
        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=ca,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-cli")],
        )

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except LINK_ERRORS as error:
            raise explain(error, self._address) from error

    def register_node(self, node_key: str) -> int:
        """Let a node in by its public key (OpenSSH line), and return its id; a key that is registered already is refused."""
        key = load_ssh_public_key(node_key.encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        request = RegisterNodeRequest(public_key=public_key_to_bytes(key))
        return int(self._call(lambda: self._client.RegisterNode(request)).node_id)

    def unregister_node(self, node_id: int) -> None:
        """Let a node in no longer."""
        self._call(lambda: self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id)))

    def nodes(self) -> list[NodeRow]:
        """Return the nodes that are registered, and were not let out again."""
        found = self._call(lambda: self._client.ListNodes(ListNodesRequest())).nodes_info
        return [
            NodeRow(item.node_id, node_key_line(item.public_key), item.status)
            for item in found
            if item.status != "unregistered"
        ]

    def start_run(self, bundle: bytes, config: Mapping[str, str]) -> int:
        """Start a run of a bundle, and return its id; `config` may only set keys that the bundle's own configuration has."""
        request = StartRunRequest(
            fab=fab_to_proto(Fab(sha256_hex(bundle), bundle, {})),
            override_config=user_config_to_proto(dict(config)),
        )
        run_id = int(self._call(lambda: self._client.StartRun(request)).run_id)
        if not run_id:
            raise FederationError(
                "CSL-F332", f"The link at {self._address} refuses: it started no run.", "See the link's log."
            )
        return run_id

    def stop_run(self, run_id: int) -> None:
        """Stop a run; its grid and its tasks are refused from now on."""
        self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))

    def runs(self) -> list[RunRow]:
        """Return the newest runs, newest first."""
        found = self._call(lambda: self._client.ListRuns(ListRunsRequest(limit=_RUNS))).run_dict
        rows = [
            RunRow(run_id, run.status.status, run.status.sub_status, run.status.details)
            for run_id, run in found.items()
        ]
        return sorted(rows, key=lambda row: found[row.run_id].pending_at, reverse=True)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def node_key_line(public_key: bytes) -> str:
    """Return a public key in Flower's encoding as an OpenSSH line without comment."""
    key = load_pem_public_key(public_key)
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
