"""The in-process grid: parallel nodes, copied messages, ordered faults, Flower's own strategies."""

import os
import threading
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from simulations.local_grid import Fault, LocalGrid, run_study


def app_with(handler) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(handler(message, context), reply_to=message)

    return app


def request(node: int, group: str = "1", content: RecordDict | None = None) -> Message:
    return Message(content or RecordDict({"c": ConfigRecord({"x": 1})}), node, "train", group_id=group)


def echo(message: Message, context: Context) -> RecordDict:
    return message.content


def test_nodes_run_beside_each_other_and_each_alone() -> None:
    together, most, busy = threading.Barrier(2, timeout=10), [0], [0]
    lock = threading.Lock()

    def handler(message: Message, context: Context) -> RecordDict:
        together.wait()
        return RecordDict()

    def alone(message: Message, context: Context) -> RecordDict:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.01)
        with lock:
            busy[0] -= 1
        return RecordDict()

    with LocalGrid({1: (app_with(handler), {}), 2: (app_with(handler), {})}, workers=2) as grid:
        assert len(list(grid.send_and_receive([request(1), request(2)], timeout=10))) == 2
    with LocalGrid({1: (app_with(alone), {})}, workers=4) as grid:
        assert len(list(grid.send_and_receive([request(1) for _ in range(6)], timeout=10))) == 6
    assert most == [1]


def test_each_node_has_its_own_configuration_and_a_state_that_lasts() -> None:
    def handler(message: Message, context: Context) -> RecordDict:
        seen = context.state.setdefault("n", ConfigRecord({"count": 0}))
        seen["count"] += 1
        own = {"site": context.node_config["site"], "count": seen["count"], "run": context.run_config["x"]}
        return RecordDict({"r": ConfigRecord(own)})

    app = app_with(handler)
    with LocalGrid({7: (app, {"site": "a"}), 8: (app, {"site": "b"})}, run_config={"x": 5}) as grid:
        grid.send_and_receive([request(7)], timeout=10)
        replies = list(grid.send_and_receive([request(7), request(8)], timeout=10))
    found = {reply.metadata.src_node_id: dict(reply.content["r"]) for reply in replies}
    assert found == {7: {"site": "a", "count": 2, "run": 5}, 8: {"site": "b", "count": 1, "run": 5}}


def test_messages_are_copied_both_ways() -> None:
    kept = []

    def handler(message: Message, context: Context) -> RecordDict:
        message.content["c"]["x"] = 99
        kept.append(message.content)
        return message.content

    content = RecordDict({"c": ConfigRecord({"x": 1})})
    with LocalGrid({1: (app_with(handler), {}), 2: (app_with(handler), {})}) as grid:
        replies = list(grid.send_and_receive([request(1, content=content), request(2, content=content)], timeout=10))
    replies[0].content["c"]["x"] = 5
    assert content["c"]["x"] == 1
    assert [record["c"]["x"] for record in kept] == [99, 99]


@pytest.mark.parametrize(
    ("fault", "count"), [(Fault("hang"), 0), (Fault("lose"), 0), (Fault("twice"), 2), (Fault("delay", seconds=0.2), 1)]
)
def test_silence_repetition_and_delay(fault: Fault, count: int) -> None:
    calls = []

    def handler(message: Message, context: Context) -> RecordDict:
        calls.append(message)
        return RecordDict()

    start = time.monotonic()
    with LocalGrid({1: (app_with(handler), {})}, faults={1: (fault,)}) as grid:
        replies = list(grid.send_and_receive([request(1)], timeout=0.5))
    assert len(replies) == count
    assert len(calls) == (0 if fault.kind == "hang" else 1)
    assert time.monotonic() - start >= (0.2 if fault.kind == "delay" else 0.0)


def test_errors_look_like_flowers() -> None:
    faults = {1: (Fault("fail"),), 2: (Fault("unreachable"),)}
    with LocalGrid({node: (app_with(echo), {}) for node in (1, 2)}, faults=faults) as grid:
        asked = [request(1), request(2), request(3)]
        replies = {reply.metadata.reply_to_message_id: reply for reply in grid.send_and_receive(asked, timeout=10)}
    own, link, unknown = (replies[message.metadata.message_id] for message in asked)
    assert own.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION and own.metadata.src_node_id == 1
    assert link.error.code == unknown.error.code == ErrorCode.NODE_UNAVAILABLE
    assert link.metadata.src_node_id == unknown.metadata.src_node_id == SUPERLINK_NODE_ID


def test_faults_can_be_narrowed_and_bytes_altered() -> None:
    def change(message: Message) -> Message:
        message.content["c"]["x"] = 2
        return message

    fault = Fault("alter", types=frozenset({"train"}), groups=frozenset({"2"}), change=change)
    with LocalGrid({1: (app_with(echo), {})}, faults={1: (fault,)}) as grid:
        replies = [list(grid.send_and_receive([request(1, group)], timeout=10))[0] for group in ("1", "2", "3")]
    assert [reply.content["c"]["x"] for reply in replies] == [1, 2, 1]


def test_closing_does_not_wait_for_what_has_not_begun() -> None:
    started = threading.Event()

    def slow(message: Message, context: Context) -> RecordDict:
        started.set()
        time.sleep(0.2)
        return RecordDict()

    start = time.monotonic()
    with LocalGrid({1: (app_with(slow), {})}, workers=1) as grid:
        grid.push_messages([request(1) for _ in range(50)])
        started.wait()
    assert time.monotonic() - start < 2.0


def test_flowers_own_strategy_runs_on_it() -> None:
    """The grid is a Grid: a stock ServerApp with a stock strategy gives the weighted mean."""

    def train(message: Message, context: Context) -> RecordDict:
        value = message.content["arrays"]["w"].numpy() + context.node_config["step"]
        return RecordDict({"arrays": ArrayRecord({"w": Array(value)}), "metrics": MetricRecord({"num-examples": 1})})

    result = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0)
        result.append(strategy.start(grid, ArrayRecord({"w": Array(np.zeros(2))}), num_rounds=3))

    with LocalGrid({node: (app_with(train), {"step": float(node)}) for node in (1, 2, 3)}) as grid:
        run_study(server, grid)
    np.testing.assert_allclose(result[0].arrays["w"].numpy(), [6.0, 6.0])


def test_many_nodes_cost_milliseconds() -> None:
    with LocalGrid({node: (app_with(echo), {}) for node in range(1, 101)}, workers=2) as grid:
        start = time.monotonic()
        for group in range(5):
            assert (
                len(list(grid.send_and_receive([request(node, str(group)) for node in range(1, 101)], timeout=30)))
                == 100
            )
        assert time.monotonic() - start < 10.0
