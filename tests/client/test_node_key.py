"""The node key and the runtime secret: closed files, which Flower itself can read."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from client.home import Home
from client.node_key import ensure_node_key, ensure_runtime_secret, node_key_line, read_runtime_secret
from federation.charter import NodeKey
from federation.errors import ConsilienceError


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.folder("keys")
    assert ensure_node_key(home)
    ensure_runtime_secret(home)
    return home


def refused(code, call, home):
    with pytest.raises(ConsilienceError) as caught:
        call(home)
    assert caught.value.code == code


def test_the_line_is_the_public_half_of_what_flower_reads(home):
    private = load_ssh_private_key(home.node_key.read_bytes(), None)
    line = TypeAdapter(NodeKey).validate_python(node_key_line(home))
    public = load_ssh_public_key(line.encode())
    assert isinstance(private.curve, ec.SECP384R1)
    assert public.public_numbers() == private.public_key().public_numbers()


def test_what_is_there_is_never_made_anew(home):
    before = home.node_key.read_bytes(), home.runtime_secret.read_bytes()
    assert not ensure_node_key(home)
    ensure_runtime_secret(home)
    assert (home.node_key.read_bytes(), home.runtime_secret.read_bytes()) == before
    assert read_runtime_secret(home) == before[1] and len(before[1]) == 32
    for path in (home.node_key, home.runtime_secret):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666])
def test_open_rights_are_refused(home, mode):
    home.node_key.chmod(mode)
    home.runtime_secret.chmod(mode)
    refused("CSL-F312", node_key_line, home)
    refused("CSL-F312", read_runtime_secret, home)


def test_missing_files_and_folders_in_their_place(home):
    home.node_key.unlink()
    home.runtime_secret.unlink()
    refused("CSL-F311", node_key_line, home)
    refused("CSL-F311", read_runtime_secret, home)
    home.node_key.mkdir(mode=0o700)
    refused("CSL-F311", node_key_line, home)


def other_keys():
    p384, p256 = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    edwards = ed25519.Ed25519PrivateKey.generate()
    return {
        "empty": b"",
        "text": b"no key\n",
        "bytes": b"\xff" * 100,
        "p256": p256.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "ed25519": edwards.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "pkcs8": p384.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "cut": p384.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())[:200],
    }


def test_another_kind_of_key_is_none(home):
    for content in other_keys().values():
        home.node_key.write_bytes(content)
        refused("CSL-C452", node_key_line, home)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 600), st.integers(1, 255))
def test_a_damaged_key_is_none_or_another(home, place, value):
    """OpenSSH's format has no checksum: another key comes out, which the charter does not name."""
    good = home.node_key.read_bytes()
    content = bytearray(good)
    content[place % len(content)] ^= value
    home.node_key.write_bytes(bytes(content))
    try:
        TypeAdapter(NodeKey).validate_python(node_key_line(home))
    except ConsilienceError as error:
        assert error.code == "CSL-C452"
    finally:
        home.node_key.write_bytes(good)


@pytest.mark.parametrize("length", [0, 31, 33, 5000])
def test_a_secret_of_another_length_is_none(home, length):
    home.runtime_secret.write_bytes(b"x" * length)
    refused("CSL-C453", read_runtime_secret, home)
