"""What stands in the ledger: one frozen document for each kind of entry, in RFC 8785 form.

Entries stay for ever: a class, its fields and their meaning are never changed or removed; what is new gets a new kind
or a new `v`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.errors import DocumentError
from federation.signing import Hex32, Hex64, Signature
from federation.study import Epsilon, Purpose
from privacy.cost import Cost
from privacy.events import PrivacyEvent, SecureSum
from privacy.filter import Limits
from privacy.ledger.refusals import Code, RefusalsData
from privacy.policy import Policy

SIGNING_PREFIX = b"ledger1\0"
NO_ENTRY = "0" * 64
MILLISECONDS_A_DAY = 86_400_000

Account = Literal["training", "holdout"]
ACCOUNTS: tuple[Account, ...] = ("training", "holdout")
Work = Literal["training", "statistics"]
Rid = Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z_-]{0,79}$")]
Number = Annotated[int, Field(ge=0, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
APPROVAL_CONTEXT = "csl1/approval"
RESTORE_CONTEXT = "csl1/restore"
ROTATION_CONTEXT = "csl1/rotation"


class GenesisData(Document):
    """Whose ledger this is. `holdout_key` is a fingerprint of the key that decides who is held out: one for the
    budget's life."""

    member: Name
    key: Hex32
    holdout_key: Hex32


class AccountCharge(Document):
    """What a study takes from one account: the events, the number of releases that they are for, and their cost as one
    run. The cost of a study that fills a slot is nothing: the plan's was charged when it came into force."""

    account: Account
    events: Annotated[tuple[PrivacyEvent, ...], Field(min_length=1, max_length=100)]
    releases: Annotated[int, Field(ge=1, le=1_000_000)]
    cost: Cost


class PlanCharge(Document):
    """What a plan takes from one account, as one run of all its slots' events; of one purpose's slots where it names
    one, which counts against that purpose alone."""

    account: Account
    purpose: Purpose | None = None
    cost: Cost


class PolicyData(Document):
    """A policy comes into force: its digest, its officers' signatures, the integers that enforce it, and the charge of its
    plan."""

    sha256: Hex32
    policy: Policy
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=20)]
    limits: Limits
    plan: Annotated[tuple[PlanCharge, ...], Field(max_length=300)] = ()


class ApprovalStatement(Document):
    """What an officer signs, in the context `csl1/approval`: yes or no to one study, named by its digest, under one
    policy."""

    study: Hex32
    policy: Hex32
    decision: Literal["approve", "decline"]
    reason: Text


class ApproveData(Document):
    """An officer's decision about a study that waits."""

    name: Text
    statement: ApprovalStatement
    signature: Signature


class BrokenClaim(Document):
    """The epsilon, at the study's delta, that holds for one account by one's own noise alone: what is left of a study that was
    added up in secret should the protocol's assumptions fail."""

    account: Account
    epsilon: Annotated[float, Field(ge=0, le=1e12)]


class ReserveData(Document):
    """A whole study's cost, set aside before its data are touched, under the policy named; `library` computed the
    price; `slot` is the plan's slot that the study fills.

    `charges` say what holds against the coordinator together with as many members as the study reckons with. `if_broken`,
    for studies whose vectors are added up in secret, says apart from it what would hold by one's own noise alone, an equal
    share of the noise that the events name. The one is never added to the other. `work` says which of the policy's rules
    the study falls under.
    """

    study: Text
    purpose: Purpose
    contract: Name
    policy: Hex32
    epsilon: Epsilon
    delta: Annotated[float, Field(gt=0, lt=1)]
    library: Text
    slot: Name | None = None
    charges: Annotated[tuple[AccountCharge, ...], Field(min_length=1, max_length=2)]
    if_broken: Annotated[
        tuple[BrokenClaim, ...] | None, Field(max_length=2, exclude_if=lambda value: value is None)
    ] = None
    work: Annotated[Work, Field(exclude_if=lambda value: value == "training")] = "training"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        accounts = [charge.account for charge in self.charges]
        if accounts not in (["training"], ["holdout"], ["training", "holdout"]):
            raise ValueError("training first, then holdout, each at most once")
        if self.if_broken is not None and [claim.account for claim in self.if_broken] != accounts:
            raise ValueError("if_broken names the accounts that are charged, in their order")
        return self

    def charge(self, account: str) -> AccountCharge | None:
        """Return what is taken from an account, or None."""
        return next((charge for charge in self.charges if charge.account == account), None)

    def broken(self, account: str) -> BrokenClaim | None:
        """Return what would hold on an account if the protocol failed; None for a plain study."""
        return next((claim for claim in self.if_broken or () if claim.account == account), None)


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

    code: Code
    study: Annotated[str, Field(max_length=400)]
    why: Annotated[str, Field(max_length=1000)]


class RotationStatement(Document):
    """What the new key signs, in the context `csl1/rotation`: that it follows the old one at this place of the ledger."""

    member: Name
    seq: Annotated[int, Field(ge=1)]
    prev: Hex32
    old: Hex32
    new: Hex32


class RotateData(Document):
    """The institution's key changes: the entry is signed by the old key, the statement in it by the new one."""

    statement: RotationStatement
    accepted: Hex64
    reason: Text


