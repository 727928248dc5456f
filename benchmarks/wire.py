"""What the HTTP server costs: CPU per request, and memory and CPU per open watch.

    python benchmarks/wire.py            prints one JSON object

The server is this process, on one core; the client is a child on another. What
counts is the server's CPU time per operation, which is steady where rates are not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from typing import TYPE_CHECKING

from pybernetes.wire.channel import Channel
from pybernetes.wire.http import Request, Response
from pybernetes.wire.server import serve
from pybernetes.wire.tls import TlsEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAYLOAD = b'{"kind":"Pod","apiVersion":"v1","metadata":{' + b"x" * 2000 + b"}}"
EVENT = b'{"type":"MODIFIED","object":' + b"x" * 2000 + b"}\n"
GET = (
    b"GET /pod HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nUser-Agent: bench\r\n\r\n"
)
WATCH = GET.replace(b"/pod", b"/watch")


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_kb() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


class Watchers:
    """The API server's watch cache, reduced to its wake-ups: one event for every reader."""

    def __init__(self) -> None:
        self.count = 0
        self._version = 0
        self._waiters: list[asyncio.Future[None]] = []

    async def stream(self) -> AsyncIterator[bytes]:
        self.count += 1
        seen = self._version
        while True:
            while seen < self._version:
                seen += 1
                yield EVENT
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def publish(self) -> None:
        self._version += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set_result(None)


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    certificates = make_certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates)
    watchers = Watchers()

    async def handler(request: Request) -> Response:
        if request.path == "/watch":
            return Response(200, [("Content-Type", "application/json")], watchers.stream())
        return Response(200, [("Content-Type", "application/json")], PAYLOAD)

    figures: dict[str, float] = {}
    async with serve(handler, tls=context) as server:
        port = server.addresses[0][1]
        for connections in (1, 4, 32):
            client = spawn("requests", port, connections, arguments.seconds)
            await asyncio.sleep(0.7)
            cpu, count, start = cpu_seconds(), server.statistics()["requests"], time.monotonic()
            await asyncio.sleep(arguments.seconds - 0.2)
            cpu, count = cpu_seconds() - cpu, server.statistics()["requests"] - count
            figures[f"get_cpu_us_{connections}"] = round(cpu / count * 1e6, 1)
            figures[f"get_per_second_{connections}"] = round(count / (time.monotonic() - start))
            client.stdin.close()  # type: ignore[union-attr]
            await asyncio.to_thread(client.wait)
        gc.collect()
        before, cpu = rss_kb(), cpu_seconds()
        client = spawn("watches", port, arguments.watches, 0)
        while watchers.count < arguments.watches:  # noqa: ASYNC110  # a benchmark may poll
            await asyncio.sleep(0.05)
        figures["watch_accept_cpu_us"] = round((cpu_seconds() - cpu) / arguments.watches * 1e6)
        await asyncio.sleep(0.5)
        figures["watch_rss_kb"] = round((rss_kb() - before) / arguments.watches, 1)
        cpu = cpu_seconds()
        for _ in range(arguments.events):
            watchers.publish()
            await asyncio.sleep(0.1)
        cpu = cpu_seconds() - cpu
        figures["watch_event_cpu_us"] = round(cpu / arguments.events / arguments.watches * 1e6, 1)
        figures["watch_rss_kb_after_events"] = round((rss_kb() - before) / arguments.watches, 1)
        cpu = cpu_seconds()
        await asyncio.sleep(1)
        figures["watch_idle_cpu_ms_per_second"] = round((cpu_seconds() - cpu) * 1000, 2)
        start = time.monotonic()
    figures["stop_seconds"] = round(time.monotonic() - start, 2)
    client.stdin.close()  # type: ignore[union-attr]
    client.wait()
    return figures


def make_certificate() -> tuple[str, str]:
    directory = tempfile.mkdtemp()
    paths = f"{directory}/c.pem", f"{directory}/k.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    subprocess.run(
        [*command.split(), "-subj", "/CN=localhost", "-out", paths[0], "-keyout", paths[1]],
        check=True,
        capture_output=True,
    )
    return paths


def spawn(what: str, port: int, connections: int, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, "--client", what, str(port), str(connections), str(seconds)],
        stdin=subprocess.PIPE,
    )


class Asking:
    """A client that asks again as soon as it has an answer; it only counts bytes."""

    def __init__(self, request: bytes, *, again: bool) -> None:
        self._request, self._again = request, again
        self._missing = 0
        self._size = 0
        self.channel: Channel | None = None

    def on_open(self) -> None:
        assert self.channel is not None
        self.channel.write(self._request)

    def on_data(self, data: memoryview) -> None:
        if not self._again:
            return
        if not self._size:  # Every answer is as long as the first.
            head, _, _ = bytes(data).partition(b"\r\n\r\n")
            self._size = self._missing = len(head) + 4 + len(PAYLOAD)
        self._missing -= len(data)
        if self._missing <= 0:
            self._missing = self._size
            self.on_open()

    def on_eof(self) -> None:
        assert self.channel is not None
        self.channel.close()

    def on_lost(self, error: Exception | None) -> None:
        pass


def never_sleep(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(never_sleep, loop)


async def drive(what: str, port: int, connections: int, seconds: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    channels = []
    for _ in range(connections):
        asking = Asking(GET if what == "requests" else WATCH, again=what == "requests")
        asking.channel = Channel(asking, tls=TlsEngine(context, server_side=False))
        channels.append(asking.channel)
        await loop.create_connection(lambda c=asking.channel: c, "127.0.0.1", port)  # type: ignore[misc]
    if what == "requests":
        # A client that sleeps has to be woken, which in a virtual machine costs the
        # server more than all the rest of the request and says nothing about it.
        loop.call_soon(never_sleep, loop)
    await asyncio.to_thread(sys.stdin.read)
    for channel in channels:
        channel.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--watches", type=int, default=1000)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    # The server on the first core, the client on the last.
    cores = range(os.cpu_count() or 1)
    os.sched_setaffinity(0, {cores[-1] if arguments.client else cores[0]})
    if arguments.client:
        what, port, connections, seconds = arguments.client
        asyncio.run(drive(what, int(port), int(connections), float(seconds)))
    else:
        print(json.dumps(asyncio.run(measure(arguments)), indent=2))


if __name__ == "__main__":
    main()
