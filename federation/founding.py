"""The papers by which a federation is founded, passed from hand to hand as files: public parts alone.

A member writes a *card* about itself; the coordinator lays the cards together to a draft; every member signs the draft's digest; with all
signatures the charter is sealed. Nothing here holds a private key.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from federation.charter import CONTEXT, COORDINATOR, Charter, Declaration, Link, Member, SealedCharter
from federation.contract import FeatureContract, Name
from federation.document import Document
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.signing import Hex32, Signature, sign, verify

CARD_CONTEXT = "csl1/member-card"
MAX_PAPER_BYTES = 1 << 24


class MemberCard(Document):
    """What one institution says of itself: its row of the charter, for one federation."""

    format: Literal["consilience-member-1"] = "consilience-member-1"
    federation: Name
    member: Member


class SignedCard(Document):
    """A card, signed by the identity key that it names."""

    card: MemberCard
    signature: Signature


class CharterSignature(Document):
    """One party's signature over a charter: a member's id, or "coordinator"."""

    format: Literal["consilience-signature-1"] = "consilience-signature-1"
    charter: Hex32
    party: Name
    signature: Signature


class CharterFile(Document):
    """What travels: the charter, the contracts that it pins, and the signatures that are there so far, sorted by party."""

    format: Literal["consilience-charter-1"] = "consilience-charter-1"
    charter: Charter
    contracts: Annotated[tuple[FeatureContract, ...], Field(min_length=1)]
    signatures: tuple[CharterSignature, ...] = ()

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        signers = [item.party for item in self.signatures]
        if signers != sorted(set(signers)):
            raise ValueError("signatures must be sorted by party, each once")
        return self


P = TypeVar("P", bound=Document)


def read_paper(path: Path, kind: type[P]) -> P:
    """Read a card, a signature or a charter's file that came from somebody else; a line's end after it does not matter.

    Raises
    ------
    StorageError
        CSL-F214 when the file cannot be read.
    DocumentError
        CSL-F215 when it is larger than 16 MiB; CSL-F216 when it is no such paper.
    """
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_PAPER_BYTES + 1)
    except OSError as error:
        raise StorageError(
            "CSL-F214", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    return parse_paper(content, kind, str(path))


def parse_paper(content: bytes, kind: type[P], source: str) -> P:
    """Parse a paper that was read from `source`. Raises DocumentError CSL-F215, CSL-F216 as `read_paper`."""
    if len(content) > MAX_PAPER_BYTES:
        raise DocumentError("CSL-F215", f"{source} is larger than 16 MiB.", "No such paper is: check the path.")
    try:
        return kind.from_canonical(content.rstrip(b"\r\n"))
    except DocumentError as error:
        raise DocumentError(
            "CSL-F216",
            f"{source} is not the paper that is wanted here. {error.cause}",
            "Check the path, or ask its sender for the file again.",
        ) from error


def sign_card(key: Ed25519PrivateKey, card: MemberCard) -> SignedCard:
    """Sign a card with the identity key that it names."""
    return SignedCard(card=card, signature=sign(key, CARD_CONTEXT, card))


def open_card(signed: SignedCard) -> MemberCard:
    """Check that the key which a card names signed it, and return the card.

    Raises
    ------
    IntegrityError
        CSL-F201, CSL-F202 when it did not.
    """
    verify(signed.signature, CARD_CONTEXT, signed.card, signed.card.member.key)
    return signed.card


def sign_charter(key: Ed25519PrivateKey, charter: Charter, party: str) -> CharterSignature:
    """Sign a charter as one of its parties."""
    return CharterSignature(charter=charter.digest(), party=party, signature=sign(key, CONTEXT, charter))


def parties(charter: Charter) -> dict[str, str]:
    """Return party -> public key, of everybody who must sign: the members in their order, then the coordinator."""
    return {member.id: member.key for member in charter.members} | {COORDINATOR: charter.coordinator_key}


def check_file(file: CharterFile) -> None:
    """Check that a file's contracts are those that its charter pins, and that each signature in it is a party's.

    Raises
    ------
    IntegrityError
        CSL-F211 for another contract than the pinned ones, CSL-F212 for a signature of nobody or of another charter,
        CSL-F201, CSL-F202 for one that does not fit.
    """
    pinned = {item.name: item.sha256 for item in file.charter.contracts}
    if {item.name: item.digest() for item in file.contracts} != pinned or len(file.contracts) != len(pinned):
        raise IntegrityError(
            "CSL-F211",
            "The feature contracts in this file are not those that its charter pins.",
            "Ask the coordinator for the whole file again.",
        )
    for item in file.signatures:
        check_signature(file.charter, item)


def check_signature(charter: Charter, item: CharterSignature) -> None:
    """Check one party's signature over a charter. Raises as `check_file`."""
    key = parties(charter).get(item.party)
    if key is None or item.charter != charter.digest():
        raise IntegrityError(
            "CSL-F212",
            f'The signature of "{item.party}" belongs to another charter.',
            "Let the party sign the present draft.",
        )
    verify(item.signature, CONTEXT, charter, key)


def missing(file: CharterFile) -> tuple[str, ...]:
    """Return the parties that have not signed yet."""
    there = {item.party for item in file.signatures}
    return tuple(party for party in parties(file.charter) if party not in there)


