"""Handing a request on to another server, and bytes from one connection to another.

Rules: an upgrade is accepted only after the other server has accepted it, so a
refusal leaves no tunnel behind and reaches the client as an ordinary answer; a
redirect is never followed; hop-by-hop headers end here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from pybernetes.wire.http import (
    BODILESS,
    ClientResponse,
    Connection,
    ConnectionClosed,
    Headers,
    HttpTransport,
    Request,
    Response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

# Headers that are about one connection only (RFC 9110 §7.6.1), and the framing we do ourselves.
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)

# How long the other direction may go on after one has ended.
LINGER_SECONDS = 5.0


async def splice(left: Connection, right: Connection, *, linger: float | None = None) -> None:
    """Copy both ways until both directions have ended; then both are closed.

    When one side ends its stream the other is told, and has `linger` seconds to end
    too, or as long as it likes. When one side is lost, everything ends at once.
    """
    copies = [
        asyncio.ensure_future(_copy(left, right)),
        asyncio.ensure_future(_copy(right, left)),
    ]
    try:
        done, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        if all(copy.result() for copy in done):
            await asyncio.wait(copies, timeout=linger)
    finally:
        left.close()
        right.close()
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


async def _copy(source: Connection, sink: Connection) -> bool:
    """True if the source came to its end, False if one of the two was lost."""
    with suppress(ConnectionClosed):
        while data := await source.read():
            sink.write(data)
            await sink.drain()
        end_stream(sink)
        return True
    return False


def end_stream(connection: Connection) -> None:
    """End our direction of a connection, or all of it where the two cannot end separately."""
    write_eof = getattr(connection, "write_eof", None)
    if write_eof is None:
        connection.close()
    else:
        write_eof()


def end_to_end(headers: Headers) -> list[tuple[str, str]]:
    """The headers that may be handed on."""
    listed = set(headers.tokens("connection"))
    return [(n, v) for n, v in headers if n not in HOP_BY_HOP and n not in listed]


async def forward(
    request: Request,
    transport: HttpTransport,
    target: str,
    *,
    headers: Sequence[tuple[str, str]],
    close: Callable[[], Awaitable[None]] | None = None,
) -> Response:
    """The other server's answer, body streamed both ways. `close` is called when it is through."""
    with_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    # The client's head must not promise a length that a chunked body would then contradict.
    body: AsyncIterator[bytes] | bytes = aiter(request.body) if with_body else b""
    try:
        answer = await transport.request(request.method, target, headers=headers, body=body)
    except BaseException:
        if close is not None:
            await close()
        raise
    fields = end_to_end(answer.headers)
    if answer.status in BODILESS or request.method == "HEAD":
        await answer.close()
        if close is not None:
            await close()
        return Response(answer.status, fields)
    return Response(answer.status, fields, AnswerBody(answer, close))


class AnswerBody:
    """The body of another server's answer, as the body of ours.

    Not a generator: one that was never started would not know that it is closed.
    """

    def __init__(
        self, answer: ClientResponse, close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._answer = answer
        self._chunks = aiter(answer)
        self._close = close

    def __aiter__(self) -> AnswerBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        try:
            await self._answer.close()
        finally:
            if self._close is not None:
                await self._close()


async def tunnel(
    request: Request,
    transport: HttpTransport,
    target: str,
    *,
    headers: Sequence[tuple[str, str]],
    close: Callable[[], Awaitable[None]] | None = None,
) -> Response:
    """Ask the other server for the same upgrade; on 101 the bytes of both sides are spliced.

    Any other answer becomes ours, except a redirect, which is an error of that server (502).
    """
    asked = [
        *headers,
        ("Connection", "Upgrade"),
        ("Upgrade", request.headers.get("upgrade")),
    ]
    try:
        answer, connection = await transport.upgrade(request.method, target, headers=asked)
    except BaseException:
        if close is not None:
            await close()
        raise
    if connection is None:
        if answer.status in range(300, 400):
            await answer.close()
            if close is not None:
                await close()
            return Response(502, [], b"the server tried to redirect an upgrade\n")
        return Response(answer.status, end_to_end(answer.headers), AnswerBody(answer, close))
    backend = connection

    async def upgraded(client: Connection) -> None:
        try:
            await splice(client, backend, linger=LINGER_SECONDS)
        finally:
            if close is not None:
                await close()

    fields = [(name, value) for name, value in answer.headers if name not in ("content-length",)]
    return Response(101, fields, upgrade=upgraded)
