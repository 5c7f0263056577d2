"""A plain Flower app, the peer of `benchmarks/rounds.py`: FedAvg over clients that send back what they were sent.

The folder in the run's configuration holds the turns: the server waits for `turn-1.json` (how many rounds, and what the client imports),
plays them, writes `seconds-1.json` (a list), waits for `turn-2.json`, and so on until it finds 0 rounds.
"""

import importlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

COORDINATES = 10_000
client = ClientApp()
server = ServerApp()


class Turn(TypedDict):
    """What a turn's file holds."""

    rounds: int
    imports: str


class TimedFedAvg(FedAvg):
    """FedAvg that notes how long each round takes, from its first message to its new weights."""

    def __init__(self, nodes: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
        self.seconds: list[float] = []
        self._begun = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Begin a round."""
        self._begun = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """End a round. Raises RuntimeError when a client failed: the seconds would mean nothing."""
        replies = list(replies)
        if len(replies) < self.min_available_nodes or any(reply.has_error() for reply in replies):
            raise RuntimeError("a client failed")
        result = super().aggregate_train(server_round, replies)
        self.seconds.append(time.perf_counter() - self._begun)
        return result


@client.train()
def echo(message: Message, context: Context) -> Message:
    """Send the weights back, after importing what a client that trains would."""
    config = message.content.config_records["config"]
    if config["imports"]:
        importlib.import_module(str(config["imports"]))
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Play turns until there are none."""
    folder, nodes = Path(str(context.run_config["folder"])), int(str(context.run_config["nodes"]))
    number = 1
    while True:
        turn = wait_for_turn(folder / f"turn-{number}.json")
        if not turn["rounds"]:
            return
        strategy = TimedFedAvg(nodes)
        weights = ArrayRecord({"weights": Array(np.zeros(COORDINATES, dtype=np.float32))})
        config = ConfigRecord({"imports": turn["imports"]})
        strategy.start(grid, weights, num_rounds=turn["rounds"], train_config=config)
        written = folder / "seconds.part"
        written.write_text(json.dumps(strategy.seconds))
        written.rename(folder / f"seconds-{number}.json")
        number += 1


def wait_for_turn(path: Path) -> Turn:
    """Return the next turn; 0 rounds end the run."""
    while not path.exists():
        time.sleep(0.1)
    turn: Turn = json.loads(path.read_text())
    return turn
