"""The worker's loop: every request is answered once, kept before it is answered, and no trouble of the SuperNode's ends it."""

import json
import threading

import httpx
import pytest
from flwr.app import Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from client.service import answering
from client.service.answering import IDLE_SECONDS, Places, Worker
from client.service.standing import read_standing
from client.throttle import Throttle
from client.unlock import unlock
from client.vault import Vault
from federation.errors import StorageError
from federation.flower.tasks import LostTaskError
from federation.messages import REFUSED, Refusal, unpack
from privacy.ledger import Ledger
from privacy.ledger.entries import Refuse, RefuseData
from tests.client import vault_home
from tests.client.service.fakes import APP, AWAY, GONE, Count, FakeDesk, FakeTask, FakeVault


def message(kind="train", content=None):
    return Message(RecordDict() if content is None else content, 1, kind)


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "request.json", tmp_path / "vault.json")


@pytest.fixture
def work(stop, places):
    """Let a worker do what a desk holds, then stop; pauses take no time."""

    def run(vault, *items, kept=None, clock=None):
        stop.clear()
        desk = FakeDesk(stop, *items, kept=kept)
        worker = Worker(
            vault,
            desk,
            Count(),
            places,
            charter="c" * 64,
            poll_seconds=0.001,
            stop=stop,
            **({"clock": clock} if clock else {}),
        )
        worker.run()
        return desk

    return run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(answering, "AWAY_SECONDS", (0.001, 0.002))


def test_a_request_that_was_lost_between_two_steps_has_the_supernode_begin_anew(work, places):
    places.saved.write_text("{}")
    task = FakeTask(message())
    desk = work(FakeVault(), task, kept=LostTaskError())
    assert desk.renewed == 1 and len(task.replies) == 1 and not places.saved.exists()


def test_what_was_kept_waits_for_a_supernode_that_is_away(work, places):
    places.saved.write_text("{}")
    task = FakeTask(message())
    desk = work(FakeVault(), kept=[AWAY, AWAY, task])
    assert len(desk.resumed) == 3 and desk.renewed == 0 and len(task.replies) == 1 and not places.saved.exists()


def test_nothing_that_is_left_to_answer_is_dropped(work, places):
    places.saved.write_text("{}")
    desk = work(FakeVault(), kept=None)
    assert desk.renewed == 0 and not places.saved.exists()


def test_how_far_a_reply_is_is_noted_before_and_after_it_is_handed_over(work):
    task = FakeTask(message())
    work(FakeVault(), task)
    assert task.notes == ["replying", "replied"]


def test_a_request_is_kept_before_it_is_answered_and_dropped_after(work, places):
    seen = []
    task = FakeTask(message())
    work(FakeVault(lambda: seen.append(places.saved.exists())), task)
    assert seen == [True] and not places.saved.exists()
    assert len(task.replies) == 1 and task.finished == [True] and task.closed


def test_a_worker_that_was_killed_answers_the_kept_request_first(work, places):
    def die():
        raise SystemExit("killed")

    with pytest.raises(SystemExit):
        work(FakeVault(die), FakeTask(message()))
    assert places.saved.exists()
    again, later = FakeTask(message(), app=""), FakeTask(message("evaluate"))
    vault = FakeVault()
    desk = work(vault, later, kept=again)
    assert vault.asked == ["train", "evaluate"] and desk.resumed == [places.saved]
    assert len(again.replies) == 1 and again.finished == [True] and not places.saved.exists()


def test_a_kept_request_of_a_run_that_is_over_is_dropped(work, places):
    places.saved.write_text("{}")
    old = FakeTask(message(), app="", troubles=[GONE])
    later = FakeTask(message())
    work(FakeVault(), later, kept=old)
    assert old.replies == [] and old.closed and len(later.replies) == 1 and not places.saved.exists()


def test_a_kept_request_that_cannot_be_read_is_dropped(work, places):
    places.saved.write_text("nonsense")
    task = FakeTask(message())
    work(FakeVault(), task, kept=StorageError("CSL-F333", "No task.", "Delete it."))
    assert len(task.replies) == 1 and not places.saved.exists()


