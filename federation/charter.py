"""The charter: who is in the federation, with which keys, and what they declare. Everything refers to its digest."""

from datetime import date
from typing import Annotated, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.errors import IntegrityError
from federation.signing import Hex32, Signature, sign, verify

CONTEXT = "csl1/charter"


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


class Member(Document):
    """One institution: its identifier, the name that people read, its identity key and its declarations."""

    id: Name
    title: Text
    key: Hex32
    declares: Annotated[tuple[Declaration, ...], Field(min_length=1)]

    def declaration(self, contract: str) -> Declaration | None:
        """Return what this member declares for a contract, or None where it does not take part in it."""
        return next((item for item in self.declares if item.contract == contract), None)


class PinnedContract(Document):
    """A feature contract by name and digest."""

    name: Name
    sha256: Hex32


class Charter(Document):
    """Members, the coordinator's key and the pinned feature contracts."""

    federation: Name
    version: Annotated[int, Field(ge=1)]
    prev: Hex32 | None = None
    coordinator_key: Hex32
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
