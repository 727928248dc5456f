"""WebSockets over pipes in memory: our two sides against each other, and against frames
made by hand. All real; time is virtual.
"""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import Frame, Opcode

from pybernetes.wire.http import Connection, ConnectionClosed, ProtocolError, Request, Response
from pybernetes.wire.memory import MemoryHttpClient, memory_pipe
from pybernetes.wire.websocket import (
    WebSocket,
    WebSocketConnection,
    accept_websocket,
    choose_subprotocol,
    connect_websocket,
    is_websocket,
)


async def echo(websocket: WebSocket) -> None:
    while (message := await websocket.receive()) is not None:
        await websocket.send(message)


async def handler(request: Request) -> Response:
    if not is_websocket(request):
        return Response(400, body=b"WebSocket only")
    chosen = choose_subprotocol(request, ("b", "c"))
    return accept_websocket(request, echo, subprotocol=chosen)


async def test_messages_go_both_ways() -> None:
    client = MemoryHttpClient(handler)
    answer, websocket = await connect_websocket(client, "/", subprotocols=["a", "b", "c"])
    assert answer.status == 101
    assert websocket is not None
    assert websocket.subprotocol == "b"
    for message in (b"bytes", "text é", b"", b"x" * 1_000_000):
        await websocket.send(message)
        assert await websocket.receive() == message
    websocket.close(1000, "done")
    assert await websocket.receive() is None
    websocket.abort()
    await client.close()


async def test_a_server_that_does_not_agree_says_why() -> None:
    client = MemoryHttpClient(handler)
    assert (await client.request("GET", "/")).status == 400

    async def other(request: Request) -> Response:
        return Response(403, body=b"no")

    answer, websocket = await connect_websocket(MemoryHttpClient(other), "/")
    assert (answer.status, websocket, await answer.read()) == (403, None, b"no")

    async def liar(request: Request) -> Response:
        async def nothing(connection: Connection) -> None:
            await connection.read()

        return Response(101, [("Sec-WebSocket-Accept", "wrong")], upgrade=nothing)

    client = MemoryHttpClient(liar)
    with pytest.raises(ProtocolError):
        await connect_websocket(client, "/")
    await client.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Key", "eA==")], 426),
        ([("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "eA==")], 400),
        ([("Sec-WebSocket-Version", "13")], 400),
    ],
)
async def test_a_broken_handshake_is_refused(headers: list[tuple[str, str]], status: int) -> None:
    asked = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket"), *headers]
    answer, connection = await MemoryHttpClient(handler).upgrade("GET", "/", headers=asked)
    assert (answer.status, connection) == (status, None)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def test_fragments_pings_and_pieces() -> None:
    ours, theirs = memory_pipe()
    websocket = WebSocket(theirs, client=False)
    wire = (
        frame(Opcode.BINARY, b"one ", fin=False)
        + frame(Opcode.PING, b"?")
        + frame(Opcode.CONT, b"two ", fin=False)
        + frame(Opcode.CONT, b"three")
        + frame(Opcode.TEXT, b"text")
    )

    async def trickle() -> None:
        for byte in wire:
            ours.write(bytes([byte]))
            await asyncio.sleep(0.01)

    trickling = asyncio.ensure_future(trickle())
    assert await websocket.receive() == b"one two three"
    assert await websocket.receive() == "text"
    await trickling
    assert await ours.read() == b"\x8a\x01?"


async def test_too_long_a_message_ends_it() -> None:
    ours, theirs = memory_pipe()
    websocket = WebSocket(theirs, client=False, limit=1000)
    ours.write(frame(Opcode.BINARY, b"x" * 600, fin=False) + frame(Opcode.CONT, b"x" * 600))
    with pytest.raises(ProtocolError):
        await websocket.receive()
    assert b"\x03\xf1" in await ours.read()  # 1009
    assert await websocket.receive() is None


async def test_what_is_not_websocket_ends_it() -> None:
    ours, theirs = memory_pipe()
    websocket = WebSocket(theirs, client=False)
    ours.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ProtocolError):
        await websocket.receive()


async def test_a_peer_that_vanishes_is_an_end() -> None:
    ours, theirs = memory_pipe()
    websocket = WebSocket(theirs, client=False)
    ours.write(frame(Opcode.BINARY, b"whole") + frame(Opcode.BINARY, b"half")[:-1])
    ours.close()
    assert await websocket.receive() == b"whole"
    assert await websocket.receive() is None
    with pytest.raises(ConnectionClosed):
        await websocket.send(b"late")


async def test_bytes_through_messages() -> None:
    left, right = memory_pipe()
    one = WebSocketConnection(WebSocket(left, client=True))
    two = WebSocketConnection(WebSocket(right, client=False))
    one.write(b"abc")
    one.write(b"")
    one.write(b"def")
    assert await two.read() + await two.read() == b"abcdef"
    two.close()
    assert await one.read() == b""
