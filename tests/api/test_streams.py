"""Logs, exec, attach, port-forward and proxies, from the client to the process.

Real: the API server, the kubelet's server, SPDY and WebSocket, and with the
`realtime` mark sockets, processes and kubectl. Fake: the node agent, which runs
commands as local processes or scripted ones, and the kinds' entries, which are
as plain as can be. Everything without that mark runs in memory, in virtual time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pybernetes.aio.clock import LoopClock
from pybernetes.api.resource import (
    Attach,
    Exec,
    Log,
    PortForward,
    Proxy,
    Resource,
    Scope,
)
from pybernetes.api.types.core_v1 import (
    Container,
    DaemonEndpoint,
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSubset,
    Node,
    NodeAddress,
    NodeDaemonEndpoints,
    NodeStatus,
    ObjectReference,
    Pod,
    PodSpec,
    PodStatus,
    Service,
    ServicePort,
    ServiceSpec,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import BadRequest, ServiceUnavailable
from pybernetes.apiserver.hooks import Route
from pybernetes.apiserver.nodes import NodeEndpoint, Nodes, dial_tls
from pybernetes.apiserver.server import ApiServer, Plugins
from pybernetes.apiserver.streams import chosen_container, log_query, stream_handlers
from pybernetes.kubelet.runtime.interface import Output, PortStream, ProcessStream
from pybernetes.kubelet.server import Access, KubeletServer, LogOptions
from pybernetes.storage.memory import MemoryStore
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import Connection, HttpTransport, Request, Response
from pybernetes.wire.memory import MemoryHttpClient, memory_pipe
from pybernetes.wire.remoteprocess import RemoteProcess, Wanted, open_over_spdy
from pybernetes.wire.server import serve
from pybernetes.wire.spdy import SpdySession
from pybernetes.wire.websocket import WebSocket, WebSocketConnection, connect_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

MEGABYTE = os.urandom(1 << 20)


# The node


class ScriptedProcess:
    """A process in virtual time: echoes its input in capitals, a second per chunk."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        self._input: asyncio.Queue[bytes] = asyncio.Queue(4)

    async def write(self, data: bytes) -> None:
        await self._input.put(data)

    async def close_stdin(self) -> None:
        await self._input.put(b"")

    def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def output(self) -> AsyncIterator[Output]:
        yield Output(" ".join(self.command).encode() + b"\n")
        if self.command[:1] == ["fail"]:
            yield Output(b"bad luck\n", is_stderr=True)
            return
        while data := await self._input.get():
            await asyncio.sleep(1)
            yield Output(data.upper())

    async def wait(self) -> int:
        return int(self.command[1]) if self.command[:1] == ["fail"] else 0

    async def close(self) -> None:
        self.closed = True


class LocalProcess:
    """A real process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], wanted: Wanted) -> LocalProcess:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe if wanted.stdin else asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT if wanted.tty else pipe,
        )
        return cls(process)

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def resize(self, width: int, height: int) -> None:
        return None

    async def output(self) -> AsyncIterator[Output]:
        merged: asyncio.Queue[Output | None] = asyncio.Queue(8)

        async def pump(reader: asyncio.StreamReader, is_stderr: bool) -> None:
            while data := await reader.read(65536):
                await merged.put(Output(data, is_stderr))
            await merged.put(None)

        process = self._process
        assert process.stdout is not None
        pumps = [asyncio.ensure_future(pump(process.stdout, False))]
        if process.stderr is not None:
            pumps.append(asyncio.ensure_future(pump(process.stderr, True)))
        try:
            running = len(pumps)
            while running:
                item = await merged.get()
                if item is None:
                    running -= 1
                else:
                    yield item
        finally:
            for task in pumps:
                task.cancel()

    async def wait(self) -> int:
        return await self._process.wait()

    async def close(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()


class EchoPorts:
    """Port 7 echoes, port 80 speaks HTTP; nobody listens elsewhere."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    async def connect(self, port: int) -> Connection:
        if port not in (7, 80):
            raise ConnectionRefusedError("connection refused")
        ours, theirs = memory_pipe()
        self._tasks.create_task(_echo(theirs) if port == 7 else _page(theirs))
        return ours

    async def close(self) -> None:
        return None


