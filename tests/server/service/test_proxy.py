"""The proxy: what it lets through and what not, as text and as a real nginx before a real TLS server."""

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from federation.errors import DocumentError
from server.config import CoordinatorConfig
from server.home import CoordinatorHome
from server.service import exposure, proxy
from server.service.start import find_nginx
from tests.server.service.conftest import found

DEPLOY = Path(__file__).resolve().parents[3] / "configs" / "deploy"
CONFIG = CoordinatorConfig(federation="town", address="coordinator.example:443", proxy="nginx")


def test_the_example_is_what_the_command_prints():
    assert (DEPLOY / "nginx.conf").read_text() == proxy.render(CONFIG, Path("/var/lib/consilience/coordinator"))


def test_it_verifies_the_link_and_writes_no_log_of_who_asked():
    text = proxy.render(CONFIG.model_copy(update={"link_port": 18001}), Path("/h"))
    for line in (
        "server 127.0.0.1:18001;",
        "listen 0.0.0.0:443 ssl;",
        "proxy_ssl_verify on;",
        'proxy_ssl_trusted_certificate "/h/tls/ca.pem";',
        "proxy_ssl_name localhost;",
        "access_log off;",
        "proxy_next_upstream off;",
        "client_max_body_size 1m;",
        "client_max_body_size 130m;",
        "limit_conn bodies 64;",
        "limit_conn pushers 16;",
    ):
        assert line in text
    assert text.count("proxy_pass https://link;") == text.count("proxy_pass") == 2
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("name", ['a"b', "a;b", "a$b", "a{b", "a\nb", "a\\b"])
def test_a_path_that_nginx_would_read_as_its_own_is_refused(name: str):
    with pytest.raises(DocumentError, match="CSL-S815"):
        proxy.render(CONFIG, Path("/var") / name)


