"""What every study begins with, whatever it computes: the roll is called, and the study offered to those present."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from federation.errors import FederationError, StorageError
from federation.messages import Grant, Offer, StatisticsGrant, pack
from federation.signing import Signature
from federation.statistics import StatisticsSpec
from federation.study import Draft, StudySpec
from privacy.secure_aggregation.roster import Roster
from server.checkpoint import Epoch
from server.events import GrantsReceived, LeftOut, OnEvent, RosterSettled, SetUpDone
from server.exchange import Answer, Clock, Failure, send, sort_replies
from server.office import Office
from server.planning import declared_sizes, least_partners
from server.roster import RollCall
from server.secure.calls import Line
from server.secure.setup import SetUp, peers_of
from server.secure.store import SumStore
from server.secure.sums import SecureSums
from server.witness import WitnessDesk

# Longer than a node whose SuperNode was killed stays away: the link counts the old one as on line for a minute.
OFFER_PAUSE_SECONDS = 10.0


class Granted(Protocol):
    """A grant as the coordinator keeps it."""

    @property
    def grant(self) -> Grant | StatisticsGrant:
        """What was granted, and by whom."""


G = TypeVar("G", bound=Granted)


class Gathering:
    """The members of one study: who is there, what each granted, and how they are reached.

    Parameters
    ----------
    grid:
        Flower's grid: the SuperLink's, or one in this process.
    draft, office:
        What is to be run, and what the coordinator works with.
    on_event, clock, nonce:
        Is told of every step; time; fresh random texts.
    """

    def __init__(
        self, grid: Grid, draft: Draft, office: Office, on_event: OnEvent, clock: Clock, nonce: Callable[[], str]
    ) -> None:
        self.grid = grid
        self.draft = draft
        self.office = office
        self.on_event = on_event
        self.clock = clock
        self.nonce = nonce
        self.path = office.checkpoints / f"{draft.name}.checkpoint"
        self.sum_store = SumStore(office.checkpoints / f"{draft.name}.sum")
        self.least = least_partners(draft)
        self.desk = WitnessDesk(office.charter, office.key, office.witness)
        self.nodes: dict[str, int] = {}

    def assemble(self, granted: Sequence[str], holders: Sequence[str], seconds: float) -> None:
        """Wait for the members that take part: those who granted, if that is settled, else all who declare customers.

        Raises
        ------
        FederationError
            CSL-S502 when too few are there, or too few of those who hold keys.
        """
        expected = list(granted) or sorted(declared_sizes(self.office.charter, self.draft.contract))
        call = RollCall(
            self.grid, self.office.charter, self.office.key, self.nonce, self.on_event, self.clock, self.desk.note
        )
        self.nodes = call.wait(expected, seconds).nodes
        present = tuple(sorted(self.nodes))
        self.on_event(RosterSettled(present=present, missing=tuple(sorted(set(expected) - set(present)))))
        able = set(present) & set(holders or present)
        if len(able) < self.least:
            raise FederationError(
                "CSL-S502",
                f"{len(able)} members are connected; the study {self.draft.name} needs {self.least}.",
                "Ask the missing institutions to start their nodes, and run the study again.",
            )

    def collect_grants(
        self,
        spec: StudySpec | StatisticsSpec,
        signature: Signature,
        accept: Callable[[RecordDict, str], G | Failure],
        seconds: float,
    ) -> list[G]:
        """Offer the study to everybody present, and return the grants that fit, by member.

        Who declines is asked again until the time is over: an institution's officers may have to approve the study first.

        Raises
        ------
        FederationError
            CSL-S503 when too few granted; the same study can be offered at the next run.
        """
        start = self.clock.now()
        records = pack(self.office.key, Offer(spec=spec, spec_signature=signature))
        found = self._offer(records, sorted(self.nodes), accept)
        while (refused := _declined(found)) and self.clock.now() - start < seconds:
            self.clock.sleep(min(OFFER_PAUSE_SECONDS, seconds))
            found |= self._offer(records, refused, accept)
        grants = [grant for _, grant in sorted(found.items()) if not isinstance(grant, Failure)]
        failures = {member: grant for member, grant in sorted(found.items()) if isinstance(grant, Failure)}
        for member, failure in failures.items():
            self.on_event(LeftOut("offer", 0, member, failure.code, failure.reason))
        names = tuple(item.grant.member for item in grants)
        self.on_event(GrantsReceived(names, tuple(item.grant.epsilon for item in grants), tuple(failures)))
        if len(grants) < self.least:
            raise FederationError(
                "CSL-S503",
                f"{len(grants)} members granted the study {self.draft.name}; it needs {self.least}.",
                "Ask the others for their reason: it stands in their own ledger. Where officers had to approve first, run the study "
                "again once they have.",
            )
        return grants

    def _offer(
        self, records: RecordDict, members: Sequence[str], accept: Callable[[RecordDict, str], G | Failure]
    ) -> dict[str, G | Failure]:
        answers = self.ask({member: Message(records, self.nodes[member], "query.offer") for member in members})
        return {
            member: answer if isinstance(answer, Failure) else accept(answer, member)
            for member, answer in answers.items()
        }

    def set_up(
        self,
        spec: StudySpec | StatisticsSpec,
        members: Sequence[str],
        begun: int,
        note: Callable[[int], None],
        settle: Callable[[Epoch], None],
    ) -> None:
        """Let the members of a secure study agree on keys; `note` keeps each attempt before anybody is asked, `settle` what came of it."""
        start = self.clock.now()
        set_up = SetUp(spec, self.office.charter, self.office.key, self.line(members), self.on_event)
        done = set_up.run(begun, note)
        settle(done)
        self.on_event(SetUpDone(done.members, done.attempt, self.clock.now() - start))

    def check_same(self, spec: StudySpec | StatisticsSpec) -> None:
        """Refuse a checkpoint of something else than what is to be run. Raises StorageError CSL-S402."""
        charter, contract = self.office.charter, self.office.contract
        if (spec.draft, spec.charter, spec.contract_digest) != (self.draft, charter.digest(), contract.digest()):
            raise StorageError(
                "CSL-S402",
                f"{self.path} belongs to another draft, charter or contract.",
                "Finish that study with the draft that it was begun with, or delete the checkpoint to give it up.",
            )

    def secure_sums(self, spec: StudySpec | StatisticsSpec, members: Sequence[str]) -> tuple[SecureSums, Line]:
        """Return how the sums of a secure study come about over the members that hold its keys, and how these are reached."""
        plan = spec.secure
        assert plan is not None
        roster, line = Roster.of(self.office.charter, members, plan.n_min, plan.c), self.line(members)
        sums = SecureSums(
            spec.digest(), roster, plan.share, self.least, self.office.key, line, self.sum_store, self.on_event
        )
        return sums, line

    def line(self, members: Sequence[str]) -> Line:
        """Return how these members are reached."""
        peers = peers_of(self.office.charter, self.nodes, members)
        return Line(peers, self.send, self.draft.deadline_seconds, self.clock)

    def ask(self, messages: Mapping[str, Message]) -> dict[str, Answer]:
        """Ask each member once; return its answer, or why there is none."""
        replies = self.send(list(messages.values()), ())
        answers = sort_replies(list(messages.values()), replies, self.draft.deadline_seconds)
        return {member: answers[message.metadata.dst_node_id] for member, message in messages.items()}

    def send(self, messages: list[Message], doubtful: Collection[int]) -> list[Message]:
        """Send messages and wait for their replies, up to the study's deadline."""
        return send(self.grid, messages, self.draft.deadline_seconds, doubtful, self.clock)


def _declined(answers: Mapping[str, Granted | Failure]) -> list[str]:
    """Return the members that declined in good form, and so may think better of it."""
    return [member for member, item in sorted(answers.items()) if isinstance(item, Failure) and item.code == "CSL-S206"]
