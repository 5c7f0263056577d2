import io
import json
import os
import sys
import time

import pytest

from federation.errors import ConsilienceError, DataError
from simulations.sweeps import worker
from simulations.sweeps.document import cells
from simulations.sweeps.outcome import Outcome, plain
from simulations.sweeps.schedule import Schedule
from simulations.sweeps.workers import Failure, Workers, answer_of, task_of
from tests.simulations.sweeps.fake_command import WORKER
from tests.simulations.sweeps.samples import DIES, FAULTY, HANGS, LEAVES, REFUSES, SMALL, made_up, parse


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("FAKE_LOG", str(path))
    return path


def computed(sweep, count, limit=None):
    with Workers(count, command=WORKER, limit=limit) as workers:
        return list(workers.compute(Schedule(cells(sweep))))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.e2e
def test_cells_are_computed_by_processes_each_once(log, monkeypatch):
    monkeypatch.setenv("FAKE_TOGETHER", "2")
    sweep = parse(SMALL)
    answers = computed(sweep, 2)
    assert sorted(answer.cell.digest for answer in answers) == sorted(cell.digest for cell in cells(sweep))
    for answer in answers:
        cell = answer.cell
        assert answer.what == Outcome.of(made_up(cell.simulation, cell.seed, cell.engine, None))
    lines = [line.split() for line in log.read_text().splitlines()]
    pids = {line[0] for line in lines}
    assert len(lines) == 12 and len(pids) == 2 and str(os.getpid()) not in pids
    assert not any(alive(int(pid)) for pid in pids)


def test_a_worker_that_dies_takes_its_own_cell_alone(log):
    clips = [1.0, DIES, REFUSES, FAULTY, LEAVES, 2.0]
    sweep = parse(f"{{name: a, study: {{name: b}}, over: {{clip: {clips}}}, references: false}}")
    found = {answer.cell.simulation.clip: answer.what for answer in computed(sweep, 1)}
    assert isinstance(found[1.0], Outcome) and isinstance(found[2.0], Outcome)
    died = found[DIES]
    assert isinstance(died, Failure) and died.code == "CSL-M241"
    assert "SIGKILL" in died.cause and "my last words" in died.cause
    assert "Memory" in died.action
    assert found[REFUSES] == Failure("CSL-M221", "Too few customers.", "Take fewer partners.")
    fault, left = found[FAULTY], found[LEAVES]
    assert (
        fault.code == "CSL-M244"
        and "RuntimeError: made-up fault" in fault.cause
        and "memory" not in fault.action.lower()
    )
    assert left.code == "CSL-M241" and "exit code 3" in left.cause and "memory" not in left.action.lower()
    first, second = [line.split()[0] for line in log.read_text().splitlines()]  # cells 1.0 and 2.0
    assert first != second  # two died in between


@pytest.mark.e2e
def test_a_cell_that_hangs_is_ended_by_the_limit(log):
    sweep = parse(f"{{name: a, study: {{name: b}}, over: {{clip: [{HANGS}, 1.0]}}, references: false}}")
    late, fine = (answer.what for answer in computed(sweep, 1, limit=2.0))
    assert (
        late.code == "CSL-M241"
        and "longer than the limit of 2 seconds" in late.cause
        and "memory" not in late.action.lower()
    )
    assert isinstance(fine, Outcome)


def test_a_worker_that_cannot_start_ends_the_sweep():
    with (
        pytest.raises(ConsilienceError, match=r"CSL-M240(?s:.*)out of order"),
        Workers(2, command=[sys.executable, "-c", "raise SystemExit('out of order')"]) as workers,
    ):
        list(workers.compute(Schedule(cells(parse(SMALL)))))


def test_workers_end_with_the_block(log, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    start = time.monotonic()
    with Workers(1, command=WORKER) as workers:
        stream = workers.compute(Schedule(cells(parse(SMALL))))
        workers._start(0)
        process = workers._living[0].process
        time.sleep(0.1)
    assert process.poll() is not None and time.monotonic() - start < 10
    stream.close()


def test_several_workers_have_one_thread_each():
    assert Workers(2)._command[-2:] == ["--threads", "1"] and Workers(2)._environment["OMP_NUM_THREADS"] == "1"
    assert "--threads" not in Workers(1)._command


def test_a_task_and_its_answer_go_through_json():
    cell = cells(parse(SMALL))[0]
    answer = worker.compute(made_up, json.loads(json.dumps(task_of(cell))), None)
    assert answer_of(cell, json.loads(json.dumps(answer, allow_nan=False))).what == Outcome.of(
        made_up(cell.simulation, cell.seed, cell.engine, None)
    )


def test_the_loop_ends_with_its_input():
    tasks = io.StringIO("".join(json.dumps(task_of(cell)) + "\n" for cell in cells(parse(SMALL))[:1]))
    waits = _Waiting(tasks)
    sink = io.StringIO()
    waits.sink = sink
    worker.serve(made_up, waits, sink, None)
    first, second = map(json.loads, sink.getvalue().splitlines())
    assert first == {"ready": True} and set(second) == {"digest", "seconds", "outcome"}


class _Waiting:
    """Lines that end only when each has had its answer, as a parent's do."""

    def __init__(self, lines):
        self._lines = lines
        self.sink = None

    def __iter__(self):
        yield from self._lines
        while self.sink.getvalue().count("\n") < 2:
            time.sleep(0.01)


def test_an_unforeseen_error_is_told_with_where_it_came_from():
    cell = cells(parse(SMALL.replace("study: {", f"study: {{clip: {FAULTY}, ")))[0]
    error = worker.compute(made_up, task_of(cell), None)["error"]
    assert error["code"] == "CSL-M244" and error["cause"].splitlines()[0].endswith("RuntimeError")
    assert "samples.py" in error["cause"] and error["cause"].endswith("RuntimeError: made-up fault")


def test_memory_is_named_where_it_ran_out():
    def greedy(simulation, seed, engine, cache):
        raise MemoryError("no room")

    error = worker.compute(greedy, task_of(cells(parse(SMALL))[0]), None)["error"]
    assert "memory" in error["cause"] and error["action"] == "Take fewer workers."


def test_figures_become_plain():
    assert plain(float("inf")) is None and plain((1, "a", [None, True])) == [1, "a", [None, True]]
    assert plain({"a": DataError.exit_code}) == {"a": 4}
    with pytest.raises(TypeError):
        plain(object())
