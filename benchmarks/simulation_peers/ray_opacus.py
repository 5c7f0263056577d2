"""A peer of the simulation benchmark: Flower's Ray simulation engine with Opacus clients, both as published.

Usage: `python benchmarks/simulation_peers/ray_opacus.py [--institutions 50] [--rounds 50] [--model logistic|mlp] ...`.
Prints one line of JSON. Needs `ray==2.55.1` beside Flower. The sampling rate must be 1 / a whole number, as Opacus derives it from a
batch size.

What the engine is given: one Ray process for each core, each with one torch thread; data, models and private loaders are built once in each
process, in a first round that is not counted; stock FedAvg. Nothing listens but on the loopback device, nothing is reported to anybody.
"""

import argparse
import logging
import os
import time

from price import epsilon_of
from work import Outcome, Work, command, outcome, process_age, show, work_of

PEER = "Flower Ray + Opacus"
NOT_EQUAL = ["Opacus adds 1e-6 to each gradient's norm before it clips."]
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one machine: the loopback device alone, on Linux too
}


def run(work: Work, before: float = 0.0) -> Outcome:
    """Train, with Ray started and stopped around it. `before` are seconds that passed already, for `startup_seconds`.

    Raises RuntimeError when the engine or an institution failed: the seconds would mean nothing.
    """
    entered = time.perf_counter()
    os.environ.update(QUIET)  # Flower and Ray read it at import
    from flwr.simulation import run_simulation  # noqa: PLC0415
    from ray_apps import Trained, client, server_app  # noqa: PLC0415

    logging.getLogger("flwr").setLevel(logging.ERROR)
    done: list[Trained] = []
    run_simulation(
        server_app(work, done),
        client,
        work.institutions,
        backend_config={
            "init_args": {
                "num_cpus": len(os.sched_getaffinity(0)),
                "log_to_driver": False,
                "logging_level": logging.ERROR,
            },
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if not done:
        raise RuntimeError("The engine did not finish its rounds.")
    return outcome(
        PEER,
        work,
        done[0].layers,
        seconds=done[0].seconds,
        startup=before + done[0].begun - entered,
        epsilon=epsilon_of(work),
        not_equal=NOT_EQUAL,
    )


def main() -> None:
    """Train, and print the outcome."""
    parser = command(__doc__)
    work = work_of(parser.parse_args())
    try:
        check(work)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    show(run(work, process_age()))


def check(work: Work) -> None:
    """Refuse what Opacus's loader cannot be told: it draws with probability 1 / (batches in an epoch)."""
    batches = round(1.0 / work.rate)
    if abs(batches * work.rate - 1.0) > 1e-9 or work.rows % batches:
        raise argparse.ArgumentTypeError("--rate must be 1 / a whole number that divides --rows")


if __name__ == "__main__":
    main()
