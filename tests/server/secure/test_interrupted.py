"""A coordinator that is killed anywhere goes on with the same study, and ends with the same model; nobody's vector is made twice."""

from pathlib import Path

import pytest

from federation.errors import StorageError
from server.checkpoint import save_checkpoint
from server.events import RoundDone
from server.secure.store import SumStore
from simulations.local_grid import Fault
from tests.server.fakes import FakeFederation
from tests.server.secure.running import ROUNDS, Killed, run
from tests.server.secure.vaults import secure_federation

# the roll and the offer, three calls of the set-up, four for each sum, then model and receipts
SET_UP, ROUND_2, DELIVERY = 2, 2 + 3 + 4, 2 + 3 + 4 * (ROUNDS + 1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    published = run(secure_federation(tmp_path_factory.mktemp("whole")))
    return published.content, published.card.digest()


def check(federation: FakeFederation, reference: tuple[bytes, str]) -> None:
    again = run(federation)
    assert (again.content, again.card.digest()) == reference
    for vault in federation.vaults.values():
        assert vault.work.count("query.offer") == 1 and vault.refused == []
    assert not list((federation.folder / "checkpoints").iterdir())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "count", [*range(SET_UP, SET_UP + 5), *range(ROUND_2 + 1, ROUND_2 + 6), *range(DELIVERY - 1, DELIVERY + 3)]
)
def test_killed_before_or_after_any_call_the_result_is_the_same(
    tmp_path: Path, reference: tuple[bytes, str], count: int, after: bool
) -> None:
    federation = secure_federation(tmp_path)
    with pytest.raises(Killed):
        run(federation, kill=(count, after))
    check(federation, reference)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("count", range(1, 5 + ROUNDS + 1))
def test_killed_before_or_after_any_checkpoint_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: tuple[bytes, str], count: int, after: bool
) -> None:
    federation, written = secure_federation(tmp_path), [0]

    def killing(*args: object) -> None:
        written[0] += 1
        if written[0] == count and not after:
            raise Killed
        save_checkpoint(*args)  # type: ignore[arg-type]
        if written[0] == count:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("server.coordinator.save_checkpoint", killing)
        with pytest.raises(Killed):
            run(federation)
    check(federation, reference)


@pytest.mark.parametrize("method", ["note", "keep"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_a_sum_is_written_down_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: tuple[bytes, str], method: str, after: bool
) -> None:
    federation, written = secure_federation(tmp_path), [0]
    genuine = getattr(SumStore, method)

    def killing(self: SumStore, *args: object) -> None:
        written[0] += 1
        if written[0] != 2:
            genuine(self, *args)
            return
        if after:
            genuine(self, *args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SumStore, method, killing)
        with pytest.raises(Killed):
            run(federation)
    check(federation, reference)


def test_before_anybody_is_asked_for_mask_keys_the_whole_sum_is_on_the_disk(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    with pytest.raises(Killed):
        run(federation, kill=(2 + 3 + 4, False))
    store = SumStore(federation.folder / "checkpoints" / "spring.sum")
    kept = store.load()
    assert kept is not None and kept.acknowledged and kept.record.offer.number == 1
    assert "query.sum_acks" not in federation.vaults["alpha"].work
    assert kept.collected().members == ("alpha", "beta", "delta", "gamma")


def test_a_sum_that_was_about_to_be_opened_is_opened_with_whom_it_was(
    tmp_path: Path, reference: tuple[bytes, str]
) -> None:
    """Killed after everybody opened a sum without beta: beta is back, and still not in it."""
    federation = secure_federation(tmp_path)
    lost = Fault("fail", types=frozenset({"query.sum_readies"}), groups=frozenset({"2"}))
    with pytest.raises(Killed):
        run(federation, {"beta": (lost,)}, kill=(2 + 3 + 8, True))
    again = run(federation)
    assert federation.happened(RoundDone)[1].answered == ("alpha", "delta", "gamma")
    assert {item.member: item.rounds for item in again.card.participants}["beta"] == ROUNDS - 1
    assert again.content != reference[0]


def test_a_damaged_file_is_noticed_and_never_opened(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    with pytest.raises(Killed):
        run(federation, kill=(2 + 3 + 4, False))
    path = federation.folder / "checkpoints" / "spring.sum"
    content = path.read_bytes()
    for place in [*range(0, len(content), 211), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StorageError, match="CSL-S226"):
            SumStore(path).load()
    with pytest.raises(StorageError, match="CSL-S226"):
        run(federation)


def test_a_sum_of_other_terms_is_not_gone_on_with(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    with pytest.raises(Killed):
        run(federation, kill=(2 + 3 + 8, False))
    store = SumStore(federation.folder / "checkpoints" / "spring.sum")
    kept = store.load()
    assert kept is not None
    store.note(kept.record.offer.model_copy(update={"scale": kept.record.offer.scale * 2}))
    with pytest.raises(StorageError, match="CSL-S227"):
        run(federation)


def test_the_file_of_a_study_that_was_given_up_is_written_over(tmp_path: Path, reference: tuple[bytes, str]) -> None:
    federation = secure_federation(tmp_path)
    with pytest.raises(Killed):
        run(federation, kill=(2 + 3 + 4, False))
    (federation.folder / "checkpoints" / "spring.checkpoint").unlink()
    other = secure_federation(tmp_path / "new")
    other.folder = federation.folder
    assert run(other, rounds=4).card.rounds == 4
