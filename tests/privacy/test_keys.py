import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.encoding import canonical
from federation.errors import ConsilienceError
from federation.signing import public_hex
from privacy import keys

PASSPHRASE = b"correct horse battery staple"


def refused(code, call, *arguments, **named):
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value


def altered(path, **changes):
    document = json.loads(path.read_bytes())
    for name, value in changes.items():
        if name in ("salt", "nonce", "memory_kib", "passes"):
            document["sealing"][name] = value
        else:
            document[name] = value
    path.write_bytes(canonical(document))


def test_a_sealed_key_comes_back_and_is_nowhere_in_the_file(tmp_path):
    path = tmp_path / "identity.key"
    key = keys.create_identity(path, passphrase=PASSPHRASE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key.private_bytes_raw().hex().encode() not in path.read_bytes()
    assert public_hex(keys.load_identity(path, passphrase=PASSPHRASE)) == public_hex(key) == keys.read_public(path)
    sealing = json.loads(path.read_bytes())["sealing"]
    assert (sealing["kdf"], sealing["memory_kib"], sealing["passes"]) == ("argon2id", 65_536, 3)


def test_a_wrong_passphrase_or_an_altered_file_does_not_open(tmp_path):
    path = tmp_path / "identity.key"
    keys.create_identity(path, passphrase=PASSPHRASE)
    refused("CSL-P507", keys.load_identity, path, passphrase=b"another passphrase")
    refused("CSL-P503", keys.load_identity, path)
    original = path.read_bytes()
    for change in ({"salt": "0" * 32}, {"nonce": "0" * 24}, {"passes": 4}, {"public": "0" * 64}, {"secret": "0" * 96}):
        altered(path, **change)
        refused("CSL-P507", keys.load_identity, path, passphrase=PASSPHRASE)
        path.write_bytes(original)


def test_plain_keys_only_where_the_caller_says_so(tmp_path):
    path = tmp_path / "identity.key"
    refused("CSL-P503", keys.create_identity, path)
    assert not path.exists()
    key = keys.create_identity(path, allow_plain=True)
    refused("CSL-P503", keys.load_identity, path)
    refused("CSL-P503", keys.load_identity, path, passphrase=PASSPHRASE)
    assert public_hex(keys.load_identity(path, allow_plain=True)) == public_hex(key)
    altered(path, public="0" * 64)
    refused("CSL-P508", keys.load_identity, path, allow_plain=True)


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "holdout.key"
    secret = keys.create_secret(path, allow_plain=True)
    refused("CSL-P501", keys.create_secret, path, allow_plain=True)
    assert keys.load_secret(path, allow_plain=True) == secret and len(secret) == 32
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused("CSL-P501", keys.create_secret, tmp_path / "link", allow_plain=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o611])
def test_open_rights_are_refused(tmp_path, mode):
    path = tmp_path / "holdout.key"
    keys.create_secret(path, allow_plain=True)
    path.chmod(mode)
    refused("CSL-P505", keys.load_secret, path, allow_plain=True)


def test_uses_are_not_mixed_up(tmp_path):
    identity, holdout = tmp_path / "identity.key", tmp_path / "holdout.key"
    keys.create_identity(identity, allow_plain=True)
    keys.create_secret(holdout, allow_plain=True)
    refused("CSL-P506", keys.load_secret, identity, allow_plain=True)
    refused("CSL-P506", keys.load_identity, holdout, allow_plain=True)
    refused("CSL-P506", keys.load_identity, identity, use="officer", allow_plain=True)
    refused("CSL-P506", keys.read_public, holdout)
    refused("CSL-P502", keys.load_identity, tmp_path / "none.key")
    refused("CSL-P502", keys.read_public, tmp_path / "none.key")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"use": "other"},
        {"secret": "00"},
        {"secret": "0" * 64},
        {"surprise": 1},
        {"memory_kib": 1024},
        {"memory_kib": 1 << 30},
        {"passes": 1000},
    ],
)
def test_files_that_are_no_key_files(tmp_path, change):
    path = tmp_path / "identity.key"
    keys.create_identity(path, passphrase=PASSPHRASE)
    altered(path, **change)
    refused("CSL-P506", keys.load_identity, path, passphrase=PASSPHRASE)


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_key_file(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("key") / "identity.key"
    path.touch(0o600)
    path.write_bytes(content)
    refused("CSL-P506", keys.load_identity, path, allow_plain=True)


def test_passphrases_from_a_file_and_from_a_descriptor(tmp_path):
    path = tmp_path / "passphrase"
    path.touch(0o600)
    path.write_bytes(PASSPHRASE + b"\r\n")
    assert keys.passphrase_from_file(path) == PASSPHRASE
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE + b"\n")
    os.close(writing)
    assert keys.passphrase_from_descriptor(reading) == PASSPHRASE
    refused("CSL-P502", keys.passphrase_from_descriptor, reading)
    path.write_bytes(b"short\n")
    refused("CSL-P504", keys.passphrase_from_file, path)
    refused("CSL-P504", keys.create_identity, tmp_path / "new.key", passphrase=b"short")
    path.chmod(0o644)
    refused("CSL-P505", keys.passphrase_from_file, path)
    refused("CSL-P502", keys.passphrase_from_file, tmp_path / "none")


def test_secrets_come_from_the_injected_source(tmp_path):
    drawn = []

    def source(count):
        drawn.append(count)
        return bytes(count)

    assert keys.create_secret(tmp_path / "a.key", passphrase=PASSPHRASE, random=source) == bytes(32)
    assert drawn == [32, 16, 12]


def test_a_folder_is_not_to_be_closed_but_to_be_named_right(tmp_path):
    refused("CSL-P502", keys.passphrase_from_file, tmp_path)
