"""What the coordinator works with when it runs a study."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.charter import Charter
from federation.contract import FeatureContract
from federation.errors import IntegrityError
from federation.signing import public_hex

ROSTER_SECONDS = 90.0
"""How long to wait for the members before a study begins: longer than a killed node stays away."""


@dataclass(frozen=True)
class Office:
    """What the coordinator works with: the charter, the study's contract, its own key, and its folders.

    Raises
    ------
    IntegrityError
        CSL-S102 when the charter names another coordinator key.
    """

    charter: Charter
    contract: FeatureContract
    key: Ed25519PrivateKey
    checkpoints: Path
    registry: Path
    witness: Path

    @property
    def reports(self) -> Path:
        """Where the reports of statistics studies lie: beside the registry."""
        return self.registry.parent / "reports"

    def __post_init__(self) -> None:
        if public_hex(self.key) != self.charter.coordinator_key:
            raise IntegrityError(
                "CSL-S102",
                "The charter names another key for the coordinator.",
                "Install the key that the members' charter names.",
            )