def collect(file: CharterFile, signatures: Iterable[CharterSignature]) -> CharterFile:
    """Return the file with more signatures, each checked; the same party's later one takes the place of its earlier one.

    Raises
    ------
    IntegrityError
        As `check_file`.
    """
    held = {item.party: item for item in file.signatures}
    for item in signatures:
        check_signature(file.charter, item)
        held[item.party] = item
    return file.model_copy(update={"signatures": tuple(held[party] for party in sorted(held))})


def sealed(file: CharterFile) -> SealedCharter:
    """Return the sealed charter: the signatures of all, members in their order, then the coordinator's.

    Raises
    ------
    IntegrityError
        CSL-F213 while somebody has not signed.
    """
    lacking = missing(file)
    if lacking:
        raise IntegrityError(
            "CSL-F213",
            f"Signatures are missing: {', '.join(lacking)}.",
            "Send the draft to them, and collect what they sign.",
        )
    held = {item.party: item.signature for item in file.signatures}
    return SealedCharter(charter=file.charter, signatures=tuple(held[party] for party in parties(file.charter)))


def as_file(whole: SealedCharter, contracts: Iterable[FeatureContract]) -> CharterFile:
    """Return a sealed charter as the file that travels, with the contracts that it pins."""
    names = sorted(zip(parties(whole.charter), whole.signatures, strict=True), key=lambda pair: pair[0])
    digest = whole.charter.digest()
    return CharterFile(
        charter=whole.charter,
        contracts=tuple(contracts),
        signatures=tuple(CharterSignature(charter=digest, party=name, signature=value) for name, value in names),
    )


def contract_yaml(contract: FeatureContract) -> bytes:
    """Return a contract as YAML that reads back as the same contract."""
    values = contract.model_dump(mode="json")
    plain = contract.canonical().decode().isprintable()  # else escaped: YAML folds what it takes for the end of a line
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=plain, width=110).encode()


def pin(root: Path, file: CharterFile) -> None:
    """Make a sealed charter the one that a home goes by: `contracts/`, `charter.json`, `charter.digest`, in this order.

    Whoever calls has compared the digest with the other parties. A crash in between leaves a charter that does not open
    (CSL-F204); the same command again puts it right.

    Raises
    ------
    IntegrityError
        As `check_file`; CSL-F213 while somebody has not signed.
    StorageError
        CSL-F301 when a file cannot be written.
    """
    check_file(file)
    whole = sealed(file)
    for contract in file.contracts:
        atomic_write(root / "contracts" / f"{contract.name}.yaml", contract_yaml(contract))
    atomic_write(root / "charter.json", whole.canonical())
    atomic_write(root / "charter.digest", file.charter.digest().encode() + b"\n")


def changes(old: Charter, new: Charter) -> list[str]:
    """Say in sentences what a charter changes against an older one; no sentence where nothing but the version differs."""
    told = []
    if old.federation != new.federation:
        told.append(f"The federation is {new.federation}, not {old.federation}.")
    if old.coordinator_key != new.coordinator_key:
        told.append(f"The coordinator has another identity key: {new.coordinator_key}.")
    told += _link_changes(old.link, new.link)
    before = {member.id: member for member in old.members}
    after = {member.id: member for member in new.members}
    told += [f"{_called(before[name])} leaves." for name in before if name not in after]
    told += [
        f"{_called(member)} joins and declares {_declared(member)}."
        for name, member in after.items()
        if name not in before
    ]
    for name, member in after.items():
        if name in before:
            told += _member_changes(before[name], member)
    return told + _contract_changes(old, new)


def _link_changes(old: Link | None, new: Link | None) -> list[str]:
    if old is None or new is None:
        if old == new:
            return []
        return [f"Institutions reach the coordinator at {new.address}." if new else "No address is named any more."]
    told = []
    if old.address != new.address:
        told.append(f"The coordinator is reached at {new.address}, no longer at {old.address}.")
    if old.authority != new.authority:
        told.append("The coordinator's certificates come from another authority.")
    if old.app != new.app:
        told.append(f"Vaults answer another app: {new.app}.")
    return told


def _member_changes(old: Member, new: Member) -> list[str]:
    told = []
    if old.title != new.title:
        told.append(f'{new.id} is called "{new.title}", no longer "{old.title}".')
    if old.key != new.key:
        told.append(f"{_called(new)} has another identity key: {new.key}.")
    if old.node_key != new.node_key:
        told.append(f"{_called(new)} has another node key.")
    if old.declares != new.declares:
        told.append(f"{_called(new)} declares {_declared(new)}; before: {_declared(old)}.")
    return told


def _contract_changes(old: Charter, new: Charter) -> list[str]:
    before = {item.name: item.sha256 for item in old.contracts}
    after = {item.name: item.sha256 for item in new.contracts}
    return [
        *(f"The feature contract {name} is no longer pinned." for name in before if name not in after),
        *(f"The feature contract {name} is new." for name in after if name not in before),
        *(
            f"The feature contract {name} has other content."
            for name in after
            if before.get(name, after[name]) != after[name]
        ),
    ]


def _called(member: Member) -> str:
    return f"{member.id} ({member.title})"


def _declared(member: Member) -> str:
    return ", ".join(declared(item) for item in member.declares)


def declared(item: Declaration) -> str:
    """Return one declaration in words."""
    if item.as_of is None:
        return f"{item.size} customers for {item.contract}"
    return (
        f"{item.size} customers for {item.contract} as of {item.as_of.isoformat()} "
        f"(purchases of {item.window_days} days before, outcome within {item.horizon_days} days after)"
    )
