"""A policy and its officers' signatures as files: `policy.yaml`, and beside it `policy.sig`."""

from pathlib import Path

from federation.document import MAX_DOCUMENT_BYTES
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.signing import Signature
from privacy.policy import Policy, PolicySignatures


def signatures_path(policy_file: Path) -> Path:
    """Return where the signatures of a policy's file lie: the same name, ending in `.sig`."""
    return policy_file.with_suffix(".sig")


def read_signatures(policy_file: Path, policy: Policy) -> tuple[Signature, ...]:
    """Return the officers' signatures beside a policy's file; none when there is no such file.

    They are those of this very policy; whether they fit and whose they are is for the ledger to check.

    Raises
    ------
    StorageError
        CSL-C628 when the file cannot be read.
    DocumentError
        CSL-C629 when it holds no signatures of a policy.
    IntegrityError
        CSL-C624 when they are those of another policy.
    """
    path = signatures_path(policy_file)
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StorageError(
            "CSL-C628", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    try:
        document = PolicySignatures.from_canonical(content)
    except DocumentError as error:
        raise DocumentError(
            "CSL-C629",
            f"{path} holds no signatures of a policy.",
            "Move it away, and let the officers sign by `consilience officer policy sign`.",
        ) from error
    if document.policy != policy.digest():
        raise IntegrityError(
            "CSL-C624",
            f"{path} signs another policy than {policy_file}: {document.policy}, not {policy.digest()}.",
            "Bring back the policy that was signed; or move the signatures away, and let the officers sign anew.",
        )
    return document.signatures


def write_signatures(policy_file: Path, policy: Policy, signatures: tuple[Signature, ...], mode: int = 0o644) -> Path:
    """Write signatures beside a policy's file, atomically, and return where. Raises StorageError CSL-F301."""
    path = signatures_path(policy_file)
    document = PolicySignatures(policy=policy.digest(), signatures=signatures)
    atomic_write(path, document.canonical(), mode=mode)
    return path


def install_policy(
    content: bytes, source: Path, target: Path, policy: Policy, signatures: tuple[Signature, ...]
) -> None:
    """Put a policy that came into force, word for word, and its signatures into a home (0600).

    The ledger says what is in force, these files only show it: when the power fails between the two, doing it again
    mends it. The old signatures go first, so that no signatures stand beside a policy that they do not sign.

    Parameters
    ----------
    content, source:
        The policy's text, and the file that it was read from.
    target:
        The home's policy file.
    policy, signatures:
        What `content` says, and who signed it.

    Raises
    ------
    StorageError
        CSL-F301, CSL-C628 when the home cannot be written.
    """
    try:
        if not (target.exists() and target.samefile(source)):
            signatures_path(target).unlink(missing_ok=True)
            atomic_write(target, content, mode=0o600)
    except OSError as error:
        raise StorageError(
            "CSL-C628", f"{error.filename} cannot be replaced: {error.strerror}.", "Check the rights."
        ) from error
    write_signatures(target, policy, signatures, mode=0o600)
