"""Customers as keyed tags: what lies at rest can be matched by the vault, and names nobody without its store key."""

import hashlib
import hmac
import struct
from collections.abc import Iterable

from federation.errors import IntegrityError

TAG_BYTES = 16


def tag(key: bytes, customer: str) -> bytes:
    """Return the first 16 bytes of HMAC-SHA256 of a customer's identifier (UTF-8); two customers share one by a chance of
    2^-128."""
    return hmac.digest(key, customer.encode(), hashlib.sha256)[:TAG_BYTES]


def tags_of(key: bytes, customers: Iterable[str]) -> frozenset[bytes]:
    """Return the tags of customers."""
    return frozenset(tag(key, str(customer)) for customer in customers)


def join_tags(tags: Iterable[bytes]) -> bytes:
    """Return tags as bytes, sorted, each once: nothing of the table's order is left in them."""
    return b"".join(sorted(set(tags)))


def split_tags(content: bytes) -> frozenset[bytes]:
    """Return the tags of what `join_tags` wrote.

    Raises
    ------
    IntegrityError
        CSL-C546 for a length that holds no whole number of tags.
    """
    if len(content) % TAG_BYTES:
        raise IntegrityError(
            "CSL-C546", "A record of customers holds no whole number of them.", "Restore it from the backup."
        )
    return frozenset(content[start : start + TAG_BYTES] for start in range(0, len(content), TAG_BYTES))


def list_digest(key: bytes, customers: Iterable[str]) -> str:
    """Return HMAC-SHA256 over the sorted identifiers, each once and with its length before it; 64 hexadecimal digits.

    Keyed, because the identifiers of a small institution can be guessed, and with them an unkeyed digest.
    """
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for customer in sorted({str(customer).encode() for customer in customers}):
        mac.update(struct.pack("<Q", len(customer)) + customer)
    return mac.hexdigest()