class RestoreStatement(Document):
    """What two officers sign, in the context `csl1/restore`: this copy of `size` entries goes on as the ledger.

    `complete` is their word that the vault wrote nothing after the copy was made.
    """

    member: Name
    size: Annotated[int, Field(ge=1)]
    root: Hex32
    complete: bool
    reason: Text


class RestoreData(Document):
    """The ledger goes on from a backup. `note` is the head as witnesses countersigned it last (a signed note); without
    it, or when the copy may not be complete, nothing remains to spend."""

    statement: RestoreStatement
    signatures: Annotated[tuple[Signature, ...], Field(min_length=2, max_length=20)]
    note: Annotated[str, Field(max_length=20_000)] = ""

    @property
    def exhausts(self) -> bool:
        """Whether entries may be missing, so that everything that was left counts as spent."""
        return not (self.statement.complete and self.note)


class AccessData(Document):
    """Somebody at the institution saw, took or deleted something that a study left at home."""

    action: Literal["view", "export", "erase"]
    what: Text
    actor: Text
    role: Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]
    count: Count


class WithdrawData(Document):
    """Customers withdrew their consent: how many, and a digest of the list, salted by a key that stays at home.

    `registered` is how many stand in the register now: it never has fewer, so that an old copy of it is noticed.
    """

    count: Count
    registered: Count
    salted: Hex32
    reason: Text
    actor: Text


class ConsentData(Document):
    """The consent that stood when a study's data were read: a digest of the list of customers, salted by a key that stays at
    home."""

    purpose: Purpose
    consent: Annotated[str, Field(max_length=64)]
    salted: Hex32


class WitnessData(Document):
    """Others countersigned the ledger's head: the names and keys of those whose signatures were checked."""

    size: Annotated[int, Field(ge=1)]
    root: Hex32
    witnesses: Annotated[tuple[Text, ...], Field(min_length=1, max_length=200)]


class _Body(Document):
    v: Literal[1] = 1
    seq: Annotated[int, Field(ge=0)]
    prev: Hex32
    ts: Annotated[int, Field(ge=0)]
    # Witnesses see leaves in proofs: without 16 random bytes in the entry they could guess what it says, and know when it fits.
    salt: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""

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
    """A request was refused; or many were, of which only the number is written down."""

    kind: Literal["refuse"] = "refuse"
    rid: None = None
    data: RefuseData | RefusalsData

    @model_validator(mode="after")
    def _in_the_past(self) -> Self:
        if isinstance(self.data, RefusalsData) and self.data.last > self.ts:
            raise ValueError("refusals are summed up after the last of them")
        return self


class Approve(_Body):
    """An officer decides about a study that waits."""

    kind: Literal["approve"] = "approve"
    rid: Rid
    data: ApproveData


class Consent(_Body):
    """The consent under which a study's data were read."""

    kind: Literal["consent"] = "consent"
    rid: Rid
    data: ConsentData


class Rotate(_Body):
    """The institution's key changes."""

    kind: Literal["rotate"] = "rotate"
    rid: None = None
    data: RotateData


class Restore(_Body):
    """The ledger goes on from a backup."""

    kind: Literal["restore"] = "restore"
    rid: None = None
    data: RestoreData


class Access(_Body):
    """Somebody at the institution saw, took or deleted something."""

    kind: Literal["access"] = "access"
    rid: None = None
    data: AccessData


class Withdraw(_Body):
    """Customers withdrew their consent."""

    kind: Literal["withdraw"] = "withdraw"
    rid: None = None
    data: WithdrawData


class Witnessed(_Body):
    """Others countersigned the ledger's head."""

    kind: Literal["witness"] = "witness"
    rid: None = None
    data: WitnessData


Kind = Literal[
    "genesis",
    "policy",
    "approve",
    "reserve",
    "consent",
    "release",
    "close",
    "refuse",
    "rotate",
    "restore",
    "access",
    "withdraw",
    "witness",
]
Body = (
    Genesis
    | PolicyEntry
    | Approve
    | Reserve
    | Consent
    | Release
    | Close
    | Refuse
    | Rotate
    | Restore
    | Access
    | Withdraw
    | Witnessed
)
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
    """A study's reservation, what was released under it so far (by account), whether it is closed, and whether its customers' data were
    ever read (a consent entry says so)."""

    rid: str
    data: ReserveData
    released: dict[str, int]
    closed: bool = False
    read: bool = False

    @property
    def secret(self) -> bool:
        """Whether its vectors are added up in secret."""
        return any(isinstance(event, SecureSum) for charge in self.data.charges for event in charge.events)

    def untouched(self) -> tuple[Account, ...]:
        """Return the reserved accounts from which nothing was ever released.

        Of a study that is added up in secret, none once its data were read: a masked vector may have left before its release entry, which
        stands for the opening of the sum, and it must be paid for even if the masks break.
        """
        if self.secret and self.read:
            return ()
        return tuple(charge.account for charge in self.data.charges if not self.released.get(charge.account))


@dataclass(frozen=True)
class Known:
    """What earlier entries say about an entry's `rid`: the officers' decisions, the reservation, and whether a release has
    the entry's number already."""

    approvals: tuple[ApproveData, ...] = ()
    reservation: Reservation | None = None
    number_taken: bool = False


UNKNOWN = Known()


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
