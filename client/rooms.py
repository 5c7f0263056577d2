"""The data of the studies that are open: each study's are read once, and who takes part is written down before anything is computed."""

from client.config import NodeConfig
from client.gate import Gate
from client.home import Home
from client.participation import consent_digest, record
from client.statistics.room import CountingRoom
from client.studies import Opened, OpenStatistics, OpenStudy
from client.unlock import Keys
from client.withdrawal import Withdrawals
from client.workroom import Workroom
from federation.charter import Charter
from privacy.ledger import Ledger

MOST_ROOMS = 8


class Rooms:
    """The workrooms of one vault, at most eight at a time: of more open studies, the one used longest ago is read again when it goes on."""

    def __init__(self, home: Home, keys: Keys, ledger: Ledger, gate: Gate, charter: Charter, node: NodeConfig) -> None:
        self._home = home
        self._keys = keys
        self._ledger = ledger
        self._gate = gate
        self._charter = charter
        self._node = node
        self._rooms: dict[str, tuple[str, Workroom | CountingRoom]] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def held(self, rid: str) -> Workroom:
        """Return the data that are held for a study of training; KeyError where none are."""
        room = self._rooms[rid][1]
        assert isinstance(room, Workroom)
        return room

    def of(self, study: OpenStudy) -> Workroom:
        """Return a study's data, read once; read anew when customers withdrew or the policy asks for another consent meanwhile."""
        room = self._room(study)
        assert isinstance(room, Workroom)
        return room

    def counting(self, study: OpenStatistics) -> CountingRoom:
        """Return the customers of a statistics study, read as those of `of`."""
        room = self._room(study)
        assert isinstance(room, CountingRoom)
        return room

    def _room(self, study: Opened) -> Workroom | CountingRoom:
        withdrawn = Withdrawals.load(self._home, self._keys.store, self._ledger.state().withdrawn)
        consent = self._gate.policy().consent_for(study.spec.draft.purpose)
        wanted = f"{consent} {withdrawn.version}"
        version, room = self._rooms.pop(study.rid, ("", None))
        if room is None or version != wanted:
            room = None  # the old data go before the new ones come
            room = self._read(study, consent, withdrawn)
        self._rooms[study.rid] = (wanted, room)
        while len(self._rooms) > MOST_ROOMS:
            del self._rooms[next(iter(self._rooms))]
        return room

    def leave(self, rid: str) -> None:
        """Forget the data of a study, if they are held."""
        self._rooms.pop(rid, None)

    def _read(self, study: Opened, consent: str, withdrawn: Withdrawals) -> Workroom | CountingRoom:
        """Read a study's data, and write down who takes part (at home) and a salted digest of their consent (ledger)."""
        draft = study.spec.draft
        contract = self._gate.contract(draft.contract)
        declaration = self._charter.member(self._node.member).declaration(contract.name)
        assert declaration is not None
        room: Workroom | CountingRoom
        if isinstance(study, OpenStatistics):
            room = CountingRoom.read(self._node, contract, declaration, study, consent, withdrawn.excluded)
            taking_part, held_out = room.ids, room.ids[:0]
        else:
            room = Workroom.read(
                self._node, contract, declaration, study, consent, self._keys.holdout, withdrawn.excluded
            )
            taking_part, held_out = room.training_ids, room.heldout.ids
        room.note_fault(self._home.folder("studies"), study.rid)
        record(self._home, self._keys.store, study.rid, taking_part, held_out)
        digest = consent_digest(self._keys.store, room.consented)
        if not (held := self._ledger.reservation(study.rid)) or not held.closed:
            self._ledger.consent(study.rid, purpose=draft.purpose, consent=consent, digest=digest)
        return room
