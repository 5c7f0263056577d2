"""One round's sums: each member's own, added up here, or opened in secret."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from federation.contract import FeatureContract
from federation.errors import FederationError, IntegrityError
from federation.measures import Cells, Centres, dimension_of
from federation.messages import StatisticsGrant, StatisticsRelease, StatisticsRequest, pack, read_tensors
from federation.statistics import StatisticsSpec
from server.events import LeftOut, OnEvent
from server.exchange import Answer, Failure
from server.secure.calls import Line, read
from server.secure.sums import SecureSums, SumTerms

SUMS = "sums"
LARGEST = 1 << 45
# So many times its declared customers a member's counts may hold before the sum is not believed.
LARGER_THAN_DECLARED = 8.0

Measures = Sequence[Cells | Centres]


@dataclass(frozen=True)
class Counted:
    """The sum of a round, int64 [d]; whose vectors are in it, and at which attempt it came about."""

    total: NDArray[np.int64]
    members: tuple[str, ...]
    attempts: int = 1


class Counting(Protocol):
    """How the sum of a round comes about."""

    @property
    def line(self) -> Line:
        """Reaches those who are asked."""

    def count(self, number: int, measures: Measures) -> Counted:
        """Ask for one round."""


class PlainCounting:
    """Each member's noisy sums come by themselves, and are added up."""

    def __init__(
        self,
        spec: StatisticsSpec,
        contract: FeatureContract,
        key: Ed25519PrivateKey,
        line: Line,
        least: int,
        on_event: OnEvent,
    ) -> None:
        self._study = spec.digest()
        self._contract = contract
        self._key = key
        self.line = line
        self._least = least
        self._on_event = on_event

    def count(self, number: int, measures: Measures) -> Counted:
        """Ask for one round.

        Raises
        ------
        FederationError
            CSL-S501 when too few members answered as agreed.
        """
        request = StatisticsRequest(study=self._study, round=number, measures=tuple(measures))
        dimension = dimension_of(measures, self._contract)

        def accept(member: str, answer: Answer) -> NDArray[np.int64] | Failure:
            return self._sums(member, answer, number, dimension)

        records = dict.fromkeys(self.line.members, pack(self._key, request))
        found, failures = self.line.gather("measure", records, number, accept)
        for member, failure in sorted(failures.items()):
            self._on_event(LeftOut("statistics", number, member, failure.code, failure.reason))
        if len(found) < self._least:
            raise FederationError(
                "CSL-S501",
                f"{len(found)} members answered in round {number}; the study needs {self._least}.",
                "Bring the others back and run the study again: it goes on from its checkpoint.",
            )
        members = tuple(sorted(found))
        total: NDArray[np.int64] = np.sum(np.stack([found[name] for name in members]), axis=0, dtype=np.int64)
        return Counted(total, members)

    def _sums(self, member: str, answer: Answer, number: int, dimension: int) -> NDArray[np.int64] | Failure:
        opened = read(answer, StatisticsRelease, self.line.peers[member])
        if isinstance(opened, Failure):
            return opened
        header, payload = opened
        if (header.study, header.member, header.round) != (self._study, member, number):
            return Failure("CSL-S208", "answered for another study, member or round")
        try:
            sums = read_tensors(payload, {SUMS: ((dimension,), "int64")})[SUMS]
        except IntegrityError as error:
            return Failure("CSL-S207", f"sent an answer that does not fit ({error.code})")
        if max(int(sums.max(initial=0)), -int(sums.min(initial=0))) > LARGEST:  # the least int64 has no absolute value
            return Failure("CSL-S209", "sent sums beyond all bounds")
        return sums.astype(np.int64)


class SecureCounting:
    """Every vault masks its vector, and the coordinator opens the sum."""

    def __init__(
        self,
        spec: StatisticsSpec,
        contract: FeatureContract,
        grants: Mapping[str, StatisticsGrant],
        sums: SecureSums,
        line: Line,
    ) -> None:
        self._study = spec.digest()
        self._contract = contract
        self._grants = grants
        self._sums = sums
        self.line = line

    def count(self, number: int, measures: Measures) -> Counted:
        """Ask for one round. Raises as `SecureSums.sum`."""
        request = StatisticsRequest(study=self._study, round=number, measures=tuple(measures))
        most = max(grant.declared_size for grant in self._grants.values())
        caps = [
            max((term.cap for term in item.terms), default=1) if isinstance(item, Cells) else max(item.cap, item.reach)
            for item in measures
        ]
        x_max = LARGER_THAN_DECLARED * most * max(caps)
        terms = SumTerms(number, f"round {number}", dimension_of(measures, self._contract), 1.0, float(x_max))
        opened = self._sums.sum(terms, dict.fromkeys(sorted(self._grants), request), b"")
        return Counted(opened.total, opened.members, opened.attempts)


def noise_of(members: int, share: float) -> float:
    """Return the standard deviation of each integer's noise in a sum over so many members, in grid units."""
    return share * math.sqrt(members)
