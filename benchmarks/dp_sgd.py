"""How long an epoch of DP-SGD takes: plain PyTorch, ours, and Opacus as it comes.

Usage: `python benchmarks/dp_sgd.py [--quick]`. One torch thread. Within one run the three take turns, and medians over the turns are
compared, so that another program on the machine slows all of them alike.

- *plain*: PyTorch without privacy, batches are slices of the same tensors;
- *ours*: `client.training.local_steps`, as a vault runs it: Poisson draws, book-keeping clipping, operating-system noise, tail averaging
  (the row norms of one-layer models are found in the warm-up, as a vault finds them once for all rounds);
- *Opacus*: `PrivacyEngine.make_private` with its own Poisson loader and hooks.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from client.training import local_steps
from federation.networks import Inputs, LinearNetwork, MlpNetwork, Network
from privacy.randomness import SystemSource

ROWS = 50_000
COLUMNS = 40
BATCHES = (256, 1024, 4096)
MOMENTUM = 0.9
STEP = 0.1
PLAIN_LIMIT = 2.2  # ours against plain PyTorch, at the batches below
PLAIN_BATCHES = (1024, 4096)
OPACUS_LIMIT = 8.0  # Opacus against ours
OPACUS_BATCH = 1024


@dataclass(frozen=True)
class Case:
    """A model with its data: `network()` builds it anew."""

    name: str
    network: Callable[[], Network]
    inputs: Inputs
    labels: Tensor


@dataclass(frozen=True)
class Row:
    """Median seconds an epoch of one case at one batch size."""

    case: str
    batch: int
    plain: float
    ours: float
    opacus: float

    def failures(self) -> list[str]:
        """What misses its target."""
        found = []
        if self.batch in PLAIN_BATCHES and self.ours > PLAIN_LIMIT * self.plain:
            found.append(
                f"{self.case} at {self.batch}: {self.ours / self.plain:.2f} x plain PyTorch, target {PLAIN_LIMIT}"
            )
        if self.batch == OPACUS_BATCH and self.opacus < OPACUS_LIMIT * self.ours:
            found.append(
                f"{self.case} at {self.batch}: {self.opacus / self.ours:.1f} x faster than Opacus, target {OPACUS_LIMIT}"
            )
        return found


def cases(rows: int) -> list[Case]:
    """Logistic on 40 columns, additive on the 100 columns of a hat basis of them, an MLP on 40 columns, and one with embeddings."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1.0, 1.0, (rows, COLUMNS)).astype(np.float32)
    labels = torch.from_numpy((rng.random(rows) < 1.0 / (1.0 + np.exp(-2.0 * values[:, 0] + 1.0))).astype(np.float32))
    none = torch.empty((rows, 0), dtype=torch.int64)
    dense = Inputs(torch.from_numpy(values), none)
    hats = Inputs(torch.from_numpy(_hats(values[:, :20], 5)), none)
    mixed = Inputs(dense.dense[:, :34].contiguous(), torch.from_numpy(rng.integers(0, 12, (rows, 6))))
    tables = [(f"c{place}", 12) for place in range(6)]
    return [
        Case("logistic, 40", lambda: LinearNetwork(COLUMNS), dense, labels),
        Case("additive, 100", lambda: LinearNetwork(hats.dense.shape[1]), hats, labels),
        Case("mlp 40-32-16-1", lambda: MlpNetwork(COLUMNS, (), 4, (32, 16)), dense, labels),
        Case("mlp 34 + 6 x 4 embedded", lambda: MlpNetwork(34, tables, 4, (32, 16)), mixed, labels),
    ]


def plain_epoch(case: Case, batch: int) -> Callable[[], None]:
    """An epoch without privacy, on slices."""
    network = case.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP, momentum=MOMENTUM)

    def run() -> None:
        for start in range(0, len(case.inputs), batch):
            part = slice(start, start + batch)
            optimizer.zero_grad()
            logits = network(case.inputs.dense[part], case.inputs.codes[part])
            torch.autograd.backward(binary_cross_entropy_with_logits(logits, case.labels[part]))
            optimizer.step()

    return run


