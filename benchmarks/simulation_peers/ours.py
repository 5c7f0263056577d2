"""The same work by our vectorized engine: every institution's local DP-SGD steps in batched matrix products.

`--device cuda` runs on a GPU where there is one. Prints one line of JSON, as the peers do, with the memory that the process used at most.
"""

import resource
import sys
import time
from typing import cast

import numpy as np
import torch
from price import epsilon_of
from work import Floats, Outcome, Work, command, initial_layers, institution, outcome, process_age, show, work_of

from federation.contract import FeatureContract, Label, NumericColumn
from federation.networks import build, weights_of
from federation.study import LogisticModel, MlpModel, Model
from simulations.engines.vectorized import Vectorized
from simulations.engines.work import Job, Layout, Local, Rows
from simulations.engines.work import Work as Round

Layers = list[tuple[Floats, Floats]]


def model_of(work: Work) -> tuple[Model, FeatureContract]:
    """Return a model and a contract whose encoding is as wide as the work's rows: value and absence of each of the contract's columns."""
    model: Model = LogisticModel(kind="logistic")
    if work.model == "mlp":
        model = MlpModel(kind="mlp", hidden=work.widths[1:-1])
    width = work.features // 2
    columns = tuple(
        NumericColumn(
            kind="numeric",
            name=f"x{place}",
            meaning="Made up",
            unit="count",
            low=-9.0,
            high=9.0,
            knots=(-9.0, 0.0, 9.0),
        )
        for place in range(width)
    )
    return model, FeatureContract(
        name="benchmark",
        version=1,
        title="Made-up customers",
        source="table",
        columns=columns,
        label=Label(name="label", meaning="Made up"),
    )


def job_of(work: Work) -> Job:
    """Return all institutions' customers as the engine reads them."""
    dense = np.empty((work.institutions * work.rows, work.features), dtype=np.float32)
    labels = np.empty(len(dense), dtype=np.float32)
    for number in range(work.institutions):
        here = slice(number * work.rows, (number + 1) * work.rows)
        dense[here], labels[here] = institution(work, number)
    offsets = np.arange(work.institutions + 1, dtype=np.int64) * work.rows
    codes = torch.empty((len(dense), 0), dtype=torch.int64)
    rows = Rows(torch.from_numpy(dense), codes, torch.from_numpy(labels), offsets)
    model, contract = model_of(work)
    return Job(model, contract, rows, np.full(work.institutions, work.rows, dtype=np.int64), work.seed)


def train(work: Work, device: str, threads: int | None, gradient_sums: bool) -> Outcome:
    """Train, and return what a peer prints."""
    job, engine = job_of(work), Vectorized(device, threads)
    model, contract = job.model, job.contract
    layout = Layout.of(weights_of(build(model, contract)))
    names = layout.names
    first = [array for layer in initial_layers(work) for array in layer]
    weights = layout.flat({name: array for name, array in zip(names, first, strict=True)})
    count = work.institutions
    factors = np.full(count, 1.0 / count)
    if gradient_sums:
        factors *= -work.lr / work.batch
    with engine.open(job) as session:
        session.combine(_round(work, 0, weights, gradient_sums), factors)  # warm
        startup, start = process_age(), time.perf_counter()
        for number in range(work.rounds):
            weights = weights + session.combine(_round(work, number, weights, gradient_sums), factors)
        seconds = time.perf_counter() - start
    arrays = [layout.tensors(weights)[name] for name in names]
    layers = cast(Layers, list(zip(arrays[::2], arrays[1::2], strict=True)))
    return outcome(
        f"vectorized ({device})",
        work,
        layers,
        seconds=seconds,
        startup=startup,
        epsilon=epsilon_of(work),
        not_equal=[],
    )


def _round(work: Work, number: int, weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]], sums: bool) -> Round:
    count = work.institutions
    return Round(
        number=number,
        weights=weights,
        clip=np.full(count, work.clip),
        noise=np.full(count, work.noise * work.clip),
        present=np.ones(count, dtype=np.bool_),
        rate=work.rate,
        local=None if sums else Local(work.local_steps, work.lr, tail=False),
    )


def main() -> int:
    """Run the work once."""
    parser = command(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gradient-sums", action="store_true", help="one gradient sum a round in place of local steps")
    told = parser.parse_args()
    work = work_of(told)
    result = dict(train(work, told.device, told.threads, told.gradient_sums))
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    show(cast(Outcome, result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
