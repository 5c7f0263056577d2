"""The coordinator's certificates, judged by those who will meet them: Python's own TLS in its strictest setting, httpx, openssl."""

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError, IntegrityError, StorageError
from server.certificates import (
    P384_ORDER,
    Authority,
    check_server,
    create_authority,
    facts_of,
    issue_server,
    load_authority,
    read_certificate,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTS = ("localhost", "127.0.0.1", "coord.example.org", "2001:db8::1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make(tmp_path, NOW)
    return tmp_path


def make(folder: Path, now: datetime, hosts: tuple[str, ...] = HOSTS) -> Authority:
    authority = create_authority(folder / "ca.key", folder / "ca.pem", "test", now, allow_plain=True)
    issue_server(authority, hosts, folder / "server.key", folder / "server.pem", "test", now)
    return authority


def check(folder: Path, now: datetime = NOW, hosts: tuple[str, ...] = HOSTS) -> None:
    check_server(folder / "server.key", folder / "server.pem", folder / "ca.pem", hosts, now)


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve one page over TLS with the server's key and certificate; yields the port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def strict(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def test_strict_tls_and_httpx_accept_it_by_name_and_by_address(tmp_path):
    make(tmp_path, datetime.now(UTC))
    context = strict(tmp_path)
    with served(tmp_path) as port:
        for host in ("localhost", "127.0.0.1", "coord.example.org", "2001:db8::1"):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
                context.wrap_socket(raw, server_hostname=host) as wrapped,
            ):
                assert wrapped.version() == "TLSv1.3"
        for host in ("localhost", "127.0.0.1"):
            assert httpx.get(f"https://{host}:{port}/", verify=context, trust_env=False).text == "ok"


def test_others_are_refused(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        make(folder, datetime.now(UTC), ("localhost", "127.0.0.1"))
    with served(theirs) as port:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"https://127.0.0.1:{port}/", verify=strict(ours), trust_env=False)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            pytest.raises(ssl.SSLCertVerificationError, match="not valid for"),
        ):
            strict(theirs).wrap_socket(raw, server_hostname="coord.example.org")


def test_an_expired_one_is_refused_by_tls_and_by_the_check(tmp_path):
    make(tmp_path, datetime.now(UTC) - timedelta(days=900))
    with served(tmp_path) as port, pytest.raises(httpx.ConnectError, match="expired"):
        httpx.get(f"https://127.0.0.1:{port}/", verify=strict(tmp_path), trust_env=False)
    with pytest.raises(IntegrityError, match="CSL-S120"):
        check(tmp_path, datetime.now(UTC))


def test_what_the_certificates_say(place):
    authority, server = read_certificate(place / "ca.pem"), read_certificate(place / "server.pem")
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1"
    assert server.not_valid_after_utc - server.not_valid_before_utc == timedelta(days=825)
    assert authority.not_valid_after_utc - authority.not_valid_before_utc == timedelta(days=3650)
    assert server.not_valid_before_utc == NOW - timedelta(days=1)
    for certificate, extensions in (
        (authority, {"basicConstraints": True, "keyUsage": True, "subjectKeyIdentifier": False}),
        (
            server,
            {
                "basicConstraints": True,
                "keyUsage": True,
                "extendedKeyUsage": False,
                "subjectAltName": False,
                "subjectKeyIdentifier": False,
                "authorityKeyIdentifier": False,
            },
        ),
    ):
        assert {item.oid._name: item.critical for item in certificate.extensions} == extensions
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    facts = facts_of(server)
    assert set(facts.hosts) == set(HOSTS) and facts.days_left(NOW) == 824
    assert facts.days_left(NOW + timedelta(days=825)) == -1


@pytest.mark.skipif(which("openssl") is None, reason="needs openssl")
def test_openssl_accepts_them_strictly(place):
    arguments = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(NOW.timestamp()))]
    arguments += ["-verify_hostname", "coord.example.org", "-CAfile", str(place / "ca.pem"), str(place / "server.pem")]
    assert "OK" in subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def test_rights_of_the_files(place):
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.iterdir()}
    assert modes["ca.key"] == modes["server.key"] == 0o600
    (place / "server.key").chmod(0o640)
    with pytest.raises(StorageError, match="CSL-F312"):
        check(place)


