"""What a request must pass before data are read: charter, contract, the policy in force, approvals, the reservation.

Everything here looks at public inputs, the ledger and the policy; nothing looks at customers.
"""

from client.config import NodeConfig
from client.home import Home
from client.inbox import Inbox, PendingStudy
from client.pricing import broken_epsilon, events_of, price_study
from client.statistics.pricing import price_statistics, statistics_broken, statistics_events
from client.studies import Opened, OpenStatistics
from federation.charter import Charter, Declaration
from federation.contract import FeatureContract
from federation.errors import IntegrityError, PolicyError
from federation.messages import Grant, Offer, StatisticsGrant
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.decision import Terms, decide, decide_statistics
from privacy.events import PrivacyEvent
from privacy.ledger import Account, Ledger
from privacy.ledger.authority import standing
from privacy.ledger.rules import nothing_remains
from privacy.ledger.secrecy import check_floor
from privacy.ledger.state import State
from privacy.policy import Policy


class Gate:
    """The gate of one vault."""

    def __init__(self, home: Home, charter: Charter, node: NodeConfig, ledger: Ledger) -> None:
        self._home = home
        self._charter = charter
        self._node = node
        self._ledger = ledger
        self._inbox = Inbox(home.folder("inbox"))
        self._contracts: dict[str, FeatureContract] = {}

    def policy(self) -> Policy:
        """Return the policy in force; officers may bring another one into force while the vault runs."""
        return _in_force(self._ledger.state())

    def contract(self, name: str) -> FeatureContract:
        """Return a pinned contract; read once, as charter, policy and node configuration are."""
        if name not in self._contracts:
            self._contracts[name] = self._home.contract(self._charter, name)
        return self._contracts[name]

    def check_spec(self, spec: StudySpec | StatisticsSpec) -> Declaration:
        """Check that a study belongs to this federation and that this member declared itself for its contract."""
        charter, draft = self._charter, spec.draft
        if (spec.federation, spec.charter) != (charter.federation, charter.digest()):
            raise IntegrityError(
                "CSL-C506", "The study belongs to another charter.", "Agree on one charter and pin it."
            )
        if spec.contract_digest != charter.contract_digest(draft.contract):
            raise IntegrityError(
                "CSL-C507", "The study names another contract than the charter pins.", "Plan the study anew."
            )
        self.contract(draft.contract)
        declaration = charter.member(self._node.member).declaration(draft.contract)
        if declaration is None or draft.contract not in self._node.contracts:
            raise PolicyError(
                "CSL-C508",
                f"This node does not serve the contract {draft.contract}.",
                "Map the contract in node.yaml, or decline the study.",
            )
        return declaration

    def decide(self, spec: StudySpec | StatisticsSpec) -> Terms:
        """Return what the policy in force grants a study; the slot that it fills already counts as free for it."""
        state = self._ledger.state()
        if isinstance(spec, StatisticsSpec):
            return decide_statistics(_in_force(state), spec, self._charter, self._node.member, self._ledger.today())
        taken: tuple[str, ...] = ()
        if state.plan is not None:
            held = self._ledger.reservation(spec.digest())
            own = None if held is None else held.data.slot
            taken = tuple(slot for slot in state.plan.taken if slot != own)
        return decide(_in_force(state), spec, self._charter, self._node.member, self._ledger.today(), taken)

    def check_approved(self, offer: Offer, rid: str, terms: Terms) -> None:
        """Keep a study that officers must approve in their inbox; towards the coordinator it is refused like any other."""
        decisions = self._ledger.decisions(rid)
        if standing(terms.policy, terms.eyes, decisions) != "waiting" or self._ledger.has_reservation(rid):
            return
        pending = PendingStudy(
            spec=offer.spec,
            signature=offer.spec_signature,
            policy=terms.policy,
            epsilon=terms.epsilon,
            delta=terms.delta,
            received=self._ledger.now(),
        )
        self._inbox.keep(pending)
        raise PolicyError(
            "CSL-C528",
            f"The study waits for the approval of {terms.eyes} officer{'s' if terms.eyes > 1 else ''}.",
            "See `consilience officer inbox`; the coordinator may offer the same study again.",
        )

    def reserve(self, spec: StudySpec, declaration: Declaration, terms: Terms) -> Grant:
        """Price a study on its terms, set aside in the ledger what it costs, and return what is granted.

        Raises
        ------
        ConsilienceError
            As `client.pricing.price_study` and `privacy.ledger.Ledger.reserve`.
        """
        plan = spec.secure
        grant = price_study(spec, self._node.member, declaration, terms, self.contract(spec.draft.contract))
        self._ledger.reserve(
            grant.study,
            study=spec.draft.name,
            charges=events_of(grant, plan),
            releases={"training": spec.training.rounds, "holdout": 1},
            terms=terms,
            if_broken=None if plan is None else broken_epsilon(grant, plan, terms.delta),
        )
        return grant

    def reserve_statistics(self, spec: StatisticsSpec, declaration: Declaration, terms: Terms) -> StatisticsGrant:
        """Price a statistics study, set aside what it costs on both accounts, and return what is granted. Raises as `reserve`."""
        grant = price_statistics(spec, self._node.member, declaration, terms)
        self._ledger.reserve(
            grant.study,
            study=spec.draft.name,
            charges=statistics_events(spec, grant),
            releases={"training": spec.plan.rounds, "holdout": spec.plan.rounds},
            terms=terms,
            if_broken=statistics_broken(spec, grant),
        )
        return grant

    def admitted(self, rid: str) -> None:
        """Take a study that was granted out of the officers' inbox."""
        self._inbox.remove(rid)

    def check_standing(self, study: Opened) -> None:
        """Check, before data are read, that the ledger holds this very grant open and that today's policy still allows it.

        The study's file only says what to look for: noise, rate and steps must be those that were reserved.

        Raises
        ------
        PolicyError
            CSL-C524 when nothing like it is reserved and open, or the policy now grants less, CSL-P217 when it now has a lower floor,
            CSL-P413 when entries were lost; others as `decide`.
        """
        if self._ledger.state().exhausted:
            raise nothing_remains()
        spec, grant = study.spec, study.grant
        self.check_spec(spec)
        terms = self.decide(spec)
        held = self._ledger.reservation(study.rid)
        paid = held is not None and not held.closed and study.rid == spec.digest()
        events = {charge.account: charge.events for charge in held.data.charges} if held is not None else {}
        if not paid or events != _paid_for(study) or grant.epsilon > terms.epsilon or grant.delta > terms.delta:
            raise PolicyError(
                "CSL-C524",
                "The study is not reserved and open on the terms of its grant, or the policy now grants less.",
                "Plan a new study.",
            )
        check_floor(held.data.if_broken if held is not None else None, terms.floor)


def _paid_for(study: Opened) -> dict[Account, tuple[PrivacyEvent, ...]]:
    if isinstance(study, OpenStatistics):
        return statistics_events(study.spec, study.grant)
    return events_of(study.grant, study.spec.secure)


def _in_force(state: State) -> Policy:
    if state.policy is None:
        raise PolicyError(
            "CSL-C527",
            "No policy is in force in the ledger.",
            "Let officers sign one, and bring it into force by `consilience officer policy activate`.",
        )
    return state.policy
