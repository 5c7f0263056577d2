"""A small federation for tests of the vault: three members' homes with synthetic customers, and the coordinator's side of it."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.home import Home
from client.install import install
from client.node_key import node_key_line
from client.unlock import unlock
from client.vault import Vault
from federation.charter import Charter, Declaration, Link, Member, PinnedContract, seal
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.document import load_yaml
from federation.encoding import sha256_hex
from federation.messages import (
    EvaluateRequest,
    Grant,
    Hello,
    ModelDelivery,
    ModelReceipt,
    Offer,
    Receipts,
    SignedReceipt,
    TrainRequest,
    dump_tensors,
    pack,
    signature_of,
    unpack,
)
from federation.networks import tensor_shapes
from federation.signing import Signature, public_hex, sign
from federation.study import CONTEXT, AdditiveModel, HashHoldout, LogisticModel, StudyDraft, StudySpec, Training
from privacy.keys import create_identity, load_identity
from privacy.ledger import Ledger, LedgerReader
from privacy.ledger.entries import APPROVAL_CONTEXT, ApprovalStatement, ApproveData
from privacy.policy import CONTEXT as POLICY_CONTEXT
from privacy.policy import Policy
from privacy.randomness import SystemSource

MEMBERS = ("alder", "birch", "cedar")
SIZE = 400
DELTA = 1e-5
CANARY = "canary-customer"
CARD_TEXT = '{"name":"a card"}'
CARD = sha256_hex(CARD_TEXT.encode())
CONTRACT = FeatureContract(
    name="shop",
    version=1,
    title="A small contract",
    source="table",
    columns=(
        NumericColumn(kind="numeric", name="age", meaning="Age", unit="years", low=18, high=90, knots=(18, 40, 60, 90)),
        CategoricalColumn(kind="categorical", name="job", meaning="Job", categories=("clerk", "farmer")),
        FlagColumn(kind="flag", name="loan", meaning="Has a loan", required=False),
    ),
    label=Label(name="bought", meaning="Bought within a month"),
)
NODE = """
member: {member}
plain_keys: true
contracts:
  shop:
    kind: table
    source: {{kind: csv, path: customers.csv}}
    customer: customer
    columns:
      age: {{column: years, unit: years}}
      job: {{column: profession}}
      loan: {{column: loan}}
    label: {{column: outcome, yes: ["yes"], no: ["no"]}}
    score: {{source: {{kind: csv, path: customers.csv}}}}
consent:
  layout: columns
  source: {{kind: csv, path: consent.csv}}
  customer: customer
  purposes: {{profiling: may_profile, contact: may_contact}}
"""
POLICY = """
institution: {member}
version: 1
issued: 2020-01-01
expires: 2100-01-01
officers:
  - {{id: first, key: {first}}}
  - {{id: second, key: {second}}}
approval: {{eyes: 2}}
purposes:
  - {{id: marketing.propensity, meaning: Who may buy, consent: profiling}}
contact_consent: contact
studies:
  - contract: shop
    purposes: [marketing.propensity]
    models: [additive, logistic, mlp]
    modes: [fedsgd, fedavg]
    max_epsilon: {epsilon}
    max_delta: 1.0e-5
    automatic_epsilon: {automatic}
    holdout: {{kind: hash, share: 0.25}}
budget:
  mode: open
  unit: customer
  neighbours: add_or_remove_one
  period: {{days: 365, epsilon: 5.0, delta: 2.4e-5}}
  life: {{epsilon: 8.0, delta: 2.4e-5}}
