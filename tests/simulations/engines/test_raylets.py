"""Ray's processes: what is set is set back, nobody else's Ray is touched, and nothing answers who does not know a token."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from federation.errors import ConsilienceError, FederationError
from simulations.engines import raylets
from simulations.engines.raylets import joined_cluster, own_cluster


class AuthenticationError(Exception):
    """Stands for Ray's."""


@pytest.fixture
def play(monkeypatch):
    """Puts a Ray in the place of the real one; returns what it was asked."""

    def put(mode="token", ready=False, reach=False, address="127.0.0.1", init=None, free=8.0):
        asked = SimpleNamespace(closed=0, given=None)

        def begin(**given):
            asked.given = given
            if init is not None:
                raise init

        def close():
            asked.closed += 1

        ray = SimpleNamespace(
            is_initialized=lambda: ready,
            init=begin,
            nodes=lambda: [{"NodeManagerAddress": address}],
            shutdown=close,
            cluster_resources=lambda: {"CPU": 8.0},
            available_resources=lambda: {"CPU": free} if free else {},
            exceptions=SimpleNamespace(AuthenticationError=AuthenticationError),
        )
        core = SimpleNamespace(get_authentication_mode=lambda: mode, AuthenticationMode=SimpleNamespace(TOKEN="token"))
        known = {
            "ray": ray,
            "ray._raylet": core,
            "ray._private.ray_constants": SimpleNamespace(ENABLE_RAY_CLUSTER=reach),
        }
        monkeypatch.setattr(raylets, "importlib", SimpleNamespace(import_module=known.__getitem__))
        return asked

    return put


@contextmanager
def listener():
    """An address at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_ray_of_somebody_else_is_left_alone(play):
    asked = play(ready=True)
    with pytest.raises(ConsilienceError, match="CSL-M219.*already"), own_cluster(1):
        pass
    assert not asked.closed and asked.given is None


@pytest.mark.parametrize("found", [{"mode": "disabled"}, {"reach": True}])
def test_a_ray_that_read_other_variables_is_not_started(play, found):
    asked = play(**found)
    with pytest.raises(ConsilienceError, match="CSL-M219.*imported"), own_cluster(1):
        pass
    assert asked.given is None


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.7"])
def test_a_ray_that_hears_more_than_this_machine_is_closed(play, address):
    asked = play(address=address)
    if address == "127.0.0.1":
        with own_cluster(2):
            assert Path(asked.given["_temp_dir"]).is_dir() and asked.given["address"] == "local" and not asked.closed
    else:
        with pytest.raises(ConsilienceError, match="CSL-M219.*192"), own_cluster(2):
            pass
    assert asked.closed == 1 and not Path(asked.given["_temp_dir"]).exists()


def test_a_ray_that_does_not_start_is_told_and_closed(play):
    asked = play(init=OSError("no room"))
    with pytest.raises(ConsilienceError, match="CSL-M219.*no room"), own_cluster(1):
        pass
    assert asked.closed == 1


def test_the_environment_is_set_back(play, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    before = dict(os.environ)
    play()
    with pytest.raises(KeyError), own_cluster(1):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0" and os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_ENABLE_AUTO_CONNECT"] == "0"
        assert os.environ["OMP_NUM_THREADS"] == "1" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
        raise KeyError
    assert dict(os.environ) == before


def test_a_cluster_is_joined_with_its_own_token_and_left(play, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    asked = play(reach=True)
    with listener() as address:
        monkeypatch.setenv("RAY_ADDRESS", f" {address}")
        before = dict(os.environ)
        with joined_cluster():
            assert os.environ["RAY_AUTH_TOKEN"] == "theirs" and os.environ["RAY_AUTH_MODE"] == "token"
            assert asked.given["address"] == address and "_temp_dir" not in asked.given
            assert asked.given["runtime_env"]["env_vars"]["FLWR_TELEMETRY_ENABLED"] == "0"
    assert asked.closed == 1 and dict(os.environ) == before


@pytest.mark.parametrize("error", [AuthenticationError("no token"), ConnectionError("refused")])
def test_a_cluster_that_lets_nobody_in(play, monkeypatch, error):
    asked = play(init=error)
    with listener() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(FederationError, match=f"CSL-M213.*{error}") as caught, joined_cluster():
            pass
    assert "RAY_AUTH_TOKEN" in caught.value.action and asked.closed == 1


@pytest.mark.parametrize("free", [0.0, 7.0])
def test_a_cluster_where_others_are_at_work(play, monkeypatch, free):
    asked = play(free=free)
    with listener() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(FederationError, match=f"CSL-M213.*8 processors.*{free:g} are free"), joined_cluster():
            pass
    assert asked.closed == 1


@pytest.mark.parametrize(
    "address", [None, "", "auto", "local", "ray://head:10001", ":6379", "head:", "head:x", "head:99999999", "a/b:1"]
)
def test_an_address_that_is_none(play, monkeypatch, address):
    asked = play()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(FederationError, match="CSL-M213"), joined_cluster():
        pass
    assert asked.given is None


def test_an_address_where_nobody_answers_is_said_at_once(play, monkeypatch):
    with listener() as address:
        pass
    asked = play()
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(FederationError, match="CSL-M213.*refused"), joined_cluster():
        pass
    assert asked.given is None


TOLD = """
import sys
sys.path.insert(0, {root!r})
import {module}
print("ray" in sys.modules)
from federation.errors import ConsilienceError
from simulations.engines.raylets import own_cluster
try:
    with own_cluster(1):
        print("begun")
except ConsilienceError as error:
    print(error.code, error.cause)
"""


def told(module):
    """What a process says that starts Ray after it has imported this module."""
    script = TOLD.format(root=str(Path(__file__).parents[3]), module=module)
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=100)
    return said.stdout.splitlines()


def test_a_real_ray_that_was_imported_before_is_refused():
    loaded, said = told("ray")
    assert loaded == "True" and said.startswith("CSL-M219") and "imported" in said


@pytest.mark.e2e
def test_nothing_of_the_command_imports_ray_before_its_time():
    assert told("simulations.command") == ["False", "begun"]


LATE = """
import sys
sys.path.insert(0, {root!r})
from simulations.engines.raylets import own_cluster

with own_cluster(1):
    import ray

    @ray.remote
    class Actor:
        def work(self):
            return 1

    actor = Actor.remote()
    assert ray.get(actor.work.remote()) == 1
try:
    actor.work.remote()
except Exception as error:
    print(type(error).__name__)
print(ray.is_initialized())
"""


@pytest.mark.e2e
def test_what_touches_an_actor_after_the_end_starts_no_other_ray():
    """Flower's runtime does so when a round was given up; Ray would start anew by itself, and answer anybody."""
    script = LATE.format(root=str(Path(__file__).parents[3]))
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=200)
    kind, started = said.stdout.split()
    assert kind.endswith("Exception") or kind.endswith("Error")
    assert started == "False"


def test_what_is_read_of_ray_is_there():
    """In a process of its own: here Ray must not be imported before its time."""
    script = (
        "import ray._raylet as core, ray._private.ray_constants as constants\n"
        "from ray.exceptions import AuthenticationError\n"
        "print(core.get_authentication_mode() == core.AuthenticationMode.TOKEN, constants.ENABLE_RAY_CLUSTER)"
    )
    wanted = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    for environment, expected in (({}, "False True"), (wanted, "True False")):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | environment
        said = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=100, env=clean
        )
        assert said.stdout.split() == expected.split()
