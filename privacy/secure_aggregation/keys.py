"""Sealing to a member's public keys, and whether they are keys at all: vaults seal, the coordinator only looks.

HPKE (RFC 9180) with X-Wing, as in `epoch`, which holds the private side.
"""

import os

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from federation.errors import IntegrityError
from federation.secure import EpochKey
from privacy.secure_aggregation.derivation import KEY_BYTES

INFO = b"psa1/kx"
SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def seal(key: EpochKey, secret: bytes) -> bytes:
    """Seal a secret to a member's keys.

    Raises
    ------
    IntegrityError
        CSL-P807 when nothing can be sealed to them: an encoding of ML-KEM that is none, or a point of X25519 of low order.
    """
    try:
        public = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(bytes.fromhex(key.mlkem)),
            X25519PublicKey.from_public_bytes(bytes.fromhex(key.x25519)),
        )
        return SUITE.encrypt(secret, public, INFO)
    except ValueError as error:
        raise IntegrityError(
            "CSL-P807", f"The key of {key.id} is none.", "Set the study up anew; it has cost nothing yet."
        ) from error


def check_key(key: EpochKey) -> None:
    """Check that the others can seal to a member's keys, by trying. Raises IntegrityError CSL-P807."""
    seal(key, os.urandom(KEY_BYTES))
