"""A stretch of network between a node and the link: a relay on 127.0.0.1 that can be cut, held and healed, and counts who knocks."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
State = Literal["open", "cut", "held"]
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no seconds: closing sends a reset
_CHUNK = 65_536


class Relay:
    """Passes TCP on to `target` on this machine. A context manager; `port` is where it listens.

    Attributes
    ----------
    knocks:
        When somebody connected, monotonic seconds, in whatever state it was.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._state: State = "open"
        self._flows: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self.knocks: list[float] = []
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(listening.getsockname()[1])
        self._thread.start()
        self._server = self._call(lambda: asyncio.start_server(self._serve, sock=listening))

    @property
    def address(self) -> str:
        """Where it listens, host:port."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection, and every new one as soon as it is made."""
        self._call(lambda: self._set("cut"))

    def hold(self) -> None:
        """Pass nothing on and lose nothing, as when packets are dropped: connections stay, and go on when it is healed."""
        self._call(lambda: self._set("held"))

    def heal(self) -> None:
        """Pass everything on."""
        self._call(lambda: self._set("open"))

    def knocked(self, since: float) -> int:
        """Return how often somebody connected since a monotonic time."""
        return sum(moment >= since for moment in self.knocks)

    def close(self) -> None:
        """End it, with all its connections."""
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout=10)

    async def _set(self, state: State) -> None:
        self._state = state
        if state == "held":
            self._passing.clear()
        else:
            self._passing.set()
        if state == "cut":
            for writer in list(self._flows):
                _reset(writer)

    async def _close(self) -> None:
        self._server.close()
        await self._set("cut")
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks.append(time.monotonic())
        self._flows.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            if self._state != "cut":
                answers, onward = await asyncio.open_connection("127.0.0.1", self._target)
                self._flows.add(onward)
                await asyncio.gather(self._pump(reader, onward), self._pump(answers, writer))
        except OSError:
            _reset(writer)  # nobody listens behind it
        finally:
            for flow in (writer, onward):
                if flow is not None:
                    _reset(flow) if self._state == "cut" else flow.close()
                    self._flows.discard(flow)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes until one side ends."""
        try:
            while content := await reader.read(_CHUNK):
                await self._passing.wait()
                writer.write(content)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()  # what was passed on is still sent


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once; what was not sent is lost."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
