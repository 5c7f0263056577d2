"""Runs a whole secure study over fake vaults, and stops the coordinator where a test says."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flwr.app import Message

from federation.encoding import sha256_hex
from federation.messages import TrainRequest, dump_tensors
from federation.study import LogisticModel
from privacy.secure_aggregation.roster import Roster
from server.checkpoint import Epoch
from server.coordinator import run_study
from server.derivation import dimension_of
from server.events import Event, LeftOut
from server.exchange import send
from server.planning import sign_study
from server.registry import PublishedModel
from server.secure.calls import Line
from server.secure.setup import SetUp, peers_of
from server.secure.store import SumStore
from server.secure.sums import Opened, SecureSums, SumTerms
from simulations.local_grid import Fault, LocalGrid
from tests.privacy.secure_aggregation.reference import plain_sum
from tests.server.fakes import FakeFederation, contract, draft, key_of, short
from tests.server.secure.vaults import SecureVault

ROUNDS = 3
WIDTH = dimension_of(LogisticModel(kind="logistic"), contract()) - 1
TERMS: dict[str, object] = {"aggregation": "secure", "noise": "shared", "n_min": 3, "c": 0}


class Killed(KeyboardInterrupt):
    """The coordinator's process ends here."""


def run(
    federation: FakeFederation,
    faults: Mapping[str, tuple[Fault, ...]] | None = None,
    *,
    stop_at: Callable[[Event], bool] | None = None,
    kill: tuple[int, bool] | None = None,
    rounds: int = ROUNDS,
    roster_seconds: float = 20.0,
    **changes: object,
) -> PublishedModel:
    """Run the study; `kill` ends it before (False) or after (True) the requests of the n-th exchange are out."""

    def on_event(event: Event) -> None:
        federation.events.append(event)
        if stop_at is not None and stop_at(event):
            raise Killed

    with federation.grid(faults) as grid:
        if kill is not None:
            _kill(grid, *kill)
        return run_study(
            grid,
            draft(**{**TERMS, "deadline_seconds": 3.0, **changes}),
            federation.office,
            derive=short(rounds),
            on_event=on_event,
            roster_seconds=roster_seconds,
            nonce=lambda: "ab" * 16,
        )


def _kill(grid: LocalGrid, count: int, after: bool) -> None:
    push, seen = grid.push_messages, [0]

    def killing(messages: Iterable[Message]) -> Iterable[str]:
        seen[0] += 1
        if seen[0] == count and not after:
            raise Killed
        pushed = push(messages)
        if seen[0] == count:
            raise Killed
        return pushed

    grid.push_messages = killing  # type: ignore[method-assign]


def left_out(federation: FakeFederation) -> set[tuple[str, int, str]]:
    """Who was left out, in which round, by which code."""
    return {(event.who, event.round, event.code) for event in federation.happened(LeftOut)}


class Bench:
    """Set-up and single sums over fake vaults, without a study around them."""

    def __init__(self, federation: FakeFederation, seconds: float = 3.0, **changes: object) -> None:
        study = draft(**{**TERMS, **changes})
        training = short(ROUNDS)(study, {}, contract())
        charter = federation.charter
        self.spec = sign_study(study, charter, contract(), training, "0" * 32, key_of("coordinator")).spec
        self.federation = federation
        self.seconds = seconds
        self.attempt = 0
        self.members: tuple[str, ...] = ()
        for vault in federation.vaults.values():
            assert isinstance(vault, SecureVault)
            vault.agree(self.spec)

    def set_up(self, faults: Mapping[str, tuple[Fault, ...]] | None = None) -> Epoch:
        """Let the members agree on keys."""
        with self.federation.grid(faults) as grid:
            line = self._line(grid, sorted(self.federation.vaults))
            charter, key = self.federation.charter, key_of("coordinator")
            epoch = SetUp(self.spec, charter, key, line, self.federation.events.append).run(self.attempt, self._note)
        self.members = epoch.members
        return epoch

    def sum(self, faults: Mapping[str, tuple[Fault, ...]] | None = None, number: int = 2, x_max: float = 1e7) -> Opened:
        """Make one sum of gradients at zero; each member is asked with a clip of its own."""
        plan, charter = self.spec.secure, self.federation.charter
        assert plan is not None
        weights = {
            name: np.zeros(shape, np.float32)
            for name, shape in {"linear.weight": (1, WIDTH), "linear.bias": (1,)}.items()
        }
        payload = dump_tensors(weights)
        requests = {
            name: TrainRequest(
                study=self.spec.digest(),
                round=number,
                clip=1.0 + place / 8,
                learning_rate=1.0,
                weight=1.0 - place / 8,
                payload=sha256_hex(payload),
            )
            for place, name in enumerate(self.members)
        }
        terms = SumTerms(number, f"round {number}", WIDTH + 1, 500.0, x_max)
        with self.federation.grid(faults) as grid:
            sums = SecureSums(
                self.spec.digest(),
                Roster.of(charter, self.members, plan.n_min, plan.c),
                plan.share,
                self.spec.draft.min_partners,
                key_of("coordinator"),
                self._line(grid, self.members),
                self.store,
                self.federation.events.append,
            )
            return sums.sum(terms, requests, payload)

    def plain(self, members: Iterable[str], number: int = 2) -> np.ndarray:
        """The sum of the members' own vectors."""
        return plain_sum([self.federation.vaults[name].vectors[number] for name in members])  # type: ignore[attr-defined]

    @property
    def store(self) -> SumStore:
        return SumStore(self.federation.folder / "checkpoints" / "bench.sum")

    def _note(self, attempt: int) -> None:
        self.attempt = attempt

    def _line(self, grid: LocalGrid, members: Iterable[str]) -> Line:
        nodes = {name: self.federation.node(name) for name in members}
        peers = peers_of(self.federation.charter, nodes, sorted(nodes))
        return Line(peers, lambda messages, doubtful: send(grid, messages, self.seconds, doubtful), self.seconds)
