"""Campaigns at rest: nothing legible, whole or not at all, and rewritten without whoever withdrew."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.campaign import store
from client.campaign.record import CampaignRecord
from client.campaign.store import read_campaign, read_record, stem_named, stems, strip, write_campaign, write_record
from client.campaign.table import table_of
from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write
from tests.client.campaign.parts import KEY, drawn, with_outcomes


def without(*gone: str):
    def mask(ids: Sequence[str]) -> np.ndarray:
        return np.array([name in gone for name in ids], dtype=bool)

    return mask


def same(first, second) -> bool:
    if first is None or second is None:
        return first is second
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name != "known")
        for name in store.OUTCOME_COLUMNS
    )


def test_what_was_written_is_read_and_nothing_of_it_is_legible(tmp_path):
    campaign = write_campaign(tmp_path, with_outcomes(drawn(400, 100), {"mail": 0.1}), KEY)
    read = read_campaign(tmp_path, campaign.stem, KEY)
    assert (read.members, read.record) == (campaign.members, campaign.record) and same(read.outcomes, campaign.outcomes)
    assert stems(tmp_path) == ["spring-2026-05-09"] and store.day_of("spring-2026-05-09").isoformat() == "2026-05-09"
    assert stem_named(tmp_path, "spring") == campaign.stem
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600 and content.startswith(b"csl-box1")
        assert not any(word in content for word in (b"c0000", b"PAR1", b"mail", b"seed"))
    with pytest.raises(IntegrityError, match="CSL-P522"):
        read_campaign(tmp_path, campaign.stem, b"t" * 32)


def test_a_campaign_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="CSL-C780"):
        stem_named(tmp_path, "spring")
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "spring-2026-13-01.json").write_text("{}")
    assert stems(tmp_path) == ["spring-2026-13-01"] and store.day_of("spring-2026-13-01") is None
    assert store.day_of("notes") is None and store.name_of("notes") == "notes"


def test_files_that_do_not_fit_are_not_shown_and_a_new_writing_mends_them(tmp_path):
    campaign = write_campaign(tmp_path, drawn(400, 100), KEY)
    other = with_outcomes(campaign, {})
    (tmp_path / "elsewhere").mkdir()
    write_campaign(tmp_path / "elsewhere", other, KEY)
    rows = f"{campaign.stem}{store.MEMBERS}"
    (tmp_path / rows).write_bytes(
        (tmp_path / "elsewhere" / rows).read_bytes()
    )  # the rows were written, the record was not
    with pytest.raises(IntegrityError, match="CSL-C785"):
        read_campaign(tmp_path, campaign.stem, KEY)
    assert read_campaign(tmp_path, campaign.stem, KEY, whole=False).members == campaign.members
    assert strip(tmp_path, campaign.stem, KEY, None) == 0
    assert read_campaign(tmp_path, campaign.stem, KEY).outcomes is None
    (tmp_path / rows).unlink()
    with pytest.raises(IntegrityError, match="CSL-C785"):
        read_campaign(tmp_path, campaign.stem, KEY, whole=False)


def test_a_record_that_is_none(tmp_path):
    campaign = drawn(400, 100)
    broken = CampaignRecord.model_construct(**(campaign.record.__dict__ | {"members": {"mail": -1}}))
    write_record(tmp_path, replace(campaign, record=broken), KEY)
    with pytest.raises(IntegrityError, match="CSL-C785"):
        read_record(tmp_path, campaign.stem, KEY)
    with pytest.raises(IntegrityError, match="CSL-C785"):
        read_record(tmp_path, "autumn-2026-04-01", KEY)


@given(st.sets(st.integers(0, 39), max_size=12))
@settings(max_examples=20)
def test_whoever_withdrew_is_taken_out_of_every_file_and_the_others_stay(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("campaigns")
    closed = with_outcomes(drawn(40, 30), {"mail": 0.4}, base=0.4)
    closed = replace(closed, record=closed.record.model_copy(update={"closed": "2026-06-01"}))
    campaign = write_campaign(folder, closed, KEY)
    table = folder / f"{campaign.stem}{store.TABLE}"
    atomic_write(table, store.parquet_bytes(table_of(campaign)), 0o600)
    gone = [f"c{number:05d}" for number in numbers]
    mine = {member.customer for member in campaign.members}
    assert strip(folder, campaign.stem, KEY, without(*gone)) == len(mine & set(gone))
    after = read_campaign(folder, campaign.stem, KEY)
    stay = np.array([member.customer not in gone for member in campaign.members])
    assert after.members == tuple(m for m, kept in zip(campaign.members, stay, strict=True) if kept)
    assert same(after.outcomes, campaign.outcomes.take(stay))
    assert set(pq.read_table(table)["customer"].to_pylist()) == mine - set(gone)
    assert table.stat().st_mode & 0o777 == 0o600
    assert after.record.members == campaign.record.members  # how many there were at the draw stays known
    assert strip(folder, campaign.stem, KEY, without(*gone)) == 0


def test_nobody_to_take_out_changes_no_file(tmp_path):
    campaign = write_campaign(tmp_path, drawn(400, 100), KEY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert strip(tmp_path, campaign.stem, KEY, without("stranger")) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert {path.name for path in store.files_of(tmp_path, campaign.stem)} == set(before)
