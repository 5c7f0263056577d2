"""The local engine: institutions as Flower nodes in this process, and the apps that it shares with Ray."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training import gradient_sum, local_steps
from federation.errors import FederationError
from federation.flower.simulation import PARTITION_KEY
from federation.networks import build, load_weights
from privacy.dp_optimizer import grid_of
from simulations.engines.apps import FlowerSession, client_app, server_app
from simulations.engines.institution import Office, Order, Steps
from simulations.engines.local import Local as LocalEngine
from simulations.engines.threads import torch_threads
from simulations.engines.work import Engine, Local
from simulations.local_grid import Fault, LocalGrid, run_study
from simulations.seeded import SeededSource
from tests.simulations.engines.jobs import LOCALS, job_of, work_of

numbers = st.floats(allow_nan=False, allow_infinity=False)
steps = st.builds(
    Steps,
    steps=st.integers(1, 1000),
    rate=numbers,
    momentum=numbers,
    proximal=numbers,
    tail=st.booleans(),
    full=st.booleans(),
    head=st.booleans(),
    controlled=st.booleans(),
)


@given(
    st.builds(Order, number=st.integers(0, 10**6), clip=numbers, noise=numbers, rate=numbers, local=st.none() | steps)
)
def test_an_order_arrives_to_the_last_bit(order):
    assert Order.model_validate_json(order.model_dump_json().encode()) == order


def test_its_name():
    engine: Engine = LocalEngine()
    assert engine.name == "local"


@pytest.mark.parametrize("kind", ["additive", "mlp"])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_with_everybody_drawn_a_release_is_the_products_own(kind, noise):
    """At rate 1 there is nothing to draw: `client.training` and the engine give the same bits, noise included."""
    job = job_of(kind)
    summed = work_of(job, 4, rate=1.0, noise=noise)
    stepped = work_of(job, 4, rate=1.0, noise=noise, local=LOCALS["momentum"])
    with LocalEngine().open(job) as session:
        sums, changes = session.releases(summed), session.releases(stepped)
    network = build(job.model, job.contract)
    for place in range(job.rows.institutions):
        rows = job.rows.of(place)
        plan = {
            "clip": float(summed.clip[place]),
            "noise_multiplier": float(summed.noise[place] / summed.clip[place]),
            "sampling_rate": 1.0,
        }
        load_weights(network, job.layout.tensors(summed.weights))
        source = SeededSource(f"3/4/{place}")
        expected = gradient_sum(network, rows.inputs(), rows.labels.numpy(), source=source, **plan)
        np.testing.assert_array_equal(sums[place], job.layout.flat(expected))
        load_weights(network, job.layout.tensors(summed.weights))
        local = {"steps": 4, "declared_size": int(job.declared[place]), "learning_rate": 0.3, "momentum": 0.8}
        source = SeededSource(f"3/4/{place}")
        expected = local_steps(network, rows.inputs(), rows.labels.numpy(), source=source, **local, **plan)
        # Steps are divided elsewhere: the last bits of float64 differ, and float32 shows little of it.
        np.testing.assert_allclose(changes[place], job.layout.flat(expected), rtol=1e-6, atol=1e-7)


def test_noisy_sums_lie_on_the_products_grid():
    job = job_of("mlp")
    work = work_of(job, noise=2.0)
    with LocalEngine().open(job) as session:
        found = session.releases(work)
    for place, release in enumerate(found):
        grid = grid_of(work.clip[place], work.noise[place] / work.clip[place])
        np.testing.assert_array_equal(release / grid, np.rint(release / grid))


def test_workers_change_nothing():
    job = job_of("mlp")
    found = []
    for workers in (1, 3):
        with LocalEngine(workers).open(job) as session:
            found.append(session.combine(work_of(job, 1, noise=1.0, local=LOCALS["last"]), np.arange(5.0)))
    np.testing.assert_array_equal(*found)


def test_a_round_leaves_no_trace_in_the_next():
    """Networks and desks are used again; what one round did to them does not show."""
    job = job_of("mlp")
    with LocalEngine(1).open(job) as session:
        first = session.releases(work_of(job, 1, noise=1.0))
        session.releases(work_of(job, 2, local=LOCALS["last"], weights=job.start()))
        np.testing.assert_array_equal(session.releases(work_of(job, 1, noise=1.0)), first)


def test_two_sessions_of_unlike_jobs_beside_each_other():
    jobs = [job_of("additive"), job_of("mlp", 4, (10, 20))]
    alone = []
    for job in jobs:
        with LocalEngine().open(job) as session:
            alone.append(session.releases(work_of(job)))
    with LocalEngine().open(jobs[0]) as first, LocalEngine().open(jobs[1]) as second:
        np.testing.assert_array_equal(second.releases(work_of(jobs[1])), alone[1])
        np.testing.assert_array_equal(first.releases(work_of(jobs[0])), alone[0])


def test_controls_begin_at_zero_in_every_session_and_move_with_releases_only():
    job = job_of("logistic")
    width = job.layout.width
    work = work_of(job, 1, local=Local(2, 0.5, tail=False, control=np.full(width, 0.1)))
    found = []
    for _ in range(2):
        with LocalEngine().open(job) as session:
            found.append([session.releases(work) for _ in range(2)])
    np.testing.assert_array_equal(found[0], found[1])
    # The second time c_i is no longer zero: it has followed the first change.
    assert np.abs(found[0][0] - found[0][1]).max() > 0.05


def test_the_apps_run_under_flowers_server_app():
    job = job_of("mlp")
    with LocalEngine().open(job) as session:
        expected = session.releases(work_of(job))
    office, found = Office(job), []
    app = client_app(lambda: office)
    # Any node may hold any place: each says which one it is.
    nodes = {100 - place: (app, {PARTITION_KEY: place}) for place in range(5)}
    with torch_threads(1), LocalGrid(nodes) as grid:
        main = server_app(
            lambda grid: found.append(FlowerSession(job, grid, grid.send_and_receive).releases(work_of(job)))
        )
        run_study(main, grid)
    np.testing.assert_array_equal(found[0], expected)


def test_an_institutions_error_rises_and_the_session_goes_on():
    job = job_of("additive")
    with LocalEngine().open(job) as session:
        bad = work_of(job, clip=1e9)
        with pytest.raises(FederationError, match="CSL-M216") as caught:
            session.combine(bad, np.ones(5))
        assert "institution 0" in str(caught.value) and "CSL-P706" in str(caught.value)
        with pytest.raises(FederationError, match="CSL-M216"):
            session.releases(bad)
        assert session.releases(work_of(job)).any()


@pytest.mark.parametrize(
    ("kind", "code"), [("fail", "CSL-M216"), ("unreachable", "CSL-M216"), ("lose", "CSL-M217"), ("hang", "CSL-M217")]
)
def test_no_fault_of_a_node_is_passed_over(kind, code):
    job = job_of("additive")
    office = Office(job)
    nodes = {place + 1: (client_app(lambda: office), {PARTITION_KEY: place}) for place in range(5)}
    fault = Fault(kind, types=frozenset({"train"}), groups=frozenset({"7"}))
    with LocalGrid(nodes, faults={3: (fault,)}) as grid:
        session = FlowerSession(job, grid, lambda messages: grid.send_and_receive(messages, timeout=0.5))
        assert session.releases(work_of(job, 6)).any()
        with pytest.raises(FederationError, match=code) as caught:
            session.combine(work_of(job, 7), np.ones(5))
        assert "2" in caught.value.cause
        # Who is absent is not asked.
        present = [True, True, False, True, True]
        assert session.combine(work_of(job, 7, present=present), np.ones(5)).any()


def test_nodes_that_are_one_and_the_same_institution_are_refused():
    job = job_of("additive")
    office = Office(job)
    nodes = {place: (client_app(lambda: office), {PARTITION_KEY: min(place, 3)}) for place in range(5)}
    with LocalGrid(nodes) as grid, pytest.raises(FederationError, match="CSL-M217"):
        FlowerSession(job, grid, grid.send_and_receive)


def test_torchs_threads_are_set_back():
    before = torch.get_num_threads()
    with pytest.raises(FederationError), LocalEngine().open(job_of("additive")) as session:
        assert torch.get_num_threads() == 1
        session.releases(work_of(job_of("additive"), clip=1e9))
    assert torch.get_num_threads() == before
