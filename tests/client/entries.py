"""What tests read off a vault: the entries of its ledger, the bytes of its replies, what lies sealed in its home."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from client import lists
from client.decisions import Decision, read_decision
from client.home import Home
from client.lists import NameList
from client.unlock import unlock
from federation.messages import RECORD, Refusal, unpack
from tests.client.vault_home import Town


def bodies(town: Town, member: str = "alder") -> list[dict[str, Any]]:
    """The entries of a member's ledger, in order."""
    with sqlite3.connect(town.homes[member].ledger_file) as connection:
        return [json.loads(row[0]) for row in connection.execute("SELECT body FROM entry ORDER BY seq")]


def kinds(town: Town, member: str = "alder") -> list[str]:
    return [body["kind"] for body in bodies(town, member)]


def written(town: Town, kind: str, member: str = "alder") -> list[dict[str, Any]]:
    """The data of the entries of one kind."""
    return [body["data"] for body in bodies(town, member) if body["kind"] == kind]


def reasons(town: Town, member: str = "alder") -> list[str]:
    """The codes of the refusals that stand in a member's ledger."""
    return [data["code"] for data in written(town, "refuse", member)]


def raw(reply: RecordDict) -> bytes:
    return b"".join(bytes(reply[RECORD][name]) for name in ("header", "signature", "payload"))


def refused(town: Town, reply: RecordDict, member: str = "alder") -> bool:
    unpack(reply, Refusal, town.key(member))
    return True


def store(town: Town, member: str = "alder") -> bytes:
    """The key of what lies at rest."""
    return unlock(town.homes[member]).store


def name_list(town: Town, member: str = "alder") -> NameList | None:
    return lists.newest(town.homes[member].folder("lists"), store(town, member))


def decision(town: Town, rid: str, member: str = "alder") -> Decision | None:
    return read_decision(town.homes[member], rid, store(town, member))


def files(home: Home, *folders: str) -> Iterator[Path]:
    """Everything in some folders of a home, or in all of it."""
    for root in [home.root / name for name in folders] or [home.root]:
        yield from (path for path in sorted(root.rglob("*")) if path.is_file())
