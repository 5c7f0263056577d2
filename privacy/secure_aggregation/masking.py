"""Masks: AES-256-CTR keystreams added to vectors of 32 or 64 bit words, modulo 2^32 or 2^64.

A keystream under a fresh secret key is indistinguishable from uniform words (AES as a pseudorandom permutation, counter mode: Bellare,
Desai, Jokipii, Rogaway 1997), so a vector plus one keystream that nobody else knows says nothing. IV 0: no key is used twice.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from federation.errors import DocumentError
from privacy.secure_aggregation.derivation import pair_key, self_key

Words = NDArray[np.unsignedinteger[Any]]
Sign = Literal[1, -1]
_CHUNK = 1 << 18
_ZEROS = memoryview(bytes(_CHUNK))
_IV = bytes(16)
_TYPES: dict[int, type[np.uint32] | type[np.uint64]] = {32: np.uint32, 64: np.uint64}


def add_streams(vector: Words, streams: Iterable[tuple[bytes, Sign]]) -> None:
    """Add each key's stream to a vector in place, or take it off (-1).

    All streams pass over one piece of the vector before the next piece is touched: it stays in the processor's cache, and a long vector is
    read from memory once and not once for each key.

    Parameters
    ----------
    vector:
        uint32 or uint64 [d], d >= 1; the streams' bytes are words in little-endian order, whatever the machine's own is.
    streams:
        (key, sign): 32 bytes, for this stream alone, and 1 or -1.
    """
    ciphers = [(Cipher(AES(key), CTR(_IV)).encryptor(), np.add if sign == 1 else np.subtract) for key, sign in streams]
    content = bytearray(min(_CHUNK, vector.nbytes))
    buffer, view = np.frombuffer(content, dtype=vector.dtype.newbyteorder("<")), memoryview(content)
    for start in range(0, len(vector), len(buffer)):
        part = vector[start : start + len(buffer)]
        stream, zeros, out = buffer[: len(part)], _ZEROS[: part.nbytes], view[: part.nbytes]
        for cipher, change in ciphers:
            cipher.update_into(zeros, out)
            change(part, stream, out=part)


def mask(vector: Words, b: bytes, t: bytes, me: str, roots: Mapping[str, bytes], peers: Iterable[str]) -> Words:
    """Return y = x + PRG(self) + sum over later peers of PRG(pair) - sum over earlier peers of PRG(pair), a new vector.

    Parameters
    ----------
    vector:
        x, uint32 or uint64 [d].
    b, t:
        32 bytes each: fresh for this sum, and its transcript.
    roots:
        K of each peer, 32 bytes.
    peers:
        The other members that are ready.
    """
    streams: list[tuple[bytes, Sign]] = [(self_key(b, t, me), 1)]
    streams += [(pair_key(roots[peer], t, me, peer), 1 if peer > me else -1) for peer in peers]
    masked = vector.copy()
    add_streams(masked, streams)
    return masked


def unmask(total: Words, t: bytes, own: Mapping[str, bytes], pairs: Mapping[str, Mapping[str, bytes]]) -> None:
    """Take the masks off the sum of the survivors' vectors, in place.

    Parameters
    ----------
    total:
        Sum of the survivors' masked vectors, uint32 or uint64 [d].
    own:
        Survivor -> b.
    pairs:
        Survivor -> member that dropped out -> pairwise key k.
    """
    streams: list[tuple[bytes, Sign]] = [(self_key(b, t, survivor), -1) for survivor, b in own.items()]
    for survivor, keys in pairs.items():
        streams += [(key, -1 if dropped > survivor else 1) for dropped, key in keys.items()]
    add_streams(total, streams)


def to_words(values: NDArray[np.int64], w: int) -> Words:
    """Return integers modulo 2^w, uint32 or uint64 [d]."""
    return values.astype(np.uint64).astype(_TYPES[w])


def from_words(words: Words) -> NDArray[np.int64]:
    """Return the integers nearest to zero that words stand for, int64 [d]."""
    signed = words.view(np.int32) if words.dtype == np.uint32 else words.view(np.int64)
    return signed.astype(np.int64)


def to_bytes(words: Words) -> bytes:
    """Return words as they travel: little-endian, w/8 bytes each."""
    return words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes()


def from_bytes(content: bytes, w: int, d: int) -> Words:
    """Return `d` words of `w` bits.

    Raises
    ------
    DocumentError
        CSL-P805 when the bytes are not exactly so many.
    """
    if w not in _TYPES or len(content) * 8 != w * d:
        raise DocumentError(
            "CSL-P805",
            f"A vector of {d} words of {w} bits has {w * d // 8} bytes, not {len(content)}.",
            "Ask for it again.",
        )
    words: Words = np.frombuffer(content, dtype=np.dtype(_TYPES[w]).newbyteorder("<")).astype(_TYPES[w])
    return words
