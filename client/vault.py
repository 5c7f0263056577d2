"""The vault: the one door between customer data and the federation.

Every request takes the same way: verify -> policy -> reserve -> read -> compute -> keep -> release. What is refused is refused on
public inputs, before data are read; after a grant, a fault in the data yields noise over nobody, never an error that the
coordinator could see. The reply is kept before the ledger's entry and the entry stands before the bytes leave, so that a crash at
any step neither loses a charge nor releases twice. The policy is the one that is in force in the ledger, signed by officers;
a file in the home is none.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from client.config import load_node
from client.decisions import decision_file
from client.finish import Finish
from client.gate import Gate
from client.home import Home, check_unlocked
from client.participation import consent_digest, record
from client.pricing import events_of, price_study
from client.replies import Replies, kept, request_digest
from client.retention import purge
from client.studies import OpenStudy, Studies
from client.unlock import Keys
from client.withdrawal import Withdrawals
from client.witness import Witness
from client.workroom import Workroom
from federation.document import Document
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
from federation.study import CONTEXT
from privacy.ledger import Account, Ledger
from privacy.randomness import RandomSource, SystemSource, require_system

logger = logging.getLogger("consilience.vault")
MAX_WEIGHT = 1e6


class Vault:
    """One institution's vault, opened on its home folder; answers one request at a time."""

    def __init__(
        self,
        home: Home,
        keys: Keys,
        ledger: Ledger,
        source: RandomSource,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        require_system(source)
        check_unlocked(home)
        self._home = home
        self._keys = keys
        self._ledger = ledger
        self._ledger_file = file_at(home.ledger_file)
        self._source = source
        self._sleep = sleep
        self._charter = home.charter()
        self._node = load_node(home.node_file)
        self._gate = Gate(home, self._charter, self._node, ledger)
        self._replies = Replies(home.folder("replies"), keys.store)
        self._studies = Studies(home.folder("studies"))
        self._rooms: dict[str, tuple[str, Workroom]] = {}
        self._refused: dict[tuple[str, str, str], int] = {}
        self._about = ""
        self._lock = threading.Lock()
        if self._charter.member(self._node.member).key != public_hex(keys.identity):
            raise IntegrityError(
                "CSL-C505",
                f"The charter names another key for {self._node.member}.",
                "Install the identity key that the charter names.",
            )
        ledger.check_holdout_key(keys.holdout)
        self._witness = Witness(home, ledger, self._charter, keys.identity, self._node.member)
        self._witness.check_start()
        self._last = _last_entry(ledger)
        self._purge()

    @classmethod
    def open(cls, root: Path, keys: Keys, *, source: RandomSource | None = None) -> "Vault":
        """Open the vault of a home folder; every document is checked before anything is answered.

        Parameters
        ----------
        root:
            The home folder.
        keys:
            The vault's keys, from `client.unlock.unlock`.
        source:
            Randomness of noise and draws: the operating system's unless given; a seeded one is refused.

        Raises
        ------
        ConsilienceError
            When charter, node configuration, ledger or keys are missing or wrong, or the ledger is older than a head that
            others countersigned: fail closed.
        """
        home = Home(root)
        return cls(home, keys, Ledger.open(home.ledger_file, keys.identity), source or SystemSource())

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
            "query.head": self._witness.head,
            "query.cosign": self._witness.cosign,
            "query.cosigned": self._witness.keep,
        }
        started = time.monotonic()
        with self._lock:
            self._about = message_type
            try:
                if message_type not in handlers:
                    raise PolicyError(
                        "CSL-C510",
                        "A message of a type that a vault does not answer.",
                        "Use the message types of the protocol.",
                    )
                self._check_ledger()
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

    def _check_ledger(self) -> None:
        """Refuse while the ledger is an older copy, or no longer the file in the home: somebody restores it while the vault runs."""
        check_unlocked(self._home)
        if file_at(self._home.ledger_file) != self._ledger_file or not self._goes_on():
            raise IntegrityError(
                "CSL-C530", "The ledger's file was exchanged while the vault was running.", "Start the vault again."
            )
        self._witness.check_open()

    def _goes_on(self) -> bool:
        """Whether the entry that was the last one before is still there, and with it, as they are chained, all before it: an older copy
        may be written into the very file."""
        size, leaf = self._last
        same = next(self._ledger.leaves(size - 1, size), None) == leaf
        if same:
            self._last = _last_entry(self._ledger)
        return same

    def _purge(self) -> None:
        """Delete what is older than the policy's retention allows; what cannot be deleted now is tried again next time."""
        policy = self._ledger.policy()
        try:
            if policy is not None:
                purge(self._home, policy.retention, self._ledger)
        except ConsilienceError as error:
            logger.error("what is past its time could not be deleted: %s", error)

    def _refuse(self, error: ConsilienceError, message_type: str) -> RecordDict:
        """Write a refusal down, the very same one once a day, and answer as to every other."""
        logger.warning("refused %.40r: %s", message_type, error)
        try:
            self._check_ledger()  # an old copy must not go on growing
            refusal, day = (error.code, self._about, error.cause), self._ledger.today().toordinal()
            if self._refused.get(refusal) != day:
                self._ledger.refuse(*refusal)
                self._refused = {**dict(list(self._refused.items())[-1000:]), refusal: day}
        except ConsilienceError as unwritten:  # a full disk must not make this refusal look unlike the others
            logger.error("the refusal could not be written down: %s", unwritten)
        return pack(self._keys.identity, Refusal(member=self.member))

    def _wait_for_grid(self, started: float) -> None:
        """Hold a reply back to a coarse time grid, so that its delay says little about the data."""
        try:
            grid = self._gate.policy().reply_grid_seconds
        except ConsilienceError:  # without a policy nothing about data can leave, however long it takes
            return
        if grid > 0:
            self._sleep(-(time.monotonic() - started) % grid)

    def _hello(self, request: RecordDict) -> RecordDict:
        hello, _ = unpack(request, Hello, self._charter.coordinator_key)
        if hello.charter != self._charter.digest():
            raise IntegrityError(
                "CSL-C506", "The coordinator works under another charter.", "Agree on one charter and pin it."
            )
        self._witness.compare(hello.note)
        return pack(self._keys.identity, Identity(member=self.member, charter=hello.charter, nonce=hello.nonce))

    def _offer(self, request: RecordDict) -> RecordDict:
        offer, _ = unpack(request, Offer, self._charter.coordinator_key)
        verify(offer.spec_signature, CONTEXT, offer.spec, self._charter.coordinator_key)
        rid = offer.spec.digest()
        known = self._replies.find(rid, 0)
        if known is not None and self._ledger.has_reservation(rid):
            self._gate.admitted(rid)  # a crash may have come between the grant and this
            return known.records()
        self._about = offer.spec.draft.name
        declaration = self._gate.check_spec(offer.spec)
        terms = self._gate.decide(offer.spec)
        self._gate.check_approved(offer, rid, terms)
        grant = price_study(offer.spec, self.member, declaration, terms)
        reply = pack(self._keys.identity, grant)
        releases: dict[Account, int] = {"training": offer.spec.training.rounds, "holdout": 1}
        # First the ledger: an offer that it refuses leaves no file, and after a crash the same offer finds its reservation again.
        self._ledger.reserve(rid, study=offer.spec.draft.name, charges=events_of(grant), releases=releases, terms=terms)
        self._studies.keep(OpenStudy(spec=offer.spec, grant=grant))
        self._replies.keep(rid, 0, kept(request, reply))
        self._gate.admitted(rid)
        return reply

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
        self._gate.check_standing(study)
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
        self._gate.check_standing(study)
        content = dump_tensors(self._room(study).histogram(study, weights, edges, self._source))
        release = EvaluateRelease(study=study.rid, member=self.member, payload=sha256_hex(content))
        return self._release(study, number, "holdout", request, release, content)

    def _model(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, ModelDelivery, self._charter.coordinator_key)
        study = self._reserved(header.study)
        self._weights(study, payload)
        self._finish(study).receive(header, payload)
        receipt = ModelReceipt(study=study.rid, member=self.member, card=header.card, model=header.payload)
        return pack(self._keys.identity, receipt)

    def _receipts(self, request: RecordDict) -> RecordDict:
        """Adopt the delivered model, or not: the answer is the same. A study that is over is decided on once: asked again, it must not
        put an old model back in use."""
        header, _ = unpack(request, Receipts, self._charter.coordinator_key)
        study = self._reserved(header.study)
        held = self._ledger.reservation(study.rid)
        try:
            if not (held is not None and held.closed and decision_file(self._home, study.rid).exists()):
                room, policy = self._room(study), self._gate.policy()
                self._finish(study).decide(header, room.heldout, policy.smallest_partners, policy.contact_consent)
        except ConsilienceError as error:
            logger.warning("study %s: no name list: %s", study.spec.draft.name, error)
        except Exception as error:  # noqa: BLE001 - this depends on customers: whatever it is, the answer must not differ
            logger.error("study %s: no name list: %s", study.spec.draft.name, where(error))
        self._ledger.close(study.rid, "the study ended")
        self._rooms.pop(study.rid, None)
        self._purge()
        return pack(self._keys.identity, Acknowledged(study=study.rid, member=self.member))

    def _reserved(self, rid: str) -> OpenStudy:
        """Return a study that was reserved, open or closed; a file alone, left by an offer that was refused, is none."""
        if not self._ledger.has_reservation(rid):
            raise PolicyError("CSL-C511", f"Study {rid[:12]} was not granted here.", "Offer the study first.")
        return self._studies.find(rid)

    def _weights(self, study: OpenStudy, payload: bytes) -> Tensors:
        """Parse weights by name, shape and dtype; refuse NaN, infinity and weights beyond any sensible bound."""
        contract = self._gate.contract(study.spec.draft.contract)
        weights = read_tensors(payload, tensor_shapes(study.spec.draft.model, contract))
        if any(np.abs(tensor).max(initial=0.0) > MAX_WEIGHT for tensor in weights.values()):
            raise IntegrityError(
                "CSL-C514", "The weights are beyond every sensible bound.", "The model has diverged: stop the study."
            )
        return weights

    def _room(self, study: OpenStudy) -> Workroom:
        """Return a study's data, read once; read anew when customers withdrew or the policy asks for another consent meanwhile."""
        withdrawn = Withdrawals.load(self._home, self._keys.store, self._ledger.state().withdrawn)
        consent = self._gate.policy().consent_for(study.spec.draft.purpose)
        wanted = f"{consent} {withdrawn.version}"
        version, room = self._rooms.get(study.rid, ("", None))
        if room is None or version != wanted:
            room = self._read(study, consent, withdrawn)
            self._rooms[study.rid] = (wanted, room)
        return room

    def _read(self, study: OpenStudy, consent: str, withdrawn: Withdrawals) -> Workroom:
        """Read a study's data, and write down who takes part (at home) and a salted digest of their consent (ledger)."""
        draft = study.spec.draft
        contract = self._gate.contract(draft.contract)
        declaration = self._charter.member(self.member).declaration(contract.name)
        assert declaration is not None
        room = Workroom.read(self._node, contract, declaration, study, consent, self._keys.holdout, withdrawn.excluded)
        room.note_fault(self._home.folder("studies"), study.rid)
        record(self._home, self._keys.store, study.rid, room.training_ids, room.heldout.ids)
        digest = consent_digest(self._keys.store, room.consented)
        if not (held := self._ledger.reservation(study.rid)) or not held.closed:
            self._ledger.consent(study.rid, purpose=draft.purpose, consent=consent, digest=digest)
        return room

    def _finish(self, study: OpenStudy) -> Finish:
        contract = self._gate.contract(study.spec.draft.contract)
        return Finish(
            self._home,
            self._charter,
            self._node,
            contract,
            study,
            holdout_key=self._keys.holdout,
            store_key=self._keys.store,
        )

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
        reply = pack(self._keys.identity, header, payload)
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


def _last_entry(ledger: Ledger) -> tuple[int, bytes]:
    """Return how many entries a ledger has, and the last one's leaf."""
    state = ledger.state()
    return state.size, bytes.fromhex(state.head)


def file_at(path: Path) -> tuple[int, int] | None:
    """Return which file lies at a path (device and inode), or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
