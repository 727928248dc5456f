"""Connections to simulated pods, for probes, proxies and port-forwards.

A pod's address is answered by its running containers: by the one whose script claims the port, else
by the first that claims no ports at all.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import ContainerState
from pybernetes.kubelet.runtime.simulated_process import is_ready
from pybernetes.kubelet.runtime.simulated_stream import SimulatedConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pybernetes.aio.clock import Clock
    from pybernetes.kubelet.runtime.simulated_state import Container, Sandbox


class SimulatedNetwork:
    """The `PodNetwork` of a simulated runtime."""

    def __init__(
        self,
        sandbox_at: Callable[[str], Sandbox | None],
        refresh: Callable[[Container], None],
        clock: Clock,
    ) -> None:
        self._sandbox_at = sandbox_at
        self._refresh = refresh
        self._clock = clock

    async def connect(self, host: str, port: int) -> SimulatedConnection:
        return self.connect_to(self._find(host), port)

    def connect_to(self, sandbox: Sandbox, port: int) -> SimulatedConnection:
        container = self._listener(sandbox, port)
        return SimulatedConnection(lambda path: self._get(container, port, path))

    async def http_get(
        self, host: str, port: int, path: str, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[int, bytes]:
        return self._get(self._listener(self._find(host), port), port, path)

    async def grpc_health(self, host: str, port: int, service: str = "") -> bool:
        container = self._listener(self._find(host), port)
        serving = container.script.grpc_serving
        return is_ready(container, self._clock.now()) if serving is None else serving

    def _find(self, host: str) -> Sandbox:
        sandbox = self._sandbox_at(host)
        if sandbox is None:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return sandbox

    def _listener(self, sandbox: Sandbox, port: int) -> Container:
        running = [
            container
            for container in sandbox.containers.values()
            if container.state is ContainerState.RUNNING
        ]
        for container in running:
            self._refresh(container)
        for container in running:
            if port in (container.script.ports or ()):
                return container
        for container in running:
            if container.script.ports is None:
                return container
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    def _get(self, container: Container, port: int, path: str) -> tuple[int, bytes]:
        if container.script.http is not None:
            return container.script.http(port, path)
        if not is_ready(container, self._clock.now()):
            return 503, b"not ready\n"
        return 200, f"{container.sandbox.spec.name}\n".encode()


class SimulatedPorts:
    """The `PortStream` of one pod."""

    def __init__(self, network: SimulatedNetwork, sandbox: Sandbox) -> None:
        self._network = network
        self._sandbox = sandbox
        # Connections opened and not known to be closed.
        self._open: list[SimulatedConnection] = []

    async def connect(self, port: int) -> SimulatedConnection:
        connection = self._network.connect_to(self._sandbox, port)
        self._open.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()
