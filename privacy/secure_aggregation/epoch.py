"""Pairwise keys for one study: every member seals 32 random bytes to every other, before anybody trains.

HPKE (RFC 9180) with X-Wing (ML-KEM-768 and X25519: who records today and owns a quantum computer later learns nothing),
HKDF-SHA256 and AES-256-GCM. The private keys of the KEM are dropped once the pairwise keys are there.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import Field

from federation.contract import Name
from federation.document import Document
from federation.errors import IntegrityError
from federation.secure import EpochKey, KeyExchange, SignedEpochKey, SignedExchange
from federation.signing import Hex32, Hex64
from privacy.secure_aggregation.derivation import KEY_BYTES, digest_of, pair_root
from privacy.secure_aggregation.keys import INFO, SUITE, seal
from privacy.secure_aggregation.roster import Roster, out_of_order

Secret = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeysMade(Document):
    """A member's own keys for an epoch: the statement, and the seeds of the private keys."""

    kind: Literal["keys_made"] = "keys_made"
    statement: EpochKey
    mlkem_seed: Hex64
    x25519_seed: Secret


class KeysSent(Document):
    """What a member sent to each of the others, and the keys of all that it answers to."""

    kind: Literal["keys_sent"] = "keys_sent"
    made: KeysMade
    keys: tuple[SignedEpochKey, ...]
    sent: dict[Name, Secret]
    exchanges: tuple[KeyExchange, ...]


class EpochSecrets(Document):
    """A member's pairwise keys K, by peer; `keys` is the digest over all participants' public keys."""

    kind: Literal["epoch_secrets"] = "epoch_secrets"
    roster: Hex32
    epoch: Hex32
    me: Name
    keys: Hex32
    roots: dict[Name, Secret]

    @property
    def members(self) -> tuple[str, ...]:
        """All participants, in the order of their names."""
        return tuple(sorted((self.me, *self.roots)))

    def root(self, peer: str) -> bytes:
        """Return K of a peer, 32 bytes."""
        return bytes.fromhex(self.roots[peer])


def make_keys(roster: str, epoch: str, me: str) -> KeysMade:
    """Make fresh keys from the operating system's generator.

    Parameters
    ----------
    roster, epoch:
        Digests of the charter and of the study, 64 hexadecimal digits.
    """
    mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    statement = EpochKey(
        roster=roster,
        epoch=epoch,
        id=me,
        mlkem=mlkem.public_key().public_bytes_raw().hex(),
        x25519=x25519.public_key().public_bytes_raw().hex(),
    )
    return KeysMade(
        statement=statement, mlkem_seed=mlkem.private_bytes_raw().hex(), x25519_seed=x25519.private_bytes_raw().hex()
    )


def send_keys(
    made: KeysMade, roster: Roster, keys: Sequence[SignedEpochKey], random: Callable[[int], bytes] = os.urandom
) -> KeysSent:
    """Seal 32 random bytes to each of the others.

    Raises
    ------
    IntegrityError
        CSL-P802, CSL-P803, CSL-F202 as `Roster.check`; CSL-P806 when the keys are not those of all participants for this study, or one's
        own are not among them, bit for bit; CSL-P807 as `keys.seal`.
    """
    names = [item.message.id for item in keys]
    roster.check(keys, names)
    mine, statements = made.statement, [item.message for item in keys]
    here = (roster.digest, mine.epoch)
    if names != sorted(roster.keys) or any((item.roster, item.epoch) != here for item in statements):
        raise _not_this_epoch()
    if mine not in statements:
        raise _not_this_epoch()
    sent = {peer.id: random(KEY_BYTES) for peer in statements if peer.id != mine.id}
    exchanges = tuple(_exchange(mine, peer, sent[peer.id]) for peer in statements if peer.id != mine.id)
    return KeysSent(
        made=made, keys=tuple(keys), sent={name: secret.hex() for name, secret in sent.items()}, exchanges=exchanges
    )


def derive_roots(state: KeysSent, roster: Roster, exchanges: Sequence[SignedExchange]) -> EpochSecrets:
    """Open what the others sent, and return the pairwise keys.

    Raises
    ------
    IntegrityError
        As `Roster.check`; CSL-P806 when one is for another study or member, or one is missing; CSL-P807 when one cannot be opened.
    """
    senders = [item.message.sender for item in exchanges]
    roster.check(exchanges, senders)
    mine = state.made.statement
    agreed = (roster.digest, set(roster.keys)) == (mine.roster, {mine.id, *state.sent})
    if not agreed or set(senders) != set(state.sent):
        raise _not_this_epoch()
    ours = mine.digest()
    private = _private(state.made)
    digests = {item.message.id: item.message.digest() for item in state.keys}
    roots = {}
    for item in exchanges:
        said = item.message
        if (said.roster, said.epoch, said.receiver, said.ek) != (mine.roster, mine.epoch, mine.id, ours):
            raise _not_this_epoch()
        received, sent = _opened(said, private), bytes.fromhex(state.sent[said.sender])
        first, second = (sent, received) if mine.id < said.sender else (received, sent)
        low, high = sorted((mine.id, said.sender))
        root = pair_root(first, second, mine.roster, mine.epoch, (digests[low], digests[high]))
        roots[said.sender] = root.hex()
    return EpochSecrets(roster=mine.roster, epoch=mine.epoch, me=mine.id, keys=keys_digest(state.keys), roots=roots)


def keys_digest(keys: Sequence[SignedEpochKey]) -> str:
    """Return the digest over all participants' public keys, 64 hexadecimal digits."""
    return digest_of([item.message for item in keys])


def check_same_keys(digests: Mapping[str, str]) -> None:
    """Check, at the coordinator, that all members answered to the same keys. Raises IntegrityError CSL-P804."""
    if len(set(digests.values())) > 1:
        raise out_of_order("members were shown different keys")


def _opened(said: KeyExchange, private: hpke.MLKEM768X25519PrivateKey) -> bytes:
    """Return the 32 bytes; their number hangs on the length of `ct` alone, which the document fixes."""
    try:
        return SUITE.decrypt(bytes.fromhex(said.ct), private, INFO)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError(
            "CSL-P807",
            f"What {said.sender} sealed for {said.receiver} cannot be opened.",
            "Set the study up anew; it has cost nothing yet.",
        ) from error


def _exchange(mine: EpochKey, peer: EpochKey, secret: bytes) -> KeyExchange:
    return KeyExchange(
        roster=mine.roster,
        epoch=mine.epoch,
        sender=mine.id,
        receiver=peer.id,
        ek=peer.digest(),
        ct=seal(peer, secret).hex(),
    )


def _private(made: KeysMade) -> hpke.MLKEM768X25519PrivateKey:
    return hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(made.mlkem_seed)),
        X25519PrivateKey.from_private_bytes(bytes.fromhex(made.x25519_seed)),
    )


def _not_this_epoch() -> IntegrityError:
    return IntegrityError(
        "CSL-P806",
        "The keys are not those of this study's participants, or one's own are not among them.",
        "Set the study up anew; it has cost nothing yet.",
    )
