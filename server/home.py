"""The coordinator's home folder: where charter, contracts, drafts, key, checkpoints and registry lie."""

from dataclasses import dataclass
from pathlib import Path

from federation.charter import Charter, SealedCharter, open_charter
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.drafts import AnyDraft, load_draft
from federation.errors import DocumentError, StorageError
from privacy.keys import load_identity
from server.config import CoordinatorConfig, load_coordinator
from server.office import Office

FOLDERS = ("contracts", "studies", "keys", "tls", "run", "logs", "checkpoints", "registry", "witness", "charter")


@dataclass(frozen=True)
class CoordinatorHome:
    """The folder of the coordinator.

    It holds `coordinator.yaml`, `charter.json` and its confirmed `charter.digest`, `contracts/` and `studies/` (YAML),
    `keys/identity.key`, `tls/`, `charter/` with the papers of the next charter, `checkpoints/`, `registry/`, `run/` and `logs/` of the
    service, and `witness/` with the last witnessed head of each member's ledger.
    """

    root: Path

    @property
    def config_file(self) -> Path:
        """How the coordinator runs."""
        return self.root / "coordinator.yaml"

    @property
    def charter_file(self) -> Path:
        """The sealed charter, canonical JSON."""
        return self.root / "charter.json"

    @property
    def pin_file(self) -> Path:
        """The charter's digest as confirmed out of band, one line."""
        return self.root / "charter.digest"

    @property
    def identity_key(self) -> Path:
        """The Ed25519 key that signs charters, studies and cards."""
        return self.root / "keys" / "identity.key"

    @property
    def link_secret(self) -> Path:
        """The 32 bytes (0600) that link and executor share."""
        return self.root / "keys" / "link.secret"

    @property
    def authority_key(self) -> Path:
        """The key that issues the server's certificate."""
        return self.root / "tls" / "ca.key"

    @property
    def authority_file(self) -> Path:
        """The authority's certificate, which the charter names."""
        return self.root / "tls" / "ca.pem"

    @property
    def server_key(self) -> Path:
        """The server's own key (0600)."""
        return self.root / "tls" / "server.key"

    @property
    def server_file(self) -> Path:
        """The server's certificate."""
        return self.root / "tls" / "server.pem"

    @property
    def outline_file(self) -> Path:
        """Contracts and members of the next charter, while it is put together."""
        return self.root / "charter" / "outline.json"

    @property
    def draft_file(self) -> Path:
        """The next charter as members get it to sign."""
        return self.root / "charter" / "draft.json"

    @property
    def collected_file(self) -> Path:
        """The draft with the signatures that have come in."""
        return self.root / "charter" / "collected.json"

    @property
    def sealed_file(self) -> Path:
        """The charter with all signatures, as members get it to accept."""
        return self.root / "charter" / "sealed.json"

    @property
    def run(self) -> Path:
        """What the service keeps while it runs."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """The service's logs."""
        return self.root / "logs"

    @property
    def registry(self) -> Path:
        """The folder of published models."""
        return self.root / "registry"

    @property
    def reports(self) -> Path:
        """The folder of statistics studies' reports."""
        return self.root / "reports"

    def config(self) -> CoordinatorConfig:
        """Read coordinator.yaml. Raises DocumentError as `federation.document.load_yaml`."""
        return load_coordinator(self.config_file)

    def charter(self) -> Charter:
        """Read the charter and check it against its pin.

        Raises
        ------
        StorageError
            CSL-S103 when charter or pin cannot be read.
        IntegrityError
            CSL-F204 when the digest is another or a signature is missing.
        """
        try:
            content = self.charter_file.read_bytes()
            pin = self.pin_file.read_text("ascii", "replace").strip()
        except OSError as error:
            raise StorageError(
                "CSL-S103",
                f"{error.filename} cannot be read: {error.strerror}.",
                "Install the charter that the members signed.",
            ) from error
        return open_charter(SealedCharter.from_canonical(content), pin)

    def contract(self, name: str) -> FeatureContract:
        """Read a feature contract; planning compares it with the charter's pin."""
        return load_yaml(self.root / "contracts" / f"{name}.yaml", FeatureContract)

    def draft(self, name: str) -> AnyDraft:
        """Read the draft `studies/<name>.yaml`.

        Raises
        ------
        DocumentError
            CSL-S104 for a name that is no plain file name, CSL-F103 to CSL-F105 when it cannot be read or is not valid.
        """
        if not name.replace("_", "").replace("-", "").isalnum():
            raise DocumentError(
                "CSL-S104", f'"{name}" is not a name of a study.', "Give a file's name under studies, without .yaml."
            )
        return load_draft(self.root / "studies" / f"{name}.yaml")

    def office(self, contract: str, passphrase: bytes | None = None, allow_plain: bool = False) -> Office:
        """Return what a study needs: charter, contract, key and folders; `privacy.keys.load_identity` says how the key is opened."""
        return Office(
            charter=self.charter(),
            contract=self.contract(contract),
            key=load_identity(self.identity_key, passphrase=passphrase, allow_plain=allow_plain),
            checkpoints=self.root / "checkpoints",
            registry=self.registry,
            witness=self.root / "witness",
        )
