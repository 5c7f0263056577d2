"""A vault is made once: a call that was killed at any point is mended by the same call, and a finished home is never touched."""

import fcntl
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.home import FOLDERS, Home
from client.install import incomplete_file, install
from client.node_key import node_key_line, read_runtime_secret
from client.withdrawal import Withdrawals
from federation.errors import ConsilienceError, StorageError
from privacy.keys import load_identity, load_secret, read_public
from privacy.ledger import LedgerReader

KILLED = 9


def check_whole(home, member="alder"):
    """Check that a home is finished: its keys belong to its ledger and its register, and nothing half-made lies about."""
    key = load_identity(home.identity_key, allow_plain=True)
    with LedgerReader.read(home.ledger_file, read_public(home.identity_key)) as reader:
        assert reader.state().member == member
    assert load_secret(home.holdout_key, allow_plain=True)
    assert len(Withdrawals.load(home, load_secret(home.store_key, use="store", allow_plain=True))) == 0
    assert node_key_line(home) and len(read_runtime_secret(home)) == 32 and key
    assert not incomplete_file(home).exists()
    assert [path for path in home.root.rglob(".*")] == []
    for path in home.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def contents(home):
    return {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}


def killed_at(home, number, monkeypatch):
    """Run `install` in a process that dies at its number-th rename, link or removal; return whether it came that far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    left = [number]

    def counted(call):
        def step(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                os._exit(KILLED)
            return call(*arguments, **named)

        return step

    for name in ("replace", "link", "unlink", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    try:
        install(home, "alder", allow_plain=True)
    finally:
        os._exit(0)


def test_a_home_is_whole_and_closed(tmp_path):
    home = Home(tmp_path / "deep" / "home")
    assert install(home, "alder", allow_plain=True) == read_public(home.identity_key)
    check_whole(home)
    assert {path.name for path in home.root.iterdir() if path.is_dir()} == set(FOLDERS)


def test_a_call_that_was_killed_anywhere_is_mended_by_the_next(tmp_path, monkeypatch):
    number = 1
    while killed_at(Home(tmp_path / str(number)), number, monkeypatch):
        home = Home(tmp_path / str(number))
        begun, before = incomplete_file(home).exists(), contents(home)
        finished = home.ledger_file.exists()
        if finished and not begun:  # nothing was left to do
            with pytest.raises(StorageError, match="CSL-C450"):
                install(home, "alder", allow_plain=True)
        else:
            assert install(home, "alder", allow_plain=True) == read_public(home.identity_key)
        check_whole(home)
        if finished:
            kept = {path: content for path, content in before.items() if not path.name.startswith((".", "INCOMPLETE"))}
            assert contents(home) == kept, "a home with a ledger is finished"
        number += 1
    assert number > 15
    check_whole(Home(tmp_path / str(number)))


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(1, 25), max_size=4))
def test_calls_that_were_killed_again_and_again_leave_nothing_for_good(tmp_path_factory, numbers):
    home = Home(tmp_path_factory.mktemp("home") / "home")
    for number in numbers:
        with pytest.MonkeyPatch.context() as patch:
            killed_at(home, number, patch)
    if home.ledger_file.exists() and not incomplete_file(home).exists():
        with pytest.raises(StorageError, match="CSL-C450"):
            install(home, "alder", allow_plain=True)
    else:
        install(home, "alder", allow_plain=True)
    check_whole(home)


def test_a_finished_home_is_never_made_again(tmp_path):
    home = Home(tmp_path / "home")
    install(home, "alder", allow_plain=True)
    before = contents(home)
    for path in (home.ledger_file, home.identity_key, home.node_key):
        with pytest.raises(StorageError, match="CSL-C450"):
            install(home, "alder", allow_plain=True)
        assert contents(home) == before
        before.pop(path)
        path.unlink()  # even where something of it was lost
    with pytest.raises(StorageError, match="CSL-C450"):
        install(home, "alder", allow_plain=True)
    assert contents(home) == before


def test_a_mark_in_a_home_with_a_charter_lets_nothing_be_cleared(tmp_path):
    home = Home(tmp_path / "home")
    install(home, "alder", allow_plain=True)
    incomplete_file(home).touch()
    home.pin_file.write_text("0" * 64)
    home.ledger_file.unlink()
    before = contents(home)
    with pytest.raises(StorageError, match="CSL-C450"):
        install(home, "alder", allow_plain=True)
    assert contents(home) == before


def test_a_home_that_was_finished_by_a_killed_call_is_the_same_members(tmp_path):
    home = Home(tmp_path / "home")
    install(home, "alder", b"a long passphrase")
    before = contents(home)
    incomplete_file(home).touch()
    for member, passphrase, code in (
        ("birch", b"a long passphrase", "CSL-C455"),
        ("alder", b"a wrong one!", "CSL-P507"),
    ):
        with pytest.raises(ConsilienceError, match=code):
            install(home, member, passphrase)
    assert install(home, "alder", b"a long passphrase") == read_public(home.identity_key)
    assert contents(home) == before


def test_two_calls_at_once_do_not_mix_their_keys(tmp_path):
    home = Home(tmp_path)
    with incomplete_file(home).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="CSL-C454"):
            install(home, "alder", allow_plain=True)
        assert incomplete_file(home).exists() and not list(home.folder("keys").iterdir())
    install(home, "alder", allow_plain=True)
    check_whole(home)


def test_a_folder_that_is_there_may_hold_what_the_institution_wrote(tmp_path):
    home = Home(tmp_path)
    home.node_file.write_text("member: alder\n")
    install(home, "alder", allow_plain=True)
    assert home.node_file.read_text() == "member: alder\n"


@pytest.mark.parametrize("member", ["", "Alder", "alder & co", "a" * 49, "coordinator"])
def test_an_identifier_that_no_charter_can_name(tmp_path, member):
    with pytest.raises(ConsilienceError, match="CSL-C617"):
        install(Home(tmp_path / "home"), member, allow_plain=True)
    assert not (tmp_path / "home").exists()
