"""A small contract and made-up customers, for the tests of partners."""

import numpy as np

from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from simulations.partners.customers import Customers

CONTRACT = FeatureContract(
    name="some",
    version=1,
    title="Made up",
    source="table",
    columns=(
        NumericColumn(
            kind="numeric", name="age", meaning="Age", unit="years", low=0.0, high=100.0, knots=(0.0, 50.0, 100.0)
        ),
        CategoricalColumn(
            kind="categorical", name="job", meaning="Job", categories=("baker", "smith", "tailor"), required=False
        ),
        FlagColumn(kind="flag", name="loan", meaning="Has a loan"),
        NumericColumn(
            kind="numeric",
            name="spend",
            meaning="Spend",
            unit="euro",
            low=0.0,
            high=10.0,
            knots=(0.0, 10.0),
            required=False,
        ),
    ),
    label=Label(name="bought", meaning="Bought"),
)


def customers(count: int, seed: int = 0, institutions: int = 3, rate: float = 0.3) -> Customers:
    draw = np.random.default_rng(seed)
    spend = draw.uniform(-1.0, 11.0, count)
    spend[::7] = np.nan
    return Customers(
        contract=CONTRACT,
        columns={
            "age": draw.uniform(0.0, 100.0, count),
            "job": draw.integers(-1, 3, count).astype(np.int16),
            "loan": draw.integers(0, 2, count).astype(np.float32),
            "spend": spend,
        },
        labels=(draw.random(count) < rate).astype(np.float64),
        institution=np.array(["north", "south", "west"], dtype=object)[
            np.minimum(draw.integers(0, 6, count), institutions - 1)
        ],
        time=draw.permutation(count).astype(np.int64),
        extra={
            "branch": draw.integers(0, 5, count).astype(np.float64),
            "town": np.array(["Ulm", "Bonn"], object)[draw.integers(0, 2, count)],
        },
    )
