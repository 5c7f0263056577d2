"""`consilience coordinator start`, `stop`, `status`, `doctor` and `proxy`: running the coordinator's service."""

import logging
import shutil
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from federation.doctor import exit_code, report
from federation.errors import ConsilienceError, ExitCode
from federation.flower.control import Control
from federation.logs import log_event, setup_logs
from federation.service_state import ChildState, ServiceLock, ServiceState
from federation.supervise import Supervisor, read_service, stop_service
from server.desk import HERE, HomeOption, JsonOption, home_at, print_json
from server.home import CoordinatorHome
from server.service import proxy as reverse_proxy
from server.service.doctor import examine
from server.service.start import check_ready, children
from server.service.studies import StudyBook

STOP_SECONDS = 30.0
logger = logging.getLogger("consilience.service")


def start(home: HomeOption = HERE) -> None:
    """Run the coordinator: link, executor and, where coordinator.yaml says so, nginx, until SIGTERM or Ctrl-C.

    Everything is checked first. What ends is started again, later and later; a study that was running goes on from its checkpoint. Run it
    by the system's service manager (configs/deploy/consilience-coordinator.service). It stops within 30 seconds.
    """
    place = home_at(home)
    refuse_second(place)
    check_ready(place)
    supervisor = Supervisor(place.run, children(place), on_event=_tell)
    with setup_logs("coordinator", causes=True):
        supervisor.run()


def refuse_second(place: CoordinatorHome) -> None:
    """Say that the service runs already, before its own ports look taken. Raises FederationError CSL-F310."""
    with ServiceLock(place.run):
        pass


def stop(
    home: HomeOption = HERE,
    seconds: Annotated[float, typer.Option(help="After how long it is ended by force.", min=5)] = STOP_SECONDS,
) -> None:
    """Stop the coordinator's service. Studies that were running go on at its next start."""
    was_there = stop_service(home_at(home).run, seconds)
    typer.echo("Stopped." if was_there else "The service did not run.")


def status(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Show the service's processes, which members are connected, and the studies. Exits with 8 unless every process is up."""
    place = home_at(home)
    state = read_service(place.run)
    members = _members(place) if state is not None else None
    studies = [
        {"study": record.study, "state": record.state, "reason": record.reason}
        for record in StudyBook(place.root).all()
        if not record.over
    ]
    if as_json:
        service = None if state is None else state.model_dump(mode="json")
        print_json({"service": service, "members": members, "studies": studies})
    else:
        typer.echo(_status_text(state, members, studies))
    if state is None or not state.up:
        raise typer.Exit(int(ExitCode.FEDERATION))


def doctor(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Check the coordinator: clock, certificates, private files, ports, disk, versions, charter, contracts, studies.

    While the service runs, also what can be reached from where: the fleet's paths at the public address, nothing else there, and nothing of
    the link at this machine's other addresses. Each finding comes with its next action. Exits with 8 when one fails.
    """
    findings = examine(home_at(home))
    width = shutil.get_terminal_size((100, 24)).columns
    typer.echo(report(findings, as_json, width=width, colour=sys.stdout.isatty()), nl=as_json)
    raise typer.Exit(exit_code(findings))


def proxy(home: HomeOption = HERE) -> None:
    """Print the nginx configuration that stands before the link: the fleet's paths and nothing else.

    With `proxy: nginx` in coordinator.yaml, `coordinator start` runs nginx by it. An nginx or another proxy of your own has to do the same:
    pass POST /v1/fleet/NAME to 127.0.0.1 at link_port, verify the link's certificate, and answer 404 to everything else.
    """
    place = home_at(home)
    typer.echo(reverse_proxy.render(place.config(), place.root), nl=False)


def register(app: typer.Typer) -> None:
    """Add the commands to the coordinator's group."""
    for command in (start, stop, status, doctor, proxy):
        app.command()(command)


def _tell(event: str, **fields: int | float | str | bool | None) -> None:
    """Tell what happens to the service's processes: in words on a terminal, else as a line of the log."""
    if sys.stderr.isatty():
        shown = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
        typer.echo(f"{datetime.now(UTC):%H:%M:%S}Z  {event.replace('_', ' ')}{': ' if shown else ''}{shown}", err=True)
    else:
        log_event(logger, event, severity=logging.INFO, **fields)


def _members(place: CoordinatorHome) -> list[dict[str, Any]] | None:
    """Ask the link which members' nodes are on line; None when it does not answer."""
    try:
        charter = place.charter()
        with Control(f"127.0.0.1:{place.config().link_port}", place.authority_file.read_bytes()) as control:
            nodes = {row.key: row for row in control.nodes()}
    except ConsilienceError:
        return None
    found = [(member.id, nodes.get(member.node_key or "")) for member in charter.members]
    return [{"member": member, "node": None if row is None else row.status} for member, row in found]


def _status_text(
    state: ServiceState | None, members: list[dict[str, Any]] | None, studies: list[dict[str, str]]
) -> str:
    if state is None:
        lines = ["The service does not run. Start it: consilience coordinator start"]
    else:
        lines = [f"The service runs (process {state.pid}, since {_moment(state.started)})."]
        lines += [f"  {_child_text(child)}" for child in state.children]
        lines += ["The link does not answer yet."] if members is None else _members_text(members)
    lines += [f"Study {item['study']}: {item['state']}{_why(item['reason'])}" for item in studies]
    return "\n".join(lines)


def _child_text(child: ChildState) -> str:
    again = f", started again {child.restarts} times" if child.restarts else ""
    reason = f". {child.reason}" if child.reason and child.state != "up" else ""
    return f"{child.name}: {child.state} since {_moment(child.since)}{again}{reason}"


def _members_text(members: list[dict[str, Any]]) -> list[str]:
    online = [item["member"] for item in members if item["node"] == "online"]
    away = [item["member"] for item in members if item["node"] != "online"]
    lines = [f"Members connected: {', '.join(online) or 'none'}."]
    return [*lines, f"Not connected: {', '.join(away)}."] if away else lines


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
