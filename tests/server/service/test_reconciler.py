"""The executor's decisions: what is wanted runs, what is not does not, and nothing spins, whatever dies."""

import pytest

from federation.errors import StorageError
from server.service.reconciler import MOST_DEATHS, backoff
from tests.server.service.conftest import node_key
from tests.server.service.fakes import APP, BUNDLE, Scene


def test_the_charters_nodes_are_let_in_and_nobody_else(scene: Scene):
    stranger = node_key()
    scene.link.known[stranger] = 99
    scene.go(1)
    assert set(scene.link.known) == {member.node_key for member in scene.charter.members}
    assert len(scene.events("node_let_in")) == 4 and len(scene.events("node_let_out")) == 1


def test_who_left_by_a_new_charter_is_let_out_while_it_runs(scene: Scene):
    scene.go(1)
    gone = scene.charter.members[0]
    scene.charter = scene.charter.model_copy(update={"members": scene.charter.members[1:]})
    scene.go(6)
    assert gone.node_key not in scene.link.known and len(scene.link.known) == 3


def test_a_key_that_the_link_refuses_is_not_offered_again_at_every_look(scene: Scene):
    scene.link.locked.add(scene.charter.members[0].node_key)
    scene.go(60)
    assert len(scene.events("node_refused")) == 1 and len(scene.link.known) == 3
    scene.go(600)
    assert len(scene.events("node_refused")) == 2


