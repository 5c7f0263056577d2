"""What a killed worker left of a task: taken, held, being answered, answered; and what the next one makes of it."""

import json
import stat
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import Message, RecordDict

from federation.errors import StorageError
from federation.flower import tasks
from federation.flower.errors import LINK_ERRORS
from federation.flower.local import identify
from federation.flower.tasks import ClientTask, LostTaskError, note_task

AWAY = httpx.ConnectError("refused")


def refused(status):
    return httpx.HTTPStatusError("no", request=httpx.Request("POST", "http://x"), response=httpx.Response(status))


class Client:
    """A Runtime API of which each call is counted, and raises `trouble` if there is any."""

    def __init__(self, trouble=None, alive=True):
        self.trouble, self.alive = trouble, alive
        self.calls, self.closed = [], False

    def __getattr__(self, name):
        def call(request):
            self.calls.append(name)
            if self.trouble is not None:
                raise self.trouble
            return SimpleNamespace(success=self.alive)

        return call

    def close(self):
        self.closed = True


@pytest.fixture
def resume(tmp_path, monkeypatch):
    """Resume what a file says, against a client."""

    def run(client):
        monkeypatch.setattr(tasks, "open_client", lambda *_: client)
        return ClientTask.resume("127.0.0.1:1", None, tmp_path / "request.json")

    return run


def test_nothing_kept_is_nothing_to_resume(resume):
    assert resume(Client()) is None


def test_a_task_that_is_held_is_given_with_its_message(resume, tmp_path):
    identify(3, 7, 5)
    client, message = Client(), Message(RecordDict(), 1, "train")
    message.metadata.__dict__["_message_id"] = "m"
    task = ClientTask(client, "t", message, 5, 7, "a" * 64)
    task.save(tmp_path / "request.json")
    task.close()
    assert stat.S_IMODE((tmp_path / "request.json").stat().st_mode) == 0o600
    again = resume(client)
    assert (again.run_id, again.message.metadata.message_id, again.app) == (7, "m", "")
    again.close()


@pytest.mark.parametrize(("status", "lost"), [(401, False), (412, True)])
def test_a_task_that_was_taken_and_cannot_be_read_any_more_is_lost_unless_it_is_over(resume, tmp_path, status, lost):
    note_task(tmp_path / "request.json", "taken", "t")
    client = Client(refused(status))
    if lost:
        with pytest.raises(LostTaskError):
            resume(client)
    else:
        assert resume(client) is None
    assert client.calls == ["PullTaskInput"] and client.closed


def test_a_task_that_was_answered_is_finished_and_no_more(resume, tmp_path):
    note_task(tmp_path / "request.json", "replied", "t")
    client = Client()
    assert resume(client) is None
    assert client.calls == ["PushTaskOutput"] and client.closed


def test_a_task_that_was_being_answered_is_lost_while_its_supernode_knows_it(resume, tmp_path):
    note_task(tmp_path / "request.json", "replying", "t")
    with pytest.raises(LostTaskError):
        resume(Client())
    assert resume(Client(alive=False)) is None
    assert resume(Client(refused(401))) is None


@pytest.mark.parametrize("stage", ["taken", "replying", "replied"])
def test_a_supernode_that_is_away_is_no_answer(resume, tmp_path, stage):
    note_task(tmp_path / "request.json", stage, "t")
    with pytest.raises(LINK_ERRORS):
        resume(Client(AWAY))


@pytest.mark.parametrize("content", ["nonsense", "{}", json.dumps({"stage": "held", "token": "t"}), "[]"])
def test_a_damaged_file_is_said_to_be_one(resume, tmp_path, content):
    (tmp_path / "request.json").write_text(content)
    with pytest.raises(StorageError, match="CSL-F333"):
        resume(Client())
