"""PSA-1's formulas written down once more, slowly and from other parts: HMAC for HKDF, AES block by block, Python integers for words."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB


def canon(value: Any) -> bytes:
    """RFC 8785 for values whose numbers are integers and whose names are ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return hkdf_expand(hmac.new(salt, key, hashlib.sha256).digest(), info)


def hkdf_expand(key: bytes, info: bytes) -> bytes:
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def expand(key: bytes, label: str, *parts: bytes) -> bytes:
    info = label.encode()
    for part in parts:
        info += len(part).to_bytes(4, "big") + part
    return hkdf_expand(key, info)


def words(key: bytes, d: int, w: int) -> list[int]:
    """PRG(key) as `d` words of `w` bits."""
    size = w // 8
    blocks = -(-d * size // 16)
    encrypt = Cipher(AES(key), ECB()).encryptor()
    stream = encrypt.update(b"".join(number.to_bytes(16, "big") for number in range(blocks)))
    return [int.from_bytes(stream[place : place + size], "little") for place in range(0, d * size, size)]


def mask(x: Sequence[int], w: int, b: bytes, t: bytes, me: str, roots: Mapping[str, bytes]) -> bytes:
    y = [value + mine for value, mine in zip(x, words(expand(b, "psa1/self", t, me.encode()), len(x), w), strict=True)]
    for peer, root in roots.items():
        low, high = min(me, peer), max(me, peer)
        key = expand(root, "psa1/pair", t, low.encode(), high.encode())
        sign = 1 if peer > me else -1
        y = [value + sign * word for value, word in zip(y, words(key, len(x), w), strict=True)]
    return b"".join((value % 2**w).to_bytes(w // 8, "little") for value in y)


def plain_sum(vectors):
    """What `open_sum` must equal: the sum of vectors that nobody hides, int64 [d]."""
    return np.sum(np.stack(vectors), axis=0, dtype=np.int64)
