"""A socket, with TLS or without, below everything else in this package.

`Channel` is the asyncio protocol: it owns the transport and the TLS engine and
hands plain bytes to its consumer, which can be exchanged while it runs (that is
how an HTTP connection becomes a raw one). `RawStream` is the consumer that
makes a `Connection` of a channel.

Rule: all channels of a thread read into one shared buffer and decrypt into a
second one. A consumer that wants to keep bytes copies them before it returns.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections import deque
from contextlib import suppress
from typing import Protocol, cast

from pybernetes.wire.http import ConnectionClosed, Peer
from pybernetes.wire.tls import RECORD, TlsEngine, looks_like_tls

log = logging.getLogger(__name__)

# How much a raw stream takes in before it asks the peer to wait.
READ_LIMIT = 64 * 1024
# How much may be unsent before drain() waits.
WRITE_LIMIT = 64 * 1024

_PLAIN_HTTP_ANSWER = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)


class _Buffers(threading.local):
    """A thread has one event loop, which fills a buffer and hands it over before it
    fills it again: within a thread these are never in use twice."""

    def __init__(self) -> None:
        self.received = memoryview(bytearray(64 * 1024))
        # What a slice of at most one record decrypts to, with what came before it.
        self.plain = memoryview(bytearray(64 * 1024))


_BUFFERS = _Buffers()


class Consumer(Protocol):
    """Who gets what a channel receives. None of these may raise."""

    def on_open(self) -> None:
        """The connection stands, TLS included; channel.peer is filled."""

    def on_data(self, data: memoryview) -> None:
        """Valid only until this returns."""

    def on_eof(self) -> None:
        """The peer will send no more; we may still write."""

    def on_lost(self, error: Exception | None) -> None:
        """The connection is gone. Called exactly once, also when on_open never was."""


class Channel(asyncio.BufferedProtocol):
    """One connected socket. Not to be used before on_open."""

    __slots__ = (
        "_ended",
        "_failure",
        "_plain",
        "_received",
        "_tls",
        "_transport",
        "_writable",
        "closing",
        "consumer",
        "lost",
        "peer",
        "write_limit",
    )

    def __init__(
        self,
        consumer: Consumer,
        *,
        tls: TlsEngine | None = None,
        write_limit: int = WRITE_LIMIT,
    ) -> None:
        self.consumer = consumer
        self.peer = Peer()
        # Both shared with all other channels of this thread.
        self._received = _BUFFERS.received
        self._plain = _BUFFERS.plain
        self.write_limit = write_limit
        # We have begun to close: nothing more is written.
        self.closing = False
        self.lost = False
        # Our direction has ended: nothing more can be written.
        self._ended = False
        # Why TLS came to nothing; what on_lost is told.
        self._failure: ssl.SSLError | None = None
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        # There while too much is unsent; set when there is room again, or nobody left.
        self._writable: asyncio.Event | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self.write_limit)
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple):
            self.peer.address = address[0]
        if self._tls is None:
            self.consumer.on_open()
        else:
            self.peer.secure = True
            self._shake_hands(self._tls)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._received

    def buffer_updated(self, count: int) -> None:
        tls = self._tls
        if tls is None:
            self.consumer.on_data(self._received[:count])
            return
        try:
            for start in range(0, count, RECORD):
                tls.receive(self._received[start : min(start + RECORD, count)])
                if (tls.established or self._shake_hands(tls)) and not self._decrypt(tls):
                    break
                if self.lost:
                    break
        except ssl.SSLError as error:
            self._fail(error)

    def eof_received(self) -> bool:
        if self._tls is not None and not self._tls.established:
            return False
        if not self.closing:
            self.consumer.on_eof()
        return not self.closing

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = self.closing = True
        if self._writable is not None:
            self._writable.set()
        self.consumer.on_lost(self._failure or error)
        self._transport = self._tls = None

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # What the consumer calls.

    @property
    def is_full(self) -> bool:
        """More than write_limit bytes are unsent: drain before writing on."""
        return self._writable is not None

    @property
    def unsent(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        if self.closing or self._ended or not data:
            return
        transport, tls = self._transport, self._tls
        assert transport is not None
        if tls is None:
            transport.write(data)
        elif len(data) <= RECORD:
            transport.write(tls.encrypt_record(data))
        else:
            transport.write(b"".join(tls.encrypt(data)))

    async def drain(self) -> None:
        if self._writable is not None and not self.lost:
            await self._writable.wait()
        if self.closing:
            raise ConnectionClosed("connection closed")

    def pause_reading(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def write_eof(self) -> None:
        """End our direction: TLS first, then TCP. Reading goes on."""
        if self.closing or self._ended or self._transport is None:
            return
        if self._tls is not None:
            self._transport.write(self._tls.end())
        self._ended = True
        with suppress(OSError):  # It is lost already, and connection_lost will say so.
            self._transport.write_eof()

    def close(self) -> None:
        """Send what is unsent, then close. on_lost follows."""
        if self.closing or self._transport is None:
            return
        self.closing = True
        if self._tls is not None and self._tls.established and not self._ended:
            self._transport.write(self._tls.end())
        self._transport.close()

    def abort(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    # TLS

    def _shake_hands(self, tls: TlsEngine) -> bool:
        done = tls.handshake()
        assert self._transport is not None
        self._transport.write(tls.pending_output())
        if done:
            self.peer.certificate_der = tls.peer_certificate_der()
            if self.peer.certificate_der is not None:
                self.peer.subject = tls.peer_subject()
            self.consumer.on_open()
        return done

    def _decrypt(self, tls: TlsEngine) -> bool:
        """Hand on all that can be decrypted now; False when nothing more will come."""
        while True:
            count = tls.decrypt_into(self._plain)
            if (output := tls.pending_output()) and self._transport and not self._ended:
                self._transport.write(output)
            if count is None:
                if not self.closing:
                    self.consumer.on_eof()
                return False
            if count == 0:
                return True
            self.consumer.on_data(self._plain[:count])
            if self.lost or self.closing:
                return False
            if count < len(self._plain):
                return True  # That was all there was.

    def _fail(self, error: ssl.SSLError) -> None:
        transport, tls = self._transport, self._tls
        if transport is None or tls is None:
            return
        if not tls.established and not looks_like_tls(self._received):
            transport.write(_PLAIN_HTTP_ANSWER)
        else:
            if not self._ended:
                transport.write(tls.pending_output())  # the alert that says why
        log.debug("TLS with %s failed: %s", self.peer.address, error)
        self.closing = True
        self._failure = error
        transport.close()


class RawStream:
    """A channel as a `Connection`: a consumer that keeps bytes until they are read."""

    __slots__ = ("_channel", "_chunks", "_error", "_lost", "_paused", "_size", "_waiter", "at_eof")

    def __init__(self, channel: Channel, *, early: bytes = b"") -> None:
        self._channel = channel
        # Received and not yet read, oldest first; reading pauses above READ_LIMIT.
        self._chunks: deque[bytes] = deque([early] if early else [])
        self._size = len(early)
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._lost = asyncio.Event()
        self.at_eof = False

    @property
    def peer(self) -> Peer:
        return self._channel.peer

    @property
    def channel(self) -> Channel:
        return self._channel

    # Consumer

    def on_open(self) -> None:
        self._wake()

    def on_data(self, data: memoryview) -> None:
        self._chunks.append(bytes(data))
        self._size += len(data)
        if self._size > READ_LIMIT and not self._paused:
            self._paused = True
            self._channel.pause_reading()
        self._wake()

    def on_eof(self) -> None:
        self.at_eof = True
        self._wake()

    def on_lost(self, error: Exception | None) -> None:
        self.at_eof = True
        self._error = error
        self._lost.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Connection

    async def read(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise ConnectionClosed(str(self._error)) from self._error
            if self.at_eof or self._channel.closing:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._channel.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        self._channel.write(data)

    async def drain(self) -> None:
        await self._channel.drain()

    def write_eof(self) -> None:
        self._channel.write_eof()

    def close(self) -> None:
        self._channel.close()
        # A paused transport would never notice that the peer is gone.
        self._wake()

    def abort(self) -> None:
        self._channel.abort()
        self._wake()

    async def wait_closed(self) -> None:
        await self._lost.wait()


class _Opening(RawStream):
    """A client's stream until it stands: on_open and on_lost settle a future."""

    __slots__ = ("opened",)

    def __init__(self) -> None:
        # The channel needs its consumer first; connect_* puts the channel in.
        super().__init__(cast("Channel", None))
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def attach(self, channel: Channel) -> None:
        self._channel = channel

    def on_open(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def on_lost(self, error: Exception | None) -> None:
        super().on_lost(error)
        if not self.opened.done():
            closed = ConnectionClosed("connection closed by the peer while it was opened")
            self.opened.set_exception(error or closed)


async def connect_tcp(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> RawStream:
    """Dial, and shake hands if there is a TLS context. Raises OSError or ssl.SSLError."""
    stream = _Opening()
    loop = asyncio.get_running_loop()
    channel = _client_channel(stream, tls, server_hostname or host)
    await loop.create_connection(lambda: channel, host, port)
    return await _opened(stream)


async def connect_unix(path: str, *, tls: ssl.SSLContext | None = None) -> RawStream:
    stream = _Opening()
    loop = asyncio.get_running_loop()
    channel = _client_channel(stream, tls, None)
    await loop.create_unix_connection(lambda: channel, path)
    return await _opened(stream)


def _client_channel(
    stream: _Opening, tls: ssl.SSLContext | None, server_hostname: str | None
) -> Channel:
    engine = None
    if tls is not None:
        engine = TlsEngine(tls, server_side=False, server_hostname=server_hostname)
    channel = Channel(stream, tls=engine)
    stream.attach(channel)
    return channel


async def _opened(stream: _Opening) -> RawStream:
    try:
        await stream.opened
    except BaseException:
        stream.abort()
        raise
    return stream
