"""Parts of a federation with a link, for tests: members with keys of their own, their cards, an authority."""

import functools
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federation.charter import Charter, Declaration, Link, Member, PinnedContract
from federation.contract import FeatureContract, FlagColumn, Label
from federation.founding import CharterFile, MemberCard, SignedCard, sign_card
from federation.signing import public_hex
from server.certificates import create_authority

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
APP = "a5" * 32
SHOP = FeatureContract(
    name="shop",
    version=1,
    title="A small contract: größer",
    source="table",
    columns=(FlagColumn(kind="flag", name="loan", meaning="Has a loan: yes or no", required=False),),
    label=Label(name="bought", meaning="Bought"),
)
LOG = SHOP.model_copy(update={"name": "log", "source": "transactions"})


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


def node_key_of(name: str) -> str:
    secret = ec.derive_private_key(int.from_bytes(name.encode().ljust(40, b".")), ec.SECP384R1())
    return secret.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@functools.cache
def authority_pem(name: str = "test") -> str:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        create_authority(place / "ca.key", place / "ca.pem", name, NOW, allow_plain=True)
        return (place / "ca.pem").read_text()


def member(name: str, size: int = 1000, **changes: object) -> Member:
    row = Member(
        id=name,
        title=f"The {name.title()}",
        key=public_hex(key_of(name)),
        declares=(Declaration(contract="shop", size=size),),
        node_key=node_key_of(name),
    )
    return row.model_copy(update=changes)


def card(row: Member, signer: str | None = None, federation: str = "test") -> SignedCard:
    return sign_card(key_of(signer or row.id), MemberCard(federation=federation, member=row))


def link(**changes: object) -> Link:
    return Link(address="127.0.0.1:18443", authority=authority_pem(), app=APP).model_copy(update=changes)


def charter(*names: str, **changes: object) -> Charter:
    whole = Charter(
        federation="test",
        version=1,
        coordinator_key=public_hex(key_of("coordinator")),
        link=link(),
        members=tuple(member(name) for name in sorted(names or ("alder", "birch"))),
        contracts=(PinnedContract(name="shop", sha256=SHOP.digest()),),
    )
    return Charter.model_validate(whole.model_dump() | changes)


def charter_file(*names: str, **changes: object) -> CharterFile:
    return CharterFile(charter=charter(*names, **changes), contracts=(SHOP,))
