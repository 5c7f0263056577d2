import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError
from federation.networks import encode
from federation.study import AdditiveModel, LogisticModel, MlpModel, Model
from simulations.engines.simulation import By, Dealt, LabelSkew, Lacking, Own, Partners
from simulations.engines.work import Rows
from simulations.partners import seating
from simulations.partners.customers import Customers
from simulations.partners.partition import partition
from simulations.partners.seating import Seated, seat
from tests.simulations.partners.some import CONTRACT, customers

SOME = customers(900)
MODELS: tuple[Model, ...] = (
    AdditiveModel(),
    AdditiveModel(pairs=(("age", "job"), ("loan", "spend"))),
    LogisticModel(kind="logistic"),
    MlpModel(kind="mlp"),
)
DEALT: By = Dealt(kind="dealt")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that end in the midst of institutions."""
    monkeypatch.setattr(seating, "_BLOCK", 101)


def keys(rows: Rows) -> list[bytes]:
    """Return each row's bytes: customers of SOME all differ."""
    return [row.numpy().tobytes() for row in rows.dense]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("lacking", [None, Lacking(columns=("job", "spend"), share=0.5)])
def test_rows_are_the_institutions_own_encoding(model: Model, lacking: Lacking | None) -> None:
    partners = Partners(by=DEALT, count=6, heldout_by="time", lacking=lacking)
    seated = seat(SOME, partners, model, 3)
    institutions = partition(SOME, partners, partners.seed)
    assert seated.names == institutions.names
    assert lacking is None or {len(lacks) for lacks in seated.lacks} == {0, 2}
    for place, rows in enumerate(institutions.rows):
        ends = len(rows) - round(0.2 * len(rows))
        for found, mine in ((seated.training.of(place), rows[:ends]), (seated.heldout.of(place), rows[ends:])):
            expected = encode(model, CONTRACT, SOME.take(mine, seated.lacks[place]))
            assert torch.equal(found.dense, expected.dense)
            assert torch.equal(found.codes, expected.codes)
            assert found.labels.tolist() == SOME.labels[mine].tolist()
            assert found.dense.dtype == torch.float32 and found.labels.dtype == torch.float32
            assert found.codes.dtype == torch.int64 and found.dense.is_contiguous()


@settings(max_examples=25)
@given(
    heldout=st.floats(0.05, 0.8),
    heldout_by=st.sampled_from(["random", "time"]),
    count=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
)
def test_everybody_trains_or_is_held_out(heldout: float, heldout_by: str, count: int, seed: int) -> None:
    partners = Partners.model_validate(
        {"by": DEALT, "count": count, "smallest": 10, "heldout": heldout, "heldout_by": heldout_by}
    )
    seated = seat(SOME, partners, LogisticModel(kind="logistic"), seed)
    both = keys(seated.training) + keys(seated.heldout)
    whole = encode(LogisticModel(kind="logistic"), CONTRACT, SOME.take(np.arange(len(SOME))))
    assert sorted(both) == sorted(row.numpy().tobytes() for row in whole.dense)
    assert seated.training.offsets[-1] == len(seated.training) and seated.heldout.offsets[-1] == len(seated.heldout)
    training, held = np.diff(seated.training.offsets), np.diff(seated.heldout.offsets)
    assert np.abs(held - heldout * (training + held)).max() <= 1.0
    assert np.abs(seated.declared / training - 1.0).max() < 0.051
    assert seated.delta == pytest.approx(1.0 / (100.0 * seated.declared))