def test_the_authority_is_sealed_by_the_passphrase(tmp_path):
    key, pem = tmp_path / "ca.key", tmp_path / "ca.pem"
    made = create_authority(key, pem, "test", NOW, passphrase=b"correct horse battery")
    opened = load_authority(key, pem, passphrase=b"correct horse battery")
    assert opened.certificate == made.certificate
    assert opened.key.private_numbers() == made.key.private_numbers()
    with pytest.raises(IntegrityError, match="CSL-P507"):
        load_authority(key, pem, passphrase=b"another one of these")
    with pytest.raises(DocumentError, match="CSL-P503"):
        load_authority(key, pem)
    key.chmod(0o644)
    with pytest.raises(StorageError, match="CSL-P505"):
        load_authority(key, pem, passphrase=b"correct horse battery")


def test_an_authority_whose_files_do_not_belong_together(tmp_path):
    for name in ("a", "b"):
        create_authority(tmp_path / f"{name}.key", tmp_path / f"{name}.pem", name, NOW, allow_plain=True)
    with pytest.raises(IntegrityError, match="CSL-S118"):
        load_authority(tmp_path / "a.key", tmp_path / "b.pem", allow_plain=True)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=st.binary(min_size=32, max_size=32))
def test_every_secret_gives_a_key_of_the_curve(tmp_path, secret):
    path = tmp_path / "ca.key"
    path.unlink(missing_ok=True)
    made = create_authority(
        path, tmp_path / "ca.pem", "test", NOW, allow_plain=True, random=lambda count: secret[:count]
    )
    assert 1 <= made.key.private_numbers().private_value < P384_ORDER
    made.certificate.verify_directly_issued_by(made.certificate)
    assert load_authority(path, tmp_path / "ca.pem", allow_plain=True).certificate == made.certificate


def test_the_curves_order_is_the_curves_order():
    # (n - 1) G = -G, which has the x of G; n G is the point at infinity, and no key.
    last, first = (ec.derive_private_key(value, ec.SECP384R1()).public_key() for value in (P384_ORDER - 1, 1))
    assert last.public_numbers().x == first.public_numbers().x and last.public_numbers().y != first.public_numbers().y
    with pytest.raises(ValueError, match="infinity"):
        ec.derive_private_key(P384_ORDER, ec.SECP384R1())


def test_renewal_makes_a_new_key_and_the_authority_stays(place):
    authority = load_authority(place / "ca.key", place / "ca.pem", allow_plain=True)
    before = (place / "server.key").read_bytes(), (place / "ca.pem").read_bytes()
    later = NOW + timedelta(days=800)
    issue_server(authority, ("127.0.0.1", "new.example"), place / "server.key", place / "server.pem", "test", later)
    assert (place / "server.key").read_bytes() != before[0] and (place / "ca.pem").read_bytes() == before[1]
    check(place, later + timedelta(days=820), ("new.example", "127.0.0.1"))
    with pytest.raises(IntegrityError, match=r"CSL-S122.*coord\.example\.org"):
        check(place, later)


def test_a_certificate_never_outlives_its_authority(place):
    authority = load_authority(place / "ca.key", place / "ca.pem", allow_plain=True)
    end = authority.certificate.not_valid_after_utc
    issued = issue_server(
        authority, ("a",), place / "server.key", place / "server.pem", "test", end - timedelta(days=61)
    )
    assert issued.not_valid_after_utc == end
    before = (place / "server.key").read_bytes()
    with pytest.raises(IntegrityError, match="CSL-S121"):
        issue_server(authority, ("a",), place / "server.key", place / "server.pem", "test", end - timedelta(days=59))
    assert (place / "server.key").read_bytes() == before


def test_what_does_not_belong_together_is_named(place, tmp_path_factory):
    check(place)
    other = tmp_path_factory.mktemp("other")
    make(other, NOW)
    kept = {path.name: path.read_bytes() for path in place.iterdir()}
    for name, code in (("server.key", "S117"), ("server.pem", "S117"), ("ca.pem", "S119")):
        (place / name).write_bytes((other / name).read_bytes())
        with pytest.raises(IntegrityError, match=code):
            check(place)
        (place / name).write_bytes(kept[name])
    for content in (b"", b"junk", (place / "server.pem").read_bytes()):
        (place / "server.key").write_bytes(content)
        with pytest.raises(IntegrityError, match="CSL-S117"):
            check(place)
    (place / "server.pem").write_text("junk")
    with pytest.raises(IntegrityError, match="CSL-S116"):
        check(place)
    (place / "server.pem").unlink()
    with pytest.raises(StorageError, match="CSL-S115"):
        check(place)
    (place / "server.key").unlink()
    with pytest.raises(StorageError, match="CSL-F311"):
        check(place)


def test_a_clock_before_the_certificate_is_told(place):
    check(place, NOW - timedelta(hours=23))
    with pytest.raises(IntegrityError, match=r"CSL-S120.*2026-02-26.*clock"):
        check(place, NOW - timedelta(days=3))
