"""Exec, attach and port-forward as the kubelet serves them, by either kind of runtime.

A runtime that serves streams itself gives a URL: its bytes and the client's are
handed through untouched. One that carries them in this process (the simulated
runtime) gives a stream object, and the protocols are spoken here, on top of
`wire.remoteprocess`.

Rule: an exec dies with its client, an attached container does not.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pybernetes.kubelet.runtime.interface import PortStream, ProcessStream, StreamUrl
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import Connection, ConnectionClosed, Request, Response
from pybernetes.wire.memory import memory_pipe
from pybernetes.wire.proxy import end_to_end, splice, tunnel
from pybernetes.wire.remoteprocess import (
    RemoteProcess,
    Wanted,
    accept,
    choose_spdy_protocol,
    no_common_protocol,
    spdy_response,
)
from pybernetes.wire.spdyframes import PROTOCOL_ERROR
from pybernetes.wire.websocket import (
    WebSocket,
    accept_websocket,
    choose_subprotocol,
    is_websocket,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from pybernetes.wire.spdy import SpdySession, SpdyStream

log = logging.getLogger(__name__)

PORT_FORWARD_PROTOCOL = "portforward.k8s.io"
_PORT_WEBSOCKET_PROTOCOLS = ("v4.channel.k8s.io",)

# A forwarded connection is a pair of streams; the second must follow the first so soon.
_PAIR_SECONDS = 30.0

SUCCESS = b'{"metadata":{},"status":"Success"}'
_EXIT_REASON = "NonZeroExitCode"

# Not for the runtime: who the client is was our business.
_OURS = frozenset({"host", "authorization", "content-length"})


def exit_status(code: int) -> bytes:
    """What the status stream says of a process that ended: a Status object."""
    if code == 0:
        return SUCCESS
    return _failure(
        f"command terminated with non-zero exit code: exit status {code}",
        reason=_EXIT_REASON,
        details={"causes": [{"reason": "ExitCode", "message": str(code)}]},
    )


def error_status(message: str) -> bytes:
    """What it says when the process could not be run or followed to its end."""
    return _failure(
        f"Internal error occurred: {message}",
        reason="InternalError",
        details={"causes": [{"message": message}]},
        code=500,
    )


def _failure(message: str, *, reason: str, **more: Any) -> bytes:
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": reason, **more}
    return json.dumps(status, separators=(",", ":")).encode()


async def pass_through(request: Request, url: str) -> Response:
    """Let the client talk to the runtime's own streaming server."""
    parts = urlsplit(url)
    client = HttpClient(f"{parts.scheme}://{parts.netloc}")
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = [(name, value) for name, value in end_to_end(request.headers) if name not in _OURS]
    return await tunnel(request, client, target, headers=headers, close=client.close)


async def serve_process(
    request: Request, wanted: Wanted, stream: StreamUrl | ProcessStream
) -> Response:
    """Exec or attach."""
    if isinstance(stream, StreamUrl):
        return await pass_through(request, stream.url)

    async def serve(remote: RemoteProcess) -> None:
        await run_process(remote, stream)

    response = accept(request, wanted, serve)
    if response.upgrade is None:
        await stream.close()
    return response


async def run_process(remote: RemoteProcess, stream: ProcessStream) -> None:
    """Connect the client's streams with the process until it ends or the client leaves."""
    remote.announce()
    helpers: list[Coroutine[Any, Any, None]] = []
    if remote.stdin is not None:
        helpers.append(_feed(remote.stdin, stream))
    if remote.resize is not None:
        helpers.append(_resize(remote.resize, stream))
    tasks = [asyncio.ensure_future(helper) for helper in helpers]
    process = asyncio.ensure_future(_follow(remote, stream))
    gone = asyncio.ensure_future(remote.gone())
    try:
        await asyncio.wait([process, gone], return_when=asyncio.FIRST_COMPLETED)
        if not process.done():
            return
        try:
            code = process.result()
        except Exception as error:
            status = error_status(str(error)) if remote.json_status else str(error).encode()
        else:
            if remote.json_status:
                status = exit_status(code)
            else:
                status = b"" if code == 0 else f"exit status {code}".encode()
        await remote.finish(status)
    finally:
        for task in (*tasks, process, gone):
            task.cancel()
        try:
            await asyncio.gather(*tasks, process, gone, return_exceptions=True)
        finally:
            # Even if we are cancelled in the middle of leaving, the process must die.
            await stream.close()


