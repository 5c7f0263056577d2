"""What institutions and coordinator say to each other when they add up vectors by PSA-1, so that only the sum is opened.

Every statement is RFC 8785 JSON, signed Ed25519 over `psa1/<kind> || 0x00 || statement`, and names by digest what it answers; the
coordinator passes statements on as they were signed. Vectors travel beside a header as raw little-endian words of `w` bits.
"""

from typing import Annotated, ClassVar, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from federation.contract import Name
from federation.document import Document
from federation.messages import MAX_PAYLOAD_BYTES, EvaluateRequest, StatisticsRequest, TrainRequest
from federation.signing import Hex32, Hex64, Signature, sign_bytes, verify_bytes

PROTOCOL = "psa1"
MOST_MEMBERS = 200
MOST_COORDINATES = 1 << 26
Attempt = Annotated[int, Field(ge=1, le=1000)]
Number = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Literal[32, 64]
Dimension = Annotated[int, Field(ge=1, le=MOST_COORDINATES)]
MlKemKey = Annotated[str, Field(pattern=r"^[0-9a-f]{2368}$")]
Sealed = Annotated[str, Field(pattern=r"^[0-9a-f]{2336}$")]


class Statement(Document):
    """What is signed in the context of the protocol."""

    context: ClassVar[str] = PROTOCOL


class EpochKey(Statement):
    """A member's fresh public keys of X-Wing (ML-KEM-768 and X25519) for one study, the epoch; `roster` is the charter's digest."""

    kind: Literal["ek"] = "ek"
    roster: Hex32
    epoch: Hex32
    id: Name
    mlkem: MlKemKey
    x25519: Hex32


class KeyExchange(Statement):
    """32 random bytes from one member to another, sealed by HPKE to the keys whose statement has the digest `ek`."""

    kind: Literal["kx"] = "kx"
    roster: Hex32
    epoch: Hex32
    sender: Name
    receiver: Name
    ek: Hex32
    ct: Sealed


class SumOffer(Statement):
    """The coordinator asks for one sum over the members: which (`epoch`, `number`), the how-manieth try, and of what shape.

    `request` is the `request_digest` of the request that says what to compute; `scale` is the number of grid units in 1; `share` the
    parameter of the discrete Gaussian noise that each member adds, in grid units.
    """

    kind: Literal["offer"] = "offer"
    roster: Hex32
    epoch: Hex32
    number: Number
    attempt: Attempt
    request: Hex32
    d: Dimension
    w: Width
    scale: Annotated[float, Field(ge=1e-6, le=1e12)]
    share: Annotated[float, Field(ge=4.0, le=65_536.0)]
    n_min: Annotated[int, Field(ge=3, le=MOST_MEMBERS)]
    c: Annotated[int, Field(ge=0, le=MOST_MEMBERS)]

    @model_validator(mode="after")
    def _travels_in_one_message(self) -> Self:
        if self.d * self.w > 8 * MAX_PAYLOAD_BYTES:
            raise ValueError(f"{self.d} words of {self.w} bits are more than a message carries")
        return self


class Ready(Statement):
    """A member has its vector for this offer (its SHA-256), and will mask it under keys that this nonce makes fresh."""

    kind: Literal["ready"] = "ready"
    offer: Hex32
    id: Name
    nonce: Hex32


class Masked(Statement):
    """A member's masked vector lies beside this; `y` is its SHA-256, `t` the transcript's."""

    kind: Literal["masked"] = "masked"
    beside: ClassVar[str] = "y"
    t: Hex32
    id: Name
    w: Width
    d: Dimension
    y: Hex32


class Ack(Statement):
    """A member has seen whose masked vectors are there: `s` is the digest over their headers."""

    kind: Literal["ack"] = "ack"
    t: Hex32
    s: Hex32
    id: Name


class PairKey(Document):
    """The key of the pairwise mask with a member that dropped out."""

    id: Name
    key: Hex32


class Reveal(Statement):
    """A survivor's own mask key, and its pairwise keys with those who dropped out."""

    kind: Literal["reveal"] = "reveal"
    t: Hex32
    id: Name
    b: Hex32
    pairs: Annotated[tuple[PairKey, ...], Field(max_length=MOST_MEMBERS)]


class SignedEpochKey(Document):
    """A statement with its member's signature, as the coordinator passes it on."""

    message: EpochKey
    signature: Hex64


class SignedExchange(Document):
    """A statement with its sender's signature."""

    message: KeyExchange
    signature: Hex64


class SignedReady(Document):
    """A statement with its member's signature."""

    message: Ready
    signature: Hex64


class SignedMasked(Document):
    """A header with its member's signature."""

    message: Masked
    signature: Hex64


