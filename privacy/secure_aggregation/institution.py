"""One institution's side of one sum: four calls, four states, each frozen, and a function from each to the next.

    ready -> masked -> acknowledged -> revealed

A state is written down before what it answers is sent. The same call again gives the same answer; another one in its place is refused.
The vector itself lies beside the states, and is erased with them after the reveal.
"""

from collections.abc import Sequence
from typing import Literal

from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError
from federation.secure import (
    Ack,
    Masked,
    PairKey,
    Ready,
    Reveal,
    SignedAck,
    SignedMasked,
    SignedReady,
    SumOffer,
    verify_statement,
)
from federation.signing import Hex32
from privacy.secure_aggregation.derivation import digest_of, pair_key, transcript
from privacy.secure_aggregation.epoch import EpochSecrets
from privacy.secure_aggregation.masking import Words, mask, to_bytes
from privacy.secure_aggregation.roster import Roster, check_terms, out_of_order


class ReadyState(Document):
    """The vector is made, and `nonce` and `b` (32 bytes each) are fresh for this attempt."""

    kind: Literal["ready_state"] = "ready_state"
    offer: SumOffer
    me: str
    nonce: Hex32
    b: Hex32

    @property
    def statement(self) -> Ready:
        """What is answered."""
        return Ready(offer=self.offer.digest(), id=self.me, nonce=self.nonce)


class MaskedState(Document):
    """Everybody's `Ready` is known, and the masked vector has the digest `y`."""

    kind: Literal["masked_state"] = "masked_state"
    ready: ReadyState
    readies: tuple[Ready, ...]
    y: Hex32

    @property
    def t(self) -> bytes:
        """The transcript, 32 bytes."""
        return transcript(self.ready.offer, self.readies)

    @property
    def asked(self) -> tuple[str, ...]:
        """The members that are ready, U."""
        return tuple(item.id for item in self.readies)

    @property
    def statement(self) -> Masked:
        """What is answered, the vector beside it."""
        offer = self.ready.offer
        return Masked(t=self.t.hex(), id=self.ready.me, w=offer.w, d=offer.d, y=self.y)


class AckedState(Document):
    """The survivors are known, S, and no other set will be acknowledged for this transcript."""

    kind: Literal["acked_state"] = "acked_state"
    masked: MaskedState
    headers: tuple[Masked, ...]

    @property
    def survivors(self) -> tuple[str, ...]:
        """The members whose vectors are there, S."""
        return tuple(item.id for item in self.headers)

    @property
    def statement(self) -> Ack:
        """What is answered."""
        return Ack(t=self.masked.t.hex(), s=digest_of(self.headers), id=self.masked.ready.me)


class RevealedState(Document):
    """Everything is over, and the secrets are erased; what was said is kept, to be said again."""

    kind: Literal["revealed_state"] = "revealed_state"
    offer: SumOffer
    acks: Hex32
    statement: Reveal


State = ReadyState | MaskedState | AckedState | RevealedState


def make_ready(
    roster: Roster, epoch: EpochSecrets, offer: SumOffer, signature: str, nonce: bytes, b: bytes
) -> ReadyState:
    """Take an offer; the caller has made the vector that it asks for.

    Parameters
    ----------
    signature:
        The coordinator's, 128 hexadecimal digits.
    nonce, b:
        32 fresh bytes each.

    Raises
    ------
    PolicyError
        CSL-P801 for terms under which a sum would show too much.
    IntegrityError
        CSL-F202 when the coordinator did not sign it, CSL-P808 when it is of another study, charter, other members or other terms.
    """
    check_terms(offer.n_min, offer.c)
    verify_statement(offer, signature, roster.coordinator)
    _check_terms_kept(offer, roster, epoch)
    return ReadyState(offer=offer, me=epoch.me, nonce=nonce.hex(), b=b.hex())


def check_retry(state: State, offer: SumOffer) -> None:
    """Check that an offer may take the place of the attempt before it: the same sum over the same vector, asked for again.

    Raises
    ------
    PolicyError
        CSL-P810 when the vector was opened into a sum already: it is burnt.
    IntegrityError
        CSL-P811 when the attempt is not a later one, or asks for anything else.
    """
    before = state.offer if isinstance(state, ReadyState | RevealedState) else ready_of(state).offer
    if isinstance(state, RevealedState):
        raise PolicyError(
            "CSL-P810",
            f"Sum {offer.number} was opened in attempt {before.attempt}; its vector is spent.",
            "Go on with the next sum.",
        )
    if offer.attempt <= before.attempt or offer.model_copy(update={"attempt": before.attempt}) != before:
        raise IntegrityError(
            "CSL-P811",
            f"Sum {offer.number} is asked for again with other content, or as an attempt that was superseded.",
            "Repeat the offer exactly, with a later attempt.",
        )


def ready_of(state: ReadyState | MaskedState | AckedState) -> ReadyState:
    """Return where a sum began."""
    if isinstance(state, AckedState):
        return state.masked.ready
    return state.ready if isinstance(state, MaskedState) else state


