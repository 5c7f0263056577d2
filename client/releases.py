"""Replies that were paid for: kept before the ledger's release entries, which stand before the bytes leave.

A crash at any step neither loses a charge nor releases twice: the same request gets the kept bytes, another one for its number is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.replies import Replies, kept, request_digest
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import PolicyError
from federation.messages import pack
from privacy.ledger import Account, Ledger


@dataclass(frozen=True)
class Paid:
    """One release entry: its number in the study, the account that paid, and what it is, for people."""

    number: int
    account: Account
    what: str


class Releases:
    """The releases of one vault; `identity` signs them."""

    def __init__(self, identity: Ed25519PrivateKey, ledger: Ledger, replies: Replies) -> None:
        self._identity = identity
        self._ledger = ledger
        self._replies = replies

    def again(self, rid: str, paid: Sequence[Paid], request: RecordDict) -> RecordDict | None:
        """Return the kept reply to this very request, under the first entry's number; finish the entries where a crash came between.

        Raises
        ------
        PolicyError
            CSL-C515 when the reply was made and is lost, CSL-C516 when the number was asked for with other content.
        """
        number = paid[0].number
        known = self._replies.find(rid, number)
        if known is None:
            if self._ledger.has_release(rid, number):
                raise PolicyError(
                    "CSL-C515", f"Release {number} was made, and its reply is lost.", "Go on with the next round."
                )
            return None
        if known.request != request_digest(request):
            raise PolicyError(
                "CSL-C516",
                f"Release {number} was asked for before, with other content.",
                "Repeat the first request exactly.",
            )
        self._note(rid, paid, known.payload)
        return known.records()

    def make(self, rid: str, paid: Sequence[Paid], request: RecordDict, header: Document, payload: bytes) -> RecordDict:
        """Keep the reply, write the ledger's release entries, and only then let the bytes leave."""
        reply = pack(self._identity, header, payload)
        self._replies.keep(rid, paid[0].number, kept(request, reply))
        self._note(rid, paid, payload)
        return reply

    def _note(self, rid: str, paid: Sequence[Paid], payload: bytes) -> None:
        for item in paid:
            self._ledger.release(
                rid, item.number, item.account, what=item.what, sha256=sha256_hex(payload), size=len(payload)
            )