def our_epoch(case: Case, batch: int) -> Callable[[], None]:
    """As many Poisson steps as an epoch has batches, by the vault's own code."""
    network, source, n = case.network(), SystemSource(), len(case.inputs)
    labels: NDArray[np.float64] = case.labels.numpy().astype(np.float64)

    def run() -> None:
        local_steps(
            network,
            case.inputs,
            labels,
            clip=1.0,
            noise_multiplier=1.0,
            sampling_rate=batch / n,
            steps=-(-n // batch),
            declared_size=n,
            learning_rate=STEP,
            momentum=MOMENTUM,
            source=source,
        )

    return run


def opacus_epoch(case: Case, batch: int) -> Callable[[], None]:
    """An epoch of Opacus with its own Poisson loader and per-sample gradients."""
    network = case.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=STEP, momentum=MOMENTUM)
    loader = DataLoader(TensorDataset(case.inputs.dense, case.inputs.codes, case.labels), batch_size=batch)
    wrapped, private, loader = PrivacyEngine().make_private(
        module=network,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=True,
    )
    model: nn.Module = wrapped

    def run() -> None:
        for dense, codes, labels in loader:
            private.zero_grad()
            torch.autograd.backward(binary_cross_entropy_with_logits(model(dense, codes), labels))
            private.step()

    return run


def measure(case: Case, batch: int, repeats: int) -> Row:
    """Let the three take turns and return their medians; Opacus gets fewer turns, for it is slow."""
    epochs = {"plain": plain_epoch(case, batch), "ours": our_epoch(case, batch), "opacus": opacus_epoch(case, batch)}
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(repeats + 1):
        for name, epoch in epochs.items():
            if name == "opacus" and turn > max(2, repeats // 4):
                continue
            start = time.perf_counter()
            epoch()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    return Row(case.name, batch, *(statistics.median(times[name]) for name in ("plain", "ours", "opacus")))


def main() -> None:
    """Print the table; exit with 1 when a target is missed (not with `--quick`, whose medians are too few)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 rows and 2 turns: shows that it runs")
    quick: bool = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook|Secure RNG|Optimal order")
    rows = 5_000 if quick else ROWS
    print(f"DP-SGD, one epoch of {rows:,} customers, one torch thread; milliseconds are medians of interleaved turns\n")
    print(
        f"{'model':<26}{'batch':>6}{'plain ms':>10}{'ours ms':>10}{'Opacus ms':>11}{'ours/plain':>12}{'Opacus/ours':>13}"
    )
    failures: list[str] = []
    for case in cases(rows):
        for batch in BATCHES:
            row = measure(case, batch, 2 if quick else 15)
            failures += row.failures()
            print(
                f"{row.case:<26}{row.batch:>6}{1e3 * row.plain:>10.1f}{1e3 * row.ours:>10.1f}{1e3 * row.opacus:>11.1f}"
                f"{row.ours / row.plain:>12.2f}{row.opacus / row.ours:>13.1f}",
                flush=True,
            )
    if not quick:
        print("\n" + ("\n".join(failures) if failures else "Every target is met."))
        raise SystemExit(bool(failures))


def _hats(values: NDArray[np.float32], knots: int) -> NDArray[np.float32]:
    """Piecewise-linear basis of each column on equal knots in [-1, 1]: float32 [n, columns * knots]."""
    places = np.linspace(-1.0, 1.0, knots, dtype=np.float32)
    distance = np.abs(values[:, :, None] - places) * (knots - 1) / 2
    hats: NDArray[np.float32] = np.maximum(0.0, 1.0 - distance).reshape(len(values), -1).astype(np.float32)
    return hats


if __name__ == "__main__":
    main()
