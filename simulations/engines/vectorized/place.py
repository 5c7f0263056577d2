"""Where an engine computes: the device, how much it works on at once, and threads whose timing changes no result."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from federation.errors import ConsilienceError, DocumentError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CACHED = 1 << 21  # float32 values of one task: smaller products are slower by more than a cache nearer to a core gains
_ON_GPU = 1 << 26
_AHEAD = 2  # tasks begun for each thread, beyond the one whose result is awaited


@dataclass(frozen=True)
class Place:
    """A device and how to use it: the one part of the engine that knows which device it is.

    Attributes
    ----------
    device:
        Where rows, weights and sums lie.
    threads:
        Tasks at the same time; 1 on a GPU, which is busy with one.
    values:
        How many float32 values one task works on at once.
    """

    device: torch.device
    threads: int
    values: int

    def put(self, array: NDArray[np.generic]) -> Tensor:
        """Return an array as a tensor on the device; on the CPU it shares the array's memory."""
        return torch.from_numpy(array).to(self.device)


def find_place(device: str, threads: int | None) -> Place:
    """Return the place that a person named.

    Parameters
    ----------
    device:
        `cpu`, `cuda`, or `cuda:1` and so on.
    threads:
        Tasks at the same time on the CPU; None for as many as torch would use.

    Raises
    ------
    ConsilienceError
        CSL-M210 where the GPU is not there.
    DocumentError
        CSL-M211 for another kind of device or a number of threads below 1.
    """
    kind, _, number = device.partition(":")
    known = device in ("cpu", "cuda") or (kind == "cuda" and number.isdecimal())
    if not known or (threads is not None and threads < 1):
        raise DocumentError(
            "CSL-M211",
            f"The engine cannot compute on {device!r} with {'the usual number of' if threads is None else threads} threads.",
            'Name the device "cpu", "cuda" or "cuda:" and a number, and at least 1 thread.',
        )
    if kind == "cpu":
        return Place(torch.device("cpu"), threads or torch.get_num_threads(), _CACHED)
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= found:
        raise ConsilienceError(
            "CSL-M210",
            f"There is no GPU {device}: this installation of torch {torch.__version__} finds {found} of them.",
            "Run on the CPU, or install torch for CUDA and the GPU's driver.",
        )
    return Place(torch.device("cuda", int(number or 0)), 1, _ON_GPU)


class Workers:
    """Threads that work on tasks and hand back results in the order of the tasks, so that sums are always formed alike.

    Parameters
    ----------
    threads:
        With 1, tasks are done where their results are asked for.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "vectorized") if threads > 1 else None

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of every item, in order. Only a few results wait at a time, however many items there are. A single task is done
        where its result is asked for."""
        if self._pool is None or (isinstance(items, Sized) and len(items) <= 1):
            yield from map(function, items)
            return
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(function, item))
            if len(waiting) > _AHEAD * self._threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        """Let the threads end; tasks that have not begun never will."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class Buffers:
    """Memory by name that is used again and again: fresh memory costs more than most of what is done in it here.

    What `take` returns holds anything, until the next `take` of the same name.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._kept, self._last = device, dict[str, Tensor](), dict[str, Tensor]()

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous float32 tensor of this shape."""
        last = self._last.get(name)
        if last is not None and last.shape == shape:
            return last
        count = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.numel() < count:
            kept = self._kept[name] = torch.empty(count, device=self._device)
        found = self._last[name] = kept[:count].view(shape)
        return found
