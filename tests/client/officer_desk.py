"""What tests of the officers' commands need: the commands in one group, sealed officers' keys, studies that wait."""

import os
from collections.abc import Sequence
from pathlib import Path

import typer
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from client.inbox import Inbox, PendingStudy
from client.officer import approvals, budget, calibrate, entries
from client.unlock import unlock
from federation.document import load_yaml
from federation.errors import ConsilienceError
from federation.signing import sign
from federation.study import CONTEXT, StudySpec
from privacy.accounting import calibrate_histogram, calibrate_noise
from privacy.decision import Terms
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian
from privacy.keys import create_identity
from privacy.ledger import Account, Ledger
from privacy.ledger.entries import MILLISECONDS_A_DAY
from privacy.policy import Policy
from tests.client.vault_home import Town

PASSPHRASE = "four plain words here"


def group() -> typer.Typer:
    app = typer.Typer()
    for module in (approvals, budget, calibrate, entries):
        module.register(app)
    return app


def run(*arguments: object, code: int = 0, answer: str | None = None, width: int = 200) -> str:
    """Run one command of the group and return its standard output; errors of ours rise."""
    result = CliRunner().invoke(
        group(), [str(argument) for argument in arguments], input=answer, env={"COLUMNS": str(width)}
    )
    if isinstance(result.exception, ConsilienceError) or (
        result.exception and not isinstance(result.exception, SystemExit)
    ):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def wait(town: Town, spec: StudySpec, member: str = "alder", received: int = 1_700_000_000_000) -> PendingStudy:
    """Put a study into a member's inbox, as its vault does when officers must decide."""
    with town.ledger(member) as ledger:
        policy = ledger.state().policy_digest
    assert policy is not None
    study = PendingStudy(
        spec=spec,
        signature=sign(town.coordinator, CONTEXT, spec),
        policy=policy,
        epsilon=1.0 if spec.draft.epsilon is None else spec.draft.epsilon,
        delta=1e-5,
        received=received,
    )
    Inbox(town.homes[member].root / "inbox").keep(study)
    return study


def sealed_key(town: Town, folder: Path, which: int = 0, member: str = "alder") -> list[str]:
    """Seal an officer's key under a passphrase, and return the options that open it."""
    seed = town.officers[member][which].private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    path, secret = folder / f"officer-{which}.key", folder / "officer.pass"
    if not path.exists():
        create_identity(
            path,
            use="officer",
            passphrase=PASSPHRASE.encode(),
            random=lambda count: seed if count == len(seed) else os.urandom(count),
        )
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    return ["--key", str(path), "--passphrase-file", str(secret)]


class Clock:
    """A clock that stands still until it is told a day (since 1970)."""

    def __init__(self, day: float) -> None:
        self.now = int(day * MILLISECONDS_A_DAY)

    def __call__(self) -> int:
        return self.now

    def forward(self, days: float) -> None:
        self.now += int(days * MILLISECONDS_A_DAY)


def fresh_ledger(town: Town, clock: Clock, member: str = "alder", policy: Policy | None = None) -> Ledger:
    """Make a member's ledger anew, by a clock of the test's own, with her policy in force, and return it open."""
    home = town.homes[member]
    keys = unlock(home)
    home.ledger_file.unlink()
    ledger = Ledger.create(home.ledger_file, keys.identity, member=member, holdout_key=keys.holdout, clock=clock)
    chosen = load_yaml(home.policy_file, Policy) if policy is None else policy
    ledger.activate(chosen, town.sign(chosen, member))
    return ledger


def reserve(ledger: Ledger, number: int, epsilon: float = 1.0, name: str = "study", holdout: bool = True) -> str:
    """Reserve a study of its own at some epsilon (delta 1e-5) in the open mode, and return its digest."""
    policy = ledger.policy()
    assert policy is not None
    rule = policy.studies[0]
    terms = Terms(
        policy=policy.digest(),
        epsilon=epsilon,
        delta=rule.max_delta,
        purpose=rule.purposes[0],
        consent=policy.consent_for(rule.purposes[0]),
        contract=rule.contract,
        holdout=rule.holdout,
        declared_size=400,
    )
    run_ = SubsampledGaussian(
        noise_multiplier=calibrate_noise(epsilon, terms.delta, 0.5, 3), sampling_rate=0.5, steps=3
    )
    counts = DiscreteGaussianHistogram(sigma=calibrate_histogram(epsilon, terms.delta, 1), count=1)
    charges: dict[Account, Sequence[PrivacyEvent]] = {"training": (run_,)} | ({"holdout": (counts,)} if holdout else {})
    rid = f"{number:064x}"
    ledger.reserve(
        rid,
        study=name,
        charges=charges,
        releases={name: 3 if name == "training" else 1 for name in charges},
        terms=terms,
    )
    return rid
