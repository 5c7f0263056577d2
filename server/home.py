"""The coordinator's home folder: where charter, contracts, drafts, key, checkpoints and registry lie."""

from dataclasses import dataclass
from pathlib import Path

from federation.charter import Charter, SealedCharter, open_charter
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import DocumentError, StorageError
from federation.study import StudyDraft
from privacy.keys import load_identity
from server.coordinator import Office


@dataclass(frozen=True)
class CoordinatorHome:
    """The folder of the coordinator.

    It holds `charter.json` and its confirmed `charter.digest`, `contracts/` and `studies/` (YAML), `keys/identity.key`, `checkpoints/`,
    `registry/`, and `witness/` with the last witnessed head of each member's ledger.
    """

    root: Path

    @property
    def registry(self) -> Path:
        """The folder of published models."""
        return self.root / "registry"

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
            content = (self.root / "charter.json").read_bytes()
            pin = (self.root / "charter.digest").read_text("ascii", "replace").strip()
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

    def draft(self, name: str) -> StudyDraft:
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
        return load_yaml(self.root / "studies" / f"{name}.yaml", StudyDraft)

    def office(self, contract: str, passphrase: bytes | None = None, allow_plain: bool = False) -> Office:
        """Return what a study needs: charter, contract, key and folders; `privacy.keys.load_identity` says how the key is opened."""
        return Office(
            charter=self.charter(),
            contract=self.contract(contract),
            key=load_identity(self.root / "keys" / "identity.key", passphrase=passphrase, allow_plain=allow_plain),
            checkpoints=self.root / "checkpoints",
            registry=self.registry,
            witness=self.root / "witness",
        )
