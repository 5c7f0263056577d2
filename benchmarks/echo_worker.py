"""The worker of a loopback deployment, `python benchmarks/echo_worker.py FILE`: what a vault's worker does, without a vault.

It takes requests from its SuperNode, keeps each on the disk, checks its signature, and answers with as many random numbers, signed.
"""

import json
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message
from numpy.typing import NDArray

from federation.encoding import sha256_hex
from federation.errors import FederationError
from federation.flower.errors import LINK_ERRORS
from federation.flower.tasks import ClientTask, TaskDesk
from federation.messages import TrainRelease, TrainRequest, dump_tensors, pack, read_tensors, unpack

HOST = "127.0.0.1"
COORDINATES = 10_000
# One linear layer and its intercept, as a study of a linear model sends them.
SHAPES = {"linear.weight": ((1, COORDINATES - 1), "float32"), "linear.bias": ((1,), "float32")}
# How a vault's worker waits for the next request.
_IDLE_SHARE = 0.05
_IDLE_SECONDS = 2.0
_AWAY_SECONDS = 0.2


def random_tensors() -> dict[str, NDArray[np.float32]]:
    """Return tensors of a round's shapes, float32 normal."""
    draw = np.random.default_rng()
    return {name: draw.standard_normal(shape, dtype=np.float32) for name, (shape, _) in SHAPES.items()}


class Echo:
    """Stands in for a vault's worker: takes requests as it does, checks who asks, and answers with as many random numbers, signed."""

    def __init__(self, described: Path) -> None:
        """Read what `Loopback` wrote for this worker."""
        given = json.loads(described.read_bytes())
        self._member = f"node_{given['place']}"
        self._address = f"{HOST}:{given['port']}"
        self._app = str(given["app"])
        self._poll = float(given["poll_seconds"])
        self._coordinator = str(given["coordinator"])
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["key"]))
        self._desk = TaskDesk(self._address, None, described.with_name(f"{self._member}.secret").read_bytes(), "client")
        self._saved = described.with_suffix(".task")

    def run(self, stop: threading.Event) -> None:
        """Answer until it is told to stop; the pause between two questions grows with the time since the last request."""
        last = time.monotonic()
        while not stop.is_set():
            try:
                busy = self._take()
            except LINK_ERRORS as error:
                # The SuperNode is away, or waits for this answer no longer; the coordinator counts it as lost.
                print(f"an answer was not delivered: {type(error).__name__}", flush=True)
                stop.wait(_AWAY_SECONDS)
                continue
            if not busy:
                stop.wait(min(max(_IDLE_SHARE * (time.monotonic() - last), self._poll), _IDLE_SECONDS))
                continue
            last = time.monotonic()
        self._desk.close()

    def _take(self) -> bool:
        """Answer the oldest waiting request; return False where there is none."""
        claim = self._desk.acquire()
        if claim is None:
            return False
        with ClientTask.open(self._address, None, claim.token) as task:
            self._answer(task)
        return True

    def _answer(self, task: ClientTask) -> None:
        """Keep the request on the disk, as a vault does, and answer it."""
        if task.app != self._app:
            raise FederationError("CSL-F332", "Another app was pushed than this one.", "Start the deployment again.")
        task.save(self._saved)
        request, payload = unpack(task.message.content, TrainRequest, self._coordinator)
        read_tensors(payload, SHAPES)
        released = dump_tensors(random_tensors())
        header = TrainRelease(
            study=request.study, member=self._member, round=request.round, payload=sha256_hex(released)
        )
        task.reply(Message(pack(self._key, header, released), reply_to=task.message))
        task.finish(True)
        self._saved.unlink()


def main() -> None:
    """Be the worker that a file describes, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    Echo(Path(sys.argv[1])).run(stop)


if __name__ == "__main__":
    main()