async def _follow(remote: RemoteProcess, stream: ProcessStream) -> int:
    async for data, is_stderr in stream.output():
        sink = remote.stderr if is_stderr else remote.stdout
        if sink is not None:
            sink.write(data)
            await sink.drain()
    return await stream.wait()


async def _feed(stdin: Connection, stream: ProcessStream) -> None:
    with suppress(ConnectionClosed, OSError):
        while data := await stdin.read():
            await stream.write(data)
    await stream.close_stdin()


async def _resize(sizes: Connection, stream: ProcessStream) -> None:
    """Sizes come as JSON objects, one behind the other; what is not one is skipped."""
    text = ""
    decoder = json.JSONDecoder()
    while data := await sizes.read():
        text = (text + data.decode(errors="replace")).lstrip()
        while text:
            try:
                size, end = decoder.raw_decode(text)
            except ValueError:
                # The rest of it is still to come, unless it is nonsense.
                text = text if len(text) < 1024 else ""
                break
            text = text[end:].lstrip()
            if isinstance(size, dict):
                width, height = size.get("Width"), size.get("Height")
                if isinstance(width, int) and isinstance(height, int):
                    stream.resize(width, height)


# Port forwarding


async def serve_ports(
    request: Request, ports: Sequence[int], stream: StreamUrl | PortStream, *, pod: str
) -> Response:
    """Port-forward; `pod` names it in errors: "name, uid x"."""
    if isinstance(stream, StreamUrl):
        return await pass_through(request, stream.url)
    if is_websocket(request):
        response = _ports_over_websocket(request, ports, stream, pod)
    elif request.upgrade_protocol == "spdy/3.1":
        response = _ports_over_spdy(request, stream, pod)
    else:
        text = b"unable to upgrade: missing upgrade headers in request\n"
        response = Response(400, [], text)
    if response.upgrade is None:
        await stream.close()
    return response


def _ports_over_spdy(request: Request, stream: PortStream, pod: str) -> Response:
    protocol = choose_spdy_protocol(request, (PORT_FORWARD_PROTOCOL,))
    if protocol is None:
        return no_common_protocol(request, (PORT_FORWARD_PROTOCOL,))

    async def upgraded(session: SpdySession) -> None:
        try:
            async with asyncio.TaskGroup() as forwards:
                await _pair_streams(session, stream, pod, forwards)
                raise _ClientLeft  # Takes the connections that are still open with it.
        except* _ClientLeft:
            pass
        finally:
            await stream.close()

    return spdy_response(protocol, upgraded)


class _ClientLeft(Exception):
    pass


async def _pair_streams(
    session: SpdySession, stream: PortStream, pod: str, forwards: asyncio.TaskGroup
) -> None:
    """Every two streams with the same request id are one connection to one port."""
    # Streams that wait for their other half, by request id.
    halves: dict[str, tuple[SpdyStream, asyncio.TimerHandle]] = {}
    loop = asyncio.get_running_loop()

    def give_up(request_id: str) -> None:
        halves.pop(request_id)[0].reset()

    while (opened := await session.accept()) is not None:
        headers = opened.headers
        port, request_id = _port_of(headers.get("port")), headers.get("requestid")
        kind = headers.get("streamtype").lower()
        if not request_id:
            # Clients of long ago open the pair one after the other, without an id.
            request_id = str(opened.stream_id - (0 if kind == "error" else 2))
        if port is None or kind not in ("data", "error"):
            opened.reset(PROTOCOL_ERROR)
            continue
        opened.reply()
        if request_id not in halves:
            halves[request_id] = opened, loop.call_later(_PAIR_SECONDS, give_up, request_id)
            continue
        other, timer = halves.pop(request_id)
        timer.cancel()
        data, error = (opened, other) if kind == "data" else (other, opened)
        forwards.create_task(_forward(data, error, port, stream, pod))
    for _, timer in halves.values():
        timer.cancel()


