"""A SuperNode's desk without a SuperNode: tasks in a list, and what became of them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from flwr.app import Message, RecordDict

from federation.errors import StorageError

APP = "a" * 64
GONE = httpx.HTTPStatusError("gone", request=httpx.Request("POST", "http://x"), response=httpx.Response(401))
AWAY = httpx.ConnectError("refused")


@dataclass
class FakeTask:
    """One request; `troubles` are raised one by one before a reply or an end is taken."""

    message: Message
    app: str = APP
    run_id: int = 7
    troubles: list[Exception] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    closed: bool = False
    full: bool = False
    notes: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        if self.full:
            raise StorageError("CSL-F301", "The disk is full.", "Free space.")
        path.write_text(json.dumps({"type": self.message.metadata.message_type}))

    def note(self, path: Path, stage: str) -> None:
        self.notes.append(stage)

    def reply(self, message: Message) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.replies.append(message)

    def finish(self, ok: bool) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.finished.append(ok)

    def close(self) -> None:
        self.closed = True


class FakeDesk:
    """Hands out what it was given: tasks, errors to raise, None for an idle poll; then tells the worker to stop."""

    def __init__(self, stop, *items, kept=None):
        self.stop = stop
        self.items = list(items)
        self.kept = kept
        self.resumed: list[Path] = []
        self.renewed = 0

    def take(self, saved: Path):
        if not self.items:
            self.stop.set()
            return None
        item = self.items.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item

    def resume(self, saved: Path):
        if not saved.exists():
            return None
        self.resumed.append(saved)
        kept = self.kept.pop(0) if isinstance(self.kept, list) else self.kept
        if isinstance(kept, BaseException):
            raise kept
        return kept

    def renew(self) -> bool:
        self.renewed += 1
        return True

    def close(self) -> None:
        pass


class FakeVault:
    """Notes what it was asked."""

    app = APP

    def __init__(self, seen=None):
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.tidied = 0
        self.seen = seen

    def answer(self, message_type: str, request: RecordDict) -> RecordDict:
        self.asked.append(message_type)
        if self.seen is not None:
            self.seen()
        return RecordDict()

    def refuse_app(self, digest: str) -> RecordDict:
        self.refused.append(digest)
        return RecordDict()

    def tidy(self) -> None:
        self.tidied += 1


class Count:
    """A meter that only counts."""

    def __init__(self):
        self.seconds: list[float] = []

    def done(self, seconds: float) -> str:
        self.seconds.append(seconds)
        return "train"