def test_another_app_is_refused_unanswered_and_unkept(work, places):
    vault, task = FakeVault(), FakeTask(message(), app="b" * 64)
    work(vault, task)
    assert vault.refused == ["b" * 64] and vault.asked == [] and len(task.replies) == 1 and task.finished == [True]


def test_a_full_disk_keeps_no_request_from_being_answered(work):
    task = FakeTask(message(), full=True)
    work(FakeVault(), task)
    assert len(task.replies) == 1


def test_a_vault_that_raises_tells_nothing(work):
    def broken():
        raise RuntimeError("customer canary-17")

    task = FakeTask(message())
    work(FakeVault(broken), task)
    assert task.replies[0].has_error() and task.replies[0].error.reason == REFUSED and task.finished == [True]


def test_a_message_that_is_an_error_is_answered_like_any_refusal(work):
    from flwr.app import Error

    plain = message()
    task = FakeTask(Message(Error(1, "x"), reply_to=plain))
    work(FakeVault(), task)
    assert task.replies[0].has_error() and task.finished == [True]


def test_a_supernode_that_is_away_is_waited_for_and_said_once(work, caplog, places):
    task = FakeTask(message())
    with caplog.at_level("INFO", "consilience"):
        work(FakeVault(), AWAY, AWAY, AWAY, task)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("the SuperNode does not answer") == 1 and said.count("the SuperNode answers") == 1
    assert len(task.replies) == 1


