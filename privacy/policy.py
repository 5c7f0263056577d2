"""An institution's policy: what it allows, for which purposes, within which budget. It stays at home and is never sent.

A decision looks at public inputs alone (study, charter, policy, date), so that a refusal discloses nothing about
customers.
"""

import math
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from federation.charter import Charter, Declaration
from federation.contract import Name, Text
from federation.document import Document
from federation.errors import PolicyError
from federation.study import Epsilon, Holdout, Purpose, StudySpec

Consent = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
Delta = Annotated[float, Field(ge=1e-8, le=0.01)]
Days = Annotated[int, Field(ge=1, le=366)]

CUSTOMERS_PER_DELTA = 100


class PurposeRule(Document):
    """A purpose, and the consent without which no customer enters a study for it."""

    id: Purpose
    meaning: Text
    consent: Consent


class StudyRule(Document):
    """What studies on one feature contract may ask for."""

    contract: Name
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)]
    models: Annotated[tuple[Literal["additive", "logistic", "mlp"], ...], Field(min_length=1)]
    modes: Annotated[tuple[Literal["fedsgd", "fedavg"], ...], Field(min_length=1)]
    max_epsilon: Epsilon
    max_delta: Delta
    holdout: Holdout


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

    `open`: studies come as they come, enforced by a filter that is valid under full adaptivity.
    """

    mode: Literal["open"]
    unit: Literal["customer"]
    neighbours: Literal["add_or_remove_one"]
    period: PeriodBudget
    life: LifeBudget

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


@dataclass(frozen=True)
class Terms:
    """What a policy grants one study.

    `epsilon`, `delta` hold for each account; `consent` is what a customer must have agreed to; `policy` is the policy's
    digest.
    """

    policy: str
    epsilon: float
    delta: float
    purpose: str
    consent: str
    contract: str
    holdout: Holdout
    declared_size: int


class Policy(Document):
    """One version of an institution's policy."""

    institution: Name
    version: Annotated[int, Field(ge=1)]
    issued: date
    expires: date
    purposes: Annotated[tuple[PurposeRule, ...], Field(min_length=1, max_length=100)]
    contact_consent: Consent
    studies: Annotated[tuple[StudyRule, ...], Field(min_length=1, max_length=100)]
    budget: Budget
    smallest_cohort: Annotated[int, Field(ge=1)]
    smallest_partners: Annotated[int, Field(ge=1, le=200)]
    aggregation: Literal["plain"]
    reply_grid_seconds: Annotated[float, Field(ge=0, le=3600)]

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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.issued >= self.expires:
            problems.append(f"it expires on {self.expires}, which is not after {self.issued}")
        known = {rule.id for rule in self.purposes}
        for rule in self.studies:
            problems += [
                f"{rule.contract} names purpose {name}, which is not listed"
                for name in rule.purposes
                if name not in known
            ]
            if rule.max_epsilon > self.budget.period.epsilon:
                problems.append(
                    f"{rule.contract} allows a study epsilon {rule.max_epsilon:g}, above the period's budget"
                )
            if rule.max_delta > self.budget.period.delta:
                problems.append(f"{rule.contract} allows a study delta {rule.max_delta:g}, above the period's budget")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def decide(self, spec: StudySpec, charter: Charter, member: str, today: date) -> Terms:
        """Decide whether this policy allows a study, on public inputs alone.

        Parameters
        ----------
        spec, charter:
            The study and the charter that it refers to, both checked already.
        member:
            The institution that decides.
        today:
            The ledger's date (`Ledger.today()`), which a clock set back does not move.

        Raises
        ------
        PolicyError
            CSL-P201 unknown purpose, CSL-P202 contract not allowed (or not for this purpose), CSL-P203 model or mode
            not allowed, CSL-P204 more epsilon than allowed, CSL-P205 delta above 1/(100 x declared size), CSL-P206
            cohort too small, CSL-P207 too few partners, CSL-P208 another hold-out, CSL-P209 not valid on this date,
            CSL-P210 another institution's policy, CSL-P211 nothing declared for the contract.
        """
        self._check_standing(member, today)
        draft = spec.draft
        purpose, rule = self._rule(draft.purpose, draft.contract)
        _check_shape(rule, spec)
        declaration = charter.member(member).declaration(draft.contract)
        if declaration is None:
            raise PolicyError(
                "CSL-P211",
                f"The charter has no declaration of {member} for {draft.contract}.",
                "Declare the cohort in the charter first.",
            )
        self._check_sizes(rule, declaration)
        self._check_partners(spec, charter)
        return Terms(
            policy=self.digest(),
            epsilon=_granted_epsilon(rule, draft.epsilon),
            delta=rule.max_delta,
            purpose=purpose.id,
            consent=purpose.consent,
            contract=rule.contract,
            holdout=rule.holdout,
            declared_size=declaration.size,
        )

    def consent_for(self, purpose_id: str) -> str:
        """Return the consent that a purpose needs.

        Raises
        ------
        PolicyError
            CSL-P201 when the policy does not know the purpose.
        """
        return self._purpose(purpose_id).consent

    def _check_standing(self, member: str, today: date) -> None:
        if member != self.institution:
            raise PolicyError(
                "CSL-P210",
                f"The policy is that of {self.institution}, not of {member}.",
                "Install this institution's own policy.",
            )
        if not self.issued <= today < self.expires:
            raise PolicyError(
                "CSL-P209",
                f"The policy holds from {self.issued} until before {self.expires}; the ledger's date is {today}.",
                "Ask your compliance officer for a policy that is in force.",
            )

    def _purpose(self, purpose_id: str) -> PurposeRule:
        purpose = next((item for item in self.purposes if item.id == purpose_id), None)
        if purpose is None:
            known = ", ".join(item.id for item in self.purposes)
            raise PolicyError(
                "CSL-P201",
                f"The policy allows the purposes {known}; the study asks for {purpose_id}.",
                "Ask your compliance officer to add it, or decline the study.",
            )
        return purpose

    def _rule(self, purpose_id: str, contract: str) -> tuple[PurposeRule, StudyRule]:
        purpose = self._purpose(purpose_id)
        rule = next((item for item in self.studies if item.contract == contract and purpose_id in item.purposes), None)
        if rule is None:
            raise PolicyError(
                "CSL-P202",
                f"The policy allows no study on contract {contract} for {purpose_id}.",
                "Ask your compliance officer to add it, or decline the study.",
            )
        return purpose, rule

    def _check_sizes(self, rule: StudyRule, declaration: Declaration) -> None:
        largest = 1.0 / (CUSTOMERS_PER_DELTA * declaration.size)
        delta = max(rule.max_delta, self.budget.life.delta)  # the life's is never below the period's
        if delta > largest:
            raise PolicyError(
                "CSL-P205",
                f"delta {delta:g} is above 1/({CUSTOMERS_PER_DELTA} x {declaration.size} declared customers) = "
                f"{largest:.3g}.",
                "Lower delta in the policy, for studies, period and life.",
            )
        if declaration.size < self.smallest_cohort:
            raise PolicyError(
                "CSL-P206",
                f"{declaration.size} customers are declared for {rule.contract}; the policy's smallest cohort is "
                f"{self.smallest_cohort}.",
                "Decline the study: so small a cohort would need too much noise.",
            )

    def _check_partners(self, spec: StudySpec, charter: Charter) -> None:
        able = sum(member.declaration(spec.draft.contract) is not None for member in charter.members)
        fewest = min(spec.draft.min_partners, able)
        if fewest < self.smallest_partners:
            raise PolicyError(
                "CSL-P207",
                f"The study may go on with {fewest} partners; the policy asks for at least {self.smallest_partners}.",
                "Ask the coordinator for a study with more partners, or decline it.",
            )


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


