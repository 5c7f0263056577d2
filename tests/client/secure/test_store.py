"""The secrets of secure sums at rest: read back as written, sealed, bound to their place, erased with the study, and in no backup."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.backup import read_backup, write_backup
from client.retention import due, purge
from client.secure.store import FOLDER, KeptSum, Secrets, files_of, rid_of
from federation.encoding import sha256_hex
from federation.errors import IntegrityError
from federation.secure import SumOffer
from privacy.policy import Retention
from privacy.secure_aggregation.institution import ReadyState, RevealedState
from tests.client.entries import written

KEY, OTHER = b"k" * 32, b"o" * 32
RID, SECOND = "a" * 64, "b" * 64
RETENTION = Retention(name_lists_days=10, replies_days=20, participation_days=30)


def kept(number: int, vector: np.ndarray, d: int | None = None, w: int = 32) -> KeptSum:
    return KeptSum(ready(number, len(vector) if d is None else d, w), "9" * 64, vector)


def ready(number: int, d: int, w: int = 32) -> ReadyState:
    offer = SumOffer(
        roster="c" * 64,
        epoch=RID,
        number=number,
        attempt=2,
        request="d" * 64,
        d=d,
        w=w,
        scale=12.5,
        share=256.0,
        n_min=3,
        c=0,
    )
    return ReadyState(offer=offer, me="alder", nonce="e" * 64, b="f" * 64)


@settings(max_examples=50)
@given(
    number=st.integers(1, 10**6),
    values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40),
    w=st.sampled_from([32, 64]),
)
def test_a_sum_is_read_back_as_it_was_written(tmp_path_factory, number, values, w):
    folder = tmp_path_factory.mktemp("secure")
    secrets, vector = Secrets(folder, KEY), np.array(values, dtype=np.int64)
    before = kept(number, vector, w=w)
    secrets.keep_sum(RID, number, before)
    after = Secrets(folder, KEY).sum(RID, number)
    assert (after.state, after.asked) == (before.state, before.asked)
    assert np.array_equal(after.vector, vector) and after.vector.dtype == np.int64
    assert secrets.numbers(RID) == (number,) and secrets.numbers(SECOND) == ()


@settings(max_examples=60)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_changed_bit_is_read(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("secure")
    secrets = Secrets(folder, KEY)
    secrets.keep_sum(RID, 1, kept(1, np.arange(3)))
    (path,) = files_of(folder, RID)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="CSL-C482"):
        secrets.sum(RID, 1)


def test_a_file_opens_under_its_own_name_and_key_alone(tmp_path):
    secrets = Secrets(tmp_path, KEY)
    secrets.keep_sum(RID, 1, kept(1, np.arange(3)))
    (path,) = files_of(tmp_path, RID)
    assert path.stat().st_mode & 0o777 == 0o600 and b"f" * 16 not in path.read_bytes()
    path.with_name(f"{SECOND}-1.sum").write_bytes(path.read_bytes())
    for store, rid in ((secrets, SECOND), (Secrets(tmp_path, OTHER), RID)):
        with pytest.raises(IntegrityError, match="CSL-C482"):
            store.sum(rid, 1)


def test_a_vector_of_another_length_than_the_offer_is_none(tmp_path):
    secrets = Secrets(tmp_path, KEY)
    secrets.keep_sum(RID, 1, kept(1, np.arange(4), d=3))
    secrets.keep_sum(RID, 2, kept(1, np.arange(3)))
    for number in (1, 2):
        with pytest.raises(IntegrityError, match="CSL-C482"):
            secrets.sum(RID, number)


def test_the_sums_of_a_study_are_told_from_those_of_others(tmp_path):
    secrets = Secrets(tmp_path, KEY)
    for rid, number in ((RID, 1), (RID, 12), (SECOND, 1)):
        secrets.keep_sum(rid, number, kept(number, np.zeros(1, dtype=np.int64)))
    (tmp_path / f"{RID}.epoch").write_bytes(b"")
    assert secrets.numbers(RID) == (1, 12)
    assert [rid_of(path) for path in sorted(tmp_path.iterdir())] == [RID, RID, RID, SECOND]
    assert rid_of(tmp_path / "notes.txt") is None


def test_no_backup_holds_the_secrets_of_sums(agreed, tmp_path):
    agreed.ready(1)
    agreed.stop("alder")
    home = agreed.town.homes["alder"]
    assert len(list(home.folder(FOLDER).iterdir())) == 2
    manifest = write_backup(home, tmp_path / "backup.zip", "2026-01-01 12:00")
    with zipfile.ZipFile(tmp_path / "backup.zip") as archive:
        assert not [name for name in archive.namelist() if name.startswith(FOLDER)]
    assert not [item for item in manifest.files if item.path.startswith(FOLDER)]
    restored = tmp_path / "restored"
    restored.mkdir()
    assert read_backup(tmp_path / "backup.zip", restored) == manifest and not (restored / FOLDER).exists()


def test_a_backup_that_brings_secrets_of_sums_is_none(agreed, tmp_path):
    home, folder = agreed.town.homes["alder"], tmp_path / "backup"
    manifest = write_backup(home, folder, "2026-01-01 12:00")
    content = b"old secrets"
    (folder / FOLDER).mkdir()
    (folder / FOLDER / f"{RID}.epoch").write_bytes(content)
    tree = manifest.model_dump()
    tree["files"] = (*tree["files"], {"path": f"{FOLDER}/{RID}.epoch", "sha256": sha256_hex(content), "bytes": 11})
    (folder / "MANIFEST.json").write_bytes(type(manifest)(**tree).canonical())
    with pytest.raises(IntegrityError, match="CSL-C746"):
        read_backup(folder, tmp_path)


def test_retention_erases_the_secrets_of_closed_studies_and_of_no_others(agreed):
    agreed.revealed(1, agreed.acknowledged(1, agreed.masked(1, agreed.ready(1))))
    assert isinstance(agreed.kept(1).state, RevealedState)
    agreed.stop("alder")
    home = agreed.town.homes["alder"]
    with agreed.town.ledger() as ledger:
        assert not due(home, RETENTION, ledger, ledger.now())
        ledger.close(agreed.rid, "stopped")
        found = purge(home, RETENTION, ledger)
    assert {rid: len(files) for rid, files in found.secrets.items()} == {agreed.rid: 2}
    assert list(home.folder(FOLDER).iterdir()) == []
    assert [item["what"] for item in written(agreed.town, "access")] == [f"secrets of the sums of study {agreed.rid}"]
