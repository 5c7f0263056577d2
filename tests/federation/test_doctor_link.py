"""Reaching a link: against real TLS servers on this machine, with certificates made here."""

import ipaddress
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from hypothesis import given
from hypothesis import strategies as st

from federation import doctor_link
from federation.doctor_link import (
    check_certificate_file,
    check_clock,
    check_link,
    check_name,
    check_reach,
    check_tls,
    check_validity,
    parse_address,
)
from federation.errors import DocumentError

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    def __init__(self, name: str = "Test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, datetime.now(UTC) - timedelta(days=400), 4000, None)

    def issue(self, names=("127.0.0.1", "localhost"), begin=None, days=90):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "link")])
        return self._sign(subject, key, begin or datetime.now(UTC) - timedelta(days=1), days, names), key

    def _sign(self, subject, key, begin, days, names):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names:
            alternatives = [
                x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
                for name in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256())


AUTHORITY = Authority()


class Server:
    """Answers each connection by `talk`, on a thread; closed in the end."""

    def __init__(self, talk) -> None:
        self._talk = talk
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self._talk(connection)
                except OSError:
                    pass

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def serve():
    servers = []

    def start(talk) -> int:
        servers.append(Server(talk))
        return servers[-1].port

    yield start
    for server in servers:
        server.close()


def speaking_tls(tmp_path, certificate, key, offset=0.0, date=True):
    file = tmp_path / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + pem(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def talk(connection) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            header = f"Date: {formatdate(time.time() + offset, usegmt=True)}\r\n" if date else ""
            secure.sendall(f"HTTP/1.1 404 Not Found\r\n{header}Content-Length: 0\r\n\r\n".encode())

    return talk


def levels(findings):
    return [(finding.check, finding.level) for finding in findings]


def test_a_link_that_is_well(tmp_path, serve):
    port = serve(speaking_tls(tmp_path, *AUTHORITY.issue()))
    found = check_link(f"127.0.0.1:{port}", pem(AUTHORITY.certificate))
    assert levels(found) == [(name, "ok") for name in ("name", "reach", "tls", "certificate", "clock")]
    assert "TLSv1.3" in found[2].what and "88 days" in found[3].what


@pytest.mark.parametrize(
    ("offset", "level", "way"),
    [
        (-600, "fail", "10 minutes ahead of"),
        (-3, "warn", "ahead of"),
        (170, "warn", "3 minutes behind"),
        (600, "fail", "10 minutes behind"),
    ],
)
def test_a_clock_that_is_off_is_told_with_its_direction(tmp_path, serve, offset, level, way):
    port = serve(speaking_tls(tmp_path, *AUTHORITY.issue(), offset=offset))
    finding = check_link(f"localhost:{port}", pem(AUTHORITY.certificate))[-1]
    assert (finding.check, finding.level) == ("clock", level) and way in finding.what


@given(ahead=st.floats(-1e6, 1e6))
def test_a_clock_that_the_link_would_refuse_never_passes(ahead):
    """The date is cut to whole seconds, so that the true difference is within half a second of the measured one."""
    truth = 1_700_000_000.25
    finding = check_clock(float(int(truth)), truth + ahead)
    if not -(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE) < ahead < SYSTEM_TIME_TOLERANCE:
        assert finding.level == "fail"
    if -60 < ahead < 1.5:
        assert finding.level == "ok"
    assert (finding.action is None) == (finding.level == "ok")


def test_flower_s_tolerances_are_those_that_the_levels_follow():
    assert (TIMESTAMP_TOLERANCE, SYSTEM_TIME_TOLERANCE) == (300, 5)
    assert doctor_link.AHEAD_FAIL + 0.5 <= SYSTEM_TIME_TOLERANCE
    assert doctor_link.BEHIND_FAIL + 0.5 <= TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\n"]
)
def test_a_link_that_does_not_tell_its_time(tmp_path, serve, answer, monkeypatch):
    talk = speaking_tls(tmp_path, *AUTHORITY.issue())
    monkeypatch.setattr(ssl.SSLSocket, "sendall", lambda self, data: self.send(answer if self.server_side else data))
    found = check_link(f"127.0.0.1:{serve(talk)}", pem(AUTHORITY.certificate))
    assert levels(found)[-1] == ("clock", "warn")


@pytest.mark.parametrize(
    ("issue", "words"),
    [
        ({"days": 300, "begin": datetime.now(UTC) - timedelta(days=310)}, "has expired on 20"),
        ({"begin": datetime.now(UTC) + timedelta(days=2)}, "is this machine's clock right?"),
        ({"names": ("link.example", "10.0.0.1")}, "not for 127.0.0.1. It is for link.example, 10.0.0.1."),
    ],
)
def test_a_certificate_that_does_not_fit_is_told_in_plain_words(tmp_path, serve, issue, words):
    port = serve(speaking_tls(tmp_path, *AUTHORITY.issue(**issue)))
    found = check_link(f"127.0.0.1:{port}", pem(AUTHORITY.certificate))
    assert levels(found)[-1] == ("tls", "fail") and words in found[-1].what


