"""The command `sweep` with made-up simulations, as a process of its own."""

import sys
from functools import partial

import typer

from federation.errors import ConsilienceError
from simulations.sweeps import command
from simulations.sweeps.running import run_sweep

WORKER = (sys.executable, "-m", "tests.simulations.sweeps.fake_worker")

if __name__ == "__main__":
    command.run_sweep = partial(run_sweep, command=WORKER)
    app = typer.Typer()
    app.command()(command.sweep)
    try:
        app()
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        sys.exit(int(error.exit_code))
