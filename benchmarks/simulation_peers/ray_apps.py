"""The two sides of `ray_opacus.py`: a Flower ClientApp that trains with Opacus as its documentation shows, and FedAvg.

In a module of its own, so that a Ray process imports it, and keeps what it has built, instead of getting a copy with every message.
"""

import json
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, islice, repeat

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset
from work import DRAWS, Floats, Work, initial_layers, institution

WARM_UP = 1 << 20  # its streams of random numbers lie apart from those of the rounds that count
ROUND_SECONDS = 600.0  # at most
client = ClientApp()


def network(work: Work) -> nn.Sequential:
    """Return the model at its start."""
    parts: list[nn.Module] = []
    for weight, bias in initial_layers(work):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


class Institution:
    """One institution's customers with its private model, optimizer and Poisson loader."""

    def __init__(self, work: Work, number: int) -> None:
        self.work, self.number = work, number
        values, labels = institution(work, number)
        self._generator = torch.Generator()
        model = network(work)
        loader = DataLoader(
            TensorDataset(torch.from_numpy(values), torch.from_numpy(labels[:, None])),
            batch_size=round(work.batch),
            generator=self._generator,
        )
        self.model, self.optimizer, self.loader = PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=work.lr),
            data_loader=loader,
            noise_multiplier=work.noise,
            max_grad_norm=work.clip,
            poisson_sampling=True,
            noise_generator=self._generator,
        )
        self.plain = model  # Opacus wraps it, and leaves it what it was

    def train(self, arrays: ArrayRecord, stream: int) -> ArrayRecord:
        """Take a round's local steps from `arrays`, with random numbers of its own, and return the new ones."""
        self.plain.load_state_dict(arrays.to_torch_state_dict())
        rng = self.work.generator(DRAWS, stream, self.number)
        self._generator.manual_seed(int(rng.integers(2**63)))
        for values, labels in islice(self._batches(), self.work.local_steps):
            self.optimizer.zero_grad()
            torch.autograd.backward(binary_cross_entropy_with_logits(self.model(values), labels))
            self.optimizer.step()
        return ArrayRecord(self.plain.state_dict())

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield Poisson batches, epoch after epoch."""
        return chain.from_iterable(repeat(self.loader))


@lru_cache(maxsize=1)
def institutions(work: Work) -> list[Institution]:
    """Build all institutions, once in a process: any of them may come to it."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook|Secure RNG|Optimal order")
    return [Institution(work, number) for number in range(work.institutions)]


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train one institution for one round."""
    config = message.content.config_records["config"]
    work = Work(**json.loads(str(config["work"])))
    number = int(str(context.node_config["partition-id"]))
    stream = int(str(config["stream"])) + int(str(config["server-round"]))
    arrays = institutions(work)[number].train(message.content.array_records["arrays"], stream)
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": work.rows})})
    return Message(content, reply_to=message)


class Complete(FedAvg):
    """FedAvg that every institution must answer."""

    def __init__(self, institutions: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=institutions, min_available_nodes=institutions)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the answers. Raises RuntimeError when one is missing: the seconds would mean nothing."""
        replies = list(replies)
        if len(replies) < self.min_available_nodes or any(reply.has_error() for reply in replies):
            raise RuntimeError("an institution failed")
        return super().aggregate_train(server_round, replies)


@dataclass(frozen=True)
class Trained:
    """When the counted rounds began and what they took, both by `time.perf_counter`, and the model's weights and biases."""

    begun: float
    seconds: float
    layers: list[tuple[Floats, Floats]]


def server_app(work: Work, done: list[Trained]) -> ServerApp:
    """Return an app that plays a round to warm up, then the rounds that count, and puts what came of them into `done`."""
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy, told = Complete(work.institutions), json.dumps(asdict(work))
        first = ArrayRecord(network(work).state_dict())
        config = ConfigRecord({"work": told, "stream": WARM_UP})
        strategy.start(grid, first, num_rounds=1, timeout=ROUND_SECONDS, train_config=config)
        config = ConfigRecord({"work": told, "stream": 0})
        begun = time.perf_counter()
        result = strategy.start(grid, first, num_rounds=work.rounds, timeout=ROUND_SECONDS, train_config=config)
        seconds = time.perf_counter() - begun
        values = [tensor.numpy() for tensor in result.arrays.to_torch_state_dict().values()]
        done.append(Trained(begun, seconds, list(zip(values[::2], values[1::2], strict=True))))

    return server
