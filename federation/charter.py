"""The charter: who is in the federation, with which keys, and what they declare. Everything refers to its digest."""

from datetime import date
from typing import Annotated, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from pydantic import AfterValidator, Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.errors import IntegrityError
from federation.signing import Hex32, Signature, sign, verify

CONTEXT = "csl1/charter"
COORDINATOR = "coordinator"
MAX_PEM = 8192
MAX_PORT = 65_535


def _port_exists(address: str) -> str:
    if int(address.rpartition(":")[2]) > MAX_PORT:
        raise ValueError("a port is at most 65535")
    return address


def _authority(pem: str) -> str:
    """Take one certificate of an authority, in the one spelling that it has."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        same = certificate.public_bytes(Encoding.PEM).decode() == pem
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise ValueError("not the certificate of an authority") from error
    if not (constraints.ca and same):
        raise ValueError("not the certificate of an authority")
    return pem


def _on_the_curve(key: str) -> str:
    """Take a public key in the one spelling that it has, so that two members cannot name the same one."""
    try:
        spelled = load_ssh_public_key(key.encode()).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, UnsupportedAlgorithm, NotImplementedError) as error:  # the last for a compressed point
        raise ValueError("not a P-384 public key") from error
    if spelled != key:
        raise ValueError("not a P-384 public key in its one spelling")
    return key


def _printable(text: str) -> str:
    """Refuse what a terminal would obey instead of showing it."""
    if not text.isprintable():
        raise ValueError("a title has letters, digits, signs and spaces alone")
    return text


def split_address(address: str) -> tuple[str, int]:
    """Return host (without the brackets of IPv6) and port of an address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


Address = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\]):[1-9][0-9]{0,4}$"),
    AfterValidator(_port_exists),
]
Pem = Annotated[
    str,
    Field(
        max_length=MAX_PEM,
        pattern=r"^-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]{1,64}\n)+-----END CERTIFICATE-----\n$",
    ),
    AfterValidator(_authority),
]
NodeKey = Annotated[
    str, Field(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]{178,184}={0,2}$"), AfterValidator(_on_the_curve)
]
Title = Annotated[Text, AfterValidator(_printable)]


class Declaration(Document):
    """What one member declares about one contract: public, and never refreshed from private data.

    `size` is the declared number of customers that may train (the basis of rates and weights). `as_of` and the window apply to
    transaction contracts: features from [as_of - window_days, as_of), label from [as_of, as_of + horizon_days).
    """

    contract: Name
    size: Annotated[int, Field(ge=1, le=1_000_000_000)]
    as_of: date | None = None
    window_days: Annotated[int, Field(ge=1, le=20_000)] | None = None
    horizon_days: Annotated[int, Field(ge=1, le=20_000)] | None = None

    @model_validator(mode="after")
    def _window_complete(self) -> Self:
        given = [value is not None for value in (self.as_of, self.window_days, self.horizon_days)]
        if any(given) and not all(given):
            raise ValueError("as_of, window_days and horizon_days stand together or not at all")
        return self


class Link(Document):
    """Where institutions reach the coordinator over TLS, the authority that its certificate must come from, and the app that vaults answer.

    `app` is the SHA-256 of the bundle of code that the coordinator pushes: it is never run at an institution, and a vault answers no other.
    """

    address: Address
    authority: Pem
    app: Hex32


class Member(Document):
    """One institution: its identifier, the name that people read, its identity key and its declarations.

    `node_key` is the P-384 key by which its SuperNode proves itself to the link: an OpenSSH public key without a comment.
    """

    id: Name
    title: Title
    key: Hex32
    declares: Annotated[tuple[Declaration, ...], Field(min_length=1)]
    node_key: NodeKey | None = None

    def declaration(self, contract: str) -> Declaration | None:
        """Return what this member declares for a contract, or None where it does not take part in it."""
        return next((item for item in self.declares if item.contract == contract), None)


class PinnedContract(Document):
    """A feature contract by name and digest."""

    name: Name
    sha256: Hex32


