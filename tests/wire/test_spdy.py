"""SPDY frames and sessions: all real, over pipes in memory, in virtual time.

What Go's spdystream does differently from the specification is imitated with
hand-made frames: it announces no window and opens none.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING
from zlib import adler32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.wire.http import ConnectionClosed, ProtocolError
from pybernetes.wire.memory import MemoryConnection, memory_pipe
from pybernetes.wire.spdy import WINDOW, SpdySession, SpdyStream, StreamReset
from pybernetes.wire.spdyframes import (
    DICTIONARY,
    INVALID_STREAM,
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
    from collections.abc import Callable

FRAMES: list[Frame] = [
    SynStream(1, [("streamtype", "stdin"), ("x", "a"), ("x", "b")], fin=True),
    SynStream(3, [], unidirectional=True, associated_to=1),
    SynReply(1, [("status", "200")]),
    MoreHeaders(1, [("more", "é")], fin=True),
    Data(1, b"hello"),
    Data(1, b"", fin=True),
    RstStream(1, 5),
    Settings({7: 65536, 4: 100}),
    Ping(7),
    GoAway(3, 1),
    WindowUpdate(1, 4096),
]


def test_the_dictionary_is_the_one_everybody_has() -> None:
    assert (len(DICTIONARY), adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(st.sampled_from(FRAMES), max_size=20), st.integers(1, 40))
def test_frames_survive_any_cutting(frames: list[Frame], size: int) -> None:
    sender, receiver = FrameCodec(), FrameCodec()
    wire = b"".join(sender.encode(frame) for frame in frames)
    received: list[Frame] = []
    for start in range(0, len(wire), size):
        received += receiver.feed(wire[start : start + size])
    assert joined(received) == joined(frames)


def joined(frames: list[Frame]) -> list[Frame]:
    """With the pieces of each data frame put together."""
    result: list[Frame] = []
    for frame in frames:
        last = result[-1] if result else None
        if isinstance(frame, Data) and isinstance(last, Data) and not last.fin:
            result[-1] = Data(frame.stream_id, last.data + frame.data, frame.fin)
        elif isinstance(frame, SynStream | SynReply | MoreHeaders) and not frame.fields:
            result.append(frame)
        else:
            result.append(frame)
    return [_plain(frame) for frame in result]


def _plain(frame: Frame) -> Frame:
    match frame:
        case SynStream(stream_id, fields, fin, unidirectional, associated_to):
            return SynStream(stream_id, list(fields), fin, unidirectional, associated_to)
        case SynReply(stream_id, fields, fin):
            return SynReply(stream_id, list(fields), fin)
        case MoreHeaders(stream_id, fields, fin):
            return MoreHeaders(stream_id, list(fields), fin)
    return frame


@given(st.binary(max_size=200))
def test_nonsense_is_a_protocol_error_or_waits_for_more(data: bytes) -> None:
    with suppress(ProtocolError):
        list(FrameCodec().feed(b"\x80\x03\x00\x01\x00\x00\x00\x20" + data))
    with suppress(ProtocolError):
        list(FrameCodec().feed(data))


def test_header_bombs_are_refused() -> None:
    bomb = FrameCodec().encode(SynStream(1, [("a", "b" * 10_000_000)]))
    with pytest.raises(ProtocolError):
        list(FrameCodec().feed(bomb))
    with pytest.raises(ProtocolError):
        list(FrameCodec().feed(b"\x80\x03\x00\x01\x00\xff\xff\xff"))


# Sessions


class Pair:
    """A client's and a server's session on the two ends of a pipe."""

    def __init__(self) -> None:
        left, right = memory_pipe()
        self.client = SpdySession(left, client=True)
        self.server = SpdySession(right, client=False)

    async def __aenter__(self) -> Pair:
        self.client.start()
        self.server.start()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.client.close()
        await self.server.close()

    async def open(self) -> tuple[SpdyStream, SpdyStream]:
        opening = asyncio.ensure_future(self.client.open([("streamtype", "data")]))
        accepted = await self.server.accept()
        assert accepted is not None
        assert accepted.headers.get("streamType") == "data"
        accepted.reply()
        return await opening, accepted


async def everything(stream: SpdyStream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_both_sides_talk_and_end_separately() -> None:
    async with Pair() as pair:
        ours, theirs = await pair.open()
        ours.write(b"question")
        ours.write_eof()
        assert await everything(theirs) == b"question"
        theirs.write(b"answer")
        theirs.close()
        assert await everything(ours) == b"answer"
        await ours.wait_closed()
        await theirs.wait_closed()
        assert not pair.client._streams
        assert not pair.server._streams


async def test_the_server_may_open_streams_too() -> None:
    async with Pair() as pair:
        opening = asyncio.ensure_future(pair.server.open([("a", "b")]))
        stream = await pair.client.accept()
        assert stream is not None
        assert stream.stream_id == 2
        stream.reset()
        with pytest.raises(StreamReset):
            await opening


async def test_megabytes_cross_while_one_stream_is_not_read() -> None:
    """Between two of our own the windows keep a slow stream from blocking the others."""
    data = bytes(range(256)) * 8192
    async with Pair() as pair:
        stuck, unread = await pair.open()

        async def fill() -> None:
            stuck.write(data)
            await stuck.drain()

        filling = asyncio.ensure_future(fill())
        await asyncio.sleep(1)
        assert not filling.done()
        assert unread._received <= WINDOW
        ours, theirs = await pair.open()

        async def echo() -> None:
            while chunk := await theirs.read():
                theirs.write(chunk)
                await theirs.drain()
            theirs.write_eof()

        async def send() -> None:
            for start in range(0, len(data), 50_000):
                ours.write(data[start : start + 50_000])
                await ours.drain()
            ours.write_eof()

        tasks = [asyncio.ensure_future(echo()), asyncio.ensure_future(send())]
        assert await everything(ours) == data
        await asyncio.gather(*tasks)
        # Whoever stops caring lets the other side finish.
        unread.close()
        await filling


async def test_a_lost_connection_ends_streams_on_both_sides() -> None:
    async with Pair() as pair:
        ours, theirs = await pair.open()
        theirs.write(b"last")
        await asyncio.sleep(1)
        await pair.server.close()
        assert await everything(ours) == b"last"
        await pair.client.wait_ended()
        with pytest.raises(ConnectionClosed):
            await ours.drain()
        with pytest.raises(ConnectionClosed):
            await pair.client.open([])
        assert await pair.client.accept() is None


async def test_ping() -> None:
    async with Pair() as pair:
        await pair.client.ping()
        await pair.server.ping()
        pinging = asyncio.ensure_future(pair.client.ping())
        await pair.server.close()
        await pair.client.close()
        with suppress(ConnectionClosed):
            await pinging


# As Go does it


class Go:
    """The other end, frame by frame: no SETTINGS, no windows."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection
        self._codec = FrameCodec()
        self.received: list[Frame] = []

    def send(self, frame: Frame) -> None:
        self._connection.write(self._codec.encode(frame))

    async def until(self, found: Callable[[Frame], bool]) -> Frame:
        while True:
            for index, frame in enumerate(self.received):
                if found(frame):
                    del self.received[: index + 1]
                    return frame
            data = await self._connection.read()
            assert data, "the session ended"
            self.received += self._codec.feed(data)


