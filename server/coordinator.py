"""The study loop: sign, call the roll, offer, train, evaluate, publish, deliver; checkpointed so that it can be interrupted anywhere.

Every step can be repeated: a vault that has answered a request answers the same request by the same bytes, and spends nothing on it.
"""

import secrets
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from federation.contract import FeatureContract
from federation.encoding import sha256_hex
from federation.messages import Grant, dump_tensors
from federation.study import StudyDraft, Training
from server.checkpoint import Attendance, Epoch, Progress, damaged, load_checkpoint, save_checkpoint
from server.course import Course, Tensors32, restore_course, start_course
from server.delivery import Recipient, deliver
from server.derivation import derive_training, dimension_of
from server.edges import score_edges
from server.events import (
    Delivered,
    Evaluated,
    OnEvent,
    Published,
    Resumed,
    RoundDone,
    RoundStarted,
    StudySigned,
    ignore,
)
from server.exchange import Clock, Failure
from server.gathering import Gathering
from server.grants import SignedGrant, accept_grant
from server.office import ROSTER_SECONDS, Office
from server.planning import check_draft, declared_sizes, sign_study
from server.publication import counted_members, make_card, noise_of
from server.registry import PublishedModel, Registry
from server.rounds import PlainRounds, Rounds
from server.secure.rounds import SecureRounds
from server.strategy import StudyStrategy, partners_of

Derive = Callable[[StudyDraft, Mapping[str, int], FeatureContract], Training]


def fresh_nonce() -> str:
    """Return 32 hexadecimal digits from the operating system's generator."""
    return secrets.token_hex(16)


def run_study(
    grid: Grid,
    draft: StudyDraft,
    office: Office,
    *,
    derive: Derive = derive_training,
    on_event: OnEvent = ignore,
    roster_seconds: float = ROSTER_SECONDS,
    grant_seconds: float = 0.0,
    nonce: Callable[[], str] = fresh_nonce,
    clock: Clock | None = None,
) -> PublishedModel:
    """Run a study from its draft to the model in every vault, or go on where an earlier run of it was interrupted.

    Parameters
    ----------
    grid:
        Flower's grid: the SuperLink's, or one in this process.
    derive:
        Derives the plan from the draft, the declared sizes by member, and the contract.
    on_event:
        Is told of every step, on this thread.
    roster_seconds:
        How long to wait for all members that declare customers for the contract; then the study goes on with those present.
    grant_seconds:
        How long to ask those again who declined, because an officer may have to approve the study; 0 asks once.

    Raises
    ------
    FederationError
        CSL-S501 to CSL-S503, CSL-S601 when too few partners are there, grant, answer, or took part; CSL-S221 to CSL-S224 where vectors are
        added up in secret, as `server.secure`.
    DocumentError
        CSL-S101 when the draft does not fit charter or contract.
    StorageError, IntegrityError
        For the checkpoint (CSL-S401, CSL-S402), a sum that is being made (CSL-S226, CSL-S227) and the registry (CSL-S60x).
    """
    run = _Run(grid, draft, office, derive, on_event, clock or Clock(), nonce)
    run.begin()
    run.assemble(roster_seconds)
    run.ask_grants(grant_seconds)
    run.train_and_evaluate()
    return run.finish()


