import datetime
import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.signing import public_hex
from federation.study import HashHoldout
from privacy.decision import Terms
from privacy.events import DiscreteGaussianHistogram, SubsampledGaussian
from privacy.ledger import Ledger, Verification, verify
from privacy.ledger.store import SCHEMA
from privacy.plan import Slot
from privacy.policy import Policy
from tests.privacy.policies import POLICY, policy_of, signed

DAY = 86_400_000
START = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp() * 1000)
HOLDOUT_KEY = b"h" * 32


@dataclass
class Clock:
    now: int = START

    def __call__(self) -> int:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += int(days * DAY)


class House:
    """One institution's ledger in a temporary folder, with a clock that the test moves."""

    def __init__(
        self, folder: Path, policy: str | Policy = POLICY, keys: Sequence[Ed25519PrivateKey] = (), member: str = "alder"
    ) -> None:
        self.path = folder / "ledger.sqlite"
        self.key = Ed25519PrivateKey.from_private_bytes(b"alder".ljust(32, b"."))
        self.public = public_hex(self.key)
        self.clock = Clock()
        self.policy = policy_of(policy) if isinstance(policy, str) else policy
        self.ledger = Ledger.create(self.path, self.key, member=member, holdout_key=HOLDOUT_KEY, clock=self.clock)
        self.ledger.activate(self.policy, signed(self.policy, *keys))

    def open(self) -> Ledger:
        return Ledger.open(self.path, self.key, clock=self.clock)

    def terms(self, epsilon: float = 1.0, purpose: str = "marketing.churn", slot: Slot | None = None) -> Terms:
        return Terms(
            policy=self.policy.digest(),
            epsilon=epsilon,
            delta=1e-6,
            purpose=purpose,
            consent="profiling",
            contract="shop",
            holdout=HashHoldout(kind="hash", share=0.2),
            declared_size=1000,
            slot=slot,
        )

    def charges(self, noise: float = 10.0, rounds: int = 1) -> dict:
        """Events that cost the same, whatever the number of rounds."""
        sigma = noise * math.sqrt(rounds)
        return {
            "training": (SubsampledGaussian(noise_multiplier=sigma, sampling_rate=1.0, steps=rounds),),
            "holdout": (DiscreteGaussianHistogram(sigma=noise, count=1),),
        }

    def reserve(
        self, rid: str, noise: float = 10.0, rounds: int = 3, ledger: Ledger | None = None, terms: Terms | None = None
    ):
        return (ledger or self.ledger).reserve(
            rid,
            study=f"study-{rid}",
            charges=self.charges(noise, rounds),
            releases={"training": rounds, "holdout": 1},
            terms=terms or self.terms(),
        )

    def activate(self, policy: Policy, *keys: Ed25519PrivateKey) -> None:
        """Bring the next policy into force, signed by both officers unless keys are given."""
        self.ledger.activate(policy, signed(policy, *keys))
        self.policy = policy

    def release(self, rid: str, number: int, account: str = "training", ledger: Ledger | None = None) -> None:
        (ledger or self.ledger).release(rid, number, account, f"{number:064x}", 100, what="gradient sum")

    def verify(self, witness=None) -> Verification:
        return verify(self.path, self.public, witness)

    def tamper(self, *statements: tuple[str, tuple]) -> None:
        """Change the file behind the ledger's back, as somebody with the disk in hands could."""
        triggers = [statement for statement in SCHEMA if "TRIGGER" in statement]
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for trigger in triggers:
                connection.execute(f"DROP TRIGGER {trigger.split()[2]}")
            for statement, values in statements:
                connection.execute(statement, values)
            for trigger in triggers:
                connection.execute(trigger)
            connection.commit()

    def row(self, seq: int) -> tuple:
        """Return an entry's columns as they stand in the file."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT * FROM entry WHERE seq = ?", (seq,)).fetchone()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(scope="session")
def make_house():
    return House


@pytest.fixture(scope="session")
def make_policy():
    return policy_of


@pytest.fixture(scope="session")
def policy_text() -> str:
    return POLICY
