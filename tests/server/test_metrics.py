from pathlib import Path
from urllib.request import urlopen

from hypothesis import given, settings
from hypothesis import strategies as st

from server.events import Event, GrantsReceived, LeftOut, StudySigned
from server.journal import SUFFIX, Journal
from server.metrics import MAX_STUDIES, OTHER, STRANGER, JournalFeed, StudyMetrics
from tests.server.study_events import EVENTS, START, Ticking, secure, whole, write


def value(metrics: StudyMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_whole_study_in_numbers() -> None:
    metrics = StudyMetrics()
    take = metrics.study("churn")
    for event in whole(3):
        take(event)
    assert value(metrics, "consilience_rounds_total", study="churn") == 3
    assert value(metrics, "consilience_rounds_planned", study="churn") == 3
    assert value(metrics, "consilience_round_seconds_sum", study="churn") == 3.0
    assert value(metrics, "consilience_bytes_total", study="churn", direction="received") == 3 * 2048
    assert value(metrics, "consilience_answers_total", study="churn", member="south") == 2
    left_out = {"study": "churn", "member": "south", "phase": "round", "code": "CSL-S202"}
    assert value(metrics, "consilience_left_out_total", **left_out) == 1
    assert (
        value(
            metrics,
            "consilience_left_out_total",
            **left_out | {"member": STRANGER, "phase": "roster", "code": "CSL-S301"},
        )
        == 1
    )
    assert value(metrics, "consilience_epsilon_declared", study="churn", member="north") == 2.5
    assert value(metrics, "consilience_studies", state="delivered") == 1
    assert value(metrics, "consilience_studies", state="training") == 0


def test_a_secure_study_in_numbers() -> None:
    metrics = StudyMetrics()
    for event in [*secure(), *secure()]:
        metrics.take("churn", event)
    assert value(metrics, "consilience_set_up_seconds", study="churn") == 61.5
    assert value(metrics, "consilience_sums_repeated_total", study="churn") == 2
    metrics.take("spring", whole()[0])
    assert value(metrics, "consilience_sums_repeated_total", study="spring") is None


def test_labels_are_bounded() -> None:
    metrics = StudyMetrics()
    for number in range(MAX_STUDIES + 50):
        metrics.take(f"study_{number}", StudySigned("s", "ab" * 32, 1, ()))
        metrics.take(f"study_{number}", GrantsReceived(("north",), (1.0,), ()))
        metrics.take("study_0", LeftOut("roster", 0, f"node {number}", "CSL-S301", "x"))
    studies = {
        sample.labels["study"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "study" in sample.labels
    }
    assert len(studies) == MAX_STUDIES + 1 and OTHER in studies
    assert value(metrics, "consilience_studies", state="granted") == MAX_STUDIES + 50
    assert value(metrics, "consilience_epsilon_declared", study=OTHER, member="north") is None


def test_numbers_come_from_journals_and_are_the_same_after_a_restart(tmp_path: Path) -> None:
    path = write(tmp_path / f"churn{SUFFIX}", whole(3)[:6])
    (tmp_path / f"broken{SUFFIX}").write_text("nothing\n")
    (tmp_path / "churn.json").write_text("{}")
    metrics = StudyMetrics()
    feed = JournalFeed(tmp_path, metrics)
    feed.poll()
    feed.poll()
    assert value(metrics, "consilience_rounds_total", study="churn") == 1
    assert value(metrics, "consilience_last_event_timestamp_seconds", study="churn") == START.timestamp() + 6
    assert value(metrics, "consilience_journals_damaged") == 1
    journal = Journal(path, Ticking())
    for event in whole(3)[6:]:
        journal(event)
    feed.poll()
    again = StudyMetrics()
    JournalFeed(tmp_path, again).poll()
    assert value(metrics, "consilience_rounds_total", study="churn") == 3
    assert value(again, "consilience_rounds_total", study="churn") == 3


def test_they_are_served_on_this_machine_alone() -> None:
    metrics = StudyMetrics()
    metrics.take("churn", whole()[0])
    server = metrics.serve(0)
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        server.stop()
    assert 'consilience_studies{state="signed"} 1.0' in text and "process_resident_memory_bytes" in text


@settings(max_examples=30)
@given(st.lists(EVENTS, max_size=8))
def test_every_event_can_be_taken(events: list[Event]) -> None:
    metrics = StudyMetrics()
    for event in events:
        if not isinstance(event, GrantsReceived) and not any(
            number < 0 for number in (getattr(event, "bytes_sent", 0), getattr(event, "bytes_received", 0))
        ):
            metrics.take("churn", event)