async def test_a_peer_without_windows_is_sent_everything() -> None:
    left, right = memory_pipe()
    go = Go(left)
    async with SpdySession(right, client=False) as session:
        go.send(SynStream(1, [("streamtype", "stdout")]))
        stream = await session.accept()
        assert stream is not None
        stream.reply()
        stream.write(b"x" * 1_000_000)
        stream.write_eof()
        size = 0
        while True:
            frame = await go.until(lambda frame: isinstance(frame, Data))
            assert isinstance(frame, Data)
            size += len(frame.data)
            if frame.fin:
                break
        assert size == 1_000_000


async def test_a_peer_without_windows_is_slowed_down_by_not_reading() -> None:
    left, right = memory_pipe()
    go = Go(left)
    async with SpdySession(right, client=False) as session:
        go.send(SynStream(1, []))
        stream = await session.accept()
        assert stream is not None
        stream.reply()
        written = 0

        async def flood() -> None:
            nonlocal written
            for _ in range(100):
                go.send(Data(1, b"x" * 32_768))
                await left.drain()
                written += 32_768
            go.send(Data(1, b"", fin=True))

        flooding = asyncio.ensure_future(flood())
        await asyncio.sleep(1)
        assert written < 1_000_000
        assert len(await everything(stream)) == 3_276_800
        await flooding


async def test_frames_that_make_no_sense_do_no_harm() -> None:
    left, right = memory_pipe()
    go = Go(left)
    async with SpdySession(right, client=False) as session:
        go.send(Data(9, b"to nobody"))
        go.send(WindowUpdate(9, 5))
        go.send(RstStream(9, 1))
        go.send(SynReply(9))
        go.send(MoreHeaders(9, [], fin=True))
        go.send(SynStream(2, []))  # An even number is not for a client to give.
        assert await go.until(lambda f: isinstance(f, RstStream)) == RstStream(2, INVALID_STREAM)
        go.send(SynStream(5, [], fin=True))
        go.send(SynStream(3, []))  # Numbers only grow.
        assert await go.until(lambda f: isinstance(f, RstStream)) == RstStream(3, INVALID_STREAM)
        stream = await session.accept()
        assert stream is not None
        assert await stream.read() == b""
        go.send(Ping(1))
        assert await go.until(lambda f: isinstance(f, Ping)) == Ping(1)
        left.write(b"\x00\x00\x00\x00\x00\x00\x00\x01x")
        await session.wait_ended()
    assert left._eof


async def test_too_many_streams_are_refused() -> None:
    left, right = memory_pipe(1 << 30)
    go = Go(left)
    async with SpdySession(right, client=False):
        for n in range(1001):
            go.send(SynStream(2 * n + 1, []))
        assert isinstance(await go.until(lambda f: isinstance(f, RstStream)), RstStream)
