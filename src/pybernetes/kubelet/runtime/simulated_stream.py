"""The streams of simulated containers: logs, execs, attaches and connections, all in memory.

None of them has a task or waits for one: a writer hands over to a reader on the spot, so they cost
nothing while nobody uses them and every interleaving can be replayed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from pybernetes.kubelet.runtime.interface import Output
from pybernetes.wire.http import REASON_PHRASES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

T = TypeVar("T")

# A simulated container's log ends here; nobody scripts more and means it.
LOG_LIMIT = 4 * 1024 * 1024
# Runtimes split longer lines, and mark all but the last part with P.
LOG_LINE_LIMIT = 16384


class Pipe(Generic[T]):
    """Items from a writer that never waits to one reader, then an end. Memory is the bound."""

    def __init__(self) -> None:
        # Written and not yet read.
        self._items: deque[T] = deque()
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, item: T) -> None:
        if not self._ended:
            self._items.append(item)
            self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def get(self) -> T | None:
        """The next item; None at the end."""
        while not self._items:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._items.popleft()


class MemoryLog:
    """The log of one container, in the lines of CRI log files."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._ended = False
        # Readers waiting for more.
        self._waiting: list[asyncio.Future[None]] = []
        # Attached clients: they get the bare output.
        self.listeners: list[Callable[[Output], None]] = []

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, offset: int, limit: int) -> bytes:
        return bytes(self._content[offset : offset + limit])

    async def wait_longer_than(self, size: int) -> None:
        while len(self._content) <= size and not self._ended:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)

    def write(self, now: datetime, output: bytes, *, is_stderr: bool = False) -> None:
        """Whole lines; the last one may lack its newline."""
        for listener in list(self.listeners):
            listener(Output(output, is_stderr))
        if len(self._content) > LOG_LIMIT:
            return
        prefix = f"{now:%Y-%m-%dT%H:%M:%S.%f}000Z {'stderr' if is_stderr else 'stdout'} ".encode()
        for line in output.removesuffix(b"\n").split(b"\n"):
            start = 0
            while len(line) - start > LOG_LINE_LIMIT:
                self._content += prefix + b"P " + line[start : start + LOG_LINE_LIMIT] + b"\n"
                start += LOG_LINE_LIMIT
            self._content += prefix + b"F " + line[start:] + b"\n"
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class SimulatedProcess:
    """A `ProcessStream`. `feed` is what happens to its input, b"" being its end."""

    def __init__(
        self,
        feed: Callable[[SimulatedProcess, bytes], None] | None = None,
        *,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._feed = feed
        self._on_close = on_close
        self._output: Pipe[Output] = Pipe()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Width and height of the terminal, last told.
        self.size: tuple[int, int] | None = None
        # Called off when it is closed first.
        self.timer: asyncio.TimerHandle | None = None

    async def write(self, data: bytes) -> None:
        if data and self._feed is not None:
            self._feed(self, data)

    async def close_stdin(self) -> None:
        if self._feed is not None:
            self._feed(self, b"")
            self._feed = None

    def resize(self, width: int, height: int) -> None:
        self.size = (width, height)

    async def output(self) -> AsyncIterator[Output]:
        while (item := await self._output.get()) is not None:
            yield item

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        self.exit(137)

    # What the simulated side does.

    def emit(self, data: bytes, *, is_stderr: bool = False) -> None:
        if data:
            self._output.put(Output(data, is_stderr))

    def pass_on(self, item: Output) -> None:
        self._output.put(item)

    def exit(self, code: int) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._output.end()
        if not self._exit.done():
            self._exit.set_result(code)
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


def echo_input(process: SimulatedProcess, data: bytes) -> None:
    """What `cat` does."""
    if data:
        process.emit(data)
    else:
        process.exit(0)


class SimulatedConnection:
    """A connection to a simulated port: answers GET requests, and sends anything else back."""

    def __init__(self, get: Callable[[str], tuple[int, bytes]]) -> None:
        self._get = get
        self._answers: Pipe[bytes] = Pipe()
        self._request = b""
        # Decided by the first bytes: True for HTTP.
        self._is_http: bool | None = None
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        return await self._answers.get() or b""

    def write(self, data: bytes) -> None:
        if self._is_http is None and data:
            self._is_http = data[:4] in (b"GET ", b"HEAD")
        if not self._is_http:
            self._answers.put(bytes(data))
            return
        self._request += data
        while b"\r\n\r\n" in self._request:
            head, _, self._request = self._request.partition(b"\r\n\r\n")
            self._answer(head)

    def write_eof(self) -> None:
        self._answers.end()

    def _answer(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        method, path, *_ = [*lines[0].split(" "), "/"]
        status, body = self._get(path)
        phrase = REASON_PHRASES.get(status, "")
        closes = any(line.lower().replace(" ", "") == "connection:close" for line in lines[1:])
        answer = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: {len(body)}\r\n"
        answer += "Connection: close\r\n\r\n" if closes else "\r\n"
        self._answers.put(answer.encode("latin-1") + (b"" if method == "HEAD" else body))
        if closes:
            self._answers.end()

    async def drain(self) -> None:
        return

    def close(self) -> None:
        self._answers.end()
        self._closed.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()