def test_the_unit_keeps_the_service_in_its_home():
    lines = (DEPLOY / "consilience-coordinator.service").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert values["ExecStart"].endswith("consilience coordinator start")
    assert values["ReadWritePaths"] == values["WorkingDirectory"] == "/var/lib/consilience/coordinator"
    for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictSUIDSGID"):
        assert values[key] == "true"
    assert values["ProtectSystem"] == "strict" and values["User"] != "root"
    assert values["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE" and int(values["TimeoutStopSec"]) <= 30


class Upstream:
    """A TLS server in the link's place that notes what reaches it."""

    def __init__(self, home: CoordinatorHome) -> None:
        seen: list[tuple[str, str, int, str]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen.append((self.command, self.path, len(body), self.headers.get("X-Forwarded-For") or ""))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *arguments: object) -> None:
                pass

        self.seen = seen
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home.server_file, home.server_key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Before:
    """A real nginx before an upstream."""

    def __init__(self, folder: Path, upstream_home: CoordinatorHome | None = None) -> None:
        self.port = free_port()
        self.home = found(folder / "home", "a" * 64, address=f"127.0.0.1:{self.port}")
        self.upstream = Upstream(upstream_home or self.home)
        config = self.home.config().model_copy(update={"proxy": "nginx", "link_port": self.upstream.port})
        self.prefix = folder / "nginx"
        self.prefix.mkdir()
        (self.prefix / proxy.FILE).write_text(proxy.render(config, self.home.root))
        self.process = subprocess.Popen(
            proxy.command(find_nginx(), self.prefix, root=os.geteuid() == 0),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(100):
            if exposure.connects("127.0.0.1", self.port):
                return
            time.sleep(0.05)
        self.close()
        raise AssertionError("nginx did not start")

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        context = ssl.create_default_context(cafile=str(self.home.authority_file))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            return connection.getresponse().status
        finally:
            connection.close()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.upstream.server.shutdown()
            self.upstream.server.server_close()


needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists(), reason="nginx is not installed"
)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    made = Before(tmp_path_factory.mktemp("nginx"))
    yield made
    made.close()


@pytest.mark.e2e
@needs_nginx
def test_a_real_nginx_lets_the_fleets_paths_through_and_nothing_else(before: Before):
    for name in ("register-node", "pull-messages", "push-object", "get-fab"):
        assert before.ask("POST", f"/v1/fleet/{name}", b"x") == 200
    reached = len(before.upstream.seen)
    for path in (
        "/",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/fleet/",
        "/v1/fleet",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "/v1/control/../fleet/pull-messages",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/pull-messages/",
        "//v1/fleet/pull-messages",
        "/v1/fleet/pull-messages%00",
        "/V1/FLEET/pull-messages",
    ):
        assert before.ask("POST", path) in (400, 404), path
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert before.ask(method, "/v1/fleet/pull-messages") in (404, 405), method
    assert len(before.upstream.seen) == reached


@pytest.mark.e2e
@needs_nginx
def test_the_checks_of_doctor_find_it_closed(before: Before):
    ask = exposure.asker(f"127.0.0.1:{before.port}", before.home.authority_file.read_bytes())
    assert exposure.check_fleet("here", ask).ok
    assert exposure.check_closed("here", ask).ok
    link = exposure.asker(f"127.0.0.1:{before.upstream.port}", before.home.authority_file.read_bytes())
    bare = exposure.check_closed("here", link)
    assert not bare.ok and "/v1/control/list-runs (200)" in bare.what


@pytest.mark.e2e
@needs_nginx
def test_a_large_message_passes_and_nobody_names_himself_another(before: Before):
    size = 40 << 20
    assert before.ask("POST", "/v1/fleet/push-object", bytes(size), {"X-Forwarded-For": "10.0.0.1"}) == 200
    assert before.upstream.seen[-1] == ("POST", "/v1/fleet/push-object", size, "")
    assert before.ask("POST", "/v1/fleet/push-messages", bytes(900 << 10)) == 200
    reached = len(before.upstream.seen)
    for path in ("pull-messages", "push-messages", "push-objects", "register-node"):
        assert before.ask("POST", f"/v1/fleet/{path}", b"", {"Content-Length": str(2 << 20)}) == 413, path
    for path in (
        "//v1/fleet/push-object",
        "/v1/fleet/./push-object",
        "/v1/fleet/push%2dobject",
        "/v1/fleet/push-object?x",
    ):
        assert before.ask("POST", path, b"", {"Content-Length": str(100 << 20)}) in (400, 404), path
    assert len(before.upstream.seen) == reached
    too_large = {"Content-Length": str(131 << 20)}
    assert before.ask("POST", "/v1/fleet/push-object", b"", too_large) == 413
    folder = {path.name for path in before.prefix.iterdir()}
    assert "body" in folder and not any(path.name == "access.log" for path in before.prefix.rglob("*"))


def unfinished(before: Before, name: str) -> ssl.SSLSocket:
    """Begin a request with a body, and hold it there."""
    context = ssl.create_default_context(cafile=str(before.home.authority_file))
    plain = socket.create_connection(("127.0.0.1", before.port), 20)
    sender = context.wrap_socket(plain, server_hostname="127.0.0.1")
    sender.sendall(f"POST /v1/fleet/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx".encode())
    return sender


@pytest.mark.e2e
@needs_nginx
def test_one_sender_holds_few_large_bodies_and_the_other_paths_stay_open(before: Before):
    with contextlib.ExitStack() as held:
        for _ in range(proxy.LARGE_BODIES_OF_ONE):
            held.enter_context(unfinished(before, "push-object"))
        for _ in range(100):
            if before.ask("POST", "/v1/fleet/push-object", b"x") == 503:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("one sender may hold more large bodies than was said")
        assert before.ask("POST", "/v1/fleet/pull-messages", b"x") == 200
    for _ in range(100):
        if before.ask("POST", "/v1/fleet/push-object", b"x") == 200:
            return
        time.sleep(0.05)
    raise AssertionError("senders that went away still count")


@pytest.mark.e2e
@needs_nginx
def test_a_link_with_another_authority_is_not_believed(tmp_path: Path):
    stranger = found(tmp_path / "stranger", "a" * 64)
    made = Before(tmp_path, stranger)
    try:
        assert made.ask("POST", "/v1/fleet/pull-messages") == 502
        assert made.upstream.seen == []
    finally:
        made.close()