class SignedAck(Document):
    """A statement with its member's signature."""

    message: Ack
    signature: Hex64


class EpochRequest(Document):
    """Asks a member for its keys of a study that it granted; a later attempt begins anew, as long as no sum was asked for."""

    kind: Literal["epoch_request"] = "epoch_request"
    study: Hex32
    attempt: Attempt


class EpochKeys(Document):
    """All participants' keys: the member answers with an exchange for each of the others."""

    kind: Literal["epoch_keys"] = "epoch_keys"
    study: Hex32
    attempt: Attempt
    keys: Annotated[tuple[SignedEpochKey, ...], Field(max_length=MOST_MEMBERS)]


class Exchanges(Document):
    """What one member sends to the others, in the order of their names."""

    kind: Literal["exchanges"] = "exchanges"
    study: Hex32
    member: Name
    exchanges: Annotated[tuple[SignedExchange, ...], Field(max_length=MOST_MEMBERS)]


class EpochExchanges(Document):
    """What the others sent to one member, in the order of their names: it derives the pairwise keys, and drops its own."""

    kind: Literal["epoch_exchanges"] = "epoch_exchanges"
    study: Hex32
    attempt: Attempt
    exchanges: Annotated[tuple[SignedExchange, ...], Field(max_length=MOST_MEMBERS)]


class EpochReady(Document):
    """A member holds its pairwise keys: the digest over all participants' keys shows that everybody saw the same."""

    kind: Literal["epoch_ready"] = "epoch_ready"
    study: Hex32
    member: Name
    keys: Hex32


class SumRequest(Document):
    """Call 1: the offer, and the request that says what to compute, with the weights beside it. Answered by `Ready`."""

    kind: Literal["sum_request"] = "sum_request"
    study: Hex32
    offer: SumOffer
    signature: Hex64
    train: TrainRequest | None = None
    evaluate: EvaluateRequest | None = None
    measure: Annotated[StatisticsRequest | None, Field(exclude_if=lambda value: value is None)] = None
    payload: Hex32

    @model_validator(mode="after")
    def _one_request(self) -> Self:
        if sum(item is not None for item in (self.train, self.evaluate, self.measure)) != 1:
            raise ValueError("a sum is asked for by one request: train, evaluate or measure")
        return self

    @property
    def asked(self) -> TrainRequest | EvaluateRequest | StatisticsRequest:
        """The request that says what to compute."""
        asked = self.train or self.evaluate or self.measure
        assert asked is not None
        return asked


class SumReadies(Document):
    """Call 2: everybody's `Ready`, sorted by id. Answered by `Masked`, the vector beside it."""

    kind: Literal["sum_readies"] = "sum_readies"
    study: Hex32
    number: Number
    attempt: Attempt
    readies: Annotated[tuple[SignedReady, ...], Field(max_length=MOST_MEMBERS)]


class SumHeaders(Document):
    """Call 3: the survivors' headers, sorted by id. Answered by `Ack`."""

    kind: Literal["sum_headers"] = "sum_headers"
    study: Hex32
    number: Number
    attempt: Attempt
    headers: Annotated[tuple[SignedMasked, ...], Field(max_length=MOST_MEMBERS)]


class SumAcks(Document):
    """Call 4: all survivors' acknowledgements, sorted by id. Answered by `Reveal`."""

    kind: Literal["sum_acks"] = "sum_acks"
    study: Hex32
    number: Number
    attempt: Attempt
    acks: Annotated[tuple[SignedAck, ...], Field(max_length=MOST_MEMBERS)]


def request_digest(asked: TrainRequest | EvaluateRequest | StatisticsRequest) -> str:
    """Return what an offer names as its `request`, 64 hexadecimal digits: of a round the digest with `clip` 1 and no `weight`.

    Members with different grants are asked for different clips and weights, and must still agree on one offer. Nobody else's privacy hangs
    on them; each member checks its own against its own grant.
    """
    if isinstance(asked, TrainRequest):
        return asked.model_copy(update={"clip": 1.0, "weight": None}).digest()
    return asked.digest()


def sign_statement(key: Ed25519PrivateKey, statement: Statement) -> str:
    """Return the signature of a statement, 128 hexadecimal digits."""
    return sign_bytes(key, context_of(statement), statement.canonical()).value


def verify_statement(statement: Statement, signature: str, key: str) -> None:
    """Check that the owner of `key` signed a statement; raises as `federation.signing.verify_bytes`."""
    verify_bytes(Signature(key=key, value=signature), context_of(statement), statement.canonical(), key)


def context_of(statement: Statement) -> str:
    """Return what is signed before the statement: `psa1/` and its kind."""
    return f"{PROTOCOL}/{type(statement).model_fields['kind'].default}"
