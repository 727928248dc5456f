"""An HTTP/1.1 client for one server: keep-alive pool, streams, upgrades.

Every request has a connection for itself; when its answer has been read to the
end the connection goes back to the pool, the most recently used first.

Rules: the pool keeps only idle connections and only `idle_limit` of them; a
stream is read at the reader's pace; a request is sent a second time only if it
met a connection that had gone stale in the pool and may be repeated safely.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools

from pybernetes.wire.channel import connect_tcp
from pybernetes.wire.http import (
    ClientResponse,
    Connection,
    ConnectionClosed,
    Headers,
    ProtocolError,
)
from pybernetes.wire.http1 import LAST_CHUNK, chunk, decode_field, request_head

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

Connect = Callable[[], Awaitable[Connection]]

# What may be sent again without asking, when it is not known whether it arrived.
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
# An answer's head that is longer is not one.
_HEAD_LIMIT = 256 * 1024


class HttpClient:
    """Talks to the server of `base_url`, whose path is put before every target.

    With `connect` the connection comes from there (a unix socket, a pipe, a
    tunnel), already secured if it should be.
    """

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        connect: Connect | None = None,
        server_hostname: str | None = None,
        connect_timeout: timedelta = timedelta(seconds=10),
        idle_limit: int = 16,
        idle_timeout: timedelta = timedelta(seconds=60),
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"not an http or https URL: {base_url}")
        if url.scheme == "https" and tls is None and connect is None:
            raise ValueError(f"{base_url} needs a TLS context")
        self._prefix = url.path.rstrip("/")
        self._authority = url.netloc.rpartition("@")[2]
        self._connect = connect or _dialler(
            url.hostname,
            url.port or (443 if url.scheme == "https" else 80),
            tls if url.scheme == "https" else None,
            server_hostname,
        )
        self._connect_timeout = connect_timeout.total_seconds()
        self._idle_limit = idle_limit
        self._idle_seconds = idle_timeout.total_seconds()
        # Connections ready for the next request, with the moment of their last use; newest last.
        self._idle: deque[tuple[_Exchange, float]] = deque()
        # Connections in use by an answer that is not read to its end.
        self._busy: set[_Exchange] = set()
        self._closed = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
        timeout: timedelta | None = None,
    ) -> ClientResponse:
        """Send, and return when the head of the answer is there.

        `timeout` is for that; the body has none, it may be a watch. Raises
        ConnectionClosed, ProtocolError, OSError, ssl.SSLError or TimeoutError.
        """
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            return await self._send(method, target, headers, body)

    async def upgrade(
        self, method: str, target: str, *, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[ClientResponse, Connection | None]:
        """The connection is there if, and only if, the answer is 101. It is not pooled."""
        exchange = await self._fresh()
        try:
            exchange.begin(method)
            head, _ = self._head(method, target, headers, b"")
            await exchange.send(head, b"", chunked=False)
            status, fields = await exchange.receive_head()
        except BaseException:
            self._discard(exchange)
            raise
        response = self._response(exchange, status, fields)
        if status != 101:
            return response, None
        self._busy.discard(exchange)
        return response, _Handed(exchange.connection, exchange.early)

    async def _send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
    ) -> ClientResponse:
        head, chunked = self._head(method, target, headers, body)
        while True:
            exchange = self._take_idle() or await self._fresh()
            try:
                exchange.begin(method)
                await exchange.send(head, body, chunked=chunked)
                status, fields = await exchange.receive_head()
            except ConnectionClosed:
                self._discard(exchange)
                again = method in _IDEMPOTENT and isinstance(body, bytes)
                if not (exchange.was_idle and again and not exchange.has_answered):
                    raise
                continue  # Ends: each round takes one connection out of the pool.
            except BaseException:
                self._discard(exchange)
                raise
            if status == 101:
                self._discard(exchange)
                raise ProtocolError("the server changed the protocol without being asked")
            return self._response(exchange, status, fields)

    def _head(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
    ) -> tuple[bytes, bool]:
        """The head, and whether it announces a chunked body."""
        fields = list(headers)
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            fields.insert(0, ("Host", self._authority))
        # A caller that knows the length of a streamed body says so itself.
        chunked = not isinstance(body, bytes) and "content-length" not in names
        if chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        elif isinstance(body, bytes) and (body or method in ("POST", "PUT", "PATCH")):
            fields.append(("Content-Length", str(len(body))))
        return request_head(method, self._prefix + target, fields), chunked

    def _response(self, exchange: _Exchange, status: int, fields: Headers) -> ClientResponse:
        async def close() -> None:
            self._release(exchange)

        return ClientResponse(status, fields, _Chunks(exchange, self._release), close=close)

    # The pool

    async def _fresh(self) -> _Exchange:
        if self._closed:
            raise ConnectionClosed("the client is closed")
        async with asyncio.timeout(self._connect_timeout):
            exchange = _Exchange(await self._connect())
        self._busy.add(exchange)
        return exchange

    def _take_idle(self) -> _Exchange | None:
        now = asyncio.get_running_loop().time()
        while self._idle and self._idle[0][1] < now - self._idle_seconds:
            self._idle.popleft()[0].connection.close()
        while self._idle:
            exchange, _ = self._idle.pop()
            if not getattr(exchange.connection, "at_eof", False):
                exchange.was_idle = True
                self._busy.add(exchange)
                return exchange
            exchange.connection.close()
        return None

    def _release(self, exchange: _Exchange) -> None:
        """Back to the pool if the answer is complete, else away."""
        if exchange not in self._busy:
            return
        self._busy.discard(exchange)
        if not exchange.can_be_reused or self._closed:
            exchange.connection.close()
            return
        self._idle.append((exchange, asyncio.get_running_loop().time()))
        if len(self._idle) > self._idle_limit:
            self._idle.popleft()[0].connection.close()

    def _discard(self, exchange: _Exchange) -> None:
        self._busy.discard(exchange)
        exchange.connection.close()

    async def close(self) -> None:
        """Close every connection, those of unread answers too; handed-over ones stay."""
        self._closed = True
        exchanges = [*self._busy, *(exchange for exchange, _ in self._idle)]
        self._busy.clear()
        self._idle.clear()
        for exchange in exchanges:
            exchange.connection.close()
        if exchanges:
            # Sockets are given back by the loop one turn later; do not leave before.
            waits = [asyncio.ensure_future(e.connection.wait_closed()) for e in exchanges]
            _, late = await asyncio.wait(waits, timeout=1)
            for wait in late:
                wait.cancel()

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def statistics(self) -> dict[str, int]:
        return {"idle": len(self._idle), "busy": len(self._busy)}


def _dialler(
    host: str, port: int, tls: ssl.SSLContext | None, server_hostname: str | None
) -> Connect:
    async def connect() -> Connection:
        return await connect_tcp(host, port, tls=tls, server_hostname=server_hostname)

    return connect


@dataclass(slots=True)
class _Head:
    status: int
    headers: Headers


class _Exchange:
    """One connection, and the answer that is being received on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # It comes out of the pool, so the server may have closed it meanwhile.
        self.was_idle = False
        self.has_answered = False
        self.early = b""
        self._method = ""
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[tuple[str, str]] = []
        self._head: _Head | None = None
        # Body bytes parsed and not yet taken.
        self._chunks: deque[bytes] = deque()
        self._complete = False
        self._until_eof = False
        self._keep = False

    @property
    def can_be_reused(self) -> bool:
        return self._complete and self._keep and not self._chunks

    def begin(self, method: str) -> None:
        self._method = method
        self.has_answered = self._complete = self._keep = False
        self._head = None
        self._chunks.clear()

    async def send(self, head: bytes, body: bytes | AsyncIterator[bytes], *, chunked: bool) -> None:
        """A server that refuses a long body closes before it has read it: the refusal, if
        there is one, is what receive_head will find, so a failed write is not the end."""
        connection = self.connection
        with suppress(ConnectionClosed):
            if isinstance(body, bytes):
                connection.write(head + body)
                await connection.drain()
                return
            connection.write(head)
            async for data in body:
                if data:
                    connection.write(chunk(data) if chunked else data)
                    await connection.drain()
            if chunked:
                connection.write(LAST_CHUNK)
            await connection.drain()

    async def receive_head(self) -> tuple[int, Headers]:
        size = 0
        while self._head is None:
            data = await self.connection.read()
            if not data:
                raise ConnectionClosed("the server closed the connection without an answer")
            self.has_answered = True
            size += len(data)
            self._feed(data)
            if self._head is None and size > _HEAD_LIMIT:
                raise ProtocolError("the head of the answer is too long")
        return self._head.status, self._head.headers

    async def next_chunk(self) -> bytes:
        """The next bytes of the body; b"" at its end."""
        while not self._chunks:
            if self._complete:
                return b""
            data = await self.connection.read()
            if data:
                self._feed(data)
            elif self._until_eof:
                self._complete = True
            else:
                raise ConnectionClosed("the server closed the connection within the answer")
        return self._chunks.popleft()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.early = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            # With no body to expect after HEAD, the parser may stumble over nothing at all.
            if not (self._complete and self._method == "HEAD"):
                raise ProtocolError(f"the answer is not HTTP/1.1: {error}") from None

    # What the parser calls

    def on_message_begin(self) -> None:
        self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower().decode("latin-1"), decode_field(value)))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return  # Interim: the real answer follows as another message.
        headers = Headers.of_lowered(self._fields)
        self._head = _Head(status, headers)
        self._keep = self._parser.should_keep_alive()
        if self._method == "HEAD" or status == 101:
            # The parser does not know the method and would wait for a body.
            self._complete = True
            self._keep = False
        self._until_eof = "content-length" not in headers and "transfer-encoding" not in headers

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._head is not None:
            self._complete = True


class _Chunks:
    """The body of an answer as an iterator that gives its connection back at the end."""

    __slots__ = ("_exchange", "_release")

    def __init__(self, exchange: _Exchange, release: Callable[[_Exchange], None]) -> None:
        self._exchange = exchange
        self._release = release

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._exchange.next_chunk()
        except Exception:
            self._exchange.connection.close()
            self._release(self._exchange)
            raise
        if data:
            return data
        self._release(self._exchange)
        raise StopAsyncIteration


class _Handed:
    """A connection after its upgrade, with the bytes that came right behind the answer."""

    def __init__(self, connection: Connection, early: bytes) -> None:
        self._connection = connection
        self._early = early

    async def read(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._connection.read()

    def write(self, data: bytes) -> None:
        self._connection.write(data)

    async def drain(self) -> None:
        await self._connection.drain()

    def close(self) -> None:
        self._connection.close()

    async def wait_closed(self) -> None:
        await self._connection.wait_closed()
