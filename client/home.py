"""A vault's home folder: where each thing lies, and how it is read."""

import re
from dataclasses import dataclass
from pathlib import Path

from federation.charter import Charter, SealedCharter, open_charter
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write
from federation.founding import CharterFile, check_file, contract_yaml, read_paper, sealed

FOLDERS = (
    "contracts",
    "charters",
    "keys",
    "replies",
    "reports",
    "secure",
    "studies",
    "models",
    "lists",
    "scorings",
    "strategies",
    "campaigns",
    "participation",
    "inbox",
    "witness",
    "run",
    "logs",
)
PRIVATE = 0o600
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


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
    def node_key(self) -> Path:
        """The P-384 key by which the SuperNode proves itself to the link; it signs nothing of the vault's."""
        return self.root / "keys" / "node.key"

    @property
    def runtime_secret(self) -> Path:
        """The 32 bytes that the SuperNode and the vault's worker share, on this machine alone."""
        return self.root / "keys" / "runtime.secret"

    @property
    def run_folder(self) -> Path:
        """What belongs to running processes: sockets, states, Flower's own files; nothing in it is needed after a stop."""
        return self.root / "run"

    @property
    def logs_folder(self) -> Path:
        """The processes' logs."""
        return self.root / "logs"

    @property
    def membership_file(self) -> Path:
        """What the institution says of itself to a federation: its title and its declarations."""
        return self.root / "membership.yaml"

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

    def accepted_file(self, digest: str) -> Path:
        """Where `install_charter` keeps a charter with its contracts and signatures, by its digest."""
        return self.root / "charters" / f"{digest}.json"

    def charter(self) -> Charter:
        """Read the charter that the pin names, and check it. Raises as `sealed_charter`."""
        return self.sealed_charter().charter

    def sealed_charter(self) -> SealedCharter:
        """Read the charter that the pin names and check it: the accepted one, or `charter.json` where it was installed by hand.

        Raises
        ------
        StorageError
            CSL-C501 when charter or pin is missing.
        IntegrityError
            CSL-F204 when the digest is another or a signature is missing.
        """
        pin = _read(self.pin_file).decode("ascii", "replace").strip()
        accepted = self._accepted(pin)
        whole = SealedCharter.from_canonical(_read(self.charter_file)) if accepted is None else sealed(accepted)
        open_charter(whole, pin)
        return whole

    def contract(self, charter: Charter, name: str) -> FeatureContract:
        """Read a feature contract and check it against the charter's pin.

        Raises
        ------
        IntegrityError
            CSL-C502 when the installed contract is not the one that the charter pins.
        DocumentError
            CSL-F103 to CSL-F105 when it cannot be read.
        """
        wanted = charter.contract_digest(name)
        accepted = self._accepted(charter.digest())
        for contract in () if accepted is None else accepted.contracts:
            if contract.name == name and contract.digest() == wanted:
                return contract
        contract = load_yaml(self.root / "contracts" / f"{name}.yaml", FeatureContract)
        if contract.digest() != wanted:
            raise IntegrityError(
                "CSL-C502",
                f"The installed contract {name} is not the one that the charter pins.",
                "Install the contract of the charter.",
            )
        return contract

    def _accepted(self, digest: str) -> CharterFile | None:
        """Return the charter of this digest that was accepted here, not yet checked, or None."""
        path = self.accepted_file(digest)
        if _DIGEST.fullmatch(digest) is None or not path.exists():
            return None
        return read_paper(path, CharterFile)


def install_charter(home: Home, file: CharterFile) -> None:
    """Pin a sealed charter whose digest was confirmed: before the pin is written the old one holds, and from then on the new one.

    The pin names the accepted file, which lies there whole before it; so no crash leaves a pin without its charter. `charter.json`
    and `contracts/*.yaml` are copies for people, written last; the same call again finishes them.

    Raises
    ------
    IntegrityError
        As `federation.founding.check_file` and `open_charter`; CSL-F213 while somebody has not signed.
    StorageError
        CSL-F301 when a file cannot be written.
    """
    digest = file.charter.digest()
    check_file(file)
    whole = sealed(file)
    open_charter(whole, digest)
    home.folder("charters")
    home.folder("contracts")
    atomic_write(home.accepted_file(digest), file.canonical(), PRIVATE)
    atomic_write(home.pin_file, f"{digest}\n".encode(), PRIVATE)
    atomic_write(home.charter_file, whole.canonical(), PRIVATE)
    for contract in file.contracts:
        atomic_write(home.root / "contracts" / f"{contract.name}.yaml", contract_yaml(contract), PRIVATE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            "CSL-C501",
            f"{path} cannot be read: {error.strerror}.",
            "Accept the charter that all members signed, by `consilience node charter accept`.",
        ) from error


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
