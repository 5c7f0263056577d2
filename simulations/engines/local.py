"""The local engine: every institution a Flower node in this process. Exact and easy to look into; the measure for other engines."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import UserConfig

from federation.flower.simulation import PARTITION_KEY
from simulations.engines.apps import FlowerSession, client_app
from simulations.engines.institution import Office
from simulations.engines.threads import torch_threads
from simulations.engines.work import Job
from simulations.local_grid import LocalGrid


@dataclass(frozen=True)
class Local:
    """Runs institutions on a `LocalGrid`: the same apps as with Ray, in threads of this process, on the same rows in memory.

    Attributes
    ----------
    workers:
        How many institutions compute at the same time; None for one a core.
    """

    workers: int | None = None

    @property
    def name(self) -> str:
        """`local`."""
        return "local"

    @contextmanager
    def open(self, job: Job) -> Iterator[FlowerSession]:
        """Start on a job; each institution computes in one thread as long as the session lasts."""
        office = Office(job)
        app = client_app(lambda: office)
        places: list[UserConfig] = [{PARTITION_KEY: place} for place in range(job.rows.institutions)]
        nodes = {number: (app, place) for number, place in enumerate(places, 1)}
        with torch_threads(1), LocalGrid(nodes, workers=self.workers) as grid:
            yield FlowerSession(job, grid, grid.send_and_receive)
