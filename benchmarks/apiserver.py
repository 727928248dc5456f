"""What the API server costs: CPU per request, per list of 10,000 pods, per watch event.

    python -m benchmarks.apiserver       prints one JSON object

Twice: `handler` calls the chain in this process, without sockets; `tls` serves real
clients, which are a child process on another core. What counts is the CPU time of the
server's process. The store is in memory and everybody is allowed everything, so this is
the server itself; the pods have 3 KB and are real ones, validated by the registry.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import ssl
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.wire import Asking, cpu_seconds, make_certificate, rss_kb
from pybernetes.aio.clock import SystemClock
from pybernetes.apiserver import ApiServer
from pybernetes.storage import MemoryStore
from pybernetes.wire.channel import Channel
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import Body, Headers, Peer, Request, Response
from pybernetes.wire.server import serve
from pybernetes.wire.tls import TlsEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

NAMESPACES = 20
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
MERGE = "application/merge-patch+json"
_PEER = Peer(address="benchmark")


def pod(name: str) -> dict[str, Any]:
    """A pod as a ReplicaSet of a middling web application makes it."""
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    container = {
        "image": "registry.example/app:v1.2.3",
        "args": ["--listen=:8080", "--verbose"],
        "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(10)],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "200m", "memory": "256Mi"},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "livenessProbe": probe,
        "readinessProbe": probe,
    }
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web-6b7d9f7c5d",
        "uid": "8d5b5b6e-0000-4000-8000-000000000001",
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "web", "tier": "front", "pod-template-hash": "6b7d9f7c5d"},
            "annotations": {"prometheus.io/scrape": "true", "note": "x" * 200},
            "ownerReferences": [owner],
        },
        "spec": {
            "containers": [{**container, "name": "main"}, {"name": "side", "image": "side:1"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "serviceAccountName": "default",
        },
    }


def path_of(number: int, *, name: bool = True) -> str:
    path = f"/api/v1/namespaces/ns-{number % NAMESPACES}/pods"
    return f"{path}/p-{number}" if name else path


def request(
    method: str, target: str, body: bytes = b"", *, accept: str = "", content_type: str = ""
) -> Request:
    path, _, query = target.partition("?")
    fields = [
        ("accept", accept or "application/json"),
        ("user-agent", "benchmark"),
        ("content-type", content_type or "application/json"),
    ]
    return Request(method, path, query, Headers.of_lowered(fields), Body(body), _PEER)


async def size_of(response: Response) -> int:
    """Read the whole body as a socket would take it, piece by piece."""
    if isinstance(response.body, bytes):
        return len(response.body)
    size = 0
    if hasattr(response.body, "__aiter__"):
        async for piece in response.body:
            size += len(piece)
    return size


async def cost(count: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Seconds of CPU per call."""
    before = cpu_seconds()
    for number in range(count):
        await work(number)
    return (cpu_seconds() - before) / count


def micro(seconds: float) -> float:
    return round(seconds * 1e6, 1)


def milli(seconds: float) -> float:
    return round(seconds * 1e3, 2)


# -- without sockets


async def measure_handler(server: ApiServer, pods: int, watches: int) -> dict[str, float]:
    bodies = [json.dumps(pod(f"p-{n}"), separators=(",", ":")).encode() for n in range(pods)]
    memory = rss_kb()

    async def create(number: int) -> None:
        answer = await server.handle(request("POST", path_of(number, name=False), bodies[number]))
        assert answer.status == 201, answer.body

    async def get(number: int) -> None:
        assert (await server.handle(request("GET", path_of(number % pods)))).status == 200

    async def patch(number: int) -> None:
        body = b'{"metadata":{"labels":{"turn":"%d"}}}' % number
        target = path_of(number % pods)
        answer = await server.handle(request("PATCH", target, body, content_type=MERGE))
        assert answer.status == 200, answer.body

    async def list_(query: str = "", accept: str = "") -> int:
        return await size_of(
            await server.handle(request("GET", f"/api/v1/pods{query}", accept=accept))
        )

    figures: dict[str, float] = {"create_cpu_us": micro(await cost(pods, create))}
    figures["memory_kb_per_pod"] = round((rss_kb() - memory) / pods, 2)
    figures["get_cpu_us"] = micro(await cost(20_000, get))
    figures["patch_cpu_us"] = micro(await cost(min(pods, 2000), patch))
    figures["list_bytes"] = await list_()
    figures["list_cpu_ms"] = milli(await cost(5, lambda n: list_()))
    figures["list_selector_cpu_ms"] = milli(
        await cost(5, lambda n: list_("?labelSelector=app%3Dweb,tier!%3Dback"))
    )
    figures["list_table_cpu_ms"] = milli(await cost(2, lambda n: list_(accept=TABLE)))
    figures["watch_event_cpu_us"] = micro(await fan_out(server, watches, patch))
    return figures