def test_held_out_by_time_is_the_last_and_at_random_is_not() -> None:
    def times(by: str) -> tuple[np.ndarray, np.ndarray]:
        partners = Partners.model_validate({"heldout_by": by})
        place = {key: rank for key, rank in zip(keys(whole), SOME.time, strict=True)}
        seated = seat(SOME, partners, LogisticModel(kind="logistic"), 1)
        return (
            np.array([place[key] for key in keys(seated.training.of(0))]),
            np.array([place[key] for key in keys(seated.heldout.of(0))]),
        )

    inputs = encode(LogisticModel(kind="logistic"), CONTRACT, SOME.take(np.arange(len(SOME))))
    whole = Rows(inputs.dense, inputs.codes, torch.empty(0), np.array([0, len(SOME)]))
    training, held = times("time")
    assert training.max() < held.min()
    training, held = times("random")
    assert training.max() > held.min()
    for part in (training, held):
        assert (np.diff(part) > 0).all()
    # drawn evenly: the mean rank of those held out is that of all, give or take 4 standard errors
    everybody = np.concatenate([training, held])
    assert abs(held.mean() - everybody.mean()) < 4 * everybody.std() / np.sqrt(len(held))


def test_a_seed_repeats_and_another_does_not() -> None:
    partners = Partners(lacking=Lacking(columns=("spend",), share=0.5))
    first = seat(SOME, partners, MODELS[0], 1)
    assert seat(SOME, partners.model_copy(), AdditiveModel(), 1) is first
    others = [seat(SOME, partners, MODELS[0], seed) for seed in (2, 3)]
    again = seat(SOME, partners, MODELS[0], 1)
    assert again is not first  # two are kept
    assert torch.equal(again.training.dense, first.training.dense) and again.lacks == first.lacks
    assert not any(torch.equal(other.training.dense, first.training.dense) for other in others)


def test_other_customers_or_another_model_are_another_seat() -> None:
    partners = Partners()
    first = seat(SOME, partners, MODELS[0], 1)
    assert seat(customers(900), partners, MODELS[0], 1) is not first
    assert seat(SOME, partners, MODELS[2], 1).training.dense.shape != first.training.dense.shape


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 12])
def test_somebody_always_has_the_columns(share: float, count: int) -> None:
    partners = Partners(by=DEALT, count=count, lacking=Lacking(columns=("job", "spend"), share=share))
    lacks = [seat(SOME, partners.model_copy(update={"seed": seed}), MODELS[2], 1).lacks for seed in range(20)]
    assert all(() in found for found in lacks)
    assert {len(one) for found in lacks for one in found} <= {0, 2}
    mean = np.mean([[bool(one) for one in found] for found in lacks])
    expected = min(share, 1.0 - 1.0 / count)
    assert abs(mean - expected) <= 4 * np.sqrt(max(expected * (1 - expected), 0.0) / (20 * count)) + 1e-9
    if share == 1.0 and count > 1:
        assert len({found.index(()) for found in lacks}) > 1


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("age",), "requires the column age"),
        (("spent",), "nearest: spend"),
        (("job", "loan"), "requires the column loan"),
    ],
)
def test_a_column_that_cannot_be_lacking_is_refused(columns: tuple[str, ...], says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        seat(SOME, Partners(lacking=Lacking(columns=columns)), MODELS[0], 1)
    assert caught.value.code == "CSL-M228"
    assert says in caught.value.cause and "job, spend" in caught.value.action


def test_an_institution_may_have_one_class_alone() -> None:
    some = Customers(SOME.contract, SOME.columns, np.zeros(len(SOME)), SOME.institution, SOME.time, SOME.extra)
    seated = seat(some, Partners(by=Own()), MODELS[0], 1)
    assert isinstance(seated, Seated) and seated.training.labels.sum() == 0


def test_sizes_declared_are_those_of_who_trains() -> None:
    partners = Partners(by=LabelSkew(kind="labels", alpha=0.1), count=9, smallest=20)
    seated = seat(SOME, partners, MODELS[2], 5)
    sizes = np.diff(seated.training.offsets)
    assert sizes.min() >= 20
    assert seated.declared.tolist() == [int(float(f"{size:.1e}")) for size in sizes]
    assert seated.training.institutions == seated.heldout.institutions == 9
