"""A small made-up problem for the engines' tests: institutions of unequal size, a contract with every kind of column."""

import numpy as np
import torch

from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.networks import encode
from federation.study import AdditiveModel, MlpModel, Model
from simulations.engines.work import Job, Rows

CONTRACT = FeatureContract(
    name="engines",
    version=1,
    title="A made-up problem",
    source="table",
    columns=(
        *(
            NumericColumn(
                kind="numeric",
                name=name,
                meaning=name,
                unit="count",
                low=-3.0,
                high=3.0,
                knots=(-3.0, -1.0, 0.0, 1.0, 3.0),
            )
            for name in ("first", "second", "third")
        ),
        CategoricalColumn(kind="categorical", name="area", meaning="Area", categories=("north", "south", "west")),
        FlagColumn(kind="flag", name="member", meaning="Is a member", required=False),
    ),
    label=Label(name="bought", meaning="Bought"),
)
ADDITIVE, MLP = AdditiveModel(), MlpModel(kind="mlp", hidden=(6, 5), embedding=2)


def rows(model: Model, sizes: tuple[int, ...], seed: int) -> Rows:
    """Customers whose chance depends on a slope, a bend, an area and the product of two columns."""
    draw, n = np.random.default_rng(seed), sum(sizes)
    first, second, third = draw.standard_normal((3, n)).clip(-3.0, 3.0)
    area = draw.integers(-1, 3, n)
    member = np.where(draw.random(n) < 0.1, np.nan, (draw.random(n) < 0.4).astype(np.float64))
    logit = 1.1 * first - 0.9 * np.abs(second) + 0.6 * third * first + np.array([0.0, 0.8, -0.5, 0.2])[area] - 0.6
    labels = (draw.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    columns = {"first": first, "second": second, "third": third, "area": area, "member": member}
    inputs = encode(model, CONTRACT, columns)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Rows(inputs.dense, inputs.codes, torch.from_numpy(labels), offsets)


def job(model: Model = ADDITIVE, sizes: tuple[int, ...] = (310, 90, 170, 60, 240), seed: int = 5) -> Job:
    return Job(model, CONTRACT, rows(model, sizes, seed), np.array(sizes, dtype=np.int64), seed)
