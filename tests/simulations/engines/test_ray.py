"""The Ray engine: rows as files, the same bits as the local engine, nothing listens beyond this machine, nothing is left behind."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from federation.errors import ConsilienceError, FederationError, StorageError
from simulations.engines import ray as ray_engine
from simulations.engines.institution import Order
from simulations.engines.local import Local as LocalEngine
from simulations.engines.ray import Ray
from simulations.engines.shelf import office_at, read_job, write_job
from simulations.engines.threads import torch_threads
from simulations.engines.work import Local
from tests.simulations.engines.jobs import LOCALS, job_of, work_of


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_a_job_comes_back_as_it_was_written(kind, tmp_path):
    job = job_of(kind)
    write_job(job, tmp_path)
    found = read_job(tmp_path)
    assert (found.model, found.contract, found.seed) == (job.model, job.contract, job.seed)
    for name in ("dense", "codes", "labels"):
        torch.testing.assert_close(getattr(found.rows, name), getattr(job.rows, name), rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(found.rows.offsets, job.rows.offsets)
    np.testing.assert_array_equal(found.declared, job.declared)


def test_what_a_worker_does_to_rows_reaches_no_file(tmp_path):
    write_job(job_of("mlp"), tmp_path)
    read_job(tmp_path).rows.dense.fill_(7.0)
    assert not (read_job(tmp_path).rows.dense == 7.0).all()


def test_a_node_that_does_not_share_the_folder(tmp_path):
    with pytest.raises(StorageError, match="CSL-M214") as caught:
        read_job(tmp_path / "absent")
    assert "TMPDIR" in caught.value.action


def test_a_folder_that_takes_no_files(tmp_path):
    with pytest.raises(StorageError, match="CSL-M218"):
        write_job(job_of("mlp"), tmp_path / "absent")


def test_an_office_is_opened_once_and_computes_the_same(tmp_path):
    job = job_of("additive")
    write_job(job, tmp_path)
    with torch_threads(torch.get_num_threads()):
        office = office_at(tmp_path)
        assert office_at(tmp_path) is office and torch.get_num_threads() == 1
    work = work_of(job, 1, noise=1.0)
    with LocalEngine().open(job) as session:
        expected = session.releases(work)
    found = [office.release(place, Order.of(work, place), work.weights, None) for place in range(5)]
    np.testing.assert_array_equal(found, expected)


def test_without_ray_it_says_how_to_add_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConsilienceError, match="CSL-M215") as caught:
        Ray()
    assert "consilience[ray]" in caught.value.action


class SilentGrid:
    """Takes messages, and gives no reply."""

    def push_messages(self, messages):
        return [str(place) for place, _ in enumerate(messages)]

    def pull_messages(self, identifiers):
        return []


@pytest.mark.parametrize("why", ["late", "ended", "failed"])
def test_no_round_waits_for_ever(tmp_path, why):
    runtime = ray_engine._Runtime(tmp_path, 2)
    runtime.grid = SilentGrid()
    runtime._running = runtime._pool.submit(
        time.sleep if why == "late" else int, 2 if why == "late" else "12" if why == "ended" else "x"
    )
    if why != "late":
        runtime._running.exception(timeout=5)
    start = time.monotonic()
    with pytest.raises(FederationError, match="CSL-M217") as caught:
        runtime.exchange(0.1, ["asked", "asked"])
    assert time.monotonic() - start < 1.5
    assert {"late": "does not answer", "ended": "has ended.", "failed": "invalid literal"}[why] in caught.value.cause
    runtime._end()


def listening(psutil):
    """Addresses on which this process and those that it started listen."""
    own = psutil.Process()
    found = set()
    for process in [own, *own.children(recursive=True)]:
        found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"}
    return found


@pytest.mark.e2e
def test_a_session_over_real_processes(tmp_path, monkeypatch):
    """The same bits as the local engine; nothing listens beyond loopback; errors rise; all is gone in the end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # torch sets it where it is not set
    monkeypatch.setattr("tempfile.tempdir", None)
    before, job = dict(os.environ), job_of("mlp")
    control = Local(3, 0.4, tail=False, control=np.full(job.layout.width, 0.05))
    with Ray(cpus=2).open(job) as session, LocalEngine().open(job) as exact:
        assert len(list(tmp_path.glob("consilience-*"))) == 1
        for local in (None, LOCALS["momentum"], control, control):
            work = work_of(job, 2, noise=1.0, local=local, present=[1, 1, 0, 1, 1])
            np.testing.assert_array_equal(session.releases(work), exact.releases(work))
        with pytest.raises(FederationError, match="CSL-M216.*CSL-P706"):
            session.combine(work_of(job, clip=1e9), np.ones(5))
        importlib.import_module("ray")  # brings psutil
        psutil = importlib.import_module("psutil")
        heard = listening(psutil)
        assert heard and heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        children = psutil.Process().children(recursive=True)
        assert children
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert not list(tmp_path.glob("consilience-*"))
    assert {name for name in before | os.environ if before.get(name) != os.environ.get(name)} <= {"PYTEST_CURRENT_TEST"}


HOST = """
import sys
sys.path.insert(0, {root!r})
from simulations.engines.raylets import own_cluster

with own_cluster(2):
    import os
    import ray
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    sys.stdin.read()
"""
GUEST = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from federation.errors import FederationError
from simulations.engines.local import Local
from simulations.engines.registry import engine_of
from tests.simulations.engines.jobs import job_of, work_of

job = job_of("mlp")
work = work_of(job, 2, noise=1.0)
try:
    with engine_of("ray:cluster").open(job) as session, Local().open(job) as exact:
        for number in (2, 3):
            np.testing.assert_array_equal(session.releases(work), exact.releases(work))
        print("the same")
except FederationError as error:
    print(error.code)
"""


@pytest.mark.e2e
def test_a_cluster_that_runs_already_is_joined_by_who_knows_its_token_and_left_as_it_was(tmp_path):
    root = str(Path(__file__).parents[3])
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOST.format(root=root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=plain,
    ) as host:
        address, token = host.stdout.readline().split()

        def guest(**known):
            # The cluster hears loopback alone, and so must its guest.
            told = plain | {"RAY_ADDRESS": address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **known}
            script = GUEST.format(root=root)
            run = subprocess.run(
                [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=200, env=told
            )
            return run.stdout.strip()

        assert guest() == "CSL-M213"
        assert [guest(RAY_AUTH_TOKEN=token) for _ in range(2)] == ["the same", "the same"]
        assert host.poll() is None
        host.stdin.close()
        assert host.wait(timeout=60) == 0


INTERRUPTED = """
import sys
sys.path.insert(0, {root!r})
from simulations.engines.ray import Ray
from simulations.engines.work import Local
from tests.simulations.engines.jobs import job_of, work_of

if __name__ == "__main__":
    job = job_of("additive")
    with Ray(cpus=1).open(job) as session:
        session.releases(work_of(job))
        import psutil
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        while True:
            session.releases(work_of(job, local=Local(200, 0.1)))
"""


@pytest.mark.e2e
def test_interrupted_it_leaves_no_process_and_no_file(tmp_path):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.format(root=str(Path(__file__).parents[3])))
    home = tmp_path / "files"
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(home)},
        start_new_session=True,
    )
    try:
        children = [int(word) for word in process.stdout.readline().split()]
        assert children and len(list(home.glob("consilience-*"))) == 1
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in told
    deadline = time.monotonic() + 30
    while (left := [pid for pid in children if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == [] and not list(home.glob("consilience-*"))
