"""Simulated nodes: the real node agent over scripted containers, any number of them.

No root and no container runtime is needed: what runs is the agent, its workers, probes and status,
on a runtime whose containers are records. Learners, tests and benchmarks use it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from pybernetes.api.user import NODES, UserInfo
from pybernetes.cluster.nodelinks import authenticate, authorize
from pybernetes.kubelet import Kubelet, KubeletConfig
from pybernetes.kubelet.runtime.simulated import SimulatedRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pybernetes.cluster.controlplane import ControlPlane

NODE_PREFIX = 24
POD_NETWORK = IPv4Network("10.244.0.0/16")


class SimulatedNodes:
    """The simulated nodes of one control plane; they come and go while it runs."""

    def __init__(
        self,
        plane: ControlPlane,
        tasks: asyncio.TaskGroup,
        *,
        pod_network: IPv4Network,
        cluster_domain: str = "cluster.local",
        dns_address: str = "",
    ) -> None:
        self._plane, self._tasks = plane, tasks
        self._ranges = list(pod_network.subnets(new_prefix=max(NODE_PREFIX, pod_network.prefixlen)))
        self._cluster_domain, self._dns_address = cluster_domain, dns_address
        # By the name of the node.
        self.runtimes: dict[str, SimulatedRuntime] = {}
        self.kubelets: dict[str, Kubelet] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def add(self, name: str, *, config: KubeletConfig | None = None) -> SimulatedRuntime:
        """A new node; its runtime, by which a test moves its world."""
        plane, number = self._plane, len(self.runtimes)
        pods = self._ranges[number % len(self._ranges)]
        runtime = self.runtimes.get(name) or SimulatedRuntime(
            plane.clock, plane.random, pod_cidr=str(pods)
        )
        self.runtimes[name] = runtime
        config = config or KubeletConfig(
            node_name=name,
            addresses=(node_address(number),),
            cluster_dns=(self._dns_address,) if self._dns_address else (),
            cluster_domain=self._cluster_domain,
        )
        kubelet = Kubelet(
            plane.client_as(UserInfo(f"system:node:{name}", (NODES,))),
            plane.caches,
            runtime,
            config,
            plane.clock,
            plane.random,
            plane.recorder("kubelet", host=name),
        )
        self.kubelets[name] = kubelet
        # Called directly: nothing must ever be sent to the address of a simulated node.
        server = kubelet.server(authenticate=authenticate, authorize=authorize)
        plane.links.add(name, server.handle)
        self._running[name] = self._tasks.create_task(kubelet.run(), name=f"kubelet {name}")
        return runtime

    async def stop(self, name: str) -> None:
        """The agent of the node dies; its containers go on. `add` brings it back."""
        self._plane.links.remove(name)
        task = self._running.pop(name)
        task.cancel()
        await asyncio.wait([task])

    def names(self) -> Sequence[str]:
        return list(self._running)

    def stop_all(self) -> None:
        for task in self._running.values():
            task.cancel()


@asynccontextmanager
async def simulated_nodes(
    plane: ControlPlane,
    count: int,
    *,
    pod_network: IPv4Network = POD_NETWORK,
    cluster_domain: str = "cluster.local",
    dns_address: str = "",
) -> AsyncIterator[SimulatedNodes]:
    """Run that many nodes, called `node-0` and so on, while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        nodes = SimulatedNodes(
            plane,
            tasks,
            pod_network=pod_network,
            cluster_domain=cluster_domain,
            dns_address=dns_address,
        )
        for number in range(count):
            nodes.add(f"node-{number}")
        try:
            yield nodes
        finally:
            nodes.stop_all()


def node_address(number: int) -> str:
    """Of the range that RFC 2544 sets aside for tests: nothing is ever sent there."""
    return str(IPv4Network("198.19.0.0/16")[number + 1])
