"""The HTTP server over real loopback sockets, with honest and with broken clients.

Everything is real; broken clients are plain sockets that write bytes. Time is
real too, so limits are set to fractions of a second where they are waited for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.wire.channel import connect_unix
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import (
    BodyTooLarge,
    Connection,
    ConnectionClosed,
    Handler,
    Request,
    Response,
)
from pybernetes.wire.server import Limits, Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.wire.conftest import Certificates

pytestmark = pytest.mark.realtime

SHORT = timedelta(seconds=0.2)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(request: Request) -> Response:
    return Response(200, [("Content-Type", "text/plain")], b"hello")


async def echo_body(request: Request) -> Response:
    return Response(200, body=await request.body.read(1 << 24))


@asynccontextmanager
async def running(
    handler: Handler, limits: Limits | None = None
) -> AsyncIterator[tuple[Server, int]]:
    async with serve(handler, limits=limits, drain_timeout=SHORT) as server:
        yield server, server.addresses[0][1]


async def talk(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send the pieces, end our side, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        with suppress(OSError):
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def until(condition: object, seconds: float = 3.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


# Honest clients


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def path(request: Request) -> Response:
        await asyncio.sleep(0.02 if request.path == "/0" else 0)
        return Response(200, body=request.path.encode())

    asked = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50))
    async with running(path) as (_, port):
        text = await talk(port, asked)
    answers = [part.split(b"HTTP/1.1")[0] for part in text.split(b"\r\n\r\n")[1:]]
    assert answers == [b"/%d" % n for n in range(50)]


async def test_answers_may_share_their_headers() -> None:
    shared = [("Content-Type", "text/plain")]

    async def answer(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"stream"

        return Response(200, shared, chunks() if request.path == "/stream" else b"whole")

    async with running(answer) as (_, port):
        text = await talk(port, GET.replace(b"/", b"/stream", 1), GET, pause=0.02)
    assert text.count(b"chunked") == text.count(b"Content-Length: 5") == 1
    assert shared == [("Content-Type", "text/plain")]


async def test_old_clients_get_what_they_understand() -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one "
            yield b""
            yield b"two"

        return Response(200, body=chunks())

    async with running(stream) as (_, port):
        old = await talk(port, b"GET / HTTP/1.0\r\n\r\n")
        new = await talk(port, GET)
    assert old.endswith(b"\r\n\r\none two")
    assert b"chunked" not in old
    assert new.endswith(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_chunked_bodies_and_their_sizes() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running(echo_body) as (_, port):
        text = await talk(port, head, b"3\r\nab", b"c\r\n2;x=y\r\nde\r\n0\r\n\r\n", GET, pause=0.01)
    assert text.count(b"200 OK") == 2
    assert b"\r\n\r\nabcde" in text


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"

    async def refuse(request: Request) -> Response:
        return Response(403, body=b"no")

    async with running(echo_body) as (_, port):
        assert (await talk(port, head, b"ok", pause=0.05)).startswith(
            b"HTTP/1.1 100 Continue\r\n\r\n"
        )
    async with running(refuse) as (_, port):
        text = await talk(port, head)
        assert text.startswith(b"HTTP/1.1 403")
        assert b"Connection: close" in text


async def test_head_and_bodiless_answers() -> None:
    async def answer(request: Request) -> Response:
        return Response(204 if request.path == "/none" else 200, body=b"body")

    async with running(answer) as (_, port):
        text = await talk(
            port, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", GET.replace(b"/", b"/none", 1)
        )
    assert b"Content-Length: 4" in text
    assert b"204 No Content" in text
    assert b"body" not in text


async def test_a_handler_that_fails_is_a_500_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        raise RuntimeError("oops")

    async with running(fail) as (_, port):
        text = await talk(port, GET, GET)
    assert text.count(b"500 Internal Server Error") == 2
    assert b"oops" not in text
    assert "oops" in caplog.text


async def test_a_header_cannot_smuggle_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def smuggle(request: Request) -> Response:
        return Response(200, [("X", "a\r\nSet-Cookie: b")])

    async with running(smuggle) as (_, port):
        assert b"Set-Cookie" not in await talk(port, GET)
    assert "line break" in caplog.text


async def test_keep_alive_reuses_one_connection() -> None:
    async with running(hello) as (server, port):
        async with HttpClient(f"http://127.0.0.1:{port}") as client:
            for _ in range(5):
                assert await (await client.request("GET", "/")).read() == b"hello"
        assert server.statistics()["accepted"] == 1
        assert server.statistics()["requests"] == 5


async def test_unix_sockets(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "s")
    sock.bind(path)
    async with (
        serve(hello, sockets=[sock]),
        HttpClient("http://agent", connect=lambda: connect_unix(path)) as client,
    ):
        assert await (await client.request("GET", "/")).read() == b"hello"


# TLS


async def test_client_certificates_are_optional_and_shown(certificates: Certificates) -> None:
    async def who(request: Request) -> Response:
        assert (request.peer.certificate_der is None) == (request.peer.subject == ())
        return Response(200, body=repr(request.peer.subject).encode())

    async with serve(who, tls=certificates.server_context()) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}"
        async with HttpClient(url, tls=certificates.client_context()) as client:
            assert await (await client.request("GET", "/")).read() == b"()"
        context = certificates.client_context("admin", "masters")
        async with HttpClient(url, tls=context) as client:
            text = await (await client.request("GET", "/")).read()
            assert text == b"(('organizationName', 'masters'), ('commonName', 'admin'))"


async def test_megabytes_over_tls_both_ways(certificates: Certificates) -> None:
    data = bytes(range(256)) * 20_000
    async with serve(echo_body, tls=certificates.server_context()) as server:
        url = f"https://localhost:{server.addresses[0][1]}"
        async with HttpClient(url, tls=certificates.client_context()) as client:
            assert await (await client.request("POST", "/", body=data)).read() == data


async def test_plain_http_on_a_tls_port_is_told_so(certificates: Certificates) -> None:
    async with serve(hello, tls=certificates.server_context()) as server:
        text = await talk(server.addresses[0][1], GET)
    assert b"Client sent an HTTP request to an HTTPS server" in text


@pytest.mark.slow
async def test_tls_that_breaks_off_harms_nobody(certificates: Certificates) -> None:
    context = certificates.server_context()
    async with serve(hello, tls=context, limits=Limits(header_timeout=SHORT)) as server:
        port = server.addresses[0][1]
        # A client that does not trust us, one that sends half a hello, one that sends nonsense.
        with pytest.raises(ssl.SSLCertVerificationError):
            await HttpClient(f"https://127.0.0.1:{port}", tls=ssl.create_default_context()).request(
                "GET", "/"
            )
        assert await talk(port, b"\x16\x03\x01\x02\x00\x01") == b""
        assert await talk(port, b"\x16\x03\x01\x00\x05hello") != b"hello"
        # One that cuts the line in the middle of an answer.
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=certificates.client_context(), server_hostname="localhost"
        )
        writer.write(GET)
        assert await reader.read(1)
        writer.transport.abort()
        # One that says nothing at all.
        assert await asyncio.wait_for(_silence(port), 3) == b""
        await until(lambda: server.statistics()["connections"] == 0)
        async with HttpClient(
            f"https://127.0.0.1:{port}", tls=certificates.client_context()
        ) as client:
            assert (await client.request("GET", "/")).status == 200


async def _silence(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read()
    finally:
        writer.close()


# Broken clients


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", b"400", id="not HTTP"),
        pytest.param(b"GET /\r\n\r\n", b"505", id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", b"", id="says it is 0.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", id="HTTP/2 by prior knowledge"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"400", id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400", id="two Hosts"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"400",
            id="two lengths",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400", id="negative"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"400",
            id="chunk size",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
            b"431",
            id="huge header",
        ),
        pytest.param(b"GET /" + b"a" * 300_000, b"431", id="huge target"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 60_000, b"431", id="many headers"
        ),
    ],
)
async def test_what_is_not_a_request_is_refused(sent: bytes, status: bytes) -> None:
    async with running(echo_body) as (server, port):
        text = await talk(port, sent)
        if status:
            assert text.startswith(b"HTTP/1.1 " + status)
        else:
            assert text[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 505")
        assert b"Connection: close" in text
        assert await talk(port, GET) != b""
        await until(lambda: server.statistics()["connections"] == 0)


async def test_the_answer_due_comes_before_the_refusal() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.05)
        return Response(200, body=b"fine")

    async with running(slow) as (_, port):
        text = await talk(port, GET + b"nonsense\r\n\r\n")
    assert text.index(b"200 OK") < text.index(b"400 Bad Request")


@pytest.mark.slow
async def test_half_a_request_is_not_waited_for_long() -> None:
    limits = Limits(header_timeout=SHORT, stall_timeout=SHORT)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    async with running(echo_body, limits) as (server, port):
        for sent in (b"GET / HTTP/1.1\r\nHo", head + b"half"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 408")
            writer.close()
        await until(lambda: server.statistics()["connections"] == 0)


async def test_a_trickle_of_header_bytes_is_cut_off() -> None:
    async with running(hello, Limits(header_timeout=SHORT)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        reading = asyncio.ensure_future(reader.read())
        for n in range(100):
            if reading.done():
                break
            writer.write(b"X-%d: 1\r\n" % n)
            await asyncio.sleep(0.02)
        assert (await asyncio.wait_for(reading, 1)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_idle_connections_are_closed() -> None:
    async with running(hello, Limits(idle_timeout=SHORT)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert b"hello" in await asyncio.wait_for(reader.read(), 3)
        writer.close()


async def test_a_body_over_the_limit_is_answered_413() -> None:
    async def small(request: Request) -> Response:
        return Response(200, body=await request.body.read(10))

    async with running(small) as (_, port):
        announced = await talk(
            port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n" + b"a" * 11, GET
        )
        assert announced.startswith(b"HTTP/1.1 413")
        assert b"200 OK" in announced  # What is left is little: the connection goes on.
        chunked = (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + b"a" * 11
        )
        assert (await talk(port, chunked)).startswith(b"HTTP/1.1 413")
        # So large that it is not worth reading: told, then closed.
        async with HttpClient(f"http://127.0.0.1:{port}") as client:
            answer = await client.request("POST", "/", body=b"a" * 1_000_000)
            assert answer.status == 413


@pytest.mark.slow
async def test_an_unread_body_is_not_taken_in() -> None:
    """A handler that does not read stops the client, not our memory."""
    release = asyncio.Event()

    async def lazy(request: Request) -> Response:
        await release.wait()
        size = 0
        async for part in request.body:
            size += len(part)
        return Response(200, body=b"%d" % size)

    async with running(lazy) as (_, port), HttpClient(f"http://127.0.0.1:{port}") as client:
        asking = asyncio.ensure_future(client.request("POST", "/", body=b"a" * 30_000_000))
        await asyncio.sleep(0.2)
        assert not asking.done()
        release.set()
        assert await (await asking).read() == b"30000000"


async def test_a_client_that_leaves_cancels_the_handler() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> Response:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with running(wait, Limits(linger=SHORT)) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await started.wait()
        writer.transport.abort()
        await asyncio.wait_for(cancelled.wait(), 3)
        await until(lambda: server.statistics()["connections"] == 0)


# Streams


def endless(log: list[str], chunk: bytes = b"x" * 50_000) -> Handler:
    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    log.append(request.path)
                    yield chunk
                    await asyncio.sleep(0.001)
            finally:
                log.append("closed " + request.path)

        return Response(200, body=chunks())

    return handler


@pytest.mark.slow
async def test_a_slow_reader_blocks_only_itself() -> None:
    log: list[str] = []
    async with running(endless(log)) as (_, port):
        slow_reader, slow = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        slow.write(GET.replace(b"/", b"/slow", 1))
        await slow_reader.readline()
        stalled = -1
        while log.count("/slow") != stalled:
            stalled = log.count("/slow")
            await asyncio.sleep(0.2)
        async with (
            HttpClient(f"http://127.0.0.1:{port}") as client,
            await client.request("GET", "/fast") as answer,
        ):
            size = 0
            async for chunk in answer:
                size += len(chunk)
                if size > 20_000_000:
                    break
        assert log.count("/slow") == stalled
        await until(lambda: "closed /fast" in log)
        assert "closed /slow" not in log
        slow.transport.abort()
        await until(lambda: "closed /slow" in log)


@pytest.mark.slow
async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    log: list[str] = []
    async with running(endless(log), Limits(stall_timeout=SHORT)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(GET)
        await reader.readline()
        await until(lambda: "closed /" in log)
        writer.close()


async def test_a_stream_that_fails_does_not_look_complete(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"some"
            raise RuntimeError("broken")

        return Response(200, body=chunks())

    async with running(handler) as (_, port), HttpClient(f"http://127.0.0.1:{port}") as client:
        answer = await client.request("GET", "/")
        with pytest.raises(ConnectionClosed):
            await answer.read()
    assert "broken" in caplog.text


# Upgrades


async def shout(connection: Connection) -> None:
    while data := await connection.read():
        connection.write(data.upper())
        await connection.drain()


async def test_upgrade_keeps_the_bytes_that_came_early() -> None:
    async def handler(request: Request) -> Response:
        assert request.upgrade_protocol == "spdy/3.1"
        headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
        await asyncio.sleep(0.05)
        return Response(101, headers, upgrade=shout)

    asked = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    async with running(handler) as (server, port):
        text = await talk(port, asked + b"early ", b"late ", b"later", pause=0.02)
        head, _, rest = text.partition(b"\r\n\r\n")
        assert (
            head == b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1"
        )
        assert rest == b"EARLY LATE LATER"
        await until(lambda: server.statistics()["connections"] == 0)


async def test_a_declined_upgrade_goes_on_in_http() -> None:
    asked = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with running(hello) as (_, port):
        assert (await talk(port, asked, GET, pause=0.05)).count(b"hello") == 2
        assert (await talk(port, asked + b"\x80\x03early")).count(b"hello") == 1


async def test_upgraded_megabytes_over_tls(certificates: Certificates) -> None:
    async def handler(request: Request) -> Response:
        return Response(101, [("Connection", "Upgrade"), ("Upgrade", "x")], upgrade=shout)

    async with serve(handler, tls=certificates.server_context()) as server:
        url = f"https://localhost:{server.addresses[0][1]}"
        async with HttpClient(url, tls=certificates.client_context()) as client:
            asked: Sequence[tuple[str, str]] = [("Connection", "Upgrade"), ("Upgrade", "x")]
            answer, connection = await client.upgrade("GET", "/", headers=asked)
            assert answer.status == 101
            assert connection is not None

            async def send() -> None:
                for _ in range(100):
                    connection.write(b"abcdefghij" * 5_000)
                    await connection.drain()

            sending = asyncio.ensure_future(send())
            size = 0
            while size < 5_000_000:
                data = await connection.read()
                assert data
                size += len(data)
            await sending
            connection.close()
            await connection.wait_closed()


# The end


async def test_closing_ends_streams_in_order_and_waits_for_answers() -> None:
    log: list[str] = []
    stream = endless(log, b"tick")

    async def handler(request: Request) -> Response:
        if request.path == "/answer":
            await asyncio.sleep(0.1)
            return Response(200, body=b"done")
        return await stream(request)

    async with serve(handler, drain_timeout=timedelta(seconds=5)) as server:
        port = server.addresses[0][1]
        idle = await asyncio.open_connection("127.0.0.1", port)
        watch = asyncio.ensure_future(talk_on(port, GET.replace(b"/", b"/watch", 1)))
        answer = asyncio.ensure_future(talk_on(port, GET.replace(b"/", b"/answer", 1)))
        await until(lambda: "/watch" in log and server.statistics()["requests"] == 2)
        start = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - start < 2
    assert (await watch).endswith(b"\r\n0\r\n\r\n")
    assert (await answer).endswith(b"done")
    assert await idle[0].read() == b""
    idle[1].close()
    assert "closed /watch" in log


async def talk_on(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_closing_does_not_wait_for_ever() -> None:
    async def never(request: Request) -> Response:
        await asyncio.sleep(3600)
        raise AssertionError

    async with serve(never, drain_timeout=SHORT) as server:
        asking = asyncio.ensure_future(talk_on(server.addresses[0][1], GET))
        await until(lambda: server.statistics()["requests"] == 1)
    with suppress(ConnectionResetError):
        assert await asking == b""


# The client


async def test_a_stale_connection_is_replaced_for_what_may_be_repeated() -> None:
    """The server closes after each answer without saying so, as a restarted one would."""
    served = 0

    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read(1)  # The second request makes it go away.
        writer.transport.abort()

    server = await asyncio.start_server(serve_once, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient(f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            assert await (await client.request("GET", "/")).read() == b"ok"
        assert served == 3
        with pytest.raises(ConnectionClosed):
            await client.request("POST", "/", body=b"once")


async def test_the_client_takes_answers_of_any_framing() -> None:
    answers = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nok",
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient(f"http://127.0.0.1:{port}") as client:
        while answers:
            assert await (await client.request("GET", "/")).read() == b"ok"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", id="half a body"),
        pytest.param(b"SSH-2.0-OpenSSH_9\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400_000, id="endless head"),
    ],
)
async def test_the_client_says_what_is_wrong_with_an_answer(sent: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        with suppress(OSError):
            await writer.drain()
        writer.close()

    from pybernetes.wire.http import WireError

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(WireError):
            await (await client.request("POST", "/")).read()


async def test_body_limits_hold_for_answers_too() -> None:
    async with running(hello) as (_, port), HttpClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(BodyTooLarge):
            await (await client.request("GET", "/")).read(4)


async def test_a_streamed_request_body() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for n in range(3):
            yield b"%d" % n

    async with running(echo_body) as (_, port), HttpClient(f"http://127.0.0.1:{port}") as client:
        assert await (await client.request("POST", "/", body=parts())).read() == b"012"


@pytest.mark.slow
async def test_cancelling_a_request_leaves_nothing_open() -> None:
    async def never(request: Request) -> Response:
        await asyncio.sleep(3600)
        raise AssertionError

    async with running(never) as (_server, port), HttpClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(TimeoutError):
            await client.request("GET", "/", timeout=SHORT)
        assert client.statistics() == {"idle": 0, "busy": 0}
