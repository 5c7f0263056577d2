"""What a study would cost an institution, before anything is decided: the very figures that the vault would reserve."""

import math
from dataclasses import dataclass, replace
from datetime import timedelta

from client.pricing import broken_epsilon, events_of, price_study
from client.statistics.pricing import price_statistics, statistics_broken, statistics_events
from federation.charter import Charter
from federation.contract import FeatureContract
from federation.errors import PolicyError
from federation.messages import Grant, StatisticsGrant
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.cost import NOTHING, Cost, total
from privacy.decision import Terms, decide, decide_statistics
from privacy.events import PrivacyEvent
from privacy.filter import Limits, fits, price
from privacy.ledger import Account, LedgerReader, Spending
from privacy.ledger.entries import MILLISECONDS_A_DAY
from privacy.ledger.rules import rule_for
from privacy.ledger.state import EPOCH, State
from privacy.plan import plan_epsilon

Spec = StudySpec | StatisticsSpec
AnyGrant = Grant | StatisticsGrant
GRID = 100  # epsilons that are proposed are multiples of 1/GRID


@dataclass(frozen=True)
class Effect:
    """What a study does to one budget of one account.

    `before` and `after` are the epsilon that everything charged enforces at the budget's delta (None above 100), `left`
    the largest epsilon of one further study afterwards, `share` the part of the budget that the study takes, `again` how
    many more studies at the same cost fit after it; None without end.
    """

    item: Spending
    cost: Cost
    before: float | None
    after: float | None
    left: float
    share: float
    fits: bool
    again: int | None


@dataclass(frozen=True)
class Outlook:
    """The terms that the policy in force would grant a study, the noise, and what that does to each budget it counts in.

    `if_broken`: for a study that is added up in secret, each account's epsilon by one's own noise alone; never part of a cost.
    `exhausted`: the ledger lost entries, and nothing remains to spend whatever the effects say. `members`: how many institutions
    declare the study's contract.
    """

    terms: Terms
    grant: AnyGrant
    costs: dict[Account, Cost]
    effects: tuple[Effect, ...]
    exhausted: bool
    if_broken: dict[Account, float] | None = None
    members: int = 1

    @property
    def fits(self) -> bool:
        """Whether the study would be reserved, once it is approved."""
        return not self.exhausted and all(effect.fits for effect in self.effects)


