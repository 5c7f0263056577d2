"""Wire messages between coordinator and vaults: typed, bounded, signed; tensors travel beside them as safetensors.

Flower carries each message as one `ConfigRecord` named `consilience` with three byte fields: `header` (RFC 8785 JSON),
`signature` (Ed25519 over `csl1/<type> || 0x00 || header`) and `payload` (safetensors, or empty). The header holds the payload's SHA-256.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from federation.contract import Name
from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import IntegrityError
from federation.measures import MOST_MEASURES, Measure
from federation.merkle import MAX_PROOF
from federation.note import MAX_NOTE_BYTES, MAX_SIZE
from federation.signing import Hex32, Signature, sign_bytes, verify_bytes
from federation.statistics import MOST_ROUNDS, StatisticsSpec
from federation.study import StudySpec

RECORD = "consilience"
MAX_PAYLOAD_BYTES = 128 << 20
REFUSED: Literal["CSL-R000"] = "CSL-R000"
Tensors = dict[str, NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int64]]
MAX_HEADER_BYTES = 1 << 20
Positive = Annotated[float, Field(gt=0, le=1e9)]
# Away from the smallest and largest floats, where clipping and noise would not be what is accounted.
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
NoteText = Annotated[str, Field(min_length=1, max_length=MAX_NOTE_BYTES)]
TreeSize = Annotated[int, Field(ge=0, le=MAX_SIZE)]
ProofHashes = Annotated[tuple[Hex32, ...], Field(max_length=MAX_PROOF)]


class Hello(Document):
    """Asks a node who it is: the reply proves it by its signature over the nonce.

    `note` is the last witnessed head of the member's ledger, once the coordinator knows whom it asks: a vault that was restored from an old
    copy learns of it before it does anything.
    """

    kind: Literal["hello"] = "hello"
    charter: Hex32
    nonce: Nonce
    note: NoteText | None = None


class Identity(Document):
    """A node's answer to `Hello`."""

    kind: Literal["identity"] = "identity"
    member: Name
    charter: Hex32
    nonce: Nonce


class Offer(Document):
    """Offers a signed study; the vault answers with a grant or a refusal, and reserves its budget before it answers."""

    kind: Literal["offer"] = "offer"
    spec: StudySpec | StatisticsSpec
    spec_signature: Signature


class SecureGrant(Document):
    """What a vault grants a study whose vectors are added up in secret: by how much one customer may change each sum, in grid units.

    Attributes
    ----------
    sensitivity:
        Largest L2 norm by which one customer of this member changes a round's sum, rounding included.
    dimension:
        Integers in a round's sum.
    histogram_scale:
        The integer by which counts are multiplied at most before the noise is added: one customer changes one cell by it.
    """

    sensitivity: Annotated[float, Field(gt=0, le=1e6)]
    dimension: Annotated[int, Field(ge=1, le=1 << 26)]
    histogram_scale: Annotated[int, Field(ge=1, le=1_000_000)]


class Grant(Document):
    """What a vault grants a study: public, signed by the vault. The policy behind it is not.

    Where the study's vectors are added up in secret, `noise_multiplier` and `histogram_sigma` are the noise that surely counts in units of
    one customer's part, as `secure` says it.
    """

    kind: Literal["grant"] = "grant"
    study: Hex32
    member: Name
    declared_size: Annotated[int, Field(ge=1)]
    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    noise_multiplier: Positive
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]
    histogram_sigma: Positive
    secure: Annotated[SecureGrant | None, Field(exclude_if=lambda value: value is None)] = None


class StatisticsGrant(Document):
    """What a vault grants a statistics study: public, signed by the vault. The policy behind it is not.

    Attributes
    ----------
    epsilon, delta:
        What the whole study costs at most, for each customer.
    share:
        Parameter, in grid units, of the discrete Gaussian noise that this vault adds to every integer.
    sensitivity:
        Largest L2 norm, in grid units, by which one customer may change a round's sum.
    """

    kind: Literal["statistics_grant"] = "statistics_grant"
    study: Hex32
    member: Name
    declared_size: Annotated[int, Field(ge=1)]
    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    share: Annotated[float, Field(ge=200.0, le=65_536.0)]
    sensitivity: Annotated[float, Field(gt=0, le=1e6)]


class StatisticsRequest(Document):
    """One round of a statistics study: what to count and add up, in public terms."""

    kind: Literal["measure"] = "measure"
    study: Hex32
    round: Annotated[int, Field(ge=1, le=MOST_ROUNDS)]
    measures: Annotated[tuple[Measure, ...], Field(min_length=1, max_length=MOST_MEASURES)]


