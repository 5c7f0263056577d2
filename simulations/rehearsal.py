"""`make federation`: a federation of separate processes on this machine, from the first key to name lists, on public data."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.contract import FeatureContract
from federation.document import load_yaml
from simulations import datasets
from simulations.catalogue import CATALOGUE
from simulations.demo import load_draft
from simulations.deployment import Deployment, short
from simulations.fetch import fetch
from simulations.institutions import Founding, fresh
from simulations.sites import BANKS

STUDY = "propensity_plain"
_DRAFT = "propensity-plain"  # one exchange a round, where a sum in secret takes four
DATA = "bank_full"


@dataclass(frozen=True)
class Rehearsal:
    """What came of it: the study's row, each institution's share in it, and how long each part took (seconds)."""

    root: str
    study: dict[str, Any]
    members: dict[str, dict[str, Any]]
    seconds: dict[str, float]


def rehearse(out: Path, cache: Path, configs: Path, members: int, rounds: int, say: Callable[[str], None]) -> Rehearsal:
    """Found, start, run a short study, let everybody look at what came of it, and stop.

    Raises
    ------
    StorageError
        CSL-M122 without configurations, CSL-M120 when `out` holds something that no simulation made.
    OfflineError, IntegrityError
        As `simulations.fetch.fetch`.
    FederationError
        CSL-M130 to CSL-M132 when a command fails, a service does not start, or the study does not finish.
    """
    foundings = banks(cache, configs, members, rounds, say)
    draft = foundings[0].draft
    fresh(out)
    clock = _Stopwatch()
    with Deployment(out, foundings, say) as deployment:
        deployment.found()
        clock.mark("founding")
        deployment.start()
        clock.mark("starting")
        row = deployment.study(draft)
        clock.mark("study")
        shares = {}
        for name, party in deployment.members.items():
            party.run("node", "scores", "--study", STUDY, "--top", "3", "--home", "home")
            shares[name] = party.json("node", "studies", "--home", "home")
        deployment.coordinator.run("coordinator", "models", "list", "--home", "home")
        clock.mark("looking")
    clock.mark("stopping")
    return Rehearsal(str(out), row, shares, clock.seconds)


def banks(cache: Path, configs: Path, members: int, rounds: int, say: Callable[[str], None]) -> list[Founding]:
    """Return so many banks with their rows, and the study that they are for. Raises as `rehearse`."""
    draft = short(load_draft(configs, _DRAFT), rounds, members)
    contract = load_yaml(configs / "contracts" / f"{draft.contract}.yaml", FeatureContract)
    fetch(cache, sets=[item for item in CATALOGUE if item.name == DATA], say=say)
    frame = datasets.bank_full(cache)
    return [Founding(site, datasets.of_site(frame, site), contract, draft) for site in BANKS[:members]]


class _Stopwatch:
    """Seconds of each part, by the clock of this machine."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, part: str) -> None:
        """Note that a part has ended."""
        now = time.monotonic()
        self.seconds[part] = round(now - self._last, 1)
        self._last = now
