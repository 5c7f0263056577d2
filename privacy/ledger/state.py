"""What the entries add up to: the running totals by which the next decision is made in constant time.

One function, `advance`, holds the ledger's rules. The writer calls it before an entry is written, the verifier calls it
on every entry that it reads, so that a ledger which the one could write is what the other accepts.

How the totals stay small: a reservation that is open counts in full in every period, for ever. When it is closed, its
charge goes into the bucket of that day, and a period's figure is the open charges plus the buckets of the last `days`
days. So whatever was released within any `days` consecutive days was within the budget together: a release lies between
reserve and close, and when the last of the studies concerned was admitted, each of the others was open or in a bucket
of those days.
"""

from datetime import date, timedelta

from pydantic import Field

from federation.contract import Name
from federation.document import Document
from federation.errors import PolicyError
from federation.signing import Hex32
from federation.study import Holdout
from privacy.filter import Limits, check_fit
from privacy.ledger.entries import (
    NO_ENTRY,
    Body,
    Close,
    Genesis,
    PolicyEntry,
    Release,
    Reservation,
    Reserve,
)
from privacy.ledger.merkle import append
from privacy.policy import Policy, check_holdouts
from privacy.token import Token, total

NOTHING = Token(mu_squared_nano=0, delta_femto=0)
LONGEST_PERIOD = 366
EPOCH = date(1970, 1, 1)


class DayTotal(Document):
    """What was charged to an account by studies closed on one day."""

    day: int
    spent: Token


class AccountState(Document):
    """One account: `life` is everything charged and not returned, `open` the part of open reservations, `days` the
    closed rest."""

    life: Token = NOTHING
    open: Token = NOTHING
    days: tuple[DayTotal, ...] = ()

    def period(self, day: int, days: int) -> Token:
        """Return what counts against a budget of `days` days on `day`."""
        recent = [item.spent for item in self.days if item.day > day - days]
        return total([self.open, *recent])


class State(Document):
    """The ledger after `size` entries; `head` is the last leaf, `frontier` the tree, `ts` the ledger's time in
    milliseconds."""

    v: int = 1
    size: int = 0
    head: Hex32 = NO_ENTRY
    ts: int = 0
    frontier: tuple[Hex32, ...] = ()
    member: Name | None = None
    policy: Hex32 | None = None
    policy_version: int = 0
    limits: Limits | None = None
    holdouts: dict[Name, Holdout] = Field(default_factory=dict)
    training: AccountState = AccountState()
    holdout: AccountState = AccountState()

    def account(self, name: str) -> AccountState:
        """Return the state of `training` or `holdout`."""
        return self.training if name == "training" else self.holdout


def advance(
    state: State, body: Body, leaf: bytes, reservation: Reservation | None, number_taken: bool = False
) -> State:
    """Return the state after an entry, or refuse the entry.

    Parameters
    ----------
    state, body, leaf:
        The state before, the entry and its leaf (32 bytes).
    reservation:
        What earlier entries say about the entry's `rid`, or None.
    number_taken:
        Whether an earlier release of this reservation has this number.

    Raises
    ------
    PolicyError
        CSL-P301 to P306 for a policy, CSL-P401 to P411 for a reservation, release or close that the rules do not allow.
    """
    if isinstance(body, Genesis):
        changed = _genesis(state, body)
    elif state.size == 0:
        raise PolicyError("CSL-P306", "The first entry is no genesis.", "Create the ledger anew, or restore it.")
    elif isinstance(body, PolicyEntry):
        changed = _activate(state, body)
    elif isinstance(body, Reserve):
        changed = _reserve(state, body, reservation)
    elif isinstance(body, Release):
        check_release(body, reservation, number_taken)
        changed = state
    elif isinstance(body, Close):
        changed = _close(state, body, reservation)
    else:
        changed = state
    return _extended(changed, body.ts, leaf)


def skip(state: State, ts: int, leaf: bytes) -> State:
    """Return the state after an entry whose meaning is refused: it has its place in chain and tree, and no other
    effect."""
    return _extended(state, max(state.ts, ts), leaf)


def check_policy(state: State, policy: Policy) -> None:
    """Refuse a policy that may not come into force after what the ledger holds.

    Raises
    ------
    PolicyError
        CSL-P301 another institution's, CSL-P302 an old version, CSL-P303 another life budget, CSL-P304 a period budget
        that is larger or comes round sooner, CSL-P305 another hold-out rule.
    """
    if policy.institution != state.member:
        raise PolicyError(
            "CSL-P301",
            f"The ledger is that of {state.member}; the policy, of {policy.institution}.",
            "Install this institution's policy.",
        )
    if policy.version <= state.policy_version:
        raise PolicyError(
            "CSL-P302",
            f"Version {state.policy_version} of the policy was in force; version {policy.version} is not newer.",
            "Give a changed policy the next version number.",
        )
    if state.limits is not None:
        _check_budget(state.limits, policy)
    changed = sorted(
        rule.contract for rule in policy.studies if state.holdouts.get(rule.contract, rule.holdout) != rule.holdout
    )
    try:
        check_holdouts(_holdouts(state, policy))
    except ValueError:
        changed = changed or sorted(rule.contract for rule in policy.studies)
    if changed:
        raise PolicyError(
            "CSL-P305",
            f"The hold-out rule of {', '.join(changed)} does not agree with that of an earlier policy.",
            "Keep the rule: training and hold-out are separate accounts only while no customer changes sides.",
        )


