"""Small jobs that every engine is tried on: five institutions of unlike sizes, one of them with a single customer."""

import numpy as np
import torch

from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.networks import encode
from federation.study import AdditiveModel, LogisticModel, MlpModel
from simulations.engines.work import Job, Local, Rows, Work

SIZES = (40, 7, 90, 1, 25)
MODELS = {
    "additive": AdditiveModel(),
    "logistic": LogisticModel(kind="logistic"),
    "mlp": MlpModel(kind="mlp", hidden=(6, 4), embedding=3),
}
CONTRACT = FeatureContract(
    name="town",
    version=1,
    title="Customers of a small town",
    source="table",
    columns=(
        NumericColumn(
            kind="numeric", name="age", meaning="Age", unit="years", low=0.0, high=90.0, knots=(0.0, 30.0, 90.0)
        ),
        CategoricalColumn(kind="categorical", name="job", meaning="Job", categories=("baker", "clerk", "nurse")),
        FlagColumn(kind="flag", name="owner", meaning="Owns a house"),
    ),
    label=Label(name="left", meaning="Has left"),
)


def job_of(kind, seed=3, sizes=SIZES):
    """Ages and jobs tell something of the label; some values are missing or unknown."""
    draw, n = np.random.default_rng(seed), sum(sizes)
    columns = {
        "age": np.where(draw.random(n) < 0.1, np.nan, draw.uniform(0.0, 90.0, n)),
        "job": draw.integers(-1, 3, n),
        "owner": (draw.random(n) < 0.5).astype(np.float64),
    }
    logit = 0.04 * (np.nan_to_num(columns["age"], nan=45.0) - 45.0) + 1.5 * (columns["job"] == 1)
    labels = (draw.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    inputs = encode(MODELS[kind], CONTRACT, columns)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # Declared sizes are round, and not the true ones.
    declared = np.array([max(1, 10 * round(size / 10)) for size in sizes], dtype=np.int64)
    rows = Rows(inputs.dense.contiguous(), inputs.codes, torch.from_numpy(labels), offsets)
    return Job(MODELS[kind], CONTRACT, rows, declared, seed)


def work_of(job, number=0, *, noise=0.0, rate=0.5, clip=0.6, weights=None, present=None, local=None):
    """A round with another clip at each institution."""
    count = job.rows.institutions
    return Work(
        number=number,
        weights=spread(job) if weights is None else weights,
        clip=clip * np.linspace(0.7, 1.3, count),
        noise=noise * np.linspace(0.5, 1.5, count),
        present=np.ones(count, dtype=np.bool_) if present is None else np.asarray(present, dtype=np.bool_),
        rate=rate,
        local=local,
    )


def spread(job):
    """Weights at which no layer is zero."""
    return job.start() + 0.3 * np.random.default_rng(8).standard_normal(job.layout.width)


LOCALS = {
    "plain": Local(3, 0.4),
    "one step": Local(1, 0.4),
    "momentum": Local(4, 0.3, momentum=0.8),
    "proximal": Local(4, 0.3, proximal=0.7),
    "last": Local(5, 0.3, momentum=0.4, proximal=0.2, tail=False),
    "full": Local(4, 0.5, momentum=0.5, tail=False, full=True),
    "head": Local(4, 0.5, tail=False, full=True, head=True),
}
