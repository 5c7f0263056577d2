import datetime
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.document import parse_yaml
from federation.signing import public_hex
from federation.study import HashHoldout
from privacy.events import DiscreteGaussianHistogram, SubsampledGaussian
from privacy.ledger import Ledger, Verification, verify
from privacy.ledger.store import SCHEMA
from privacy.policy import Policy, Terms

DAY = 86_400_000
START = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp() * 1000)
HOLDOUT_KEY = b"h" * 32

POLICY = """
institution: alder
version: 1
issued: 2026-01-01
expires: 2030-01-01
purposes:
  - {id: marketing.churn, meaning: Keep customers, consent: profiling}
contact_consent: contact
studies:
  - contract: shop
    purposes: [marketing.churn]
    models: [additive]
    modes: [fedsgd]
    max_epsilon: 1.0
    max_delta: 1.0e-6
    holdout: {kind: hash, share: 0.2}
budget:
  mode: open
  unit: customer
  neighbours: add_or_remove_one
  period: {days: 30, epsilon: 2.0, delta: 1.0e-6}
  life: {epsilon: 3.0, delta: 1.0e-6}
smallest_cohort: 500
smallest_partners: 3
aggregation: plain
reply_grid_seconds: 1.0
"""


def policy_of(text: str = POLICY) -> Policy:
    return parse_yaml(text.encode(), Policy, "policy.yaml")


@dataclass
class Clock:
    now: int = START

    def __call__(self) -> int:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += int(days * DAY)


class House:
    """One institution's ledger in a temporary folder, with a clock that the test moves."""

    def __init__(self, folder: Path, text: str = POLICY) -> None:
        self.path = folder / "ledger.sqlite"
        self.key = Ed25519PrivateKey.from_private_bytes(b"alder".ljust(32, b"."))
        self.public = public_hex(self.key)
        self.clock = Clock()
        self.policy = policy_of(text)
        self.ledger = Ledger.create(self.path, self.key, member="alder", holdout_key=HOLDOUT_KEY, clock=self.clock)
        self.ledger.activate(self.policy)

    def open(self) -> Ledger:
        return Ledger.open(self.path, self.key, clock=self.clock)

    def terms(self, epsilon: float = 1.0) -> Terms:
        return Terms(
            policy=self.policy.digest(),
            epsilon=epsilon,
            delta=1e-6,
            purpose="marketing.churn",
            consent="profiling",
            contract="shop",
            holdout=HashHoldout(kind="hash", share=0.2),
            declared_size=1000,
        )

    def charges(self, noise: float = 10.0) -> dict:
        return {
            "training": (SubsampledGaussian(noise_multiplier=noise, sampling_rate=1.0, steps=1),),
            "holdout": (DiscreteGaussianHistogram(sigma=noise, count=1),),
        }

    def reserve(self, rid: str, noise: float = 10.0, rounds: int = 3, ledger: Ledger | None = None):
        return (ledger or self.ledger).reserve(
            rid,
            study=f"study-{rid}",
            charges=self.charges(noise),
            releases={"training": rounds, "holdout": 1},
            terms=self.terms(),
        )

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
