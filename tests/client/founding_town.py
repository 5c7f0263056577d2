"""A federation that is only being founded: homes as `node init` makes them, a coordinator's key, and charters laid out from cards."""

import datetime
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from client.founding import Membership, card_of, own_of
from client.home import Home
from client.install import install
from federation.charter import Charter, Link, Member, PinnedContract
from federation.command import run
from federation.document import load_yaml
from federation.founding import CharterFile, collect, sign_charter
from federation.signing import public_hex
from privacy.keys import load_identity
from tests.client.vault_home import CONTRACT, NODE

MEMBERSHIP = "title: {title}\ndeclares:\n  - {{contract: shop, size: 400}}\n"


@lru_cache(maxsize=1)
def authority() -> str:
    """Return the certificate of an authority, PEM."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Tests")])
    now = datetime.datetime(2026, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM).decode()


@dataclass
class Founding:
    """Homes of alder and birch, and whoever coordinates them."""

    root: Path
    coordinator: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    homes: dict[str, Home] = field(default_factory=dict)

    def join(self, member: str) -> Home:
        home = Home(self.root / member)
        install(home, member, allow_plain=True)
        home.node_file.write_text(NODE.format(member=member))
        home.membership_file.write_text(MEMBERSHIP.format(title=member.title()))
        self.homes[member] = home
        return home

    def member(self, name: str) -> Member:
        home = self.homes[name]
        return card_of(home, own_of(home), "town", load_yaml(home.membership_file, Membership)).member

    def charter(self, *names: str, prev: Charter | None = None, **changes: object) -> Charter:
        """Lay out a charter of these members as their cards say, after `prev`."""
        fields: dict[str, object] = {
            "federation": "town",
            "version": 1 if prev is None else prev.version + 1,
            "prev": None if prev is None else prev.digest(),
            "coordinator_key": public_hex(self.coordinator),
            "link": Link(address="localhost:9443", authority=authority(), app="a" * 64),
            "members": tuple(self.member(name) for name in sorted(names)),
            "contracts": (PinnedContract(name="shop", sha256=CONTRACT.digest()),),
        }
        return Charter(**(fields | changes))

    def draft(self, charter: Charter, contract=CONTRACT) -> CharterFile:
        return CharterFile(charter=charter, contracts=(contract,))

    def seal(self, file: CharterFile, *without: str) -> CharterFile:
        """Add everybody's signature but those of some."""
        keys = {name: load_identity(home.identity_key, allow_plain=True) for name, home in self.homes.items()}
        rows = [row.id for row in file.charter.members if row.id in keys]
        found = [sign_charter(keys[name], file.charter, name) for name in rows if name not in without]
        if "coordinator" not in without:
            found.append(sign_charter(self.coordinator, file.charter, "coordinator"))
        return collect(file, found)

    def write(self, file: CharterFile, name: str = "charter.json") -> Path:
        path = self.root / name
        path.write_bytes(file.canonical() + b"\n")
        return path


def found(root: Path) -> Founding:
    town = Founding(root)
    for name in ("alder", "birch"):
        town.join(name)
    return town


def node(home: Home, *arguments: object) -> int:
    return run(["node", *(str(argument) for argument in arguments), "--home", str(home.root)])


def altered(home: Home, **changes: object) -> None:
    """Change what the institution says of itself."""
    tree = yaml.safe_load(home.membership_file.read_text())
    home.membership_file.write_text(yaml.safe_dump(tree | changes))
