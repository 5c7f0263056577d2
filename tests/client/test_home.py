"""Pinning a charter: whatever happens in between, a home goes by the old charter or by the new one, with its contracts."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.home import Home, install_charter
from federation.charter import PinnedContract
from federation.contract import CategoricalColumn, FeatureContract, Label, NumericColumn
from federation.document import parse_yaml
from federation.errors import ConsilienceError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.founding import contract_yaml
from tests.client import founding_town
from tests.client.vault_home import CONTRACT

NEWER = CONTRACT.model_copy(update={"version": 2, "title": "A newer contract"})


class Killed(BaseException):
    """Stands for the process's end: nothing of ours catches it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return founding_town.found(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def versions(made):
    """Two sealed charters, the second with another version of the contract."""
    first = made.charter("alder", "birch")
    pins = (PinnedContract(name="shop", sha256=NEWER.digest()),)
    second = made.charter("alder", "birch", prev=first, contracts=pins)
    return made.seal(made.draft(first)), made.seal(made.draft(second, NEWER))


@pytest.fixture
def home(made, tmp_path):
    shutil.copytree(made.homes["alder"].root, tmp_path / "alder")
    return Home(tmp_path / "alder")


def in_force(home):
    """Return the version of charter and contract that a home goes by; both must check out."""
    charter = home.charter()
    return charter.version, home.contract(charter, "shop").version


def test_a_crash_leaves_the_old_charter_or_the_new_one(home, versions, monkeypatch):
    old, new = versions
    seen = []
    for number in range(20):
        shutil.rmtree(home.root / "charters")
        install_charter(home, old)
        assert in_force(home) == (1, 1)
        with monkeypatch.context() as patch:
            calls = kill_at(patch, number)
            try:
                install_charter(home, new)
            except Killed:
                seen.append(in_force(home))
                for count in range(number):  # a second try, killed earlier, does no harm
                    kill_at(patch, count)
                    with pytest.raises(Killed):
                        install_charter(home, new)
                    assert in_force(home) == seen[-1]
                calls.clear()
        install_charter(home, new)
        assert in_force(home) == (2, 2)
        assert home.charter_file.read_bytes() == home.sealed_charter().canonical()
        assert b"A newer contract" in (home.root / "contracts" / "shop.yaml").read_bytes()
    assert seen == [(1, 1), (1, 1), (2, 2), (2, 2)]


def kill_at(patch, number):
    calls = []

    def counted(*arguments, **named):
        if len(calls) == number:
            raise Killed
        calls.append(arguments)
        atomic_write(*arguments, **named)

    patch.setattr("client.home.atomic_write", counted)
    return calls


def test_a_full_disk_leaves_the_old_charter(home, versions, monkeypatch):
    install_charter(home, versions[0])

    def full(*arguments, **named):
        raise StorageError("CSL-F301", "The disk is full.", "Free space.")

    with monkeypatch.context() as patch:
        patch.setattr("client.home.atomic_write", full)
        with pytest.raises(StorageError, match="CSL-F301"):
            install_charter(home, versions[1])
    assert in_force(home) == (1, 1)


def test_a_charter_that_was_put_there_by_hand_is_read_too(home, versions):
    first, _ = versions
    install_charter(home, first)
    shutil.rmtree(home.root / "charters")
    assert in_force(home) == (1, 1)
    home.charter_file.unlink()
    with pytest.raises(StorageError, match="CSL-C501"):
        home.charter()


@pytest.mark.parametrize("pin", ["", "0" * 64, "../../etc/passwd", "\x00", "A" * 64, "0" * 63])
def test_another_pin_is_not_the_charters(home, versions, pin):
    install_charter(home, versions[0])
    home.pin_file.write_text(pin)
    with pytest.raises(IntegrityError, match="CSL-F204"):
        home.charter()


def test_an_accepted_file_that_was_exchanged_is_noticed(home, versions):
    first, second = versions
    install_charter(home, first)
    path = home.accepted_file(first.charter.digest())
    others = {
        "CSL-F204": second.canonical(),
        "CSL-F213": first.model_copy(update={"signatures": first.signatures[1:]}).canonical(),
        "CSL-F216": first.canonical()[:-9],
    }
    for code, content in others.items():
        path.write_bytes(content)
        with pytest.raises(ConsilienceError, match=code):
            home.charter()


def test_what_is_not_sealed_is_not_pinned(home, made, versions):
    first, second = versions
    for file, code in (
        (made.draft(first.charter), "CSL-F213"),
        (first.model_copy(update={"contracts": second.contracts}), "CSL-F211"),
    ):
        with pytest.raises(IntegrityError, match=code):
            install_charter(home, file)
    assert not home.pin_file.exists() and not any(home.folder("charters").iterdir())


def test_a_contract_that_was_edited_by_hand_is_not_the_one_that_is_read(home, versions):
    install_charter(home, versions[0])
    path = home.root / "contracts" / "shop.yaml"
    path.write_bytes(contract_yaml(NEWER))
    assert in_force(home) == (1, 1), "the accepted charter holds the contract itself"
    shutil.rmtree(home.root / "charters")
    with pytest.raises(IntegrityError, match="CSL-C502"):
        in_force(home)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(TEXTS, TEXTS, st.lists(TEXTS, min_size=1, max_size=4, unique=True), st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_a_contract_is_written_as_yaml_that_reads_back(title, meaning, categories, low, width):
    columns = (
        CategoricalColumn(kind="categorical", name="job", meaning=meaning, categories=tuple(categories)),
        *_numeric(low, width),
    )
    contract = FeatureContract(
        name="made", version=1, title=title, source="table", columns=columns, label=Label(name="y", meaning=meaning)
    )
    assert parse_yaml(contract_yaml(contract), FeatureContract, "it").digest() == contract.digest()


def _numeric(low, width):
    if low + width <= low:
        return ()
    fields = {"low": low, "high": low + width, "knots": (low, low + width)}
    return (NumericColumn(kind="numeric", name="age", meaning="Age", unit="years", **fields),)
