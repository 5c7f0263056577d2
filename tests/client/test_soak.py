"""A short soak: the thousand kills of `benchmarks/soak.py`, a few of them in every run of the tests."""

import importlib
import random
import tempfile
from pathlib import Path

import pytest

from privacy.ledger import Ledger, state


@pytest.fixture
def soak(monkeypatch):
    """The benchmark, imported as it is when it runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("soak")


@pytest.fixture
def folder(soak):
    with tempfile.TemporaryDirectory(dir=soak.memory()) as name:
        yield Path(name)


def test_kills_at_durable_steps_and_at_any_instant_lose_nothing(soak, folder):
    """Other kills in every run; a failure names its step, by which `benchmarks/soak.py` finds it again."""
    tally = soak.soak(20, folder, seed=random.SystemRandom().randrange(1 << 32))
    assert not tally.failures, "\n".join(tally.failures)
    assert sum(tally.runs.values()) == 20 and tally.steps > 200


def test_the_soak_finds_a_release_that_nothing_was_written_for(soak, folder, monkeypatch):
    monkeypatch.setattr(Ledger, "release", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="acknowledged and not there"):
        soak.soak(1, folder, seed=0)


def test_the_soak_finds_a_charge_that_is_lost(soak, folder, monkeypatch):
    monkeypatch.setattr(state.AccountState, "opened", lambda account, _purpose, _cost: account)
    monkeypatch.setattr(state.AccountState, "closed", lambda account, *_: account)
    with pytest.raises(AssertionError, match="released"):
        soak.soak(1, folder, seed=0)
