"""Run one statistics study of a federation on this machine, by the coordinator's and the vaults' own code."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import UserConfig
from flwr.clientapp import ClientApp

from client.app import VaultShelf, make_app
from federation.errors import FederationError
from federation.statistics import StatisticsDraft
from server.app import build_app
from server.events import Event, OnEvent, Reported, RoundDone
from server.home import CoordinatorHome
from server.statistics.reports import PublishedReport, ReportBook
from simulations.institutions import COORDINATOR, Federation, write_yaml
from simulations.local_grid import LocalGrid, run_study


@dataclass(frozen=True)
class CountingOutcome:
    """A statistics study that was run: its report, how long it took, and the bytes that its rounds moved."""

    published: PublishedReport
    seconds: float
    sent: int
    received: int


@dataclass
class _Meter:
    on_event: OnEvent
    sent: int = 0
    received: int = 0
    reported: Reported | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundDone):
            self.sent += event.bytes_sent
            self.received += event.bytes_received
        elif isinstance(event, Reported):
            self.reported = event
        self.on_event(event)


def count_together(
    federation: Federation, draft: StatisticsDraft, members: Sequence[str], on_event: OnEvent
) -> CountingOutcome:
    """Run a statistics study by the ServerApp and the ClientApp that a real federation runs, one vault for each member.

    Raises
    ------
    ConsilienceError
        As `server.running.run_any`; CSL-M150 when it ended without a report.
    """
    vaults = make_app(VaultShelf())
    nodes: dict[int, tuple[ClientApp, UserConfig]] = {
        number: (vaults, {"home": str(federation.homes[member].root)}) for number, member in enumerate(members, start=1)
    }
    home = CoordinatorHome(federation.root / COORDINATOR)
    write_yaml(home.root / "studies" / f"{draft.name}.yaml", draft, draft.title)
    config: UserConfig = {"coordinator-home": str(home.root), "study": draft.name, "allow-plain-key": True}
    meter = _Meter(on_event)
    start = time.monotonic()
    with LocalGrid(nodes) as grid:
        run_study(build_app(meter), grid, config)
    if meter.reported is None:
        raise FederationError(
            "CSL-M150", f"The study {draft.name} ended without a report.", "Look at the events before this one."
        )
    name = meter.reported.path.name.removesuffix(".report.json")
    published = ReportBook(home.reports).load(name, federation.charter.coordinator_key)
    return CountingOutcome(published, time.monotonic() - start, meter.sent, meter.received)
