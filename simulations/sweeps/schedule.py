"""Which cell a worker computes next, and how long the rest will take."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from simulations.sweeps.document import Cell

_REMEMBERED = 200


def kinds(cells: Iterable[Cell]) -> Counter[str]:
    """Return how many of these cells each algorithm has."""
    return Counter(cell.simulation.algorithm.kind for cell in cells)


class Schedule:
    """Cells that wait. Those that share data, partners, model and seed go to one worker, one after the other, so that it seats them once.

    A worker whose own group is done takes the largest one that nobody has begun; when all are begun, it helps where most is left.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._groups: dict[str, deque[Cell]] = {}
        for cell in cells:
            self._groups.setdefault(cell.group, deque()).append(cell)
        self._kinds = kinds(cells)
        self._begun: set[str] = set()
        self._own: dict[int, str] = {}

    def __len__(self) -> int:
        """Return how many cells wait."""
        return sum(map(len, self._groups.values()))

    def waiting(self) -> Mapping[str, int]:
        """Return how many cells of each algorithm wait."""
        return self._kinds

    def next(self, worker: int) -> Cell | None:
        """Return the next cell for a worker, or None when none waits."""
        left = {name: len(group) for name, group in self._groups.items() if group}
        if not left:
            return None
        own = self._own.get(worker)
        if own not in left:
            fresh = {name: count for name, count in left.items() if name not in self._begun}
            own = max(fresh or left, key=lambda name: left[name])
            self._own[worker] = own
            self._begun.add(own)
        cell = self._groups[own].popleft()
        self._kinds[cell.simulation.algorithm.kind] -= 1
        return cell


class Pace:
    """How long cells take: the median of the last ones, by algorithm, since these differ most; of all where one was not met yet."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def note(self, algorithm: str, seconds: float) -> None:
        """Note a cell that was computed."""
        self._seconds.setdefault(algorithm, deque(maxlen=_REMEMBERED)).append(seconds)

    def left(self, waiting: Mapping[str, int], workers: int, *, started: bool = False) -> float | None:
        """Return the expected seconds until so many cells by algorithm are computed side by side.

        None where too little was measured: a worker's first cell holds its start-up too, so that cells are typical only once most of them
        were no worker's first. With `started` what was measured is taken as it is.
        """
        if not sum(waiting.values()):
            return 0.0
        every = [value for values in self._seconds.values() for value in values]
        if not every or (not started and len(every) <= 2 * workers):
            return None
        typical = {algorithm: median(values) for algorithm, values in self._seconds.items()}
        otherwise = median(every)
        work = sum(count * typical.get(algorithm, otherwise) for algorithm, count in waiting.items())
        return work / max(1, min(workers, sum(waiting.values())))