def terms_of(spec: Spec, charter: Charter, state: State, now: int) -> Terms:
    """Return what the policy in force would grant a study at `now` (milliseconds since 1970).

    Raises
    ------
    PolicyError
        CSL-C655 when no policy is in force; as `privacy.decision.decide` when it grants nothing.
    """
    if state.policy is None or state.member is None:
        raise PolicyError(
            "CSL-C655",
            "No policy is in force in the ledger: every study is refused.",
            "Write one by `consilience officer policy new`, let it be signed, and activate it.",
        )
    today = EPOCH + timedelta(days=max(now, state.ts) // MILLISECONDS_A_DAY)
    if isinstance(spec, StatisticsSpec):
        return decide_statistics(state.policy, spec, charter, state.member, today)
    taken = state.plan.taken if state.plan is not None else ()
    return decide(state.policy, spec, charter, state.member, today, taken)


def look_ahead(spec: Spec, charter: Charter, reader: LedgerReader, now: int, contract: FeatureContract) -> Outlook:
    """Price a study as the vault would, and return what it would do to the budgets at `now`; changes nothing.

    Raises
    ------
    PolicyError
        As `terms_of`; as `client.pricing.price_study` or `client.statistics.pricing.price_statistics` when no noise brings the study to
        its epsilon.
    """
    state = reader.state()
    terms = terms_of(spec, charter, state, now)
    assert state.limits is not None
    grant = _grant(spec, charter, state, terms, contract)
    costs = costs_of(spec, grant, terms, state.limits)
    rows = [item for item in reader.spending(now) if item.purpose in (None, terms.purpose)]
    effects = tuple(_effect(item, costs[item.account], state) for item in rows)
    members = sum(member.declaration(terms.contract) is not None for member in charter.members)
    return Outlook(terms, grant, costs, effects, state.exhausted, if_broken_of(spec, grant, terms), members)


def if_broken_at(
    spec: Spec, charter: Charter, reader: LedgerReader, now: int, contract: FeatureContract
) -> dict[Account, float] | None:
    """Return what would hold for a study by one's own noise alone, on each account, were it granted at `now`; None for a plain
    study. Raises as `look_ahead`."""
    if spec.secure is None:
        return None
    state = reader.state()
    terms = terms_of(spec, charter, state, now)
    return if_broken_of(spec, _grant(spec, charter, state, terms, contract), terms)


def if_broken_of(spec: Spec, grant: AnyGrant, terms: Terms) -> dict[Account, float] | None:
    """Return the epsilon that one's own noise alone gives a study's grant on each account; None for a plain study's."""
    if isinstance(grant, StatisticsGrant):
        assert isinstance(spec, StatisticsSpec)  # a grant is of its study's kind
        return statistics_broken(spec, grant)
    return None if terms.secure is None else broken_epsilon(grant, terms.secure, terms.delta)


def _grant(spec: Spec, charter: Charter, state: State, terms: Terms, contract: FeatureContract) -> AnyGrant:
    assert state.member is not None
    declaration = charter.member(state.member).declaration(terms.contract)
    assert declaration is not None  # `decide` looked
    if isinstance(spec, StatisticsSpec):
        return price_statistics(spec, state.member, declaration, terms)
    return price_study(spec, state.member, declaration, terms, contract)


def costs_of(spec: Spec, grant: AnyGrant, terms: Terms, limits: Limits) -> dict[Account, Cost]:
    """Return what a study's grant is charged on each account: nothing where it fills a plan's slot, which is paid for."""
    events: dict[Account, tuple[PrivacyEvent, ...]]
    if isinstance(grant, StatisticsGrant):
        assert isinstance(spec, StatisticsSpec)  # a grant is of its study's kind
        events = statistics_events(spec, grant)
    else:
        events = events_of(grant, terms.secure)
    if terms.slot is not None:
        return dict.fromkeys(events, NOTHING)
    return {account: price(each, limits, terms.purpose) for account, each in events.items()}


def largest_epsilon(
    spec: Spec, charter: Charter, reader: LedgerReader, after: Outlook, contract: FeatureContract
) -> float | None:
    """Return the largest epsilon, to two decimals, at which a study of the same kind still fits.

    Where `after` fits, that is a further study after it; else the study itself. None when no epsilon of at least 0.01 fits,
    and for a study in a slot, whose size the plan decides.
    """
    state, terms = reader.state(), after.terms
    if terms.slot is not None or state.exhausted or state.policy is None:
        return None
    rule = rule_for(state.policy, terms.contract, terms.purpose, terms.work)
    assert rule is not None  # `terms` are of this policy
    low, high = 0, int(rule.max_epsilon * GRID + 1e-9) + 1
    trial = high - 1
    while high - low > 1:
        part = _part_of_room(spec, charter, state, after, contract, trial / GRID)
        low, high = (trial, high) if part <= 1.0 else (low, trial)
        # mu^2 and rho grow about as epsilon^2
        guess = int(trial / math.sqrt(part)) if math.isfinite(part) else (low + high) // 2
        trial = min(max(guess, low + 1), high - 1)
    return low / GRID if low else None


def how_often(
    spec: Spec,
    charter: Charter,
    reader: LedgerReader,
    after: Outlook,
    contract: FeatureContract,
    epsilon: float,
) -> int:
    """Return how many studies of the same kind at `epsilon` fit together into what is left after `after` (before it, where it
    does not fit); 0 for a study in a slot."""
    state = reader.state()
    if after.terms.slot is not None or state.exhausted:
        return 0
    asked = epsilon == after.terms.epsilon
    costs = after.costs if asked else _costs_at(spec, charter, state, after.terms, contract, epsilon)
    counts = [_room(effect.item, _taken(effect, after), costs[effect.item.account]) for effect in after.effects]
    return min(count for count in counts if count is not None)


def _part_of_room(
    spec: Spec, charter: Charter, state: State, after: Outlook, contract: FeatureContract, epsilon: float
) -> float:
    """Return which part of what is left a study at `epsilon` takes, where it takes most; infinity where nothing is left, or
    the study has no price."""
    try:
        costs = _costs_at(spec, charter, state, after.terms, contract, epsilon)
    except PolicyError:
        return math.inf
    parts = []
    for effect in after.effects:
        cost, taken, most = costs[effect.item.account], _taken(effect, after), effect.item.bound.capacity
        pairs = ((cost.nano, most.nano - taken.nano), (cost.femto, most.femto - taken.femto))
        parts += [each / room if room > 0 else math.inf for each, room in pairs if each]
    return max(parts)


def _costs_at(
    spec: Spec, charter: Charter, state: State, terms: Terms, contract: FeatureContract, epsilon: float
) -> dict[Account, Cost]:
    assert state.limits is not None
    other = replace(terms, epsilon=epsilon)
    return costs_of(spec, _grant(spec, charter, state, other, contract), other, state.limits)


def _taken(effect: Effect, after: Outlook) -> Cost:
    return total([effect.item.used, effect.cost]) if after.fits else effect.item.used


def _effect(item: Spending, cost: Cost, state: State) -> Effect:
    later = total([item.used, cost])
    room = fits(item.bound, item.used, cost) or cost == NOTHING
    after = replace(item, spent=total([item.spent, cost]))
    return Effect(
        item=item,
        cost=cost,
        before=used_epsilon(item, state),
        after=used_epsilon(item, state) if cost == NOTHING else enforced(item, later),
        left=after.left_epsilon if room else item.left_epsilon,
        share=item.bound.share(cost),
        fits=room and not item.exhausted,
        again=0 if item.exhausted else _room(item, later, cost),
    )


def _room(item: Spending, spent: Cost, cost: Cost) -> int | None:
    """Return how often `cost` fits after `spent`: the lesser of what the two parts of a cost allow; None for no cost."""
    most = item.bound.capacity
    counts = [
        max(whole - used, 0) // each
        for whole, used, each in ((most.nano, spent.nano, cost.nano), (most.femto, spent.femto, cost.femto))
        if each
    ]
    return min(counts) if counts else None


def enforced(item: Spending, cost: Cost) -> float | None:
    """Return the epsilon that costs enforce at a budget's delta; None where no epsilon up to 100 describes them."""
    try:
        return item.epsilon_of(cost)
    except PolicyError:
        return None


def used_epsilon(item: Spending, state: State) -> float | None:
    """Return the epsilon that everything counted against a budget enforces; None where no epsilon up to 100 does.

    A plan that alone counts is enforced by its slots' privacy loss distribution, which is below the price at which it is
    added to what comes after it.
    """
    added = enforced(item, item.used)
    if state.plan is None or item.spent != NOTHING:
        return added
    charge = next(
        (one for one in state.plan.charges if (one.account, one.purpose) == (item.account, item.purpose)), None
    )
    if charge is None or charge.cost != item.reserved:
        return added
    slots = tuple(slot for slot in state.plan.slots if item.purpose in (None, slot.purpose))
    whole = plan_epsilon(slots, item.account, item.delta)
    return whole if added is None else min(whole, added)
