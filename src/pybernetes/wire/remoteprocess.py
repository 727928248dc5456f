"""A process at the other end of a wire: its input, outputs, terminal size and exit status.

The same five streams travel in three forms. Over SPDY each is a stream that the
client opens and labels. Over WebSocket each is a channel, the number in front
of every message; protocol version 5 adds a message that closes one. Either way
the serving side gets a `RemoteProcess`, whose parts are `Connection`s, and
need not know which it is.

    channel   0 stdin   1 stdout   2 stderr   3 status   4 resize

The status stream carries, once and at the end, how it went, as JSON from
version 4 on. What it says is the business of those above.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pybernetes.wire.http import Connection, ConnectionClosed, Request, Response
from pybernetes.wire.memory import MemoryConnection, memory_pipe
from pybernetes.wire.spdy import SpdySession, SpdyStream
from pybernetes.wire.websocket import (
    WebSocket,
    accept_websocket,
    choose_subprotocol,
    is_websocket,
)

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
_CLOSE = 255
_SPDY_NAMES = {
    "stdin": STDIN,
    "stdout": STDOUT,
    "stderr": STDERR,
    "error": STATUS,
    "resize": RESIZE,
}

V5, V4, V3, V2, V1 = (f"{prefix}channel.k8s.io" for prefix in ("v5.", "v4.", "v3.", "v2.", ""))
SPDY_PROTOCOLS = (V4, V3, V2, V1)
_BASE64_V4, _BASE64_V1 = "v4.base64.channel.k8s.io", "base64.channel.k8s.io"
WEBSOCKET_PROTOCOLS = (V5, V4, _BASE64_V4, _BASE64_V1, V1)

# How long the client may take to open its SPDY streams, and to leave after the end.
_OPEN_SECONDS = 30.0
_LEAVE_SECONDS = 5.0
# A status longer than this is not one.
_STATUS_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams the request asks for. A terminal has no separate stderr."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False

    def __bool__(self) -> bool:
        return self.stdin or self.stdout or self.stderr

    @property
    def channels(self) -> frozenset[int]:
        flags = {
            STDIN: self.stdin,
            STDOUT: self.stdout,
            STDERR: self.stderr and not self.tty,
            RESIZE: self.tty,
        }
        return frozenset({STATUS, *(channel for channel, wanted in flags.items() if wanted)})


@dataclass(slots=True, kw_only=True)
class RemoteProcess:
    """The client's ends: we read stdin and resize, and write the others.

    `json_status` is false for clients that expect plain text on the status stream, and
    only if something went wrong. `gone` returns when the client has left.
    """

    status: Connection
    gone: Callable[[], Awaitable[None]]
    stdin: Connection | None = None
    stdout: Connection | None = None
    stderr: Connection | None = None
    resize: Connection | None = None
    json_status: bool = True
    # Tells the client that it runs, where clients wait for a sign of it.
    announce: Callable[[], None] = lambda: None

    async def finish(self, status: bytes) -> None:
        """Say how it ended, and end everything we write."""
        with suppress(ConnectionClosed):
            self.status.write(status)
            await self.status.drain()
        for stream in (self.stdout, self.stderr, self.status):
            if stream is not None:
                stream.close()


Serve = Callable[[RemoteProcess], Awaitable[None]]


def refused(request: Request) -> Response | None:
    """Why `accept` will not do, known before anything is started; None: it will."""
    if is_websocket(request):
        offered = request.headers.get("sec-websocket-protocol")
        if offered and not choose_subprotocol(request, WEBSOCKET_PROTOCOLS):
            return Response(400, [], b"no WebSocket subprotocol in common\n")
    elif request.upgrade_protocol != "spdy/3.1":
        return Response(400, [], b"unable to upgrade: missing upgrade headers in request\n")
    elif choose_spdy_protocol(request, SPDY_PROTOCOLS) is None:
        return no_common_protocol(request, SPDY_PROTOCOLS)
    return None


def accept(request: Request, wanted: Wanted, serve: Serve) -> Response:
    """The answer that lets `serve` talk to the client, by whichever protocol it asks for."""
    if (response := refused(request)) is not None:
        return response
    if is_websocket(request):
        return _accept_websocket(request, wanted, serve)
    return _accept_spdy(request, wanted, serve)


# SPDY


def choose_spdy_protocol(request: Request, supported: Sequence[str]) -> str | None:
    """The first that the client offers and we know; None if there is none."""
    offered = ",".join(request.headers.get_all("x-stream-protocol-version")).split(",")
    names = [name.strip() for name in offered if name.strip()]
    if not names:
        return ""
    return next((name for name in names if name in supported), None)


def spdy_response(protocol: str, upgrade: Callable[[SpdySession], Awaitable[None]]) -> Response:
    """101 to SPDY; the session runs while `upgrade` does."""
    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
    if protocol:
        headers.append(("X-Stream-Protocol-Version", protocol))

    async def upgraded(connection: Connection) -> None:
        async with SpdySession(connection, client=False) as session:
            await upgrade(session)

    return Response(101, headers, upgrade=upgraded)


def no_common_protocol(request: Request, supported: Sequence[str]) -> Response:
    offered = " ".join(request.headers.get_all("x-stream-protocol-version"))
    text = (
        "unable to upgrade: unable to negotiate protocol: "
        f"client supports [{offered}], server accepts [{' '.join(supported)}]\n"
    )
    headers = [("X-Accepted-Stream-Protocol-Versions", name) for name in supported]
    return Response(403, headers, text.encode())


def _accept_spdy(request: Request, wanted: Wanted, serve: Serve) -> Response:
    protocol = choose_spdy_protocol(request, SPDY_PROTOCOLS) or ""
    channels = wanted.channels
    if protocol in (V2, V1, ""):
        channels -= {RESIZE}

    async def upgraded(session: SpdySession) -> None:
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                streams = await _collect(session, channels)
        except TimeoutError:
            return
        if streams is None:
            return
        process = RemoteProcess(
            status=streams[STATUS],
            stdin=streams.get(STDIN),
            stdout=streams.get(STDOUT),
            stderr=streams.get(STDERR),
            resize=streams.get(RESIZE),
            json_status=protocol == V4,
            gone=session.wait_ended,
        )
        await serve(process)
        # The client leaves when it has read the status. If we left first, what it
        # still sends could reset the connection under what it has not read yet.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await session.wait_ended()

    return spdy_response(protocol, upgraded)


async def _collect(session: SpdySession, channels: frozenset[int]) -> dict[int, SpdyStream] | None:
    """The streams the client opens, until all are there; None if it leaves before."""
    streams: dict[int, SpdyStream] = {}
    while streams.keys() != channels:
        stream = await session.accept()
        if stream is None:
            return None
        channel = _SPDY_NAMES.get(stream.headers.get("streamtype").lower())
        if channel is None or channel not in channels or channel in streams:
            stream.reset()
            continue
        stream.reply()
        streams[channel] = stream
    return streams


async def open_over_spdy(session: SpdySession, wanted: Wanted) -> RemoteProcess:
    """The client's part: open the streams. We write stdin and resize, and read the others.

    In the order Go's client opens them, status first.
    """
    opened: dict[int, SpdyStream] = {}
    names = {channel: name for name, channel in _SPDY_NAMES.items()}
    for channel in (STATUS, STDIN, STDOUT, STDERR, RESIZE):
        if channel in wanted.channels:
            opened[channel] = await session.open([("streamtype", names[channel])])
    return RemoteProcess(
        status=opened[STATUS],
        stdin=opened.get(STDIN),
        stdout=opened.get(STDOUT),
        stderr=opened.get(STDERR),
        resize=opened.get(RESIZE),
        gone=session.wait_ended,
    )


# WebSocket


def _accept_websocket(request: Request, wanted: Wanted, serve: Serve) -> Response:
    protocol = choose_subprotocol(request, WEBSOCKET_PROTOCOLS)

    async def upgraded(websocket: WebSocket) -> None:
        channels = Channels(websocket, wanted.channels, protocol=protocol)
        try:
            await channels.run(serve, wanted)
        finally:
            channels.close()

    return accept_websocket(request, upgraded, subprotocol=protocol)


class Channels:
    """The channels of one WebSocket, serving side."""

    def __init__(self, websocket: WebSocket, channels: frozenset[int], *, protocol: str) -> None:
        self._websocket = websocket
        self._is_base64 = "base64." in protocol
        self._has_close = protocol == V5
        self._json_status = protocol in (V5, V4, _BASE64_V4)
        # What the client sends, by channel: our end is read by the process, theirs is
        # filled here.
        self._incoming: dict[int, tuple[MemoryConnection, MemoryConnection]] = {
            channel: memory_pipe() for channel in channels & {STDIN, RESIZE}
        }
        self._channels = channels
        self._left = asyncio.Event()

    async def run(self, serve: Serve, wanted: Wanted) -> None:
        def outgoing(channel: int) -> Connection | None:
            return _Outgoing(self, channel) if channel in self._channels else None

        def incoming(channel: int) -> Connection | None:
            return self._incoming[channel][1] if channel in self._incoming else None

        process = RemoteProcess(
            status=_Outgoing(self, STATUS),
            stdin=incoming(STDIN),
            stdout=outgoing(STDOUT),
            stderr=outgoing(STDERR),
            resize=incoming(RESIZE),
            json_status=self._json_status,
            gone=self._wait_left,
            announce=self._announce,
        )
        receiving = asyncio.ensure_future(self._receive())
        try:
            await serve(process)
            self._websocket.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._left.wait()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    def _announce(self) -> None:
        """Some clients take the connection for established with the first message. kubectl
        throws away what comes before it is set up itself, so this must not be the 101's shadow.
        """
        first = next((c for c in (STDOUT, STDERR) if c in self._channels), STATUS)
        self.send(first, b"")

    async def _wait_left(self) -> None:
        await self._left.wait()

    def close(self) -> None:
        for ends in self._incoming.values():
            for end in ends:
                end.close()
        self._websocket.abort()

    async def _receive(self) -> None:
        try:
            while (message := await self._websocket.receive()) is not None:
                data = message.encode() if isinstance(message, str) else message
                channel, payload = self._decode(data)
                if channel == _CLOSE and self._has_close:
                    self._end_incoming(payload[0] if payload else _CLOSE)
                elif channel in self._incoming and payload:
                    pipe = self._incoming[channel][0]
                    pipe.write(payload)
                    with suppress(ConnectionClosed):
                        await pipe.drain()
        except ConnectionClosed:
            pass
        finally:
            self._left.set()
            for channel in self._incoming:
                self._end_incoming(channel)

    def _end_incoming(self, channel: int) -> None:
        if channel in self._incoming:
            self._incoming[channel][0].write_eof()

    def _decode(self, data: bytes) -> tuple[int, bytes]:
        if not data:
            return -1, b""
        if not self._is_base64:
            return data[0], data[1:]
        try:
            return data[0] - ord("0"), base64.b64decode(data[1:], validate=True)
        except binascii.Error:
            return -1, b""

    def send(self, channel: int, data: bytes) -> None:
        if self._is_base64:
            self._websocket.send_nowait(f"{channel}{base64.b64encode(data).decode()}")
        else:
            self._websocket.send_nowait(bytes([channel]) + data)

    async def drain(self) -> None:
        await self._websocket.drain()


class _Outgoing:
    """One channel that we write, as a `Connection`."""

    # One message: clients have limits on the length of theirs.
    _MESSAGE = 32 * 1024

    def __init__(self, channels: Channels, channel: int) -> None:
        self._channels = channels
        self._channel = channel
        self._closed = False

    async def read(self) -> bytes:
        return b""

    def write(self, data: bytes) -> None:
        if not self._closed:
            for start in range(0, len(data), self._MESSAGE):
                self._channels.send(self._channel, data[start : start + self._MESSAGE])

    async def drain(self) -> None:
        await self._channels.drain()

    def close(self) -> None:
        """Nothing to say: version 5 lets only the client close a channel."""
        self._closed = True

    async def wait_closed(self) -> None:
        return None


# Between two connections


async def relay(client: RemoteProcess, server: RemoteProcess) -> bytes | None:
    """Carry a process from `server` to `client`: its final status; None if either is lost.

    Returns when the status and both outputs have come to their ends. The status is not
    passed on: the two may speak of it differently. Nothing is closed.
    """
    client.announce()
    inputs = [
        asyncio.ensure_future(_copy(source, sink))
        for source, sink in ((client.stdin, server.stdin), (client.resize, server.resize))
        if source is not None and sink is not None
    ]
    outputs = [
        asyncio.ensure_future(_copy(source, sink))
        for source, sink in ((server.stdout, client.stdout), (server.stderr, client.stderr))
        if source is not None and sink is not None
    ]
    status = asyncio.ensure_future(_read_all(server.status))
    gone = asyncio.ensure_future(client.gone())
    ended: asyncio.Future[list[object]] = asyncio.gather(status, *outputs)
    either: list[asyncio.Future[Any]] = [ended, gone]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return None
        ended.result()
        return status.result() or None
    except ConnectionClosed:
        return None
    finally:
        tasks = (*inputs, *outputs, status, gone)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, ended, return_exceptions=True)


async def _copy(source: Connection, sink: Connection) -> None:
    while data := await source.read():
        sink.write(data)
        await sink.drain()
    sink.close()


async def _read_all(stream: Connection) -> bytes:
    parts, size = [], 0
    while data := await stream.read():
        size += len(data)
        if size <= _STATUS_LIMIT:
            parts.append(data)
    return b"".join(parts)