def _check_shape(rule: StudyRule, spec: StudySpec) -> None:
    draft = spec.draft
    if draft.model.kind not in rule.models or draft.mode not in rule.modes:
        raise PolicyError(
            "CSL-P203",
            f"For {rule.contract} the policy allows models {', '.join(rule.models)} by {', '.join(rule.modes)}; "
            f"the study asks for {draft.model.kind} by {draft.mode}.",
            "Ask your compliance officer to add it, or decline the study.",
        )
    if draft.holdout != rule.holdout:
        raise PolicyError(
            "CSL-P208",
            f"The study holds out {describe_holdout(draft.holdout)}; the policy, {describe_holdout(rule.holdout)}.",
            "Ask the coordinator for the policy's rule: it stays the same for the budget's life.",
        )


def _granted_epsilon(rule: StudyRule, asked: float | None) -> float:
    if asked is None:
        return rule.max_epsilon
    if not math.isfinite(asked) or asked > rule.max_epsilon:
        raise PolicyError(
            "CSL-P204",
            f"The study asks for epsilon {asked:g}; the policy allows at most {rule.max_epsilon:g} on {rule.contract}.",
            "Ask the coordinator to ask for less, or your compliance officer to allow more.",
        )
    return asked


def describe_holdout(holdout: Holdout) -> str:
    """Return a hold-out rule in plain words."""
    if holdout.kind == "hash":
        return f"{holdout.share:.0%} of customers by keyed hash"
    return f"the records from position {holdout.position} on"
