"""A peer of the simulation benchmark: the nearest that `pfl` 0.6.0 does to the common work.

Usage: `PFL/bin/python benchmarks/simulation_peers/pfl_peer.py [--institutions 50] [--rounds 50] [--model logistic|mlp] ...`.
Prints one line of JSON. The peer is no dependency. Install it apart, and run this by its interpreter:

    python3 -m venv pfl && pfl/bin/pip install pfl==0.6.0 torch==2.13.0 numpy pandas

pfl protects users, here institutions: it clips a user's whole update and adds noise to that, on the device ("local") or to the sum
("central"). Nothing in `pfl.privacy` clips per customer, and `local_max_grad_norm` of its models clips a batch's mean gradient. So its
clients train without privacy, and its local Gaussian mechanism is set to add as much noise to an update as the DP-SGD steps of a round
add up to, so that what it learns can be compared.

What it is given: as many processes as there are cores, one torch thread each, which take a share of the institutions and reduce over the
loopback device, as pfl does under `torchrun`; one round that is not counted; batches and data sets that are built once.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.privacy import GaussianMechanism
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from work import Floats, Outcome, Work, command, initial_layers, institution, outcome, process_age, show, work_of

PEER = "pfl"
END_SECONDS = 60.0  # for the other processes to end after the last round
NOT_EQUAL = [
    "No customer's gradient is clipped, which is less work.",
    "Noise is added once to an institution's update instead of in each local step, which is less work.",
    "Batches are fixed slices of as many customers as a Poisson batch has on average: nothing is drawn or gathered, which is less work.",
    "An institution's whole update is clipped, to the most that its clipped steps could move the model.",
    "The guarantee is for institutions instead of customers: no epsilon can be compared.",
]


class Network(nn.Module):
    """The common model with the loss and the metric that pfl asks for."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.linear = nn.ModuleList()
        for weight, bias in initial_layers(work):
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
            self.linear.append(layer)

    def forward(self, values: Tensor) -> Tensor:
        """Return logits [n, 1]."""
        for layer in self.linear[:-1]:
            values = layer(values).tanh()
        logits: Tensor = self.linear[-1](values)
        return logits

    def loss(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return binary_cross_entropy_with_logits(self(values), labels)

    def metrics(self, values: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return the cross-entropy; asked for in the round that is not counted alone."""
        with torch.no_grad():
            return {"loss": Weighted(len(labels) * self.loss(values, labels).item(), len(labels))}


class Trainer:
    """pfl's objects for the common work."""

    def __init__(self, work: Work) -> None:
        np.random.seed(
            work.seed % 2**32
        )  # pfl takes its random numbers from NumPy's global state, and wants it equal in all processes
        self.work = work
        self.network = Network(work)
        self.model = PyTorchModel(
            self.network,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(self.network.parameters(), lr=1.0),
        )
        users = self._users()
        data = FederatedDataset(users.__getitem__, MinimizeReuseUserSampler(range(work.institutions)))
        clip = work.lr * work.local_steps * work.clip
        spread = work.lr * work.noise * work.clip * math.sqrt(work.local_steps) / work.batch
        mechanism = GaussianMechanism(clip, relative_noise_stddev=spread / clip)
        self.backend = SimulatedBackend(data, data, postprocessors=[mechanism])
        self.algorithm = FederatedAveraging()

    def train_until(self, rounds: int) -> None:
        """Go on until so many rounds are done, the first included; only the first evaluates."""
        work = self.work
        self.algorithm.run(
            NNAlgorithmParams(
                central_num_iterations=rounds,
                evaluation_frequency=work.rounds + 1,
                train_cohort_size=work.institutions,
                val_cohort_size=None,
            ),
            self.backend,
            self.model,
            NNTrainHyperParams(
                local_batch_size=round(work.batch),
                local_learning_rate=work.lr,
                local_num_epochs=local_epochs(work),
                local_num_steps=None,
            ),
            send_metrics_to_platform=False,
        )

    def reset(self) -> None:
        """Put the model back to its start."""
        self.network.load_state_dict(Network(self.work).state_dict())

    def layers(self) -> list[tuple[Floats, Floats]]:
        """Return the model's weights and biases."""
        values = [tensor.numpy() for tensor in self.network.state_dict().values()]
        return list(zip(values[::2], values[1::2], strict=True))

    def _users(self) -> list[PyTorchTensorDataset]:
        tables = [institution(self.work, number) for number in range(self.work.institutions)]
        return [
            PyTorchTensorDataset((torch.from_numpy(values), torch.from_numpy(labels[:, None])), user_id=str(number))
            for number, (values, labels) in enumerate(tables)
        ]


def local_epochs(work: Work) -> int:
    """Return in how many passes over its customers an institution has taken its local steps.

    Raises
    ------
    argparse.ArgumentTypeError
        When batches of the expected size do not come out even, as pfl counts in them.
    """
    batches = round(1.0 / work.rate)
    if abs(batches * work.rate - 1.0) > 1e-9 or work.rows % batches or work.local_steps % batches:
        raise argparse.ArgumentTypeError(
            "--rate must be 1 / a whole number that divides --rows and --local-steps, as pfl goes through all rows in turn"
        )
    return work.local_steps // batches


def train(work: Work) -> tuple[Trainer, float, float]:
    """Train with whatever processes `join` has brought together; return the trainer, seconds of preparation and seconds of training."""
    begun = time.perf_counter()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // pytorch_ops.distributed.world_size))
    trainer = Trainer(work)
    trainer.train_until(1)
    trainer.reset()
    start = time.perf_counter()
    trainer.train_until(1 + work.rounds)
    return trainer, start - begun, time.perf_counter() - start


def run(work: Work, before: float = 0.0) -> Outcome:
    """Train, and judge the model. `before` are seconds that passed already, for `startup_seconds`."""
    trainer, preparation, seconds = train(work)
    return outcome(
        PEER,
        work,
        trainer.layers(),
        seconds=seconds,
        startup=before + preparation,
        epsilon=None,
        not_equal=NOT_EQUAL,
    )


def join(store: Path, rank: int, processes: int) -> None:
    """Bring `processes` together through a file, so that none listens but on the loopback device."""
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "LOCAL_WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)})
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    # pfl joins processes under torchrun or by address only, and both listen on every interface; these two are all that it notes of it
    pytorch_ops.distributed._global_rank = rank
    pytorch_ops.distributed._world_size = processes


def main() -> None:
    """Train, and print the outcome."""
    parser = command(__doc__)
    parser.add_argument(
        "--processes", type=int, help="default: one for each core, if the institutions can be shared out evenly"
    )
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    warnings.filterwarnings("ignore", message="To copy construct|`torch.distributed.reduce_op` is deprecated")  # pfl's
    work = work_of(told)
    cores = len(os.sched_getaffinity(0))
    processes = told.processes or (cores if work.institutions % cores == 0 else 1)
    if work.institutions % processes:
        parser.error("--processes must divide --institutions")
    try:
        local_epochs(work)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    if told.store is not None:
        join(told.store, told.rank, processes)
        train(work)
    elif processes == 1:
        show(run(work, process_age()))
    else:
        show(_run_with_others(work, processes))


def _run_with_others(work: Work, processes: int) -> Outcome:
    """Start the other processes, and train with them. Raises RuntimeError when one of them failed."""
    begun = time.perf_counter() - process_age()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        told = [sys.executable, *sys.argv, "--processes", str(processes), "--store", str(store), "--rank"]
        others = [subprocess.Popen([*told, str(rank)]) for rank in range(1, processes)]
        try:
            join(store, 0, processes)
            result = run(work, time.perf_counter() - begun)
            if any([other.wait(END_SECONDS) for other in others]):
                raise RuntimeError("another process failed")
        finally:
            for other in others:
                other.kill()
    return result


if __name__ == "__main__":
    main()
