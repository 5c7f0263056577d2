from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federation.charter import Charter, Link, seal
from federation.flower.bundle import bundle_digest
from federation.signing import public_hex
from privacy.keys import load_identity
from server.config import CoordinatorConfig
from server.home import CoordinatorHome
from server.install import install
from tests.server.fakes import FakeFederation, contract, draft, key_of
from tests.server.service.fakes import APP, Scene

ADDRESS = "coordinator.example:443"


def node_key() -> str:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def found(folder: Path, app: str, **config: object) -> CoordinatorHome:
    """Make a coordinator's home with plain keys and a sealed charter, as `init` and `charter seal` leave it."""
    values: dict[str, object] = {"federation": "town", "address": ADDRESS, "plain_keys": True, **config}
    home = CoordinatorHome(folder)
    install(home, CoordinatorConfig(**values), None, datetime.now(UTC))  # type: ignore[arg-type]
    home.config_file.write_text(yaml.safe_dump(values))
    own = load_identity(home.identity_key, allow_plain=True)
    plain = FakeFederation.make(Path("unused")).charter
    charter = plain.model_copy(
        update={
            "federation": "town",
            "coordinator_key": public_hex(own),
            "members": tuple(member.model_copy(update={"node_key": node_key()}) for member in plain.members),
            "link": Link(address=values["address"], authority=home.authority_file.read_text(), app=app),
        }
    )
    home.charter_file.write_bytes(
        seal(charter, {item.id: key_of(item.id) for item in charter.members}, own).canonical()
    )
    home.pin_file.write_text(charter.digest() + "\n")
    (folder / "contracts" / "shoppers.yaml").write_text(yaml.safe_dump(contract().model_dump(mode="json")))
    (folder / "studies" / "spring.yaml").write_text(yaml.safe_dump(draft().model_dump(mode="json")))
    return home


@pytest.fixture(scope="session")
def app() -> str:
    return bundle_digest()


@pytest.fixture(scope="session")
def charter(tmp_path_factory: pytest.TempPathFactory) -> Charter:
    return found(tmp_path_factory.mktemp("charter"), APP).charter()


@pytest.fixture
def home(tmp_path: Path, app: str) -> CoordinatorHome:
    return found(tmp_path / "home", app)


@pytest.fixture
def scene(tmp_path: Path, charter: Charter) -> Scene:
    return Scene(tmp_path, charter)
