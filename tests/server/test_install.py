import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.errors import ConsilienceError, DocumentError, StorageError
from federation.signing import public_hex
from privacy.keys import is_sealed
from server.certificates import check_server
from server.config import CoordinatorConfig
from server.home import FOLDERS, CoordinatorHome
from server.install import install
from server.unlock import Opener, find_opener, unlock_identity

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PASSPHRASE = b"correct horse battery"
CONFIG = CoordinatorConfig(federation="test", address="127.0.0.1:18443", passphrase_file="passphrase")
PLAIN = CoordinatorConfig(federation="test", address="127.0.0.1:18443", plain_keys=True)


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_home_is_whole_and_private(tmp_path):
    home = CoordinatorHome(tmp_path / "deep" / "down")
    made = install(home, CONFIG, PASSPHRASE, NOW)
    assert {path.name for path in home.root.iterdir() if path.is_dir()} == set(FOLDERS)
    for path in (home.root, *home.root.rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode == 0o700 if path.is_dir() else mode in (0o600, 0o644), path
    for path in (home.identity_key, home.link_secret, home.authority_key, home.server_key):
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(home.link_secret.read_bytes()) == 32
    assert is_sealed(home.identity_key) and is_sealed(home.authority_key)
    assert home.config() == CONFIG
    check_server(home.server_key, home.server_file, home.authority_file, CONFIG.hosts(), NOW)
    assert public_hex(unlock_identity(home, Opener(PASSPHRASE, allow_plain=False))) == made.key


def test_a_home_is_never_made_twice(tmp_path):
    home = CoordinatorHome(tmp_path)
    install(home, PLAIN, None, NOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StorageError, match="CSL-S110"):
        install(home, PLAIN, None, NOW)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    home.config_file.unlink()
    with pytest.raises(StorageError, match=r"CSL-S110.*keys/identity\.key"):
        install(home, PLAIN, None, NOW)


@pytest.mark.parametrize("loser_sees_no_files", [True, False])
def test_two_calls_at_once_make_one_home(tmp_path, loser_sees_no_files):
    home = CoordinatorHome(tmp_path / "home")
    refused: list[str] = []

    def drawn(length: int) -> bytes:
        lies_there = home.identity_key.exists()
        if not refused and lies_there != loser_sees_no_files:  # the second call comes while the first one is at work
            with pytest.raises(StorageError) as caught:
                install(home, PLAIN, None, NOW)
            refused.append(caught.value.code)
        return os.urandom(length)

    made = install(home, PLAIN, None, NOW, random=drawn)
    assert refused == ["CSL-S125" if loser_sees_no_files else "CSL-S110"]
    assert public_hex(unlock_identity(home, Opener(None, allow_plain=True))) == made.key
    check_server(home.server_key, home.server_file, home.authority_file, PLAIN.hosts(), NOW)


def test_who_comes_when_the_other_has_finished_removes_nothing(tmp_path, monkeypatch):
    home = CoordinatorHome(tmp_path / "home")
    is_dir, won = Path.is_dir, []

    def late(path: Path) -> bool:
        if path == home.root and not won:  # after the first look, before the lock
            won.append(None)
            won.append(install(home, PLAIN, None, NOW))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", late)
    with pytest.raises(StorageError, match="CSL-S110"):
        install(home, PLAIN, None, NOW)
    assert public_hex(unlock_identity(home, Opener(None, allow_plain=True))) == won[1].key
    check_server(home.server_key, home.server_file, home.authority_file, PLAIN.hosts(), NOW)


@pytest.mark.parametrize("nth", range(1, 8))
def test_what_fails_midway_leaves_nothing_in_the_way(tmp_path, monkeypatch, nth):
    home = CoordinatorHome(tmp_path / "home")
    home.root.mkdir()
    (home.root / "passphrase").write_text("mine")
    calls = iter(range(1, 100))
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if next(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="CSL-F301"):
        install(home, PLAIN, None, NOW)
    assert everything(tmp_path) == {"home", "home/passphrase"}
    monkeypatch.undo()
    install(home, PLAIN, None, NOW)
    assert home.config() == PLAIN


def test_a_bad_passphrase_leaves_nothing(tmp_path):
    for config, passphrase, code in ((CONFIG, b"short", "P504"), (CONFIG, None, "P503")):
        with pytest.raises(DocumentError, match=code):
            install(CoordinatorHome(tmp_path / "home"), config, passphrase, NOW)
        assert everything(tmp_path) == set()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "home").write_text("x")
    with pytest.raises(StorageError, match="CSL-S112"):
        install(CoordinatorHome(tmp_path / "home"), PLAIN, None, NOW)
    assert everything(tmp_path) == {"home"}


def test_what_opens_the_keys(tmp_path):
    home = CoordinatorHome(tmp_path)
    (tmp_path / "passphrase").write_bytes(PASSPHRASE + b"\n")
    (tmp_path / "passphrase").chmod(0o600)
    install(home, CONFIG, PASSPHRASE, NOW)
    assert find_opener(home) == Opener(PASSPHRASE, allow_plain=False)
    assert find_opener(home, tmp_path / "passphrase") == Opener(PASSPHRASE, allow_plain=False)
    assert "correct" not in repr(find_opener(home))
    read, write = os.pipe()
    os.write(write, PASSPHRASE)
    os.close(write)
    assert find_opener(home, None, read).passphrase == PASSPHRASE
    with pytest.raises(DocumentError, match="CSL-S114"):
        find_opener(home, tmp_path / "passphrase", 3)
    (tmp_path / "passphrase").chmod(0o644)
    with pytest.raises(ConsilienceError, match="CSL-P505"):
        find_opener(home)
    home.config_file.write_text("federation: test\naddress: 127.0.0.1:18443\n")
    with pytest.raises(DocumentError, match="CSL-S113"):
        find_opener(home)
    home.config_file.write_text("federation: test\naddress: 127.0.0.1:18443\nplain_keys: true\n")
    assert find_opener(home) == Opener(None, allow_plain=True)
