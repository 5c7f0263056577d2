"""The checkpoint: whole, exact, and not to be mistaken when damaged."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import StorageError
from server.checkpoint import Attendance, Epoch, Progress, Scores, ScoreSum, load_checkpoint, save_checkpoint
from server.planning import sign_study
from tests.server.fakes import FakeFederation, contract, draft, key_of, short


def progress() -> Progress:
    charter = FakeFederation.make(Path("unused")).charter
    signed = sign_study(draft(), charter, contract(), short()(draft(), {}, contract()), "0" * 32, key_of("coordinator"))
    return Progress(
        spec=signed.spec,
        signature=signed.signature,
        stage="granted",
        round=2,
        attendance=(Attendance(member="alpha", rounds=2),),
        edges=(-0.1, 0.2, 1 / 3),
        scores=(Scores(member="alpha", counts=((1, -2, 3, 4), (5, 6, 7, -8)), sigma=2.5),),
    )


@settings(max_examples=30)
@given(
    value=hnp.arrays(
        np.float64, hnp.array_shapes(max_dims=2, max_side=5), elements=st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_what_is_saved_comes_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, value: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("c") / "spring.checkpoint"
    save_checkpoint(path, progress(), {"b/weights": value, "a": np.zeros(3)})
    found, tensors = load_checkpoint(path, Progress)
    assert found.model_copy(update={"sha256": None}) == progress()
    assert tensors["b/weights"].tobytes() == value.tobytes() and tensors["b/weights"].shape == value.shape


def test_no_file_is_no_checkpoint_and_no_tensors_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.checkpoint"
    assert load_checkpoint(path, Progress) is None
    save_checkpoint(path, progress(), {})
    assert load_checkpoint(path, Progress)[1] == {}
    assert path.stat().st_mode & 0o077 == 0


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.checkpoint"
    save_checkpoint(path, progress(), {"weights": np.arange(8.0)})
    content = path.read_bytes()
    places = [*range(0, len(content), 97), len(content) - 1]
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StorageError, match="CSL-S401"):
            load_checkpoint(path, Progress)
    for end in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(StorageError, match="CSL-S401"):
            load_checkpoint(path, Progress)


def test_a_plain_study_is_encoded_as_before_secure_ones_were_known(tmp_path: Path) -> None:
    assert progress().digest() == "e13e187fa70d8bbebb85053ffbe2da9bbdea6942d721b2e6eda9b55320a207f4"
    secure = progress().model_copy(
        update={
            "epoch": Epoch(attempt=2, members=("alpha", "beta")),
            "score_sum": ScoreSum(members=("alpha",), total=((1, -2), (3, 4)), scale=500, sigma=40.0),
        }
    )
    save_checkpoint(tmp_path / "x.checkpoint", secure, {})
    found, _ = load_checkpoint(tmp_path / "x.checkpoint", Progress)
    assert (found.epoch, found.score_sum) == (secure.epoch, secure.score_sum)
