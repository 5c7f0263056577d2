"""The process that holds the vault's keys and answers: `python -m client.service.worker --home HOME`, one of a node's two."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from client.config import NodeConfig, load_node
from client.home import Home, check_unlocked
from client.metrics import VaultMetrics
from client.node_key import read_runtime_secret
from client.service.answering import Places, Worker
from client.service.desk import SuperNodeDesk
from client.service.hardening import harden
from client.service.meter import VaultMeter
from client.service.paths import SAVED, STANDING
from client.service.standing import Standing, failure_of, now, write_standing
from client.service.worker_exit import WorkerExit
from client.throttle import Throttle
from client.unlock import Keys, unlock
from client.vault import Vault
from federation.errors import ConsilienceError
from federation.flower.version import check_version
from federation.logs import log_event, setup_logs
from federation.signing import public_hex

logger = logging.getLogger("consilience.vault.worker")


class CannotStartError(Exception):
    """Carries the exit code and the error of the step that failed."""

    def __init__(self, code: WorkerExit, error: ConsilienceError) -> None:
        super().__init__(error.code)
        self.code = code
        self.error = error


@contextlib.contextmanager
def _step(code: WorkerExit) -> Iterator[None]:
    try:
        yield
    except ConsilienceError as error:
        raise CannotStartError(code, error) from error


def open_keys(home: Home) -> tuple[NodeConfig, Keys]:
    """Read the configuration, look at lock and charter, and open the keys, in this order.

    Raises
    ------
    CannotStartError
        With the exit code of the step that failed.
    """
    with _step(WorkerExit.CONFIGURATION):
        node = load_node(home.node_file)
    with _step(WorkerExit.LOCKED):
        check_unlocked(home)
    with _step(WorkerExit.CHARTER):
        home.charter().member(node.member)
    with _step(WorkerExit.KEYS):
        return node, unlock(home)


def serve(home: Home, stop: threading.Event) -> None:
    """Open the vault and answer until `stop` is set.

    Raises
    ------
    CannotStartError
        When the vault cannot be opened.
    """
    with _step(WorkerExit.SYSTEM):
        harden()
        check_version()
    node, keys = open_keys(home)
    with _step(WorkerExit.KEYS):
        secret = read_runtime_secret(home)
    metrics = VaultMetrics()
    meter = VaultMeter(metrics, home, public_hex(keys.identity))
    with contextlib.ExitStack() as stack:
        if node.service.metrics_port is not None:
            with _step(WorkerExit.PORT):
                stack.callback(metrics.serve(node.service.metrics_port).stop)
        with _step(WorkerExit.LEDGER):
            vault = stack.enter_context(Vault.open(home.root, keys, throttle=Throttle(), watch=meter.watch))
        meter.refresh()
        desk = stack.enter_context(
            contextlib.closing(SuperNodeDesk(node.service.runtime_port, secret, home.run_folder))
        )
        places = Places(home.run_folder / SAVED, home.run_folder / STANDING)
        poll, charter = node.service.poll_seconds, home.charter().digest()
        worker = Worker(vault, desk, meter, places, charter=charter, poll_seconds=poll, stop=stop)
        log_event(logger, "the vault is open", member=vault.member)
        worker.run()


def run(home: Home, stop: threading.Event) -> WorkerExit:
    """Serve, and say why where that cannot be: in the log by its code, at home in words."""
    places = home.folder("run") / STANDING
    write_standing(places, Standing(phase="starting", since=now(), pid=os.getpid()))
    try:
        serve(home, stop)
    except CannotStartError as failed:
        failure = failure_of(failed.error)
        write_standing(places, Standing(phase="failed", since=now(), pid=os.getpid(), failure=failure))
        log_event(logger, "the vault cannot be opened", severity=logging.ERROR, code=failure.code, exit=failed.code)
        return failed.code
    log_event(logger, "the vault is closed")
    return WorkerExit.STOPPED


def main(arguments: list[str] | None = None) -> int:
    """Run the process of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home = Home(parser.parse_args(arguments).home.resolve())
    stop = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    with setup_logs("vault"):
        return int(run(home, stop))


if __name__ == "__main__":
    sys.exit(main())
