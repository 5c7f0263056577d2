"""The executor's process: `python -m server.service.executor --home H`. The supervisor of `coordinator start` runs it beside the link."""

import argparse
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from federation.charter import Charter
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, ExitCode, IntegrityError
from federation.files import check_private
from federation.flower.bundle import build_bundle
from federation.flower.control import Control
from federation.flower.tasks import TaskDesk
from federation.flower.version import check_version
from federation.leash import leashed
from federation.logs import log_event, setup_logs
from federation.metrics import MetricsServer
from server.certificates import facts_of, read_certificate
from server.home import CoordinatorHome
from server.metrics import JournalFeed, StudyMetrics
from server.service.reading import read_bytes
from server.service.reconciler import Doors, Reconciler
from server.service.studies import RUN_FOLDER, StudyBook

FEED_EVERY = 8
"""Looks at the journals for the metrics: one in so many steps."""
MODULE = "server.service.study_process"
logger = logging.getLogger("consilience.executor")


def check_app(charter: Charter, app: str) -> None:
    """Refuse to run when the charter names another app than the code that is installed here: no vault would answer.

    Raises
    ------
    IntegrityError
        CSL-S806 for another app, CSL-S807 when the charter names no link.
    """
    if charter.link is None:
        raise IntegrityError(
            "CSL-S807",
            "The charter names no link: it is for parties that live in one process.",
            "Draft a charter by `coordinator charter draft`, and have it sealed.",
        )
    if charter.link.app != app:
        raise IntegrityError(
            "CSL-S806",
            f"The charter names the app {charter.link.app[:12]}, and what is installed here is {app[:12]}.",
            "Install the release that the members agreed on, or seal a new charter for this one.",
        )


class CharterReader:
    """Reads the pinned charter again when one of its two files has changed; checking it takes a signature for each member."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._home = home
        self._mark: tuple[int, ...] = ()
        self._charter: Charter | None = None

    def __call__(self) -> Charter:
        """Return the charter. Raises as `CoordinatorHome.charter`."""
        mark = self._stamp()
        if self._charter is None or mark != self._mark:
            self._charter = None
            self._charter, self._mark = self._home.charter(), mark
        return self._charter

    def _stamp(self) -> tuple[int, ...]:
        stats = [path.stat() for path in (self._home.charter_file, self._home.pin_file) if path.exists()]
        return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))


def make_reconciler(home: CoordinatorHome, bundle: bytes) -> Reconciler:
    """Return the reconciler of a home, which speaks to the home's own link.

    Raises
    ------
    StorageError
        CSL-S814 when a file that it needs cannot be read; CSL-F311 when others may read the link's secret.
    """
    config = home.config()
    address = f"127.0.0.1:{config.link_port}"
    check_private(home.link_secret)
    authority, secret = read_bytes(home.authority_file), read_bytes(home.link_secret)

    def connect() -> Doors:
        return Doors(Control(address, authority), TaskDesk(address, authority, secret, "server"))

    return Reconciler(
        StudyBook(home.root),
        address=address,
        connect=connect,
        spawn=lambda study, run_id, token: spawn(home.root, study, token),
        bundle=bundle,
        app=sha256_hex(bundle),
        charter=CharterReader(home),
        say=lambda event, **fields: log_event(logger, event, **fields),
    )


def spawn(root: Path, study: str, token: str) -> subprocess.Popen[bytes]:
    """Start a study's process, which ends with this one; the token goes by standard input, where no other process sees it."""
    command = (sys.executable, "-m", MODULE, "--home", str(root), "--study", study)
    process = subprocess.Popen(leashed(command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(f"{token}\n".encode())
    except BrokenPipeError:
        log_event(logger, "a study process ended before it began", study=study)
    return process


def serve_metrics(home: CoordinatorHome, metrics: StudyMetrics) -> MetricsServer | None:
    """Serve the metrics where coordinator.yaml says so. A port that is taken costs the metrics, never the studies."""
    port = home.config().metrics_port
    if port is None:
        return None
    try:
        metrics.certificate(facts_of(read_certificate(home.server_file)).not_after)
        return metrics.serve(port)
    except ConsilienceError as error:
        log_event(logger, "metrics are not served", severity=logging.ERROR, code=error.code, cause=error.cause)
        return None


def loop(reconciler: Reconciler, feed: Callable[[], None], stop: threading.Event) -> None:
    """Step until it is told to stop; then end the children."""
    reconciler.recover()
    try:
        steps = 0
        while not stop.wait(reconciler.step()):
            steps += 1
            if steps % FEED_EVERY == 0:
                feed()
    finally:
        reconciler.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the executor of the command line until SIGTERM."""
    parser = argparse.ArgumentParser(
        description="Reconcile studies with the link's runs; `coordinator start` runs this."
    )
    parser.add_argument("--home", type=Path, required=True)
    home = CoordinatorHome(parser.parse_args(arguments).home)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    with setup_logs("executor", causes=True):
        try:
            check_version()
            bundle = build_bundle()
            check_app(home.charter(), sha256_hex(bundle))
            metrics = StudyMetrics()
            served = serve_metrics(home, metrics)
            try:
                loop(make_reconciler(home, bundle), JournalFeed(home.root / RUN_FOLDER, metrics).poll, stop)
            finally:
                if served is not None:
                    served.stop()
        except ConsilienceError as error:
            log_event(logger, "the executor ends", severity=logging.ERROR, code=error.code, cause=error.cause)
            return int(error.exit_code)
        except Exception:  # the process's boundary: type and place are logged, never a text
            logger.exception("the executor ends by an error that nobody foresaw")
            return int(ExitCode.INTERNAL)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