def _check_budget(limits: Limits, policy: Policy) -> None:
    life, period = policy.budget.life, policy.budget.period
    if (life.epsilon, life.delta) != (limits.life_epsilon, limits.life_delta):
        raise PolicyError(
            "CSL-P303",
            f"The life budget is fixed at epsilon {limits.life_epsilon:g}, delta {limits.life_delta:g}.",
            "Write the same life budget into the new policy.",
        )
    if period.epsilon > limits.period_epsilon or period.delta > limits.period_delta or period.days < limits.period_days:
        raise PolicyError(
            "CSL-P304",
            f"The new policy raises the budget of epsilon {limits.period_epsilon:g} in {limits.period_days} days.",
            "Keep it or lower it: a raise needs two officers' signatures, which this release cannot take.",
        )


def _holdouts(state: State, policy: Policy) -> dict[str, Holdout]:
    return {**state.holdouts, **{rule.contract: rule.holdout for rule in policy.studies}}


def _genesis(state: State, body: Genesis) -> State:
    if state.size:
        raise PolicyError("CSL-P306", "A second genesis entry.", "Restore the ledger from its last backup.")
    return state.model_copy(update={"member": body.data.member})


def _activate(state: State, body: PolicyEntry) -> State:
    policy = body.data.policy
    check_policy(state, policy)
    update = {
        "policy": body.data.sha256,
        "policy_version": policy.version,
        "limits": body.data.limits,
        "holdouts": _holdouts(state, policy),
    }
    return state.model_copy(update=update)


def _reserve(state: State, body: Reserve, reservation: Reservation | None) -> State:
    limits = state.limits
    today = EPOCH + timedelta(days=body.day)
    if reservation is not None:
        raise PolicyError(
            "CSL-P402", "This study was reserved before, on other terms.", "Plan the study anew: it gets a new digest."
        )
    if limits is None or body.data.policy != state.policy or not limits.issued <= today < limits.expires:
        raise PolicyError(
            "CSL-P401",
            "The terms are not those of a policy that is in force in the ledger.",
            "Activate the policy, then decide again.",
        )
    if body.data.run_delta != limits.run_delta:
        raise PolicyError("CSL-P401", "The study is priced at another delta0 than the policy's.", "Price it anew.")
    accounts: dict[str, AccountState] = {}
    for charge in body.data.charges:
        account = state.account(charge.account)
        check_fit(limits, charge.account, account.period(body.day, limits.period_days), account.life, charge.cost)
        more = {"life": total([account.life, charge.cost]), "open": total([account.open, charge.cost])}
        accounts[charge.account] = account.model_copy(update=more)
    return state.model_copy(update=accounts)


def check_release(body: Release, reservation: Reservation | None, number_taken: bool) -> None:
    """Refuse a release that nothing was reserved for.

    Raises
    ------
    PolicyError
        CSL-P405 no reservation, CSL-P406 closed, CSL-P407 nothing reserved on the account, CSL-P408 all reserved
        releases were used, CSL-P409 the number was used for another release.
    """
    known = _open(reservation)
    charge = known.data.charge(body.data.account)
    if charge is None:
        raise PolicyError(
            "CSL-P407", f"Nothing is reserved on the {body.data.account} account.", "Reserve the whole study first."
        )
    if number_taken:
        raise PolicyError(
            "CSL-P409",
            f"Number {body.data.number} of the study was released before, with other bytes.",
            "Send the reply that was kept.",
        )
    if known.released.get(body.data.account, 0) >= charge.releases:
        raise PolicyError(
            "CSL-P408",
            f"All {charge.releases} releases reserved on the {body.data.account} account were used.",
            "Plan a new study.",
        )


def _close(state: State, body: Close, reservation: Reservation | None) -> State:
    known = _open(reservation)
    if body.data.returned != known.untouched():
        raise PolicyError(
            "CSL-P410",
            "A close returns exactly the accounts from which nothing was released.",
            "Restore the ledger from its last backup.",
        )
    accounts: dict[str, AccountState] = {}
    for charge in known.data.charges:
        account = state.account(charge.account)
        update: dict[str, object] = {"open": _less(account.open, charge.cost)}
        if charge.account in body.data.returned:
            update["life"] = _less(account.life, charge.cost)
        else:
            update["days"] = _add_day(account.days, body.day, charge.cost)
        accounts[charge.account] = account.model_copy(update=update)
    return state.model_copy(update=accounts)


def _open(reservation: Reservation | None) -> Reservation:
    if reservation is None:
        raise PolicyError(
            "CSL-P405", "Nothing is reserved for this study.", "Reserve the whole study before anything leaves."
        )
    if reservation.closed:
        raise PolicyError("CSL-P406", "The study is closed.", "Plan a new study.")
    return reservation


def _less(whole: Token, part: Token) -> Token:
    return Token(
        mu_squared_nano=whole.mu_squared_nano - part.mu_squared_nano, delta_femto=whole.delta_femto - part.delta_femto
    )


def _add_day(days: tuple[DayTotal, ...], day: int, cost: Token) -> tuple[DayTotal, ...]:
    kept = [item for item in days if item.day > day - LONGEST_PERIOD]
    if kept and kept[-1].day == day:
        cost = total([kept.pop().spent, cost])
    return (*kept, DayTotal(day=day, spent=cost))


def _extended(state: State, ts: int, leaf: bytes) -> State:
    nodes = append(state.size, [bytes.fromhex(node) for node in state.frontier], leaf)
    update = {"size": state.size + 1, "head": leaf.hex(), "ts": ts, "frontier": tuple(node.hex() for node in nodes)}
    return state.model_copy(update=update)
