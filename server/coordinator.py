"""The study loop: sign, call the roll, offer, train, evaluate, publish, deliver; checkpointed so that it can be interrupted anywhere.

Every step can be repeated: a vault that has answered a request answers the same request by the same bytes, and spends nothing on it.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from federation.charter import Charter
from federation.contract import FeatureContract
from federation.encoding import sha256_hex
from federation.errors import FederationError, IntegrityError, StorageError
from federation.messages import Offer, dump_tensors, pack
from federation.networks import build, weights_of
from federation.signing import public_hex
from federation.study import StudyDraft
from server.checkpoint import Attendance, Progress, load_checkpoint, save_checkpoint
from server.delivery import Recipient, deliver
from server.edges import score_edges
from server.events import (
    Delivered,
    Evaluated,
    GrantsReceived,
    LeftOut,
    OnEvent,
    Published,
    Resumed,
    RosterSettled,
    RoundDone,
    RoundStarted,
    StudySigned,
    ignore,
)
from server.exchange import Answer, Clock, Failure, send, size_of, sort_replies
from server.grants import SignedGrant, accept_grant
from server.optimizer import ServerState
from server.planning import check_draft, declared_sizes, sign_study
from server.publication import make_card
from server.registry import PublishedModel, Registry
from server.roster import RollCall
from server.strategy import StudyStrategy, partners_of, to_arrays
from server.tuning import Recipe

ROSTER_SECONDS = 60.0


def fresh_nonce() -> str:
    """Return 32 hexadecimal digits from the operating system's generator."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Office:
    """What the coordinator works with: the charter, the study's contract, its own key, and its folders.

    Raises
    ------
    IntegrityError
        CSL-S102 when the charter names another coordinator key.
    """

    charter: Charter
    contract: FeatureContract
    key: Ed25519PrivateKey
    checkpoints: Path
    registry: Path

    def __post_init__(self) -> None:
        if public_hex(self.key) != self.charter.coordinator_key:
            raise IntegrityError(
                "CSL-S102", "The charter names another key for the coordinator.", "Install the key that the members' charter names."
            )


def run_study(
    grid: Grid,
    draft: StudyDraft,
    office: Office,
    recipe: Recipe,
    *,
    on_event: OnEvent = ignore,
    roster_seconds: float = ROSTER_SECONDS,
    nonce: Callable[[], str] = fresh_nonce,
    clock: Clock | None = None,
) -> PublishedModel:
    """Run a study from its draft to the model in every vault, or go on where an earlier run of it was interrupted.

    Parameters
    ----------
    grid:
        Flower's grid: the SuperLink's, or one in this process.
    recipe:
        Derives the plan and the tuning from public quantities.
    on_event:
        Is told of every step, on this thread.
    roster_seconds:
        How long to wait for all members that declare customers for the contract; then the study goes on with those present.

    Raises
    ------
    FederationError
        CSL-S501 to CSL-S503, CSL-S601 when too few partners are there, grant, answer, or took part.
    DocumentError
        CSL-S101 when the draft does not fit charter or contract.
    StorageError, IntegrityError
        For the checkpoint (CSL-S401, CSL-S402) and the registry (CSL-S60x).
    """
    run = _Run(grid, draft, office, recipe, on_event, clock or Clock(), nonce)
    run.begin()
    run.assemble(roster_seconds)
    run.ask_grants()
    run.train()
    run.evaluate()
    return run.finish()