def _port_of(text: str) -> int | None:
    return int(text) if text.isdecimal() and 0 < int(text) < 65536 else None


async def _forward(
    data: Connection, error: Connection, port: int, stream: PortStream, pod: str
) -> None:
    """One connection, from its opening to its end; failures are told on its error stream."""
    try:
        connection = await stream.connect(port)
        await splice(data, connection)
    except ConnectionClosed:
        pass
    except Exception as failure:
        error.write(f"error forwarding port {port} to pod {pod}: {failure}".encode())
        data.close()
    finally:
        error.close()


def _ports_over_websocket(
    request: Request, ports: Sequence[int], stream: PortStream, pod: str
) -> Response:
    """The older form: the ports are named beforehand, with two channels for each."""
    protocol = choose_subprotocol(request, _PORT_WEBSOCKET_PROTOCOLS)
    if not ports:
        return Response(400, [], b'query parameter "port" is required\n')
    if not protocol and request.headers.get("sec-websocket-protocol"):
        return Response(400, [], b"no WebSocket subprotocol in common\n")

    async def upgraded(websocket: WebSocket) -> None:
        channels = _PortChannels(websocket, ports)
        try:
            async with asyncio.TaskGroup() as forwards:
                for index, port in enumerate(ports):
                    data, error = channels.ends(index)
                    forwards.create_task(_forward(data, error, port, stream, pod))
                await channels.receive()
                raise _ClientLeft
        except* _ClientLeft:
            pass
        finally:
            await stream.close()
            websocket.abort()

    return accept_websocket(request, upgraded, subprotocol=protocol)


class _PortChannels:
    """Channels 2n (data) and 2n+1 (errors) of the n-th port; each begins with the port's number."""

    def __init__(self, websocket: WebSocket, ports: Sequence[int]) -> None:
        self._websocket = websocket
        self._channels = [_PortChannel(websocket, n) for n in range(2 * len(ports))]
        for channel, port in zip(self._channels, [p for p in ports for _ in (0, 1)], strict=True):
            channel.write(port.to_bytes(2, "little"))

    def ends(self, index: int) -> tuple[Connection, Connection]:
        return self._channels[2 * index], self._channels[2 * index + 1]

    async def receive(self) -> None:
        try:
            while (message := await self._websocket.receive()) is not None:
                data = message.encode() if isinstance(message, str) else message
                if data and data[0] < len(self._channels) and data[0] % 2 == 0:
                    await self._channels[data[0]].arrived(data[1:])
        finally:
            for channel in self._channels:
                channel.ended()


class _PortChannel:
    """One channel as a `Connection`."""

    def __init__(self, websocket: WebSocket, number: int) -> None:
        self._websocket = websocket
        self._number = number
        # Filled by whoever receives, who waits while we do not read.
        self._filled, self._read = memory_pipe()
        self._closed = False

    async def arrived(self, data: bytes) -> None:
        with suppress(ConnectionClosed):
            self._filled.write(data)
            await self._filled.drain()

    def ended(self) -> None:
        self._filled.write_eof()

    async def read(self) -> bytes:
        return await self._read.read()

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._websocket.send_nowait(bytes([self._number]) + data)

    async def drain(self) -> None:
        await self._websocket.drain()

    def write_eof(self) -> None:
        """Channels have no end of their own: this one falls silent."""
        self._closed = True

    def close(self) -> None:
        self._closed = True
        self._read.close()

    async def wait_closed(self) -> None:
        await self._read.wait_closed()
