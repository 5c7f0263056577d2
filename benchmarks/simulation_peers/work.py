"""The work that every peer of the simulation benchmark does: data, model, arguments and report; seeded, and numpy only.

K institutions of equally many customers train one model: each round every institution takes some local steps of DP-SGD (Abadi et al.
2016, Algorithm 1) on its own customers, and the server takes the plain mean of the models (FedAvg, McMahan et al. 2017). All data is
made up by `institution` and `common_test`, the same for every peer.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

Model = Literal["logistic", "mlp"]
Floats = NDArray[np.float32]

DELTA = 1e-5
TEST_ROWS = 20_000
HIDDEN = (100, 88)  # 40-100-88-1 has 13,077 parameters
LEARNING_RATES: dict[Model, float] = {"logistic": 0.5, "mlp": 0.2}
PAIRS = 6
LINEAR_SD, PAIR_SD, INSTITUTION_SD, INTERCEPT_SD = 1.6, 1.1, 0.4, 0.3
"""Standard deviations, on the scale of the logit, of what all institutions share, of the interactions, and of what differs between them."""
_TRUTH, _CUSTOMERS, _TEST, _MODEL, DRAWS = range(5)


@dataclass(frozen=True)
class Work:
    """What to train.

    Attributes
    ----------
    local_steps:
        DP-SGD steps of an institution in a round.
    rows:
        Customers of an institution.
    rate:
        Probability with which a customer enters a step's batch.
    clip:
        L2 norm to which each customer's gradient is clipped.
    noise:
        Standard deviation of the noise on the sum of a batch, in clips.
    lr:
        Step on that sum divided by `rate * rows`.
    """

    model: Model
    institutions: int
    rounds: int
    local_steps: int
    rows: int
    features: int
    rate: float
    clip: float
    noise: float
    lr: float
    seed: int

    @property
    def widths(self) -> tuple[int, ...]:
        """How many values enter the model and leave each of its layers."""
        return (self.features, 1) if self.model == "logistic" else (self.features, *HIDDEN, 1)

    @property
    def batch(self) -> float:
        """Expected customers in a batch."""
        return self.rate * self.rows

    def generator(self, *stream: int) -> np.random.Generator:
        """Return the random numbers of one purpose."""
        return np.random.default_rng((self.seed, *stream))


class Outcome(TypedDict):
    """What a peer prints, as one line of JSON.

    `seconds` is the training alone, `startup_seconds` all before it; `epsilon` that of a customer at delta = 1e-5 after all rounds, or None
    where customers are not what is protected; `not_equal` says in what the peer's work differs from the common one.
    """

    peer: str
    model: str
    institutions: int
    rounds: int
    local_steps: int
    parameters: int
    seconds: float
    startup_seconds: float
    client_steps_per_s: float
    auc: float
    epsilon: float | None
    not_equal: list[str]


def institution(work: Work, number: int) -> tuple[Floats, Floats]:
    """Return the customers of institution `number`: float32 [rows, features], and labels 0 or 1, float32 [rows]."""
    rng = work.generator(_CUSTOMERS, number)
    own = rng.standard_normal(work.features) * INSTITUTION_SD / math.sqrt(work.features)
    return _customers(work, rng, work.rows, own, INTERCEPT_SD * rng.standard_normal())


def common_test(work: Work) -> tuple[Floats, Floats]:
    """Return 20,000 customers of no institution, labelled by what all institutions share."""
    return _customers(work, work.generator(_TEST), TEST_ROWS, np.zeros(work.features), 0.0)


def initial_layers(work: Work) -> list[tuple[Floats, Floats]]:
    """Return each layer's weight [out, in] and bias [out]: Glorot's uniform weights, and 0 for all biases and for the last layer."""
    rng = work.generator(_MODEL)
    layers = []
    for place, (into, out) in enumerate(zip(work.widths, work.widths[1:], strict=False)):
        bound = math.sqrt(6.0 / (into + out)) if place < len(work.widths) - 2 else 0.0
        weight = rng.uniform(-bound, bound, (out, into)).astype(np.float32)
        layers.append((weight, np.zeros(out, dtype=np.float32)))
    return layers


def test_auc(work: Work, layers: list[tuple[Floats, Floats]]) -> float:
    """Return the area under the ROC curve of a model, given as `initial_layers` gives it, on the common test set."""
    values, labels = common_test(work)
    for weight, bias in layers[:-1]:
        values = np.tanh(values @ weight.T + bias)
    weight, bias = layers[-1]
    order = np.argsort((values @ weight.T + bias)[:, 0], kind="stable")
    ranks = np.flatnonzero(labels[order]) + 1.0
    positives, negatives = len(ranks), len(labels) - len(ranks)
    return float((ranks.sum() - positives * (positives + 1) / 2) / (positives * negatives))


def outcome(
    peer: str,
    work: Work,
    layers: list[tuple[Floats, Floats]],
    *,
    seconds: float,
    startup: float,
    epsilon: float | None,
    not_equal: list[str],
) -> Outcome:
    """Judge the trained `layers` and return what a peer prints."""
    return Outcome(
        peer=peer,
        model=work.model,
        institutions=work.institutions,
        rounds=work.rounds,
        local_steps=work.local_steps,
        parameters=sum(weight.size + bias.size for weight, bias in layers),
        seconds=seconds,
        startup_seconds=startup,
        client_steps_per_s=work.institutions * work.rounds * work.local_steps / seconds,
        auc=test_auc(work, layers),
        epsilon=epsilon,
        not_equal=not_equal,
    )


def process_age() -> float:
    """Return the seconds since this process started, by the clock of Linux."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = (
        int(after_name[19]) / 100.0
    )  # field 22, in ticks, of which Linux shows 100 a second on the platforms that torch is built for
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def command(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that all peers take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("logistic", "mlp"), default="logistic")
    parser.add_argument("--institutions", type=_at_least(int, 2), default=50)
    parser.add_argument("--rounds", type=_at_least(int, 1), default=50)
    parser.add_argument("--local-steps", type=_at_least(int, 1), default=4)
    parser.add_argument("--rows", type=_at_least(int, 1), default=1_000, help="customers of each institution")
    parser.add_argument("--features", type=_at_least(int, 2 * PAIRS), default=40)
    parser.add_argument("--rate", type=_at_least(float, 1e-6), default=0.25)
    parser.add_argument("--clip", type=_at_least(float, 1e-6), default=1.0)
    parser.add_argument("--noise", type=_at_least(float, 0.1), default=1.0)
    parser.add_argument("--lr", type=_at_least(float, 0.0), help="default: 0.5 for logistic, 0.2 for mlp")
    parser.add_argument("--seed", type=_at_least(int, 0), default=0)
    return parser


def work_of(told: argparse.Namespace) -> Work:
    """Return the work that the arguments ask for."""
    values = {field.name: getattr(told, field.name) for field in fields(Work)}
    if values["lr"] is None:
        values["lr"] = LEARNING_RATES[told.model]
    return Work(**values)


def show(result: Outcome) -> None:
    """Print the outcome as one line of JSON."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _at_least(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return value

    return parse


def _customers(
    work: Work, rng: np.random.Generator, rows: int, own: NDArray[np.float64], intercept: float
) -> tuple[Floats, Floats]:
    """Draw customers with the shared truth, an institution's own part of it, and interactions between the first columns, two by two."""
    truth = work.generator(_TRUTH)
    shared = truth.standard_normal(work.features)
    shared *= LINEAR_SD / np.linalg.norm(shared)
    signs = truth.choice((-1.0, 1.0), PAIRS) * PAIR_SD / math.sqrt(PAIRS)
    values = rng.standard_normal((rows, work.features), dtype=np.float32)
    logits = values @ (shared + own) + (values[:, :PAIRS] * values[:, PAIRS : 2 * PAIRS]) @ signs + intercept
    labels = (rng.random(rows) < 1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    return values, labels