def make_masked(
    state: State, roster: Roster, epoch: EpochSecrets, vector: Words, readies: Sequence[SignedReady]
) -> tuple[MaskedState | AckedState, Words]:
    """Mask the vector for those who are ready; asked again by the same statements, return the same words.

    Parameters
    ----------
    vector:
        uint32 or uint64 [d], as the offer says; it is left as it is.

    Raises
    ------
    IntegrityError
        CSL-P804 out of order, or with other statements than before; as `Roster.check`; CSL-P808 for another roster or epoch than the
        offer's; CSL-P809 when an offer differs, one's own statement is not there, or too few are ready; CSL-P814 when the vector is not
        the one that was masked before.
    """
    if isinstance(state, RevealedState):
        raise out_of_order("the sum was opened already")
    ready = ready_of(state)
    _check_terms_kept(ready.offer, roster, epoch)
    said = tuple(item.message for item in readies)
    if not isinstance(state, ReadyState):
        masked = state.masked if isinstance(state, AckedState) else state
        if masked.readies != said:
            raise out_of_order("the vector was masked for others who were ready")
        return state, _masked_again(masked, epoch, vector)
    names = [item.id for item in said]
    roster.check(readies, names)
    if len(names) < roster.survivors_needed(len(names)):
        raise _not_agreed("too few are ready")
    mine = ready.statement
    if mine not in said or any(item.offer != mine.offer for item in said):
        raise _not_agreed("an offer differs, or the institution's own statement is not there")
    if (vector.itemsize * 8, len(vector)) != (ready.offer.w, ready.offer.d):
        raise _not_agreed("the vector has another shape than the offer")
    words = _masked(ready, said, epoch, vector)
    return MaskedState(ready=ready, readies=said, y=sha256_hex(to_bytes(words))), words


def acknowledge(state: State, roster: Roster, headers: Sequence[SignedMasked]) -> AckedState:
    """Acknowledge whose vectors are there: once for a transcript.

    Raises
    ------
    IntegrityError
        CSL-P804 out of order, or for a second set of survivors; as `Roster.check`; CSL-P808 for another roster than the offer's; CSL-P809
        when a header is of another sum or shape, of somebody who was not ready, one's own is not there bit for bit, or too few survive.
    """
    said = tuple(item.message for item in headers)
    if isinstance(state, AckedState) and state.headers == said:
        return state
    if not isinstance(state, MaskedState):
        raise out_of_order("survivors can be acknowledged once, after the vector was masked")
    _check_terms_kept(state.ready.offer, roster)
    names = [item.id for item in said]
    roster.check(headers, names)
    asked = state.asked
    if not set(names) <= set(asked) or len(names) < roster.survivors_needed(len(asked)):
        raise _not_agreed("too few vectors are there, or one of somebody who was not ready")
    mine = state.statement
    if mine not in said or any((item.t, item.w, item.d) != (mine.t, mine.w, mine.d) for item in said):
        raise _not_agreed("a header is of another sum or shape, or the institution's own is not there")
    return AckedState(masked=state, headers=said)


def reveal(state: State, roster: Roster, epoch: EpochSecrets, acks: Sequence[SignedAck]) -> RevealedState:
    """Give the own mask key, and the pairwise keys with those who dropped out, once all survivors acknowledged the same set.

    The caller writes the ledger's release entry, and then this state, before the statement leaves; with it the secrets are erased.

    Raises
    ------
    IntegrityError
        CSL-P804 out of order; as `Roster.check`; CSL-P808 for another roster or epoch than the offer's; CSL-P809 when an acknowledgement
        is missing, one too many, or of another set.
    """
    said = tuple(item.message for item in acks)
    if isinstance(state, RevealedState) and digest_of(said) == state.acks:
        return state
    if not isinstance(state, AckedState):
        raise out_of_order("a sum is opened once, after its survivors were acknowledged")
    _check_terms_kept(state.masked.ready.offer, roster, epoch)
    names = [item.id for item in said]
    roster.check(acks, names)
    mine = state.statement
    if tuple(names) != state.survivors or any((item.t, item.s) != (mine.t, mine.s) for item in said):
        raise _not_agreed("not all survivors acknowledged the same set")
    ready, t = state.masked.ready, state.masked.t
    dropped = sorted(set(state.masked.asked) - set(state.survivors))
    pairs = tuple(PairKey(id=name, key=pair_key(epoch.root(name), t, ready.me, name).hex()) for name in dropped)
    statement = Reveal(t=t.hex(), id=ready.me, b=ready.b, pairs=pairs)
    return RevealedState(offer=ready.offer, acks=digest_of(said), statement=statement)


def _masked(ready: ReadyState, readies: Sequence[Ready], epoch: EpochSecrets, vector: Words) -> Words:
    roots = {name: bytes.fromhex(root) for name, root in epoch.roots.items()}
    peers = [item.id for item in readies if item.id != ready.me]
    return mask(vector, bytes.fromhex(ready.b), transcript(ready.offer, readies), ready.me, roots, peers)


def _masked_again(state: MaskedState, epoch: EpochSecrets, vector: Words) -> Words:
    """Return the same words, and never another vector under the same masks: the difference of the two would stand open."""
    words = _masked(state.ready, state.readies, epoch, vector)
    if sha256_hex(to_bytes(words)) != state.y:
        raise IntegrityError(
            "CSL-P814",
            "The vector, or a key, is not the one that was masked before.",
            "Nothing was sent: repair the vault's store, or ask for the sum in a later attempt.",
        )
    return words


def _check_terms_kept(offer: SumOffer, roster: Roster, epoch: EpochSecrets | None = None) -> None:
    """Refuse a roster or epoch that the offer was not made for: what suffices to open a sum hangs on them."""
    kept = (offer.roster, offer.n_min, offer.c) == (roster.digest, roster.n_min, roster.c)
    if epoch is not None:
        kept &= (epoch.roster, epoch.epoch) == (offer.roster, offer.epoch) and set(epoch.members) == set(roster.keys)
    if not kept:
        raise IntegrityError(
            "CSL-P808",
            "The offer is of another study or charter, or names other members or terms than the study.",
            "Ask for a sum on the study's own terms.",
        )


def _not_agreed(what: str) -> IntegrityError:
    return IntegrityError("CSL-P809", f"The sum was stopped: {what}.", "Nothing was opened: ask for the sum anew.")
