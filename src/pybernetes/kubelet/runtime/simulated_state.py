"""What a simulated runtime holds: sandboxes, containers and addresses, as plain records."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import (
    ContainerRuntimeError,
    ContainerState,
    ContainerStatus,
    ContainerSummary,
    NamespaceMode,
    SandboxState,
    SandboxStatus,
    SandboxSummary,
)
from pybernetes.kubelet.runtime.labels import container_labels, pod_labels
from pybernetes.kubelet.runtime.script import PLAIN, Script

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from pybernetes.kubelet.runtime.interface import ContainerSpec, Resources, SandboxSpec
    from pybernetes.kubelet.runtime.simulated_stream import MemoryLog


@dataclass(slots=True, eq=False)
class Sandbox:
    id: str
    spec: SandboxSpec
    created_at: datetime
    address: int | None
    """None on the host's network, and after it was stopped."""
    ready: bool = True
    # By id, in the order they were created.
    containers: dict[str, Container] = field(default_factory=dict)

    @property
    def state(self) -> SandboxState:
        return SandboxState.READY if self.ready else SandboxState.NOT_READY

    @property
    def ip(self) -> str:
        return "" if self.address is None else str(ipaddress.ip_address(self.address))

    @property
    def labels(self) -> dict[str, str]:
        return {**self.spec.labels, **pod_labels(self.spec)}

    def summary(self) -> SandboxSummary:
        spec = self.spec
        return SandboxSummary(
            id=self.id,
            name=spec.name,
            namespace=spec.namespace,
            uid=spec.uid,
            attempt=spec.attempt,
            state=self.state,
            created_at=self.created_at,
            labels=self.labels,
            annotations=spec.annotations,
            runtime_handler=spec.runtime_handler,
        )

    def status(self) -> SandboxStatus:
        spec = self.spec
        return SandboxStatus(
            id=self.id,
            name=spec.name,
            namespace=spec.namespace,
            uid=spec.uid,
            attempt=spec.attempt,
            state=self.state,
            created_at=self.created_at,
            labels=self.labels,
            annotations=spec.annotations,
            runtime_handler=spec.runtime_handler,
            ips=(self.ip,) if self.ip else (),
            network=spec.security.namespaces.network,
        )

    @property
    def on_host_network(self) -> bool:
        return self.spec.security.namespaces.network is NamespaceMode.NODE


@dataclass(slots=True, eq=False)
class Container:
    id: str
    sandbox: Sandbox
    spec: ContainerSpec
    created_at: datetime
    image: str
    image_ref: str
    resources: Resources
    state: ContainerState = ContainerState.CREATED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    start_number: int = 0
    """How many containers of this pod and name started before it."""
    script: Script = PLAIN
    script_version: int = 0
    """The `Scripts.version` that `script` was made from."""
    log: MemoryLog | None = None
    # What will still happen to it: its end, its log lines, its being killed.
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    # Called when it ends: calls that wait for that, streams that are attached.
    on_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def labels(self) -> dict[str, str]:
        return {**self.spec.labels, **container_labels(self.spec, self.sandbox.spec)}

    @property
    def log_path(self) -> str:
        if not self.spec.log_path:
            return ""
        return f"{self.sandbox.spec.log_directory}/{self.spec.log_path}"

    def summary(self) -> ContainerSummary:
        return ContainerSummary(
            id=self.id,
            sandbox_id=self.sandbox.id,
            name=self.spec.name,
            attempt=self.spec.attempt,
            state=self.state,
            created_at=self.created_at,
            image=self.image,
            image_ref=self.image_ref,
            labels=self.labels,
            annotations=self.spec.annotations,
        )

    def status(self) -> ContainerStatus:
        return ContainerStatus(
            id=self.id,
            sandbox_id=self.sandbox.id,
            name=self.spec.name,
            attempt=self.spec.attempt,
            state=self.state,
            created_at=self.created_at,
            image=self.image,
            image_ref=self.image_ref,
            labels=self.labels,
            annotations=self.spec.annotations,
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
            log_path=self.log_path,
            resources=self.resources,
            mounts=self.spec.mounts,
        )


class AddressPool:
    """Addresses of one range, handed out in turn: an address rests as long as it can."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.ip_network(cidr)
        self.cidr = cidr
        # The first is the network, the second the gateway, the last the broadcast.
        self._first = int(network.network_address) + 2
        self._count = network.num_addresses - 3
        self._next = 0
        # Handed out and not released.
        self._used: set[int] = set()

    def take(self) -> int:
        if len(self._used) >= self._count:
            raise ContainerRuntimeError(
                f"failed to allocate for range 0: no IP addresses available in range set: {self.cidr}"
            )
        while True:
            address = self._first + self._next
            self._next = (self._next + 1) % self._count
            if address not in self._used:
                self._used.add(address)
                return address

    def release(self, address: int) -> None:
        self._used.discard(address)

    @property
    def used(self) -> frozenset[int]:
        return frozenset(self._used)


def labels_match(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return not wanted or all(labels.get(name) == value for name, value in wanted.items())
