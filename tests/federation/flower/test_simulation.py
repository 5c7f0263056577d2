"""Flower's simulation runtime says nothing to anybody while it is silenced, and reads what the adapter sets."""

import importlib.util
import inspect
import logging
from pathlib import Path

import pytest
from flwr.supercore import telemetry

from federation.flower.simulation import PARTITION_KEY, run_simulation, silence


@pytest.fixture
def calls(monkeypatch):
    found = []

    def urlopen(request, **_given):
        found.append(request.full_url)
        raise telemetry.urllib.error.URLError("no way out")

    monkeypatch.setattr(telemetry.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(telemetry, "_get_source_id", lambda: "test")
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")
    return found


def test_reports_are_made_before_it_was_silenced_and_never_after(calls):
    telemetry.create_event(telemetry.EventType.PYTHON_API_RUN_SIMULATION_ENTER, None)
    assert calls == [telemetry.TELEMETRY_EVENTS_URL]
    with silence():
        telemetry.create_event(telemetry.EventType.PYTHON_API_RUN_SIMULATION_ENTER, None)
    telemetry.create_event(telemetry.EventType.PYTHON_API_RUN_SIMULATION_LEAVE, None)
    assert len(calls) == 1


def test_the_log_is_quiet_for_a_while_and_as_loud_as_before_after_an_error():
    logger = logging.getLogger("flwr")
    level = logger.level
    with pytest.raises(KeyError), silence():
        assert not logger.isEnabledFor(logging.CRITICAL)
        raise KeyError
    assert logger.level == level


def test_the_runtime_takes_what_the_engine_gives_it_and_the_ray_that_runs():
    assert PARTITION_KEY == "partition-id"
    assert list(inspect.signature(run_simulation).parameters)[:3] == ["server_app", "client_app", "num_supernodes"]
    # Read, not imported: it would import Ray, which must not be before the engine has set Ray's variables.
    backend = importlib.util.find_spec("flwr.server.superlink.fleet.vce.backend.raybackend")
    assert "if not ray.is_initialized():" in Path(backend.origin).read_text()
