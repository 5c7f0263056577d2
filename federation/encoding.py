"""Canonical bytes and digests: the same value always has the same bytes (RFC 8785)."""

import hashlib
from typing import Any

import rfc8785

from federation.errors import DocumentError


def canonical(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the RFC 8785 (JSON Canonicalization Scheme) bytes of a JSON value.

    Raises
    ------
    DocumentError
        CSL-F101 for NaN, infinity, integers beyond 2^53, or a type that JSON does not have.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise DocumentError(
            "CSL-F101",
            f"The value has no canonical JSON form: {error}.",
            "Use finite numbers below 2^53, text and lists.",
        ) from error


def sha256_hex(content: bytes) -> str:
    """Return the SHA-256 of `content` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return the SHA-256 (64 hexadecimal digits) of the canonical bytes of a JSON value."""
    return sha256_hex(canonical(value))
