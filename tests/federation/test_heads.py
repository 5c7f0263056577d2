import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ConsilienceError, DocumentError, IntegrityError, StorageError
from federation.heads import (
    Head,
    HeadShelf,
    check_order,
    check_proof,
    coordinator_name,
    cosignature_of,
    open_head,
    origin_of,
    read_note,
    subject_of,
    witness_keys,
)
from federation.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, tree_root
from federation.note import MAX_NOTE_BYTES, Checkpoint, cosign, parse_note, sign_checkpoint
from federation.signing import public_hex

from .conftest import key_of

LEAVES = [leaf_hash(bytes([number])) for number in range(12)]
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True)


def note(size: int = 5, member: str = "alder", generation: int = 0, root: str | None = None) -> str:
    origin = origin_of("test", member, generation)
    return sign_checkpoint(key_of(member), Checkpoint(origin, size, root or tree_root(LEAVES, size).hex()))


def head(size: int = 5, generation: int = 0, root: str | None = None) -> Head:
    checkpoint = parse_note(note(size, generation=generation, root=root)).checkpoint
    return Head("alder", generation, size, checkpoint.root, note(size, generation=generation, root=root))


@given(NAMES, NAMES, st.integers(0, 999_999))
def test_an_origin_says_whose_ledger_it_is(federation, member, generation):
    checkpoint = Checkpoint(origin_of(federation, member, generation), 0, EMPTY_ROOT.hex())
    assert subject_of(checkpoint, federation) == (member, generation)
    with pytest.raises(IntegrityError, match="CSL-F614"):
        subject_of(checkpoint, federation + "x")


@pytest.mark.parametrize(
    "origin",
    [
        "consilience/test",
        "consilience/test/alder/0",
        "consilience/test/alder/01",
        "consilience/test/alder/1/2",
        "consilience/test/Alder",
        "consilience/test/alder/",
        "other/test/alder",
        coordinator_name("test"),
    ],
)
def test_another_origin_is_nobodys_ledger(origin):
    with pytest.raises(IntegrityError, match="CSL-F614"):
        subject_of(Checkpoint(origin, 0, EMPTY_ROOT.hex()), "test")


@given(NAMES)
def test_no_member_has_the_coordinators_name(member):
    assert origin_of("test", member) != coordinator_name("test")


def test_a_head_is_opened_by_the_charter(charter, coordinator):
    text = cosign(note(), coordinator, coordinator_name("test"), 7)
    text = cosign(text, key_of("birch"), origin_of("test", "birch"), 8)
    found = open_head(text, charter)
    assert (found.member, found.generation, found.size, found.text) == ("alder", 0, 5, text)
    assert found.cosigners == {coordinator_name("test"): 7, origin_of("test", "birch"): 8}
    assert cosignature_of(text, charter, origin_of("test", "birch")).cosigners == {origin_of("test", "birch"): 8}
    assert set(witness_keys(charter)) == {coordinator_name("test"), *(origin_of("test", m.id) for m in charter.members)}


def test_a_ledger_does_not_witness_itself(charter):
    for generation in (0, 2):
        own = cosign(note(generation=generation), key_of("alder"), origin_of("test", "alder"), 7)
        own = cosign(own, key_of("alder"), origin_of("test", "alder", generation), 7)
        assert open_head(own, charter).cosigners == {}


def test_a_head_under_an_earlier_key_is_opened_by_that_key(charter):
    origin = origin_of("test", "alder")
    text = sign_checkpoint(key_of("older"), Checkpoint(origin, 5, "a" * 64))
    assert open_head(text, charter, key=public_hex(key_of("older"))).size == 5
    with pytest.raises(IntegrityError, match="CSL-F613"):
        open_head(text, charter)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (note(member="nobody"), "CSL-F203"),
        (note().replace("consilience/test", "consilience/best"), "CSL-F614"),
        (note().replace("\n5\n", "\n6\n"), "CSL-F612"),
        (
            sign_checkpoint(key_of("birch"), Checkpoint(origin_of("test", "alder"), 5, "a" * 64)),
            "CSL-F613",
        ),
        ("", "CSL-F611"),
    ],
)
def test_what_no_member_signed_is_refused(charter, text, code):
    with pytest.raises(ConsilienceError) as caught:
        open_head(text, charter)
    assert caught.value.code == code


