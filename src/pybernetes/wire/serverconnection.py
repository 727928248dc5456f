"""One connection of the HTTP server: bytes to requests, answers to bytes.

Theory of operation. The parser is fed with whatever arrives and calls back
here. A complete head becomes a request; requests queue up and are answered one
at a time, in order, each in a task of its own. What happens next to the
connection is decided after each answer, in `_next`:

    waiting for a head  ── head complete ──▶  answering  ── answered ──▶  waiting
                                                 │  │
                          upgrade accepted ◀─────┘  └────▶ lingering ──▶ closed
                          (bytes go to a RawStream)   (last answer is out; what
                                                       still comes is thrown away)

Reading pauses while the body of the current request is not taken by its
handler or while too many requests wait. One deadline per connection says how
long we wait for the client in the state we are in; `inf` while it waits for us.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, cast

import httptools

from pybernetes.wire.channel import Channel, RawStream
from pybernetes.wire.eager import start_eagerly
from pybernetes.wire.http import (
    BODILESS,
    Body,
    BodyTimeout,
    BodyTooLarge,
    Connection,
    ConnectionClosed,
    Headers,
    ProtocolError,
    Request,
    Response,
)
from pybernetes.wire.http1 import (
    CONTINUE,
    LAST_CHUNK,
    STRIDE,
    chunk,
    decode_field,
    has_field,
    plain_answer,
    response_head,
    split_target,
    strides,
)
from pybernetes.wire.incomingbody import IncomingBody

if TYPE_CHECKING:
    from pybernetes.wire.server import Server

log = logging.getLogger(__name__)

_NO_BODY = Body()
# The usual names as they are usually written, to lower case.
_NAMES = {
    spelling.encode(): name
    for name in [
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "accept-language",
        "content-type",
        "content-length",
        "authorization",
        "connection",
        "upgrade",
        "referer",
        "cookie",
        "origin",
    ]
    for spelling in (name, name.title())
}


class HttpConnection:
    """A channel's consumer that speaks HTTP for the server."""

    __slots__ = (
        "_body",
        "_body_buffered",
        "_broken",
        "_discarded",
        "_discarding",
        "_early",
        "_ending",
        "_eof",
        "_fields",
        "_head_bytes",
        "_hosts",
        "_in_head",
        "_is_last",
        "_length",
        "_limits",
        "_loop",
        "_parser",
        "_queue",
        "_rejected",
        "_server",
        "_streaming",
        "_target",
        "_task",
        "channel",
        "deadline",
    )

    def __init__(self, server: Server) -> None:
        self.channel = cast("Channel", None)
        # When expire() is due, on the loop's clock; inf: we wait for nothing.
        self.deadline = inf
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

        # The head being received.
        self._target = b""
        self._fields: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._in_head = False
        # Content-Length of it; -1: chunked; 0: no body.
        self._length = 0
        self._hosts = 0

        # Requests with their bodies and whether the connection can be kept, in order.
        self._queue: deque[tuple[Request, Body, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        # The body that is arriving now, if any, and how much of all bodies nobody has taken.
        self._body: IncomingBody | None = None
        self._body_buffered = 0
        # Bytes received after a request that asks for an upgrade; None: no such request.
        self._early: bytearray | None = None

        # No more requests are accepted; the answer in work is the last.
        self._is_last = False
        # Said after the last queued answer: the refusal of what the parser could not accept.
        self._rejected: Response | None = None
        self._eof = False
        # The answer in work is a stream, and whether it is being ended in order.
        self._streaming = False
        self._ending = False
        # The last answer is out: throw away what comes, up to a limit.
        self._discarding = False
        self._discarded = 0

    def attach(self, channel: Channel) -> None:
        self.channel = channel

    # What the channel calls

    def on_open(self) -> None:
        if self._server.is_overcrowded or self._server.closing:
            self.channel.abort()
            return
        self._server.arm(self, self._limits.header_timeout)

    def on_data(self, data: memoryview) -> None:
        if self._discarding:
            self._discarded += len(data)
            if self._discarded > self._limits.discard:
                self.channel.abort()
            return
        if self._early is not None:
            self._keep_early(data)
            return
        if self._is_last or self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._early = bytearray()
            self._keep_early(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._reject(400, "this is not HTTP/1.1")
        if self._in_head and self._rejected is None:
            if not self._head_bytes and self._task is None:
                self._server.arm(self, self._limits.header_timeout)
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes:
                self._reject(431, "the header fields are too large")
        # Not before: with the rest of the buffer the body may be complete.
        if self._task is None and (self._queue or self._rejected is not None):
            self._next(eagerly=True)

    def on_eof(self) -> None:
        self._eof = True
        if self._discarding or (self._task is None and not self._queue):
            self.channel.close()
        elif self._streaming:
            self._cancel()
        else:
            # Some clients end their side with the request and still read the answer.
            self._fail_body(ConnectionClosed("the client ended the request early"))
            self._server.arm(self, self._limits.linger)

    def on_lost(self, error: Exception | None) -> None:
        self.deadline = inf
        self._fail_body(ConnectionClosed("the client is gone"))
        self._queue.clear()
        self._parser = None  # It refers back to us; do not leave that to the collector.
        if self._task is None:
            self._server.gone(self)
        else:
            self._cancel()

    def _keep_early(self, data: memoryview) -> None:
        assert self._early is not None
        self._early += data
        if len(self._early) > self._limits.body_buffer:
            self.channel.pause_reading()

    # What the server calls

    def expire(self) -> None:
        """The client has taken too long."""
        if self.channel.lost:
            self._cancel()
        elif self._in_head and self._task is None and not self._discarding:
            self._reject(408, "the request did not arrive in time")
            self._next()
        elif self._task is not None and self._body is not None and not self.channel.is_full:
            self._fail_body(BodyTimeout("the request body did not arrive in time"))
            self._server.arm(self, self._limits.linger)
        elif self._task is None and not self._discarding:
            self.channel.close()
            self._server.arm(self, self._limits.linger)
        else:
            self.channel.abort()

    def finish(self) -> None:
        """End in order: at once if idle or a stream, else after the answer in work."""
        self._is_last = True
        if self._task is None:
            self.channel.close()
            self._server.arm(self, self._limits.linger)
        elif self._streaming:
            self._ending = True
            self._cancel()

    def cut(self) -> asyncio.Task[None] | None:
        self.channel.abort()
        self._cancel()
        return self._task

    def _cancel(self) -> None:
        """What is cancelled before its first step never runs: only a callback tells."""
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(self._dropped)

    def _dropped(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._answered(aborted=True)

    # What the parser calls

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._target = b""
        self._fields = []
        self._length = 0
        self._hosts = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _NAMES.get(name) or name.lower().decode("latin-1")
        if key == "host":
            self._hosts += 1
        elif key == "content-length":
            self._length = int(value)
        elif key == "transfer-encoding":
            self._length = -1
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = decode_field(value)
        self._fields.append((key, text))

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser = self._parser
        if parser is None or self._is_last or self._rejected is not None:
            return
        version = parser.get_http_version()
        headers = Headers.of_lowered(self._fields)
        if version not in ("1.1", "1.0"):
            self._reject(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
            return
        if self._hosts != 1 and (version == "1.1" or self._hosts):
            self._reject(400, "a request needs exactly one Host header")
            return
        body: Body = _NO_BODY
        if self._length:
            awaited = headers.get("expect").lower() == "100-continue" and version == "1.1"
            self._body = body = IncomingBody(self, length=self._length, awaited=awaited)
        path, query = split_target(self._target)
        request = Request(
            parser.get_method().decode("latin-1"),
            path,
            query,
            headers,
            body,
            self.channel.peer,
            version,
        )
        self._queue.append((request, body, parser.should_keep_alive()))
        if len(self._queue) >= self._limits.pipelined:
            self.channel.pause_reading()

    def on_body(self, data: bytes) -> None:
        body = self._body
        if body is None:
            self._discarded += len(data)
            if self._discarded > self._limits.discard:
                self._is_last = True
            return
        body.feed(data)
        self._body_buffered += len(data)
        if self._body_buffered > self._limits.body_buffer:
            self.channel.pause_reading()
            if len(self._queue) == 0:
                self.deadline = inf  # It is the handler that is slow.
        elif not self._queue:
            self._server.arm(self, self._limits.stall_timeout)

    def on_message_complete(self) -> None:
        self._discarded = 0
        if self._body is not None:
            self._body.finish()
            self._body = None
            if self._task is not None and not self.channel.is_full:
                self.deadline = inf

    # What the body calls

    def body_taken(self, count: int) -> None:
        self._body_buffered -= count
        if self._body_buffered <= self._limits.body_buffer:
            self._resume_reading()
            if self._body is not None and self.deadline == inf:
                self._server.arm(self, self._limits.stall_timeout)

    def send_continue(self) -> None:
        self.channel.write(CONTINUE)
        self._server.arm(self, self._limits.stall_timeout)

    def _fail_body(self, error: Exception) -> None:
        if self._body is not None:
            self._body.finish(error)
            self._body = None
            self._is_last = True

    def _resume_reading(self) -> None:
        if (
            self._body_buffered <= self._limits.body_buffer
            and len(self._queue) < self._limits.pipelined
        ):
            self.channel.resume_reading()

    def _reject(self, status: int, text: str) -> None:
        """Refuse what cannot be parsed, after the answers that are due before it."""
        self._rejected = plain_answer(status, text)
        self._is_last = True
        self._in_head = False
        self._fail_body(ProtocolError(text))

    # Answering

    def _next(self, *, eagerly: bool = False) -> None:
        """Start on the next request, or decide what becomes of the connection.

        Eagerly from the parser's side; from the end of a task another cannot start yet.
        """
        if self.channel.lost:
            return
        if self._queue:
            request, body, keep = self._queue.popleft()
            self.deadline = inf
            self._server.requests += 1
            self._resume_reading()
            answer = self._run(request, body, keep)
            if not eagerly:
                self._task = self._loop.create_task(answer)
            elif not (task := start_eagerly(self._loop, answer)).done():
                self._task = task
        elif self._rejected is not None:
            content = cast("bytes", self._rejected.body)
            self._write_whole(self._rejected, content, close=True, head_only=False)
            self._linger()
        elif self._is_last or self._eof:
            self._linger()
        elif self._in_head:
            self._server.arm(self, self._limits.header_timeout)
        else:
            self._server.arm(self, self._limits.idle_timeout)

    async def _run(self, request: Request, body: Body, keep: bool) -> None:
        """A task's whole life. Its end starts the next, without a turn of the loop between."""
        aborted = True
        try:
            try:
                response = await self._server.handler(request)
            except Exception as error:
                refusal = self._refusal_of(error, request)
                if refusal is None:
                    return
                response = refusal
            await self._answer(request, response, body, keep)
            aborted = False
        except Exception:
            # _answer catches what a handler raises; this is a fault of ours.
            log.exception("connection failed: %s %s", request.method, request.path)
        finally:
            self._answered(aborted=aborted)

    def _answered(self, *, aborted: bool) -> None:
        self._task = None
        self._streaming = False
        if aborted:
            self.channel.abort()
        if self.channel.lost:
            self._server.gone(self)
        elif not (self._discarding or self.channel.closing):
            self._next()

    def _linger(self) -> None:
        """Close so that the client can read our answer: a reset would take it away."""
        self._discarding = True
        self._discarded = 0
        if self._eof:
            self.channel.close()
        else:
            self.channel.write_eof()
            self.channel.resume_reading()
        self._server.arm(self, self._limits.linger)

    async def _answer(self, request: Request, response: Response, body: Body, keep: bool) -> None:
        upgrade = response.upgrade
        if upgrade is not None:
            await self._hand_over(request, response, upgrade)
            return
        keep = self._decide_keeping(keep, body)
        if not keep:
            self._is_last = True
            self._rejected = None
        head_only = request.method == "HEAD" or response.status in BODILESS
        close = self._is_last
        try:
            content = response.body
            if isinstance(content, bytes) and (head_only or len(content) <= STRIDE):
                self._write_whole(response, content, close=close, head_only=head_only)
                if self.channel.is_full:
                    await self._drain()
            elif isinstance(content, AsyncIterator):
                await self._write_stream(request, response, head_only=head_only)
            else:
                parts = [content] if isinstance(content, bytes) else content
                await self._write_parts(response, parts, close=close, head_only=head_only)
        except ConnectionClosed:
            pass  # Nobody is left to tell.

    def _refusal_of(self, error: Exception, request: Request) -> Response | None:
        """What a handler's exception means to the client; None if there is no one to tell."""
        if isinstance(error, BodyTooLarge):
            return plain_answer(413, str(error))
        if isinstance(error, BodyTimeout):
            return plain_answer(408, str(error))
        if isinstance(error, ProtocolError):
            return plain_answer(400, str(error))
        if isinstance(error, ConnectionClosed) and (self.channel.lost or self._eof):
            return None
        log.error("handler failed: %s %s", request.method, request.path, exc_info=error)
        return plain_answer(500, "internal error")

    def _decide_keeping(self, keep: bool, body: Body) -> bool:
        """Whether another request can follow: what is left of this one must be little."""
        if self._early is not None:
            # The client asked to change the protocol and is told no: it goes on in HTTP,
            # unless it was too sure of itself.
            if self._early:
                return False
            self._early = None
            self._parser = httptools.HttpRequestParser(self)
        if isinstance(body, IncomingBody) and not body.complete:
            if body.is_held_back or not 0 <= body.announced <= self._limits.discard:
                return False
            if self._body is body:
                self._body = None
        if isinstance(body, IncomingBody):
            self.body_taken(body.drop())
        return keep

    def _head(
        self,
        response: Response,
        close: bool,
        length: int | None = None,
        *,
        is_chunked: bool = False,
    ) -> bytes:
        """With a length unless it is None, there may be none, or the handler has set one.

        The handler's list is left as it is: it may be one that all its answers share.
        """
        fields = response.headers.copy()
        if is_chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        fields.append(("Date", self._server.date()))
        if close:
            fields.append(("Connection", "close"))
        if (
            length is not None
            and response.status not in BODILESS
            and not has_field(response, "content-length")
        ):
            fields.append(("Content-Length", str(length)))
        return response_head(response.status, fields)

    def _write_whole(
        self, response: Response, body: bytes, *, close: bool, head_only: bool
    ) -> None:
        head = self._head(response, close, len(body))
        self.channel.write(head if head_only else head + body)

    async def _write_parts(
        self, response: Response, parts: Sequence[bytes], *, close: bool, head_only: bool
    ) -> None:
        head = self._head(response, close, sum(map(len, parts)))
        for stride in strides(head, () if head_only else parts):
            self.channel.write(stride)
            if self.channel.is_full:
                await self._drain()

    async def _write_stream(self, request: Request, response: Response, *, head_only: bool) -> None:
        chunks = cast("AsyncIterator[bytes]", response.body)
        is_chunked = False
        if not has_field(response, "content-length") and response.status not in BODILESS:
            if request.version == "1.1":
                is_chunked = True
            else:
                self._is_last = True
        complete = False
        try:
            self.channel.write(self._head(response, self._is_last, is_chunked=is_chunked))
            if not head_only:
                self._streaming = True
                if self._eof:
                    return
                if not self._server.closing:
                    await self._pump(chunks, is_chunked=is_chunked)
                if is_chunked:
                    self.channel.write(LAST_CHUNK)
            complete = True
        except asyncio.CancelledError:
            if not self._ending:
                raise
            # The server is closing and has cancelled us only to wake us up: the client
            # gets an orderly end, and this task ends by itself.
            self._uncancel()
            if is_chunked:
                self.channel.write(LAST_CHUNK)
            complete = True
        except ConnectionClosed:
            raise
        except Exception:
            log.exception("stream failed: %s %s", request.method, request.path)
        finally:
            aclose = getattr(chunks, "aclose", None)
            if aclose is not None:
                await aclose()
            if not complete:
                # Without its end the client can tell that the stream is not whole.
                self.channel.abort()

    async def _pump(self, chunks: AsyncIterator[bytes], *, is_chunked: bool) -> None:
        channel = self.channel
        async for data in chunks:
            if not data:
                continue
            channel.write(chunk(data) if is_chunked else data)
            if channel.is_full:
                await self._drain()

    async def _drain(self) -> None:
        self._server.arm(self, self._limits.stall_timeout)
        await self.channel.drain()
        self.deadline = inf

    async def _hand_over(
        self,
        request: Request,
        response: Response,
        upgrade: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Write the head as it is and let `upgrade` have the connection."""
        channel = self.channel
        channel.write(response_head(response.status, response.headers))
        self._streaming = True
        self._discarding = True
        stream = _UpgradedStream(self, channel, early=bytes(self._early or b""))
        if self._eof:
            stream.on_eof()
        channel.consumer = stream
        channel.resume_reading()
        if self._server.closing:
            self.finish()
        try:
            await upgrade(stream)
        except ConnectionClosed:
            pass  # One of the two ends has left; so do we.
        except asyncio.CancelledError:
            if not self._ending:
                raise
            self._uncancel()
        except Exception:
            log.exception("upgraded connection failed: %s %s", request.method, request.path)
        finally:
            stream.close()
            self._server.arm(self, self._limits.stall_timeout)

    def upgraded_lost(self) -> None:
        if self._task is None:
            self._server.gone(self)
        else:
            # Whoever has the stream sees its end now, and has this long to leave.
            self._server.arm(self, self._limits.stall_timeout)

    def _uncancel(self) -> None:
        if (task := asyncio.current_task()) is not None:
            task.uncancel()


class _UpgradedStream(RawStream):
    """A connection that has left HTTP; the server still wants to know when it is gone."""

    __slots__ = ("_http",)

    def __init__(self, http: HttpConnection, channel: Channel, *, early: bytes) -> None:
        super().__init__(channel, early=early)
        self._http = http

    def on_lost(self, error: Exception | None) -> None:
        super().on_lost(error)
        self._http.upgraded_lost()
