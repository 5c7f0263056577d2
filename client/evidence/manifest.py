"""What stands in a pack: the signed manifest, the names of files, and how entries and proofs are written down."""

import re
from datetime import date
from importlib.metadata import version
from typing import Annotated, Literal

from pydantic import Field

from federation.contract import Name
from federation.document import Document
from federation.errors import DocumentError
from federation.merkle import HASH_BYTES, MAX_PROOF, Proof
from federation.signing import Hex32
from privacy.ledger.entries import Approve, Body, Consent, PolicyEntry
from privacy.ledger.state import KeySince
from privacy.policy import PolicySignatures

CONTEXT = "csl1/evidence"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
REPORT, GUIDE, CHARTER, NOTE = "report.html", "VERIFY.md", "charter.json", "witness/own.note"
ENTRIES, PROOFS = "ledger/entries.txt", "ledger/proofs.txt"
AROUND, AROUND_PROOFS = "ledger/context.txt", "ledger/context-proofs.txt"
EDGES, EDGES_PROOFS = "ledger/edges.txt", "ledger/edges-proofs.txt"
START = "ledger/start.json"
APPROVALS, CONSENTS = "approvals.txt", "consents.txt"
POLICIES, STUDIES, MODELS, CONTRACTS = "policies", "studies", "models", "contracts"
FIXED = frozenset(
    (
        REPORT,
        GUIDE,
        CHARTER,
        NOTE,
        ENTRIES,
        PROOFS,
        AROUND,
        AROUND_PROOFS,
        EDGES,
        EDGES_PROOFS,
        START,
        APPROVALS,
        CONSENTS,
    )
)
MAX_MANIFEST_BYTES = 16 << 20
MAX_DOCUMENT_BYTES = 4 << 20
MAX_START_BYTES = 16 << 20
CLAIMS = (
    "The entries are the ledger's own bytes, each signed, chained to the one before, and part of the tree whose head is named.",
    "Policies, approvals and consents are those that stand in these entries; studies, models and contracts fit their digests.",
    "Every price and every limit follows from the events and the policies; no rule of the ledger is broken.",
    "The report says what these documents say.",
)
SIGNED_ONLY = "What was spent and open before the first entry rests on the institution's signature: the entries before are not here."

_ENTRY = re.compile(rb"([0-9a-f]{128}) (.+)", re.DOTALL)
_PROOF = re.compile(rb"(0|[1-9][0-9]{0,15})((?: [0-9a-f]{64}){0,%d})" % MAX_PROOF)


class FileRecord(Document):
    """One file of the pack."""

    name: Annotated[str, Field(max_length=200)]
    sha256: Hex32
    bytes: Annotated[int, Field(ge=0)]


class Proven(Document):
    """An earlier head, with the RFC 9162 proof that it is the beginning of the pack's."""

    size: Annotated[int, Field(ge=1)]
    root: Hex32
    proof: Annotated[tuple[Hex32, ...], Field(max_length=MAX_PROOF)]


class PackHead(Document):
    """The ledger's tree head when the pack was made."""

    size: Annotated[int, Field(ge=1)]
    root: Hex32


class Manifest(Document):
    """What a pack holds and claims; the institution signs its canonical bytes in the context `csl1/evidence`.

    `first` and `end` are the numbers of the first entry in `ledger/entries.txt` and of the one after the last. `as_of` is the
    ledger's time (milliseconds since 1970) at its head; no clock is read when a pack is made.
    """

    format: Literal["consilience-evidence-1"] = "consilience-evidence-1"
    software: Annotated[str, Field(max_length=60)]
    member: Name
    federation: Name
    charter: Hex32
    since: date | None
    until: date | None
    as_of: Annotated[int, Field(ge=0)]
    first: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    head: PackHead
    keys: Annotated[tuple[KeySince, ...], Field(min_length=1, max_length=1000)]
    consistency: Annotated[tuple[Proven, ...], Field(max_length=4)]
    claims: Annotated[tuple[str, ...], Field(max_length=20)]
    files: Annotated[tuple[FileRecord, ...], Field(max_length=20_000)]

    @property
    def whole(self) -> bool:
        """Whether the pack holds the whole ledger."""
        return self.first == 0 and self.end == self.head.size

    @property
    def edges(self) -> tuple[int, ...]:
        """The numbers of the entries next to the run, which show that it is all of its days: the one before, the one after."""
        return tuple(seq for seq in (self.first - 1, self.end) if 0 <= seq < self.head.size)


def claims_of(first: int) -> tuple[str, ...]:
    """Return what a pack claims that begins with entry `first`."""
    return CLAIMS if first == 0 else (*CLAIMS, SIGNED_ONLY)


def software() -> str:
    """Return the release that is running; the same one renders the same report."""
    return version("consilience")


def entry_line(content: bytes, signature: bytes) -> bytes:
    """Return an entry as a line: signature in hexadecimal digits, a space, the entry's bytes."""
    return signature.hex().encode() + b" " + content + b"\n"


def proof_line(seq: int, proof: Proof) -> bytes:
    """Return an inclusion proof as a line: the entry's number, then each hash in hexadecimal digits."""
    return b" ".join([str(seq).encode(), *(node.hex().encode() for node in proof)]) + b"\n"


def parse_entry_line(line: bytes) -> tuple[bytes, bytes]:
    """Return an entry's bytes and its signature. Raises DocumentError CSL-C804."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise DocumentError("CSL-C804", "A line holds no signature and entry.", "Ask for the pack again.")
    return match[2], bytes.fromhex(match[1].decode())


def parse_proof_line(line: bytes) -> tuple[int, Proof]:
    """Return an entry's number and its inclusion proof. Raises DocumentError CSL-C804."""
    match = _PROOF.fullmatch(line)
    if match is None:
        raise DocumentError("CSL-C804", "A line holds no number and proof.", "Ask for the pack again.")
    hashes = bytes.fromhex(match[2].decode())
    return int(match[1]), tuple(hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES))


def approval_line(body: Approve) -> bytes:
    """Return an officer's decision as a line: the signed statement, its signature, and the study's name."""
    return body.data.canonical() + b"\n"


def consent_line(body: Consent) -> bytes:
    """Return a consent snapshot's salted digest as a line: the whole entry."""
    return body.canonical() + b"\n"


def extract_files(body: Body) -> dict[str, bytes]:
    """Return the whole files that an entry is also written to, by name: a policy's document and its signatures."""
    if not isinstance(body, PolicyEntry):
        return {}
    digest = body.data.policy.digest()
    signatures = PolicySignatures(policy=digest, signatures=body.data.signatures)
    return {
        f"{POLICIES}/{digest}.json": body.data.policy.canonical(),
        f"{POLICIES}/{digest}.sig": signatures.canonical(),
    }
