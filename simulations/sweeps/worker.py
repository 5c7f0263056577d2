"""A process that computes cells for a sweep: `python -m simulations.sweeps.worker`, one line of JSON for each cell in, and one out.

It ends when its input does, in the middle of a cell too, so that none is left behind by a parent that was killed. What libraries print
goes to the error output: the answers have a pipe of their own.
"""

import argparse
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from federation.errors import ConsilienceError
from simulations.engines.simulation import Simulation
from simulations.sweeps.outcome import Outcome, Run, measure

READY = "ready"
_STOPPED = 1
_GRACE_SECONDS = 3.0
_LAST_LINES = 7


def serve(run: Run, source: TextIO, sink: TextIO, cache: Path | None) -> None:
    """Compute what stands in each line of `source`, and write the answer to `sink`, until the source ends.

    Errors are answers, of the program too: other cells may do better.
    """
    tasks: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(source, tasks, busy), daemon=True).start()
    _say(sink, {READY: True})
    while (line := tasks.get()) is not None:
        task = json.loads(line)
        answer = compute(run, task, cache)
        busy.clear()
        _say(sink, answer)


def _listen(source: TextIO, tasks: "queue.SimpleQueue[str | None]", busy: threading.Event) -> None:
    for line in source:
        busy.set()
        tasks.put(line)
    if not busy.is_set():
        tasks.put(None)
        return
    os.kill(
        os.getpid(), signal.SIGTERM
    )  # nobody waits for the cell that is being computed; its engine may still clear up
    time.sleep(_GRACE_SECONDS)
    os._exit(_STOPPED)


def compute(run: Run, task: Mapping[str, Any], cache: Path | None) -> dict[str, Any]:
    """Compute one cell; return its digest, its seconds, and `outcome` or `error`; CSL-M244 is a fault of the program."""
    start = time.perf_counter()
    try:
        simulation = Simulation.model_validate_json(json.dumps(task["simulation"]))
        answer: dict[str, Any] = {"outcome": Outcome.of(run(simulation, task["seed"], task["engine"], cache)).as_tree()}
    except ConsilienceError as error:
        answer = {"error": error.as_dict()}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's: it is told, and the others are computed
        answer = {"error": _fault(error).as_dict()}
    return {"digest": task["digest"], "seconds": time.perf_counter() - start, **answer}


def _fault(error: Exception) -> ConsilienceError:
    """Say what nobody foresaw: the exception, and the lines where it came from."""
    traceback.print_exception(error)
    lines = "".join(traceback.format_exception(error)).strip().splitlines()[-_LAST_LINES:]
    said = "\n  ".join([type(error).__name__, *lines])
    if isinstance(error, MemoryError):
        return ConsilienceError("CSL-M244", f"This cell needs more memory than there is: {said}", "Take fewer workers.")
    return ConsilienceError(
        "CSL-M244",
        f"A fault of the program, not of the study: {said}",
        "Report it with these lines and the sweep's file.",
    )


def _say(sink: TextIO, answer: Mapping[str, Any]) -> None:
    sink.write(json.dumps(answer, allow_nan=False) + "\n")
    sink.flush()


def main(run: Run = measure) -> None:
    """Serve on the standard streams."""
    parser = argparse.ArgumentParser(description="Computes cells of a sweep; started by `consilience simulate sweep`.")
    parser.add_argument("--cache", type=Path, help="folder of fetched data sets")
    parser.add_argument("--threads", type=int, help="threads of a numerical library; its own choice without")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.getLogger("flwr").setLevel(logging.WARNING)
    if arguments.threads is not None:
        _limit_threads(arguments.threads)
    signal.signal(signal.SIGTERM, _leave)
    try:
        serve(run, sys.stdin, answers, arguments.cache)
    except BrokenPipeError:
        os._exit(_STOPPED)  # the parent is gone


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _limit_threads(threads: int) -> None:
    import torch  # noqa: PLC0415 - a test's worker needs none

    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
