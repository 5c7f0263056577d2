"""What past studies may still hold of some customers: which models saw them, and how much differential privacy lets those show.

Nothing can be taken out of a model that was released. What can be said is a bound: a study with (epsilon, delta) for each customer
changes even odds about whether she took part into at most e^epsilon : 1, but for a chance of delta.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from client import lists
from client.decisions import InUse, read_decision
from client.home import Home
from client.participation import Seen, recorded, studies_of
from client.studies import OpenStudy, Studies
from client.withdrawal import Withdrawals
from federation.errors import ConsilienceError
from privacy.ledger import LedgerReader
from privacy.ledger.entries import Access, Release


@dataclass(frozen=True)
class PastStudy:
    """A study whose data held some of the customers, and from which something left.

    `model` is the digest of the model that was delivered, None where none was; `released` the time of the last release, ISO 8601.
    """

    study: str
    rid: str
    purpose: str
    seen: Seen
    released: str
    model: str | None
    in_use: bool
    epsilon: float
    delta: float

    @property
    def certainty(self) -> float:
        """What even odds about one customer become at most."""
        return certainty(self.epsilon, self.delta)


@dataclass(frozen=True)
class ListLoss:
    """A name list that names some of the customers: how many lines, and whether it was ever exported in clear."""

    stem: str
    lines: int
    exported: bool


@dataclass(frozen=True)
class Influence:
    """What is known about some customers: past studies, those of which nothing is known any more, lists, and lists that do not
    open."""

    studies: tuple[PastStudy, ...]
    unrecorded: tuple[str, ...]
    lists: tuple[ListLoss, ...]
    unreadable: tuple[str, ...]

    @property
    def epsilon(self) -> float:
        """The epsilon of all these studies together, for a customer who was in every one: their sum (Dwork and Roth 2014,
        Theorem 3.16)."""
        return math.fsum(study.epsilon for study in self.studies)

    @property
    def delta(self) -> float:
        """The delta of all these studies together."""
        return math.fsum(study.delta for study in self.studies)


@dataclass(frozen=True)
class _Past:
    """What one reading of the ledger tells: when each study released something last, and which lists were exported."""

    released: Mapping[str, int]
    exported: frozenset[str]


def certainty(epsilon: float, delta: float) -> float:
    """Return what a belief of one half that a customer took part can become: e^epsilon / (1 + e^epsilon) + delta, at most 1.

    By Bayes' rule from the bound e^epsilon on the ratio of likelihoods; it can fail with a chance of delta, which is added (for the
    chance of a right guess the exact bound is (e^epsilon + delta) / (1 + e^epsilon): Kairouz, Oh and Viswanath 2015).
    """
    return min(1.0, 1.0 / (1.0 + math.exp(-epsilon)) + delta)


def influence(
    home: Home, store_key: bytes, ledger: LedgerReader, customers: Iterable[str], withdrawn: Withdrawals
) -> Influence:
    """Find out what past studies and present lists hold of the customers; reads the whole ledger once, and changes nothing.

    Parameters
    ----------
    customers:
        Their identifiers.
    withdrawn:
        The register with these customers in it: whom it names and a list names too is counted.

    Raises
    ------
    ConsilienceError
        When participation records or the ledger cannot be read; a list that cannot be opened is reported instead.
    """
    seen = studies_of(home, store_key, customers)
    past = _past(ledger)
    studies = [
        _past_study(home, store_key, rid, held, past) for rid, held in seen.items() if held and rid in past.released
    ]
    losses, unreadable = _lists(home, store_key, withdrawn, past)
    forgotten = sorted(past.released.keys() - set(recorded(home)))
    return Influence(
        studies=tuple(sorted(studies, key=lambda study: (study.released, study.rid))),
        unrecorded=tuple(_name(home, rid) for rid in forgotten),
        lists=tuple(losses),
        unreadable=tuple(unreadable),
    )


def _past(ledger: LedgerReader) -> _Past:
    released: dict[str, int] = {}
    exported: set[str] = set()
    for entry in ledger.entries():
        body = entry.body
        if isinstance(body, Release):
            released[body.rid] = body.ts
        elif isinstance(body, Access) and body.data.action == "export":
            exported.add(body.data.what)
    return _Past(released, frozenset(exported))


def _past_study(home: Home, store_key: bytes, rid: str, seen: Seen, past: _Past) -> PastStudy:
    study = Studies(home.folder("studies")).find(rid)
    decision = read_decision(home, rid, store_key)
    when = datetime.fromtimestamp(past.released[rid] / 1000, UTC)
    return PastStudy(
        study=study.spec.draft.name,
        rid=rid,
        purpose=study.spec.draft.purpose,
        seen=seen,
        released=when.isoformat(timespec="seconds"),
        model=None if decision is None else decision.model,
        in_use=_in_use(home, study),
        epsilon=study.grant.epsilon,
        delta=study.grant.delta,
    )


def _in_use(home: Home, study: OpenStudy) -> bool:
    draft = study.spec.draft
    pointer = home.folder("models") / f"in-use-{draft.contract}-{draft.purpose}.json"
    return pointer.exists() and InUse.from_canonical(pointer.read_bytes()).rid == study.rid


def _name(home: Home, rid: str) -> str:
    try:
        return f"{Studies(home.folder('studies')).find(rid).spec.draft.name} ({rid[:12]})"
    except ConsilienceError:
        return rid[:12]


def _lists(home: Home, store_key: bytes, withdrawn: Withdrawals, past: _Past) -> tuple[list[ListLoss], list[str]]:
    folder = home.folder("lists")
    losses: list[ListLoss] = []
    unreadable: list[str] = []
    for stem in lists.stems(folder):
        try:
            named = withdrawn.mask([line.customer for line in lists.read_list(folder, stem, store_key).listed])
        except ConsilienceError:
            unreadable.append(stem)
            continue
        if named.any():
            losses.append(ListLoss(stem, int(named.sum()), lists.called(stem) in past.exported))
    return losses, unreadable
