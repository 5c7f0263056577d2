"""Sealed files: what was sealed comes back under the same key and place, and nothing else ever does."""

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import IntegrityError, StorageError
from privacy.sealing import HEADER_BYTES, MAGIC, OVERHEAD, read_sealed, seal, subkey, unseal, write_sealed

KEY = bytes(range(32))
KEYS = st.binary(min_size=32, max_size=32)


@given(KEYS, st.text(max_size=30), st.binary(max_size=300))
def test_what_was_sealed_comes_back(key, context, content):
    box = seal(key, context, content)
    assert unseal(key, context, box) == content
    assert len(box) == len(content) + OVERHEAD
    assert len(content) < 8 or content not in box


@given(st.binary(max_size=60), st.data())
def test_no_bit_can_be_changed(content, data):
    box = bytearray(seal(KEY, "reply a", content))
    place = data.draw(st.integers(0, len(box) - 1))
    box[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError, match="CSL-P52[012]"):
        unseal(KEY, "reply a", bytes(box))


@given(st.binary(max_size=60), st.data())
def test_nothing_can_be_cut_off_or_added(content, data):
    box = seal(KEY, "reply a", content)
    cut = data.draw(st.integers(0, len(box) - 1))
    for other in (box[:cut], box + b"x", b"x" + box, b""):
        with pytest.raises(IntegrityError, match="CSL-P52[012]"):
            unseal(KEY, "reply a", other)


@given(KEYS, KEYS, st.text(max_size=20), st.text(max_size=20))
def test_another_key_or_another_place_opens_nothing(key, other, context, place):
    box = seal(key, context, b"content")
    for attempt in ((other, context), (key, place)):
        if attempt != (key, context):
            with pytest.raises(IntegrityError, match="CSL-P522"):
                unseal(*attempt, box)


def test_each_kind_of_fault_has_its_code():
    box = seal(KEY, "reply a", b"content")
    for code, content in (
        ("CSL-P520", b"PK\3\4" + box),
        ("CSL-P520", box[: OVERHEAD - 1]),
        ("CSL-P521", b"csl-box2" + box[8:]),
    ):
        with pytest.raises(IntegrityError, match=code):
            unseal(KEY, "reply a", content)


def test_every_box_has_its_own_key_and_randomness_is_injected():
    drawn = []

    def source(count):
        drawn.append(count)
        return os.urandom(count)

    boxes = {seal(KEY, "reply a", b"the same", random=source) for _ in range(50)}
    assert len(boxes) == 50 and drawn == [32, 12] * 50
    assert len({box[len(MAGIC) : HEADER_BYTES - 12] for box in boxes}) == 50
    fixed = seal(KEY, "reply a", b"the same", random=bytes)
    assert fixed == seal(KEY, "reply a", b"the same", random=bytes)


def test_the_format_is_what_the_module_says():
    box = seal(KEY, "reply a", b"content")
    salt, nonce = box[8:40], box[40:52]
    own = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"csl1/box\0").derive(KEY)
    assert AESGCM(own).decrypt(nonce, box[52:], box[:52] + b"reply a") == b"content"


def test_a_key_of_another_length_is_a_fault_of_the_caller():
    with pytest.raises(ValueError, match="32 bytes"):
        seal(KEY[:31], "a", b"")


def test_files_are_private_and_cannot_be_exchanged(tmp_path):
    for name in ("a", "b"):
        write_sealed(tmp_path / name, KEY, "reply", name.encode())
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert read_sealed(tmp_path / "a", KEY, "reply") == b"a"
    assert read_sealed(tmp_path / "c", KEY, "reply") is None
    (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes())
    with pytest.raises(IntegrityError, match="CSL-P522"):
        read_sealed(tmp_path / "a", KEY, "reply")
    with pytest.raises(IntegrityError, match="CSL-P522"):
        read_sealed(tmp_path / "b", KEY, "decision")
    with pytest.raises(StorageError, match="CSL-P523"):
        read_sealed(tmp_path, KEY, "reply")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_sealed(path, KEY, "reply", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("federation.files.os.fsync", full)
        with pytest.raises(StorageError, match="CSL-F301"):
            write_sealed(path, KEY, "reply", b"new")
    assert read_sealed(path, KEY, "reply") == b"old" and list(tmp_path.iterdir()) == [path]


def test_subkeys_differ_by_purpose_and_key():
    assert len({subkey(KEY, "a"), subkey(KEY, "b"), subkey(bytes(32), "a"), KEY}) == 4
    assert subkey(KEY, "a") == subkey(KEY, "a")
