"""The vault: the one door between customer data and the federation.

Every request takes the same way: verify -> policy -> reserve -> read -> compute -> keep -> release. What is refused is refused on
public inputs, before data are read; after a grant, a fault in the data yields noise over nobody, never an error that the
coordinator could see. The reply is kept before the ledger's entry and the entry stands before the bytes leave, so that a crash at
any step neither loses a charge nor releases twice.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.config import load_node
from client.finish import Finish
from client.home import Home
from client.pricing import events_of, price_study
from client.replies import Replies, kept, request_digest
from client.studies import OpenStudy, Studies
from client.workroom import Workroom
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.document import Document, load_yaml
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, IntegrityError, PolicyError
from federation.messages import (
    Acknowledged,
    EvaluateRelease,
    EvaluateRequest,
    Hello,
    Identity,
    ModelDelivery,
    ModelReceipt,
    Offer,
    Receipts,
    Refusal,
    Tensors,
    TrainRelease,
    TrainRequest,
    dump_tensors,
    pack,
    read_tensors,
    unpack,
)
from federation.networks import tensor_shapes
from federation.signing import public_hex, verify
from federation.study import CONTEXT, StudySpec
from privacy.keys import load_identity, load_secret
from privacy.ledger import Account, Ledger
from privacy.policy import Policy
from privacy.randomness import RandomSource, SystemSource, require_system

logger = logging.getLogger("consilience.vault")
MAX_WEIGHT = 1e6


class Vault:
    """One institution's vault, opened on its home folder; answers one request at a time."""

    def __init__(
        self,
        home: Home,
        identity: Ed25519PrivateKey,
        holdout_key: bytes,
        ledger: Ledger,
        source: RandomSource,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        require_system(source)
        self._home = home
        self._identity = identity
        self._ledger = ledger
        self._source = source
        self._sleep = sleep
        self._charter = home.charter()
        self._policy = load_yaml(home.policy_file, Policy)
        self._node = load_node(home.node_file)
        self._holdout_key = holdout_key
        self._replies = Replies(home.folder("replies"))
        self._studies = Studies(home.folder("studies"))
        self._rooms: dict[str, Workroom] = {}
        self._contracts: dict[str, FeatureContract] = {}
        self._lock = threading.Lock()
        if self._charter.member(self._node.member).key != public_hex(identity):
            raise IntegrityError(
                "CSL-C505",
                f"The charter names another key for {self._node.member}.",
                "Install the identity key that the charter names.",
            )
        ledger.check_holdout_key(holdout_key)
        ledger.activate(self._policy)

    @classmethod
    def open(
        cls,
        root: Path,
        passphrase: bytes | None = None,
        *,
        allow_plain: bool = False,
        source: RandomSource | None = None,
    ) -> "Vault":
        """Open the vault of a home folder; every document is checked before anything is answered.

        Parameters
        ----------
        root:
            The home folder.
        passphrase, allow_plain:
            Opens the keys; plain keys only where the caller allows them (simulations).
        source:
            Randomness of noise and draws: the operating system's unless given; a seeded one is refused.

        Raises
        ------
        ConsilienceError
            When charter, policy, node configuration, ledger or keys are missing or wrong: fail closed.
        """
        home = Home(root)
        identity = load_identity(home.identity_key, passphrase=passphrase, allow_plain=allow_plain)
        holdout_key = load_secret(home.holdout_key, passphrase=passphrase, allow_plain=allow_plain)
        return cls(home, identity, holdout_key, Ledger.open(home.ledger_file, identity), source or SystemSource())

    @property
    def member(self) -> str:
        """The institution's identifier in the charter."""
        return self._node.member

    def answer(self, message_type: str, request: RecordDict) -> RecordDict:
        """Answer one message; whatever is refused is answered by the same signed refusal, and its reason stays in the ledger."""
        handlers: dict[str, Callable[[RecordDict], RecordDict]] = {
            "query.hello": self._hello,
            "query.offer": self._offer,
            "train": self._train,
            "evaluate": self._evaluate,
            "query.model": self._model,
            "query.receipts": self._receipts,
        }
        started = time.monotonic()
        with self._lock:
            try:
                if message_type not in handlers:
                    raise PolicyError(
                        "CSL-C510",
                        "A message of a type that a vault does not answer.",
                        "Use the message types of the protocol.",
                    )
                reply = handlers[message_type](request)
            except ConsilienceError as error:
                reply = self._refuse(error, message_type)
            except Exception as error:  # noqa: BLE001 - the boundary: a fault of ours must look like any other refusal
                logger.error("internal error: %s", where(error))
                unforeseen = ConsilienceError(
                    "CSL-C525", f"Internal error: {type(error).__name__}.", "Report it with the vault's log."
                )
                reply = self._refuse(unforeseen, message_type)
        self._wait_for_grid(started)
        return reply

    def _refuse(self, error: ConsilienceError, message_type: str) -> RecordDict:
        logger.warning("refused %.40r: %s", message_type, error)
        try:
            self._ledger.refuse(error.code, message_type, error.cause)
        except ConsilienceError as unwritten:  # a full disk must not make this refusal look unlike the others
            logger.error("the refusal could not be written down: %s", unwritten)
        return pack(self._identity, Refusal(member=self.member))

    def _wait_for_grid(self, started: float) -> None:
        """Hold a reply back to a coarse time grid, so that its delay says little about the data."""
        grid = self._policy.reply_grid_seconds
        if grid > 0:
            self._sleep(-(time.monotonic() - started) % grid)

    def _hello(self, request: RecordDict) -> RecordDict:
        hello, _ = unpack(request, Hello, self._charter.coordinator_key)
        if hello.charter != self._charter.digest():
            raise IntegrityError(
                "CSL-C506", "The coordinator works under another charter.", "Agree on one charter and pin it."
            )
        return pack(self._identity, Identity(member=self.member, charter=hello.charter, nonce=hello.nonce))

    def _offer(self, request: RecordDict) -> RecordDict:
        offer, _ = unpack(request, Offer, self._charter.coordinator_key)
        verify(offer.spec_signature, CONTEXT, offer.spec, self._charter.coordinator_key)
        rid = offer.spec.digest()
        known = self._replies.find(rid, 0)
        if known is not None and self._ledger.has_reservation(rid):
            return known.records()
        declaration = self._check_spec(offer.spec)
        terms = self._policy.decide(offer.spec, self._charter, self.member, self._ledger.today())
        grant = price_study(offer.spec, self.member, declaration, terms)
        reply = pack(self._identity, grant)
        releases: dict[Account, int] = {"training": offer.spec.training.rounds, "holdout": 1}
        # First the ledger: an offer that it refuses leaves no file, and after a crash the same offer finds its reservation again.
        self._ledger.reserve(rid, study=offer.spec.draft.name, charges=events_of(grant), releases=releases, terms=terms)
        self._studies.keep(OpenStudy(spec=offer.spec, grant=grant))
        self._replies.keep(rid, 0, kept(request, reply))
        return reply

    def _check_spec(self, spec: StudySpec) -> Declaration:
        """Check that a study belongs to this federation and that this member declared itself for its contract."""
        charter, draft = self._charter, spec.draft
        if (spec.federation, spec.charter) != (charter.federation, charter.digest()):
            raise IntegrityError(
                "CSL-C506", "The study belongs to another charter.", "Agree on one charter and pin it."
            )
        if spec.contract_digest != charter.contract_digest(draft.contract):
            raise IntegrityError(
                "CSL-C507", "The study names another contract than the charter pins.", "Plan the study anew."
            )
        self._contract(draft.contract)
        declaration = charter.member(self.member).declaration(draft.contract)
        if declaration is None or draft.contract not in self._node.contracts:
            raise PolicyError(
                "CSL-C508",
                f"This node does not serve the contract {draft.contract}.",
                "Map the contract in node.yaml, or decline the study.",
            )
        return declaration

    def _contract(self, name: str) -> FeatureContract:
        """Return a pinned contract; read once, as charter, policy and node configuration are."""
        if name not in self._contracts:
            self._contracts[name] = self._home.contract(self._charter, name)
        return self._contracts[name]

    def _check_standing(self, study: OpenStudy) -> None:
        """Check, before data are read, that the ledger holds this very grant open and that today's policy still allows it.

        The study's file only says what to look for: noise, rate and steps must be those that were reserved.

        Raises
        ------
        PolicyError
            CSL-C524 when nothing like it is reserved and open, or the policy now grants less; others as `Policy.decide`.
        """
        spec, grant = study.spec, study.grant
        self._check_spec(spec)
        terms = self._policy.decide(spec, self._charter, self.member, self._ledger.today())
        held = self._ledger.reservation(study.rid)
        paid = held is not None and not held.closed and study.rid == spec.digest()
        events = {charge.account: charge.events for charge in held.data.charges} if held is not None else {}
        if not paid or events != events_of(grant) or grant.epsilon > terms.epsilon or grant.delta > terms.delta:
            raise PolicyError(
                "CSL-C524",
                "The study is not reserved and open on the terms of its grant, or the policy now grants less.",
                "Plan a new study.",
            )

    def _train(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, TrainRequest, self._charter.coordinator_key)
        study = self._studies.find(header.study)
        if header.round > study.spec.training.rounds:
            raise PolicyError(
                "CSL-C512", f"Round {header.round} is beyond the study's plan.", "Stop at the last planned round."
            )
        weights = self._weights(study, payload)
        again = self._again(study, header.round, "training", request)
        if again is not None:
            return again
        self._check_standing(study)
        room = self._room(study)
        content = dump_tensors(room.train(study, header, weights, self._source))
        release = TrainRelease(study=study.rid, member=self.member, round=header.round, payload=sha256_hex(content))
        return self._release(study, header.round, "training", request, release, content)

    def _evaluate(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, EvaluateRequest, self._charter.coordinator_key)
        study = self._studies.find(header.study)
        edges = header.edges
        if len(edges) + 1 != study.spec.draft.evaluation.bins or any(
            a >= b for a, b in zip(edges, edges[1:], strict=False)
        ):
            raise PolicyError(
                "CSL-C513", "The score bins are not those of the study.", "Send increasing edges, one fewer than bins."
            )
        weights = self._weights(study, payload)
        number = study.evaluation_number
        again = self._again(study, number, "holdout", request)
        if again is not None:
            return again
        self._check_standing(study)
        content = dump_tensors(self._room(study).histogram(study, weights, edges, self._source))
        release = EvaluateRelease(study=study.rid, member=self.member, payload=sha256_hex(content))
        return self._release(study, number, "holdout", request, release, content)

    def _model(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, ModelDelivery, self._charter.coordinator_key)
        study = self._reserved(header.study)
        self._weights(study, payload)
        self._finish(study).receive(header, payload)
        receipt = ModelReceipt(study=study.rid, member=self.member, card=header.card, model=header.payload)
        return pack(self._identity, receipt)

    def _receipts(self, request: RecordDict) -> RecordDict:
        """Adopt the delivered model, or not: the answer is the same."""
        header, _ = unpack(request, Receipts, self._charter.coordinator_key)
        study = self._reserved(header.study)
        try:
            room = self._room(study)
            self._finish(study).decide(
                header, room.heldout, self._policy.smallest_partners, self._policy.contact_consent
            )
        except ConsilienceError as error:
            logger.warning("study %s: no name list: %s", study.spec.draft.name, error)
        except Exception as error:  # noqa: BLE001 - this depends on customers: whatever it is, the answer must not differ
            logger.error("study %s: no name list: %s", study.spec.draft.name, where(error))
        self._ledger.close(study.rid, "the study ended")
        self._rooms.pop(study.rid, None)
        return pack(self._identity, Acknowledged(study=study.rid, member=self.member))

    def _reserved(self, rid: str) -> OpenStudy:
        """Return a study that was reserved, open or closed; a file alone, left by an offer that was refused, is none."""
        if not self._ledger.has_reservation(rid):
            raise PolicyError("CSL-C511", f"Study {rid[:12]} was not granted here.", "Offer the study first.")
        return self._studies.find(rid)

    def _weights(self, study: OpenStudy, payload: bytes) -> Tensors:
        """Parse weights by name, shape and dtype; refuse NaN, infinity and weights beyond any sensible bound."""
        contract = self._contract(study.spec.draft.contract)
        weights = read_tensors(payload, tensor_shapes(study.spec.draft.model, contract))
        if any(np.abs(tensor).max(initial=0.0) > MAX_WEIGHT for tensor in weights.values()):
            raise IntegrityError(
                "CSL-C514", "The weights are beyond every sensible bound.", "The model has diverged: stop the study."
            )
        return weights

    def _room(self, study: OpenStudy) -> Workroom:
        if study.rid not in self._rooms:
            contract = self._contract(study.spec.draft.contract)
            declaration = self._charter.member(self.member).declaration(contract.name)
            assert declaration is not None
            consent = self._policy.consent_for(study.spec.draft.purpose)
            room = Workroom.read(self._node, contract, declaration, study, consent, self._holdout_key)
            room.note_fault(self._home.folder("studies"), study.rid)
            self._rooms[study.rid] = room
        return self._rooms[study.rid]

    def _finish(self, study: OpenStudy) -> Finish:
        contract = self._contract(study.spec.draft.contract)
        return Finish(self._home, self._charter, self._node, contract, study, self._holdout_key)

    def _again(self, study: OpenStudy, number: int, account: Account, request: RecordDict) -> RecordDict | None:
        """Return the kept reply to this very request; finish its ledger entry when a crash came between the two."""
        known = self._replies.find(study.rid, number)
        if known is None:
            if self._ledger.has_release(study.rid, number):
                raise PolicyError(
                    "CSL-C515", f"Release {number} was made, and its reply is lost.", "Go on with the next round."
                )
            return None
        if known.request != request_digest(request):
            raise PolicyError(
                "CSL-C516",
                f"Release {number} was asked for before, with other content.",
                "Repeat the first request exactly.",
            )
        self._note_release(study, number, account, known.payload)
        return known.records()

    def _release(
        self, study: OpenStudy, number: int, account: Account, request: RecordDict, header: Document, payload: bytes
    ) -> RecordDict:
        """Keep the reply, write the ledger's release entry, and only then let the bytes leave."""
        reply = pack(self._identity, header, payload)
        self._replies.keep(study.rid, number, kept(request, reply))
        self._note_release(study, number, account, payload)
        return reply

    def _note_release(self, study: OpenStudy, number: int, account: Account, payload: bytes) -> None:
        what = {
            "training": f"round {number} of {study.spec.training.rounds}",
            "holdout": "score histograms of held-out customers",
        }
        self._ledger.release(
            study.rid, number, account, what=what[account], sha256=sha256_hex(payload), size=len(payload)
        )


def where(error: BaseException) -> str:
    """Return an unforeseen error's type and the lines that led to it; its text may quote a customer's value and is left out."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
