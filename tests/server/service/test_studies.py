"""Records of studies: whole, shared, and never lost by two who write at once."""

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationError, StorageError
from server.service.studies import StudyBook, StudyRecord


def test_a_study_that_was_never_started_is_not_there(tmp_path):
    book = StudyBook(tmp_path)
    assert book.names() == () and book.read("spring") is None
    with pytest.raises(FederationError, match="CSL-S802"):
        book.unwant("spring")


def test_wanting_is_written_down_for_the_owner_alone(tmp_path):
    book = StudyBook(tmp_path, lambda: 5.0)
    record = book.want("spring", keep_trying=True, roster_seconds=3.0, grant_seconds=9.0)
    assert book.read("spring") == record
    assert (record.wanted, record.state, record.since, record.keep_trying) == ("running", "waiting", 5.0, True)
    assert (record.roster_seconds, record.grant_seconds) == (3.0, 9.0)
    assert book.file("spring").stat().st_mode & 0o077 == 0
    assert [item.study for item in book.all()] == ["spring"]


def test_a_running_study_that_is_wanted_again_only_changes_its_patience(tmp_path):
    book = StudyBook(tmp_path)
    book.want("spring")
    book.settle("spring", "running", run_id=1 << 63, retry_at=7.0)
    record = book.want("spring", keep_trying=True)
    assert (record.state, record.run_id, record.keep_trying, record.retry_at) == ("running", 1 << 63, True, 0.0)


@pytest.mark.parametrize(("state", "kept"), [("stopped", "model"), ("failed", "model"), ("finished", None)])
def test_starting_again_begins_afresh_and_forgets_the_model_of_a_finished_study_alone(tmp_path, state, kept):
    book = StudyBook(tmp_path)
    book.want("spring")
    book.settle("spring", state, "why", "CSL-S502", tries=4, delivered="model")
    over = book.read("spring")
    assert over.over and over.wanted == "stopped" and over.run_id is None
    record = book.want("spring")
    assert (record.wanted, record.state, record.tries, record.code) == ("running", "waiting", 0, "")
    assert record.delivered == kept


def test_since_is_when_the_state_began(tmp_path):
    times = iter([1.0, 2.0, 3.0])
    book = StudyBook(tmp_path, lambda: next(times))
    book.want("spring")
    assert book.settle("spring", "running").since == 2.0
    assert book.settle("spring", "running", "another word").since == 2.0


def test_a_damaged_record_is_named(tmp_path):
    book = StudyBook(tmp_path)
    book.want("spring")
    book.file("spring").write_text("{")
    with pytest.raises(StorageError, match="CSL-S801") as caught:
        book.read("spring")
    assert "--again" in caught.value.action


@pytest.mark.parametrize(("state", "kept"), [("stopped", None), ("failed", None), ("finished", "model")])
def test_what_was_delivered_is_forgotten_for_another_draft_unless_the_study_is_finished(tmp_path, state, kept):
    book = StudyBook(tmp_path)
    book.forget_delivered("spring")
    assert book.read("spring") is None
    book.want("spring")
    book.settle("spring", state, "why", delivered="model")
    before = book.read("spring")
    book.forget_delivered("spring")
    assert book.read("spring") == before.model_copy(update={"delivered": kept})


@given(
    st.builds(
        StudyRecord,
        study=st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True),
        wanted=st.sampled_from(["running", "stopped"]),
        state=st.sampled_from(["waiting", "running", "failed"]),
        since=st.floats(0, 1e12),
        reason=st.text(max_size=50),
        run_id=st.none() | st.integers(0, (1 << 64) - 1),
        retry_at=st.floats(0, 1e12),
    )
)
def test_every_record_reads_back_as_it_was_written(record):
    assert StudyRecord.model_validate_json(record.model_dump_json()) == record


def _count(folder: str) -> None:
    book = StudyBook(Path(folder))
    for _ in range(20):
        book.change("spring", lambda record: record.model_copy(update={"tries": record.tries + 1}))


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    book = StudyBook(tmp_path)
    book.want("spring")
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_count, args=(str(tmp_path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    record = book.read("spring")
    assert record is not None and record.tries == 40
