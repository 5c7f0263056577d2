"""The coordinator's side of one sum: it passes statements on, adds masked vectors up, and takes off what the survivors reveal.

It can check who said what, and that everybody says the same; it learns the sum alone. Whoever does not answer as agreed is left out
while enough remain; from the acknowledgements on, every survivor is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.encoding import sha256_hex
from federation.errors import IntegrityError
from federation.secure import (
    Ack,
    Masked,
    Reveal,
    SignedAck,
    SignedMasked,
    SignedReady,
    SumOffer,
    verify_statement,
)
from privacy.secure_aggregation.derivation import digest_of, transcript
from privacy.secure_aggregation.masking import Words, from_bytes, from_words, unmask
from privacy.secure_aggregation.roster import Roster


@dataclass(frozen=True)
class Gathered:
    """Who is ready: U, sorted, and the transcript T (32 bytes)."""

    offer: SumOffer
    readies: tuple[SignedReady, ...]
    t: bytes

    @property
    def members(self) -> tuple[str, ...]:
        """U."""
        return tuple(item.message.id for item in self.readies)


@dataclass(frozen=True)
class Collected:
    """Whose masked vectors are there: S, sorted, their headers, and the vectors' sum modulo 2^w (uint32 or uint64 [d])."""

    gathered: Gathered
    headers: tuple[SignedMasked, ...]
    total: Words

    @property
    def members(self) -> tuple[str, ...]:
        """S."""
        return tuple(item.message.id for item in self.headers)


def check_ready(roster: Roster, offer: SumOffer, said: SignedReady, member: str) -> None:
    """Check one member's answer to the offer. Raises IntegrityError CSL-P812, CSL-F202."""
    if (said.message.id, said.message.offer) != (member, offer.digest()):
        raise _another("a statement")
    verify_statement(said.message, said.signature, roster.key(member))


def gather(roster: Roster, offer: SumOffer, readies: Mapping[str, SignedReady]) -> Gathered:
    """Fix who is ready; answers are checked already.

    Raises
    ------
    IntegrityError
        CSL-P813 when they are too few.
    """
    _check_enough(len(readies), roster.survivors_needed(len(readies)), "are ready")
    said = tuple(readies[name] for name in sorted(readies))
    return Gathered(offer, said, transcript(offer, [item.message for item in said]))


def check_masked(roster: Roster, gathered: Gathered, said: SignedMasked, vector: bytes, member: str) -> Words:
    """Check one member's masked vector, and return its words.

    Raises
    ------
    IntegrityError
        CSL-P812 when header or vector are not those of this sum, CSL-F202.
    DocumentError
        CSL-P805 for a wrong length.
    """
    offer = gathered.offer
    expected = Masked(t=gathered.t.hex(), id=member, w=offer.w, d=offer.d, y=sha256_hex(vector))
    if said.message != expected or member not in gathered.members:
        raise _another("a masked vector")
    verify_statement(said.message, said.signature, roster.key(member))
    return from_bytes(vector, offer.w, offer.d)


def collect(roster: Roster, gathered: Gathered, vectors: Mapping[str, tuple[SignedMasked, Words]]) -> Collected:
    """Add up the survivors' vectors; answers are checked already. Raises IntegrityError CSL-P813 when they are too few."""
    _check_enough(len(vectors), roster.survivors_needed(len(gathered.members)), "sent their vectors")
    names = sorted(vectors)
    total = vectors[names[0]][1].copy()
    for name in names[1:]:
        np.add(total, vectors[name][1], out=total)
    return Collected(gathered, tuple(vectors[name][0] for name in names), total)


def check_ack(roster: Roster, collected: Collected, said: SignedAck, member: str) -> None:
    """Check one survivor's acknowledgement. Raises IntegrityError CSL-P812, CSL-F202."""
    expected = Ack(t=collected.gathered.t.hex(), s=digest_of([item.message for item in collected.headers]), id=member)
    if said.message != expected:
        raise _another("an acknowledgement")
    verify_statement(said.message, said.signature, roster.key(member))


def check_reveal(roster: Roster, collected: Collected, said: Reveal, signature: str, member: str) -> None:
    """Check one survivor's keys. Raises IntegrityError CSL-P812, CSL-F202."""
    dropped = tuple(sorted(set(collected.gathered.members) - set(collected.members)))
    if (said.t, said.id, tuple(item.id for item in said.pairs)) != (collected.gathered.t.hex(), member, dropped):
        raise _another("what was revealed")
    verify_statement(said, signature, roster.key(member))


def open_sum(collected: Collected, reveals: Mapping[str, Reveal]) -> NDArray[np.int64]:
    """Return the sum of the survivors' vectors, int64 [d]: the integers nearest to zero.

    Raises
    ------
    IntegrityError
        CSL-P813 when a survivor's keys are missing: the sum cannot be opened.
    """
    survivors = collected.members
    missing = sorted(set(survivors) - set(reveals))
    if missing:
        raise IntegrityError(
            "CSL-P813",
            f"The sum cannot be opened without {', '.join(missing)}.",
            "Bring them back and run the study again: it goes on where it stopped.",
        )
    own = {name: bytes.fromhex(reveals[name].b) for name in survivors}
    pairs = {name: {pair.id: bytes.fromhex(pair.key) for pair in reveals[name].pairs} for name in survivors}
    total = collected.total.copy()
    unmask(total, collected.gathered.t, own, pairs)
    return from_words(total)


def _check_enough(count: int, least: int, what: str) -> None:
    if count < least:
        raise IntegrityError(
            "CSL-P813",
            f"{count} members {what}; the sum needs {least}.",
            "Bring the missing institutions back, and run the study again.",
        )


def _another(what: str) -> IntegrityError:
    return IntegrityError("CSL-P812", f"A member sent {what} of another sum.", "It is left out of this sum.")
