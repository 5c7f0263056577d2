"""What stands in the ledger: one frozen document for each kind of entry, in RFC 8785 form.

Entries stay for ever: a class, its fields and their meaning are never changed or removed; what is new gets a new kind
or a new `v`. The kinds `approve`, `rotate` and `restore` have their place in the file's schema and no document yet:
none can be written.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.errors import DocumentError
from federation.signing import Hex32
from federation.study import Epsilon, Purpose
from privacy.events import PrivacyEvent
from privacy.filter import Limits
from privacy.policy import Policy
from privacy.token import Token

SIGNING_PREFIX = b"ledger1\0"
NO_ENTRY = "0" * 64
MILLISECONDS_A_DAY = 86_400_000

Account = Literal["training", "holdout"]
ACCOUNTS: tuple[Account, ...] = ("training", "holdout")
Rid = Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z_-]{0,79}$")]
Number = Annotated[int, Field(ge=0, le=1_000_000)]


class GenesisData(Document):
    """Whose ledger this is. `holdout_key` is a fingerprint of the key that decides who is held out: one for the
    budget's life."""

    member: Name
    key: Hex32
    holdout_key: Hex32


class PolicyData(Document):
    """A policy comes into force, with its digest and the integers that enforce it."""

    sha256: Hex32
    policy: Policy
    limits: Limits


class AccountCharge(Document):
    """What a study takes from one account: the events, the number of releases that they are for, and their price as one
    run."""

    account: Account
    events: Annotated[tuple[PrivacyEvent, ...], Field(min_length=1, max_length=100)]
    releases: Annotated[int, Field(ge=1, le=1_000_000)]
    cost: Token


class ReserveData(Document):
    """A whole study's cost, set aside before its data are touched, under the policy named; `library` computed the
    price."""

    study: Text
    purpose: Purpose
    contract: Name
    policy: Hex32
    epsilon: Epsilon
    delta: Annotated[float, Field(gt=0, lt=1)]
    run_delta: Annotated[float, Field(gt=0, lt=1)]
    library: Text
    charges: Annotated[tuple[AccountCharge, ...], Field(min_length=1, max_length=2)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if [charge.account for charge in self.charges] not in (["training"], ["holdout"], ["training", "holdout"]):
            raise ValueError("training first, then holdout, each at most once")
        return self

    def charge(self, account: str) -> AccountCharge | None:
        """Return what is taken from an account, or None."""
        return next((charge for charge in self.charges if charge.account == account), None)


class ReleaseData(Document):
    """Something is about to leave: the reply's number in the study, what it is, and the digest and length of its
    bytes."""

    number: Number
    account: Account
    what: Text
    sha256: Hex32
    bytes: Annotated[int, Field(ge=0, le=1 << 40)]


class CloseData(Document):
    """A study is over; `returned` are the accounts from which nothing was ever released."""

    reason: Text
    returned: Annotated[tuple[Account, ...], Field(max_length=2)]


class RefuseData(Document):
    """A request was refused; the reason stays at home."""

    code: Annotated[str, Field(pattern=r"^CSL-[A-Z][0-9]{3}$")]
    study: Annotated[str, Field(max_length=400)]
    why: Annotated[str, Field(max_length=1000)]


class _Body(Document):
    v: Literal[1] = 1
    seq: Annotated[int, Field(ge=0)]
    prev: Hex32
    ts: Annotated[int, Field(ge=0)]

    @property
    def day(self) -> int:
        """Days since 1970-01-01 (UTC) by the ledger's time."""
        return self.ts // MILLISECONDS_A_DAY


class Genesis(_Body):
    """The first entry."""

    kind: Literal["genesis"] = "genesis"
    rid: None = None
    data: GenesisData


class PolicyEntry(_Body):
    """A policy comes into force."""

    kind: Literal["policy"] = "policy"
    rid: None = None
    data: PolicyData


class Reserve(_Body):
    """A study is reserved."""

    kind: Literal["reserve"] = "reserve"
    rid: Rid
    data: ReserveData


class Release(_Body):
    """Something leaves."""

    kind: Literal["release"] = "release"
    rid: Rid
    data: ReleaseData


class Close(_Body):
    """A study is over."""

    kind: Literal["close"] = "close"
    rid: Rid
    data: CloseData


class Refuse(_Body):
    """A request was refused."""

    kind: Literal["refuse"] = "refuse"
    rid: None = None
    data: RefuseData


Body = Genesis | PolicyEntry | Reserve | Release | Close | Refuse
_PARSER: TypeAdapter[Body] = TypeAdapter(Annotated[Body, Field(discriminator="kind")])


@dataclass(frozen=True)
class Entry:
    """One entry as it stands in the file: the document, its bytes, its leaf (32 bytes) and its signature (64 bytes)."""

    body: Body
    content: bytes
    leaf: bytes
    signature: bytes


@dataclass(frozen=True)
class Reservation:
    """A study's reservation, what was released under it so far (by account), and whether it is closed."""

    rid: str
    data: ReserveData
    released: dict[str, int]
    closed: bool = False

    def untouched(self) -> tuple[Account, ...]:
        """Return the reserved accounts from which nothing was ever released."""
        return tuple(charge.account for charge in self.data.charges if not self.released.get(charge.account))


def parse(content: bytes) -> Body:
    """Parse an entry's bytes and refuse any other spelling than the canonical one.

    Raises
    ------
    DocumentError
        CSL-P611 when they are no entry that this release knows, or not canonical.
    """
    try:
        body = _PARSER.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise DocumentError(
            "CSL-P611", f"{where}: {first['msg']}.", "Restore the ledger, or read it with the release that wrote it."
        ) from error
    if body.canonical() != content:
        raise DocumentError(
            "CSL-P611", "The body is not in canonical form.", "Restore the ledger from its last backup."
        )
    return body
