"""An institution's policy: what it allows, for which purposes, within which budget. It stays at home and is never sent.

A decision looks at public inputs alone (study, charter, policy, date, and which slots of a plan are taken), so that a
refusal discloses nothing about customers.
"""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.errors import PolicyError
from federation.signing import Hex32, Signature
from federation.study import Aggregation, Epsilon, Holdout, Noise, Purpose
from privacy.cost import Filter, TokenFilter
from privacy.plan import Slot

Consent = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
Delta = Annotated[float, Field(ge=1e-8, le=0.01)]
Days = Annotated[int, Field(ge=1, le=366)]
Kept = Annotated[int, Field(ge=1, le=36_600)]

CONTEXT = "csl1/policy"
CUSTOMERS_PER_DELTA = 100
TWO = 2


class Officer(Document):
    """A compliance officer: a name for the role, and the key that signs policies and approvals."""

    id: Name
    key: Hex32


class Approval(Document):
    """How many distinct officers must approve a study that no rule lets through by itself."""

    eyes: Literal[1, 2]


class PurposeBudget(Document):
    """What studies for one purpose may spend within the period's number of days; the period's budget holds besides."""

    epsilon: Epsilon
    delta: Delta


class PurposeRule(Document):
    """A purpose, and the consent without which no customer enters a study for it."""

    id: Purpose
    meaning: Text
    consent: Consent
    budget: PurposeBudget | None = None


class StudyRule(Document):
    """What studies on one feature contract may ask for.

    A study that would get more than `automatic_epsilon` waits until officers approve it; 0 lets every study wait.
    """

    kind: Literal["training"] = "training"
    contract: Name
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)]
    models: Annotated[tuple[Literal["additive", "logistic", "mlp"], ...], Field(min_length=1)]
    modes: Annotated[tuple[Literal["fedsgd", "fedavg"], ...], Field(min_length=1)]
    max_epsilon: Epsilon
    max_delta: Delta
    automatic_epsilon: Annotated[float, Field(ge=0, le=100)]
    holdout: Holdout


class StatisticsRule(Document):
    """What statistics studies on one feature contract may ask for: counts and sums over its customers, all of them.

    A study that would get more than `automatic_epsilon` waits until officers approve it; 0 lets every study wait. What it costs is charged
    to both accounts, since customers who train and customers who are held out are counted alike.
    """

    contract: Name
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)]
    max_epsilon: Epsilon
    max_delta: Delta
    automatic_epsilon: Annotated[float, Field(ge=0, le=100)]


class PeriodBudget(Document):
    """What may be spent within any `days` consecutive days (UTC, by the ledger's time)."""

    days: Days
    epsilon: Epsilon
    delta: Delta


class LifeBudget(Document):
    """What may be spent in all; fixed for good by the first policy that the ledger holds."""

    epsilon: Epsilon
    delta: Delta


