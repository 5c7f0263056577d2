"""A home whose ledger has seen some months: studies, approvals, refusals, withdrawals, looks, a new key, witnesses. No training."""

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.home import Home
from client.pricing import broken_epsilon, events_of, price_study
from client.studies import OpenStudy, Studies
from client.unlock import unlock
from federation.document import load_yaml
from federation.encoding import canonical, sha256_hex
from federation.heads import coordinator_name, origin_of
from federation.messages import ModelDelivery
from federation.note import Checkpoint, cosign, sign_checkpoint
from federation.signing import sign
from federation.study import StudySpec
from privacy.decision import decide
from privacy.keys import create_identity
from privacy.ledger import Ledger
from privacy.ledger.entries import APPROVAL_CONTEXT, ApprovalStatement, ApproveData
from privacy.policy import Policy
from tests.client.vault_home import Town, found

DAY = 86_400_000
START = int(datetime.datetime(2026, 1, 5, 9, 0, tzinfo=datetime.UTC).timestamp() * 1000)


@dataclass
class Clock:
    now: int = START

    def __call__(self) -> int:
        self.now += 61_000
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += int(days * DAY)


@dataclass
class Past:
    """Alder's home in a town of three, with a ledger whose clock the test moves."""

    town: Town
    home: Home
    clock: Clock
    key: Ed25519PrivateKey
    ledger: Ledger
    policy: Policy
    specs: list[StudySpec] = field(default_factory=list)

    @property
    def member(self) -> str:
        return "alder"

    def spec(self, name: str, epsilon: float = 0.4, purpose: str = "marketing.propensity") -> StudySpec:
        spec = self.town.spec(name=name, epsilon=epsilon, title=f"Who may buy: {name}", purpose=purpose)
        return spec.model_copy(update={"nonce": f"{len(self.specs):032x}"})

    def grant(self, spec: StudySpec, read: bool = True) -> str:
        """Reserve a study as the vault would, keep its document, and read its data; returns the study's digest."""
        declaration = self.town.charter.member(self.member).declaration("shop")
        assert declaration is not None
        terms = decide(self.policy, spec, self.town.charter, self.member, self.ledger.today())
        contract = self.home.contract(self.town.charter, terms.contract)
        grant = price_study(spec, self.member, declaration, terms, contract)
        rounds = spec.training.rounds
        releases = {"training": rounds, "holdout": 1}
        rid = spec.digest()
        self.ledger.reserve(
            rid,
            study=spec.draft.name,
            charges=events_of(grant, spec.secure),
            releases=releases,
            terms=terms,
            if_broken=None if spec.secure is None else broken_epsilon(grant, spec.secure, terms.delta),
        )
        Studies(self.home.folder("studies")).keep(OpenStudy(spec=spec, grant=grant))
        if read:
            self.ledger.consent(rid, purpose=spec.draft.purpose, consent=terms.consent, digest=sha256_hex(rid.encode()))
        self.specs.append(spec)
        return rid

    def approve(self, spec: StudySpec) -> None:
        """Let both officers approve a study."""
        statement = ApprovalStatement(
            study=spec.digest(),
            policy=self.policy.digest(),
            decision="approve",
            reason="Worth it: loyalty campaign <2026>.",
        )
        for key in self.town.officers[self.member]:
            signature = sign(key, APPROVAL_CONTEXT, statement)
            self.ledger.approve(ApproveData(name=spec.draft.name, statement=statement, signature=signature))

    def run(
        self,
        spec: StudySpec,
        rounds: int | None = None,
        close: bool = True,
        evaluate: bool = True,
        read: bool = True,
    ) -> str:
        """Grant a study and let its replies leave."""
        rid = self.grant(spec, read)
        for number in range(1, (spec.training.rounds if rounds is None else rounds) + 1):
            self.ledger.release(rid, number, "training", f"{number:064x}", 4_096, what="noisy gradient sum")
        if evaluate:
            self.ledger.release(rid, 90, "holdout", f"{90:064x}", 512, what="noisy score histograms")
        if close:
            self.ledger.close(rid)
        return rid

    def card(self, rid: str) -> None:
        """Keep a delivered model's record and card."""
        text = canonical(
            {
                "kind": "card",
                "name": f"propensity-{rid[:6]}",
                "study": rid,
                "model": "a" * 64,
                "rounds": 3,
                "protection": "local noise",
                "overall": {"informative": True, "auc": {"value": 0.748, "noise": [0.731, 0.765]}},
                "participants": [{"member": name, "title": name.title()} for name in ("alder", "birch", "cedar")],
            }
        ).decode()
        digest = sha256_hex(text.encode())
        delivery = ModelDelivery(study=rid, card=digest, card_text=text, payload="a" * 64)
        models = self.home.folder("models")
        (models / f"{rid}.card.json").write_text(text)
        (models / f"{rid}.delivery.json").write_bytes(delivery.canonical())

    def note(self) -> str:
        """Let birch and the coordinator sign the ledger's head, and keep the note at home; returns it."""
        head = self.ledger.tree_head()
        federation = self.town.charter.federation
        origin = origin_of(federation, self.member, self.ledger.state().restores)
        text = sign_checkpoint(self.key, Checkpoint(origin, head.size, head.root))
        seconds = self.clock.now // 1000
        birch = unlock(self.town.homes["birch"]).identity
        text = cosign(text, birch, origin_of(federation, "birch"), seconds)
        text = cosign(text, self.town.coordinator, coordinator_name(federation), seconds)
        (self.home.folder("witness") / "own.note").write_text(text)
        return text

    def rotate(self) -> Ed25519PrivateKey:
        """Change the institution's key, in the ledger and in the home."""
        self.home.identity_key.rename(self.home.identity_key.with_suffix(".old"))
        self.key = create_identity(self.home.identity_key, allow_plain=True)
        self.ledger.rotate(self.key, "Planned: a new device.")
        return self.key

    def change(self, **changes: object) -> Policy:
        """Bring the next version of the policy into force."""
        tree = (
            self.policy.model_dump(mode="json")
            | {"version": self.policy.version + 1, "prev": self.policy.digest()}
            | changes
        )
        self.policy = Policy.model_validate_json(json.dumps(tree))
        self.ledger.activate(self.policy, self.town.sign(self.policy))
        return self.policy


