"""How a vault answers a statistics study that is not added up in secret: each round's noisy sums, and the report at its end."""

from flwr.app import RecordDict

from client.gate import Gate
from client.releases import Paid, Releases
from client.rooms import Rooms
from client.statistics.asked import check_measures
from client.studies import OpenStatistics, Studies, check_plain
from federation.encoding import sha256_hex
from federation.messages import StatisticsRelease, StatisticsRequest, dump_tensors, unpack
from privacy.randomness import RandomSource

SUMS = "sums"
LARGEST_SUM = 2.0**44
"""Every integer is cut here before noise: far above what any cohort comes to, far below where int64 wraps around."""


class StatisticsRounds:
    """The rounds of one vault's statistics studies; parameters as of `client.rounds.Rounds`."""

    def __init__(
        self,
        coordinator: str,
        member: str,
        *,
        gate: Gate,
        studies: Studies,
        releases: Releases,
        rooms: Rooms,
        source: RandomSource,
    ) -> None:
        self._coordinator = coordinator
        self._member = member
        self._gate = gate
        self._studies = studies
        self._releases = releases
        self._rooms = rooms
        self._source = source

    def measure(self, request: RecordDict) -> RecordDict:
        """Answer `query.measure`: one round's noisy sums, or the very same ones again.

        Raises
        ------
        PolicyError
            CSL-C470 for a study of secure sums, CSL-C492, CSL-C511 no such study, CSL-C515, CSL-C516 released before; as
            `client.statistics.asked.check_measures` and `Gate.check_standing`.
        IntegrityError
            CSL-F201 to F209 for the message; as `client.statistics.asked.check_measures`.
        """
        header, _ = unpack(request, StatisticsRequest, self._coordinator)
        study = self._studies.statistics(header.study)
        check_plain(study)
        check_measures(study, header, self._gate.contract(study.spec.draft.contract))
        entries = paid_by(study, header.round)
        again = self._releases.again(study.rid, entries, request)
        if again is not None:
            return again
        self._gate.check_standing(study)
        sums = self._rooms.counting(study).vector(header, study.grant.share, self._source, LARGEST_SUM)
        content = dump_tensors({SUMS: sums})
        release = StatisticsRelease(
            study=study.rid, member=self._member, round=header.round, payload=sha256_hex(content)
        )
        return self._releases.make(study.rid, entries, request, release, content)


def paid_by(study: OpenStatistics, number: int) -> tuple[Paid, Paid]:
    """Return the ledger's two entries of one round: all customers are counted, so that both accounts pay.

    The first has the round's number; the second comes after those of all rounds, since a number stands once in a study.
    """
    rounds = study.spec.plan.rounds
    what = f"statistics, round {number} of {rounds}"
    return Paid(number, "training", what), Paid(rounds + number, "holdout", f"{what}, for those held out")