class StatisticsRelease(Document):
    """One round's noisy sums beside it: int64 [d], the measures one after another."""

    kind: Literal["measure_release"] = "measure_release"
    study: Hex32
    member: Name
    round: Annotated[int, Field(ge=1, le=MOST_ROUNDS)]
    payload: Hex32


class ReportDelivery(Document):
    """What a statistics study found, as canonical JSON beside it: the study is over."""

    kind: Literal["report"] = "report"
    study: Hex32
    payload: Hex32


class ReportReceipt(Document):
    """A vault's signed statement of which report it keeps."""

    kind: Literal["report_receipt"] = "report_receipt"
    study: Hex32
    member: Name
    report: Hex32


class TrainRequest(Document):
    """One round: weights travel beside it. `clip` and `learning_rate` scale the release and never touch its privacy.

    `weight` multiplies a vector that is added up in secret; 1 where it is not given.
    """

    kind: Literal["train"] = "train"
    study: Hex32
    round: Annotated[int, Field(ge=1)]
    clip: Scale
    learning_rate: Scale
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight: Annotated[float | None, Field(gt=0, le=1, exclude_if=lambda value: value is None)] = None
    payload: Hex32


class TrainRelease(Document):
    """One round's release: a noisy gradient sum (`fedsgd`) or the change of the weights (`fedavg`), beside it."""

    kind: Literal["train_release"] = "train_release"
    study: Hex32
    member: Name
    round: Annotated[int, Field(ge=1)]
    payload: Hex32


class EvaluateRequest(Document):
    """Asks for score histograms of the held-out customers under the model beside it; `edges` are public and increasing."""

    kind: Literal["evaluate"] = "evaluate"
    study: Hex32
    edges: Annotated[tuple[float, ...], Field(min_length=3, max_length=63)]
    payload: Hex32


class EvaluateRelease(Document):
    """Noisy counts beside it: int64 [2, bins], row 0 label no, row 1 label yes."""

    kind: Literal["evaluate_release"] = "evaluate_release"
    study: Hex32
    member: Name
    payload: Hex32


