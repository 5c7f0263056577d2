"""Who answers in which round, and who lies: drawn from the simulation's seed before the first round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.engines.draws import FAULTS, stream
from simulations.engines.simulation import Faults
from simulations.engines.work import Floats


@dataclass(frozen=True, eq=False)
class Attendance:
    """What goes wrong in a run.

    Attributes
    ----------
    present:
        bool [T, K]: whose answer came in time.
    computed:
        bool [T, K]: who computed an answer, in time or late.
    duration:
        float64 [T]: how long a round lasted, in units of an institution's median time: until the last answer, or the deadline.
    poisoner:
        bool [K].
    """

    present: NDArray[np.bool_]
    computed: NDArray[np.bool_]
    duration: Floats
    poisoner: NDArray[np.bool_]


def attendance(faults: Faults, institutions: int, rounds: int, seed: int) -> Attendance:
    """Draw who answers.

    Who leaves, is slow or lies does not depend on the number of rounds, and rounds that two studies of one seed both have begin alike: so
    that algorithms of unlike length meet the same institutions.

    An institution's time for a round is exp(s (a + b) / sqrt 2) with standard normal a, its own for the whole run, and b, new each round:
    lognormal with spread s and median 1.
    """
    each_round, leaves, pace, each_pace, lies = (stream(seed, FAULTS, part) for part in range(5))
    absent = each_round.random((rounds, institutions)) < faults.dropout
    gone = leaves.random(institutions) < faults.lost
    absent[rounds // 2 :] |= gone
    normal = (pace.standard_normal(institutions) + each_pace.standard_normal((rounds, institutions))) / np.sqrt(2.0)
    time = np.exp(faults.stragglers * normal)
    limit = max(faults.deadline, 1.0) if faults.stragglers == 0.0 else faults.deadline
    present = ~absent & (time <= limit)
    waited = np.where(present.all(axis=1), time.max(axis=1), limit)
    poisoner = np.zeros(institutions, dtype=np.bool_)
    poisoner[lies.permutation(institutions)[: faults.poisoners.count]] = True
    return Attendance(present, ~absent, waited, poisoner)
