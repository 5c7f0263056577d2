"""Whether a link can be reached as a SuperNode reaches it: name, TCP, TLS by the charter's authority, certificate, clock.

Clock. A SuperNode signs its time with every request, and the link takes it from 5 seconds ahead of its own clock to 305 behind
(SYSTEM_TIME_TOLERANCE and TIMESTAMP_TOLERANCE of Flower). The link tells its time by the header `Date`, in whole seconds: half a second is
added to it, and half a second is the error that remains.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from federation.doctor import Finding, fail, good, warn
from federation.errors import DocumentError

AHEAD_FAIL = 4.5
AHEAD_WARN = 2.0
BEHIND_FAIL = 300.0
BEHIND_WARN = 60.0
DAYS_WARN = 30
_RENEW = "Renew the certificate (consilience coordinator certificate renew), or ask who runs that server to."
_SYNCHRONISE = "Turn on time synchronisation (chrony or systemd-timesyncd; see `timedatectl`)."
_MOST_PORT = 65_535
# X509_V_ERR_* of OpenSSL, include/openssl/x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_IP = 9, 10, 62, 64

Resolve = Callable[[str, int], object]
Connect = Callable[[tuple[str, int], float], socket.socket]


@dataclass(frozen=True)
class Seen:
    """What a TLS server showed: its certificate, its HTTP date and our own clock at that moment (POSIX seconds), None without a date."""

    certificate: x509.Certificate
    date: float | None
    asked: float


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, or of `[v6]:port`.

    Raises
    ------
    DocumentError
        CSL-F350 for anything else.
    """
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(_MOST_PORT)) else 0
    if not colon or not bare or (":" in bare and not bracketed) or not 0 < number <= _MOST_PORT or " " in bare:
        raise DocumentError(
            "CSL-F350", f"{text!r} is not an address.", "Write it as host:port, such as link.example:9092."
        )
    return bare, number


def check_link(
    address: str,
    authority: bytes | None,
    *,
    seconds: float = 5.0,
    now: Callable[[], float] = time.time,
    resolve: Resolve = socket.getaddrinfo,
    connect: Connect = socket.create_connection,
) -> list[Finding]:
    """Go the way of a SuperNode step by step, and stop at the step that fails.

    Parameters
    ----------
    address:
        host:port of the link.
    authority:
        PEM of the certificate authority that the charter names; None for those that this system trusts.
    seconds:
        The longest that each step may take.
    now, resolve, connect:
        Our clock (POSIX seconds), and how names are looked up and connections made.

    Raises
    ------
    DocumentError
        CSL-F350 when `address` is none.
    """
    host, port = parse_address(address)
    findings = [check_name(host, port, seconds=seconds, resolve=resolve)]
    if findings[-1].ok:
        findings.append(check_reach(host, port, seconds=seconds, connect=connect))
    if not findings[-1].ok:
        return findings
    finding, seen = check_tls(host, port, authority, seconds=seconds, now=now, connect=connect)
    findings.append(finding)
    if seen is not None:
        findings += [check_validity("certificate", seen.certificate, now=now), check_clock(seen.date, seen.asked)]
    return findings


def check_name(host: str, port: int, *, seconds: float = 5.0, resolve: Resolve = socket.getaddrinfo) -> Finding:
    """Look whether the name of a host is known."""
    failed: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            resolve(host, port)
        except (OSError, UnicodeError) as error:
            failed.append(error)

    # The system's resolver knows no time limit of ours.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    action = "Check the spelling and the DNS server (`resolvectl query HOST`), or use the IP address."
    if asking.is_alive():
        return fail("name", f"No answer within {seconds:g} s to the question for {host}.", action)
    return fail("name", f"{host} is not a known name.", action) if failed else good("name", f"{host} is known.")


def check_reach(host: str, port: int, *, seconds: float = 5.0, connect: Connect = socket.create_connection) -> Finding:
    """Look whether a TCP connection can be made."""
    place = f"{host}:{port}"
    firewall = f"Ask your network's administrators to let TCP through to {place}, and the coordinator whether it runs."
    try:
        connect((host, port), seconds).close()
    except TimeoutError:
        return fail("reach", f"{place} does not answer within {seconds:g} s: most likely a firewall.", firewall)
    except ConnectionRefusedError:
        return fail(
            "reach",
            f"{place} refuses connections: nothing listens there.",
            "Ask the coordinator whether the link runs, and check the port.",
        )
    except OSError as error:
        return fail("reach", f"{place} cannot be reached: {error.strerror or type(error).__name__}.", firewall)
    return good("reach", f"{place} takes connections.")


def check_tls(
    host: str,
    port: int,
    authority: bytes | None,
    *,
    seconds: float = 5.0,
    now: Callable[[], float] = time.time,
    connect: Connect = socket.create_connection,
) -> tuple[Finding, Seen | None]:
    """Make a TLS connection as a SuperNode does, and say in plain words why where it fails; also what the server showed."""
    try:
        context = _context(authority)
    except (ssl.SSLError, ValueError):
        return fail("tls", "The authority's certificate is not PEM.", "Take it from the charter again."), None
    try:
        with connect((host, port), seconds) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
            secure.settimeout(seconds)
            seen = _look(secure, host, now)
            return good("tls", f"{secure.version()}, by the authority that was expected."), seen
    except ssl.SSLCertVerificationError as error:
        return _unverified(host, error, _shown(host, port, seconds, connect)), None
    except OSError as error:
        return _no_handshake(f"{host}:{port}", seconds, error), None


