"""WebSocket (RFC 6455) over a `Connection`, for either side.

The handshake is ours, because HTTP is; the frames are those of the `websockets`
library's sans-IO protocol, which is imported when the first one is needed.

Rules: pings are answered whenever somebody receives; a message longer than
`limit` ends the connection with code 1009; fragments are put together before
anybody sees them.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections import deque
from typing import TYPE_CHECKING

from pybernetes.wire.http import (
    ClientResponse,
    Connection,
    HttpTransport,
    ProtocolError,
    Request,
    Response,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from websockets.protocol import Protocol

# The library reports every connection that is closed; that is no news here.
_FRAMES_LOG = logging.getLogger(f"{__name__}.frames")
_FRAMES_LOG.setLevel(logging.WARNING)

# The longest message taken unless somebody says otherwise.
MESSAGE_LIMIT = 4 * 1024 * 1024
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# The longest reason a close frame can carry, in bytes.
_REASON_LIMIT = 123

NORMAL, GOING_AWAY, INTERNAL_ERROR = 1000, 1001, 1011


class WebSocket:
    """An open WebSocket. One task receives; any task may send."""

    def __init__(
        self,
        connection: Connection,
        *,
        client: bool,
        subprotocol: str = "",
        limit: int = MESSAGE_LIMIT,
    ) -> None:
        self.subprotocol = subprotocol
        self._connection = connection
        self._frames = _frames(client=client, limit=limit)
        # Whole messages not yet received by anybody, oldest first.
        self._messages: deque[bytes | str] = deque()
        # The fragments of the message that is arriving.
        self._fragments: list[bytes] = []
        self._is_text = False
        self._ended = False

    async def receive(self) -> bytes | str | None:
        """The next message; None when the peer has closed or is gone.

        Raises ProtocolError when it sent something that is not WebSocket or too long.
        """
        while not self._messages:
            if self._ended:
                return None
            await self._receive_some()
        return self._messages.popleft()

    async def _receive_some(self) -> None:
        data = await self._connection.read()
        frames = self._frames
        if data:
            frames.receive_data(data)
        else:
            self._ended = True
            frames.receive_eof()
        for event in frames.events_received():
            self._on_frame(event)
        self._flush()
        if frames.close_expected() or frames.state.name == "CLOSED":
            self._ended = True
        if frames.parser_exc is not None and frames.close_rcvd is None and data:
            self._connection.close()
            self._ended = True
            if not isinstance(frames.parser_exc, EOFError):
                raise ProtocolError(f"WebSocket: {frames.parser_exc}")

    def _on_frame(self, frame: object) -> None:
        from websockets.frames import Frame, Opcode

        if not isinstance(frame, Frame) or frame.opcode not in (
            Opcode.TEXT,
            Opcode.BINARY,
            Opcode.CONT,
        ):
            return  # Pings and closes are answered by the library.
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            data = b"".join(self._fragments)
            self._fragments.clear()
            self._messages.append(data.decode(errors="replace") if self._is_text else data)

    def send_nowait(self, message: bytes | str) -> None:
        """Write a message; dropped after close."""
        if self._frames.state.name != "OPEN":
            return
        if isinstance(message, str):
            self._frames.send_text(message.encode())
        else:
            self._frames.send_binary(message)
        self._flush()

    async def send(self, message: bytes | str) -> None:
        """Write and drain. Raises ConnectionClosed."""
        self.send_nowait(message)
        await self._connection.drain()

    async def drain(self) -> None:
        await self._connection.drain()

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye. The connection is closed when the peer has said so too, or by its owner."""
        if self._frames.state.name == "OPEN":
            self._frames.send_close(code, reason.encode()[:_REASON_LIMIT].decode(errors="ignore"))
            self._flush()

    def abort(self) -> None:
        self._ended = True
        self._connection.close()

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                self._connection.write(data)

    @property
    def close_reason(self) -> str:
        """What the peer said when it closed."""
        received = self._frames.close_rcvd
        return "" if received is None else f"{received.code} {received.reason}".strip()

    async def wait_closed(self) -> None:
        await self._connection.wait_closed()


def _frames(*, client: bool, limit: int) -> Protocol:
    from websockets.protocol import CLIENT, SERVER, Protocol

    return Protocol(CLIENT if client else SERVER, max_size=limit, logger=_FRAMES_LOG)


class WebSocketConnection:
    """A WebSocket as a `Connection`: the stream of bytes is cut into binary messages."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        while True:
            message = await self._websocket.receive()
            if message is None:
                return b""
            if message:
                return message.encode() if isinstance(message, str) else message

    def write(self, data: bytes) -> None:
        self._websocket.send_nowait(data)

    async def drain(self) -> None:
        await self._websocket.drain()

    def close(self) -> None:
        self._websocket.close()
        self._websocket.abort()

    async def wait_closed(self) -> None:
        await self._websocket.wait_closed()


# The server's handshake


def is_websocket(request: Request) -> bool:
    return request.upgrade_protocol == "websocket"


def choose_subprotocol(request: Request, supported: Sequence[str]) -> str:
    """The first the client names that we know; empty if none, whether it named some or not."""
    offered = ",".join(request.headers.get_all("sec-websocket-protocol")).split(",")
    return next((name for name in map(str.strip, offered) if name in supported), "")


def accept_websocket(
    request: Request,
    serve: Callable[[WebSocket], Awaitable[None]],
    *,
    subprotocol: str = "",
    limit: int = MESSAGE_LIMIT,
) -> Response:
    """The answer that opens a WebSocket and lets `serve` have it; 400 if it cannot be opened."""
    key = request.headers.get("sec-websocket-key").strip()
    if request.headers.get("sec-websocket-version").strip() != "13":
        return Response(426, [("Sec-WebSocket-Version", "13")], b"WebSocket version 13 only\n")
    if request.method != "GET" or not _is_key(key):
        return Response(400, [], b"not a WebSocket handshake\n")
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", _accept_key(key)),
    ]
    if subprotocol:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))

    async def upgraded(connection: Connection) -> None:
        websocket = WebSocket(connection, client=False, subprotocol=subprotocol, limit=limit)
        await serve(websocket)

    return Response(101, headers, upgrade=upgraded)


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def _accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


# The client's


async def connect_websocket(
    transport: HttpTransport,
    target: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    limit: int = MESSAGE_LIMIT,
) -> tuple[ClientResponse, WebSocket | None]:
    """Open a WebSocket; it is there if the server agreed, else the answer says why not."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields = [
        *headers,
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    response, connection = await transport.upgrade("GET", target, headers=fields)
    if connection is None:
        return response, None
    chosen = response.headers.get("sec-websocket-protocol")
    if response.headers.get("sec-websocket-accept") != _accept_key(key):
        connection.close()
        raise ProtocolError("the server's WebSocket handshake does not belong to ours")
    if chosen and chosen not in subprotocols:
        connection.close()
        raise ProtocolError(f"the server chose a subprotocol we did not offer: {chosen}")
    return response, WebSocket(connection, client=True, subprotocol=chosen, limit=limit)
