"""The last look at what leaves for a secure sum: that it is about the very statements that it answers, and of the exact length.

A masked vector is uniform words whatever it hides, so that nothing can be seen in it; what was said by others is in the request, and the
offer in what was kept of call 1.
"""

from client.secure.asked import dimension
from client.secure.store import Secrets
from client.studies import Opened, OpenStatistics, Studies
from federation.document import Document
from federation.secure import (
    Ack,
    Exchanges,
    Masked,
    Ready,
    Reveal,
    SumAcks,
    SumHeaders,
    SumReadies,
    SumRequest,
)
from privacy.secure_aggregation.derivation import digest_of, transcript

ANOTHER = "it is about something else than the request"


def misfit(studies: Studies, secrets: Secrets, asked: Document, said: Document, payload: bytes) -> str | None:
    """Return what is wrong with a reply of a set-up or sum, never a value; None when nothing is.

    Parameters
    ----------
    asked, said, payload:
        The request, and the reply with what lies beside it.
    """
    if isinstance(asked, SumReadies) and isinstance(said, Masked):
        return _masked_misfit(studies, secrets, asked, said, payload)
    if isinstance(asked, SumAcks) and isinstance(said, Reveal):
        return _reveal_misfit(asked, said)
    fits = True
    if isinstance(asked, SumRequest) and isinstance(said, Ready):
        fits = said.offer == asked.offer.digest()
    elif isinstance(asked, SumHeaders) and isinstance(said, Ack):
        headers = [item.message for item in asked.headers]
        fits = {item.t for item in headers} == {said.t} and said.s == digest_of(headers)
    elif isinstance(said, Exchanges):
        fits = all(item.message.sender == said.member and item.message.epoch == said.study for item in said.exchanges)
    return None if fits else ANOTHER


def _as_long(study: Opened, offered: int, sent: int, number: int) -> bool:
    """Return whether a vector has as many integers as its sum: those of the study, and for statistics those of the checked offer."""
    if isinstance(study, OpenStatistics):
        return sent == offered <= study.spec.plan.dimension
    return sent == dimension(study, number)


def _reveal_misfit(asked: SumAcks, said: Reveal) -> str | None:
    survivors = {item.message.id for item in asked.acks}
    if {item.message.t for item in asked.acks} != {said.t} or said.id not in survivors:
        return ANOTHER
    if not survivors.isdisjoint(item.id for item in said.pairs):
        return "it gives the pairwise key of a member that survives"
    return None


def _masked_misfit(studies: Studies, secrets: Secrets, asked: SumReadies, said: Masked, payload: bytes) -> str | None:
    kept, study = secrets.sum(asked.study, asked.number), studies.opened(asked.study)
    if kept is None or said.t != transcript(kept.offer, [item.message for item in asked.readies]).hex():
        return ANOTHER
    if not _as_long(study, kept.offer.d, said.d, asked.number) or len(payload) * 8 != said.d * said.w:
        return "its vector is longer or shorter than the sum"
    return None
