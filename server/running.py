"""Runs a study by its draft, whatever it computes."""

from collections.abc import Callable

from flwr.serverapp import Grid

from federation.drafts import AnyDraft
from federation.statistics import StatisticsDraft
from server.coordinator import fresh_nonce, run_study
from server.events import OnEvent, ignore
from server.exchange import Clock
from server.office import ROSTER_SECONDS, Office
from server.registry import PublishedModel
from server.statistics.reports import PublishedReport
from server.statistics.run import StatisticsRun


def run_any(
    grid: Grid,
    draft: AnyDraft,
    office: Office,
    *,
    on_event: OnEvent = ignore,
    roster_seconds: float = ROSTER_SECONDS,
    grant_seconds: float = 0.0,
    nonce: Callable[[], str] = fresh_nonce,
    clock: Clock | None = None,
) -> PublishedModel | PublishedReport:
    """Run a study of training to the model in every vault, or one of statistics to the report in every vault; or go on where an
    earlier run was interrupted. Parameters and errors as of `server.coordinator.run_study`; CSL-S780 where the accuracies that a
    query asks for cannot be had.
    """
    if isinstance(draft, StatisticsDraft):
        run = StatisticsRun(grid, draft, office, on_event, clock or Clock(), nonce)
        return run.run(roster_seconds, grant_seconds)
    return run_study(
        grid,
        draft,
        office,
        on_event=on_event,
        roster_seconds=roster_seconds,
        grant_seconds=grant_seconds,
        nonce=nonce,
        clock=clock,
    )
