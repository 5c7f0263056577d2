"""Members that are silent, fail or are away at any of the calls: who is left out, what goes on, and what stops with a plain reason."""

from pathlib import Path

import numpy as np
import pytest

from federation.errors import FederationError
from server.checkpoint import Epoch, Progress, load_checkpoint
from server.events import Resumed, RoundDone, SetUpDone, SetUpStarted, SumRepeated
from server.secure.store import SumStore
from simulations.local_grid import Fault
from tests.server.secure.running import ROUNDS, Bench, Killed, left_out, run
from tests.server.secure.vaults import SIX, secure_federation

NAMES = ("alpha", "beta", "delta", "gamma")
OTHERS = ("alpha", "delta", "gamma")


def once(kind: str, call: str, group: int | None = 2, **more: object) -> Fault:
    groups = None if group is None else frozenset({str(group)})
    return Fault(kind, types=frozenset({f"query.{call}"}), groups=groups, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", ["sum", "sum_readies"])
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("fail", "CSL-S204"),
        ("unreachable", "CSL-S205"),
        ("twice", "CSL-S203"),
        ("hang", "CSL-S202"),
        ("lose", "CSL-S202"),
    ],
)
def test_before_the_third_call_whoever_fails_is_left_out_of_that_sum(
    tmp_path: Path, call: str, kind: str, code: str
) -> None:
    bench = Bench(secure_federation(tmp_path))
    bench.set_up()
    bench.seconds = 0.7
    opened = bench.sum({"beta": (once(kind, call),)})
    assert left_out(bench.federation) == {("beta", 2, code)} and bench.federation.happened(SumRepeated) == []
    assert opened.members == OTHERS
    np.testing.assert_array_equal(opened.total, bench.plain(OTHERS))
    bench.seconds = 3.0
    np.testing.assert_array_equal(bench.sum(number=3).total, bench.plain(NAMES, 3))


