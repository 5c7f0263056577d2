"""TLS of the coordinator: an authority of its own, and the server's certificate that it issues.

Institutions trust the authority that the charter names and no other, so nobody else can issue a certificate for the coordinator. The
authority's key is a P-384 key drawn from 32 secret bytes by "extra random bits" (FIPS 186-5, A.2.1) after HKDF-SHA384; they lie in a key
file as every other secret does, sealed by Argon2id, and are opened only to issue. The server's own key must lie open (0600) for the link
to start by itself; it is replaced at every renewal.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write, check_private
from privacy.keys import RandomBytes, create_secret, load_secret
from server.config import is_ip

SERVER_DAYS = 825
AUTHORITY_DAYS = 3650
WARN_DAYS = 60
EARLIER = timedelta(days=1)  # valid a day before it is made, for institutions whose clocks go after ours
P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)  # SP 800-186, section 3.2.1.4
_SEED_BYTES = 56  # the order's 384 bits and 64 more


@dataclass(frozen=True)
class Authority:
    """The coordinator's certificate authority, opened to issue."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate


@dataclass(frozen=True)
class CertificateFacts:
    """What people and `doctor` look at: whom a certificate is for, from when until when, and its SHA-256."""

    subject: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str

    def days_left(self, now: datetime) -> int:
        """Return the whole days until it expires; negative once it has."""
        return (self.not_after - now) // timedelta(days=1)


