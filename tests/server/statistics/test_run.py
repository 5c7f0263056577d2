"""The coordinator's loop over real vaults in one process: plain and in secret, interrupted and resumed, with liars and drop-outs."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from client.app import VaultShelf, make_app
from client.reports import Reports
from federation.errors import ConsilienceError, FederationError, StorageError
from federation.messages import StatisticsRelease, dump_tensors, pack, unpack
from privacy.ledger import LedgerReader
from server.events import Delivered, LeftOut, Reported, Resumed, RoundDone
from server.office import Office
from server.running import run_any
from server.statistics import run as run_module
from server.statistics.reports import ReportBook
from simulations.local_grid import Fault, LocalGrid
from tests.client import vault_home
from tests.client.statistics.town import RULE, draft
from tests.client.vault_home import CONTRACT, Town

MEMBERS = ("alder", "birch", "cedar", "dogwood", "elm")
SECURE = {"aggregation": "secure", "noise": "shared", "n_min": 3, "c": 0}
AGREED = 5 * 360
"""Customers of the five who agreed to profiling: nine of ten of 400 each."""


class Play:
    """A town of five, and its coordinator's folders."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vault_home, "MEMBERS", MEMBERS)
        self.town: Town = vault_home.found(root / "town")
        for member in MEMBERS:
            self.town.change(member, statistics=[RULE], secure={"n_min": 3, "c": 0, "noise": ["local", "shared"]})
        self.root = root
        self.office = Office(
            charter=self.town.charter,
            contract=CONTRACT,
            key=self.town.coordinator,
            checkpoints=root / "checkpoints",
            registry=root / "registry",
            witness=root / "witness",
        )
        self.events: list[object] = []

    def run(self, asked, faults=None):  # type: ignore[no-untyped-def]
        with VaultShelf() as shelf:
            app = make_app(shelf)
            nodes = {
                number: (app, {"home": str(self.town.homes[name].root)}) for number, name in enumerate(MEMBERS, start=1)
            }
            with LocalGrid(nodes, faults=faults) as grid:
                return run_any(grid, asked, self.office, on_event=self.events.append, roster_seconds=5.0)

    def of(self, kind):  # type: ignore[no-untyped-def]
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def play(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    return Play(tmp_path, monkeypatch)


@pytest.mark.parametrize("terms", [{}, SECURE])
def test_a_study_from_draft_to_a_report_in_every_vault(play, terms):
    published = play.run(draft(min_partners=3, deadline_seconds=20.0, **terms))
    report = published.report
    assert [item.member for item in report.members] == list(MEMBERS)
    assert all(item.rounds == report.rounds for item in report.members)
    table = report.answer("customers").tables[0]
    total = sum(row.value or 0.0 for row in table.rows)
    half = max((row.high or 0.0) - (row.low or 0.0) for row in table.rows)
    assert half > 0
    assert abs(total - AGREED) < 6 * half
    (reported,), (delivered,) = play.of(Reported), play.of(Delivered)
    assert reported.path == published.path
    assert delivered.receipts == MEMBERS
    for home in play.town.homes.values():
        assert Reports(home.folder("reports")).newest("shop", "count").report == report
    assert ReportBook(play.office.reports).load(published.path.name.removesuffix(".report.json")) == published
    assert not list(play.office.checkpoints.glob("people.*"))
    for member in MEMBERS:
        with LedgerReader.read(play.town.homes[member].ledger_file, play.town.key(member)) as reader:
            kinds = [entry.body.kind for entry in reader.entries()]
        assert kinds.count("reserve") == kinds.count("close") == 1
        assert kinds.count("release") == 2 * report.rounds


@pytest.mark.parametrize("terms", [{}, SECURE])
def test_an_interrupted_study_goes_on_and_pays_once(play, terms, monkeypatch):
    """Stopped after its last round was checkpointed: the next run asks nobody for sums again, and gives the report of those sums."""
    asked = draft(min_partners=3, deadline_seconds=20.0, **terms)

    def stop(self, schedule):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module.StatisticsRun, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            play.run(asked)
    done = len(play.of(RoundDone))
    report = play.run(asked).report
    assert len(play.of(RoundDone)) == done
    assert play.of(Resumed)[0].after_round == done == report.rounds
    for member in MEMBERS:
        with LedgerReader.read(play.town.homes[member].ledger_file, play.town.key(member)) as reader:
            assert [entry.body.kind for entry in reader.entries()].count("reserve") == 1


def test_a_checkpoint_of_another_draft_is_not_gone_on_with(play, monkeypatch):
    def stop(self, schedule):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module.StatisticsRun, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            play.run(draft())
    with pytest.raises(StorageError, match="CSL-S402"):
        play.run(draft(title="Another title"))


def test_who_fails_or_lies_is_left_out_while_enough_remain(play):
    def alter(reply: Message) -> Message:
        header, _ = unpack(reply.content, StatisticsRelease, play.town.key("birch"))
        content = dump_tensors({"sums": np.zeros(2, np.int64)})
        liar = vault_home.load_identity(play.town.homes["birch"].identity_key, allow_plain=True)
        reply.content = pack(liar, header.model_copy(update={"payload": vault_home.sha256_hex(content)}), content)
        return reply

    types = frozenset({"query.measure"})
    faults = {1: (Fault("fail", types=types),), 2: (Fault("alter", types=types, change=alter),)}
    report = play.run(draft(min_partners=3), faults).report
    rounds = {item.member: item.rounds for item in report.members}
    assert rounds == {"alder": 0, "birch": 0, "cedar": 1, "dogwood": 1, "elm": 1}
    assert {event.who: event.code for event in play.of(LeftOut)} == {"alder": "CSL-S204", "birch": "CSL-S207"}
    total = sum(row.value or 0.0 for row in report.answer("customers").tables[0].rows)
    assert abs(total - 3 * 360) < 6 * 200


def test_below_the_smallest_number_of_partners_nothing_is_reported(play):
    faults = {number: (Fault("fail", types=frozenset({"query.measure"})),) for number in (1, 2, 3)}
    with pytest.raises(FederationError, match="CSL-S501"):
        play.run(draft(min_partners=3), faults)
    assert play.run(draft(min_partners=3)).report.rounds == 1  # goes on from its checkpoint, at nobody's expense


def test_accuracy_beyond_the_budget_says_what_it_would_need(play):
    queries = [{"id": "n", "kind": "count", "accuracy": {"within": 0.01}}]
    with pytest.raises(ConsilienceError, match="CSL-S780") as caught:
        play.run(draft(queries=queries))
    assert "times its epsilon" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": [{"id": "a", "kind": "mean", "of": "agee"}]}, "agee is no column"),
        ({"queries": [{"id": "a", "kind": "count", "by": [{"column": "age"}]}]}, "cuts"),
        (
            {"queries": [{"id": "a", "kind": "count", "where": [{"column": "bought", "any_of": ["yes"]}]}]},
            "is the label",
        ),
        ({"min_partners": 6}, "6 are needed"),
        ({"queries": [{"id": "a", "kind": "mean", "of": "job"}]}, "job"),
    ],
)
def test_a_draft_that_does_not_fit_is_refused_before_anybody_is_asked(play, changes, words):
    with pytest.raises(ConsilienceError, match="CSL-S101") as caught:
        play.run(draft(**changes))
    assert words in str(caught.value)
    assert play.events == []
