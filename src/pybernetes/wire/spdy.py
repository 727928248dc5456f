"""A SPDY/3.1 session: many streams over one connection, for either side.

What speaks SPDY today is Go's spdystream, in kubectl, the kubelet and the
container runtimes, and it sets the rules that matter:

- it ignores windows: it neither respects ours nor ever opens its own. So flow
  control is in force only after the peer has announced an initial window in a
  SETTINGS frame, as our own sessions do and spdystream does not;
- without it the only way to slow the peer down is to stop reading, which stops
  all streams of the session;
- data that arrives before the stream was replied to is dropped there, so `open`
  waits for the reply.

A stream ends in two halves: `write_eof` ends ours, an empty `read` says that
the peer has ended its own. A reset ends both; the reader sees it as an end too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from pybernetes.wire.http import Connection, ConnectionClosed, Headers, ProtocolError
from pybernetes.wire.spdyframes import (
    CANCEL,
    FLOW_CONTROL_ERROR,
    INVALID_STREAM,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTING_INITIAL_WINDOW,
    STREAM_ALREADY_CLOSED,
    Data,
    Frame,
    FrameCodec,
    GoAway,
    MoreHeaders,
    Ping,
    RstStream,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

log = logging.getLogger(__name__)

# What a stream may have sent us and we have not read, if the peer knows windows.
WINDOW = 256 * 1024
# What all streams together may, if it does not.
SESSION_BUFFER = 256 * 1024
# One data frame: small enough that streams take turns.
_FRAME = 32 * 1024
# A window that is not announced (SPDY/3 §2.6.8).
_DEFAULT_WINDOW = 64 * 1024
_MAX_STREAMS = 1000


class StreamReset(ConnectionClosed):
    """The peer refused or reset the stream."""

    def __init__(self, status: int) -> None:
        super().__init__(f"stream was reset (status {status})")
        self.status = status


class SpdyStream:
    """One stream; a `Connection` whose two directions end separately."""

    def __init__(self, session: SpdySession, stream_id: int, headers: Headers) -> None:
        self.stream_id = stream_id
        # Those of SYN_STREAM, whoever sent it.
        self.headers = headers
        self._session = session
        # Received and not read, oldest first.
        self._incoming: deque[bytes] = deque()
        self._received = 0
        # Bytes read since the peer's window was last opened.
        self._credit = 0
        # Written, but beyond the peer's window; None at the end is our FIN.
        self._unsent: deque[bytes | None] = deque()
        self._window = session.peer_window
        # Set when something has changed for whoever waits on this stream.
        self._changed = asyncio.Event()
        self._replied = False
        self._our_end = self._their_end = False
        # Nobody reads any more: throw away what comes.
        self._deaf = False
        self.reset_status = 0

    # Connection

    async def read(self) -> bytes:
        while not self._incoming:
            if self._their_end:
                return b""
            await self._wait()
        data = b"".join(self._incoming)
        self._incoming.clear()
        self._take(len(data))
        return data

    def write(self, data: bytes) -> None:
        """Dropped once our direction has ended."""
        if self._our_end or not data:
            return
        view = memoryview(data)
        for start in range(0, len(view), _FRAME):
            self._unsent.append(bytes(view[start : start + _FRAME]))
        self._flush()

    async def drain(self) -> None:
        while self._unsent and not self.reset_status and not self._session.ended:
            await self._wait()
        if self.reset_status:
            raise StreamReset(self.reset_status)
        await self._session.drain()

    def write_eof(self) -> None:
        if not self._our_end:
            self._our_end = True
            self._unsent.append(None)
            self._flush()

    def close(self) -> None:
        """End our direction, and take no more of the other."""
        self.write_eof()
        if not self._deaf:
            self._deaf = True
            self._take(sum(map(len, self._incoming)))
            self._incoming.clear()

    async def wait_closed(self) -> None:
        """Until both directions have ended."""
        while not (self._their_end and self._our_end and not self._unsent):
            if self._session.ended:
                return
            await self._wait()

    # What SPDY has besides

    def reply(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Accept a stream the peer has opened."""
        if not self._replied:
            self._replied = True
            self._session.send(SynReply(self.stream_id, fields))

    def reset(self, status: int = CANCEL) -> None:
        """Refuse the stream, or cut it off."""
        if not (self._their_end and self._our_end and not self._unsent):
            self._session.send(RstStream(self.stream_id, status))
        self.on_reset(status)

    async def wait_reply(self) -> None:
        while not self._replied:
            if self.reset_status:
                raise StreamReset(self.reset_status)
            if self._session.ended:
                raise ConnectionClosed("the session has ended")
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # What the session calls

    def on_reply(self) -> None:
        self._replied = True
        self._changed.set()

    def on_data(self, data: bytes, *, fin: bool) -> None:
        if self._their_end:
            self._session.send(RstStream(self.stream_id, STREAM_ALREADY_CLOSED))
            return
        if data:
            self._received += len(data)
            self._session.buffered += len(data)
            if self._session.flow_control and self._received > WINDOW:
                self.reset(FLOW_CONTROL_ERROR)
            elif self._deaf:
                self._take(len(data))
            else:
                self._incoming.append(data)
        if fin:
            self.on_end()
        self._changed.set()

    def on_end(self) -> None:
        self._their_end = True
        self._forget_if_over()
        self._changed.set()

    def on_reset(self, status: int) -> None:
        self.reset_status = status
        self._their_end = self._our_end = True
        self._unsent.clear()
        self._forget_if_over()
        self._changed.set()

    def on_session_end(self) -> None:
        self._their_end = True
        self._unsent.clear()
        self._changed.set()

    def on_window(self, delta: int) -> None:
        self._window += delta
        self._flush()
        self._changed.set()

    def _take(self, count: int) -> None:
        """These bytes are no longer ours to keep: let the peer send as many."""
        self._received -= count
        self._session.release(count)
        if self._session.flow_control and not self._their_end:
            self._credit += count
            if self._credit >= WINDOW // 2:
                self._session.send(WindowUpdate(self.stream_id, self._credit))
                self._credit = 0

    def _flush(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            if data is None:
                self._session.send(Data(self.stream_id, b"", fin=True))
            elif not self._session.flow_control:
                self._session.send(Data(self.stream_id, data))
            elif self._window <= 0:
                return
            elif len(data) > self._window:
                self._session.send(Data(self.stream_id, data[: self._window]))
                self._unsent[0] = data[self._window :]
                self._window = 0
                return
            else:
                self._window -= len(data)
                self._session.send(Data(self.stream_id, data))
            self._unsent.popleft()
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self._their_end and self._our_end and not self._unsent:
            self._session.forget(self.stream_id)


class SpdySession:
    """`async with` runs it, or `start` and `close`; leaving says goodbye and closes the connection."""

    def __init__(self, connection: Connection, *, client: bool) -> None:
        self._connection = connection
        self._is_client = client
        self._codec = FrameCodec()
        # Streams of which at least one direction is open.
        self._streams: dict[int, SpdyStream] = {}
        # Streams the peer has opened and nobody has accepted; None: there will be no more.
        self._opened: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self._next_id = 1 if client else 2
        self._newest_of_peer = 0
        self._next_ping = 1 if client else 2
        # Pings of ours that are not answered.
        self._pings: dict[int, asyncio.Future[None]] = {}
        # The peer keeps to windows, and expects us to.
        self.flow_control = False
        self.peer_window = _DEFAULT_WINDOW
        # Bytes received that no reader has taken, all streams together.
        self.buffered = 0
        self._has_room = asyncio.Event()
        self._going_away = False
        self.ended = False
        self._reader: asyncio.Task[None] | None = None
        self._must_drain = False

    def start(self) -> SpdySession:
        self.send(Settings({SETTING_INITIAL_WINDOW: WINDOW}))
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="spdy reader")
        return self

    async def close(self) -> None:
        """May be called again, and by any task."""
        if not self.ended:
            self.send(GoAway(self._newest_of_peer))
        self._connection.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._end()

    async def __aenter__(self) -> SpdySession:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self, fields: Sequence[tuple[str, str]]) -> SpdyStream:
        """Open a stream and wait for the peer's consent. Raises ConnectionClosed."""
        if self._going_away or self.ended:
            raise ConnectionClosed("the session takes no new streams")
        stream = SpdyStream(self, self._next_id, Headers(fields))
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self.send(SynStream(stream.stream_id, fields))
        try:
            await stream.wait_reply()
        except asyncio.CancelledError:
            stream.reset()
            raise
        return stream

    async def accept(self) -> SpdyStream | None:
        """The next stream the peer opens, to be replied to or reset; None at the end."""
        stream = await self._opened.get()
        if stream is None:
            self._opened.put_nowait(None)
        return stream

    async def ping(self) -> None:
        """Wait for the peer to answer a ping. Raises ConnectionClosed."""
        if self.ended:
            raise ConnectionClosed("the session has ended")
        ping_id, self._next_ping = self._next_ping, self._next_ping + 2
        answered = self._pings[ping_id] = asyncio.get_running_loop().create_future()
        self.send(Ping(ping_id))
        try:
            await answered
        finally:
            self._pings.pop(ping_id, None)

    async def wait_ended(self) -> None:
        """Until the connection is gone."""
        if self._reader is not None:
            await asyncio.wait([self._reader])

    # What streams call

    def send(self, frame: Frame) -> None:
        if not self.ended:
            self._connection.write(self._codec.encode(frame))

    async def drain(self) -> None:
        if self.ended:
            raise ConnectionClosed("the session has ended")
        await self._connection.drain()

    def release(self, count: int) -> None:
        self.buffered -= count
        if self.buffered <= SESSION_BUFFER:
            self._has_room.set()

    def forget(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    # The reader

    async def _read(self) -> None:
        try:
            while data := await self._connection.read():
                for frame in self._codec.feed(data):
                    self._handle(frame)
                if self._must_drain:
                    self._must_drain = False
                    await self._connection.drain()
                while self.buffered > SESSION_BUFFER and not self.flow_control:
                    self._has_room.clear()
                    await self._has_room.wait()
        except ConnectionClosed:
            pass
        except ProtocolError as error:
            log.warning("SPDY session ended: %s", error)
            self.send(GoAway(self._newest_of_peer, PROTOCOL_ERROR))
            self._connection.close()
        finally:
            self._end()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        for stream in list(self._streams.values()):
            stream.on_session_end()
        self._streams.clear()
        for answered in self._pings.values():
            if not answered.done():
                answered.set_exception(ConnectionClosed("the session has ended"))
        self._opened.put_nowait(None)

    def _handle(self, frame: Frame) -> None:
        match frame:
            case Data(stream_id, data, fin):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.on_data(data, fin=fin)
                elif stream_id == 0:
                    raise ProtocolError("data for stream 0")
                # Else it crossed with our reset, or with the end of the stream.
            case SynStream():
                self._on_opened(frame)
            case SynReply(stream_id, _, fin):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.on_reply()
                    if fin:
                        stream.on_end()
            case MoreHeaders(stream_id, _, fin):
                if fin and (stream := self._streams.get(stream_id)) is not None:
                    stream.on_end()
            case RstStream(stream_id, status):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.on_reset(status or CANCEL)
            case WindowUpdate(stream_id, delta):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.on_window(delta)
            case Ping(ping_id):
                self._on_ping(frame, ping_id)
            case Settings(values):
                self._on_settings(values)
            case GoAway():
                self._going_away = True
                self._opened.put_nowait(None)

    def _on_opened(self, frame: SynStream) -> None:
        stream_id = frame.stream_id
        if stream_id <= self._newest_of_peer or stream_id % 2 != (0 if self._is_client else 1):
            self.send(RstStream(stream_id or 1, INVALID_STREAM if stream_id else PROTOCOL_ERROR))
            return
        self._newest_of_peer = stream_id
        if len(self._streams) >= _MAX_STREAMS or self._going_away:
            self.send(RstStream(stream_id, REFUSED_STREAM))
            self._must_drain = True
            return
        stream = SpdyStream(self, stream_id, Headers(frame.fields))
        self._streams[stream_id] = stream
        if frame.fin:
            stream.on_end()
        if frame.unidirectional:
            stream.write_eof()
        self._opened.put_nowait(stream)

    def _on_ping(self, frame: Ping, ping_id: int) -> None:
        if ping_id % 2 == (1 if self._is_client else 0):
            answered = self._pings.get(ping_id)
            if answered is not None and not answered.done():
                answered.set_result(None)
        else:
            self.send(frame)
            self._must_drain = True

    def _on_settings(self, values: dict[int, int]) -> None:
        window = values.get(SETTING_INITIAL_WINDOW)
        if window is None:
            return
        # Streams that are open have a window counted from the old size.
        difference = window - self.peer_window
        self.flow_control = True
        self.peer_window = window
        for stream in list(self._streams.values()):
            stream.on_window(difference)
        self._has_room.set()
