"""A ledger's whole life, step by step, as `benchmarks/soak.py` lets a process live it again and again."""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.backup import write_backup
from client.home import Home
from client.policy_files import install_policy
from client.restoration import add_signature, begin, finish, read_signatures, read_statement, statement_file
from client.rotation import next_key_file, prepare, rotate
from client.unlock import Opener
from federation.files import atomic_write
from federation.signing import public_hex, sign
from federation.study import HashHoldout
from privacy.decision import Terms
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian
from privacy.keys import create_identity, create_secret, load_identity
from privacy.ledger import Account, Ledger
from privacy.ledger.entries import APPROVAL_CONTEXT, ApprovalStatement, ApproveData
from privacy.policy import CONTEXT, Policy

OFFICERS = tuple(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
HOLDOUT_KEY = b"h" * 32
PLAIN = Opener(None, allow_plain=True)
PURPOSE = "marketing.churn"
NOISE = 30.0
ROUNDS = 2
FIRST, PLANNED, LAST = ("a" * 64, "b" * 64, "c" * 64)
SLOT = {
    "id": "one",
    "purpose": PURPOSE,
    "contract": "shop",
    "noise_multiplier": NOISE * ROUNDS**0.5,
    "sampling_rate": 1.0,
    "steps": ROUNDS,
    "histogram_sigma": NOISE,
}


def policy(version: int, before: Policy | None, mode: str) -> Policy:
    """Return one of the life's policies: every study waits for two officers."""
    document = {
        "institution": "alder",
        "version": version,
        "prev": None if before is None else before.digest(),
        "issued": "2020-01-01",
        "expires": "2100-01-01",
        "officers": [{"id": f"officer{number}", "key": public_hex(key)} for number, key in enumerate(OFFICERS)],
        "approval": {"eyes": 2},
        "purposes": [{"id": PURPOSE, "meaning": "Keep customers", "consent": "profiling"}],
        "contact_consent": "contact",
        "studies": [
            {
                "contract": "shop",
                "purposes": [PURPOSE],
                "models": ["additive"],
                "modes": ["fedsgd"],
                "max_epsilon": 1.0,
                "max_delta": 1e-6,
                "automatic_epsilon": 0.0,
                "holdout": {"kind": "hash", "share": 0.2},
            }
        ],
        "budget": {
            "mode": mode,
            "unit": "customer",
            "neighbours": "add_or_remove_one",
            "period": {"days": 30, "epsilon": 2.0, "delta": 1e-6},
            "life": {"epsilon": 3.0, "delta": 1e-6},
            "slots": [SLOT] if mode == "plan" else [],
        },
        "smallest_cohort": 500,
        "smallest_partners": 3,
        "aggregation": "plain",
        "reply_grid_seconds": 1.0,
        "retention": {"name_lists_days": 90, "replies_days": 30, "participation_days": 3650},
    }
    return Policy.model_validate(document, strict=False)


OPEN = policy(1, None, "open")
PLAN = policy(2, OPEN, "plan")
AFTER = policy(3, PLAN, "open")


class Life:
    """A ledger's life in one folder: `home`, its backup `copy.zip`, and `restored`, with a journal of what was done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.restored = Home(folder / "restored")
        self.copy = folder / "copy.zip"
        self.journal = folder / "journal"
        self.steps: list[tuple[str, Callable[[], object]]] = [
            ("create", self._create),
            ("activate", lambda: self._activate(OPEN)),
            ("install", lambda: self._install(OPEN)),
            *self._study(FIRST, OPEN),
            ("refuse", lambda: self._with(lambda ledger: ledger.refuse("CSL-P201", "x", "why"))),
            ("access", lambda: self._with(_access)),
            ("withdraw", lambda: self._with(_withdraw)),
            ("witness", lambda: self._with(_witnessed)),
            ("activate", lambda: self._activate(PLAN)),
            *self._study(PLANNED, PLAN),
            ("activate", lambda: self._activate(AFTER)),
            ("install", lambda: self._install(AFTER)),
            ("prepare", lambda: prepare(self.home, PLAIN)),
            ("rotate", self._rotate),
            *self._study(LAST, AFTER)[:-1],
            ("backup", self._backup),
            ("restore begin", self._begin),
            *(("restore sign", lambda key=key: self._sign(key)) for key in OFFICERS),
            ("restore finish", self._finish),
            ("close", lambda: self._with(lambda ledger: ledger.close(LAST), self.restored)),
        ]

    def done(self) -> int:
        """Return how many steps were finished, by the journal."""
        return len(self.journal.read_bytes()) if self.journal.exists() else 0

    def live(self) -> None:
        """Do what is left of the life, and note each step when its call has returned."""
        descriptor = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for _, step in self.steps[self.done() :]:
            step()
            os.write(descriptor, b".")
        os.close(descriptor)

    def prepare(self) -> None:
        """Make a home with keys and no ledger."""
        for name in ("keys", "contracts"):
            self.home.folder(name)
        create_identity(self.home.identity_key, allow_plain=True)
        create_secret(self.home.holdout_key, allow_plain=True, random=lambda _: HOLDOUT_KEY)
        create_secret(self.home.store_key, use="store", allow_plain=True)
        contracts = (
            "contracts: {shop: {kind: table, source: {kind: csv, path: x.csv}, customer: c, columns: {a: {column: a}}}}"
        )
        atomic_write(self.home.node_file, f"member: alder\nplain_keys: true\n{contracts}\n".encode(), 0o600)
        self._source(OPEN).write_text(OPEN.model_dump_json())
        self._source(AFTER).write_text(AFTER.model_dump_json())

    def _source(self, document: Policy) -> Path:
        return self.folder / f"policy-{document.version}.yaml"

    def _with(self, work: Callable[[Ledger], object], home: Home | None = None) -> None:
        place = home or self.home
        with Ledger.open(place.ledger_file, load_identity(place.identity_key, allow_plain=True)) as ledger:
            work(ledger)

    def _create(self) -> None:
        if not self.home.ledger_file.exists():
            key = load_identity(self.home.identity_key, allow_plain=True)
            Ledger.create(self.home.ledger_file, key, member="alder", holdout_key=HOLDOUT_KEY).close_file()

    def _activate(self, document: Policy) -> None:
        self._with(lambda ledger: ledger.activate(document, [sign(key, CONTEXT, document) for key in OFFICERS]))

    def _install(self, document: Policy) -> None:
        signatures = tuple(sign(key, CONTEXT, document) for key in OFFICERS)
        source = self._source(document)
        install_policy(source.read_bytes(), source, self.home.policy_file, document, signatures)

    def _study(self, rid: str, document: Policy) -> list[tuple[str, Callable[[], object]]]:
        """Return the steps of one study; what is noted as released has left."""

        def on(work: Callable[[Ledger], object]) -> Callable[[], None]:
            return lambda: self._with(work)

        def approve(key: Ed25519PrivateKey) -> Callable[[], None]:
            return on(lambda ledger: _approve(ledger, rid, document, key))

        def release(number: int) -> Callable[[], None]:
            return on(lambda ledger: _release(ledger, rid, number))

        return [
            *(("approve", approve(key)) for key in OFFICERS),
            ("reserve", on(lambda ledger: _reserve(ledger, rid, document))),
            ("consent", on(lambda ledger: ledger.consent(rid, purpose=PURPOSE, consent="profiling", digest="e" * 64))),
            *(("release", release(number)) for number in range(ROUNDS + 1)),
            ("close", on(lambda ledger: ledger.close(rid))),
        ]

    def _rotate(self) -> None:
        if next_key_file(self.home).exists():
            rotate(self.home, PLAIN, "yearly")

    def _backup(self) -> None:
        if not self.copy.exists():
            write_backup(self.home, self.copy, "now")

    def _begin(self) -> None:
        if not self.restored.root.exists():
            begin(self.copy, self.restored.root, "The disk failed", allowed=lambda home: home)

    def _sign(self, key: Ed25519PrivateKey) -> None:
        path = statement_file(self.restored)
        if public_hex(key) not in {item.key for item in read_signatures(path, read_statement(path))}:
            add_signature(path, key)

    def _finish(self) -> None:
        if self.restored.lock_file.exists() or statement_file(self.restored).exists():
            finish(self.restored, load_identity(self.restored.identity_key, allow_plain=True))


def _access(ledger: Ledger) -> None:
    ledger.access("view", "a name list", actor="analyst", role="analyst", count=10)


def _withdraw(ledger: Ledger) -> None:
    ledger.withdraw(count=3, registered=3, digest="f" * 64, reason="asked", actor="officer")


def _witnessed(ledger: Ledger) -> None:
    head = ledger.tree_head()
    ledger.witnessed(head.size, head.root, ["the coordinator"])


def _approve(ledger: Ledger, rid: str, document: Policy, key: Ed25519PrivateKey) -> None:
    said = ApprovalStatement(study=rid, policy=document.digest(), decision="approve", reason="Worth it.")
    ledger.approve(ApproveData(name="study", statement=said, signature=sign(key, APPROVAL_CONTEXT, said)))


def _reserve(ledger: Ledger, rid: str, document: Policy) -> None:
    charges: dict[Account, tuple[PrivacyEvent, ...]] = {
        "training": (SubsampledGaussian(noise_multiplier=NOISE * ROUNDS**0.5, sampling_rate=1.0, steps=ROUNDS),),
        "holdout": (DiscreteGaussianHistogram(sigma=NOISE, count=1),),
    }
    terms = Terms(
        policy=document.digest(),
        epsilon=1.0,
        delta=1e-6,
        purpose=PURPOSE,
        consent="profiling",
        contract="shop",
        holdout=HashHoldout(kind="hash", share=0.2),
        declared_size=1000,
        slot=document.budget.slots[0] if document.budget.slots else None,
    )
    ledger.reserve(rid, study="study", charges=charges, releases={"training": ROUNDS, "holdout": 1}, terms=terms)


def _release(ledger: Ledger, rid: str, number: int) -> None:
    account: Account = "holdout" if number == ROUNDS else "training"
    ledger.release(rid, number, account, f"{number:064x}", 100, what="reply")


STUDY = ["approve", "approve", "reserve", "consent", *["release"] * (ROUNDS + 1), "close"]
EXPECTED = [
    *("genesis", "policy", *STUDY, "refuse", "access", "withdraw", "witness"),
    *("policy", *STUDY, "policy", "rotate", *STUDY[:-1], "restore", "close"),
]