smallest_cohort: 100
smallest_partners: 3
aggregation: plain
reply_grid_seconds: 0.0
retention: {{name_lists_days: 90, replies_days: 400, participation_days: 2000}}
"""


def customers(member: str) -> pd.DataFrame:
    rng = np.random.default_rng(sum(member.encode()))
    age = rng.integers(18, 90, SIZE)
    job = rng.choice(["clerk", "farmer"], SIZE)
    loan = rng.choice(["yes", "no"], SIZE)
    logit = (age - 50) / 15 + (job == "farmer")
    outcome = np.where(rng.random(SIZE) < 1 / (1 + np.exp(-logit)), "yes", "no")
    ids = [f"{CANARY}-{member}-{number}" for number in range(SIZE)]
    return pd.DataFrame({"customer": ids, "years": age, "profession": job, "loan": loan, "outcome": outcome})


def consents(frame: pd.DataFrame) -> pd.DataFrame:
    number = np.arange(len(frame))
    return pd.DataFrame(
        {
            "customer": frame["customer"],
            "may_profile": np.where(number % 10 > 0, "yes", "no"),
            "may_contact": np.where(number % 3 == 0, "yes", "no"),
        }
    )


@dataclass
class Town:
    """Three homes with two officers each, the charter, and the coordinator's key.

    Officers' key files (plain, use "officer") lie beside the homes: officers/<member>-<first|second>.key.
    """

    homes: dict[str, Home]
    charter: Charter
    coordinator: Ed25519PrivateKey
    officers: dict[str, tuple[Ed25519PrivateKey, Ed25519PrivateKey]]

    def vault(self, member: str = "alder") -> Vault:
        return Vault.open(self.homes[member].root, unlock(self.homes[member]), source=SystemSource())

    def officer_key(self, member: str = "alder", which: str = "first") -> Path:
        return self.homes[member].root.parent / "officers" / f"{member}-{which}.key"

    def ledger(self, member: str = "alder") -> Ledger:
        home = self.homes[member]
        return Ledger.open(home.ledger_file, unlock(home).identity)

    def sign(self, policy: Policy, member: str = "alder") -> tuple[Signature, ...]:
        return tuple(sign(key, POLICY_CONTEXT, policy) for key in self.officers[member])

    def activate(self, policy: Policy, member: str = "alder") -> None:
        """Sign a policy by both officers, bring it into force and install it."""
        with self.ledger(member) as ledger:
            ledger.activate(policy, self.sign(policy, member))
        self.homes[member].policy_file.write_text(policy.model_dump_json())

    def change(self, member: str = "alder", **changes: object) -> Policy:
        """Bring the next version of a member's policy into force, with fields changed, and return it."""
        with LedgerReader.read(self.homes[member].ledger_file, self.key(member)) as reader:
            before = reader.policy()
        assert before is not None
        tree = before.model_dump(mode="json") | {"version": before.version + 1, "prev": before.digest()} | changes
        policy = Policy.model_validate_json(json.dumps(tree))
        self.activate(policy, member)
        return policy

    def change_rule(self, member: str = "alder", **changes: object) -> Policy:
        """Bring the next version into force, with fields of its one study rule changed."""
        with LedgerReader.read(self.homes[member].ledger_file, self.key(member)) as reader:
            before = reader.policy()
        assert before is not None
        rule = before.studies[0].model_dump(mode="json") | changes
        return self.change(member, studies=[rule])

    def approve(self, spec: StudySpec, member: str = "alder", decision: str = "approve", eyes: int = 2) -> None:
        """Let officers decide about a study."""
        with self.ledger(member) as ledger:
            digest = ledger.state().policy_digest
            assert digest is not None
            statement = ApprovalStatement(study=spec.digest(), policy=digest, decision=decision, reason="Tests")
            for key in self.officers[member][:eyes]:
                signature = sign(key, APPROVAL_CONTEXT, statement)
                ledger.approve(ApproveData(name=spec.draft.name, statement=statement, signature=signature))

    def key(self, member: str) -> str:
        return self.charter.member(member).key

    def spec(self, **changes: object) -> StudySpec:
        training = changes.pop("training", Training(mode="fedsgd", rounds=3, steps=3, sampling_rate=0.5))
        fields: dict[str, object] = {
            "name": "propensity",
            "title": "A study",
            "purpose": "marketing.propensity",
            "contract": "shop",
            "model": AdditiveModel(),
            "mode": training.mode,
            "holdout": HashHoldout(kind="hash", share=0.25),
            "intended_use": "Tests",
            "limits": "None",
        }
        draft = StudyDraft(**(fields | changes))
        return StudySpec(
            draft=draft,
            federation=self.charter.federation,
            charter=self.charter.digest(),
            contract_digest=CONTRACT.digest(),
            training=training,
            nonce="0" * 32,
        )

    def ranking(self, **changes: object) -> StudySpec:
        """A study whose model, with all weights 1, ranks well whatever the hold-out key: older customers buy."""
        return self.spec(model=LogisticModel(kind="logistic"), **changes)

    def offer(self, spec: StudySpec, key: Ed25519PrivateKey | None = None) -> RecordDict:
        signer = key or self.coordinator
        return pack(signer, Offer(spec=spec, spec_signature=sign(signer, CONTEXT, spec)))

    def hello(self, charter: str | None = None) -> RecordDict:
        return pack(self.coordinator, Hello(charter=charter or self.charter.digest(), nonce="1" * 32))

    def weights(self, spec: StudySpec, value: float = 0.0) -> bytes:
        shapes = tensor_shapes(spec.draft.model, CONTRACT)
        return dump_tensors({name: np.full(shape, value, np.float32) for name, (shape, _) in shapes.items()})

    def train(self, spec: StudySpec, number: int, payload: bytes | None = None, **changes: object) -> RecordDict:
        content = self.weights(spec) if payload is None else payload
        fields: dict[str, object] = {"clip": 1.0, "learning_rate": 0.1} | changes
        request = TrainRequest(study=spec.digest(), round=number, payload=sha256_hex(content), **fields)
        return pack(self.coordinator, request, content)

    def evaluate(self, spec: StudySpec, edges: tuple[float, ...] | None = None) -> RecordDict:
        content = self.weights(spec)
        bins = edges or tuple(float(edge) for edge in np.linspace(-2, 2, spec.draft.evaluation.bins - 1))
        return pack(
            self.coordinator, EvaluateRequest(study=spec.digest(), edges=bins, payload=sha256_hex(content)), content
        )

    def model(self, spec: StudySpec, payload: bytes) -> RecordDict:
        delivery = ModelDelivery(study=spec.digest(), card=CARD, card_text=CARD_TEXT, payload=sha256_hex(payload))
        return pack(self.coordinator, delivery, payload)

    def receipts(self, spec: StudySpec, payload: bytes, others: str | None = None) -> RecordDict:
        items = []
        for member, home in self.homes.items():
            model = others if others and member != "alder" else sha256_hex(payload)
            receipt = ModelReceipt(study=spec.digest(), member=member, card=CARD, model=model)
            records = pack(load_identity(home.identity_key, allow_plain=True), receipt)
            items.append(SignedReceipt(receipt=receipt, signature=signature_of(records, self.key(member))))
        return pack(self.coordinator, Receipts(study=spec.digest(), receipts=tuple(items)))

    def grant(self, vault: Vault, spec: StudySpec) -> Grant:
        return unpack(vault.answer("query.offer", self.offer(spec)), Grant, self.key(vault.member))[0]


