"""How a study ends at the vault: its model is received and adopted or not, or its report is kept; then it is closed, and forgotten."""

import logging

from flwr.app import RecordDict

from client.config import NodeConfig
from client.decisions import decision_file
from client.finish import Finish
from client.gate import Gate
from client.home import Home
from client.reports import FOLDER as REPORTS
from client.reports import Reports
from client.retention import VAULT, erase_secrets, purge
from client.rooms import Rooms
from client.rounds import parse_weights
from client.statistics.delivered import check_report
from client.studies import OpenStudy, Studies
from client.unlock import Keys
from federation.charter import Charter
from federation.errors import ConsilienceError, IntegrityError, PolicyError
from federation.logs import where
from federation.messages import (
    Acknowledged,
    ModelDelivery,
    ModelReceipt,
    Receipts,
    ReportDelivery,
    ReportReceipt,
    pack,
    unpack,
)
from privacy.ledger import Ledger

logger = logging.getLogger("consilience.vault")


class Endings:
    """The last messages of one vault's studies; parameters as of `client.rooms.Rooms` and `client.rounds.Rounds`."""

    def __init__(
        self,
        home: Home,
        keys: Keys,
        charter: Charter,
        node: NodeConfig,
        *,
        ledger: Ledger,
        gate: Gate,
        studies: Studies,
        rooms: Rooms,
    ) -> None:
        self._home = home
        self._keys = keys
        self._identity = keys.identity
        self._charter = charter
        self._node = node
        self._member = node.member
        self._ledger = ledger
        self._gate = gate
        self._studies = studies
        self._rooms = rooms

    def model(self, request: RecordDict) -> RecordDict:
        """Keep a delivered model, and sign which one it is."""
        header, payload = unpack(request, ModelDelivery, self._charter.coordinator_key)
        study = self._reserved(header.study)
        parse_weights(self._gate.contract(study.spec.draft.contract), study, payload)
        self._finish(study).receive(header, payload)
        receipt = ModelReceipt(study=study.rid, member=self._member, card=header.card, model=header.payload)
        return pack(self._identity, receipt)

    def report(self, request: RecordDict) -> RecordDict:
        """Keep what a statistics study found: it is over. The first report that is delivered stays; it may come again, no other.

        Raises
        ------
        IntegrityError
            CSL-C499 for another report than the one that is kept; as `client.statistics.delivered.check_report`.
        """
        header, payload = unpack(request, ReportDelivery, self._charter.coordinator_key)
        if not self._ledger.has_reservation(header.study):
            raise _not_granted(header.study)
        study = self._studies.statistics(header.study)
        report = check_report(study, payload)
        reports = Reports(self._home.folder(REPORTS))
        known = reports.of_study(study.rid)
        if known is not None and known != report:
            raise IntegrityError(
                "CSL-C499",
                "Another report of this study was delivered before.",
                "Send the first one: members compare what they were given.",
            )
        if known is None:
            reports.keep(report)
        self._end(study.rid)
        return pack(self._identity, ReportReceipt(study=study.rid, member=self._member, report=header.payload))

    def _end(self, rid: str) -> None:
        """Close a study: its data are forgotten, its secrets erased, and what is past its time deleted."""
        self._ledger.close(rid, "the study ended")
        self._rooms.leave(rid)
        erase_secrets(self._home, self._ledger, rid, actor=VAULT, role=VAULT)
        purge_due(self._home, self._ledger)

    def receipts(self, request: RecordDict) -> RecordDict:
        """Adopt the delivered model, or not: the answer is the same. A study that is over is decided on once: asked again, it must not
        put an old model back in use."""
        header, _ = unpack(request, Receipts, self._charter.coordinator_key)
        study = self._reserved(header.study)
        held = self._ledger.reservation(study.rid)
        try:
            if not (held is not None and held.closed and decision_file(self._home, study.rid).exists()):
                room, policy = self._rooms.of(study), self._gate.policy()
                self._finish(study).decide(header, room.heldout, policy.smallest_partners, policy.contact_consent)
        except ConsilienceError as error:
            logger.warning("study %s: no name list: %s", study.spec.draft.name, error)
        except Exception as error:  # noqa: BLE001 - this depends on customers: whatever it is, the answer must not differ
            logger.error("study %s: no name list: %s", study.spec.draft.name, where(error))
        self._end(study.rid)
        return pack(self._identity, Acknowledged(study=study.rid, member=self._member))

    def _reserved(self, rid: str) -> OpenStudy:
        """Return a study that was reserved, open or closed; a file alone, left by an offer that was refused, is none."""
        if not self._ledger.has_reservation(rid):
            raise _not_granted(rid)
        return self._studies.find(rid)

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


def purge_due(home: Home, ledger: Ledger) -> None:
    """Delete what is older than the policy's retention allows; what cannot be deleted now is tried again next time."""
    policy = ledger.policy()
    try:
        if policy is not None:
            purge(home, policy.retention, ledger)
    except ConsilienceError as error:
        logger.error("what is past its time could not be deleted: %s", error)


def _not_granted(rid: str) -> PolicyError:
    return PolicyError("CSL-C511", f"Study {rid[:12]} was not granted here.", "Offer the study first.")
