"""A vault's home folder: where each thing lies, and how it is read."""

from dataclasses import dataclass
from pathlib import Path

from federation.charter import Charter, SealedCharter, open_charter
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import IntegrityError, StorageError

FOLDERS = ("contracts", "keys", "replies", "studies", "models", "lists", "participation", "inbox", "witness")


@dataclass(frozen=True)
class Home:
    """The folder of one institution's vault; nothing outside it belongs to the vault."""

    root: Path

    @property
    def node_file(self) -> Path:
        """The node configuration: tables, mapping, consent."""
        return self.root / "node.yaml"

    @property
    def policy_file(self) -> Path:
        """The institution's policy."""
        return self.root / "policy.yaml"

    @property
    def charter_file(self) -> Path:
        """The sealed charter, canonical JSON."""
        return self.root / "charter.json"

    @property
    def lock_file(self) -> Path:
        """There while the home is restored from a backup and officers have not signed for it yet."""
        return self.root / "LOCKED"

    @property
    def pin_file(self) -> Path:
        """The charter's digest as confirmed out of band, one line."""
        return self.root / "charter.digest"

    @property
    def identity_key(self) -> Path:
        """The Ed25519 key that signs grants, releases and ledger entries."""
        return self.root / "keys" / "identity.key"

    @property
    def holdout_key(self) -> Path:
        """The 32 bytes that decide who is held out, one key for the budget's life."""
        return self.root / "keys" / "holdout.key"

    @property
    def store_key(self) -> Path:
        """The 32 bytes that seal what lies at rest: name lists, decisions, kept replies, participation, withdrawals."""
        return self.root / "keys" / "store.key"

    @property
    def withdrawn_file(self) -> Path:
        """The sealed register of customers who withdrew their consent."""
        return self.root / "withdrawn.bin"

    @property
    def roles_file(self) -> Path:
        """Who may do what at this institution."""
        return self.root / "roles.yaml"

    @property
    def ledger_file(self) -> Path:
        """The ledger."""
        return self.root / "ledger.sqlite"

    def folder(self, name: str) -> Path:
        """Return one of `FOLDERS`, made when it is missing (0700)."""
        path = self.root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def charter(self) -> Charter:
        """Read the charter and check it against the pin.

        Raises
        ------
        StorageError
            CSL-C501 when charter or pin is missing.
        IntegrityError
            CSL-F204 when the digest is another or a signature is missing.
        """
        try:
            content = self.charter_file.read_bytes()
            pin = self.pin_file.read_text("ascii", "replace").strip()
        except OSError as error:
            raise StorageError(
                "CSL-C501",
                f"{error.filename} cannot be read: {error.strerror}.",
                "Install the charter that the members signed.",
            ) from error
        return open_charter(SealedCharter.from_canonical(content), pin)

    def contract(self, charter: Charter, name: str) -> FeatureContract:
        """Read a feature contract and check it against the charter's pin.

        Raises
        ------
        IntegrityError
            CSL-C502 when the installed contract is not the one that the charter pins.
        DocumentError
            CSL-F103 to CSL-F105 when it cannot be read.
        """
        contract = load_yaml(self.root / "contracts" / f"{name}.yaml", FeatureContract)
        if contract.digest() != charter.contract_digest(name):
            raise IntegrityError(
                "CSL-C502",
                f"The installed contract {name} is not the one that the charter pins.",
                "Install the contract of the charter.",
            )
        return contract


def check_unlocked(home: Home) -> None:
    """Refuse a home that was restored from a backup, until officers have signed for it.

    Raises
    ------
    IntegrityError
        CSL-C006.
    """
    if home.lock_file.exists():
        raise IntegrityError(
            "CSL-C006",
            f"{home.root} was restored from a backup, and is locked until two officers have signed for it.",
            "Let them sign, and finish the restoration: see `consilience officer restore --help`.",
        )