class ModelDelivery(Document):
    """Delivers the finished model with its card: the card's digest, and its canonical JSON."""

    kind: Literal["model"] = "model"
    study: Hex32
    card: Hex32
    card_text: Annotated[str, Field(max_length=MAX_HEADER_BYTES // 2)]
    payload: Hex32


class ModelReceipt(Document):
    """A vault's signed statement of which model it was given; it says nothing of whether it will adopt it."""

    kind: Literal["receipt"] = "receipt"
    study: Hex32
    member: Name
    card: Hex32
    model: Hex32


class SignedReceipt(Document):
    """A receipt with its vault's signature, as the coordinator passes it on."""

    receipt: ModelReceipt
    signature: Signature


class Receipts(Document):
    """All members' receipts: a vault adopts a model only if every one names the same digest."""

    kind: Literal["receipts"] = "receipts"
    study: Hex32
    receipts: Annotated[tuple[SignedReceipt, ...], Field(max_length=200)]


class HeadRequest(Document):
    """Asks a vault for its ledger's head, and for the proof that it continues the tree of `old` entries (0: none is known).

    `size` asks for the head at an earlier size, for a witness that keeps another head than the coordinator; None for today's.
    """

    kind: Literal["head"] = "head"
    nonce: Nonce
    old: TreeSize
    size: TreeSize | None = None


class LedgerHead(Document):
    """A vault's answer to `HeadRequest`: its signed note, and the RFC 6962 consistency proof from the size that was asked for."""

    kind: Literal["ledger_head"] = "ledger_head"
    member: Name
    nonce: Nonce
    note: NoteText
    proof: ProofHashes


class CosignRequest(Document):
    """Asks a vault to witness another member's head: the note, and the proof from the last head that this witness keeps."""

    kind: Literal["cosign"] = "cosign"
    subject: Name
    note: NoteText
    old: TreeSize
    proof: ProofHashes


class Cosignature(Document):
    """A witness's answer: the note with its signature, or None where the proof began at another size than `held`."""

    kind: Literal["cosignature"] = "cosignature"
    member: Name
    subject: Name
    held: TreeSize
    note: NoteText | None


class CosignedNote(Document):
    """Brings a vault its own head back, with the signatures of its witnesses."""

    kind: Literal["cosigned"] = "cosigned"
    note: NoteText


class NoteKept(Document):
    """A vault's answer to `CosignedNote`: it keeps a note of its ledger with so many entries."""

    kind: Literal["note_kept"] = "note_kept"
    member: Name
    size: TreeSize


class Acknowledged(Document):
    """Always the same answer, whatever the vault decided."""

    kind: Literal["acknowledged"] = "acknowledged"
    study: Hex32
    member: Name


class Refusal(Document):
    """Towards the coordinator every refusal looks alike; the reason stays in the ledger."""

    kind: Literal["refusal"] = "refusal"
    member: Name
    code: Literal["CSL-R000"] = REFUSED


M = TypeVar("M", bound=Document)


def dump_tensors(tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return safetensors bytes, names sorted, so that equal tensors give equal bytes."""
    return save_tensors({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})


def read_tensors(content: bytes, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> Tensors:
    """Parse safetensors bytes and check them by name, shape and dtype; `expected` maps name to (shape, numpy dtype name).

    Raises
    ------
    IntegrityError
        CSL-F205 for bytes that are not safetensors, CSL-F206 for a wrong name, shape or dtype, CSL-F207 for NaN or infinity.
    """
    try:
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise IntegrityError(
            "CSL-F205", "The tensors cannot be read.", "The message is damaged: ask for it again."
        ) from error
    if set(tensors) != set(expected):
        raise IntegrityError(
            "CSL-F206",
            "The tensors' names are not those of the study's model.",
            "Check that both sides run the same release.",
        )
    for name, (shape, dtype) in expected.items():
        if tensors[name].shape != shape or tensors[name].dtype.name != dtype:
            raise IntegrityError(
                "CSL-F206", f"Tensor {name} must be {dtype} {shape}.", "Check that both sides run the same release."
            )
        if not np.isfinite(tensors[name]).all():
            raise IntegrityError(
                "CSL-F207", f"Tensor {name} holds NaN or infinity.", "The sender's model has diverged: stop the study."
            )
    return tensors


def pack(key: Ed25519PrivateKey, header: Document, payload: bytes = b"") -> RecordDict:
    """Sign a message and put it with its payload into one Flower record."""
    content = header.canonical()
    signature = sign_bytes(key, _context(type(header)), content)
    record = ConfigRecord({"header": content, "signature": bytes.fromhex(signature.value), "payload": payload})
    return RecordDict({RECORD: record})


def unpack(records: RecordDict, model: type[M], expected_key: str) -> tuple[M, bytes]:
    """Check signature, canonical form and payload digest of a message, and return header and payload.

    Raises
    ------
    IntegrityError
        CSL-F208 when the record is not ours or too large, CSL-F209 when the payload is not the signed one, CSL-F201/F202 for the signature.
    DocumentError
        CSL-F102 when the header is not a canonical `model`.
    """
    content, signature, payload = _fields(records)
    verify_bytes(Signature(key=expected_key, value=signature.hex()), _context(model), content, expected_key)
    header = model.from_canonical(content)
    digest = getattr(header, getattr(model, "beside", "payload"), None)
    if (sha256_hex(payload) != digest) if digest is not None else payload:
        raise IntegrityError(
            "CSL-F209", "The payload is not the one that was signed.", "The message was altered: ask for it again."
        )
    return header, payload


def claimed(records: RecordDict, model: type[M]) -> M:
    """Read a message's header without checking who signed it: only to learn whose key `unpack` must then be given.

    Raises
    ------
    IntegrityError
        CSL-F208 when the record is not ours or too large.
    DocumentError
        CSL-F102 when the header is not a canonical `model`.
    """
    return model.from_canonical(_fields(records)[0])


def signature_of(records: RecordDict, key: str) -> Signature:
    """Return the signature that a packed message carries, attributed to `key`."""
    return Signature(key=key, value=_fields(records)[1].hex())


def _fields(records: RecordDict) -> tuple[bytes, bytes, bytes]:
    record = records.get(RECORD)
    values = [
        record.get(name) if isinstance(record, ConfigRecord) else None for name in ("header", "signature", "payload")
    ]
    header, signature, payload = values
    if not (isinstance(header, bytes) and isinstance(signature, bytes) and isinstance(payload, bytes)):
        raise IntegrityError("CSL-F208", "The message has no signed header.", "Both sides must run the same release.")
    too_large = len(payload) > MAX_PAYLOAD_BYTES or len(header) > MAX_HEADER_BYTES
    alone = len(records) == 1 and len(records[RECORD]) == len(values)
    if len(signature) != 64 or too_large or not alone:
        raise IntegrityError(
            "CSL-F208", "The message is larger than agreed or malformed.", "Both sides must run the same release."
        )
    return header, signature, payload


def _context(model: type[Document]) -> str:
    return f"{getattr(model, 'context', 'csl1')}/{model.model_fields['kind'].default}"