def found(
    root: Path,
    epsilon: float = 2.0,
    declared: int = 400,
    automatic: float | None = None,
    active: bool = True,
    coordinator: Ed25519PrivateKey | None = None,
    link: Link | None = None,
) -> Town:
    """Found the town; `automatic` is the epsilon that needs nobody's approval, `active` brings the policies into force.

    With `link`, the charter names it and each member's node key.
    """
    homes = {member: Home(root / member) for member in MEMBERS}
    desks = root / "officers"
    desks.mkdir(parents=True, mode=0o700)
    officers = {
        member: (
            create_identity(desks / f"{member}-first.key", use="officer", allow_plain=True),
            create_identity(desks / f"{member}-second.key", use="officer", allow_plain=True),
        )
        for member in MEMBERS
    }
    keys = {member: install(home, member, allow_plain=True) for member, home in homes.items()}
    coordinator = coordinator or Ed25519PrivateKey.generate()
    charter = Charter(
        federation="test",
        version=1,
        coordinator_key=public_hex(coordinator),
        link=link,
        members=tuple(
            Member(
                id=name,
                title=name,
                key=key,
                declares=(Declaration(contract="shop", size=declared),),
                node_key=node_key_line(homes[name]) if link else None,
            )
            for name, key in keys.items()
        ),
        contracts=(PinnedContract(name="shop", sha256=CONTRACT.digest()),),
    )
    identities = {member: load_identity(home.identity_key, allow_plain=True) for member, home in homes.items()}
    sealed = seal(charter, identities, coordinator)
    for member, home in homes.items():
        home.charter_file.write_bytes(sealed.canonical())
        home.pin_file.write_text(charter.digest() + "\n")
        (home.root / "contracts" / "shop.yaml").write_text(CONTRACT.model_dump_json())
        home.node_file.write_text(NODE.format(member=member))
        first, second = (public_hex(key) for key in officers[member])
        limit = epsilon if automatic is None else automatic
        home.policy_file.write_text(
            POLICY.format(member=member, epsilon=epsilon, automatic=limit, first=first, second=second)
        )
        frame = customers(member)
        write_csv(home, "customers.csv", frame)
        write_csv(home, "consent.csv", consents(frame))
    town = Town(homes, charter, coordinator, officers)
    if active:
        for member, home in homes.items():
            town.activate(load_yaml(home.policy_file, Policy), member)
    return town


def write_csv(home: Home, name: str, frame: pd.DataFrame) -> None:
    text = io.StringIO()
    frame.to_csv(text, index=False)
    (home.root / name).write_text(text.getvalue())