class Budget(Document):
    """The privacy budget of each account (training customers, held-out customers).

    `open`: studies come as they come, enforced by `filter`, which is valid under full adaptivity. `plan`: studies fill
    slots that are fixed here, enforced together by their privacy loss distribution. `filter` adds up whatever comes one
    after another, plans included.
    """

    mode: Literal["open", "plan"]
    filter: Filter = TokenFilter()
    unit: Literal["customer"]
    neighbours: Literal["add_or_remove_one"]
    period: PeriodBudget
    life: LifeBudget
    slots: Annotated[tuple[Slot, ...], Field(max_length=1000)] = ()

    @field_validator("slots")
    @classmethod
    def _slots_once(cls, slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        _once([slot.id for slot in slots], "slot")
        return slots

    @model_validator(mode="after")
    def _slots_with_plan(self) -> Self:
        if (self.mode == "plan") != bool(self.slots):
            raise ValueError("a plan has slots, and slots belong to a plan: give both or neither")
        return self

    @model_validator(mode="after")
    def _period_within_life(self) -> Self:
        problems = []
        if self.period.epsilon > self.life.epsilon:
            problems.append(
                f"the period's epsilon ({self.period.epsilon:g}) is above the life's ({self.life.epsilon:g})"
            )
        if self.period.delta > self.life.delta:
            problems.append(f"the period's delta ({self.period.delta:g}) is above the life's ({self.life.delta:g})")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class SecureRule(Document):
    """Studies whose sums alone are opened: from how many members on, how many of them may collude, and whose noise may count.

    With `aggregation: secure` a vault answers no other studies; with `plain` this rule allows them beside plain ones.

    Attributes
    ----------
    n_min, c:
        The least that a study must promise: it opens sums over at least so many members, and holds while so many collude with the
        coordinator; n_min >= c + 3.
    noise:
        `local` (one's own noise is enough), `shared` (the noise of all honest members together is), or both.
    local_noise_floor:
        The epsilon that must hold for a study on each account by one's own noise alone, should the protocol's assumptions fail. None:
        no more than the noise of a member's share is promised then.
    """

    n_min: Annotated[int, Field(ge=3, le=200)]
    c: Annotated[int, Field(ge=0, le=197)]
    noise: Annotated[tuple[Noise, ...], Field(min_length=1, max_length=2)]
    local_noise_floor: Annotated[Epsilon | None, Field(exclude_if=lambda value: value is None)] = None

    @field_validator("noise")
    @classmethod
    def _noise_once(cls, noise: tuple[Noise, ...]) -> tuple[Noise, ...]:
        _once(list(noise), "noise")
        return noise


class Retention(Document):
    """After how many days what a study leaves at home is deleted: name lists, kept replies, records of who took part."""

    name_lists_days: Kept
    replies_days: Kept
    participation_days: Kept


class Policy(Document):
    """One version of an institution's policy."""

    institution: Name
    version: Annotated[int, Field(ge=1)]
    prev: Hex32 | None = None
    issued: date
    expires: date
    officers: Annotated[tuple[Officer, ...], Field(min_length=1, max_length=20)]
    approval: Approval
    purposes: Annotated[tuple[PurposeRule, ...], Field(min_length=1, max_length=100)]
    contact_consent: Consent
    studies: Annotated[tuple[StudyRule, ...], Field(min_length=1, max_length=100)]
    statistics: Annotated[tuple[StatisticsRule, ...], Field(max_length=100, exclude_if=lambda value: not value)] = ()
    budget: Budget
    smallest_cohort: Annotated[int, Field(ge=1)]
    smallest_partners: Annotated[int, Field(ge=1, le=200)]
    aggregation: Aggregation
    secure: Annotated[SecureRule | None, Field(exclude_if=lambda value: value is None)] = None
    reply_grid_seconds: Annotated[float, Field(ge=0, le=3600)]
    retention: Retention

    @field_validator("officers")
    @classmethod
    def _officers_once(cls, officers: tuple[Officer, ...]) -> tuple[Officer, ...]:
        _once([officer.id for officer in officers], "officer")
        _once([officer.key for officer in officers], "officer's key")
        return officers

    @field_validator("purposes")
    @classmethod
    def _purposes_once(cls, purposes: tuple[PurposeRule, ...]) -> tuple[PurposeRule, ...]:
        _once([rule.id for rule in purposes], "purpose")
        return purposes

    @field_validator("studies")
    @classmethod
    def _accounts_disjoint(cls, studies: tuple[StudyRule, ...]) -> tuple[StudyRule, ...]:
        _once([rule.contract for rule in studies], "contract")
        check_holdouts({rule.contract: rule.holdout for rule in studies})
        return studies

    @field_validator("statistics")
    @classmethod
    def _statistics_once(cls, rules: tuple[StatisticsRule, ...]) -> tuple[StatisticsRule, ...]:
        _once([rule.contract for rule in rules], "contract")
        return rules

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.issued >= self.expires:
            problems.append(f"it expires on {self.expires}, which is not after {self.issued}")
        if self.approval.eyes > len(self.officers):
            problems.append(f"approval asks for {self.approval.eyes} officers, and one is named")
        if (self.version == 1) != (self.prev is None):
            problems.append("version 1 has no prev; every later version names the digest of the one before")
        known = {rule.id for rule in self.purposes}
        problems += _aggregation_problems(self.aggregation, self.secure, self.budget.mode)
        problems += _purpose_problems(self.purposes, self.budget) + _slot_problems(self.studies, self.budget.slots)
        rules: tuple[StudyRule | StatisticsRule, ...] = (*self.studies, *self.statistics)
        for rule in rules:
            problems += _rule_problems(rule, known, self.budget.period)
        if self.statistics and self.budget.mode == "plan":
            problems.append("a plan has slots for training alone: statistics need an open budget")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def officer(self, key: str) -> Officer | None:
        """Return the officer who holds a key (64 hexadecimal digits), or None."""
        return next((officer for officer in self.officers if officer.key == key), None)

    def consent_for(self, purpose_id: str) -> str:
        """Return the consent that a purpose needs.

        Raises
        ------
        PolicyError
            CSL-P201 when the policy does not know the purpose.
        """
        return self.purpose(purpose_id).consent

    def purpose(self, purpose_id: str) -> PurposeRule:
        """Return the rule of a purpose. Raises PolicyError CSL-P201 when the policy does not know it."""
        purpose = next((item for item in self.purposes if item.id == purpose_id), None)
        if purpose is None:
            known = ", ".join(item.id for item in self.purposes)
            raise PolicyError(
                "CSL-P201",
                f"The policy allows the purposes {known}; the study asks for {purpose_id}.",
                "Ask your compliance officer to add it, or decline the study.",
            )
        return purpose


class PolicySignatures(Document):
    """Detached signatures of officers over a policy's canonical bytes in the context `csl1/policy`."""

    policy: Hex32
    signatures: Annotated[tuple[Signature, ...], Field(max_length=20)]


def _aggregation_problems(
    aggregation: Aggregation, rule: SecureRule | None, mode: Literal["open", "plan"]
) -> list[str]:
    problems = []
    if aggregation == "secure" and rule is None:
        problems.append("aggregation: secure needs a rule `secure` that says on which terms")
    if aggregation == "secure" and mode == "plan":
        problems.append(
            "a plan's slots describe plain studies, which aggregation: secure refuses: the budget must be open"
        )
    if rule is not None and rule.n_min < rule.c + 3:
        problems.append(f"secure: n_min must be at least c + 3 = {rule.c + 3}")
    return problems


def _rule_problems(rule: StudyRule | StatisticsRule, known: set[str], period: PeriodBudget) -> list[str]:
    problems = [
        f"{rule.contract} names purpose {name}, which is not listed" for name in rule.purposes if name not in known
    ]
    if rule.max_epsilon > period.epsilon:
        problems.append(f"{rule.contract} allows a study epsilon {rule.max_epsilon:g}, above the period's budget")
    if rule.automatic_epsilon > rule.max_epsilon:
        problems.append(f"{rule.contract} lets through epsilon {rule.automatic_epsilon:g}, above its own maximum")
    if rule.max_delta > period.delta:
        problems.append(f"{rule.contract} allows a study delta {rule.max_delta:g}, above the period's budget")
    return problems


def _purpose_problems(purposes: tuple[PurposeRule, ...], budget: Budget) -> list[str]:
    period = budget.period
    return [
        f"the budget of purpose {rule.id} is above the period's"
        for rule in purposes
        if rule.budget is not None and (rule.budget.epsilon > period.epsilon or rule.budget.delta > period.delta)
    ]


def _slot_problems(studies: tuple[StudyRule, ...], slots: tuple[Slot, ...]) -> list[str]:
    allowed = {(rule.contract, purpose) for rule in studies for purpose in rule.purposes}
    return [
        f"slot {slot.id} is for {slot.purpose} on {slot.contract}, which no rule allows"
        for slot in slots
        if (slot.contract, slot.purpose) not in allowed
    ]


def check_holdouts(holdouts: dict[str, Holdout]) -> None:
    """Refuse hold-out rules by which one customer could be trained on under one contract and held out under another.

    Training and hold-out are two accounts, each with the whole budget; that is sound only while no customer is in both.

    Raises
    ------
    ValueError
        When several contracts do not share one hash rule, or one of several contracts holds out by position.
    """
    rules = list(holdouts.values())
    if len(rules) > 1 and (rules[0].kind != "hash" or any(rule != rules[0] for rule in rules)):
        raise ValueError(
            "several contracts must share one hold-out rule by hash, else a customer could be in both accounts"
        )


def _once(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each {what} stands once; more than once: {', '.join(twice)}")


def describe_holdout(holdout: Holdout) -> str:
    """Return a hold-out rule in plain words."""
    if holdout.kind == "hash":
        return f"{holdout.share:.0%} of customers by keyed hash"
    return f"the records from position {holdout.position} on"
