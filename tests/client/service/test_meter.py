"""What the meter counts of a secure study: a sum's key is the release, by the account that pays for it; nothing before it is one."""

import pytest
from prometheus_client import generate_latest

from client.metrics import VaultMetrics
from client.service.meter import VaultMeter
from client.unlock import unlock
from client.vault import Vault
from privacy.keys import read_public
from privacy.randomness import SystemSource
from tests.client.secure import town as towns
from tests.client.secure.town import Federation

BEFORE = ("query.sum", "query.sum_readies", "query.sum_headers")


@pytest.fixture
def metered(tmp_path):
    """A federation whose alder is watched by a meter, as the worker has it; and its metrics."""
    with Federation(towns.found(tmp_path / "town")) as federation:
        home, metrics = federation.town.homes["alder"], VaultMetrics()
        meter = VaultMeter(metrics, home, read_public(home.identity_key))
        federation._vaults["alder"] = Vault.open(home.root, unlock(home), source=SystemSource(), watch=meter.watch)
        federation.grants()
        federation.set_up()
        yield federation, metrics, meter


def sample(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels) or 0.0


def released(metrics):
    return tuple(sample(metrics, "consilience_vault_releases_total", account=name) for name in ("training", "holdout"))


def test_a_secure_release_is_counted_on_the_account_that_pays(metered):
    federation, metrics, meter = metered
    assert meter.done(0.1) == "query.epoch_exchanges" and released(metrics) == (0.0, 0.0)
    last = federation.spec.training.rounds + 1
    for number, counted in ((1, (1.0, 0.0)), (2, (2.0, 0.0)), (last, (2.0, 1.0))):
        before = released(metrics)
        acks = federation.acknowledged(number, federation.masked(number, federation.ready(number)))
        assert released(metrics) == before  # masked vectors and acknowledgements are no release
        request = federation.sum_acks(number, federation.acks(acks))
        federation.ask("alder", "query.sum_acks", request)
        assert meter.done(0.1) == "query.sum_acks" and released(metrics) == counted
    for kind in (*BEFORE, "query.sum_acks"):
        assert sample(metrics, "consilience_vault_requests_total", type=kind, outcome="answered") == 3.0


def test_a_refused_reveal_is_no_release(metered):
    federation, metrics, meter = metered
    acks = federation.acks(federation.acknowledged(1, federation.masked(1, federation.ready(1))))
    federation.ask("alder", "query.sum_acks", federation.sum_acks(1, acks[:-1]))
    assert meter.done(0.1) == "query.sum_acks" and released(metrics) == (0.0, 0.0)
    text = generate_latest(metrics.registry).decode()
    assert 'requests_total{outcome="refused",type="query.sum_acks"} 1.0' in text and 'code="CSL-P809"' in text
    assert federation.rid not in text  # no label names a study
