"""HTTP without sockets: a pipe of bytes in memory, and a client that calls a handler.

Used by in-process components and by tests. Nothing here reads a clock or starts
a thread, so all of it runs under virtual time.

Rule: what the handler sees and does is the same as behind a socket. Two things
differ on purpose: an exception of the handler reaches the caller as it is, and
the handler runs in the caller's task, so cancelling the caller cancels it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from pybernetes.wire.http import (
    BODILESS,
    Body,
    ClientResponse,
    Connection,
    ConnectionClosed,
    Handler,
    Headers,
    Peer,
    Request,
    Response,
    StreamBody,
)

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

# How much one side may have written before its drain() waits for the other to read.
PIPE_LIMIT = 64 * 1024


class MemoryConnection:
    """One end of a pipe. Reading takes all that is there, up to the limit."""

    def __init__(self, limit: int = PIPE_LIMIT) -> None:
        self._limit = limit
        self._peer: MemoryConnection = self
        # What the peer has written and we have not read, oldest first.
        self._incoming: deque[bytes] = deque()
        self._size = 0
        self._eof = False
        self._closed = asyncio.Event()
        self._readable = asyncio.Event()
        # Set while the peer of this end, who writes into _incoming, may go on.
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def read(self) -> bytes:
        while not self._incoming:
            if self._eof or self._closed.is_set():
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = self._incoming.popleft() if len(self._incoming) == 1 else b"".join(self._incoming)
        self._incoming.clear()
        self._size = 0
        self._has_room.set()
        return data

    def write(self, data: bytes) -> None:
        """Bytes written after either side has closed are dropped, as a socket does."""
        if not data or self._closed.is_set() or self._peer._closed.is_set() or self._peer._eof:
            return
        self._peer._receive(bytes(data))

    def _receive(self, data: bytes) -> None:
        self._incoming.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._has_room.clear()
        self._readable.set()

    async def drain(self) -> None:
        await self._peer._has_room.wait()
        if self._closed.is_set() or self._peer._closed.is_set():
            raise ConnectionClosed("the pipe is closed")

    def write_eof(self) -> None:
        """End our direction only; the peer reads what is left and then b""."""
        self._peer._eof = True
        self._peer._readable.set()

    def close(self) -> None:
        self.write_eof()
        self._closed.set()
        self._readable.set()
        # Nobody will read what the peer still writes: its drain must not wait.
        self._has_room.set()
        # A pipe whose peer reads nothing any more would block our own writer for ever.
        self._peer._has_room.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()


def memory_pipe(limit: int = PIPE_LIMIT) -> tuple[MemoryConnection, MemoryConnection]:
    """Two connected ends: what is written to one is read from the other."""
    left, right = MemoryConnection(limit), MemoryConnection(limit)
    left._peer, right._peer = right, left
    return left, right


class MemoryHttpClient:
    """Calls a handler as if over a connection whose other end is `peer`."""

    def __init__(self, handler: Handler, *, peer: Peer | None = None) -> None:
        self._handler = handler
        self._peer = Peer(address="memory", secure=True) if peer is None else peer
        # Upgraded exchanges whose server side still runs.
        self._upgraded: set[asyncio.Task[None]] = set()

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> ClientResponse:
        response = await self._handler(self._request(method, target, headers, body))
        if response.upgrade is not None:
            raise ConnectionClosed("the handler changed the protocol without being asked")
        return _client_response(response, with_body=method != "HEAD")

    async def upgrade(
        self, method: str, target: str, *, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[ClientResponse, Connection | None]:
        response = await self._handler(self._request(method, target, headers, b""))
        if response.upgrade is None:
            return _client_response(response, with_body=True), None
        ours, theirs = memory_pipe()

        async def serve() -> None:
            assert response.upgrade is not None
            try:
                await response.upgrade(theirs)
            except ConnectionClosed:
                pass  # the client left in the middle
            except Exception:
                log.exception("upgraded connection failed: %s", target)
            finally:
                theirs.close()

        task = asyncio.get_running_loop().create_task(serve(), name=f"upgrade {target}")
        self._upgraded.add(task)
        task.add_done_callback(self._upgraded.discard)
        return _client_response(response, with_body=False), ours

    def _request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
    ) -> Request:
        path, _, query = target.partition("?")
        fields = [(name.lower(), value) for name, value in headers]
        incoming = Body(body) if isinstance(body, bytes) else StreamBody(body)
        if isinstance(body, bytes) and body and not any(n == "content-length" for n, _ in fields):
            fields.append(("content-length", str(len(body))))
        return Request(method, path, query, Headers.of_lowered(fields), incoming, self._peer)

    async def close(self) -> None:
        """Cut the upgraded connections that are still open."""
        tasks = list(self._upgraded)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> MemoryHttpClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _client_response(response: Response, *, with_body: bool) -> ClientResponse:
    with_body = with_body and response.status not in BODILESS
    if isinstance(response.body, AsyncIterator):
        chunks = _Stream(response.body, with_body=with_body)
        return ClientResponse(
            response.status, Headers(response.headers), chunks, close=chunks.aclose
        )
    parts = [response.body] if isinstance(response.body, bytes) else response.body
    listed = _Parts(parts if with_body else ())
    return ClientResponse(response.status, Headers(response.headers), listed, close=listed.aclose)


class _Parts:
    """Bytes that are there already, as an iterator; nothing needs to be closed."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = iter(parts)

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            if part:
                return bytes(part)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        return None


class _Stream:
    """The handler's stream without its empty chunks; closing it closes the handler's."""

    __slots__ = ("_chunks", "_with_body")

    def __init__(self, chunks: AsyncIterator[bytes], *, with_body: bool) -> None:
        self._chunks = chunks
        self._with_body = with_body

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> bytes:
        while self._with_body:
            if chunk := await anext(self._chunks):
                return chunk
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        aclose = getattr(self._chunks, "aclose", None)
        if aclose is not None:
            await aclose()
