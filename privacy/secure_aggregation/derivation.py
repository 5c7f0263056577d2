"""Every key and digest of PSA-1 is made by one of these functions.

HKDF: RFC 5869, with SHA-256. `expand` prefixes each part by its length, so that no two lists of parts give the same bytes.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from federation.encoding import canonical, sha256_hex
from federation.secure import Ready, Statement, SumOffer

KEY_BYTES = 32


def expand(key: bytes, label: str, *parts: bytes) -> bytes:
    """Return HKDF-Expand-SHA256 of a 32-byte key to 32 bytes, info = label || for each part: its length as 4 bytes, big-endian || part."""
    info = label.encode() + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDFExpand(SHA256(), KEY_BYTES, info).derive(key)


def transcript(offer: SumOffer, readies: Sequence[Ready]) -> bytes:
    """Return T, 32 bytes: SHA-256 of `psa1/T` and the canonical list [offer, readies sorted by id]."""
    statements = [offer.model_dump(mode="json"), [item.model_dump(mode="json") for item in readies]]
    return bytes.fromhex(sha256_hex(b"psa1/T" + canonical(statements)))


def digest_of(statements: Sequence[Statement]) -> str:
    """Return the SHA-256 of the canonical list of statements, 64 hexadecimal digits."""
    return sha256_hex(canonical([item.model_dump(mode="json") for item in statements]))


def pair_root(first: bytes, second: bytes, roster: str, epoch: str, keys: tuple[str, str]) -> bytes:
    """Return K_ij, 32 bytes.

    Parameters
    ----------
    first, second:
        The 32 random bytes that the member first and second in the order of names sent to the other.
    roster, epoch:
        Digests, 64 hexadecimal digits.
    keys:
        Digests of the two members' `EpochKey`, in the same order.
    """
    info = canonical([roster, epoch, *keys])
    return HKDF(SHA256(), KEY_BYTES, b"psa1/root", info).derive(first + second)


def pair_key(root: bytes, t: bytes, one: str, other: str) -> bytes:
    """Return k_ij, 32 bytes: the key of the mask between two members in the sum with transcript `t`; their order does not matter."""
    low, high = sorted((one, other))
    return expand(root, "psa1/pair", t, low.encode(), high.encode())


def self_key(b: bytes, t: bytes, member: str) -> bytes:
    """Return the key of a member's own mask, 32 bytes, from its fresh `b` (32 bytes)."""
    return expand(b, "psa1/self", t, member.encode())
