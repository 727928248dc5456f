"""Health checks for load balancers: does this node have an endpoint of that Service?

A Service of type LoadBalancer with externalTrafficPolicy Local is given a port on which every
node tells the load balancer whether to send it anything; the answer is what kube-proxy says.

Rule: a port that cannot be opened costs only itself; it is logged, and tried again when the
Service changes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.wire.http import Response
from pybernetes.wire.server import serve

if TYPE_CHECKING:
    from pybernetes.apimachinery.meta import Key
    from pybernetes.wire.http import Request

log = logging.getLogger(__name__)


@dataclass(slots=True)
class HealthPorts:
    """What is to be answered where; written by the proxy, read by the servers."""

    # Port -> the Service, and how many endpoints it has on this node.
    answers: dict[int, tuple[Key, int]] = field(default_factory=dict)
    # Ports of each Service that has one.
    _port_of: dict[Key, int] = field(default_factory=dict)
    # A port came or went.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, service: Key, port: int, endpoints: int) -> None:
        before = self._port_of.get(service)
        if before != port:
            self.remove(service)
            self._port_of[service] = port
            self.changed.set()
        self.answers[port] = (service, endpoints)

    def remove(self, service: Key) -> None:
        port = self._port_of.pop(service, None)
        if port is not None:
            self.answers.pop(port, None)
            self.changed.set()

    def endpoints_of(self, service: Key) -> int | None:
        port = self._port_of.get(service)
        return None if port is None else self.answers[port][1]


def health_response(service: Key, endpoints: int) -> Response:
    """200 with at least one local endpoint, else 503."""
    body = {
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": True,
    }
    headers = [
        ("content-type", "application/json"),
        ("x-load-balancing-endpoint-weight", str(endpoints)),
    ]
    return Response(200 if endpoints else 503, headers, json.dumps(body).encode())


async def run_health_checks(ports: HealthPorts, address: str = "0.0.0.0") -> None:
    """Answer on exactly the ports there are, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        running: dict[int, asyncio.Task[None]] = {}
        while True:
            for port in running.keys() - ports.answers.keys():
                running.pop(port).cancel()
            for port in ports.answers.keys() - running.keys():
                running[port] = tasks.create_task(_answer(ports, address, port))
            await ports.changed.wait()
            ports.changed.clear()


async def _answer(ports: HealthPorts, address: str, port: int) -> None:
    async def handle(request: Request) -> Response:
        known = ports.answers.get(port)
        return Response(404, [], b"") if known is None else health_response(*known)

    try:
        async with serve(handle, host=address, port=port, drain_timeout=timedelta(seconds=1)):
            await asyncio.get_running_loop().create_future()
    except OSError as error:
        log.warning("cannot answer health checks on port %d: %s", port, error.strerror)