class _Run:
    """One execution; `_progress` and the course are what the checkpoint holds."""

    def __init__(
        self,
        grid: Grid,
        draft: StudyDraft,
        office: Office,
        derive: Derive,
        on_event: OnEvent,
        clock: Clock,
        nonce: Callable[[], str],
    ) -> None:
        self._all = Gathering(grid, draft, office, on_event, clock, nonce)
        self._draft = draft
        self._office = office
        self._derive = derive
        self._on_event = on_event
        self._clock = clock
        self._path = self._all.path
        self._progress: Progress
        self._course: Course | None = None

    def begin(self) -> None:
        """Load the checkpoint of this study, or plan and sign a new one."""
        known = load_checkpoint(self._path, Progress)
        if known is None:
            self._sign()
        else:
            self._progress, tensors = known
            spec, done = self._progress.spec, self._progress.round
            self._all.check_same(spec)
            self._restore(tensors)
            self._on_event(Resumed(self._draft.name, spec.digest(), spec.training.rounds, done))

    def _restore(self, tensors: Mapping[str, NDArray[np.float64]]) -> None:
        progress = self._progress
        if progress.stage == "signed":
            return
        try:
            self._course = restore_course(
                progress.spec,
                self._taking_part(),
                tensors,
                progress.round,
                progress.averaged,
                self._office.contract,
            )
        except KeyError as error:
            raise damaged(self._path) from error

    def _sign(self) -> None:
        office, draft = self._office, self._draft
        check_draft(draft, office.charter, office.contract)
        sizes = declared_sizes(office.charter, draft.contract)
        training = self._derive(draft, sizes, office.contract)
        signed = sign_study(draft, office.charter, office.contract, training, self._all.nonce(), office.key)
        spec = signed.spec
        self._progress = Progress(spec=spec, signature=signed.signature, stage="signed")
        # Before the first offer: a vault that reserved budget for this study must be asked for no other when we are interrupted now.
        self._save()
        self._on_event(StudySigned(draft.name, spec.digest(), spec.training.rounds, tuple(sorted(sizes))))

    def assemble(self, seconds: float) -> None:
        """Wait for the members that take part: those who granted, if that is settled, else all who declare customers."""
        granted = [item.grant.member for item in self._progress.grants]
        self._all.assemble(granted, self._holders(), seconds)

    def ask_grants(self, seconds: float) -> None:
        """Offer the study to everybody present, and keep the grants that fit.

        Who declines is asked again until the time is over: an institution's officers may have to approve the study first.
        When too few have granted it by then, the same study can be offered at the next run: its checkpoint stays.
        """
        if self._progress.stage != "signed":
            return
        spec, office = self._progress.spec, self._office
        dimension = None if spec.secure is None else dimension_of(spec.draft.model, office.contract)

        def accept(answer: RecordDict, member: str) -> SignedGrant | Failure:
            return accept_grant(answer, member, spec, office.charter, dimension)

        grants = self._all.collect_grants(spec, self._progress.signature, accept, seconds)
        self._course = start_course(spec, {item.grant.member: item.grant for item in grants}, office.contract)
        attendance = tuple(Attendance(member=item.grant.member, rounds=0) for item in grants)
        self._advance(stage="granted", grants=tuple(grants), attendance=attendance)

    def train_and_evaluate(self) -> None:
        """Run the rounds that are left, each checkpointed before the next begins, and ask for score histograms of the finished model."""
        if self._progress.stage == "evaluated" or self._course is None:
            return
        last = self._progress.spec.training.rounds
        rounds = self._plain(self._course) if self._progress.spec.secure is None else self._secure()
        for number in range(self._progress.round + 1, last + 1):
            self._train_round(rounds, number, last)
        self._evaluate(rounds, self._course.model())

    def _plain(self, course: Course) -> Rounds:
        """Return rounds in which each vault releases its own vector."""
        spec, office = self._progress.spec, self._office
        partners = partners_of(office.charter, self._all.nodes, self._grants())
        strategy = StudyStrategy(spec, office.key, partners, course, self._on_event)
        strategy.summary()
        return PlainRounds(strategy, spec.training.rounds, self._all.send, self._all.grid)

    def _secure(self) -> Rounds:
        """Return rounds in which the sum of the vectors alone is opened; the members agree on keys first, if they have not."""
        if not self._holders():
            self._set_up()
        spec, grants = self._progress.spec, self._taking_part()
        sums, line = self._all.secure_sums(spec, sorted(grants))
        return SecureRounds(spec, grants, sums, line)

    def _set_up(self) -> None:
        spec, office = self._progress.spec, self._office
        begun = 0 if self._progress.epoch is None else self._progress.epoch.attempt

        def settle(done: Epoch) -> None:
            self._progress = self._progress.model_copy(update={"epoch": done})
            # Whoever was left out has no say in the clips of the others.
            self._course = start_course(spec, self._taking_part(), office.contract)
            self._save()

        self._all.set_up(
            spec, sorted(self._grants()), begun, lambda attempt: self._advance(epoch=Epoch(attempt=attempt)), settle
        )

    def _train_round(self, rounds: Rounds, number: int, last: int) -> None:
        assert self._course is not None
        start = self._clock.now()
        self._on_event(RoundStarted(number, last, rounds.members))
        done = rounds.train(number, self._course)
        self._course = done.course
        answered = set(done.answered)
        attendance = tuple(
            Attendance(member=item.member, rounds=item.rounds + (item.member in answered))
            for item in self._progress.attendance
        )
        fewest = min(self._progress.fewest or len(answered), len(answered))
        self._advance(round=number, averaged=self._course.averaged, attendance=attendance, fewest=fewest)
        left_out = tuple(sorted(set(rounds.members) - answered))
        seconds = self._clock.now() - start
        self._on_event(
            RoundDone(
                number, last, done.answered, left_out, seconds, done.bytes_sent, done.bytes_received, done.attempts
            )
        )

    def _evaluate(self, rounds: Rounds, model: Tensors32) -> None:
        draft = self._draft
        edges = score_edges(draft.model, self._office.contract, dict(model), draft.evaluation.bins)
        counted = rounds.evaluate(edges, model)
        self._advance(stage="evaluated", edges=edges, scores=counted.scores, score_sum=counted.score_sum)

    def finish(self) -> PublishedModel:
        """Publish the model, deliver it, pass the receipts on, drop the checkpoint, and have the vaults' ledgers witnessed."""
        assert self._course is not None
        model = self._course.model()
        noise = noise_of(self._progress, self._course, self._office.contract)
        card = make_card(self._progress, self._office.charter, sha256_hex(dump_tensors(model)), noise)
        auc = card.overall.auc
        self._on_event(Evaluated(counted_members(self._progress), auc.value, auc.population))
        published = Registry(self._office.registry).publish(card, model, self._office.key)
        self._on_event(Published(card.name, published.folder, card.model))
        recipients = [
            Recipient(member, node, self._office.charter.member(member).key)
            for member, node in sorted(self._all.nodes.items())
            if member in self._grants()
        ]
        receipts = deliver(
            published, recipients, self._office.key, self._all.send, self._draft.deadline_seconds, self._on_event
        )
        wanted = (card.digest(), card.model)
        agreed = all((item.receipt.card, item.receipt.model) == wanted for item in receipts)
        self._on_event(Delivered(tuple(item.receipt.member for item in receipts), agreed))
        self._path.unlink(missing_ok=True)
        self._all.sum_store.clear()
        self._all.desk.run(self._all.nodes, self._all.ask, self._all.nonce, self._on_event)
        return published

    def _grants(self) -> dict[str, Grant]:
        return {item.grant.member: item.grant for item in self._progress.grants}

    def _taking_part(self) -> dict[str, Grant]:
        """Return the grants of those who train: all who granted, or those of them who hold keys."""
        grants = self._grants()
        return {name: grants[name] for name in self._holders()} or grants

    def _holders(self) -> tuple[str, ...]:
        """Return the members that hold keys of a secure study; none before its set-up, or in another study."""
        return () if self._progress.epoch is None else self._progress.epoch.members

    def _advance(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update=changes)
        self._save()

    def _save(self) -> None:
        save_checkpoint(self._path, self._progress, self._course.tensors() if self._course else {})
