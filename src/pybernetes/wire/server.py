"""An HTTP/1.1 server on sockets, with or without TLS.

`serve` listens and is an async context manager; every connection is an
`_HttpConnection` (module `serverconnection`) that parses requests, runs the
handler in a task of its own per request, one after the other, and writes the
answers. The server holds what the connections share: limits, the clock for
their deadlines, the way to end them all.

Rules: nothing a client sends or leaves unsent can hold more than the limits
allow; a slow reader stops only its own stream; a client that leaves cancels its
handler; closing the server takes no longer than `drain_timeout`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import formatdate
from math import inf
from typing import TYPE_CHECKING

from pybernetes.wire.channel import WRITE_LIMIT, Channel
from pybernetes.wire.serverconnection import HttpConnection
from pybernetes.wire.tls import TlsEngine

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

    from pybernetes.wire.http import Handler

log = logging.getLogger(__name__)

# No timer of ours rings more often than this while deadlines are far away.
_SWEEP_SECONDS = 0.5

# A silent peer is found out by the kernel: first probe, distance, number.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of us. The times are about waiting for the client only."""

    header_bytes: int = 128 * 1024
    # Received body bytes kept while the handler does not read.
    body_buffer: int = 64 * 1024
    # Body bytes read and thrown away to keep a connection usable.
    discard: int = 256 * 1024
    # Requests of one connection that wait for their turn.
    pipelined: int = 16
    # Unsent bytes after which a stream waits for its reader.
    write: int = WRITE_LIMIT
    connections: int = 20_000
    # TLS handshake, and from the first to the last byte of a request's head.
    header_timeout: timedelta = timedelta(seconds=20)
    idle_timeout: timedelta = timedelta(seconds=180)
    # A body that makes no progress, a reader that takes nothing.
    stall_timeout: timedelta = timedelta(seconds=60)
    # What is left of a connection that one side has ended.
    linger: timedelta = timedelta(seconds=2)


class Server:
    """A running server: where it listens, what it is doing, and how it ends."""

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.closing = False
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        # Every accepted connection until it is gone and its handler has ended.
        self._connections: set[HttpConnection] = set()
        self._all_gone = asyncio.Event()
        self._accepted = 0
        self.requests = 0
        # The one timer for all deadlines, and when it rings.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._date = ("", 0)

    def statistics(self) -> dict[str, int]:
        return {
            "connections": len(self._connections),
            "accepted": self._accepted,
            "requests": self.requests,
        }

    # For the listener

    def accept(self) -> Channel:
        connection = HttpConnection(self)
        engine = None if self._tls is None else TlsEngine(self._tls, server_side=True)
        channel = Channel(connection, tls=engine, write_limit=self.limits.write)
        connection.attach(channel)
        self._accepted += 1
        self._connections.add(connection)
        self.arm(connection, self.limits.header_timeout)
        return channel

    # For the connections

    @property
    def is_overcrowded(self) -> bool:
        return len(self._connections) > self.limits.connections

    def date(self) -> str:
        now = int(time.time())
        if self._date[1] != now:
            self._date = (formatdate(now, usegmt=True), now)
        return self._date[0]

    def arm(self, connection: HttpConnection, timeout: timedelta) -> None:
        """Let `connection.expire()` be called that long from now, give or take half a second."""
        connection.deadline = deadline = self._loop.time() + timeout.total_seconds()
        if deadline < self._timer_at:
            self._ring_at(deadline)

    def _ring_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = moment
        self._timer = self._loop.call_at(moment, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        self._timer, self._timer_at = None, inf
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.deadline = inf
            connection.expire()
        earliest = min((c.deadline for c in self._connections), default=inf)
        if earliest < self._timer_at:
            self._ring_at(max(earliest, now + _SWEEP_SECONDS))

    def gone(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    async def close(self, timeout: timedelta) -> None:
        """End idle connections and streams now, the others when answered or after `timeout`."""
        self.closing = True
        for connection in list(self._connections):
            connection.finish()
        self._all_gone.clear()
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                while self._connections:
                    await self._all_gone.wait()
        except TimeoutError:
            log.warning("cutting %d connections that do not end", len(self._connections))
        tasks = [task for c in self._connections if (task := c.cut()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()


@asynccontextmanager
async def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    sockets: Sequence[socket.socket] = (),
    limits: Limits | None = None,
    drain_timeout: timedelta = timedelta(seconds=10),
) -> AsyncIterator[Server]:
    """Listen on host and port, or on `sockets` instead (unix sockets too); ready when entered.

    A context that wants client certificates sets verify_mode to CERT_OPTIONAL;
    a verified one appears in `Request.peer`. Raises OSError if it cannot listen.
    """
    server = Server(handler, tls=tls, limits=limits or Limits())
    loop = asyncio.get_running_loop()
    listeners: list[asyncio.Server] = []
    try:
        if sockets:
            for sock in sockets:
                listeners.append(await _listen_on(loop, server, sock))
        else:
            listeners.append(
                await loop.create_server(
                    server.accept, host, port, backlog=1024, reuse_address=True
                )
            )
        bound = [sock for listener in listeners for sock in listener.sockets]
        for sock in bound:
            _probe_silent_peers(sock)
        names = [sock.getsockname() for sock in bound]
        server.addresses = tuple(name[:2] for name in names if isinstance(name, tuple))
        yield server
    finally:
        for listener in listeners:
            listener.close()
        await server.close(drain_timeout)


async def _listen_on(
    loop: asyncio.AbstractEventLoop, server: Server, sock: socket.socket
) -> asyncio.Server:
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(server.accept, sock=sock, backlog=1024)
    return await loop.create_server(server.accept, sock=sock, backlog=1024)


def _probe_silent_peers(sock: socket.socket) -> None:
    """Set on the listener: Linux hands these options on to what it accepts."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