def test_a_wanted_study_gets_a_run_and_a_process_with_its_token(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    (process,) = scene.processes
    (run_id,) = scene.link.live()
    assert (process.study, process.run_id, process.token) == ("spring", run_id, f"token-{run_id}")
    assert scene.link.configs[run_id] == {"study": "spring"} and scene.link.bundles == [BUNDLE]
    record = scene.book.read("spring")
    assert record is not None and (record.state, record.run_id) == ("running", run_id)
    scene.go(30)
    assert len(scene.processes) == 1 and scene.link.live() == [run_id]


def test_several_studies_run_side_by_side(scene: Scene):
    for name in ("autumn", "spring"):
        scene.book.want(name)
    scene.go(2)
    assert {process.study for process in scene.processes} == {"autumn", "spring"} and len(scene.link.live()) == 2


def test_a_finished_study_is_left_alone(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    scene.book.settle("spring", "finished")
    scene.link.started[scene.processes[0].run_id] = "finished"
    scene.processes[0].code = 0
    scene.go(60)
    assert len(scene.processes) == 1 and scene.state("spring") == "finished"


def test_a_process_that_dies_is_started_again_in_a_new_run_and_the_old_run_is_stopped(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    first = scene.processes[0]
    first.code = -9
    scene.go(3)
    second = scene.processes[1]
    assert scene.link.live() == [second.run_id] != [first.run_id]
    assert scene.state("spring") == "running"


def test_one_that_dies_again_and_again_is_given_up_with_a_plain_reason(scene: Scene):
    scene.book.want("spring")
    for _ in range(2000):
        scene.go(0.25)
        if scene.processes and scene.processes[-1].code is None:
            scene.processes[-1].code = 1
    record = scene.book.read("spring")
    assert record is not None and (record.state, record.code, record.wanted) == ("failed", "CSL-S813", "stopped")
    assert len(scene.processes) == MOST_DEATHS + 1 and "status 1" in record.reason and "log" in record.reason
    assert scene.link.live() == []


def test_one_that_dies_now_and_then_is_started_for_ever(scene: Scene):
    scene.book.want("spring")
    for _ in range(2 * MOST_DEATHS):
        scene.go(70)
        scene.processes[-1].code = -9
    scene.go(5)
    assert scene.state("spring") == "running"


def test_too_few_partners_are_waited_for_longer_and_longer(scene: Scene):
    scene.book.want("spring", keep_trying=True)
    starts = []
    for _ in range(4000):
        scene.go(0.5)
        if len(scene.processes) > len(starts):
            starts.append(scene.clock())
            scene.book.settle("spring", "waiting", "2 members are connected; it needs 3.", "CSL-S502")
            scene.processes[-1].code = 0
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    assert gaps[0] >= 29 and gaps == sorted(gaps) and max(gaps) <= 605
    record = scene.book.read("spring")
    assert record is not None and record.code == "CSL-S502" and "3" in record.reason


def test_stopping_ends_the_process_and_its_run(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    scene.book.unwant("spring")
    scene.go(6)
    assert scene.processes[0].terminated == 1 and scene.processes[0].killed == 0
    assert scene.state("spring") == "stopped" and scene.link.live() == []


def test_a_process_that_does_not_leave_is_killed(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    scene.processes[0].obeys = False
    scene.book.unwant("spring")
    scene.go(8)
    assert scene.processes[0].terminated == 1 and scene.processes[0].killed >= 1
    assert scene.state("spring") == "stopped"


def test_stopping_before_a_process_was_there_takes_its_run_back(scene: Scene):
    scene.book.want("spring")
    scene.go(0.25)
    scene.book.settle("spring", "starting", run_id=scene.link.next)
    scene.link.waiting.clear()
    scene.reconciler._children.clear()
    scene.book.unwant("spring")
    scene.go(6)
    assert scene.state("spring") == "stopped" and scene.link.live() == []


def test_an_executor_that_was_killed_takes_up_what_it_left(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    left = scene.processes[0].run_id
    scene.make()
    assert scene.state("spring") == "waiting"
    scene.go(2)
    assert len(scene.processes) == 2 and scene.link.live() == [scene.processes[1].run_id]
    assert scene.link.started[left] == "finished"


def test_a_link_that_is_away_is_asked_later_and_later_and_says_so(scene: Scene):
    scene.link.away = True
    scene.book.want("spring")
    scene.go(300)
    assert scene.link.calls < 25
    pauses = [fields["seconds"] for fields in scene.events("link_away")]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0] and pauses[-1] == 30.0
    record = scene.book.read("spring")
    assert record is not None and "does not answer" in record.reason and record.code == "CSL-F331"
    scene.link.away = False
    scene.go(40)
    assert scene.state("spring") == "running" and len(scene.events("link_back")) == 1
    assert scene.link.opened == scene.link.closed // 2 + 1


def test_a_running_study_is_left_alone_while_the_link_is_away(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    scene.link.away = True
    scene.go(60)
    assert scene.state("spring") == "running" and scene.processes[0].terminated == 0


def test_a_link_that_forgot_everything_gets_its_nodes_and_a_new_run(scene: Scene):
    scene.book.want("spring")
    scene.go(1)
    scene.link.forget()
    scene.book.settle("spring", "waiting", "the link ended its run", "CSL-F332")
    scene.processes[0].code = 0
    scene.go(8)
    assert len(scene.link.known) == 4 and scene.state("spring") == "running" and len(scene.processes) == 2


def test_a_run_that_the_link_lost_before_its_task_was_taken_is_started_anew(scene: Scene):
    scene.book.want("spring")
    scene.go(0.01)
    scene.processes.clear()
    scene.reconciler._children.clear()
    scene.book.settle("spring", "starting", run_id=12345)
    scene.go(8)
    assert scene.state("spring") == "running" and len(scene.processes) == 1


def test_runs_that_are_nobodys_are_stopped(scene: Scene):
    scene.link.start_run(b"x", {"study": "spring"})
    scene.go(1)
    assert scene.link.live() == [] and scene.processes == []


def test_nothing_starts_under_a_charter_for_another_app(scene: Scene):
    scene.app = "b" * 64
    scene.make()
    scene.book.want("spring")
    scene.go(10)
    record = scene.book.read("spring")
    assert record is not None and record.state == "waiting" and "CSL-S806" in record.reason
    assert scene.link.started == {} and len(scene.events("studies_barred")) == 1
    link = scene.charter.link.model_copy(update={"app": "b" * 64})
    scene.charter = scene.charter.model_copy(update={"link": link})
    scene.go(6)
    assert scene.state("spring") == "running" and APP != scene.app


def test_a_charter_that_is_just_being_replaced_costs_nobody_the_way_in(scene: Scene, monkeypatch):
    scene.go(1)

    def unreadable():
        raise StorageError("CSL-S103", "x", "y")

    monkeypatch.setattr(scene.reconciler, "_charter", unreadable)
    scene.go(12)
    assert len(scene.link.known) == 4 and len(scene.events("studies_barred")) == 1


def test_a_damaged_record_is_named_once_and_holds_up_no_other(scene: Scene):
    scene.book.want("autumn")
    scene.book.want("spring")
    scene.book.file("autumn").write_text("{")
    scene.go(10)
    assert scene.state("spring") == "running" and len(scene.events("record_damaged")) == 1


def test_closing_ends_every_child_and_keeps_what_is_wanted(scene: Scene):
    for name in ("autumn", "spring"):
        scene.book.want(name)
    scene.go(2)
    scene.processes[0].obeys = False
    scene.reconciler.close(scene.clock.sleep)
    assert [process.poll() for process in scene.processes] == [-9, 0]
    for name in ("autumn", "spring"):
        record = scene.book.read(name)
        assert record is not None and (record.wanted, record.state) == ("running", "waiting")


@pytest.mark.parametrize("tries", [1, 2, 5, 100, 10**6])
def test_pauses_are_bounded(tries):
    assert 0.5 <= backoff(tries, (0.5, 30.0)) <= 30.0
