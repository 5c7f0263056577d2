import pytest

from federation.errors import DataError, DocumentError, IntegrityError
from simulations.sweeps.document import cells
from simulations.sweeps.outcome import Outcome
from simulations.sweeps.running import Begun, Computed, default_workers, run_sweep, time_one
from simulations.sweeps.store import Store
from tests.simulations.sweeps.samples import FAULTY, REFUSES, SMALL, made_up, parse


class Counting:
    """A made-up simulation that counts its runs, and may be interrupted at one."""

    def __init__(self, interrupt_at=None):
        self.seen = []
        self._at = interrupt_at

    def __call__(self, simulation, seed, engine, cache):
        if len(self.seen) == self._at:
            raise KeyboardInterrupt
        self.seen.append((simulation.partners.count, simulation.privacy.epsilon, seed))
        return made_up(simulation, seed, engine, cache)


def test_a_second_run_computes_nothing(tmp_path):
    events, counting = [], Counting()
    summary = run_sweep(parse(SMALL), tmp_path, run=counting, progress=events.append, workers=2)
    assert (summary.cells, summary.present, summary.computed, summary.failed) == (12, 0, 12, [])
    assert events[0] == Begun(12, 0, ()) and [event.done for event in events[1:]] == list(range(1, 13))
    assert all(isinstance(event, Computed) for event in events[1:])
    assert [event.left is None for event in events[1:]] == [True] * 4 + [False] * 8  # not told while workers start
    assert events[-1].left == 0.0
    again = run_sweep(parse(SMALL), tmp_path, run=counting)
    assert (again.present, again.computed) == (12, 0) and len(counting.seen) == len(set(counting.seen)) == 12


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_sweep(parse(SMALL), tmp_path, run=Counting(interrupt_at=5))
    assert len(Store(tmp_path).present()) == 5
    counting = Counting()
    summary = run_sweep(parse(SMALL), tmp_path, run=counting)
    assert (summary.present, summary.computed, len(counting.seen)) == (5, 7, 7)


def test_a_wider_sweep_computes_what_is_new_alone(tmp_path):
    run_sweep(parse(SMALL), tmp_path, run=made_up)
    counting = Counting()
    wider = parse(SMALL.replace("seeds: 2", "seeds: 3"))
    assert run_sweep(wider, tmp_path, run=counting).computed == 6
    assert {seed for _, _, seed in counting.seen} == {3}


def test_a_damaged_cell_alone_is_computed_again(tmp_path):
    run_sweep(parse(SMALL), tmp_path, run=made_up)
    store = Store(tmp_path)
    harmed = store.present()[3]
    whole = store.read(harmed).table
    store.path(harmed).write_bytes(store.path(harmed).read_bytes()[:-20])
    counting, events = Counting(), []
    with pytest.raises(IntegrityError, match=f"CSL-M237(?s:.*){harmed}(?s:.*)--repair"):
        run_sweep(parse(SMALL), tmp_path, run=counting)
    assert counting.seen == []
    summary = run_sweep(parse(SMALL), tmp_path, run=counting, repair=True, progress=events.append)
    assert summary.computed == len(counting.seen) == 1 and events[0].moved == (harmed,)
    again = store.read(harmed).table
    assert again.drop_columns("seconds_in_all").equals(whole.drop_columns("seconds_in_all"))


def test_deleting_a_damaged_cell_does_as_well(tmp_path):
    run_sweep(parse(SMALL), tmp_path, run=made_up)
    store = Store(tmp_path)
    store.path(store.present()[0]).unlink()
    assert run_sweep(parse(SMALL), tmp_path, run=made_up).computed == 1


def test_failed_cells_are_said_and_tried_again(tmp_path):
    sweep = parse(SMALL.replace("partners.count: [2, 3]", f"clip: [1.0, {REFUSES}]"))
    summary = run_sweep(sweep, tmp_path, run=made_up)
    assert (summary.computed, len(summary.failed)) == (6, 6)
    assert len(Store(tmp_path).present()) == 6
    with pytest.raises(DataError, match=r"CSL-M242  6 of 12 .*CSL-M221 Too few customers"):
        summary.raise_failures()
    again = run_sweep(sweep, tmp_path, run=made_up)
    assert (again.present, len(again.failed)) == (6, 6)


def test_a_program_s_fault_is_not_hidden_and_the_others_are_computed(tmp_path):
    sweep = parse(SMALL.replace("partners.count: [2, 3]", f"clip: [{FAULTY}, 1.0]"))
    summary = run_sweep(sweep, tmp_path, run=made_up)
    assert (summary.computed, len(summary.failed)) == (6, 6)
    with pytest.raises(
        DataError, match=r"CSL-M242(?s:.*)CSL-M244 A fault of the program(?s:.*)RuntimeError: made-up fault"
    ):
        summary.raise_failures()


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(DocumentError, match="CSL-M231"):
        run_sweep(parse("{name: a, study: {name: b}, over: {rounds: [x]}}"), tmp_path / "out", run=made_up)
    assert not (tmp_path / "out").exists()


def test_engines_that_use_every_core_have_one_worker():
    assert (
        default_workers("ray")
        == default_workers("ray:cluster")
        == default_workers("vectorized:cuda")
        == 1
        <= default_workers("vectorized")
    )


def test_one_cell_is_timed_and_not_kept():
    assert 0 <= time_one(cells(parse(SMALL))[0], None, made_up) < 5
    assert Outcome.of(made_up(cells(parse(SMALL))[0].simulation, 1, "local", None)).warnings == ("made up",)
