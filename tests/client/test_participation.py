"""Participation records: who was ever read stays in them, they name nobody, and a withdrawal finds its studies."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.home import Home
from client.participation import KIND, Seen, consent_digest, record, recorded, studies_of
from federation.errors import IntegrityError
from privacy.sealing import read_sealed, write_sealed

STORE = b"s" * 32
RID = "a" * 64
IDS = st.sets(st.text(min_size=1, max_size=8), max_size=10)


@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=4), IDS)
@settings(max_examples=40)
def test_a_record_is_the_union_of_all_readings(
    tmp_path_factory: pytest.TempPathFactory, readings: list[tuple[set[str], set[str]]], asked: set[str]
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    trained: set[str] = set()
    held: set[str] = set()
    for training, heldout in readings:
        record(home, STORE, RID, training, heldout)
        trained |= training
        held |= heldout
    assert studies_of(home, STORE, asked) == {RID: Seen(len(asked & trained), len(asked & held))}


def test_the_same_reading_again_writes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record(home, STORE, RID, ["a", "b"], ["c"])
    (path,) = home.folder("participation").iterdir()
    before = path.read_bytes()
    record(home, STORE, RID, ["b"], ["c"])
    assert path.read_bytes() == before and path.stat().st_mode & 0o777 == 0o600
    assert path.name == f"{RID}.part" and recorded(home) == {RID}


def test_a_record_tells_nothing_without_its_key_nor_of_the_tables_order(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in "xy"]
    for home, ids in zip(homes, (["chief-canary", "bob-canary"], ["bob-canary", "chief-canary"]), strict=True):
        record(home, STORE, RID, ids, [])
    contents = [read_sealed(home.folder("participation") / f"{RID}.part", STORE, KIND) for home in homes]
    assert contents[0] == contents[1] and b"canary" not in (contents[0] or b"canary")
    with pytest.raises(IntegrityError, match="CSL-P522"):
        studies_of(homes[0], b"t" * 32, ["chief-canary"])


def test_several_studies_and_those_that_saw_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record(home, STORE, "a" * 64, ["chief"], [])
    record(home, STORE, "b" * 64, ["bob"], ["chief"])
    record(home, STORE, "c" * 64, ["bob"], [])
    found = studies_of(home, STORE, ["chief"])
    assert found == {"a" * 64: Seen(1, 0), "b" * 64: Seen(0, 1), "c" * 64: Seen(0, 0)}
    assert [bool(seen) for seen in found.values()] == [True, True, False]
    assert studies_of(Home(tmp_path / "empty"), STORE, ["chief"]) == {}


@pytest.mark.parametrize("content", [b"", b"\0" * 15, b"\1" + b"\0" * 15, b"\1" + b"\0" * 15 + b"x" * 15])
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes) -> None:
    home = Home(tmp_path)
    write_sealed(home.folder("participation") / f"{RID}.part", STORE, KIND, content)
    with pytest.raises(IntegrityError, match="CSL-C547"):
        studies_of(home, STORE, ["chief"])
    with pytest.raises(IntegrityError, match="CSL-C547"):
        record(home, STORE, RID, ["chief"], [])


@given(IDS, IDS)
def test_the_consent_digest_is_that_of_one_list_under_one_key(one: set[str], other: set[str]) -> None:
    assert (consent_digest(STORE, one) == consent_digest(STORE, sorted(other, reverse=True))) == (one == other)
    assert consent_digest(STORE, one) != consent_digest(b"t" * 32, one)
    assert len(consent_digest(STORE, one)) == 64
