"""What the marketing report found, part by part; for the page, the terminal and programs."""

from dataclasses import asdict, dataclass

from federation.answers import Answer, StatisticsReport
from federation.contract import FeatureContract
from federation.statistics import StatisticsDraft
from simulations.sites import Site


@dataclass(frozen=True)
class Judged:
    """How many intervals were judged, and how many of them held the exact answer."""

    held: int
    of: int

    @property
    def share(self) -> float | None:
        """The share that held; None where there was none."""
        return self.held / self.of if self.of else None

    def __add__(self, other: "Judged") -> "Judged":
        """Return both together."""
        return Judged(self.held + other.held, self.of + other.of)


@dataclass(frozen=True)
class Account:
    """What one institution granted and spent; `training` and `holdout` are its two accounts, by their privacy loss distribution."""

    title: str
    declared: int
    granted: float
    delta: float
    training: float
    holdout: float
    rounds: int


@dataclass(frozen=True)
class Part:
    """One study of the report: what was answered, what would have been without noise, and what it cost.

    `exact` are the answers to the same questions that no party sees; `alone` and `both` say how often intervals held them (the noise alone;
    noise and population). `files` are the report for programs and its readable form, relative to the page. `integers`
    is how many all sums together have. `sent` and `received` are bytes,
    as the coordinator counts them.
    """

    name: str
    draft: StatisticsDraft
    contract: FeatureContract
    report: StatisticsReport
    exact: tuple[Answer, ...]
    alone: Judged
    both: Judged
    accounts: tuple[Account, ...]
    sites: tuple[Site, ...]
    seconds: float
    integers: int
    sent: int
    received: int
    files: tuple[str, str]


@dataclass(frozen=True)
class MarketingReport:
    """All parts; `seeds` say what was simulated, by what it is."""

    version: str
    started: str
    seconds: float
    seeds: dict[str, int]
    parts: tuple[Part, ...]
    sources: tuple[tuple[str, str, str], ...]

    def part(self, name: str) -> Part:
        """Return a part by its name; KeyError if there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    @property
    def alone(self) -> Judged:
        """How often intervals for the noise alone held the exact answer, over all parts."""
        return sum((part.alone for part in self.parts), Judged(0, 0))

    @property
    def both(self) -> Judged:
        """How often intervals for noise and population held the exact answer, over all parts."""
        return sum((part.both for part in self.parts), Judged(0, 0))

    def as_tree(self) -> dict[str, object]:
        """Return everything as JSON knows it: each part's published report, the exact answers, accounts and intervals judged."""
        return {
            "version": self.version,
            "seconds": self.seconds,
            "seeds": self.seeds,
            "intervals": {"noise": asdict(self.alone), "population": asdict(self.both)},
            "parts": {part.name: _part_tree(part) for part in self.parts},
        }


def _part_tree(part: Part) -> dict[str, object]:
    return {
        "report": part.report.model_dump(mode="json"),
        "exact_seen_by_no_party": [answer.model_dump(mode="json") for answer in part.exact],
        "intervals": {"noise": asdict(part.alone), "population": asdict(part.both)},
        "accounts": [asdict(account) for account in part.accounts],
        "seconds": part.seconds,
        "integers": part.integers,
        "bytes": {"sent": part.sent, "received": part.received},
        "files": list(part.files),
    }
