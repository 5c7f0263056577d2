"""Scoring: movements add up exactly for additive models, reasons are true and readable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client import scoring
from client.calibration import Calibration
from client.cohort import Cohort
from client.reasons import amount, number, own_value, short_meaning, strongest, typical_value
from client.scores import Scores
from client.scoring import logits_of, score
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, NumericColumn
from federation.document import load_yaml
from federation.networks import Network, build, load_weights, weights_of
from federation.study import AdditiveModel, LogisticModel, MlpModel, Model

CONTRACTS = Path(__file__).parents[2] / "configs" / "contracts"
PLAIN = Calibration(intercept=0.0, slope=1.0, method="none", note="As it is.")

SMALL = FeatureContract(
    name="small",
    version=1,
    title="Three columns",
    source="table",
    columns=(
        NumericColumn(
            kind="numeric", name="recency", meaning="Time since the last purchase (days are whole)",
            unit="share of the observation window", low=0.0, high=1.0, knots=(0.0, 0.5, 1.0),
        ),
        CategoricalColumn(kind="categorical", name="channel", meaning="Where she buys", categories=("shop", "web")),
        FlagColumn(kind="flag", name="loan", meaning="Has a loan", required=False),
    ),
    label={"name": "lapsed", "meaning": "No purchase within the horizon"},
)  # fmt: skip


def customers(contract: FeatureContract, count: int, seed: int = 0, leave_out: tuple[str, ...] = ()) -> Cohort:
    """Customers with values within and beyond the bounds, and with gaps."""
    rng = np.random.default_rng(seed)
    columns: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {}
    for column in contract.columns:
        if isinstance(column, NumericColumn):
            span = column.high - column.low
            values = rng.uniform(column.low - 0.2 * span, column.high + 0.2 * span, count)
            columns[column.name] = np.where(rng.random(count) < 0.15, np.nan, values)
        elif isinstance(column, CategoricalColumn):
            columns[column.name] = rng.integers(-1, len(column.categories), count)
        else:
            columns[column.name] = rng.choice([0.0, 1.0, np.nan], count)
    for name in leave_out:
        del columns[name]
    ids = np.array([f"c{place:05d}" for place in range(count)], dtype=object)
    return Cohort(ids=ids, columns=columns, label=None, position=None, value=None)


def trained(model: Model, contract: FeatureContract, seed: int = 0) -> Network:
    """A network with weights as after training."""
    network = build(model, contract)
    rng = np.random.default_rng(seed)
    load_weights(
        network, {name: rng.normal(0, 0.5, item.shape).astype(np.float32) for name, item in weights_of(network).items()}
    )
    return network


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    name=st.sampled_from(["rfm", "bank_campaign"]),
    model=st.sampled_from([AdditiveModel(), LogisticModel(kind="logistic")]),
)
def test_movements_add_up_to_the_logit_less_the_average(seed: int, count: int, name: str, model: Model) -> None:
    contract = load_yaml(CONTRACTS / f"{name}.yaml", FeatureContract)
    found = score(model, contract, trained(model, contract, seed), PLAIN, customers(contract, count, seed))
    assert found.exact
    assert found.movement.sum(axis=1) == pytest.approx(found.logit - found.logit.mean(), abs=2e-4)
    assert found.movement.mean(axis=0) == pytest.approx(np.zeros(len(contract.columns)), abs=1e-4)


def test_probability_is_the_calibrated_one() -> None:
    calibration = Calibration(intercept=-1.0, slope=0.5, method="slope and intercept", note="Fitted.")
    model = AdditiveModel()
    found = score(model, SMALL, trained(model, SMALL), calibration, customers(SMALL, 20))
    assert found.probability == pytest.approx(1 / (1 + np.exp(1.0 - 0.5 * found.logit)))


@pytest.mark.parametrize("model", [AdditiveModel(), MlpModel(kind="mlp")])
def test_pieces_give_what_the_whole_gives(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    network, cohort = trained(model, SMALL), customers(SMALL, 50)
    whole = score(model, SMALL, network, PLAIN, cohort)
    monkeypatch.setattr(scoring, "CHUNK", 7)
    pieces = score(model, SMALL, network, PLAIN, cohort)
    assert pieces.logit == pytest.approx(whole.logit, abs=1e-6)
    assert pieces.movement == pytest.approx(whole.movement, abs=1e-5)


@pytest.mark.parametrize("model", [AdditiveModel(), MlpModel(kind="mlp")])
def test_a_column_that_the_institution_lacks_is_never_a_reason(model: Model) -> None:
    found = score(model, SMALL, trained(model, SMALL), PLAIN, customers(SMALL, 30, leave_out=("loan",)))
    assert not found.movement[:, 2].any()
    assert not any("loan" in text for reasons in found.reasons(range(30)) for text in reasons)


@pytest.mark.parametrize("model", [AdditiveModel(), MlpModel(kind="mlp")])
def test_nobody_gives_empty_scores(model: Model) -> None:
    found = score(model, SMALL, trained(model, SMALL), PLAIN, customers(SMALL, 0))
    assert len(found) == 0 and found.reasons([]) == []


def test_an_mlp_that_reads_one_column_only_names_that_column_and_says_approximate() -> None:
    model = MlpModel(kind="mlp")
    network, cohort = trained(model, SMALL), customers(SMALL, 60)
    with torch.no_grad():
        network.hidden[0].weight[:, 2:] = (
            0.0  # dense columns are recency, recency missing, loan, loan missing, then the embedding
        )
    found = score(model, SMALL, network, PLAIN, cohort)
    assert not found.exact
    assert found.movement[:, 0].any() and not found.movement[:, 1:].any()
    texts = [reasons for reasons in found.reasons(range(60)) if reasons[0]]
    assert texts and all(text[0].endswith("(approximate)") and text[1:] == ("", "") for text in texts)


def test_occlusion_is_the_change_against_the_typical_value() -> None:
    model = MlpModel(kind="mlp")
    network, cohort = trained(model, SMALL, 3), customers(SMALL, 25)
    found = score(model, SMALL, network, PLAIN, cohort)
    covered = {**cohort.columns, "channel": np.full(25, int(found.typical[1]))}
    assert found.movement[:, 1] == pytest.approx(found.logit - logits_of(model, SMALL, network, covered), abs=1e-6)


def test_reasons_in_words() -> None:
    cohort = Cohort(
        ids=np.array(["a", "b"], dtype=object),
        columns={"recency": np.array([0.62, np.nan]), "channel": np.array([1, -1]), "loan": np.array([1.0, 0.0])},
        label=None,
        position=None,
        value=None,
    )
    movement = np.array([[0.5, -0.2, 0.1], [-0.3, 0.4, 0.0]], dtype=np.float32)
    found = Scores(SMALL, cohort, np.zeros(2), np.full(2, 0.5), movement, (0.21, 1.0, 0.0), exact=True)
    assert found.reasons([0, 1]) == [
        (
            "Time since the last purchase: 62% of the observation window (typically 21%); raises the score",
            "Where she buys: web; lowers the score",
            "Has a loan: yes; raises the score",
        ),
        (
            "Where she buys: not known; raises the score",
            "Time since the last purchase: not known (typically 21%); lowers the score",
            "",
        ),
    ]


@settings(max_examples=50)
@given(value=st.floats(-1e9, 1e9))
def test_numbers_are_close_and_without_exponent(value: float) -> None:
    text = number(value)
    assert "e" not in text and text != "-0"
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.06, abs=5e-4)


def test_units_and_values_read_well() -> None:
    contract = load_yaml(CONTRACTS / "bank_campaign.yaml", FeatureContract)
    rfm = load_yaml(CONTRACTS / "rfm.yaml", FeatureContract)
    assert own_value(contract.column("balance"), 1234.0) == "1,234 euro"
    assert own_value(contract.column("day"), 15.0) == "15"
    assert own_value(contract.column("pdays"), float("nan")) == "not known"
    assert own_value(contract.column("job"), 3) == "housemaid"
    assert own_value(contract.column("housing"), 0.0) == "no"
    assert own_value(rfm.column("monetary"), 1.5) == "1.5 times the institution's declared typical purchase"
    assert own_value(rfm.column("trend"), -0.25) == "-0.25"
    recency = rfm.column("recency")
    assert isinstance(recency, NumericColumn) and amount(recency, 0.004) == "0.4% of the observation window"
    assert short_meaning(rfm.column("gap_mean")) == "Average time between one day of purchase and the next"


def test_typical_values() -> None:
    recency, channel, loan = SMALL.columns
    assert typical_value(recency, np.array([0.1, 0.2, 0.9, np.nan])) == pytest.approx(0.2)
    assert np.isnan(typical_value(recency, np.array([0.1, np.nan, np.nan])))
    assert typical_value(channel, np.array([1, 1, 0, -1])) == 1.0
    assert typical_value(channel, np.array([-1, -1, 0])) == -1.0
    assert typical_value(loan, np.array([1.0, 1.0, 0.0])) == 1.0


def test_strongest_is_by_size_and_at_most_three() -> None:
    assert strongest(np.array([[0.1, -0.9, 0.3, 0.0, 0.3]])).tolist() == [[1, 2, 4]]
    assert strongest(np.array([[0.1, -0.9]])).tolist() == [[1, 0]]


def test_one_of_a_unit_is_singular():
    from client.reasons import amount
    from federation.contract import NumericColumn

    column = NumericColumn(
        kind="numeric", name="frequency", meaning="Visits", unit="days of purchase", low=0, high=9, knots=(0, 9)
    )
    assert (amount(column, 1.0), amount(column, 2.0)) == ("1 day of purchase", "2 days of purchase")