def test_in_a_study_a_member_that_was_left_out_is_back_in_the_next_round(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    card = run(federation, {"beta": (once("fail", "sum_readies"),)}).card
    assert [event.answered for event in federation.happened(RoundDone)] == [NAMES, OTHERS, NAMES]
    assert federation.happened(RoundDone)[1].left_out == ("beta",)
    assert card.fewest_partners == 3 and federation.happened(SumRepeated) == []


def test_a_node_that_hangs_costs_one_deadline_and_not_one_a_round(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    run(federation, {"beta": (once("hang", "sum", None),)}, deadline_seconds=1.5)
    seconds = [event.seconds for event in federation.happened(RoundDone)]
    assert seconds[0] >= 1.5 > max(seconds[1:])


def test_two_may_be_missing_where_enough_remain(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path, SIX)
    faults = {"beta": (once("fail", "sum_readies"),), "gamma": (once("fail", "sum_readies"),)}
    card = run(federation, faults).card
    assert federation.happened(RoundDone)[1].answered == ("alpha", "delta", "epsilon", "zeta")
    assert card.fewest_partners == 4


def test_below_the_majority_of_those_who_were_ready_nothing_is_opened(tmp_path: Path) -> None:
    """Of six that are ready three would be enough for n_min, and not for the rule that no two such sets are disjoint."""
    federation = secure_federation(tmp_path, SIX)
    faults = {name: (once("fail", "sum_readies"),) for name in ("beta", "gamma", "zeta")}
    with pytest.raises(FederationError, match="CSL-S222"):
        run(federation, faults)
    assert [event.reason for event in federation.happened(SumRepeated)] == [
        "3 members sent their masked vectors; 4 are needed"
    ] * 3
    assert all(vault.work.count("query.sum_acks") == 1 for vault in federation.vaults.values())  # that of round 1


@pytest.mark.parametrize("kind", ["fail", "unreachable", "hang"])
def test_who_does_not_acknowledge_is_asked_again_and_then_done_without(tmp_path: Path, kind: str) -> None:
    bench = Bench(secure_federation(tmp_path))
    bench.set_up()
    bench.seconds = 0.5
    opened = bench.sum({"beta": (once(kind, "sum_headers"),)})
    (event,) = bench.federation.happened(SumRepeated)
    assert (event.phase, event.round, event.attempt) == ("round 2", 2, 1) and "beta" in event.reason
    assert (opened.members, opened.attempts) == (OTHERS, 2)
    assert bench.federation.vaults["beta"].work.count("query.sum") == 1  # it was not asked for the second attempt
    np.testing.assert_array_equal(opened.total, bench.plain(OTHERS))


def test_an_attempt_that_came_to_nothing_is_told_with_its_round(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    run(federation, {"beta": (once("fail", "sum_headers"),)})
    done = federation.happened(RoundDone)[1]
    assert (done.answered, done.left_out, done.attempts) == (OTHERS, ("beta",), 2)
    assert [event.attempts for event in federation.happened(RoundDone)] == [1, 2, 1]


class Flaky:
    """A vault that refuses a call the first so many times."""

    def __init__(self, call: str, times: int, number: int) -> None:
        self.left = {(call, number): times}

    def fault(self, call: str, number: int) -> Fault:
        return once("alter", call, number, change=self.change)

    def change(self, reply):
        from flwr.app import Error, Message

        for key, left in self.left.items():
            if left:
                self.left[key] = left - 1
                failed = Message(Error(code=2, reason="away"), reply_to=reply)
                failed.metadata.__dict__.update(reply.metadata.__dict__)
                return failed
        return reply


@pytest.mark.parametrize("call", ["sum_headers", "sum_acks"])
def test_who_comes_back_in_time_is_in_the_sum(tmp_path: Path, call: str) -> None:
    federation = secure_federation(tmp_path)
    card = run(federation, {"beta": (Flaky(call, 2, 2).fault(call, 2),)}).card
    assert left_out(federation) == set() and federation.happened(SumRepeated) == []
    assert card.fewest_partners == 4
    assert federation.vaults["beta"].work.count(f"query.{call}") == ROUNDS + 1 + 2


def test_where_nobody_can_be_spared_the_same_members_are_asked_again(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    faults = {"beta": (Flaky("sum_headers", 3, 2).fault("sum_headers", 2),)}
    card = run(federation, faults, n_min=4, c=1).card
    assert [event.attempts for event in federation.happened(RoundDone)] == [1, 2, 1]
    assert card.fewest_partners == 4


def test_a_member_that_keeps_its_mask_keys_stops_the_sum_until_it_is_back(tmp_path: Path) -> None:
    reference = run(secure_federation(tmp_path / "whole"))
    federation = secure_federation(tmp_path / "stopped")
    with pytest.raises(FederationError, match="CSL-S223") as caught:
        run(federation, {"beta": (once("fail", "sum_acks"),)})
    assert "beta did not give the keys" in caught.value.cause
    kept = SumStore(federation.folder / "checkpoints" / "spring.sum").load()
    assert kept is not None and kept.acknowledged and kept.record.offer.number == 2
    asked = {name: vault.work.count("query.sum") for name, vault in federation.vaults.items()}
    again = run(federation)
    assert again.content == reference.content and again.card.digest() == reference.card.digest()
    assert federation.happened(Resumed)[0].after_round == 1
    # The sum was opened as it stood: nobody was asked for a vector of round 2 again.
    assert {n: v.work.count("query.sum") - asked[n] for n, v in federation.vaults.items()} == dict.fromkeys(asked, 2)


def test_a_member_that_is_gone_after_the_acknowledgements_is_named(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    with pytest.raises(FederationError, match="CSL-S223"):
        run(federation, {"beta": (once("fail", "sum_acks"),)})
    with pytest.raises(FederationError, match=r"CSL-S223.*beta"):
        run(federation, {"beta": (Fault("hang"),)}, roster_seconds=0.5)


def test_too_few_ready_is_said_and_the_study_goes_on_later(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    faults = {name: (once("fail", "sum"),) for name in ("alpha", "beta")}
    with pytest.raises(FederationError, match="CSL-S222"):
        run(federation, faults)
    assert [event.attempt for event in federation.happened(SumRepeated)] == [1, 2, 3]
    card = run(federation).card
    assert federation.happened(Resumed)[0].after_round == 1
    assert card.rounds == ROUNDS and card.fewest_partners == 4
    assert all(vault.refused == [] for vault in federation.vaults.values())


def test_with_fewer_than_hold_keys_the_study_does_not_go_on(tmp_path: Path) -> None:
    """Beta is there again, which granted the study and holds no keys: it cannot take the place of one that does."""
    federation = secure_federation(tmp_path)
    with pytest.raises(Killed):
        lost = {"beta": (once("fail", "epoch_keys", None),)}
        run(federation, lost, stop_at=lambda event: isinstance(event, RoundDone))
    with pytest.raises(FederationError, match="CSL-S502  2 members"):
        run(federation, {"alpha": (Fault("hang"),)}, roster_seconds=0.5)


@pytest.mark.parametrize("call", ["epoch", "epoch_keys", "epoch_exchanges"])
@pytest.mark.parametrize(("kind", "code"), [("fail", "CSL-S204"), ("hang", "CSL-S202")])
def test_who_fails_in_the_set_up_takes_no_part(tmp_path: Path, call: str, kind: str, code: str) -> None:
    bench = Bench(secure_federation(tmp_path), seconds=0.5)
    epoch = bench.set_up({"beta": (once(kind, call, None),)})
    assert left_out(bench.federation) == {("beta", 0, code)}
    attempts = 1 if call == "epoch" else 2
    assert [event.attempt for event in bench.federation.happened(SetUpStarted)] == list(range(1, attempts + 1))
    assert epoch == Epoch(attempt=attempts, members=OTHERS) and bench.attempt == attempts


def test_in_a_study_who_holds_no_keys_trains_nothing_and_gets_the_model(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    card = run(federation, {"beta": (once("fail", "epoch_keys", None),)}).card
    assert federation.happened(SetUpDone)[0].members == OTHERS
    assert {item.member: item.rounds for item in card.participants}["beta"] == 0
    assert all(event.answered == OTHERS for event in federation.happened(RoundDone))
    assert "query.sum" not in federation.vaults["beta"].work
    assert "query.model" in federation.vaults["beta"].work  # it granted the study, and gets its model


def test_who_comes_back_during_the_set_up_is_not_left_out(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    faults = {"beta": (Flaky("epoch_keys", 1, 0).fault("epoch_keys", 0),)}
    run(federation, faults)
    assert federation.happened(SetUpDone)[0].members == NAMES and left_out(federation) == set()


def test_a_set_up_with_too_few_costs_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    faults = {name: (once("fail", "epoch_keys", None),) for name in ("alpha", "beta")}
    with pytest.raises(FederationError, match="CSL-S221"):
        run(federation, faults)
    assert all("query.sum" not in vault.work for vault in federation.vaults.values())
    progress, _ = load_checkpoint(federation.folder / "checkpoints" / "spring.checkpoint", Progress)
    assert progress.stage == "granted" and progress.epoch.attempt == 1 and progress.epoch.members == ()
    card = run(federation).card
    assert federation.happened(SetUpDone)[0].attempt == 2 and card.fewest_partners == 4
    assert all(vault.work.count("query.offer") == 1 for vault in federation.vaults.values())


def test_who_was_left_out_of_the_set_up_has_no_say_in_the_clips_of_the_others(tmp_path: Path) -> None:
    """Gamma grants most; without it delta and the others clip as if it had never been there, also after an interruption."""
    clips: list[dict[str, tuple[float, float | None]]] = []
    for name, faults in (("with", {}), ("without", {"gamma": (once("fail", "epoch", None),)})):
        federation = secure_federation(tmp_path / name)
        with pytest.raises(Killed):
            run(federation, faults, stop_at=lambda event: isinstance(event, RoundDone) and event.round == 2)
        run(federation, faults)
        vaults = federation.vaults.values()
        clips.append({vault.member: (vault.asked[3].clip, vault.asked[2].weight) for vault in vaults if vault.asked})
    # the recipe clips the descent at 2.4, and whoever granted most clips by just that
    assert clips[0]["gamma"][0] == pytest.approx(2.4) and clips[0]["gamma"][1] == pytest.approx(1.0)
    assert clips[0]["beta"][0] < 0.9 * 2.4 and clips[0]["beta"][1] < 0.9
    assert clips[1]["beta"][0] == pytest.approx(2.4) and clips[1]["beta"][1] == pytest.approx(1.0)
    assert set(clips[1]) == {"alpha", "beta", "delta"} and clips[1]["alpha"][0] < clips[1]["delta"][0] < 2.3