async def _echo(connection: Connection) -> None:
    await splice_loop(connection)
    connection.close()


async def splice_loop(connection: Connection) -> None:
    while data := await connection.read():
        connection.write(data)
        await connection.drain()


async def _page(connection: Connection) -> None:
    asked = b""
    while b"\r\n\r\n" not in asked and (data := await connection.read()):
        asked += data
    line = asked.split(b"\r\n")[0]
    lowered = asked.lower()
    assert b"authorization" not in lowered
    body = line + b" forwarded" if b"x-forwarded-uri" in lowered else line
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await connection.drain()
    connection.close()


class Agent:
    """A node with one pod: `web` in `default`, whose containers are `main` and `side`."""

    def __init__(self, tasks: asyncio.TaskGroup, *, real: bool) -> None:
        self._tasks, self._real = tasks, real
        self.log_options: list[LogOptions] = []
        # Every process that was asked for, oldest first.
        self.processes: list[ScriptedProcess] = []

    def pods(self) -> Sequence[Pod]:
        return [POD]

    def find_pod(self, namespace: str, name: str) -> Pod | None:
        known = {"web": POD, "solo": SOLO}
        return known.get(name) if namespace == "default" else None

    async def read_log(self, pod: Pod, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        if container == "side":
            name = pod.metadata.name
            raise BadRequest(
                f'container "side" in pod "{name}" is waiting to start: ContainerCreating'
            )
        self.log_options.append(options)
        return self._log(options)

    async def _log(self, options: LogOptions) -> AsyncIterator[bytes]:
        n = 0
        while n < 3 or options.follow:
            yield b"line %d\n" % n
            n += 1
            if options.follow:
                await asyncio.sleep(0.05 if self._real else 60)

    async def _process(self, command: Sequence[str], wanted: Wanted) -> ProcessStream:
        if self._real:
            return await LocalProcess.start(command, wanted)
        self.processes.append(ScriptedProcess(command))
        return self.processes[-1]

    async def exec(
        self, pod: Pod, container: str, command: Sequence[str], wanted: Wanted
    ) -> ProcessStream:
        return await self._process(command, wanted)

    async def attach(self, pod: Pod, container: str, wanted: Wanted) -> ProcessStream:
        return await self._process(["cat"], wanted)

    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> bytes:
        return b"ran " + " ".join(command).encode()

    async def port_forward(self, pod: Pod, ports: Sequence[int]) -> PortStream:
        return EchoPorts(self._tasks)

    def health(self) -> str | None:
        return None


# The cluster


def core(kind: type[Any], plural: str, *subresources: Any) -> Resource[Any]:
    scope = Scope.CLUSTER if plural == "nodes" else Scope.NAMESPACED
    return Resource(
        group="", version="v1", kind=kind, plural=plural, scope=scope, subresources=subresources
    )


RESOURCES = (
    core(Pod, "pods", Log(), Exec(), Attach(), PortForward(), Proxy()),
    core(Service, "services", Proxy()),
    core(Endpoints, "endpoints"),
    core(Node, "nodes", Proxy()),
)

POD = Pod(
    metadata=ObjectMeta(name="web", namespace="default", uid="u1"),
    spec=PodSpec(node_name="n1", containers=(Container(name="main"), Container(name="side"))),
    status=PodStatus(phase="Running"),
)
SOLO = replace(
    POD,
    metadata=ObjectMeta(name="solo", namespace="default", uid="u2"),
    spec=PodSpec(node_name="n1", containers=(Container(name="main"),)),
)
PENDING = replace(
    POD,
    metadata=ObjectMeta(name="pending", namespace="default", uid="u3"),
    spec=PodSpec(containers=(Container(name="main"),)),
)
NODE = Node(
    metadata=ObjectMeta(name="n1"),
    status=NodeStatus(
        addresses=(NodeAddress(type="InternalIP", address="127.0.0.1"),),
        daemon_endpoints=NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=10250)),
    ),
)
SERVICE = Service(
    metadata=ObjectMeta(name="web", namespace="default"),
    spec=ServiceSpec(ports=(ServicePort(name="http", port=8080),)),
)
ENDPOINTS = Endpoints(
    metadata=ObjectMeta(name="web", namespace="default"),
    subsets=(
        EndpointSubset(
            addresses=(
                EndpointAddress(
                    ip="203.0.113.1",
                    target_ref=ObjectReference(kind="Pod", namespace="default", name="web"),
                ),
            ),
            ports=(EndpointPort(name="http", port=80),),
        ),
    ),
)


