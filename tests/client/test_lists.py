"""Name lists at rest: nothing legible on the disk, whole or not at all, safe to open, and rewritten without whoever withdrew."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import lists
from client.calibration import Calibration
from client.lists import COLUMNS, SUFFIXES, NameList, Written, newest, read_list, safe_cell, stems, strip, write_list
from client.names import Listed, TopCustomers, WorthWhile, choose
from client.scores import Scores
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, StorageError
from privacy.sealing import read_sealed, write_sealed
from tests.client.test_names import KEY, agreed, scores

STORE = b"s" * 32
PLAIN = Calibration(intercept=0.0, slope=1.0, method="none", note="As it is.")
WHEN = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
TOP = TopCustomers(customers=20)


def written(
    folder: Path, found: Scores, listed: list[Listed], capacity: TopCustomers | WorthWhile, when: datetime = WHEN
) -> Written:
    """Write a list with fixed provenance."""
    return write_list(
        folder, listed, found, store_key=STORE, study="churn", model_digest="ab" * 32, when=when,
        capacity=capacity, calibration=PLAIN,
    )  # fmt: skip


def listed(folder: Path, ids: list[str], when: datetime = WHEN) -> Written:
    found = scores([0.5] * len(ids), ids=ids)
    return written(folder, found, choose(found, TOP, ids, KEY), TOP, when)


def without(*gone: str):
    def mask(ids: Sequence[str]) -> np.ndarray:
        return np.array([name in gone for name in ids], dtype=bool)

    return mask


def opened(folder: Path, files: Written) -> NameList:
    return read_list(folder, files.csv.stem, STORE)


def test_files_agree_are_private_and_say_where_they_come_from(tmp_path: Path) -> None:
    capacity = TopCustomers(customers=2)
    found = scores([0.2, 0.8, 0.5], ids=["=1+1", "007", "c"], value=[1.0, np.nan, 4.0])
    chosen = choose(found, capacity, agreed(found), KEY)
    files = written(tmp_path, found, chosen, capacity)
    assert files.csv.name == "churn-2026-03-01-abababab.csv"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in (files.parquet, files.csv, files.record)
    )
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    read = opened(tmp_path, files)
    assert list(read.listed) == chosen
    table = pq.read_table(io.BytesIO(read.parquet)).to_pylist()
    assert tuple(table[0]) == COLUMNS
    assert [(row["customer"], row["rank"], row["score"], row["expected_value"]) for row in table] == [
        ("007", 1, 0.8, None),
        ("c", 2, 0.5, 2.0),
    ]
    lines = list(csv.DictReader(io.StringIO(read.csv.decode())))
    assert [line["customer"] for line in lines] == ["007", "c"]
    assert [line["expected_value"] for line in lines] == ["", "2.0"]
    assert lines[0]["reason_1"] == "Has a loan: yes; raises the score" and lines[1]["reason_1"] == ""
    record = read.record
    assert (record.counts.scored, record.counts.listed, record.counts.without_value) == (3, 2, 1)
    assert (record.parquet_sha256, record.csv_sha256) == (sha256_hex(read.parquet), sha256_hex(read.csv))
    assert record.capacity == capacity and record.written == "2026-03-01T09:30:00+00:00"
    assert not any(name in record.model_dump_json() for name in ("007", "1+1"))


def test_what_changed_since_the_scoring_before_stands_in_the_list(tmp_path: Path) -> None:
    found = scores([0.2, 0.8], ids=["a", "b"])
    chosen = [
        replace(line, score_before=0.5, decile_before=4, risen="=1+1") for line in choose(found, TOP, ["a", "b"], KEY)
    ]
    read = opened(tmp_path, written(tmp_path, found, chosen, TOP))
    assert list(read.listed) == chosen
    line = next(csv.DictReader(io.StringIO(read.csv.decode())))
    assert (line["score_before"], line["decile_before"], line["risen"], line["fallen"]) == ("0.5", "4", "'=1+1", "")


def test_a_list_from_before_scorings_were_compared_opens_and_can_be_stripped(tmp_path: Path) -> None:
    files = listed(tmp_path, ["a", "b"])
    older = [name for name in COLUMNS if name not in ("score_before", "decile_before", "risen", "fallen")]
    sink = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(opened(tmp_path, files).parquet)).select(older), sink)
    record = json.loads(read_sealed(files.record, STORE, lists.KIND) or b"")
    del record["compared"]
    record["parquet_sha256"] = sha256_hex(sink.getvalue())
    write_sealed(files.parquet, STORE, lists.KIND, sink.getvalue())
    write_sealed(files.record, STORE, lists.KIND, json.dumps(record).encode())
    read = opened(tmp_path, files)
    assert {line.customer for line in read.listed} == {"a", "b"} and read.record.compared is None
    assert all((line.score_before, line.risen) == (None, "") for line in read.listed)
    assert strip(tmp_path, files.csv.stem, STORE, without("a")) == 1
    assert [line.customer for line in opened(tmp_path, files).listed] == ["b"]


def test_nothing_of_a_list_is_legible_on_the_disk(tmp_path: Path) -> None:
    ids = [f"canary-{number}" for number in range(20)]
    listed(tmp_path, ids)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert content.startswith(b"csl-box1")
        assert not any(word in content for word in (b"canary", b"PAR1", b"customer", b"calibration"))


def test_files_of_a_list_cannot_be_exchanged_and_need_the_key(tmp_path: Path) -> None:
    first, second = listed(tmp_path, ["a"]), listed(tmp_path, ["b"], datetime(2026, 3, 2, tzinfo=UTC))
    with pytest.raises(IntegrityError, match="CSL-P522"):
        read_list(tmp_path, first.csv.stem, b"t" * 32)
    first.csv.write_bytes(second.csv.read_bytes())
    with pytest.raises(IntegrityError, match="CSL-P522"):
        opened(tmp_path, first)
    assert [line.customer for line in opened(tmp_path, second).listed] == ["b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_list_that_is_not_whole_is_not_shown(tmp_path: Path, suffix: str) -> None:
    files = listed(tmp_path, ["a", "b"])
    (tmp_path / f"{files.csv.stem}{suffix}").unlink()
    with pytest.raises(IntegrityError, match="CSL-C551"):
        opened(tmp_path, files)


def test_the_same_again_gives_the_same_content(tmp_path: Path) -> None:
    ids = [f"c{number}" for number in range(10)]
    before = opened(tmp_path, listed(tmp_path, ids))
    assert opened(tmp_path, listed(tmp_path, ids)) == before


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    capacity = WorthWhile(cost=1e6, success_rate=0.1)
    found = scores([0.5], value=[1.0])
    read = opened(tmp_path, written(tmp_path, found, choose(found, capacity, agreed(found), KEY), capacity))
    assert read.listed == () and pq.read_table(io.BytesIO(read.parquet)).num_rows == 0
    assert len(read.csv.decode().splitlines()) == 1
    assert read.record.capacity.kind == "worthwhile"
    assert strip(tmp_path, read.stem, STORE, without("a")) == 0


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="CSL-F301"):
        listed(tmp_path / "missing", ["a"])


@given(gone=st.sets(st.sampled_from("abcdef")))
@settings(max_examples=20)
def test_whoever_withdrew_is_taken_off_and_the_others_stay_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, gone: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    files = listed(folder, list("abcdef"))
    before = opened(folder, files)
    assert strip(folder, before.stem, STORE, without(*gone)) == len(gone)
    after = opened(folder, files)
    assert list(after.listed) == [line for line in before.listed if line.customer not in gone]
    assert (after.record.counts.listed, after.record.counts.withdrawn) == (6 - len(gone), len(gone))
    assert strip(folder, before.stem, STORE, without(*gone)) == 0


def test_nobody_to_take_off_changes_no_file(tmp_path: Path) -> None:
    files = listed(tmp_path, ["a", "b"])
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert strip(tmp_path, files.csv.stem, STORE, None) == 0
    assert strip(tmp_path, files.csv.stem, STORE, without("z")) == 0
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


@pytest.mark.parametrize("done", [1, 2])
def test_a_rewriting_that_was_interrupted_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    files = listed(tmp_path, ["a", "b", "c"])
    write, count = lists.write_sealed, 0

    def failing(path: Path, key: bytes, kind: str, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > done:
            raise StorageError("CSL-F301", "The disk is full.", "Free space.")
        write(path, key, kind, content)

    with monkeypatch.context() as patch:
        patch.setattr("client.lists.write_sealed", failing)
        with pytest.raises(StorageError):
            strip(tmp_path, files.csv.stem, STORE, without("b"))
    with pytest.raises(IntegrityError, match="CSL-C551"):
        opened(tmp_path, files)
    strip(tmp_path, files.csv.stem, STORE, without("b"))
    after = opened(tmp_path, files)
    assert {line.customer for line in after.listed} == {"a", "c"} and after.record.counts.listed == 2


def test_the_newest_list_is_found_by_what_it_says_and_not_by_its_files_times(tmp_path: Path) -> None:
    assert newest(tmp_path, STORE) is None
    later = listed(tmp_path, ["b"], datetime(2026, 3, 2, tzinfo=UTC))
    earlier = listed(tmp_path, ["a"])
    (tmp_path / "notes.txt").write_text("not a list")
    (tmp_path / "churn.csv").write_text("not a list either")
    assert stems(tmp_path) == [earlier.csv.stem, later.csv.stem]
    found = newest(tmp_path, STORE, "churn")
    assert found is not None and [line.customer for line in found.listed] == ["b"]
    assert newest(tmp_path, STORE, "other") is None
    assert lists.study_of(later.csv.stem) == "churn" and lists.day_of(later.csv.stem) == date(2026, 3, 2)
    assert lists.day_of("churn-2026-13-77-abababab") is None and lists.day_of("churn") is None


@pytest.mark.parametrize("text", ["=1+1", "+49", "-5", "@sum", "\t=1", "\r=1", "  =cmd|x", "＝1", "'=1", "'"])
def test_what_looks_like_a_formula_is_quoted(text: str) -> None:
    assert safe_cell(text) == "'" + text


@settings(max_examples=200)
@given(text=st.text(max_size=12))
def test_no_cell_starts_a_formula_and_every_text_comes_back(text: str) -> None:
    cell = safe_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert (cell[1:] if cell.startswith("'") else cell) == text


@settings(max_examples=40)
@given(
    ids=st.lists(
        st.text(min_size=1, max_size=8).filter(lambda text: "\x00" not in text and text.isprintable()),
        unique=True,
        max_size=8,
    )
)
def test_identifiers_survive_both_files(ids: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("lists")
    read = opened(folder, listed(folder, ids))
    assert {line.customer for line in read.listed} == set(ids)
    cells = [line["customer"] for line in csv.DictReader(io.StringIO(read.csv.decode(), newline=""))]
    assert {cell[1:] if cell.startswith("'") else cell for cell in cells} == set(ids)
