"""Whatever a coordinator packs as a message, the vault's worker reads it, or reads nothing; it does not end by it."""

import json
import time

import httpx
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from google.protobuf.message import DecodeError

from federation.flower import reading, runs, tasks
from federation.flower.errors import APP_FAILED
from federation.flower.local import LINK_NODE_ID, empty_run, identify


class Client:
    """A Runtime API that holds no pieces, and notes what was confirmed."""

    def __init__(self):
        self.confirmed = []

    def PullObject(self, request):
        raise AssertionError("not asked for")

    def ConfirmMessageReceived(self, request):
        self.confirmed.append(request.message_object_id)


def read(monkeypatch, answer):
    def pull(*args, **kwargs):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(reading, "pull_and_inflate_object_from_tree", pull)
    return tasks._content(Client(), ObjectTree(object_id="0" * 64), Node(node_id=2), 7)


def message():
    identify(3, 7, LINK_NODE_ID)
    return Message(RecordDict({"a": ConfigRecord({"b": 1})}), 2, "train")


@pytest.mark.parametrize(
    "error",
    [DecodeError(), KeyError("x"), TypeError(), RecursionError(), json.JSONDecodeError("x", "y", 0), UnicodeError()],
)
def test_what_cannot_be_read_is_empty(monkeypatch, error):
    assert read(monkeypatch, error) == RecordDict()


def test_a_message_that_carries_an_error_is_empty(monkeypatch):
    assert read(monkeypatch, Message(Error(code=1, reason="x"), reply_to=message())) == RecordDict()


def test_a_message_gives_its_content(monkeypatch):
    assert read(monkeypatch, message()) == RecordDict({"a": ConfigRecord({"b": 1})})


def test_a_supernode_that_goes_away_meanwhile_is_no_damage(monkeypatch):
    with pytest.raises(httpx.ConnectError):
        read(monkeypatch, httpx.ConnectError("x"))


class Store:
    """A Runtime API that has pieces by their names."""

    def __init__(self, **pieces):
        self.pieces = pieces
        self.confirmed = []

    def PullObject(self, request):
        content = self.pieces.get(request.object_id, b"")
        return PullObjectResponse(object_found=True, object_available=bool(content), object_content=content)

    def ConfirmMessageReceived(self, request):
        self.confirmed.append(request.message_object_id)


def look(store, tree, seconds=5.0):
    return reading.read(store, tree, Node(node_id=2), 7, seconds)


@pytest.mark.parametrize(
    "content", [b"Message 2\0\xff\xff", b"Message 0\0", b"RecordDict 2\0{}", b"ArrayChunk 1\0x", b"\0", b"x"]
)
def test_an_object_that_is_no_message_is_nothing_and_is_not_kept(content):
    name = "a" * 64
    store = Store(**{name: content})
    assert look(store, ObjectTree(object_id=name)) is None
    assert store.confirmed[-1] == name


def test_pieces_that_never_come_cost_the_time_that_is_allowed_and_no_more():
    started = time.monotonic()
    with pytest.raises(reading.MissingPiecesError):
        look(Store(), ObjectTree(object_id="a" * 64), seconds=0.3)
    assert time.monotonic() - started < 3.0


def test_a_tree_of_more_pieces_than_a_message_has_is_waited_for_and_kept_by_nobody():
    children = [ObjectTree(object_id=f"{number:064x}") for number in range(reading.MAX_PIECES)]
    store = Store(**{piece.object_id: b"x" for piece in children}, **{"a" * 64: b"x"})
    assert look(store, ObjectTree(object_id="a" * 64, children=children)) is None and store.confirmed == ["a" * 64]
    with pytest.raises(reading.MissingPiecesError):
        look(Store(), ObjectTree(object_id="a" * 64, children=children), seconds=0.2)


def test_pieces_that_are_together_larger_than_a_message_are_nothing(monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    name = "a" * 64
    assert look(Store(**{name: b"Message 20\0" + b"x" * 20}), ObjectTree(object_id=name)) is None


def test_a_reply_of_a_hostile_member_is_an_error_of_that_member_alone(monkeypatch):
    good, bad = message(), message()
    for item, identifier in ((good, "b" * 64), (bad, "c" * 64)):
        item.metadata.__dict__["_message_id"] = identifier
    heads = [message_to_proto(remove_content_from_message(item)) for item in (good, bad)]
    trees = [ObjectTree(object_id="b" * 64), ObjectTree(object_id="c" * 64)]
    found = {"b" * 64: RecordDict({"a": ConfigRecord({"b": 1})}), "c" * 64: None}
    monkeypatch.setattr(runs, "read", lambda client, tree, node, run_id, seconds: found[tree.object_id])

    class Link:
        def PullMessages(self, request):
            return PullAppMessagesResponse(messages_list=heads, message_object_trees=trees)

    grid = runs.PatientGrid("127.0.0.1:1", insecure=True, token="x")
    grid.set_run(empty_run(7))
    grid._client = Link()
    one, other = grid.pull_messages(["x"])
    assert one.content == found["b" * 64] and other.has_error() and other.error.code == APP_FAILED
    assert [item.metadata.message_id for item in (one, other)] == ["b" * 64, "c" * 64]