def discovery() -> tuple[Route, ...]:
    """As much of it as kubectl needs to know what a pod is."""
    verbs = ["create", "get", "list"]
    pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod"}
    documents: dict[str, Any] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [pods | {"verbs": verbs, "shortNames": ["po"]}],
        },
    }

    def route(path: str, document: Any) -> Route:
        async def answer(call: Any) -> Response:
            headers = [("Content-Type", "application/json")]
            return Response(200, headers, json.dumps(document).encode())

        return Route(path, answer)

    return tuple(route(path, document) for path, document in documents.items())


class World:
    """A client of an API server with a node behind it."""

    def __init__(self, api: ApiServer, agent: Agent, client: MemoryHttpClient) -> None:
        self.api, self.agent, self.client = api, agent, client
        self.unreachable = False

    async def get(self, path: str) -> tuple[int, bytes]:
        answer = await self.client.request("GET", path)
        return answer.status, await answer.read()

    async def refusal(self, path: str) -> tuple[int, str]:
        status, body = await self.get(path)
        return status, json.loads(body)["message"]

    async def spdy(
        self, path: str, protocol: str = "v4.channel.k8s.io"
    ) -> tuple[int, Connection | None]:
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", protocol),
        ]
        answer, connection = await self.client.upgrade("POST", path, headers=headers)
        if connection is None:
            await answer.close()
        return answer.status, connection

    async def websocket(self, path: str, *protocols: str) -> WebSocket:
        answer, websocket = await connect_websocket(self.client, path, subprotocols=protocols)
        assert websocket is not None, await answer.read()
        return websocket


async def let_all_in(request: Request) -> UserInfo | None:
    return UserInfo("system:apiserver")


async def refuse() -> Connection:
    raise ConnectionRefusedError("connection refused")


async def allow_all(user: UserInfo, access: Access) -> bool:
    return True


@asynccontextmanager
async def world(*, real: bool = False) -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        agent = Agent(tasks, real=real)
        worlds: list[World] = []
        kubelet = KubeletServer(agent, authenticate=let_all_in, authorize=allow_all)
        port = 0
        if real:
            port = (await stack.enter_async_context(serve(kubelet.handle))).addresses[0][1]

        def dial(endpoint: NodeEndpoint) -> HttpTransport:
            assert endpoint == NodeEndpoint("n1", "127.0.0.1", 10250)
            if real:
                return HttpClient(f"http://127.0.0.1:{port}")
            if worlds and worlds[0].unreachable:
                return HttpClient("http://node", connect=refuse)
            return MemoryHttpClient(kubelet.handle)

        def plugins(server: ApiServer) -> Plugins:
            nodes = Nodes(server.backend, dial)
            return Plugins(connects=stream_handlers(server.backend, nodes), routes=discovery())

        store = MemoryStore()
        clock = LoopClock(datetime(2026, 1, 1, tzinfo=UTC))
        async with ApiServer(
            store, clock, Random(1), resources=RESOURCES, make_plugins=plugins
        ) as api:
            for plural, obj in (
                ("nodes", NODE),
                ("pods", POD),
                ("pods", SOLO),
                ("pods", PENDING),
                ("services", SERVICE),
                ("endpoints", ENDPOINTS),
            ):
                served = api.catalog.find("", "v1", plural)
                assert served is not None
                path = served.path(obj.metadata.namespace, obj.metadata.name)
                await store.put(path, served.encode(obj))
            client = MemoryHttpClient(api.handle)
            worlds.append(World(api, agent, client))
            yield worlds[0]
            await client.close()


