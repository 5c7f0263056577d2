"""Pushing to a link whose answers get lost."""

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.superlink.grid import HttpGrid

from federation.flower.runs import PUSHES, PatientGrid


def losing(times, calls):
    def push(self, messages):
        calls.append(messages)
        if len(calls) <= times:
            raise ObjectPushError("a", 1, "b")
        return ["id"]

    return push


def grid():
    return PatientGrid("127.0.0.1:1", insecure=True, token="x")


def test_a_push_whose_answer_was_lost_is_begun_anew_with_the_same_messages(monkeypatch):
    calls = []
    monkeypatch.setattr(HttpGrid, "push_messages", losing(PUSHES - 1, calls))
    assert grid().push_messages(iter(["one", "two"])) == ["id"]
    assert calls == [["one", "two"]] * PUSHES


def test_a_push_that_the_link_refuses_for_good_fails(monkeypatch):
    calls = []
    monkeypatch.setattr(HttpGrid, "push_messages", losing(PUSHES, calls))
    with pytest.raises(ObjectPushError):
        grid().push_messages([])
    assert len(calls) == PUSHES
