"""The command `consilience`: one group for each person, registered as entry points and loaded only when called."""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType

import click
import typer

from federation.errors import ConsilienceError, ExitCode, StorageError

GROUP = "consilience.commands"
_INTERRUPTED = "Interrupted; nothing is half-written."
_HELP = {
    "node": "For institutions: join a federation, run the node, check tables and mapping, see a vault's state, score customers.",
    "officer": "For compliance officers: sign the policy, decide about studies, keep the budget, prove both.",
    "coordinator": "For the coordinator: found a federation, run the link, propose and watch studies, keep the registry of models.",
    "simulate": "For researchers: run many institutions on this machine.",
    "verify": "For anybody: check an evidence pack or a ledger, on a machine that never saw the institution.",
    "data": "Public data sets for simulations: fetch them by pinned digest.",
}


@contextmanager
def _interruptible_import() -> Iterator[None]:
    """Leave at once on Ctrl-C: libraries that are imported by half turn the interrupt into faults of their own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"\n{_INTERRUPTED}\n".encode())
    os._exit(int(ExitCode.INTERRUPTED))


class Dispatcher(click.Group):
    """Lists the groups that are installed, and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the installed groups."""
        return sorted(entry.name for entry in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return an installed group, or None."""
        for entry in entry_points(group=GROUP):
            if entry.name == cmd_name:
                with _interruptible_import():
                    command = typer.main.get_command(entry.load())
                command.name = entry.name
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing a single group."""
        rows = [(name, _HELP.get(name, "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=Dispatcher, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="consilience", prog_name="consilience")
def dispatch() -> None:
    """Learn from each other's customers without showing them.

    Banks and shops train churn and propensity models together with differential privacy; every record stays where it is.
    Begin with `consilience simulate demo`, then read the README.
    """


def main() -> None:
    """Run the command line; print an error's code, cause and next action, and exit with its number."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        result = dispatch.main(args=arguments, prog_name="consilience", standalone_mode=False)
    except ConsilienceError as error:
        _report(error, as_json="--json" in arguments)
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo(_INTERRUPTED, err=True)
        return int(ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the process's boundary
        fault = _unforeseen(error)
        _report(fault, as_json="--json" in arguments)
        return int(fault.exit_code)
    return result if isinstance(result, int) else int(ExitCode.OK)


def _unforeseen(error: Exception) -> ConsilienceError:
    """Say what went wrong without the error's own text, which may quote a customer's value."""
    if isinstance(error, OSError):
        return StorageError(
            "CSL-F302",
            f"{error.filename or 'The output'} cannot be read or written: {error.strerror or type(error).__name__}.",
            "Check the path, its rights and the free space, and try again.",
        )
    own = Path(__file__).parents[1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(own)]
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    where = f" in {Path(ours[-1].filename).relative_to(own)}, line {ours[-1].lineno}" if ours else ""
    return ConsilienceError(
        "CSL-F303", f"A fault of the program: {type(error).__name__}{where}.", "Report this line; it holds no data."
    )


def _report(error: ConsilienceError, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": error.as_dict()}), err=True)
    else:
        click.echo(f"{error.code}  {error.cause}\n{error.action}", err=True)