class Charter(Document):
    """Members, the coordinator's key, the pinned feature contracts, and the link (None where one process plays all parties).

    Every later version names the digest of the one before it (`prev`): joining, leaving and lost keys make a new charter.
    """

    federation: Name
    version: Annotated[int, Field(ge=1)]
    prev: Hex32 | None = None
    coordinator_key: Hex32
    link: Link | None = None
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=200)]
    contracts: Annotated[tuple[PinnedContract, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [member.id for member in self.members]
        if ids != sorted(set(ids)):
            raise ValueError("members must be sorted by id, each once")
        keys = [self.coordinator_key, *(member.key for member in self.members)]
        if len(set(keys)) != len(keys):
            raise ValueError("every party must have a key of its own")
        if self.link is not None:
            if (self.version == 1) != (self.prev is None):
                raise ValueError("the first version names no predecessor, every later one does")
            if COORDINATOR in ids:
                raise ValueError(f'no member may be called "{COORDINATOR}"')
            node_keys = [member.node_key for member in self.members]
            if None in node_keys or len(set(node_keys)) != len(node_keys):
                raise ValueError("with a link, every member needs a node key of its own")
        names = [contract.name for contract in self.contracts]
        if len(set(names)) != len(names):
            raise ValueError("each contract is pinned once")
        unknown = {item.contract for member in self.members for item in member.declares} - set(names)
        if unknown:
            raise ValueError(f"declared for contracts that are not pinned: {', '.join(sorted(unknown))}")
        return self

    def member(self, member_id: str) -> Member:
        """Return a member.

        Raises
        ------
        IntegrityError
            CSL-F203 when the charter does not name it.
        """
        for member in self.members:
            if member.id == member_id:
                return member
        raise IntegrityError(
            "CSL-F203", f'"{member_id}" is not a member by this charter.', "Check the charter that is pinned."
        )

    def contract_digest(self, name: str) -> str | None:
        """Return the pinned digest of a contract, or None."""
        return next((item.sha256 for item in self.contracts if item.name == name), None)


class SealedCharter(Document):
    """A charter with one signature of every member and of the coordinator, in the order members then coordinator."""

    charter: Charter
    signatures: tuple[Signature, ...]


def seal(charter: Charter, keys: dict[str, Ed25519PrivateKey], coordinator: Ed25519PrivateKey) -> SealedCharter:
    """Sign a charter with every party's key (`keys` by member id); for federations that live on one machine."""
    ordered = [keys[member.id] for member in charter.members] + [coordinator]
    return SealedCharter(charter=charter, signatures=tuple(sign(key, CONTEXT, charter) for key in ordered))


def open_charter(sealed: SealedCharter, pinned_digest: str) -> Charter:
    """Check the digest that was confirmed out of band and every party's signature, and return the charter.

    Raises
    ------
    IntegrityError
        CSL-F204 when the digest is not the pinned one or a signature is missing; CSL-F201/F202 for a wrong signature.
    """
    charter = sealed.charter
    expected = [member.key for member in charter.members] + [charter.coordinator_key]
    if charter.digest() != pinned_digest or len(sealed.signatures) != len(expected):
        raise IntegrityError(
            "CSL-F204",
            "The charter is not the one that is pinned, or lacks signatures.",
            "Confirm its digest with the other members.",
        )
    for signature, key in zip(sealed.signatures, expected, strict=True):
        verify(signature, CONTEXT, charter, key)
    return charter


def check_successor(old: Charter, new: Charter) -> None:
    """Check that a charter follows another one directly.

    Raises
    ------
    IntegrityError
        CSL-F210 when it is of another federation, skips a version, or names another predecessor.
    """
    if (new.federation, new.version, new.prev) != (old.federation, old.version + 1, old.digest()):
        raise IntegrityError(
            "CSL-F210",
            f"This charter (version {new.version}) does not follow version {old.version}, which is pinned.",
            "Ask the coordinator for each version since the pinned one, and accept them in their order.",
        )