def create_authority(
    key_path: Path,
    certificate_path: Path,
    federation: str,
    now: datetime,
    *,
    passphrase: bytes | None = None,
    allow_plain: bool = False,
    random: RandomBytes = os.urandom,
) -> Authority:
    """Draw an authority's key, write it (sealed, 0600) and its certificate of ten years.

    Raises
    ------
    ConsilienceError
        As `privacy.keys.create_secret`.
    """
    secret = create_secret(key_path, use="authority", passphrase=passphrase, allow_plain=allow_plain, random=random)
    key = _authority_key(secret)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} authority")])
    usage = _usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    start = _whole(now - EARLIER)
    certificate = (
        _builder(name, name, key.public_key(), start, start + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(_own_id(key.public_key()), critical=False)
        .sign(key, SHA384())
    )
    atomic_write(certificate_path, certificate.public_bytes(Encoding.PEM))
    return Authority(key, certificate)


def load_authority(
    key_path: Path, certificate_path: Path, *, passphrase: bytes | None = None, allow_plain: bool = False
) -> Authority:
    """Open the authority.

    Raises
    ------
    ConsilienceError
        As `privacy.keys.load_secret` and `read_certificate`.
    IntegrityError
        CSL-S118 when key and certificate do not belong together.
    """
    certificate = read_certificate(certificate_path)
    key = _authority_key(load_secret(key_path, use="authority", passphrase=passphrase, allow_plain=allow_plain))
    if _point(certificate.public_key()) != _point(key.public_key()):
        raise IntegrityError(
            "CSL-S118",
            f"{certificate_path} is not the certificate of the key {key_path}.",
            "Restore both from the same backup.",
        )
    return Authority(key, certificate)


def issue_server(
    authority: Authority, hosts: Sequence[str], key_path: Path, certificate_path: Path, federation: str, now: datetime
) -> x509.Certificate:
    """Draw a new server key (ECDSA P-256) and issue its certificate, for 825 days or until the authority ends.

    Parameters
    ----------
    authority:
        Who issues.
    hosts:
        Names and IP addresses, at least one; each becomes a subject alternative name of its kind.
    key_path, certificate_path:
        Where the key (0600, not sealed) and the certificate go; the old ones are replaced.
    federation:
        Named in the subject; clients look at the alternative names alone.
    now:
        The present time, with its time zone.

    Raises
    ------
    IntegrityError
        CSL-S121 when the authority has expired or does so within 60 days.
    StorageError
        CSL-F301 when a file cannot be written.
    """
    start = _whole(now - EARLIER)
    if authority.certificate.not_valid_after_utc - now < timedelta(days=WARN_DAYS):
        raise IntegrityError(
            "CSL-S121",
            f"The authority's own certificate ends on {authority.certificate.not_valid_after_utc:%Y-%m-%d}.",
            "Make a new authority in a new home by `coordinator init`, and draft the next charter from there.",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} link")])
    end = min(start + timedelta(days=SERVER_DAYS), authority.certificate.not_valid_after_utc)
    certificate = (
        _builder(authority.certificate.subject, subject, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_cert_sign=False, crl_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(_own_id(key.public_key()), critical=False)
        .add_extension(_issuer_id(authority.certificate), critical=False)
        .sign(authority.key, SHA384())
    )
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    atomic_write(key_path, plain, mode=0o600)
    atomic_write(certificate_path, certificate.public_bytes(Encoding.PEM))
    return certificate


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate (PEM).

    Raises
    ------
    StorageError
        CSL-S115 when the file cannot be read.
    IntegrityError
        CSL-S116 when it holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise StorageError(
            "CSL-S115",
            f"{path} cannot be read: {error.strerror}.",
            "Check the path and its rights, or make it anew by `coordinator certificate renew`.",
        ) from error
    except ValueError as error:
        raise IntegrityError(
            "CSL-S116",
            f"{path} holds no certificate.",
            "Restore it, or make it anew by `coordinator certificate renew`.",
        ) from error


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    """Return what people look at."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
    except (x509.ExtensionNotFound, ValueError):
        hosts = ()
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        hosts=hosts,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(SHA256()).hex(":").upper(),
    )


def check_server(
    key_path: Path, certificate_path: Path, authority_path: Path, hosts: Sequence[str], now: datetime
) -> CertificateFacts:
    """Check that the link could serve by its key and certificate, and return the certificate's facts.

    Raises
    ------
    StorageError
        CSL-F311, CSL-F312 for the key's file, CSL-S115 when a certificate cannot be read.
    IntegrityError
        CSL-S116 for no certificate, CSL-S117 when key and certificate do not belong together, CSL-S119 when the authority did not issue
        it, CSL-S120 when one of both is not valid now, CSL-S122 when it is not for one of `hosts`.
    """
    check_private(key_path)
    certificate, authority = read_certificate(certificate_path), read_certificate(authority_path)
    if not _belongs(key_path, certificate):
        raise IntegrityError(
            "CSL-S117",
            f"{certificate_path} is not the certificate of the key {key_path}.",
            "Run `coordinator certificate renew`, which makes both anew, and restart the coordinator.",
        )
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IntegrityError(
            "CSL-S119",
            f"{certificate_path} was not issued by the authority in {authority_path}.",
            "Run `coordinator certificate renew`, and restart the coordinator.",
        ) from error
    for path, item in ((certificate_path, certificate), (authority_path, authority)):
        if not item.not_valid_before_utc <= now <= item.not_valid_after_utc:
            raise IntegrityError(
                "CSL-S120",
                f"{path} is valid from {item.not_valid_before_utc:%Y-%m-%d} to {item.not_valid_after_utc:%Y-%m-%d}, "
                f"and by this machine's clock it is {now:%Y-%m-%d}.",
                "Check the clock; then run `coordinator certificate renew`, and restart the coordinator.",
            )
    facts = facts_of(certificate)
    lacking = [host for host in hosts if host not in facts.hosts]
    if lacking:
        raise IntegrityError(
            "CSL-S122",
            f"{certificate_path} is not for {', '.join(lacking)}, as coordinator.yaml says.",
            "Run `coordinator certificate renew`, and restart the coordinator.",
        )
    return facts


def _belongs(key_path: Path, certificate: x509.Certificate) -> bool:
    try:
        key = load_pem_private_key(key_path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return _point(key.public_key()) == _point(certificate.public_key())


def _point(key: object) -> bytes | None:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _authority_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    seed = HKDF(algorithm=SHA384(), length=_SEED_BYTES, salt=None, info=b"csl1/authority").derive(secret)
    return ec.derive_private_key(int.from_bytes(seed) % (P384_ORDER - 1) + 1, ec.SECP384R1())


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _own_id(key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _issuer_id(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _alternative(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_ip(host) else x509.DNSName(host)


def _whole(moment: datetime) -> datetime:
    """Certificates hold whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0)
