"""A plan in the ledger: charged whole when its policy comes into force, filled slot by slot, retired by the next policy."""

from federation.contract import Name
from federation.document import Document
from federation.errors import PolicyError
from federation.signing import Hex32
from privacy.cost import Cost
from privacy.filter import Limits, fits
from privacy.ledger.entries import ACCOUNTS, Account, PlanCharge, PolicyData, ReserveData, Rid
from privacy.ledger.totals import AccountState
from privacy.plan import Slot, dominated, plan_epsilon

Accounts = dict[str, AccountState]


class PlanState(Document):
    """The plan in force: its slots, what was charged for them, which are taken, which studies are open, and the accounts
    that were ever reserved."""

    policy: Hex32
    slots: tuple[Slot, ...]
    charges: tuple[PlanCharge, ...]
    taken: tuple[Name, ...] = ()
    open: tuple[Rid, ...] = ()
    reserved: tuple[Account, ...] = ()

    def without(self, rid: str) -> "PlanState":
        """Return the plan after one of its studies was closed; its slot stays taken."""
        return self.model_copy(update={"open": tuple(item for item in self.open if item != rid)})


def retire_plan(plan: PlanState | None, accounts: Accounts, day: int) -> Accounts:
    """Return the accounts after a plan ended: what was never reserved comes back, the rest counts on `day`."""
    changed = dict(accounts)
    for charge in plan.charges if plan is not None else ():
        returned = plan is not None and charge.account not in plan.reserved
        changed[charge.account] = changed[charge.account].closed(charge.purpose, day, charge.cost, returned)
    return changed


def open_plan(data: PolicyData, accounts: Accounts, day: int) -> tuple[PlanState | None, Accounts]:
    """Return the plan that a policy opens and the accounts after it was charged; no plan and the same accounts without.

    A plan is one run. It is admitted like any other; or, where nothing else counts in a budget, when the privacy loss
    distribution of all its slots together keeps to that budget: then nothing after it may be admitted there unless it fits
    beside the plan's cost.

    Raises
    ------
    PolicyError
        CSL-P414 when the plan does not fit a budget.
    """
    slots, limits = data.policy.budget.slots, data.limits
    wanted = _lines(slots)
    if [(charge.account, charge.purpose) for charge in data.plan] != wanted:
        raise PolicyError("CSL-P401", "The charges are not those of the plan's slots.", "Activate the policy again.")
    if not slots:
        return None, accounts
    changed = dict(accounts)
    for charge in data.plan:
        account = changed[charge.account]
        _check_plan(limits, charge, account, slots, day)
        changed[charge.account] = account.opened(charge.purpose, charge.cost)
    return PlanState(policy=data.sha256, slots=slots, charges=data.plan), changed


def _lines(slots: tuple[Slot, ...]) -> list[tuple[Account, str | None]]:
    """Return the charges that a plan makes: one for each account, and one for each of its purposes besides."""
    purposes = sorted({slot.purpose for slot in slots})
    return [(account, purpose) for account in ACCOUNTS for purpose in (None, *purposes)] if slots else []


def plan_lines(slots: tuple[Slot, ...]) -> list[tuple[Account, str | None, tuple[Slot, ...]]]:
    """Return for each charge of a plan its account, its purpose (None for all) and the slots that it is for."""
    return [
        (account, purpose, tuple(slot for slot in slots if purpose in (None, slot.purpose)))
        for account, purpose in _lines(slots)
    ]


def _check_plan(limits: Limits, charge: PlanCharge, account: AccountState, slots: tuple[Slot, ...], day: int) -> None:
    own = tuple(slot for slot in slots if charge.purpose in (None, slot.purpose))
    days = limits.period_days
    if charge.purpose is None:
        budgets = [("life", limits.life, account.life), (f"{days} days", limits.period, account.all.spent(day, days))]
    elif charge.purpose in limits.purposes:
        spent = account.purpose(charge.purpose).spent(day, days)
        budgets = [(f"purpose {charge.purpose}", limits.purposes[charge.purpose], spent)]
    else:
        budgets = []
    for what, bound, spent in budgets:
        alone = spent == Cost() and plan_epsilon(own, charge.account, bound.delta) <= bound.epsilon
        if not alone and not fits(bound, spent, charge.cost):
            raise PolicyError(
                "CSL-P414",
                f"The plan does not fit the {charge.account} account's budget for {what} (epsilon {bound.epsilon:g}).",
                "Plan fewer or noisier slots, or wait until the period moves on.",
            )


def check_slot(plan: PlanState | None, data: ReserveData, rid: str) -> PlanState:
    """Return the plan after a study filled one of its slots.

    Raises
    ------
    PolicyError
        CSL-P417 when the slot is not there, taken, or smaller than the study.
    """
    slot = next((item for item in plan.slots if item.id == data.slot), None) if plan is not None else None
    if (
        plan is None
        or slot is None
        or slot.id in plan.taken
        or (slot.purpose, slot.contract) != (data.purpose, data.contract)
    ):
        raise PolicyError("CSL-P417", "The plan has no such free slot for this study.", "Decide again.")
    if not dominated(slot, {charge.account: charge.events for charge in data.charges}):
        raise PolicyError("CSL-P417", f"The study is larger than slot {slot.id}.", "Plan a study that fits the slot.")
    return plan.model_copy(
        update={
            "taken": (*plan.taken, slot.id),
            "open": (*plan.open, rid),
            "reserved": tuple(name for name in ACCOUNTS if name in plan.reserved or data.charge(name) is not None),
        }
    )
