import errno
import os

import pytest

from federation.errors import StorageError
from federation.files import atomic_write, check_private


def test_content_and_mode(tmp_path):
    path = tmp_path / "a"
    atomic_write(path, b"one", mode=0o600)
    atomic_write(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a"
    atomic_write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="CSL-F301"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old" and [item.name for item in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match="CSL-F301"):
        atomic_write(tmp_path / "none" / "a", b"x")


def test_a_private_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "secret"
    with pytest.raises(StorageError, match="CSL-F311"):
        check_private(path)
    atomic_write(path, b"x", mode=0o600)
    check_private(path)
    path.chmod(0o400)
    check_private(path)
    with pytest.raises(StorageError, match="CSL-F311"):
        check_private(tmp_path)


@pytest.mark.parametrize("mode", [0o610, 0o620, 0o640, 0o601, 0o602, 0o604, 0o666, 0o777])
def test_a_private_file_with_open_rights_is_refused(tmp_path, mode):
    path = tmp_path / "secret"
    atomic_write(path, b"x", mode=mode)
    with pytest.raises(StorageError, match=rf"CSL-F312.*{mode:04o}.*chmod 600"):
        check_private(path)
