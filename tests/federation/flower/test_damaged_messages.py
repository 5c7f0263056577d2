"""Whatever a coordinator packs as a message, the vault's worker reads it, or reads nothing; it does not end by it."""

import json

import httpx
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError

from federation.flower import tasks
from federation.flower.local import LINK_NODE_ID, identify


class Client:
    PullObject = ConfirmMessageReceived = None


def read(monkeypatch, answer):
    def pull(*args, **kwargs):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(tasks, "pull_and_inflate_object_from_tree", pull)
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
