import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.capped_log import CappedLog


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_log_is_private_and_its_folder_made(tmp_path):
    log = CappedLog(tmp_path / "logs" / "link.log")
    log.write(b"one\n")
    log.close()
    assert (tmp_path / "logs" / "link.log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


def test_a_process_that_prints_for_ever_does_not_fill_the_disk(tmp_path):
    log = CappedLog(tmp_path / "log", max_bytes=1000, kept=2)
    for number in range(2000):
        log.write(f"line {number:05d}\n".encode())
    log.close()
    assert set(files(tmp_path)) == {"log", "log.1", "log.2"}
    assert all(len(content) <= 1011 for content in files(tmp_path).values())
    assert files(tmp_path)["log"].endswith(b"line 01999\n")
    joined = files(tmp_path)["log.2"] + files(tmp_path)["log.1"] + files(tmp_path)["log"]
    numbers = [int(line.split()[1]) for line in joined.decode().splitlines()]
    assert numbers == list(range(numbers[0], 2000))


@given(pieces=st.lists(st.binary(max_size=60), max_size=60), kept=st.integers(0, 3))
def test_whatever_is_printed_the_files_stay_small_and_end_with_what_came_last(tmp_path_factory, pieces, kept):
    folder = tmp_path_factory.mktemp("log")
    log = CappedLog(folder / "log", max_bytes=100, kept=kept)
    for piece in pieces:
        log.write(piece)
    log.close()
    found = files(folder)
    assert len(found) <= kept + 1 and all(len(content) <= 160 for content in found.values())
    order = [f"log.{number}" for number in range(kept, 0, -1)] + ["log"]
    kept_bytes = b"".join(found.get(name, b"") for name in order)
    assert b"".join(pieces).endswith(kept_bytes)


def test_a_line_without_an_end_is_cut(tmp_path):
    log = CappedLog(tmp_path / "log", max_bytes=100, kept=1)
    for _ in range(50):
        log.write(b"x" * 40)
    log.close()
    assert sum(len(content) for content in files(tmp_path).values()) <= 280


def test_the_tail_is_of_the_present_run_only(tmp_path):
    log = CappedLog(tmp_path / "log")
    log.write(b"before\n")
    log.begin()
    log.write(b"".join(b"line %d\n" % number for number in range(100)))
    assert log.tail().splitlines() == [f"line {number}" for number in range(60, 100)]
    log.close()


def test_an_old_log_is_gone_on_with(tmp_path):
    (tmp_path / "log").write_bytes(b"y" * 90 + b"\n")
    log = CappedLog(tmp_path / "log", max_bytes=100, kept=1)
    log.write(b"twenty bytes of text\n")
    log.write(b"more\n")
    log.close()
    assert files(tmp_path) == {"log.1": b"y" * 90 + b"\ntwenty bytes of text\n", "log": b"more\n"}


def test_a_full_disk_costs_lines_and_is_told(tmp_path, monkeypatch):
    log = CappedLog(tmp_path / "log")
    log.write(b"before\n")
    real = os.write
    with monkeypatch.context() as patch:

        def full(descriptor, content):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        log.write(b"lost\n")
        log.write(b"lost too\n")
    assert os.write is real and log.lost == 14 and "lost too" in log.tail()
    log.write(b"after\n")
    log.close()
    assert (tmp_path / "log").read_text() == "before\n\n(14 bytes were lost: they could not be written.)\nafter\n"
    assert log.lost == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_raises_nothing(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    log = CappedLog(tmp_path / "closed" / "log")
    log.write(b"x")
    assert log.lost == 1


def test_when_a_new_file_cannot_be_begun_the_old_one_does_not_grow(tmp_path, monkeypatch):
    log = CappedLog(tmp_path / "log", max_bytes=100, kept=1)

    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(CappedLog, "_rotate", refused)
    for _ in range(100):
        log.write(b"a line\nof two\n")
    log.close()
    assert (tmp_path / "log").stat().st_size <= 120 and log.lost > 1000
