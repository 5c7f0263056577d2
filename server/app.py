"""The coordinator's Flower ServerApp. Its run configuration says where its home folder lies and which study to run:

`coordinator-home` (a folder), `study` (a file under `studies/`, without .yaml), `passphrase-file` (opens the coordinator's key) or
`allow-plain-key`, `roster-seconds` (how long to wait for the members), and `grant-seconds` (how long to ask those again who declined).
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.errors import DocumentError
from privacy.keys import passphrase_from_file
from server.events import Event, OnEvent
from server.home import CoordinatorHome
from server.office import ROSTER_SECONDS
from server.running import run_any

logger = logging.getLogger("consilience.coordinator")


def log_event(event: Event) -> None:
    """Write an event to the log; every field of it is public."""
    logger.info("%s", event)


def build_app(on_event: OnEvent = log_event) -> ServerApp:
    """Return a ServerApp that runs the study its run configuration names, and tells `on_event` of every step."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        config = context.run_config
        home = CoordinatorHome(Path(_text(config, "coordinator-home")))
        draft = home.draft(_text(config, "study"))
        office = home.office(draft.contract, _passphrase(config), bool(config.get("allow-plain-key", False)))
        seconds = float(config.get("roster-seconds", ROSTER_SECONDS))
        patience = float(config.get("grant-seconds", 0.0))
        run_any(grid, draft, office, on_event=on_event, roster_seconds=seconds, grant_seconds=patience)

    return server_app


def _text(config: Mapping[str, object], name: str) -> str:
    value = config.get(name)
    if not isinstance(value, str) or not value:
        raise DocumentError(
            "CSL-S105",
            f"The run configuration does not say {name}.",
            f"Give it: flwr run --run-config '{name}=\"...\"'.",
        )
    return value


def _passphrase(config: Mapping[str, object]) -> bytes | None:
    path = config.get("passphrase-file")
    return passphrase_from_file(Path(path)) if isinstance(path, str) and path else None


app = build_app()
