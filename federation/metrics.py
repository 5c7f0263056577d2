"""Serving a process's metrics to a Prometheus on the same machine."""

from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from federation.errors import StorageError

LOOPBACK = "127.0.0.1"


class MetricsServer:
    """Answers with a registry's metrics at `http://127.0.0.1:port/metrics` until it is stopped."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def stop(self) -> None:
        """Stop listening, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(registry: CollectorRegistry, port: int) -> MetricsServer:
    """Serve a registry on 127.0.0.1, in a thread of its own; port 0 takes a free one.

    Raises
    ------
    StorageError
        CSL-F371 when the port is taken or not allowed.
    """
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise StorageError(
            "CSL-F371",
            f"Metrics cannot be served on {LOOPBACK}:{port}: {error.strerror}.",
            "Name a free port above 1023 as metrics_port, or none.",
        ) from error
    return MetricsServer(server, thread)
