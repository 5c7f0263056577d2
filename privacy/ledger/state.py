"""What the entries add up to: the running totals by which the next decision is made in constant time."""

import json
from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from federation.contract import Name
from federation.document import Document
from federation.encoding import canonical
from federation.merkle import root
from federation.signing import Hex32
from federation.study import Holdout
from privacy.filter import Limits
from privacy.ledger.entries import (
    ACCOUNTS,
    NO_ENTRY,
)
from privacy.ledger.plans import PlanState
from privacy.ledger.totals import AccountState
from privacy.policy import Policy

EPOCH = date(1970, 1, 1)


class KeySince(Document):
    """The institution's key from entry `seq` on."""

    seq: int
    key: Hex32


class State(Document):
    """The ledger after `size` entries; `head` is the last leaf, `frontier` the tree, `ts` the ledger's time in
    milliseconds. `exhausted`: entries were lost, and nothing remains to spend."""

    v: Literal[2] = 2
    size: int = 0
    head: Hex32 = NO_ENTRY
    ts: int = 0
    frontier: tuple[Hex32, ...] = ()
    member: Name | None = None
    keys: Annotated[tuple[KeySince, ...], Field(max_length=1000)] = ()
    policy_digest: Hex32 | None = None
    policy: Policy | None = None
    limits: Limits | None = None
    plan: PlanState | None = None
    holdouts: dict[Name, Holdout] = Field(default_factory=dict)
    training: AccountState = AccountState()
    holdout: AccountState = AccountState()
    exhausted: bool = False
    withdrawn: Annotated[int, Field(ge=0)] = 0  # customers in the register of withdrawals, at least
    # restorations that may have lost entries: after each the ledger is another log to its witnesses (federation.heads)
    restores: Annotated[int, Field(ge=0)] = 0

    def canonical(self) -> bytes:
        """Return the RFC 8785 bytes of this document.

        After a year the totals hold a line for each of 366 days. They are integers under ASCII names, for which the standard
        encoder writes the same bytes in a hundredth of the time: no decision may take longer because of them.
        """
        fields = self.model_dump(mode="json")
        parts = [
            f'"{name}":'.encode() + (_integers(fields[name]) if name in ACCOUNTS else canonical(fields[name]))
            for name in sorted(fields)
        ]
        return b"{" + b",".join(parts) + b"}"

    def account(self, name: str) -> AccountState:
        """Return the state of `training` or `holdout`."""
        return self.training if name == "training" else self.holdout

    @property
    def key(self) -> str | None:
        """The institution's public key now; None before the first entry."""
        return self.keys[-1].key if self.keys else None

    def key_at(self, seq: int) -> str | None:
        """Return the public key that signed entry `seq`."""
        return next((item.key for item in reversed(self.keys) if item.seq <= seq), None)

    def tree_root(self) -> str:
        """Return the Merkle root, 64 hexadecimal digits."""
        return root([bytes.fromhex(node) for node in self.frontier]).hex()


def _integers(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
