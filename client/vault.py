"""The vault: the one door between customer data and the federation.

Every request takes the same way: verify -> policy -> reserve -> read -> compute -> keep -> release. What is refused is refused on
public inputs, before data are read; after a grant, a fault in the data yields noise over nobody, never an error that the
coordinator could see. The policy is the one that is in force in the ledger, signed by officers; a file in the home is none. On its
way out every reply is looked at once more by a check that trusts none of the steps before it (`client.outgoing`).
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from flwr.app import RecordDict

from client.config import load_node
from client.endings import Endings, purge_due
from client.gate import Gate
from client.home import Home, check_unlocked
from client.ledger_file import LedgerFile
from client.outgoing import Outgoing
from client.refusals import Refusals
from client.releases import Releases
from client.replies import Replies, kept
from client.rooms import Rooms
from client.rounds import Rounds
from client.secure.calls import sum_answerers
from client.secure.store import FOLDER, Secrets
from client.statistics.rounds import StatisticsRounds
from client.studies import Opened, OpenStatistics, OpenStudy, Studies
from client.throttle import Throttle
from client.unlock import Keys
from client.witness import Witness
from federation.errors import ConsilienceError, IntegrityError, PolicyError, StorageError
from federation.logs import where
from federation.messages import (
    Hello,
    Identity,
    Offer,
    Refusal,
    pack,
    unpack,
)
from federation.signing import public_hex, verify
from federation.statistics import StatisticsSpec
from federation.study import CONTEXT
from privacy.ledger import Account, Ledger
from privacy.randomness import RandomSource, SystemSource, require_system

logger = logging.getLogger("consilience.vault")
ANOTHER_APP = "another app"
MOST_ABOUT = 100  # characters of a message's type, which is whatever the coordinator sends
MOST_LOGGED = 500
Answerer = Callable[[RecordDict], RecordDict]


@dataclass(frozen=True)
class Answered:
    """What a vault's own monitoring may know of a request: nothing about customers.

    `message_type` is one of the protocol's, "another app", or "other"; `code` the refusal's, or None; `waited` the seconds until its turn
    came, `seconds` those until the reply left, time grid included; `account` the one that paid for what was released by it, or None.
    """

    message_type: str
    code: str | None
    waited: float
    seconds: float
    account: Account | None = None


Watch = Callable[[Answered], None]


class Vault:
    """One institution's vault, opened on its home folder; answers one request at a time. A context manager, which closes it.

    Parameters
    ----------
    home, keys, ledger, source:
        As `open`, with the ledger open for writing.
    sleep:
        Waits until a reply's time on the grid.
    throttle:
        How fast requests are answered; None in a process that plays all parties.
    watch:
        Told of every request, for the institution's own monitoring.
    """

    def __init__(
        self,
        home: Home,
        keys: Keys,
        ledger: Ledger,
        source: RandomSource,
        sleep: Callable[[float], None] = time.sleep,
        throttle: Throttle | None = None,
        watch: Watch | None = None,
    ) -> None:
        require_system(source)
        check_unlocked(home)
        self._home = home
        self._keys = keys
        self._ledger = ledger
        self._ledger_file = LedgerFile(home, ledger)
        self._sleep = sleep
        self._throttle = throttle
        self._watch = watch
        self._charter = home.charter()
        self._node = load_node(home.node_file)
        self._gate = Gate(home, self._charter, self._node, ledger)
        self._replies = Replies(home.folder("replies"), keys.store)
        self._studies = Studies(home.folder("studies"))
        self._refusals = Refusals(ledger)
        self._about = ""
        self._account: Account | None = None
        self._closed = False
        self._lock = threading.Lock()
        if self._charter.member(self._node.member).key != public_hex(keys.identity):
            raise IntegrityError(
                "CSL-C505",
                f"The charter names another key for {self._node.member}.",
                "Install the identity key that the charter names.",
            )
        ledger.check_holdout_key(keys.holdout)
        self._rooms = Rooms(home, keys, ledger, self._gate, self._charter, self._node)
        releases = Releases(keys.identity, ledger, self._replies)
        self._rounds = Rounds(
            self._charter.coordinator_key,
            self.member,
            gate=self._gate,
            studies=self._studies,
            releases=releases,
            rooms=self._rooms,
            source=source,
        )
        statistics = StatisticsRounds(
            self._charter.coordinator_key,
            self.member,
            gate=self._gate,
            studies=self._studies,
            releases=releases,
            rooms=self._rooms,
            source=source,
        )
        self._secrets = Secrets(home.folder(FOLDER), keys.store)
        self._outgoing = Outgoing(self.member, public_hex(keys.identity), self._studies, self._gate, self._secrets)
        self._witness = Witness(home, ledger, self._charter, keys.identity, self._node.member)
        self._witness.check_start()
        endings = Endings(
            home,
            keys,
            self._charter,
            self._node,
            ledger=ledger,
            gate=self._gate,
            studies=self._studies,
            rooms=self._rooms,
        )
        self._answerers: dict[str, Answerer] = {
            "query.hello": self._hello,
            "query.offer": self._offer,
            "train": self._rounds.train,
            "evaluate": self._rounds.evaluate,
            "query.measure": statistics.measure,
            "query.report": endings.report,
            "query.model": endings.model,
            "query.receipts": endings.receipts,
            "query.head": self._witness.head,
            "query.cosign": self._witness.cosign,
            "query.cosigned": self._witness.keep,
            **sum_answerers(
                self._charter,
                keys.identity,
                self.member,
                ledger=ledger,
                gate=self._gate,
                studies=self._studies,
                rooms=self._rooms,
                secrets=self._secrets,
                source=source,
            ),
        }
        purge_due(home, ledger)

    @classmethod
    def open(
        cls,
        root: Path,
        keys: Keys,
        *,
        source: RandomSource | None = None,
        throttle: Throttle | None = None,
        watch: Watch | None = None,
    ) -> "Vault":
        """Open the vault of a home folder; every document is checked before anything is answered.

        Parameters
        ----------
        root:
            The home folder.
        keys:
            The vault's keys, from `client.unlock.unlock`.
        source:
            Randomness of noise and draws: the operating system's unless given; a seeded one is refused.
        throttle, watch:
            As the constructor.

        Raises
        ------
        ConsilienceError
            When charter, node configuration, ledger or keys are missing or wrong, or the ledger is older than a head that
            others countersigned: fail closed.
        """
        home = Home(root)
        ledger = Ledger.open(home.ledger_file, keys.identity)
        try:
            return cls(home, keys, ledger, source or SystemSource(), throttle=throttle, watch=watch)
        except BaseException:
            ledger.close_file()
            raise

    def close(self) -> None:
        """Let the request be answered that is at work, sum up refusals that were only counted, and close the ledger; again is no error."""
        with self._lock:
            if not self._closed:
                self._closed = True
                try:
                    if self._refusals.counted:
                        self._settle(self._refusals.close)
                finally:
                    self._ledger.close_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def member(self) -> str:
        """The institution's identifier in the charter."""
        return self._node.member

    @property
    def app(self) -> str | None:
        """The digest of the app that requests must come with, by the charter; None where one process plays all parties."""
        return self._charter.link.app if self._charter.link is not None else None

    def answer(self, message_type: str, request: RecordDict) -> RecordDict:
        """Answer one message; whatever is refused is answered by the same signed refusal, and its reason stays in the ledger.

        Raises
        ------
        StorageError
            CSL-C403 when the vault was closed.
        ConsilienceError
            CSL-C402 when not even the refusal is what it must be.
        """
        return self._guarded(message_type, partial(self._answered, message_type, request))

    def refuse_app(self, digest: str) -> RecordDict:
        """Answer a message that came with another app than `app`, whatever it says: refused, as the ledger tells. Raises as `answer`."""
        return self._guarded(ANOTHER_APP, partial(self._another_app, digest))

    def tidy(self) -> None:
        """Write down what is due while nobody asks: the sum of refusals of an hour that is over. Cheap: call it as often as you like."""
        with self._lock:
            if self._refusals.counted and not self._closed:
                self._settle(self._refusals.settle)

    def _guarded(self, about: str, answer: Callable[[], RecordDict]) -> RecordDict:
        """The boundary: wait for a turn, answer or refuse, and hold the reply back to the time grid."""
        waited = self._throttle.wait() if self._throttle is not None else 0.0
        started, code = time.monotonic(), None
        with self._lock:
            if self._closed:
                raise StorageError("CSL-C403", "The vault was closed.", "Open it again.")
            self._about = about[:MOST_ABOUT]
            try:
                reply = answer()
            except ConsilienceError as error:
                reply, code = self._refuse(error, about), error.code
            except Exception as error:  # noqa: BLE001 - the boundary: a fault of ours must look like any other refusal
                logger.error("internal error: %s", where(error))
                unforeseen = ConsilienceError(
                    "CSL-C525", f"Internal error: {type(error).__name__}.", "Report it with the vault's log."
                )
                reply, code = self._refuse(unforeseen, about), unforeseen.code
            if self._refusals.counted:
                self._settle(self._refusals.settle)
            grid = self._grid()
        if grid > 0:
            self._sleep(-(time.monotonic() - started) % grid)
        if self._watch is not None:
            known = about if about in self._answerers or about == ANOTHER_APP else "other"
            self._watch(Answered(known, code, waited, time.monotonic() - started, None if code else self._account))
        return reply

    def _answered(self, message_type: str, request: RecordDict) -> RecordDict:
        answerer = self._answerers.get(message_type)
        if answerer is None:
            raise PolicyError(
                "CSL-C510",
                "A message of a type that a vault does not answer.",
                "Use the message types of the protocol.",
            )
        self._check_ledger()
        self._account = None
        reply = answerer(request)
        self._account = self._outgoing.check(message_type, request, reply)
        return reply

    def _another_app(self, digest: str) -> RecordDict:
        raise PolicyError(
            "CSL-C401",
            f"A message came with the app {digest[:64]!a}; the charter names {self.app or 'none'}.",
            "Ask the coordinator to send the app that the members agreed on, or agree on another charter.",
        )

    def _check_ledger(self) -> None:
        """Refuse while the ledger is an older copy, or another file than the one in the home."""
        self._ledger_file.check()
        self._witness.check_open()

    def _refuse(self, error: ConsilienceError, message_type: str) -> RecordDict:
        """Write a refusal down, or count it, and answer as to every other."""
        logger.warning("refused %.40r: %.*s", message_type, MOST_LOGGED, error)
        self._settle(partial(self._refusals.note, error.code, self._about, error.cause))
        reply = pack(self._keys.identity, Refusal(member=self.member))
        self._outgoing.check_refusal(reply)
        return reply

    def _settle(self, write: Callable[[], None]) -> None:
        """Write about refusals; a full disk must not make this refusal look unlike the others, and an old copy must not go on growing."""
        try:
            self._check_ledger()
            write()
        except ConsilienceError as unwritten:
            logger.error("refusals could not be written down: %s", unwritten)

    def _grid(self) -> float:
        """Return the coarse time grid to which replies are held back, in seconds, so that their delay says little about the data."""
        try:
            return self._gate.policy().reply_grid_seconds
        except ConsilienceError:  # without a policy nothing about data can leave, however long it takes
            return 0.0

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
        # First the ledger: an offer that it refuses leaves no file, and after a crash the same offer finds its reservation again.
        opened: Opened
        if isinstance(offer.spec, StatisticsSpec):
            opened = OpenStatistics(
                spec=offer.spec, grant=self._gate.reserve_statistics(offer.spec, declaration, terms)
            )
        else:
            opened = OpenStudy(spec=offer.spec, grant=self._gate.reserve(offer.spec, declaration, terms))
        reply = pack(self._keys.identity, opened.grant)
        self._studies.keep(opened)
        self._replies.keep(rid, 0, kept(request, reply))
        self._gate.admitted(rid)
        return reply
