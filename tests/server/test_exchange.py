"""Sorting answers, and waiting no longer than agreed."""

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from server.exchange import Clock, Failure, send, size_of, sort_replies
from simulations.local_grid import Fault, LocalGrid


def echo() -> ClientApp:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    return app


def ask(grid: LocalGrid, nodes: list[int]) -> list[Message]:
    records = RecordDict({"consilience": ConfigRecord({"header": b"12345", "signature": b"67", "payload": b""})})
    return [Message(records, node, "query.hello") for node in nodes]


def test_each_fault_is_told_by_its_code() -> None:
    faults = {2: (Fault("fail"),), 3: (Fault("unreachable"),), 4: (Fault("twice"),), 5: (Fault("hang"),)}
    with LocalGrid({node: (echo(), {}) for node in range(1, 6)}, faults=faults, workers=2) as grid:
        asked = ask(grid, [1, 2, 3, 4, 5, 99])
        answers = sort_replies(asked, send(grid, asked, 0.4), 0.4)
    codes = {node: answer.code if isinstance(answer, Failure) else "ok" for node, answer in answers.items()}
    assert codes == {1: "ok", 2: "CSL-S204", 3: "CSL-S205", 4: "CSL-S203", 5: "CSL-S202", 99: "CSL-S205"}
    assert "ordered" not in answers[2].reason


def test_replies_are_matched_by_request_whoever_sent_them() -> None:
    with LocalGrid({1: (echo(), {}), 2: (echo(), {})}) as grid:
        asked = ask(grid, [1, 2])
        replies = send(grid, asked, 5.0)
        stray = Message(RecordDict(), reply_to=asked[0])
        stray.metadata.__dict__["_reply_to_message_id"] = "never sent"
        swapped = [stray, *replies]
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = 1
    assert not any(isinstance(answer, Failure) for answer in sort_replies(asked, swapped, 5.0).values())


def test_a_message_that_was_never_sent_gets_no_answer() -> None:
    with LocalGrid({1: (echo(), {})}) as grid:
        message = ask(grid, [1])[0]
        assert sort_replies([message], [Message(Error(0), reply_to=message)], 1.0)[1] == Failure(
            "CSL-S202", "did not answer within 1 seconds"
        )


@pytest.mark.parametrize(("error", "code"), [(3, "CSL-S202"), (4, "CSL-S205"), (5, "CSL-S205")])
def test_a_request_whose_time_ran_out_at_the_link_was_not_answered_in_time(error: int, code: str) -> None:
    with LocalGrid({1: (echo(), {})}) as grid:
        message = ask(grid, [1])[0]
        list(grid.push_messages([message]))
    answer = sort_replies([message], [Message(Error(error), reply_to=message)], 1.0)[1]
    assert isinstance(answer, Failure) and answer.code == code


def test_doubtful_nodes_are_waited_for_as_long_as_the_others_took() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with LocalGrid({1: (echo(), {}), 2: (echo(), {})}, faults={2: (Fault("hang"),)}) as grid:
        send(grid, ask(grid, [1, 2]), 50.0, (), Clock(lambda: now[0], sleep))
        assert now[0] == pytest.approx(50.0)
        now[0] = 0.0
        send(grid, ask(grid, [2]), 50.0, {2}, Clock(lambda: now[0], sleep))
        assert 0.2 <= now[0] <= 0.3


def test_the_deadline_stands_still_while_the_link_is_away() -> None:
    now, looks = [0.0], [0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    class Stuck(LocalGrid):
        def push_messages(self, messages):
            now[0] += 70.0
            return super().push_messages(messages)

        def pull_messages(self, message_ids):
            looks[0] += 1
            if looks[0] == 1:
                now[0] += 90.0
                return []
            return super().pull_messages(message_ids)

    with Stuck({1: (echo(), {})}) as grid:
        asked = ask(grid, [1])
        assert len(send(grid, asked, 20.0, (), Clock(lambda: now[0], sleep))) == 1
    with LocalGrid({1: (echo(), {})}, faults={1: (Fault("hang"),)}) as grid:
        now[0] = 0.0
        send(grid, ask(grid, [1]), 20.0, (), Clock(lambda: now[0], sleep))
        assert now[0] == pytest.approx(20.0)


def test_size_counts_what_a_message_carries() -> None:
    with LocalGrid({1: (echo(), {})}) as grid:
        assert size_of(ask(grid, [1])) == 7