PODS = "/api/v1/namespaces/default/pods"


# Logs


async def test_logs_are_handed_on() -> None:
    async with world() as w:
        assert await w.get(f"{PODS}/solo/log") == (200, b"line 0\nline 1\nline 2\n")
        query = "container=main&previous=true&tailLines=5&limitBytes=9&timestamps=1"
        assert (await w.get(f"{PODS}/web/log?{query}&sinceTime=2026-01-01T00:00:00Z"))[0] == 200
        assert w.agent.log_options[-1] == LogOptions(
            previous=True,
            timestamps=True,
            tail_lines=5,
            limit_bytes=9,
            since=datetime(2026, 1, 1, tzinfo=UTC),
        )
        assert await w.get(f"{PODS}/pending/log") == (200, b"")


async def test_logs_that_are_followed_come_line_by_line() -> None:
    async with world() as w:
        loop = asyncio.get_running_loop()
        async with await w.client.request("GET", f"{PODS}/solo/log?follow=true") as answer:
            lines = aiter(answer)
            assert await anext(lines) == b"line 0\n"
            start = loop.time()
            assert await anext(lines) == b"line 1\n"
            assert loop.time() == start + 60


async def test_refusals_of_logs_have_upstreams_words() -> None:
    async with world() as w:
        message = "a container name must be specified for pod web, choose one of: [main side]"
        assert await w.refusal(f"{PODS}/web/log") == (400, message)
        message = "container nope is not valid for pod web"
        assert await w.refusal(f"{PODS}/web/log?container=nope") == (400, message)
        message = 'container "side" in pod "web" is waiting to start: ContainerCreating'
        assert await w.refusal(f"{PODS}/web/log?container=side") == (400, message)
        assert await w.refusal(f"{PODS}/gone/log") == (404, 'pods "gone" not found')
        code, message = await w.refusal(f"{PODS}/solo/log?tailLines=-1")
        assert code == 422
        assert "tailLines: Invalid value: -1: must be greater than or equal to 0" in message


@pytest.mark.parametrize("host", ["198.19.0.1", "203.0.113.9", "2001:db8::1"])
def test_simulated_addresses_are_never_dialled(host: str) -> None:
    dial = dial_tls(ssl.create_default_context())
    with pytest.raises(ServiceUnavailable):
        dial(NodeEndpoint("n1", host, 10250))
    assert isinstance(dial(NodeEndpoint("n1", "127.0.0.1", 10250)), HttpClient)


def test_the_default_container_is_the_annotated_one() -> None:
    annotations = {"kubectl.kubernetes.io/default-container": "side"}
    annotated = replace(POD, metadata=replace(POD.metadata, annotations=annotations))
    assert chosen_container(annotated, "") == "side"
    assert chosen_container(SOLO, "") == "main"


def test_log_options_in_the_kubelets_words() -> None:
    assert log_query({}, "p") == ""
    assert log_query({"follow": "", "sinceSeconds": "7"}, "p") == "follow=true&sinceSeconds=7"
    with pytest.raises(BadRequest):
        log_query({"tailLines": "many"}, "p")


# Exec and attach

EXEC = f"{PODS}/solo/exec?command=shout&command=it&stdin=1&stdout=1&stderr=1"