def test_a_cosignature_alone_is_no_head(charter):
    text = cosign(note(), key_of("birch"), origin_of("test", "birch"), 8)
    lines = text.splitlines(keepends=True)
    with pytest.raises(IntegrityError, match="CSL-F613"):
        open_head("".join(lines[:4] + lines[5:]), charter)
    with pytest.raises(IntegrityError, match="CSL-F613"):
        cosignature_of(note(), charter, origin_of("test", "birch"))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2), st.integers(0, 2), st.integers(0, 12))
def test_a_head_follows_exactly_when_it_continues(before, after, one, two, old):
    kept, new = head(before, one), head(after, two)
    proof = consistency_proof(LEAVES, old, after) if old <= after else ()
    follows = two > one or (two == one and after >= before)
    wanted = before if one == two else 0
    try:
        check_order(kept, new)
        check_proof(kept, new, old, proof)
    except IntegrityError:
        assert not follows or old != wanted
    else:
        assert follows and old == wanted


def test_two_histories_of_one_size_are_told_apart():
    with pytest.raises(IntegrityError, match="CSL-F616"):
        check_order(head(), head(root="a" * 64))
    check_order(head(), head(generation=1, root="a" * 64))
    check_order(None, head(root="a" * 64))
    with pytest.raises(IntegrityError, match="CSL-F617"):
        check_proof(head(), head(8, root="a" * 64), 5, consistency_proof(LEAVES, 5, 8))
    with pytest.raises(IntegrityError, match="CSL-F617"):
        check_proof(None, head(), 0, consistency_proof(LEAVES, 3, 5))


def test_a_shelf_keeps_the_last_head_of_each(tmp_path: Path):
    shelf = HeadShelf(tmp_path / "witness", "test")
    with shelf.locked():
        assert shelf.last("alder") is None
        shelf.keep(head(3))
        shelf.keep(head(5))
        shelf.keep(head(2, generation=1))
        shelf.keep_conflict(head(6))
        shelf.keep_conflict(head(7))
    assert shelf.members() == ("alder",) and shelf.last("alder") == head(2, generation=1)
    found = sorted(path.name for path in (tmp_path / "witness").glob("*.note"))
    assert found == ["alder.0.note", "alder.conflict.note", "alder.note"]
    assert (tmp_path / "witness" / "alder.0.note").read_text() == head(5).text
    assert (tmp_path / "witness" / "alder.conflict.note").read_text() == head(6).text
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "witness").iterdir())


def test_two_processes_do_not_compare_and_write_at_once(tmp_path: Path):
    inside = threading.Event()

    def other() -> None:
        with HeadShelf(tmp_path, "test").locked():
            inside.set()

    thread = threading.Thread(target=other)
    with HeadShelf(tmp_path, "test").locked():
        thread.start()
        assert not inside.wait(0.2)
    thread.join(5)
    assert inside.is_set()


def test_a_damaged_note_is_no_note(tmp_path: Path):
    shelf = HeadShelf(tmp_path, "test")
    for content in (b"", b"\xff\xfe", note(member="birch").encode(), head().text.encode()[:-1]):
        (tmp_path / "alder.note").write_bytes(content)
        with pytest.raises(IntegrityError, match="CSL-F619"):
            shelf.last("alder")
    (tmp_path / "cedar.note").mkdir()
    with pytest.raises(StorageError, match="CSL-F618"):
        shelf.last("cedar")


def test_files_that_are_no_notes_are_refused_by_name(tmp_path: Path):
    with pytest.raises(StorageError, match="CSL-F618"):
        read_note(tmp_path / "missing")
    (tmp_path / "note").write_bytes(b"\xff")
    with pytest.raises(DocumentError, match="CSL-F611"):
        read_note(tmp_path / "note")
    (tmp_path / "note").write_bytes(b"a" * (MAX_NOTE_BYTES * 4))
    assert len(read_note(tmp_path / "note")) == MAX_NOTE_BYTES + 1