def check_validity(
    check: str, certificate: x509.Certificate, *, now: Callable[[], float] = time.time, renew: str = _RENEW
) -> Finding:
    """Look at a certificate's dates: one that is over or has not begun fails, one with less than 30 days left is to look at."""
    today = datetime.fromtimestamp(now(), UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if today < begin:
        return fail(
            check, f"Not valid before {_day(begin)}; this machine has {_day(today)}.", f"{_SYNCHRONISE} {renew}"
        )
    if today > end:
        return fail(check, f"Expired on {_day(end)}.", renew)
    left = (end - today) // timedelta(days=1)
    what = f"Valid until {_day(end)}, {left} {'day' if left == 1 else 'days'} left."
    return warn(check, what, renew) if left < DAYS_WARN else good(check, what)


def check_certificate_file(path: Path, *, now: Callable[[], float] = time.time, renew: str = _RENEW) -> list[Finding]:
    """Look at the dates of every certificate in a PEM file."""
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return [fail(path.name, f"{path} cannot be read: {error.strerror}.", renew)]
    except ValueError:
        return [fail(path.name, f"{path} is not a certificate.", renew)]
    return [check_validity(path.name, certificate, now=now, renew=renew) for certificate in certificates]


def check_clock(date: float | None, asked: float) -> Finding:
    """Compare our clock with the link's, both POSIX seconds at one moment; `date` is in whole seconds, None when it was not told."""
    if date is None:
        return warn("clock", "The link does not tell its time.", f"Compare the clock by hand. {_SYNCHRONISE}")
    ahead = asked - (date + 0.5)
    way = "ahead of" if ahead > 0 else "behind"
    what = f"This machine's clock is {_span(abs(ahead))} {way} the link's"
    if ahead > AHEAD_FAIL:
        return fail("clock", f"{what}; from 5 s ahead on, the link refuses this node.", _SYNCHRONISE)
    if -ahead > BEHIND_FAIL:
        return fail("clock", f"{what}; from 5 minutes behind on, the link refuses this node.", _SYNCHRONISE)
    if ahead > AHEAD_WARN or -ahead > BEHIND_WARN:
        return warn("clock", f"{what}; it takes 5 s ahead and 5 minutes behind at most.", _SYNCHRONISE)
    return good("clock", "Within a second of the link's." if abs(ahead) <= 1 else f"{what}.")


def _context(authority: bytes | None) -> ssl.SSLContext:
    if authority is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Not by create_default_context, which would trust the system's authorities when this one is empty.
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def _look(secure: ssl.SSLSocket, host: str, now: Callable[[], float]) -> Seen:
    """Ask for nothing but the headers; the time of the answer counts as the middle between question and answer."""
    shown = secure.getpeercert(binary_form=True)
    assert shown is not None  # it was verified
    certificate = x509.load_der_x509_certificate(shown)
    before = now()
    try:
        name = f"[{host}]" if ":" in host else host
        secure.sendall(f"HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode("ascii", "replace"))
        response = HTTPResponse(secure, method="HEAD")
        response.begin()
        date = _seconds(response.getheader("Date"))
    except (OSError, HTTPException):
        date = None
    return Seen(certificate, date, (before + now()) / 2)


def _seconds(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _shown(host: str, port: int, seconds: float, connect: Connect) -> x509.Certificate | None:
    """Return the certificate that could not be verified, only to say what is wrong with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with connect((host, port), seconds) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
            shown = secure.getpeercert(binary_form=True)
            return None if shown is None else x509.load_der_x509_certificate(shown)
    except (OSError, ValueError):
        return None


def _unverified(host: str, error: ssl.SSLCertVerificationError, shown: x509.Certificate | None) -> Finding:
    number = error.verify_code
    if number == _EXPIRED:
        when = f" on {_day(shown.not_valid_after_utc)}" if shown else ""
        return fail("tls", f"The server's certificate, or its authority's, has expired{when}.", _RENEW)
    if number == _NOT_YET_VALID:
        when = f" before {_day(shown.not_valid_before_utc)}" if shown else ""
        return fail("tls", f"The server's certificate is not valid{when}: is this machine's clock right?", _SYNCHRONISE)
    if number in (_WRONG_NAME, _WRONG_IP):
        names = f" It is for {', '.join(_names(shown)) or 'no name at all'}." if shown else ""
        return fail(
            "tls",
            f"The server's certificate is not for {host}.{names}",
            "Use one of its names as the address, or have the certificate renewed with this one.",
        )
    issuer = f", but by {_issuer(shown)!r}" if shown else ""
    return fail(
        "tls",
        f"The server's certificate was not issued by the authority that was expected{issuer}.",
        "Do not go on: ask the coordinator, by a way that you trust, whether the authority has changed or somebody stands between.",
    )


def _no_handshake(place: str, seconds: float, error: OSError) -> Finding:
    ask = (
        "Check the port, and whether something between (a proxy, an inspecting firewall) takes part in the connection."
    )
    if isinstance(error, TimeoutError):
        return fail("tls", f"{place} does not shake hands within {seconds:g} s.", ask)
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return fail("tls", f"What answers at {place} does not speak TLS.", ask)
    if isinstance(error, ConnectionError | ssl.SSLEOFError):
        return fail("tls", f"{place} closes the connection while shaking hands.", ask)
    why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return fail("tls", f"No TLS connection to {place}: {why or type(error).__name__}.", ask)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [*names.get_values_for_type(x509.DNSName), *(str(ip) for ip in names.get_values_for_type(x509.IPAddress))]


def _issuer(certificate: x509.Certificate) -> str:
    common = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else certificate.issuer.rfc4514_string()


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
