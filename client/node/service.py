"""`consilience node start | stop | doctor`, and what `node status` says of the running service."""

import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from client.desk import HERE, HomeOption, JsonOption, home_at, print_json
from client.home import Home
from client.roles import require_for
from client.service.doctor import examine, log_end, surroundings
from client.service.paths import STANDING, SUPERNODE
from client.service.reasons import connection
from client.service.standing import PHASES, read_standing
from client.service.start import prepare
from client.words import moment_of
from federation.doctor import exit_code, report
from federation.supervise import read_service, stop_service

_CONNECTION = {"connected": "connected to the link", "trying": "tries to reach the link", "starting": "starts"}
_STATES = {"up": "up", "waiting": "waits for its next start", "stopped": "stopped"}


def register(app: typer.Typer) -> None:
    """Add the commands to `consilience node`."""
    app.command()(start)
    app.command()(stop)
    app.command()(doctor)


def start(home: HomeOption = HERE) -> None:
    """Run the node until it is told to stop: the SuperNode, which talks to the coordinator, and the vault, which answers.

    For operators; a service manager runs it (configs/deploy). Nothing of it
    listens beyond 127.0.0.1. What dies is started again, with pauses that
    grow to five seconds. Logs hold no customers' data; they lie
    under logs/.
    """
    place = home_at(home)
    require_for(place, "node start")
    prepare(place)
    # A process of its own: this one has read the libraries of all commands, which would stay in memory as long as the node runs.
    command = [sys.executable, "-P", "-m", "client.service.start", "--home", str(place.root.resolve())]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def stop(
    home: HomeOption = HERE,
    seconds: Annotated[float, typer.Option(min=3.0, help="The longest to wait before it is killed.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Stop the node: the answer at hand is finished first. Where a service manager runs the node, stop it there.

    For operators. A vault that is killed in the middle of an answer loses
    nothing either: it gives that very answer when it is started again.
    """
    place = home_at(home)
    require_for(place, "node stop")
    stopped = stop_service(place.run_folder, seconds)
    if as_json:
        print_json({"stopped": stopped})
    else:
        typer.echo("The node was stopped." if stopped else "The node was not running.")


def doctor(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Look for whatever may keep this node from taking part; each finding with its next action. Changes nothing.

    For operators. Looks at versions, disk, secrets' rights, lock, keys,
    ledger, policy, ports, charter, contracts, the installed release, the way
    to the link (name, TCP, certificate, clock) and the running processes.
    Exit code 8 when something fails.
    """
    place = home_at(home)
    require_for(place, "node doctor")
    findings = examine(place, surroundings())
    sys.stdout.write(report(findings, as_json, colour=sys.stdout.isatty()) + ("\n" if as_json else ""))
    if code := exit_code(findings):
        raise typer.Exit(code)


def service_facts(home: Home) -> dict[str, Any]:
    """Return what is known of the running service as a mapping: its processes, the link, the last request."""
    state, said = read_service(home.run_folder), read_standing(home.run_folder / STANDING)
    children = () if state is None else state.children
    up = any(child.name == SUPERNODE and child.state == "up" for child in children)
    return {
        "running": state is not None,
        "since": None if state is None or not state.started else moment_of(state.started * 1000),
        "processes": [
            {
                "name": child.name,
                "state": child.state,
                "since": moment_of(child.since * 1000),
                "restarts": child.restarts,
                "reason": child.reason,
            }
            for child in children
        ],
        "link": connection(log_end(home.logs_folder / f"{SUPERNODE}.log")) if up else None,
        "vault": None if state is None or said is None else said.phase,
        "charter": None if said is None else said.charter,
        "last_request": None if said is None else said.last_request,
        "last_type": None if said is None else said.last_type,
    }


def print_service(console: Console, facts: dict[str, Any]) -> None:
    """Print what is known of the running service."""
    if not facts["running"]:
        console.print("The node does not run. Start it by `consilience node start`.")
    for item in facts["processes"]:
        now = _STATES[item["state"]]
        if item["name"] == SUPERNODE and facts["link"] is not None:
            now = f"up, {_CONNECTION[facts['link']]}"
        elif item["state"] == "up" and facts["vault"] is not None:
            now = f"up, {PHASES[facts['vault']]}"
        again = f", started again {item['restarts']} times" if item["restarts"] else ""
        console.print(f"{item['name']}: {now}, since {item['since']} (UTC){again}.", highlight=False, soft_wrap=True)
        # What ends again and again is up in between: then, too, it matters why.
        unwell = item["state"] != "up" or (item["name"] == SUPERNODE and facts["link"] == "starting")
        if unwell and item["reason"]:
            console.print(f"    {escape(item['reason'])}", highlight=False, soft_wrap=True)
    if facts["last_request"] is not None:
        console.print(f"Last request: {facts['last_type']}, {facts['last_request']}.", highlight=False, soft_wrap=True)
