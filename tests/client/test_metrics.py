import socket
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.app import ACTIONS
from client.metrics import MAX_CODES, MESSAGE_TYPES, VaultMetrics
from federation.errors import StorageError


def value(metrics: VaultMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_requests_refusals_and_releases_are_counted() -> None:
    metrics = VaultMetrics(now=lambda: 1234.5)
    metrics.answered("train", 0.2)
    metrics.refused("train", "CSL-C512", 0.1)
    metrics.failed("evaluate", 0.1)
    metrics.released("training")
    metrics.waited(0.5)
    metrics.waited(-1.0)
    metrics.state(studies_open=2, ledger_entries=40)
    assert value(metrics, "consilience_vault_requests_total", type="train", outcome="answered") == 1
    assert value(metrics, "consilience_vault_requests_total", type="train", outcome="refused") == 1
    assert value(metrics, "consilience_vault_requests_total", type="evaluate", outcome="failed") == 1
    assert value(metrics, "consilience_vault_refusals_total", code="CSL-C512") == 1
    assert value(metrics, "consilience_vault_releases_total", account="training") == 1
    assert value(metrics, "consilience_vault_answer_seconds_count", type="train") == 2
    assert value(metrics, "consilience_vault_throttled_seconds_total") == 0.5
    assert value(metrics, "consilience_vault_studies_open") == 2
    assert value(metrics, "consilience_vault_ledger_entries") == 40
    assert value(metrics, "consilience_vault_last_request_timestamp_seconds") == 1234.5


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=30))
def test_what_a_coordinator_sends_never_becomes_a_label(pairs: list[tuple[str, str]]) -> None:
    metrics = VaultMetrics()
    for message_type, code in pairs:
        metrics.refused(message_type, code, 0.0)
    labels = {
        text for family in metrics.registry.collect() for sample in family.samples for text in sample.labels.values()
    }
    bounds = {text for text in labels if text.replace(".", "").isdigit() or text == "+Inf"}
    assert labels - bounds - MESSAGE_TYPES <= {"other", "refused"} | {
        code for _, code in pairs if code.startswith("CSL-")
    }


def test_codes_are_bounded() -> None:
    metrics = VaultMetrics()
    for number in range(MAX_CODES + 50):
        metrics.refused("train", f"CSL-C{number:03d}", 0.0)
    assert value(metrics, "consilience_vault_refusals_total", code="CSL-C007") == 1
    assert value(metrics, "consilience_vault_refusals_total", code="other") == 50


def test_no_metric_counts_customers() -> None:
    names = {family.name for family in VaultMetrics().registry.collect() if family.name.startswith("consilience")}
    assert names == {
        "consilience_vault_requests",
        "consilience_vault_refusals",
        "consilience_vault_releases",
        "consilience_vault_answer_seconds",
        "consilience_vault_throttled_seconds",
        "consilience_vault_studies_open",
        "consilience_vault_ledger_entries",
        "consilience_vault_last_request_timestamp_seconds",
    }


def test_the_types_are_those_that_the_app_answers() -> None:
    assert MESSAGE_TYPES == {"train", "evaluate", "another app", *(f"query.{action}" for action in ACTIONS)}


def test_they_are_served_on_this_machine_until_stopped() -> None:
    metrics = VaultMetrics()
    server = metrics.serve(0)
    url = f"http://127.0.0.1:{server.port}/metrics"
    try:
        with urlopen(url, timeout=5) as answer:
            assert b"consilience_vault_studies_open 0.0" in answer.read()
        with pytest.raises(StorageError, match="CSL-F371"):
            metrics.serve(server.port)
        with socket.socket() as other:
            other.settimeout(1)
            assert other.connect_ex(("127.0.0.2", server.port)) != 0, "only 127.0.0.1 may be listened on"
    finally:
        server.stop()
    with pytest.raises(URLError):
        urlopen(url, timeout=1)