def test_a_wrong_name_is_told(tmp_path, serve):
    port = serve(speaking_tls(tmp_path, *AUTHORITY.issue(names=("127.0.0.1",))))
    found = check_link(f"localhost:{port}", pem(AUTHORITY.certificate))
    assert "not for localhost. It is for 127.0.0.1." in found[-1].what


def test_another_authority_is_a_reason_to_stop(tmp_path, serve):
    port = serve(speaking_tls(tmp_path, *Authority("Somebody between").issue()))
    for expected in (pem(AUTHORITY.certificate), None):
        found = check_link(f"127.0.0.1:{port}", expected)
        assert levels(found)[-1] == ("tls", "fail") and "'Somebody between'" in found[-1].what
        assert found[-1].action.startswith("Do not go on")


def test_an_authority_that_is_no_pem_is_told():
    for content in (b"", b"nonsense", "schön".encode()):
        finding, seen = check_tls("127.0.0.1", 1, content)
        assert seen is None and "not PEM" in finding.what


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak TLS"),
        (lambda connection: connection.recv(10), "closes the connection"),
        (lambda connection: time.sleep(0.5), "does not shake hands within 0.2 s"),
    ],
)
def test_what_answers_is_no_tls_server(serve, talk, words):
    finding, seen = check_tls("127.0.0.1", serve(talk), pem(AUTHORITY.certificate), seconds=0.2)
    assert seen is None and finding.level == "fail" and words in finding.what


def test_a_port_where_nobody_listens(serve):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = check_link(f"127.0.0.1:{port}", None)
    assert levels(found) == [("name", "ok"), ("reach", "fail")] and "nothing listens" in found[-1].what


@pytest.mark.parametrize(
    ("error", "words"), [(TimeoutError(), "firewall"), (OSError(101, "Network is unreachable"), "unreachable")]
)
def test_a_network_that_does_not_carry(error, words):
    def connect(place, seconds):
        raise error

    finding = check_reach("192.0.2.1", 9092, seconds=0.1, connect=connect)
    assert finding.level == "fail" and words in finding.what


def test_a_name_that_is_not_known_or_not_answered():
    def unknown(host, port):
        raise socket.gaierror(-2, "Name or service not known")

    found = check_link("no-such-host.invalid:9092", None, resolve=unknown)
    assert levels(found) == [("name", "fail")] and "not a known name" in found[0].what
    finding = check_name("slow.example", 1, seconds=0.02, resolve=lambda host, port: time.sleep(0.3))
    assert finding.level == "fail" and "No answer" in finding.what
    assert check_name("x" * 70, 1).level == "fail"


@pytest.mark.parametrize(
    ("day", "level", "words"),
    [
        (-1, "fail", "Not valid before"),
        (1, "ok", "89 days"),
        (70, "warn", "20 days"),
        (89, "warn", "1 day left"),
        (91, "fail", "Expired"),
    ],
)
def test_certificate_dates(tmp_path, day, level, words):
    certificate, _ = AUTHORITY.issue(begin=NOW)
    finding = check_validity("certificate", certificate, now=(NOW + timedelta(days=day)).timestamp)
    assert finding.level == level and words in finding.what


def test_certificates_of_a_file(tmp_path):
    file = tmp_path / "server.pem"
    assert "cannot be read" in check_certificate_file(file)[0].what
    file.write_text("no certificate")
    assert "is not a certificate" in check_certificate_file(file)[0].what
    file.write_bytes(pem(AUTHORITY.issue(days=10)[0]) + pem(AUTHORITY.certificate))
    assert [finding.level for finding in check_certificate_file(file, renew="Do it.")] == ["warn", "ok"]
    assert check_certificate_file(file, renew="Do it.")[0].action == "Do it."


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("link.example:9092", ("link.example", 9092)), (" 10.0.0.1:1 ", ("10.0.0.1", 1)), ("[::1]:65535", ("::1", 65535))],
)
def test_addresses(text, parsed):
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "link", ":1", "link:", "link:0", "link:65536", "link:x", "::1:2", "[]:1", "a b:1", "link:٣", "link:-1"]
)
def test_what_is_no_address(text):
    with pytest.raises(DocumentError, match="CSL-F350"):
        parse_address(text)


@given(text=st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text):
    try:
        host, port = parse_address(text)
    except DocumentError as error:
        assert error.code == "CSL-F350"
    else:
        assert host and 0 < port < 65536