async def talk(process: RemoteProcess) -> tuple[bytes, bytes, dict[str, Any]]:
    """Say two things, end the input, and return what is said back, and how it ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello")
    await asyncio.sleep(5)
    process.stdin.write(b" you")
    process.stdin.close()
    out = await everything(process.stdout)
    err = await everything(process.stderr) if process.stderr is not None else b""
    return out, err, json.loads(await everything(process.status))


async def everything(stream: Connection) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_exec_over_spdy() -> None:
    async with world() as w:
        status, connection = await w.spdy(EXEC)
        assert status == 101
        assert connection is not None
        wanted = Wanted(stdin=True, stdout=True, stderr=True)
        async with SpdySession(connection, client=True) as session:
            process = await open_over_spdy(session, wanted)
            out, err, ended = await talk(process)
        assert (out, err) == (b"shout it\nHELLO YOU", b"")
        assert ended == {"metadata": {}, "status": "Success"}
        [run] = w.agent.processes
        await until(lambda: run.closed)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.1)


async def test_the_exit_code_is_a_status() -> None:
    async with world() as w:
        _, connection = await w.spdy(f"{PODS}/solo/exec?command=fail&command=3&stdout=1&stderr=1")
        assert connection is not None
        async with SpdySession(connection, client=True) as session:
            process = await open_over_spdy(session, Wanted(stdout=True, stderr=True))
            assert process.stderr is not None
            assert await everything(process.stderr) == b"bad luck\n"
            ended = json.loads(await everything(process.status))
        assert ended["reason"] == "NonZeroExitCode"
        assert ended["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_over_websocket_is_translated(protocol: str) -> None:
    async with world() as w:
        websocket = await w.websocket(EXEC, protocol)
        assert websocket.subprotocol == protocol
        await websocket.send(b"\x00hello")
        await asyncio.sleep(5)
        channels = {1: b"", 2: b"", 3: b""}
        if protocol.startswith("v5"):
            await websocket.send(b"\xff\x00")
        while len(channels[1]) < len(b"shout it\nHELLO"):
            message = await websocket.receive()
            assert isinstance(message, bytes)
            channels[message[0]] += message[1:]
        assert channels[1] == b"shout it\nHELLO"
        if protocol.startswith("v5"):
            while not channels[3]:
                message = await websocket.receive()
                assert isinstance(message, bytes)
                channels[message[0]] += message[1:]
            assert json.loads(channels[3])["status"] == "Success"
            assert await websocket.receive() is None
        websocket.abort()
        await until(lambda: w.agent.processes[0].closed)


async def test_exec_over_base64_websocket() -> None:
    async with world() as w:
        path = f"{PODS}/solo/exec?command=fail&command=1&stdout=1&stderr=1"
        websocket = await w.websocket(path, "base64.channel.k8s.io")
        messages = []
        while (message := await websocket.receive()) is not None:
            messages.append(message)
        assert "1ZmFpbCAxCg==" in messages  # "fail 1\n" on channel 1
        assert messages[-1].startswith("3")  # type: ignore[arg-type]  # text in this protocol
        websocket.abort()


async def test_a_terminal_is_resized() -> None:
    async with world() as w:
        websocket = await w.websocket(EXEC + "&tty=1", "v5.channel.k8s.io")
        await websocket.send(b'\x04{"Width":80,"Height":24}\n{"Wid')
        await websocket.send(b'\x04th":100,"Height":50}')
        await until(lambda: any(len(process.sizes) == 2 for process in w.agent.processes))
        assert w.agent.processes[0].sizes == [(80, 24), (100, 50)]
        websocket.abort()


async def test_a_client_that_leaves_takes_its_exec_with_it() -> None:
    for leave in ("spdy", "websocket"):
        async with world() as w:
            if leave == "spdy":
                _, connection = await w.spdy(EXEC)
                assert connection is not None
                async with SpdySession(connection, client=True) as session:
                    await open_over_spdy(session, Wanted(stdin=True, stdout=True, stderr=True))
                    assert not w.agent.processes[0].closed
            else:
                websocket = await w.websocket(EXEC, "v5.channel.k8s.io")
                await websocket.receive()
                websocket.abort()
            await until(lambda: w.agent.processes[0].closed)  # waited for in the loop


async def test_a_kubelet_that_cannot_be_reached_is_an_internal_error() -> None:
    async with world() as w:
        w.unreachable = True
        code, message = await w.refusal(f"{PODS}/solo/log")
        assert code == 500
        assert message == "Internal error occurred: error dialing backend: connection refused"
        assert (await w.spdy(EXEC))[0] == 500
        websocket = await w.websocket(EXEC, "v5.channel.k8s.io")
        message_3 = await websocket.receive()
        assert isinstance(message_3, bytes)
        assert message_3[0] == 3
        assert json.loads(message_3[1:])["message"] == message
        websocket.abort()


async def test_what_cannot_be_upgraded_is_refused() -> None:
    async with world() as w:
        assert await w.refusal(EXEC) == (400, "Upgrade request required")
        assert (await w.spdy(EXEC, "v9.channel.k8s.io"))[0] == 403
        assert (await w.spdy(f"{PODS}/solo/exec?command=x"))[0] == 400
        assert (await w.spdy(f"{PODS}/pending/exec?command=x&stdout=1"))[0] == 400
        assert (await w.spdy(f"{PODS}/gone/exec?command=x&stdout=1"))[0] == 404
        assert not w.agent.processes


# Port-forward and proxies


async def test_ports_are_forwarded_over_spdy() -> None:
    async with world() as w:
        _, connection = await w.spdy(f"{PODS}/solo/portforward", "portforward.k8s.io")
        assert connection is not None
        await forward_twice(connection)


async def test_ports_are_forwarded_through_a_websocket_tunnel() -> None:
    async with world() as w:
        path = f"{PODS}/solo/portforward"
        websocket = await w.websocket(path, "SPDY/3.1+portforward.k8s.io")
        await forward_twice(WebSocketConnection(websocket))


async def forward_twice(connection: Connection) -> None:
    """A megabyte there and back on one port, and a port where nobody listens."""
    async with SpdySession(connection, client=True) as session:

        async def open_port(port: int, request_id: int) -> tuple[Connection, Connection]:
            fields = [("port", str(port)), ("requestid", str(request_id))]
            error = await session.open([("streamtype", "error"), *fields])
            error.write_eof()
            return await session.open([("streamtype", "data"), *fields]), error

        data, error = await open_port(7, 0)

        async def send() -> None:
            data.write(MEGABYTE)
            await data.drain()
            data.write_eof()  # type: ignore[attr-defined]  # a SpdyStream

        sending = asyncio.ensure_future(send())
        assert await everything(data) == MEGABYTE
        await sending
        assert await everything(error) == b""
        data, error = await open_port(9, 1)
        text = b"error forwarding port 9 to pod solo, uid u2: connection refused"
        assert await everything(error) == text
        assert await everything(data) == b""


async def test_pods_services_and_nodes_are_proxied() -> None:
    async with world() as w:
        assert await w.get(f"{PODS}/web:80/proxy/a/b%20c?d=e") == (
            200,
            b"GET /a/b%20c?d=e HTTP/1.1 forwarded",
        )
        services = "/api/v1/namespaces/default/services"
        for name in ("web", "web:http", "web:8080", "http:web:http"):
            assert await w.get(f"{services}/{name}/proxy/x") == (
                200,
                b"GET /x HTTP/1.1 forwarded",
            )
        assert (await w.refusal(f"{services}/web:nope/proxy/x"))[0] == 503
        status, body = await w.get("/api/v1/nodes/n1/proxy/pods")
        assert (status, json.loads(body)["items"][0]["metadata"]["name"]) == (200, "web")
        assert (await w.get("/api/v1/nodes/n1/proxy/nothing"))[0] == 404
        assert await w.get("/api/v1/nodes/n1:10250/proxy/healthz") == (200, b"ok")
        assert (await w.get("/api/v1/nodes/n1/proxy"))[0] == 301
        assert (await w.refusal(f"{PODS}/web:9/proxy/x"))[0] == 503


# kubectl


def kubectls() -> list[Any]:
    """Every kubectl of this machine, by version."""
    found = shutil.which("kubectl")
    if found is None:
        return [pytest.param("", marks=pytest.mark.skip(reason="no kubectl here"))]
    real = Path(found).resolve()
    versioned = sorted(real.parent.glob("kubectl.1.*"))
    return [pytest.param(str(path), id=path.name) for path in versioned or [real]]


class Kubectl:
    def __init__(self, path: str, port: int, home: Path, seen: set[str]) -> None:
        # What it asked for and over which protocol: "exec websocket".
        self.seen = seen
        self._command = [path, f"--server=http://127.0.0.1:{port}", f"--cache-dir={home}"]
        self._env = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": "/dev/null"}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=self._env
        )

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        process = await self.start(*arguments)
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out, err.decode()


@asynccontextmanager
async def real_world(path: str, home: Path) -> AsyncIterator[Kubectl]:
    seen: set[str] = set()

    async with world(real=True) as w:

        async def handle(request: Request) -> Response:
            if request.upgrade_protocol:
                seen.add(f"{request.path.rpartition('/')[2]} {request.upgrade_protocol}")
            return await w.api.handle(request)

        async with serve(handle) as server:
            yield Kubectl(path, server.addresses[0][1], home, seen)


@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.parametrize("path", kubectls())
async def test_kubectl(path: str, tmp_path: Path) -> None:
    """exec, attach, cp, port-forward and logs: a megabyte both ways stays intact."""
    seen = await use_everything(path, tmp_path)
    if (minor := path.rpartition(".")[2]).isdecimal():
        process = "websocket" if int(minor) >= 30 else "spdy/3.1"
        forward = "websocket" if int(minor) >= 31 else "spdy/3.1"
        # A refusal makes it try again with SPDY, to learn what the refusal says.
        seen -= {"exec spdy/3.1"} - {f"exec {process}"}
        assert seen == {f"exec {process}", f"attach {process}", f"portforward {forward}"}


async def use_everything(path: str, tmp_path: Path) -> set[str]:
    async with real_world(path, tmp_path) as kubectl:
        code, out, err = await kubectl("exec", "-i", "solo", "--", "cat", stdin=MEGABYTE)
        assert (code, err) == (0, "")
        assert out == MEGABYTE
        script = "echo out; echo err >&2; exit 7"
        code, out, err = await kubectl("exec", "solo", "--", "sh", "-c", script)
        assert (code, out) == (7, b"out\n")
        assert err == "err\ncommand terminated with exit code 7\n"
        assert (
            "container nope is not valid for pod solo"
            in (await kubectl("exec", "solo", "-c", "nope", "--", "true"))[2]
        )
        assert (await kubectl("attach", "-i", "solo", stdin=b"typed"))[1].startswith(b"typed")
        assert await kubectl("logs", "solo") == (0, b"line 0\nline 1\nline 2\n", "")
        message = 'container "side" in pod "web" is waiting to start: ContainerCreating'
        assert message in (await kubectl("logs", "web", "-c", "side"))[2]

        source, there, back = (tmp_path / name for name in ("source", "there", "back"))
        source.write_bytes(MEGABYTE)
        assert await kubectl("cp", str(source), f"solo:{there}") == (0, b"", "")
        assert there.read_bytes() == MEGABYTE
        code, _, err = await kubectl("cp", f"solo:{there}", str(back))
        assert code == 0, err
        assert back.read_bytes() == MEGABYTE
        await forward_with(kubectl)
        return kubectl.seen


async def forward_with(kubectl: Kubectl) -> None:
    process = await kubectl.start("port-forward", "pod/solo", ":7")
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        assert line, (await process.communicate())[1]
        port = int(line.split("127.0.0.1:")[1].split()[0])
        for _ in range(2):
            assert await echoed(port) == hashlib.sha256(MEGABYTE).digest()
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def echoed(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(MEGABYTE)

        async def receive() -> bytes:
            return await reader.readexactly(len(MEGABYTE))

        receiving = asyncio.ensure_future(receive())
        await writer.drain()
        return hashlib.sha256(await asyncio.wait_for(receiving, 20)).digest()
    finally:
        writer.close()
        await asyncio.sleep(0)