async def fan_out(
    server: ApiServer, watches: int, patch: Callable[[int], Awaitable[object]], events: int = 50
) -> float:
    """CPU per event and watcher, the write included."""
    received = 0

    async def follow(body: AsyncIterator[bytes]) -> None:
        nonlocal received
        async for _ in body:
            received += 1

    target = f"/api/v1/pods?watch=1&resourceVersion={server.store.revision}"
    answers = [await server.handle(request("GET", target)) for _ in range(watches)]
    tasks = [
        asyncio.create_task(follow(answer.body))  # type: ignore[arg-type]  # a watch is a stream
        for answer in answers
    ]
    before = cpu_seconds()
    for number in range(events):
        await patch(10_000_000 + number)
        while received < (number + 1) * watches:  # noqa: ASYNC110  # what is waited for costs nothing
            await asyncio.sleep(0)
    used = cpu_seconds() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return used / (events * watches)


# -- over TLS


async def measure_tls(server: ApiServer, pods: int, watches: int) -> dict[str, float]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate())
    figures: dict[str, float] = {}
    async with serve(server.handle, tls=context) as listening:
        port = listening.addresses[0][1]

        async def driven(what: str, count: int) -> float:
            """Seconds of our CPU per request, without connecting."""
            client = await spawn(what, port, count)
            assert client.stdout is not None
            assert client.stdin is not None
            await client.stdout.readline()
            before = cpu_seconds()
            client.stdin.close()
            await client.stdout.readline()
            used = cpu_seconds() - before
            assert await client.wait() == 0
            return used / count

        figures["get_cpu_us"] = micro(await driven("get", 10_000))
        figures["create_cpu_us"] = micro(await driven("create", 3000))
        figures["list_cpu_ms"] = milli(await driven("list", 4))
        figures["watch_event_cpu_us"] = micro(await tls_fan_out(server, port, watches, pods))
    return figures


async def tls_fan_out(
    server: ApiServer, port: int, watches: int, pods: int, events: int = 20
) -> float:
    client = await spawn("watch", port, watches)
    cache = server.catalog.caches["pods"]
    while cache.dispatcher.watchers < watches:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    before = cpu_seconds()
    for number in range(events):
        body = b'{"metadata":{"labels":{"turn":"t%d"}}}' % number
        target = path_of(number % pods)
        answer = await server.handle(request("PATCH", target, body, content_type=MERGE))
        assert answer.status == 200, answer.body
        await asyncio.sleep(0.1)
    used = cpu_seconds() - before
    assert client.stdin is not None
    client.stdin.close()
    await client.wait()
    return used / (events * watches)


async def spawn(what: str, port: int, count: int) -> asyncio.subprocess.Process:
    arguments = ("-m", "benchmarks.apiserver", "--client", what, str(port), str(count))
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


# -- the child


async def drive(what: str, port: int, count: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if what == "watch":
        await hold_watches(context, port, count)
        return
    connections = 1 if what == "list" else 8
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(HttpClient(f"https://127.0.0.1:{port}", tls=context))
            for _ in range(connections)
        ]
        for client in clients:
            await (await client.request("GET", "/version")).read()
        print("connected", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        each = count // connections
        await asyncio.gather(
            *(ask(client, what, number * each, each) for number, client in enumerate(clients))
        )
        print("done", flush=True)


async def ask(client: HttpClient, what: str, first: int, count: int) -> None:
    for number in range(first, first + count):
        if what == "create":
            body = json.dumps(pod(f"tls-{number}"), separators=(",", ":")).encode()
            headers = [("Content-Type", "application/json")]
            answer = await client.request(
                "POST", path_of(number, name=False), headers=headers, body=body
            )
        elif what == "list":
            answer = await client.request("GET", "/api/v1/pods")
        else:
            answer = await client.request("GET", path_of(number % 1000))
        assert answer.status in (200, 201)
        async for _ in answer:
            pass


async def hold_watches(context: ssl.SSLContext, port: int, count: int) -> None:
    query = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
    head = f"GET /api/v1/pods?{query} HTTP/1.1\r\nHost: localhost\r\n"
    asked = f"{head}Accept: application/json\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    channels = []
    for _ in range(count):
        asking = Asking(asked, again=False)
        channel = asking.channel = Channel(asking, tls=TlsEngine(context, server_side=False))
        channels.append(channel)
        await loop.create_connection(lambda c=channel: c, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.to_thread(sys.stdin.read)
    for channel in channels:
        channel.abort()


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    async with ApiServer(MemoryStore(), SystemClock(), random.Random(1)) as server:
        return {
            "start_ms": milli(time.monotonic() - started),
            "pods": arguments.pods,
            "watches": arguments.watches,
            "handler": await measure_handler(server, arguments.pods, arguments.watches),
            "tls": await measure_tls(server, arguments.pods, arguments.watches),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apiserver", description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--watches", type=int, default=1000)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1] if arguments.client else cores[0]})
    if arguments.client:
        what, port, count = arguments.client
        asyncio.run(drive(what, int(port), int(count)))
    else:
        print(json.dumps(asyncio.run(measure(arguments)), indent=2))


if __name__ == "__main__":
    main()