def live(root: Path, automatic: float = 0.5) -> Past:
    """Found the town and begin alder's ledger anew in January 2026, with a policy in force."""
    root.mkdir(parents=True, exist_ok=True)
    town = found(root, automatic=automatic, active=False)
    home = town.homes["alder"]
    keys, clock = unlock(home), Clock()
    home.ledger_file.unlink()
    ledger = Ledger.create(home.ledger_file, keys.identity, member="alder", holdout_key=keys.holdout, clock=clock)
    policy = load_yaml(home.policy_file, Policy)
    ledger.activate(policy, town.sign(policy))
    return Past(town, home, clock, keys.identity, ledger, policy)


def months(past: Past) -> Past:
    """Let half a year pass: 4 studies, one of them approved by officers, and everything else that a ledger holds."""
    first = past.run(past.spec("spring"))
    past.card(first)
    past.ledger.refuse(
        "CSL-P201", "cross_sell", "The policy allows marketing.propensity; the study asks for cross_sell."
    )
    past.clock.pass_days(40)
    past.ledger.access("view", "name list spring-2026", actor="maria", role="analyst", count=100)
    asked = past.spec("loyalty", epsilon=0.9)
    past.approve(asked)
    past.run(asked)
    past.note()
    past.clock.pass_days(30)
    past.ledger.withdraw(count=3, registered=3, digest="c" * 64, reason="Letters of 12 March", actor="login_two")
    past.ledger.refuse("CSL-P204", "too_much", "The study asks for epsilon 9; the policy allows at most 2 on shop.")
    past.rotate()
    past.change(smallest_partners=2, approval={"eyes": 1})
    past.clock.pass_days(25)
    past.run(past.spec("summer"), rounds=0, evaluate=False)
    past.run(past.spec("autumn"), rounds=2, close=False, evaluate=False)
    return past