def test_another_secret_is_said_as_such(work, caplog):
    with caplog.at_level("INFO", "consilience"):
        work(FakeVault(), GONE)
    assert any("another secret" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("troubles", [[AWAY], [AWAY, httpx.ReadTimeout("slow"), AWAY]])
def test_a_reply_is_handed_over_again_until_it_is_taken(work, troubles):
    task = FakeTask(message(), troubles=list(troubles))
    work(FakeVault(), task)
    assert len(task.replies) == 1 and task.finished == [True]


def test_a_reply_that_was_taken_is_not_sent_twice(work):
    class Halting(FakeTask):
        def reply(self, given):
            super().reply(given)
            self.troubles = [AWAY, AWAY]

    task = Halting(message())
    work(FakeVault(), task)
    assert len(task.replies) == 1 and task.finished == [True]


def test_a_reply_that_nobody_takes_is_given_up_after_a_while(work, places):
    moments = iter(range(0, 100_000, 50))
    task = FakeTask(message(), troubles=[AWAY] * 1000)
    work(FakeVault(), task, clock=lambda: float(next(moments)))
    assert task.replies == [] and not places.saved.exists()


def test_who_is_stopped_while_a_reply_cannot_be_handed_over_keeps_the_request(stop, places):
    class Stopping(FakeTask):
        def reply(self, given):
            stop.set()
            raise AWAY

    worker = Worker(
        FakeVault(), FakeDesk(stop, Stopping(message())), Count(), places, charter="c", poll_seconds=1.0, stop=stop
    )
    worker.run()
    assert places.saved.exists()
    assert read_standing(places.standing).phase == "stopped"


def test_the_answer_at_hand_is_finished_before_it_leaves(stop, places):
    task, other = FakeTask(message()), FakeTask(message())
    worker = Worker(
        FakeVault(stop.set), FakeDesk(stop, task, other), Count(), places, charter="c", poll_seconds=1.0, stop=stop
    )
    worker.run()
    assert len(task.replies) == 1 and task.finished == [True] and other.replies == []


def test_its_standing_says_what_it_does_and_nothing_else(work, places):
    work(FakeVault(), FakeTask(message()), None)
    said = json.loads(places.standing.read_text())
    assert (said["phase"], said["answered"], said["last_type"]) == ("stopped", 1, "train")
    assert places.standing.stat().st_mode & 0o077 == 0


def test_an_idle_vault_is_tidied(work):
    vault = FakeVault()
    work(vault, None, None)
    assert vault.tidied == 3


@given(st.floats(0, 1e6), st.floats(0.01, 3.0))
def test_the_pause_grows_with_the_time_since_the_last_request(idle, poll):
    moment = [0.0]
    worker = Worker(
        FakeVault(), FakeDesk(threading.Event()), Count(), Places(None, None), charter="c", poll_seconds=poll,
        stop=threading.Event(), clock=lambda: moment[0],
    )  # fmt: skip
    moment[0] = idle
    assert min(poll, IDLE_SECONDS) <= worker._pause() <= IDLE_SECONDS
    assert worker._pause() <= max(poll, 0.05 * idle)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return vault_home.found(tmp_path_factory.mktemp("town"))


def refusals(town, member):
    home = town.homes[member]
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        bodies = [entry.body for entry in ledger.entries(kinds=("refuse",))]
    return [body.data.code for body in bodies if isinstance(body, Refuse) and isinstance(body.data, RefuseData)]


class Linked(Vault):
    """A vault of a charter with a link."""

    @property
    def app(self):
        return APP


def test_a_real_vault_refuses_another_app_and_unknown_types_and_its_ledger_says_so(town, work):
    home = town.homes["birch"]
    tasks = [
        FakeTask(message("query.hello", town.hello()), app="b" * 64),
        FakeTask(message("query.shell", town.hello())),
        FakeTask(message("train.default", town.hello())),
        FakeTask(message("query.hello", town.hello())),
    ]
    with Linked.open(home.root, unlock(home), throttle=Throttle()) as vault:
        work(vault, *tasks)
    for task in tasks[:3]:
        assert unpack(task.replies[0].content, Refusal, town.key("birch"))[0].member == "birch"
    assert not tasks[3].replies[0].has_error() and "nonce" in str(tasks[3].replies[0].content)
    codes = refusals(town, "birch")
    assert "CSL-C401" in codes and codes.count("CSL-C510") == 2


def test_a_round_that_was_killed_after_the_release_gives_the_same_bytes_and_spends_nothing_twice(town, work, places):
    """The worker dies between the vault's answer and its handing over: the kept request is answered by the kept reply."""
    home, spec = town.homes["alder"], town.spec()
    request = town.train(spec, 1)

    class Dying(FakeTask):
        def reply(self, given):
            self.replies.append(given)
            raise SystemExit("killed")

    first = Dying(message("train", request))
    with Linked.open(home.root, unlock(home)) as vault:
        town.grant(vault, spec)
        with pytest.raises(SystemExit):
            work(vault, first)
        size = vault._ledger.state().size
    second = FakeTask(message("train", request), app="")
    with Linked.open(home.root, unlock(home)) as vault:
        work(vault, kept=second)
        assert vault._ledger.state().size == size
        held = vault._ledger.reservation(spec.digest())
    lost, given = (task.replies[0].content["consilience"] for task in (first, second))
    assert dict(lost) == dict(given) and held.released["training"] == 1


def test_a_request_of_which_the_vault_dies_at_every_start_is_given_up(work, places):
    places.saved.write_bytes(b"kept")
    places.saved.with_suffix(answering.TRIES).write_text(str(answering.MOST_TRIES))
    vault = FakeVault()
    desk = work(vault, kept=FakeTask(message()))
    assert vault.asked == [] and desk.resumed == [] and desk.renewed == 1
    assert not places.saved.exists() and not places.saved.with_suffix(answering.TRIES).exists()


def test_starts_with_a_kept_request_are_counted_and_an_answer_ends_the_count(work, places):
    places.saved.write_bytes(b"kept")
    places.saved.with_suffix(answering.TRIES).write_text("damaged")
    task = FakeTask(message())
    desk = work(FakeVault(), kept=task)
    assert len(task.replies) == 1 and desk.renewed == 0
    assert not places.saved.exists() and not places.saved.with_suffix(answering.TRIES).exists()
