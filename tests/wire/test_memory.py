"""The in-memory pipe and client. All real; time is virtual."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pybernetes.wire.http import (
    BodyTooLarge,
    Connection,
    ConnectionClosed,
    Peer,
    Request,
    Response,
)
from pybernetes.wire.memory import MemoryHttpClient, memory_pipe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_what_is_written_to_one_end_is_read_from_the_other() -> None:
    left, right = memory_pipe()
    left.write(b"one ")
    left.write(b"two")
    assert await right.read() == b"one two"
    right.write(b"back")
    assert await left.read() == b"back"


async def test_close_ends_the_reader_after_what_was_written() -> None:
    left, right = memory_pipe()
    left.write(b"last words")
    left.close()
    assert await right.read() == b"last words"
    assert await right.read() == b""
    with pytest.raises(ConnectionClosed):
        await right.drain()
    await left.wait_closed()


async def test_a_writer_waits_for_a_slow_reader() -> None:
    left, right = memory_pipe(limit=10)
    progress: list[int] = []

    async def write() -> None:
        for n in range(5):
            left.write(b"x" * 6)
            await left.drain()
            progress.append(n)

    writer = asyncio.ensure_future(write())
    await asyncio.sleep(1)
    assert progress == [0]
    assert len(await right.read()) == 12
    await asyncio.sleep(1)
    assert progress == [0, 1, 2]
    right.close()
    with pytest.raises(ConnectionClosed):
        await writer


async def test_a_waiting_reader_wakes_on_close() -> None:
    left, right = memory_pipe()
    reading = asyncio.ensure_future(right.read())
    await asyncio.sleep(1)
    right.close()
    assert await reading == b""
    left.write(b"dropped")


async def test_request_reaches_the_handler_with_its_identity() -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(201, [("X-A", "b")], await request.body.read(100))

    client = MemoryHttpClient(handler, peer=Peer(identity="me"))
    answer = await client.request("POST", "/a%20b?x=1", headers=[("Accept", "*")], body=b"hi")
    assert (answer.status, answer.headers.get("x-a"), await answer.read()) == (201, "b", b"hi")
    [request] = seen
    assert (request.path, request.query, request.decoded_path) == ("/a%20b", "x=1", "/a b")
    assert request.headers.get("ACCEPT") == "*"
    assert request.peer.identity == "me"


async def test_head_has_no_body() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, body=b"text")

    assert await (await MemoryHttpClient(handler).request("HEAD", "/")).read() == b""


async def test_a_body_over_the_limit_is_refused() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, body=[b"12", b"345"])

    client = MemoryHttpClient(handler)
    with pytest.raises(BodyTooLarge):
        await (await client.request("GET", "/")).read(4)
    assert await (await client.request("GET", "/")).read(5) == b"12345"


async def test_a_stream_is_delivered_as_it_comes_and_closed_with_the_response() -> None:
    closed = asyncio.Event()

    async def ticks() -> AsyncIterator[bytes]:
        try:
            for n in range(1000):
                yield b"%d" % n
                await asyncio.sleep(10)
        finally:
            closed.set()

    async def handler(request: Request) -> Response:
        return Response(200, body=ticks())

    loop = asyncio.get_running_loop()
    async with await MemoryHttpClient(handler).request("GET", "/watch") as answer:
        chunks = aiter(answer)
        start = loop.time()
        assert await anext(chunks) == b"0"
        assert loop.time() == start
        assert await anext(chunks) == b"1"
        assert loop.time() == start + 10
    assert closed.is_set()


async def test_upgrade_gives_a_pipe_to_the_handler() -> None:
    async def echo(connection: Connection) -> None:
        while data := await connection.read():
            connection.write(data.upper())
            await connection.drain()

    async def handler(request: Request) -> Response:
        if request.upgrade_protocol != "echo":
            return Response(400, body=b"no")
        return Response(101, upgrade=echo)

    client = MemoryHttpClient(handler)
    answer, none = await client.upgrade("GET", "/")
    assert (answer.status, none) == (400, None)
    asked = [("Connection", "Upgrade"), ("Upgrade", "Echo")]
    answer, connection = await client.upgrade("GET", "/", headers=asked)
    assert answer.status == 101
    assert connection is not None
    connection.write(b"loud")
    assert await connection.read() == b"LOUD"
    connection.close()
    await client.close()