class _Run:
    """One execution; `_progress` and `_state` are what the checkpoint holds."""

    def __init__(
        self,
        grid: Grid,
        draft: StudyDraft,
        office: Office,
        recipe: Recipe,
        on_event: OnEvent,
        clock: Clock,
        nonce: Callable[[], str],
    ) -> None:
        self._grid = grid
        self._draft = draft
        self._office = office
        self._recipe = recipe
        self._on_event = on_event
        self._clock = clock
        self._nonce = nonce
        self._path = office.checkpoints / f"{draft.name}.checkpoint"
        self._nodes: dict[str, int] = {}
        self._progress: Progress
        self._state: ServerState
        self._study: str

    def begin(self) -> None:
        """Load the checkpoint of this study, or plan and sign a new one."""
        known = load_checkpoint(self._path)
        if known is None:
            self._sign()
        else:
            self._progress, self._state = known
            self._check_same()
            self._study = self._progress.spec.digest()
            rounds = self._progress.spec.training.rounds
            self._on_event(Resumed(self._draft.name, self._study, rounds, self._progress.round))

    def _sign(self) -> None:
        office, draft = self._office, self._draft
        check_draft(draft, office.charter, office.contract)
        sizes = declared_sizes(office.charter, draft.contract)
        training = self._recipe.plan(draft, sizes, office.contract)
        signed = sign_study(draft, office.charter, office.contract, training, self._nonce(), office.key)
        spec = signed.spec
        self._study = spec.digest()
        self._progress = Progress(spec=spec, signature=signed.signature, stage="signed")
        self._state = ServerState.start(weights_of(build(draft.model, office.contract)))
        # Before the first offer: a vault that reserved budget for this study must be asked for no other when we are interrupted now.
        self._save()
        self._on_event(StudySigned(draft.name, self._study, spec.training.rounds, tuple(sorted(sizes))))

    def _check_same(self) -> None:
        spec, charter = self._progress.spec, self._office.charter
        if (spec.draft, spec.charter, spec.contract_digest) != (self._draft, charter.digest(), self._office.contract.digest()):
            raise StorageError(
                "CSL-S402",
                f"{self._path} belongs to another draft, charter or contract.",
                "Finish that study with the draft that it was begun with, or delete the checkpoint to give it up.",
            )

    def assemble(self, seconds: float) -> None:
        """Wait for the members that take part: those who granted, if that is settled, else all who declare customers."""
        spec = self._progress.spec
        granted = [item.grant.member for item in self._progress.grants]
        expected = granted or sorted(declared_sizes(self._office.charter, spec.draft.contract))
        call = RollCall(self._grid, self._office.charter, self._office.key, self._nonce, self._on_event, self._clock)
        self._nodes = call.wait(expected, seconds).nodes
        present = tuple(sorted(self._nodes))
        self._on_event(RosterSettled(present=present, missing=tuple(sorted(set(expected) - set(present)))))
        self._need(present, "CSL-S502", "are connected", "Ask the missing institutions to start their nodes, and run the study again.")

    def ask_grants(self) -> None:
        """Offer the study to everybody present, and keep the grants that fit."""
        if self._progress.stage != "signed":
            return
        spec = self._progress.spec
        offer = Offer(spec=spec, spec_signature=self._progress.signature)
        records = pack(self._office.key, offer)
        answers = self._ask({member: Message(records, node, "query.offer") for member, node in self._nodes.items()})
        grants: list[SignedGrant] = []
        declined: list[str] = []
        for member, answer in sorted(answers.items()):
            grant = answer if isinstance(answer, Failure) else accept_grant(answer, member, spec, self._office.charter)
            if isinstance(grant, Failure):
                declined.append(member)
                self._on_event(LeftOut("offer", 0, member, grant.code, grant.reason))
            else:
                grants.append(grant)
        names = tuple(item.grant.member for item in grants)
        self._on_event(GrantsReceived(names, tuple(item.grant.epsilon for item in grants), tuple(declined)))
        self._need(names, "CSL-S503", "granted the study", "Ask the others for their reason: it stands in their own ledger.")
        self._advance(stage="granted", grants=tuple(grants), attendance=tuple(Attendance(member=name, rounds=0) for name in names))

    def train(self) -> None:
        """Run the rounds that are left; each is checkpointed before the next begins."""
        self._strategy = self._make_strategy()
        self._strategy.summary()
        spec = self._progress.spec
        for number in range(self._progress.round + 1, spec.training.rounds + 1):
            self._train_round(self._strategy, number, spec.training.rounds)

    def _make_strategy(self) -> StudyStrategy:
        spec, office = self._progress.spec, self._office
        grants = {item.grant.member: item.grant for item in self._progress.grants}
        sigmas = {member: grant.histogram_sigma for member, grant in grants.items()}
        partners = partners_of(spec, office.charter, self._nodes, sigmas)
        tuning = self._recipe.tune(spec, grants, office.contract)
        shapes = {name: (tuple(value.shape), "float32") for name, value in self._state.weights.items()}
        return StudyStrategy(spec, office.key, partners, tuning, shapes, self._state, self._on_event)

    def _train_round(self, strategy: StudyStrategy, number: int, rounds: int) -> None:
        start = self._clock.now()
        asked = strategy.configure_train(number, to_arrays(self._state.broadcast()), ConfigRecord(), self._grid)
        partners = strategy.members
        self._on_event(RoundStarted(number, rounds, partners))
        replies = self._send(asked, strategy.silent)
        strategy.aggregate_train(number, replies)
        self._state = strategy.state
        answered = set(strategy.answered)
        attendance = tuple(
            Attendance(member=item.member, rounds=item.rounds + (item.member in answered)) for item in self._progress.attendance
        )
        fewest = min(self._progress.fewest or len(answered), len(answered))
        self._advance(round=number, attendance=attendance, fewest=fewest)
        left_out = tuple(sorted(set(partners) - answered))
        seconds = self._clock.now() - start
        self._on_event(RoundDone(number, rounds, strategy.answered, left_out, seconds, size_of(asked), size_of(replies)))

    def evaluate(self) -> None:
        """Ask for score histograms of the finished model."""
        if self._progress.stage == "evaluated":
            return
        draft = self._draft
        model = self._state.model()
        edges = score_edges(draft.model, self._office.contract, dict(model), draft.evaluation.bins)
        self._strategy.ask_for_scores(edges)
        rounds = self._progress.spec.training.rounds
        asked = self._strategy.configure_evaluate(rounds, to_arrays(model), ConfigRecord(), self._grid)
        self._strategy.aggregate_evaluate(rounds, self._send(asked, self._strategy.silent))
        self._advance(stage="evaluated", edges=edges, scores=self._strategy.scores)

    def finish(self) -> PublishedModel:
        """Publish the model, deliver it, pass the receipts on, and drop the checkpoint."""
        model = self._state.model()
        card = make_card(self._progress, self._office.charter, sha256_hex(dump_tensors(model)))
        auc = card.overall.auc
        self._on_event(Evaluated(tuple(item.member for item in card.members), auc.value, auc.population))
        published = Registry(self._office.registry).publish(card, model, self._office.key)
        self._on_event(Published(card.name, published.folder, card.model))
        recipients = [
            Recipient(member, node, self._office.charter.member(member).key)
            for member, node in sorted(self._nodes.items())
            if any(item.grant.member == member for item in self._progress.grants)
        ]
        receipts = deliver(published, recipients, self._office.key, self._send, self._draft.deadline_seconds, self._on_event)
        wanted = (card.digest(), card.model)
        agreed = all((item.receipt.card, item.receipt.model) == wanted for item in receipts)
        self._on_event(Delivered(tuple(item.receipt.member for item in receipts), agreed))
        self._path.unlink(missing_ok=True)
        return published

    def _ask(self, messages: Mapping[str, Message]) -> dict[str, Answer]:
        replies = self._send(list(messages.values()), ())
        answers = sort_replies(list(messages.values()), replies, self._draft.deadline_seconds)
        return {member: answers[message.metadata.dst_node_id] for member, message in messages.items()}

    def _send(self, messages: list[Message], doubtful: Collection[int]) -> list[Message]:
        return send(self._grid, messages, self._draft.deadline_seconds, doubtful, self._clock)

    def _need(self, members: tuple[str, ...], code: str, what: str, action: str) -> None:
        least = self._draft.min_partners
        if len(members) < least:
            raise FederationError(code, f"{len(members)} members {what}; the study {self._draft.name} needs {least}.", action)

    def _advance(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update=changes)
        self._save()

    def _save(self) -> None:
        save_checkpoint(self._path, self._progress, self._state)
