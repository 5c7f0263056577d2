"""After a study: hold the delivered model against what the others were given, check it on own data, calibrate it, write the name list.

Nothing of this leaves the institution, and the coordinator cannot see whether a model was adopted.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.adoption import check_model
from client.calibration import Calibration, calibrate, calibration_report
from client.changes import Comparison, compare
from client.cohort import Cohort, load_cohort
from client.config import NodeConfig
from client.consent import consenting
from client.decisions import KIND, Decision, InUse, decision_file
from client.home import Home
from client.list_rules import DEFAULT_CAPACITY, list_rules
from client.lists import strip, write_list
from client.names import choose, deciles
from client.scores import Scores
from client.scoring import logits_of, score
from client.scorings import Scoring, keep
from client.studies import OpenStudy, Studies
from client.withdrawal import Withdrawals
from federation.charter import Charter, Declaration
from federation.contract import FeatureContract
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write
from federation.messages import ModelDelivery, Receipts, Tensors, read_tensors
from federation.networks import Network, build, load_weights, tensor_shapes
from federation.signing import verify
from privacy.sealing import write_sealed


class Finish:
    """The last steps of one study at one institution."""

    def __init__(
        self,
        home: Home,
        charter: Charter,
        node: NodeConfig,
        contract: FeatureContract,
        study: OpenStudy,
        *,
        holdout_key: bytes,
        store_key: bytes,
    ) -> None:
        self._home = home
        self._charter = charter
        self._node = node
        self._contract = contract
        self._study = study
        self._holdout_key = holdout_key
        self._store_key = store_key
        self._models = home.folder("models")

    def receive(self, delivery: ModelDelivery, payload: bytes) -> None:
        """Keep a delivered model until it is decided upon; a study has one, and the receipt is for that one alone.

        Raises
        ------
        IntegrityError
            CSL-C526 when another model or card was delivered before: with two receipts of each vault, the coordinator
            could show every member receipts that agree and still give them different models.
        """
        card = delivery.card_text.encode()
        if sha256_hex(card) != delivery.card:
            raise IntegrityError(
                "CSL-C529", "The model's card is not the one whose digest was delivered.", "Ask for it again."
            )
        kept = self._models / f"{self._study.rid}.delivery.json"
        if kept.exists() and kept.read_bytes() != delivery.canonical():
            raise IntegrityError(
                "CSL-C526",
                "Another model was delivered for this study before.",
                "Keep the first one; tell the other members and the coordinator.",
            )
        atomic_write(self._models / f"{self._study.rid}.safetensors", payload, mode=0o600)
        atomic_write(self._models / f"{self._study.rid}.card.json", card, mode=0o600)
        atomic_write(kept, delivery.canonical(), mode=0o600)

    def decide(self, receipts: Receipts, heldout: Cohort, smallest_partners: int, contact: str) -> Decision:
        """Adopt the model or not, and write the name list if it is adopted.

        Parameters
        ----------
        receipts:
            What every member says that it was given.
        heldout:
            This institution's held-out customers with labels.
        smallest_partners:
            How many members, this one included, must hold the same model.
        contact:
            The consent that a customer must have given to stand on a name list.

        Raises
        ------
        IntegrityError
            CSL-C521 when members were given different models or too few say which; CSL-F201 to F209 for wrong signatures or tensors.
        DataError
            When the customers to be scored cannot be read.
        """
        delivery, payload = self._delivered()
        self._same_everywhere(receipts, delivery, smallest_partners)
        draft = self._study.spec.draft
        weights = read_tensors(payload, tensor_shapes(draft.model, self._contract))
        network = build(draft.model, self._contract)
        load_weights(network, weights)
        logits = logits_of(draft.model, self._contract, network, heldout.columns)
        assert heldout.label is not None
        adoption = check_model(weights, logits, heldout.label, self._logits_in_use(heldout))
        decision = Decision(
            study=draft.name,
            rid=self._study.rid,
            model=delivery.payload,
            card=delivery.card,
            decided=_now().isoformat(timespec="seconds"),
            adoption=adoption,
        )
        if adoption.adopted:
            decision = self._adopt(decision, network, logits, heldout.label, contact)
        content = decision.model_dump_json(indent=2).encode()
        write_sealed(decision_file(self._home, self._study.rid), self._store_key, KIND, content)
        return decision

    def _adopt(
        self,
        decision: Decision,
        network: Network,
        logits: NDArray[np.float64],
        labels: NDArray[np.float64],
        contact: str,
    ) -> Decision:
        calibration = calibrate(logits, labels)
        report = calibration_report(logits, labels)
        listed, path = self._list(decision.model, network, calibration, contact)
        atomic_write(self._pointer(), InUse(rid=self._study.rid, model=decision.model).canonical(), mode=0o600)
        return decision.model_copy(
            update={"calibration": calibration, "report": report, "listed": listed, "list_file": path.name}
        )

    def _list(self, model: str, network: Network, calibration: Calibration, contact: str) -> tuple[int, Path]:
        """Score those who agreed to be contacted, and write the list of those whom the capacity allows.

        Whoever withdraws meanwhile is taken off by one side or the other: the withdrawal enters the register first and then goes
        through the lists, this writes the list first and then looks at the register again.
        """
        declaration = self._declaration()
        withdrawn = Withdrawals.load(self._home, self._store_key)
        cohort, _ = load_cohort(self._node, self._contract, declaration, contact, "score", withdrawn.excluded)
        draft = self._study.spec.draft
        scores = score(draft.model, self._contract, network, calibration, cohort)
        capacity = list_rules(self._home).capacity.get(self._contract.name, DEFAULT_CAPACITY)
        agreed = consenting(self._node, contact, withdrawn.excluded)
        listed = choose(scores, capacity, agreed, self._holdout_key)
        scoring = self._scoring(model, scores, withdrawn)
        compared = self._compared(scores, scoring, withdrawn)
        folder = self._home.folder("lists")
        written = write_list(
            folder,
            listed if compared is None else compared.applied(listed),
            scores,
            store_key=self._store_key,
            study=draft.name,
            model_digest=model,
            when=_now(),
            capacity=capacity,
            calibration=calibration,
            compared=None if compared is None else compared.summary(),
        )
        now = Withdrawals.load(self._home, self._store_key)
        lost = 0 if now.version == withdrawn.version else strip(folder, written.csv.stem, self._store_key, now.excluded)
        keep(self._home, self._store_key, scoring, withdrawn)
        return len(listed) - lost, written.csv

    def _scoring(self, model: str, scores: Scores, withdrawn: Withdrawals) -> Scoring:
        draft = self._study.spec.draft
        decile = deciles(scores, self._holdout_key)
        return Scoring.of(
            scores, decile, withdrawn.key, study=draft.name, purpose=draft.purpose, model=model, when=_now()
        )

    def _compared(self, scores: Scores, now: Scoring, withdrawn: Withdrawals) -> Comparison | None:
        """Compare with the scoring before; one that does not open keeps no model from being used, and `node scores` says so."""
        try:
            return compare(self._home, self._store_key, scores, now, withdrawn)
        except (IntegrityError, StorageError):
            return None

    def _declaration(self) -> Declaration:
        declaration = self._charter.member(self._node.member).declaration(self._contract.name)
        assert declaration is not None
        return declaration

    def _delivered(self) -> tuple[ModelDelivery, bytes]:
        try:
            delivery = ModelDelivery.from_canonical((self._models / f"{self._study.rid}.delivery.json").read_bytes())
            payload = (self._models / f"{self._study.rid}.safetensors").read_bytes()
        except OSError as error:
            raise StorageError(
                "CSL-C522",
                f"No model was delivered for study {self._study.rid[:12]}.",
                "Ask the coordinator to deliver it again.",
            ) from error
        if sha256_hex(payload) != delivery.payload:
            raise IntegrityError("CSL-C523", "The kept model is damaged.", "Ask the coordinator to deliver it again.")
        return delivery, payload

    def _same_everywhere(self, receipts: Receipts, delivery: ModelDelivery, smallest_partners: int) -> None:
        """Check that enough members, and no member otherwise, signed for the very model that this vault was given."""
        holders: set[str] = set()
        for item in receipts.receipts:
            member = self._charter.member(item.receipt.member)
            verify(item.signature, "csl1/receipt", item.receipt, member.key)
            if item.receipt.study != self._study.rid:
                raise IntegrityError(
                    "CSL-C521", "A receipt is for another study.", "Ask the coordinator for this study's receipts."
                )
            if (item.receipt.model, item.receipt.card) != (delivery.payload, delivery.card):
                raise IntegrityError(
                    "CSL-C521",
                    "Members were given different models.",
                    "Do not use the model; tell the other members and the coordinator.",
                )
            holders.add(member.id)
        if self._node.member not in holders or len(holders) < smallest_partners:
            raise IntegrityError(
                "CSL-C521",
                f"{len(holders)} members say which model they hold; {smallest_partners} must.",
                "Wait for the others' receipts.",
            )

    def _pointer(self) -> Path:
        draft = self._study.spec.draft
        return self._models / f"in-use-{self._contract.name}-{draft.purpose}.json"

    def _logits_in_use(self, heldout: Cohort) -> NDArray[np.float64] | None:
        """Return the held-out customers' logits under the model in use, or None where there is none yet."""
        if not self._pointer().exists():
            return None
        in_use = InUse.from_canonical(self._pointer().read_bytes())
        model = Studies(self._home.folder("studies")).find(in_use.rid).spec.draft.model
        weights: Tensors = read_tensors(
            (self._models / f"{in_use.rid}.safetensors").read_bytes(), tensor_shapes(model, self._contract)
        )
        network = build(model, self._contract)
        load_weights(network, weights)
        with torch.no_grad():
            return logits_of(model, self._contract, network, heldout.columns)


def _now() -> datetime:
    return datetime.now(UTC)
