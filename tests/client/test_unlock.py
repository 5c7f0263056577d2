"""How the vault's keys are opened: by an option, by node.yaml, in the open for simulations, or not at all."""

import os
from pathlib import Path

import pytest

from client.home import Home
from client.install import install
from client.unlock import Keys, unlock, unlock_store
from federation.errors import DocumentError, IntegrityError, StorageError
from privacy.keys import read_public

PASSPHRASE = "correct horse battery staple"
NODE = """
member: alder
contracts:
  people:
    kind: table
    source: {{kind: csv, path: a.csv}}
    customer: id
    columns: {{age: {{column: AGE}}}}
{more}"""


def secret(path: Path, text: str = PASSPHRASE) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def node(home: Home, more: str = "") -> None:
    home.node_file.write_text(NODE.format(more=more))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("sealed") / "home")
    install(home, "alder", PASSPHRASE.encode())
    secret(home.root / "passphrase")
    return home


@pytest.fixture
def plain(tmp_path: Path) -> Home:
    home = Home(tmp_path / "plain")
    install(home, "alder", allow_plain=True)
    return home


def test_every_way_opens_the_same_keys(sealed: Home, tmp_path: Path) -> None:
    node(sealed)
    by_file = unlock(sealed, passphrase_file=secret(tmp_path / "elsewhere"))
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE.encode())
    os.close(writing)
    by_descriptor = unlock(sealed, passphrase_fd=reading)
    node(sealed, "passphrase_file: passphrase\n")
    by_node = unlock(sealed)
    assert by_file.store == by_descriptor.store == by_node.store == unlock_store(sealed)
    assert by_file.holdout == by_node.holdout != by_node.store
    assert by_node.identity.public_key().public_bytes_raw().hex() == read_public(sealed.identity_key)


def test_an_option_goes_before_node_yaml(sealed: Home, tmp_path: Path) -> None:
    node(sealed, "passphrase_file: passphrase\n")
    with pytest.raises(IntegrityError, match="CSL-P507"):
        unlock_store(sealed, passphrase_file=secret(tmp_path / "wrong", "an altogether other one"))
    with pytest.raises(DocumentError, match="CSL-C541"):
        unlock_store(sealed, passphrase_file=tmp_path / "wrong", passphrase_fd=0)


def test_without_any_way_both_are_named(sealed: Home) -> None:
    node(sealed)
    with pytest.raises(DocumentError, match="CSL-C540") as caught:
        unlock(sealed)
    assert "passphrase_file" in caught.value.action and "--passphrase-fd" in caught.value.action


def test_plain_keys_open_only_where_node_yaml_says_so(plain: Home, tmp_path: Path) -> None:
    node(plain, "plain_keys: true\n")
    assert isinstance(unlock(plain), Keys)
    node(plain, "plain_keys: false\n")
    with pytest.raises(DocumentError, match="CSL-C540"):
        unlock(plain)
    node(plain, "plain_keys: true\n")
    with pytest.raises(DocumentError, match="CSL-P503"):
        unlock(plain, passphrase_file=secret(tmp_path / "passphrase"))
    node(plain, "plain_keys: true\npassphrase_file: passphrase\n")
    with pytest.raises(DocumentError, match="not both"):
        unlock(plain)


def test_sealed_keys_do_not_open_as_plain(sealed: Home) -> None:
    node(sealed, "plain_keys: true\n")
    with pytest.raises(DocumentError, match="CSL-P503"):
        unlock(sealed)


def test_keys_cannot_be_exchanged_nor_read_by_others(plain: Home) -> None:
    node(plain, "plain_keys: true\n")
    content = plain.store_key.read_bytes()
    plain.store_key.write_bytes(plain.holdout_key.read_bytes())
    with pytest.raises(DocumentError, match="CSL-P506"):
        unlock_store(plain)
    plain.store_key.write_bytes(content)
    plain.store_key.chmod(0o640)
    with pytest.raises(StorageError, match="CSL-P505"):
        unlock_store(plain)


def test_no_secret_shows_in_a_representation(plain: Home) -> None:
    node(plain, "plain_keys: true\n")
    keys = unlock(plain)
    assert repr(keys) == "Keys()" and keys.store.hex() not in repr(keys)
