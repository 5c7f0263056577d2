"""How an officer's signature is added to a policy, and a signed policy brought into force."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import DocumentError, IntegrityError, PolicyError
from federation.signing import Signature, sign, verify
from privacy.keys import passphrase_from_descriptor, passphrase_from_file
from privacy.policy import CONTEXT, Officer, Policy


def read_passphrase(file: Path | None, descriptor: int | None) -> bytes:
    """Return an officer's passphrase from a file or an open descriptor.

    Raises
    ------
    DocumentError
        CSL-C632 when neither is given, or both.
    ConsilienceError
        CSL-P502, CSL-P504, CSL-P505 as `privacy.keys.passphrase_from_file`.
    """
    if (file is None) == (descriptor is None):
        raise DocumentError(
            "CSL-C632",
            "An officer's key needs its passphrase from one place.",
            "Give either --passphrase-file or --passphrase-fd.",
        )
    if file is not None:
        return passphrase_from_file(file)
    assert descriptor is not None
    return passphrase_from_descriptor(descriptor)


def check_unexpired(policy: Policy, today: date) -> None:
    """Refuse a policy that is over. Raises PolicyError CSL-C627."""
    if today >= policy.expires:
        raise PolicyError(
            "CSL-C627",
            f"The policy expired on {policy.expires}; today is {today}.",
            "Write its successor by `consilience officer policy new --from`, with dates that lie ahead.",
        )


def check_signer(policy: Policy, key: str, officers: Iterable[Officer], signatures: Iterable[Signature]) -> Officer:
    """Return the officer who is about to sign.

    Parameters
    ----------
    policy, key:
        The policy, and the public key that is to sign it.
    officers:
        Who may sign it.
    signatures:
        The signatures that are there.

    Raises
    ------
    IntegrityError
        CSL-C625 for a key that is none of theirs, CSL-F202 when a signature that is there does not fit.
    PolicyError
        CSL-C626 when this officer signed before.
    """
    officers = tuple(officers)
    officer = next((item for item in officers if item.key == key), None)
    if officer is None:
        names = ", ".join(item.id for item in officers)
        raise IntegrityError(
            "CSL-C625",
            f"The key {key[:16]}… is that of nobody who may sign this policy; these may: {names}.",
            "Sign with the key of an officer whom the policy names.",
        )
    for signature in signatures:
        verify(signature, CONTEXT, policy, signature.key)
        if signature.key == key:
            raise PolicyError(
                "CSL-C626",
                f"{officer.id} signed this policy before.",
                "Where two signatures are needed, a second, distinct officer must sign.",
            )
    return officer


def add_signature(policy: Policy, key: Ed25519PrivateKey, signatures: Iterable[Signature]) -> tuple[Signature, ...]:
    """Return the signatures with one more."""
    return (*signatures, sign(key, CONTEXT, policy))
