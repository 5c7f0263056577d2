"""The study loop: the whole way, everything that may go wrong on it, and interruptions at any step."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from federation.encoding import sha256_hex
from federation.errors import DocumentError, FederationError, IntegrityError, StorageError
from federation.messages import (
    RECORD,
    Acknowledged,
    EvaluateRelease,
    Grant,
    TrainRelease,
    TrainRequest,
    dump_tensors,
    load_tensors,
    pack,
    unpack,
)
from federation.study import LogisticModel, MlpModel, Model
from server import roster
from server.checkpoint import Progress, load_checkpoint, save_checkpoint
from server.coordinator import run_study
from server.course import Terms
from server.descent import Descent
from server.events import Delivered, Evaluated, Event, GrantsReceived, LeftOut, Resumed, RosterSettled, RoundDone
from server.exchange import Clock
from server.office import Office
from server.recipe import tune
from server.registry import PublishedModel
from simulations.local_grid import Fault
from tests.server.fakes import ROUNDS, FakeFederation, FakeVault, draft, key_of, refuse, short

HANG = Fault("hang", types=frozenset({"train"}), groups=frozenset({"2"}))


@pytest.fixture
def federation(tmp_path: Path) -> FakeFederation:
    return FakeFederation.make(tmp_path)


def run(
    federation: FakeFederation,
    faults=None,
    stop_at=None,
    derive=None,
    roster_seconds=20.0,
    grant_seconds=0.0,
    clock=None,
    **changes,
) -> PublishedModel:
    def on_event(event: Event) -> None:
        federation.events.append(event)
        if stop_at is not None and stop_at(event):
            raise KeyboardInterrupt

    with federation.grid(faults) as grid:
        return run_study(
            grid,
            draft(**changes),
            federation.office,
            derive=derive or short(),
            on_event=on_event,
            roster_seconds=roster_seconds,
            grant_seconds=grant_seconds,
            nonce=lambda: "ab" * 16,
            clock=clock,
        )


def left_out(federation: FakeFederation) -> dict[tuple[str, int], str]:
    return {(event.who, event.round): event.code for event in federation.happened(LeftOut)}


def test_a_study_ends_with_the_model_in_every_vault(federation: FakeFederation) -> None:
    published = run(federation)
    card = published.card
    assert [item.rounds for item in card.participants] == [ROUNDS] * 4
    assert card.fewest_partners == 4 and card.rounds == ROUNDS
    assert card.overall.informative and card.overall.auc.value > 0.5
    assert all(item.evaluated for item in card.participants)
    assert sha256_hex(published.content) == card.model
    assert federation.happened(Delivered) == [Delivered(("alpha", "beta", "delta", "gamma"), True)]
    for vault in federation.vaults.values():
        assert vault.work == [
            "query.hello",
            "query.offer",
            *["train"] * ROUNDS,
            "evaluate",
            "query.model",
            "query.receipts",
            "query.head",
            "query.cosign",
            "query.cosign",
            "query.cosigned",
        ]
        assert {item.receipt.model for item in vault.seen[0].receipts} == {card.model}
    assert not list((federation.folder / "checkpoints").iterdir())


def test_the_model_is_the_recipes_descent_on_the_weighted_mean_gradient(federation: FakeFederation) -> None:
    published = run(federation)
    vaults = federation.vaults
    noise = {name: 1.0 + vault.size / 1000 for name, vault in vaults.items()}
    weights = {name: max(0.25, min(noise.values()) / value) for name, value in noise.items()}
    terms = Terms.of(published.card.spec, {name: vault.grant(published.card.spec) for name, vault in vaults.items()})
    assert terms.weights == pytest.approx(weights)
    total = sum(weights[name] * 0.5 * vault.size for name, vault in vaults.items())
    state = Descent.start(load_tensors(published.content)["linear.weight"].size)
    for number in range(1, ROUNDS + 1):
        sent = state.broadcast(terms.tuning)
        sums = {name: vault.gradient(number, sent) for name, vault in vaults.items()}
        gradient = {name: sum(weights[m] * sums[m][name].astype(np.float64) for m in sums) / total for name in sent}
        state = state.after(gradient, terms.plan, terms.tuning)
    for name, value in state.model(terms.tuning).items():
        np.testing.assert_allclose(load_tensors(published.content)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["recipe", "fedavgm", "fedadam"])
@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("model", [LogisticModel(kind="logistic"), MlpModel(kind="mlp", hidden=(4,), embedding=2)])
def test_every_mode_and_optimizer_reaches_a_model(tmp_path: Path, mode: str, optimizer: str, model: Model) -> None:
    published = run(FakeFederation.make(tmp_path), mode=mode, server_optimizer=optimizer, model=model)
    assert all(np.isfinite(value).all() for value in load_tensors(published.content).values())
    assert published.card.spec.training.server_optimizer == optimizer


def _train_release(vault: FakeVault, reply: RecordDict, tensors=None, content=None, **changes) -> RecordDict:
    header = TrainRelease.from_canonical(bytes(reply[RECORD]["header"]))
    content = content if content is not None else dump_tensors(tensors)
    return pack(vault.key, header.model_copy(update={"payload": sha256_hex(content), **changes}), content)


def _tensors(reply: RecordDict) -> dict[str, np.ndarray]:
    return load_tensors(bytes(reply[RECORD]["payload"]))


def _renamed(reply: RecordDict) -> dict[str, np.ndarray]:
    return {f"x{name}": value for name, value in _tensors(reply).items()}


GARBAGE = {
    "wrong name": (lambda v, q, r: _train_release(v, r, _renamed(r)), "CSL-S207"),
    "wrong shape": (
        lambda v, q, r: _train_release(v, r, {n: x[..., None] for n, x in _tensors(r).items()}),
        "CSL-S207",
    ),
    "wrong dtype": (
        lambda v, q, r: _train_release(v, r, {n: x.astype(np.float64) for n, x in _tensors(r).items()}),
        "CSL-S207",
    ),
    "NaN": (lambda v, q, r: _train_release(v, r, {n: x * np.nan for n, x in _tensors(r).items()}), "CSL-S207"),
    "not tensors": (lambda v, q, r: _train_release(v, r, content=b"nonsense"), "CSL-S207"),
    "huge": (
        lambda v, q, r: _train_release(v, r, {n: np.full_like(x, 1e30) for n, x in _tensors(r).items()}),
        "CSL-S209",
    ),
    "another round": (lambda v, q, r: _train_release(v, r, _tensors(r), round=99), "CSL-S208"),
    "another study": (lambda v, q, r: _train_release(v, r, _tensors(r), study="0" * 64), "CSL-S208"),
    "another member": (lambda v, q, r: _train_release(v, r, _tensors(r), member="alpha"), "CSL-S208"),
    "another's signature": (
        lambda v, q, r: _train_release(FakeVault("alpha", v.charter, 1), r, _tensors(r)),
        "CSL-S207",
    ),
    "another message": (lambda v, q, r: RecordDict(), "CSL-S207"),
    "refusal": (refuse, "CSL-S206"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_vault_that_answers_garbage_is_left_out_with_a_reason(federation: FakeFederation, name: str) -> None:
    edit, code = GARBAGE[name]
    federation.vaults["gamma"].edits["train"] = edit
    card = run(federation, derive=short(3)).card
    assert {item.member: item.rounds for item in card.participants} == {"alpha": 3, "beta": 3, "delta": 3, "gamma": 0}
    assert left_out(federation) == {("gamma", number): code for number in (1, 2, 3)}
    assert card.fewest_partners == 3


def _counts(vault: FakeVault, reply: RecordDict, counts: np.ndarray | None = None, **changes) -> RecordDict:
    header = EvaluateRelease.from_canonical(bytes(reply[RECORD]["header"]))
    content = bytes(reply[RECORD]["payload"]) if counts is None else dump_tensors({"counts": counts})
    return pack(vault.key, header.model_copy(update={"payload": sha256_hex(content), **changes}), content)


BAD_SCORES = {
    "another study": (lambda v, q, r: _counts(v, r, study="0" * 64), "CSL-S208"),
    "another member": (lambda v, q, r: _counts(v, r, member="alpha"), "CSL-S208"),
    "too many": (lambda v, q, r: _counts(v, r, v.counts(12) + (1 << 42)), "CSL-S209"),
    "far below none": (lambda v, q, r: _counts(v, r, v.counts(12) - (1 << 42)), "CSL-S209"),
    "other bins": (lambda v, q, r: _counts(v, r, v.counts(11)), "CSL-S207"),
    "another's signature": (lambda v, q, r: _counts(FakeVault("alpha", v.charter, 1), r), "CSL-S207"),
    "refusal": (refuse, "CSL-S206"),
}


@pytest.mark.parametrize("name", BAD_SCORES)
def test_scores_that_do_not_fit_are_left_out_with_a_reason(federation: FakeFederation, name: str) -> None:
    edit, code = BAD_SCORES[name]
    federation.vaults["gamma"].edits["evaluate"] = edit
    card = run(federation, derive=short(3)).card
    assert left_out(federation) == {("gamma", 3): code}
    assert [item.member for item in card.members] == ["alpha", "beta", "delta"]


def test_each_member_is_asked_with_its_own_clip_and_counted_with_its_own_noise(
    federation: FakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The recipe gives equal clips to all; the messages must not rely on it.
    monkeypatch.setattr("server.course.tune", lambda *given: replace(tune(*given), clips=(1.0, 2.0, 3.0, 4.0)))
    clips: dict[str, list[float]] = {name: [] for name in federation.vaults}

    def watch(vault: FakeVault, request: RecordDict, reply: RecordDict) -> RecordDict:
        header, _ = unpack(request, TrainRequest, federation.charter.coordinator_key)
        clips[vault.member].append(header.clip)
        return reply

    def noisier(vault: FakeVault, request: RecordDict, reply: RecordDict) -> RecordDict:
        grant = Grant.from_canonical(bytes(reply[RECORD]["header"]))
        return pack(vault.key, grant.model_copy(update={"histogram_sigma": vault.size / 100}))

    for vault in federation.vaults.values():
        vault.edits |= {"train": watch, "query.offer": noisier}
    with pytest.raises(KeyboardInterrupt):
        run(federation, stop_at=lambda event: isinstance(event, Evaluated))
    progress, _ = load_checkpoint(federation.folder / "checkpoints" / "spring.checkpoint", Progress)
    assert {item.member: item.sigma for item in progress.scores} == {
        n: v.size / 100 for n, v in federation.vaults.items()
    }
    terms = Terms.of(progress.spec, {item.grant.member: item.grant for item in progress.grants})
    assert len(set(terms.clips.values())) == 4
    for name, sent in clips.items():
        assert sent == [terms.probe_clips[name]] * 2 + [terms.clips[name]] * (ROUNDS - 2)


@pytest.mark.parametrize(("kind", "code"), [("fail", "CSL-S204"), ("unreachable", "CSL-S205"), ("twice", "CSL-S203")])
def test_a_node_that_fails_in_one_round_is_back_in_the_next(federation: FakeFederation, kind: str, code: str) -> None:
    card = run(federation, {"beta": (Fault(kind, types=frozenset({"train"}), groups=frozenset({"2"})),)}).card
    assert left_out(federation) == {("beta", 2): code}
    assert {item.member: item.rounds for item in card.participants}["beta"] == ROUNDS - 1
    assert card.fewest_partners == 3


def test_a_node_that_hangs_costs_one_deadline_and_not_one_a_round(federation: FakeFederation) -> None:
    hang = Fault("hang", types=frozenset({"train"}))
    card = run(federation, {"beta": (hang,)}, deadline_seconds=1.5).card
    seconds = [event.seconds for event in federation.happened(RoundDone)]
    assert seconds[0] >= 1.5 > max(seconds[1:])
    assert {code for code in left_out(federation).values()} == {"CSL-S202"}
    assert card.fewest_partners == 3


def test_a_lost_reply_spends_once_and_a_late_one_is_not_used(federation: FakeFederation) -> None:
    faults = {"beta": (Fault("lose", types=frozenset({"train"}), groups=frozenset({"1"})),)}
    card = run(federation, faults, deadline_seconds=2.0).card
    assert {item.member: item.rounds for item in card.participants}["beta"] == ROUNDS - 1
    assert federation.vaults["beta"].work.count("train") == ROUNDS


def test_an_error_text_from_a_node_reaches_no_event(federation: FakeFederation) -> None:
    run(federation, {"beta": (Fault("fail", types=frozenset({"train"})),)})
    assert all("ordered" not in event.reason for event in federation.happened(LeftOut))


def test_below_the_quorum_the_study_stops_and_goes_on_later(federation: FakeFederation) -> None:
    faults = {name: (Fault("fail", types=frozenset({"train"}), groups=frozenset({"3"})),) for name in ("alpha", "beta")}
    with pytest.raises(FederationError) as caught:
        run(federation, faults)
    assert caught.value.code == "CSL-S501"
    assert not (federation.folder / "registry").exists()
    card = run(federation).card
    assert federation.happened(Resumed)[0].after_round == 2
    assert card.rounds == ROUNDS and card.fewest_partners == 4


def test_refusals_leave_members_out_and_too_many_stop_the_study(federation: FakeFederation) -> None:
    federation.vaults["alpha"].edits["query.offer"] = refuse
    card = run(federation).card
    assert [item.member for item in card.participants] == ["beta", "delta", "gamma"]
    assert federation.happened(GrantsReceived)[0].declined == ("alpha",)
    assert federation.vaults["alpha"].work[:3] == ["query.hello", "query.offer", "query.head"]
    federation.vaults["beta"].edits["query.offer"] = refuse
    with pytest.raises(FederationError, match="CSL-S503"):
        run(federation, name="summer")


def test_a_study_that_goes_on_waits_only_for_those_who_granted_it(federation: FakeFederation) -> None:
    federation.vaults["alpha"].edits["query.offer"] = refuse
    with pytest.raises(KeyboardInterrupt):
        run(federation, stop_at=lambda event: isinstance(event, RoundDone))
    run(federation, {"alpha": (Fault("hang"),)})
    assert federation.happened(RosterSettled)[-1] == RosterSettled(("beta", "delta", "gamma"), ())


def test_one_member_on_two_nodes_takes_no_part(federation: FakeFederation) -> None:
    with federation.grid() as grid:
        grid._nodes[500] = grid._nodes[federation.node("gamma")]
        card = run_study(
            grid, draft(), federation.office, derive=short(), on_event=federation.events.append, roster_seconds=20.0
        ).card
    assert [item.member for item in card.participants] == ["alpha", "beta", "delta"]
    assert ("gamma", 0) in left_out(federation)


def test_strangers_and_silent_nodes_are_ignored(federation: FakeFederation) -> None:
    impostor = FakeVault(
        "alpha", federation.charter, 1000, {"query.hello": lambda v, q, r: pack(key_of("nobody"), _identity(r))}
    )
    with federation.grid({"beta": (Fault("hang"),)}) as grid:
        grid._nodes[500] = type(grid._nodes[100])(impostor.app(), grid._nodes[100].context, ())
        published = run_study(
            grid, draft(), federation.office, derive=short(), on_event=federation.events.append, roster_seconds=2.0
        )
    assert federation.happened(RosterSettled) == [RosterSettled(("alpha", "delta", "gamma"), ("beta",))]
    assert left_out(federation) == {("node 500", 0): "CSL-S301"}
    assert [item.member for item in published.card.participants] == ["alpha", "delta", "gamma"]


def _identity(reply: RecordDict):
    from federation.messages import Identity

    return Identity.from_canonical(bytes(reply[RECORD]["header"]))


def test_a_node_that_cannot_be_reached_is_asked_again(federation: FakeFederation, monkeypatch) -> None:
    monkeypatch.setattr(roster, "_AGAIN_SECONDS", 0.02)
    node, seen = federation.node("beta"), []
    with federation.grid({"beta": (Fault("unreachable"),)}) as grid:

        def sleep(seconds: float) -> None:
            seen.append(seconds)
            if len(seen) == 20:  # it was asked in vain several times
                grid._nodes[node] = replace(grid._nodes[node], faults=())
            time.sleep(seconds)

        on_event = federation.events.append
        run_study(grid, draft(), federation.office, derive=short(), on_event=on_event, clock=Clock(sleep=sleep))
    assert federation.happened(RosterSettled) == [RosterSettled(("alpha", "beta", "delta", "gamma"), ())]
    assert [(event.who, event.code) for event in federation.happened(LeftOut)] == [(f"node {node}", "CSL-S205")]


def test_too_few_connected_is_said_within_the_time_limit(federation: FakeFederation) -> None:
    with pytest.raises(FederationError, match="CSL-S502"):
        run(federation, {"beta": (Fault("hang"),), "alpha": (Fault("fail"),)}, roster_seconds=0.5)


def test_a_forged_receipt_is_dropped_and_a_differing_one_is_passed_on(federation: FakeFederation) -> None:
    def another_model(vault: FakeVault, request: RecordDict, reply: RecordDict) -> RecordDict:
        from federation.messages import ModelReceipt

        receipt = ModelReceipt.from_canonical(bytes(reply[RECORD]["header"]))
        return pack(vault.key, receipt.model_copy(update={"model": "0" * 64}))

    federation.vaults["alpha"].edits["query.model"] = another_model
    federation.vaults["beta"].edits["query.model"] = lambda v, q, r: pack(
        key_of("nobody"), Acknowledged(study="0" * 64, member="beta")
    )
    run(federation)
    assert federation.happened(Delivered) == [Delivered(("alpha", "delta", "gamma"), False)]
    assert {item.receipt.model for item in federation.vaults["gamma"].seen[0].receipts} > {"0" * 64}


def test_interrupted_anywhere_the_result_is_the_same(tmp_path: Path) -> None:
    whole = FakeFederation.make(tmp_path / "whole")
    reference = run(whole)
    steps = len(whole.events)
    assert steps >= 2 * ROUNDS + 5
    for stop in range(steps):
        federation = FakeFederation.make(tmp_path / str(stop))
        with pytest.raises(KeyboardInterrupt):
            run(federation, stop_at=lambda event, f=federation, n=stop: len(f.events) == n + 1)
        again = run(federation)
        assert again.sealed == reference.sealed and again.content == reference.content
        for vault in federation.vaults.values():
            # Nothing was computed, hence spent, twice; only the roll is called again, with another nonce in real life.
            assert (
                vault.work.count("query.offer") == 1
                and vault.work.count("train") == ROUNDS
                and vault.work.count("evaluate") == 1
            )


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("count", range(1, ROUNDS + 4))
def test_killed_before_or_after_any_checkpoint_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, after: bool
) -> None:
    reference = run(FakeFederation.make(tmp_path / "whole"))
    federation, written = FakeFederation.make(tmp_path / "killed"), []

    def killing(path: Path, progress: Progress, tensors: dict[str, np.ndarray]) -> None:
        written.append(progress.stage)
        if len(written) == count and not after:
            raise KeyboardInterrupt
        save_checkpoint(path, progress, tensors)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr("server.coordinator.save_checkpoint", killing)
    with pytest.raises(KeyboardInterrupt):
        run(federation)
    monkeypatch.undo()
    again = run(federation)
    assert again.sealed == reference.sealed and again.content == reference.content
    assert all(vault.work.count("train") == ROUNDS for vault in federation.vaults.values())


def test_a_checkpoint_of_another_draft_is_not_continued(federation: FakeFederation) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(federation, stop_at=lambda event: isinstance(event, RoundDone))
    with pytest.raises(StorageError, match="CSL-S402"):
        run(federation, epsilon=0.5)


def test_a_draft_that_does_not_fit_names_every_problem(federation: FakeFederation) -> None:
    with pytest.raises(DocumentError) as caught:
        run(federation, contract="other", min_partners=9)
    assert caught.value.code == "CSL-S101"
    assert caught.value.cause.count("\n  ") >= 2
    assert "min_partners" in caught.value.cause and "contract" in caught.value.cause


def test_another_key_than_the_charters_is_refused(federation: FakeFederation) -> None:
    with pytest.raises(IntegrityError, match="CSL-S102"):
        Office(federation.charter, federation.contract, key_of("alpha"), *[federation.folder] * 3)
