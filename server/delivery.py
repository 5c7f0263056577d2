"""Bringing the finished model home: every vault is given it, signs which one it was given, and sees what the others signed."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, RecordDict

from federation.errors import DocumentError, IntegrityError
from federation.messages import (
    Acknowledged,
    ModelDelivery,
    ModelReceipt,
    Receipts,
    SignedReceipt,
    pack,
    signature_of,
    unpack,
)
from server.events import LeftOut, OnEvent
from server.exchange import Answer, Failure, sort_replies
from server.grants import unreadable
from server.registry import PublishedModel

Send = Callable[[list[Message], Collection[int]], list[Message]]
PHASE = "delivery"


@dataclass(frozen=True)
class Recipient:
    """A member that is given the model: where it is reached, and the key of its receipt."""

    member: str
    node_id: int
    key: str


def deliver(
    published: PublishedModel,
    recipients: Sequence[Recipient],
    key: Ed25519PrivateKey,
    send: Send,
    seconds: float,
    on_event: OnEvent,
) -> tuple[SignedReceipt, ...]:
    """Give everybody the model, and everybody all receipts; return the receipts in the order of the members' names.

    A receipt that names another model is passed on like any other: that is how the vaults notice. Whether a vault adopts the model
    is its own business, and its last answer is always the same.
    """
    card = published.card
    text = card.canonical().decode()
    delivery = ModelDelivery(study=card.study, card=card.digest(), card_text=text, payload=card.model)
    records = pack(key, delivery, published.content)
    receipts = []
    for recipient, answer in _ask(records, "query.model", recipients, send, seconds):
        receipt = answer if isinstance(answer, Failure) else _receipt(answer, recipient, card.study)
        if isinstance(receipt, Failure):
            on_event(LeftOut(PHASE, 0, recipient.member, receipt.code, receipt.reason))
        else:
            receipts.append(receipt)
    everything = Receipts(study=card.study, receipts=tuple(receipts))
    for recipient, answer in _ask(pack(key, everything), "query.receipts", recipients, send, seconds):
        failure = answer if isinstance(answer, Failure) else _acknowledgement(answer, recipient, card.study)
        if failure is not None:
            on_event(LeftOut(PHASE, 0, recipient.member, failure.code, failure.reason))
    return tuple(receipts)


def _ask(
    records: RecordDict, message_type: str, recipients: Sequence[Recipient], send: Send, seconds: float
) -> list[tuple[Recipient, Answer]]:
    messages = [Message(records, recipient.node_id, message_type) for recipient in recipients]
    answers = sort_replies(messages, send(messages, ()), seconds)
    return [(recipient, answers[recipient.node_id]) for recipient in recipients]


def _receipt(answer: RecordDict, recipient: Recipient, study: str) -> SignedReceipt | Failure:
    try:
        receipt, _ = unpack(answer, ModelReceipt, recipient.key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)
    if (receipt.study, receipt.member) != (study, recipient.member):
        return Failure("CSL-S208", "answered for another study, member or round")
    return SignedReceipt(receipt=receipt, signature=signature_of(answer, recipient.key))


def _acknowledgement(answer: RecordDict, recipient: Recipient, study: str) -> Failure | None:
    try:
        acknowledged, _ = unpack(answer, Acknowledged, recipient.key)
    except (IntegrityError, DocumentError) as error:
        return unreadable(error)
    if (acknowledged.study, acknowledged.member) != (study, recipient.member):
        return Failure("CSL-S208", "answered for another study, member or round")
    return None
