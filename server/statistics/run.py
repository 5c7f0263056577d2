"""The loop of a statistics study: sign, call the roll, offer, count round by round, report, deliver; checkpointed after every round.

A checkpoint keeps the noisy sums: askers are deterministic, so that telling them the same sums again brings them back to where they were.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from pydantic import Field

from federation.answers import MemberTerms, StatisticsReport
from federation.contract import Name
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import DocumentError, IntegrityError
from federation.measures import Cells, Centres
from federation.messages import ReportDelivery, ReportReceipt, StatisticsGrant, pack, unpack
from federation.signing import Signature
from federation.statistics import StatisticsDraft, StatisticsSpec
from server.checkpoint import Epoch, Kept, damaged, load_checkpoint, save_checkpoint
from server.events import (
    Delivered,
    LeftOut,
    OnEvent,
    Reported,
    Resumed,
    RoundDone,
    RoundStarted,
    StudySigned,
)
from server.exchange import Clock, Failure
from server.gathering import Gathering
from server.grants import declined, unreadable
from server.office import Office
from server.planning import declared_sizes
from server.statistics.grants import SignedStatisticsGrant, accept_statistics_grant
from server.statistics.planning import Schedule, check_statistics, rehearse, setting_of, sign_statistics
from server.statistics.reports import PublishedReport, ReportBook
from server.statistics.rounds import Counting, PlainCounting, SecureCounting, noise_of

Stage = Literal["signed", "granted"]


class RoundSum(Document):
    """Whose vectors are in a round's sum; the sum itself is the checkpoint's tensor `round_<number>`."""

    members: tuple[Name, ...]


class StatisticsProgress(Kept):
    """How far a statistics study has come: `sums` are the rounds that are done."""

    kind: Literal["statistics_progress"] = "statistics_progress"
    spec: StatisticsSpec
    signature: Signature
    stage: Stage
    grants: tuple[SignedStatisticsGrant, ...] = ()
    epoch: Annotated[Epoch | None, Field(exclude_if=lambda value: value is None)] = None
    sums: tuple[RoundSum, ...] = ()


class StatisticsRun:
    """One execution; parameters as of `server.coordinator.run_study`."""

    def __init__(
        self,
        grid: Grid,
        draft: StatisticsDraft,
        office: Office,
        on_event: OnEvent,
        clock: Clock,
        nonce: Callable[[], str],
    ) -> None:
        self._all = Gathering(grid, draft, office, on_event, clock, nonce)
        self._draft = draft
        self._office = office
        self._progress: StatisticsProgress
        self._tensors: dict[str, NDArray[np.int64]] = {}

    def run(self, roster_seconds: float, grant_seconds: float) -> PublishedReport:
        """Run it to its end, or go on where an earlier run was interrupted."""
        self._begin()
        granted = [item.grant.member for item in self._progress.grants]
        self._all.assemble(granted, self._holders(), roster_seconds)
        if self._progress.stage == "signed":
            self._ask_grants(grant_seconds)
        schedule = self._count()
        return self._finish(schedule)

    def _begin(self) -> None:
        known = load_checkpoint(self._all.path, StatisticsProgress)
        if known is None:
            self._sign()
            return
        self._progress, tensors = known
        self._tensors = {name: value.astype(np.int64) for name, value in tensors.items()}
        spec = self._progress.spec
        self._all.check_same(spec)
        if set(self._tensors) != {_tensor(number) for number in range(1, len(self._progress.sums) + 1)}:
            raise damaged(self._all.path)
        done = len(self._progress.sums)
        self._all.on_event(Resumed(self._draft.name, spec.digest(), spec.plan.rounds, done))

    def _sign(self) -> None:
        office, draft = self._office, self._draft
        check_statistics(draft, office.charter, office.contract)
        signed = sign_statistics(draft, office.charter, office.contract, self._all.nonce(), office.key)
        self._progress = StatisticsProgress(spec=signed.spec, signature=signed.signature, stage="signed")
        # Before the first offer: a vault that reserved budget for this study must be asked for no other when we are interrupted now.
        self._save()
        members = tuple(sorted(declared_sizes(office.charter, draft.contract)))
        self._all.on_event(StudySigned(draft.name, signed.spec.digest(), signed.spec.plan.rounds, members))

    def _ask_grants(self, seconds: float) -> None:
        spec, charter = self._progress.spec, self._office.charter

        def accept(answer: RecordDict, member: str) -> SignedStatisticsGrant | Failure:
            return accept_statistics_grant(answer, member, spec, charter)

        grants = self._all.collect_grants(spec, self._progress.signature, accept, seconds)
        self._advance(stage="granted", grants=tuple(grants))

    def _count(self) -> Schedule:
        """Ask for the rounds that are left, each checkpointed before the next begins; return the askers, told of everything."""
        spec = self._progress.spec
        taking_part = self._taking_part()
        counting: Counting | None = None
        if len(self._progress.sums) < spec.plan.rounds:
            counting = self._counting()
            taking_part = self._taking_part()
        sizes = {name: grant.declared_size for name, grant in taking_part.items()}
        setting = setting_of(self._draft, self._office.contract, sizes, spec.plan.share)
        schedule = Schedule(self._draft, setting)
        sensitivity = min(grant.sensitivity for grant in taking_part.values())
        if not self._progress.sums:
            rehearse(self._draft, setting, sensitivity)
        for number in range(1, spec.plan.rounds + 1):
            asked = schedule.ask(number, sensitivity)
            if number > len(self._progress.sums):
                assert counting is not None
                self._ask_round(counting, number, [measure for item in asked for measure in item.measures])
            sd = noise_of(len(self._progress.sums[number - 1].members), spec.plan.share)
            try:
                schedule.tell(asked, self._tensors[_tensor(number)].astype(np.float64), sd)
            except ValueError as error:
                raise damaged(self._all.path) from error
        return schedule

    def _ask_round(self, counting: Counting, number: int, measures: Sequence[Cells | Centres]) -> None:
        all_, rounds, start = self._all, self._progress.spec.plan.rounds, self._all.clock.now()
        asked = counting.line.members
        all_.on_event(RoundStarted(number, rounds, asked))
        sent, received = counting.line.sent, counting.line.received
        done = counting.count(number, measures)
        self._tensors[_tensor(number)] = done.total
        self._advance(sums=(*self._progress.sums, RoundSum(members=done.members)))
        left_out = tuple(sorted(set(asked) - set(done.members)))
        seconds, line = all_.clock.now() - start, counting.line
        all_.on_event(
            RoundDone(
                number,
                rounds,
                done.members,
                left_out,
                seconds,
                line.sent - sent,
                line.received - received,
                done.attempts,
            )
        )

    def _counting(self) -> Counting:
        spec, office, plan = self._progress.spec, self._office, self._progress.spec.secure
        if plan is None:
            line = self._all.line(sorted(self._grants()))
            return PlainCounting(spec, office.contract, office.key, line, self._all.least, self._all.on_event)
        if not self._holders():
            self._set_up()
        grants = self._taking_part()
        sums, line = self._all.secure_sums(spec, sorted(grants))
        return SecureCounting(spec, office.contract, grants, sums, line)

    def _set_up(self) -> None:
        begun = 0 if self._progress.epoch is None else self._progress.epoch.attempt
        self._all.set_up(
            self._progress.spec,
            sorted(self._grants()),
            begun,
            lambda attempt: self._advance(epoch=Epoch(attempt=attempt)),
            lambda done: self._advance(epoch=done),
        )

    def _finish(self, schedule: Schedule) -> PublishedReport:
        """Publish the report, deliver it, drop the checkpoint, and have the vaults' ledgers witnessed."""
        office, all_ = self._office, self._all
        published = ReportBook(office.reports).publish(self._report(schedule), office.key)
        content = published.report.canonical()
        all_.on_event(Reported(published.report.name, published.path, sha256_hex(content)))
        given = self._deliver(content)
        all_.on_event(Delivered(given, True))
        all_.path.unlink(missing_ok=True)
        all_.sum_store.clear()
        all_.desk.run(all_.nodes, all_.ask, all_.nonce, all_.on_event)
        return published

    def _report(self, schedule: Schedule) -> StatisticsReport:
        spec, draft, sums = self._progress.spec, self._draft, self._progress.sums
        members = tuple(
            MemberTerms(
                member=name,
                declared_size=grant.declared_size,
                epsilon=grant.epsilon,
                delta=grant.delta,
                rounds=sum(name in item.members for item in sums),
            )
            for name, grant in sorted(self._taking_part().items())
        )
        return StatisticsReport(
            study=spec.digest(),
            name=draft.name,
            title=draft.title,
            purpose=draft.purpose,
            contract=draft.contract,
            aggregation=draft.aggregation,
            noise=draft.noise,
            confidence=draft.confidence,
            rounds=spec.plan.rounds,
            members=members,
            answers=tuple(asker.answer() for asker in schedule.askers),
        )

    def _deliver(self, content: bytes) -> tuple[str, ...]:
        """Give everybody who granted the report, and return who has it."""
        study, office = self._progress.spec.digest(), self._office
        delivery = ReportDelivery(study=study, payload=sha256_hex(content))
        records = pack(office.key, delivery, content)
        here = sorted(set(self._grants()) & set(self._all.nodes))
        messages = {name: Message(records, self._all.nodes[name], "query.report") for name in here}
        given = []
        for name, answer in self._all.ask(messages).items():
            key = office.charter.member(name).key
            failure = answer if isinstance(answer, Failure) else _refused(answer, name, key, delivery)
            if failure is None:
                given.append(name)
            else:
                self._all.on_event(LeftOut("delivery", 0, name, failure.code, failure.reason))
        return tuple(given)

    def _grants(self) -> dict[str, StatisticsGrant]:
        return {item.grant.member: item.grant for item in self._progress.grants}

    def _taking_part(self) -> dict[str, StatisticsGrant]:
        grants = self._grants()
        return {name: grants[name] for name in self._holders()} or grants

    def _holders(self) -> tuple[str, ...]:
        return () if self._progress.epoch is None else self._progress.epoch.members

    def _advance(self, **changes: Any) -> None:  # noqa: ANN401 - fields of the progress
        self._progress = self._progress.model_copy(update=changes)
        self._save()

    def _save(self) -> None:
        save_checkpoint(self._all.path, self._progress, self._tensors)


def _refused(answer: RecordDict, member: str, key: str, sent: ReportDelivery) -> Failure | None:
    """Return why an answer is no receipt of what was sent; None for one that is."""
    if declined(answer, member, key):
        return Failure("CSL-S206", "declined; its reason stays with it")
    try:
        said, _ = unpack(answer, ReportReceipt, key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)
    if (said.study, said.member, said.report) != (sent.study, member, sent.payload):
        return Failure("CSL-S208", "answered for another study, member or round")
    return None


def _tensor(number: int) -> str:
    return f"round_{number}"
