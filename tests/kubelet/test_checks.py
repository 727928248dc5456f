"""Probe actions against real sockets on loopback."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.server import Server as GrpcServer

from pybernetes.api.types.core_v1 import (
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    Probe,
    TCPSocketAction,
)
from pybernetes.kubelet.checks import Result, Target, attempt
from pybernetes.testing.builders import container
from pybernetes.wire.http import Request, Response
from pybernetes.wire.server import serve

if TYPE_CHECKING:
    from pybernetes.kubelet.runtime.interface import Runtime

pytestmark = pytest.mark.realtime


class NoPodNetwork:
    """Only what an action without a command needs: nothing."""

    pod_network = None


TARGET = Target(cast("Runtime", NoPodNetwork()), container(), "id", "127.0.0.1")
SECOND = timedelta(seconds=1)


async def try_http(port: int, **action: Any) -> tuple[Result, str]:
    probe = Probe(http_get=HTTPGetAction(port=port, **action))
    outcome = await attempt(probe, TARGET, SECOND)
    return outcome.result, outcome.message


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_http() -> None:
    seen: list[Request] = []

    async def handle(request: Request) -> Response:
        seen.append(request)
        if request.path == "/moved":
            return Response(302, [("Location", "/bad")], b"")
        if request.path == "/elsewhere":
            return Response(302, [("Location", "http://elsewhere.test/")], b"")
        return Response(500 if request.path == "/bad" else 200, [], b"hello")

    async with serve(handle, host="127.0.0.1", port=0) as server:
        port = server.addresses[0][1]
        assert await try_http(port, path="/good") == (Result.SUCCESS, "hello")
        assert seen[-1].headers.get("user-agent").startswith("kube-probe/")
        failed = (Result.FAILURE, "HTTP probe failed with statuscode: 500")
        assert await try_http(port, path="/bad") == failed
        assert await try_http(port, path="/moved") == failed
        assert (await try_http(port, path="/elsewhere"))[0] is Result.SUCCESS
        header = HTTPHeader(name="X-Word", value="yes")
        await try_http(port, path="/?q=1", http_headers=(header,))
        assert (seen[-1].headers.get("x-word"), seen[-1].query) == ("yes", "q=1")


async def test_nobody_there() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    text = f'Get "{url}": dial tcp 127.0.0.1:{port}: connect: connection refused'
    assert await try_http(port) == (Result.FAILURE, text)
    outcome = await attempt(Probe(tcp_socket=TCPSocketAction(port=port)), TARGET, SECOND)
    text = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert (outcome.result, outcome.message) == (Result.FAILURE, text)


async def test_an_answer_that_takes_too_long() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        result, message = await try_http(silent.getsockname()[1])
    assert result is Result.FAILURE
    assert message.endswith(
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    )


async def test_grpc() -> None:
    status = ServiceStatus()
    health = Health({cast("Any", OwnService()): [status]})
    server = GrpcServer([health])
    port = free_port()
    await server.start("127.0.0.1", port)
    try:
        probe = Probe(grpc=GRPCAction(port=port, service="own"))
        status.set(True)
        assert (await attempt(probe, TARGET, SECOND)).result is Result.SUCCESS
        status.set(False)
        outcome = await attempt(probe, TARGET, SECOND)
        text = 'service unhealthy (responded with "NOT_SERVING")'
        assert (outcome.result, outcome.message) == (Result.FAILURE, text)
        outcome = await attempt(Probe(grpc=GRPCAction(port=port, service="no")), TARGET, SECOND)
        assert outcome.result is Result.FAILURE
    finally:
        server.close()
        await server.wait_closed()


class OwnService:
    def __mapping__(self) -> dict[str, Any]:
        return {"/own/Method": None}
