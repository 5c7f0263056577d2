"""Ed25519 signatures over canonical documents; a context keeps one kind of signature from passing as another."""

from typing import Annotated, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field

from federation.document import Document
from federation.errors import IntegrityError

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

T = TypeVar("T", bound=Document)


class Signature(Document):
    """Who signed (Ed25519 public key, 32 bytes as hexadecimal) and the signature (64 bytes)."""

    key: Hex32
    value: Hex64


def public_hex(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """Return the raw public key as 64 hexadecimal digits."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def sign_bytes(key: Ed25519PrivateKey, context: str, content: bytes) -> Signature:
    """Sign `context || 0x00 || content`; the context names what is signed, such as `csl1/study`."""
    return Signature(key=public_hex(key), value=key.sign(context.encode() + b"\0" + content).hex())


def verify_bytes(signature: Signature, context: str, content: bytes, expected_key: str) -> None:
    """Check that `expected_key` signed this content in this context.

    Raises
    ------
    IntegrityError
        CSL-F201 when another key signed, CSL-F202 when the signature does not fit.
    """
    if signature.key != expected_key:
        raise IntegrityError(
            "CSL-F201",
            "The document is signed by a key that the charter does not name for it.",
            "Do not use it; ask its sender.",
        )
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(expected_key))
        public.verify(bytes.fromhex(signature.value), context.encode() + b"\0" + content)
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(
            "CSL-F202",
            "The signature does not fit the content.",
            "The document was altered or damaged: fetch it again.",
        ) from error


def sign(key: Ed25519PrivateKey, context: str, document: Document) -> Signature:
    """Sign a document's canonical bytes."""
    return sign_bytes(key, context, document.canonical())


def verify(signature: Signature, context: str, document: Document, expected_key: str) -> None:
    """Check a signature over a document's canonical bytes; raises as `verify_bytes`."""
    verify_bytes(signature, context, document.canonical(), expected_key)
