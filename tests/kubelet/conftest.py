"""One node. Real: the kubelet and the API server. Fake: the containers (simulated runtime).

Nothing binds pods here: tests create them with a node name. Time is virtual.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.core_v1 import Event, Namespace, Pod
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.server import ApiServer
from pybernetes.client import Caches, Client, EventWriter
from pybernetes.kubelet import Kubelet, KubeletConfig
from pybernetes.kubelet.runtime.simulated import SimulatedRuntime
from pybernetes.storage.memory import MemoryStore
from pybernetes.testing.builders import pod as build_pod
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random
    from typing import Any

    from pybernetes.aio.clock import Clock

NODE = "node-1"


class Node:
    """A node under test, and shorthands for what tests ask."""

    def __init__(
        self, client: Client, runtime: SimulatedRuntime, clock: Clock, random: Random
    ) -> None:
        self.client, self.runtime, self.clock, self.random = client, runtime, clock, random
        self.config = KubeletConfig(node_name=NODE, addresses=("192.0.2.7",))
        self.kubelet: Kubelet | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Kubelet]:
        """A kubelet, from its start to its death; what it ran stays in the runtime."""
        caches = Caches(self.client, random=self.random, lifetime=None)
        events = EventWriter(self.client, clock=self.clock, random=self.random)
        self.kubelet = Kubelet(
            self.client,
            caches,
            self.runtime,
            self.config,
            self.clock,
            self.random,
            events.recorder("kubelet", host=NODE),
        )
        tasks = [
            asyncio.create_task(work) for work in (caches.run(), events.run(), self.kubelet.run())
        ]
        try:
            yield self.kubelet
            await settled()
            self.kubelet.check_invariants()
        finally:
            for task in reversed(tasks):
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def create(self, name: str = "web", namespace: str = "default", **fields: Any) -> Pod:
        return await self.client.create(build_pod(name, namespace, node=NODE, **fields))

    async def get(self, name: str = "web", namespace: str = "default") -> Pod:
        await settled()
        return await self.client.get(Pod, name, namespace)

    async def is_gone(self, name: str = "web", namespace: str = "default") -> bool:
        await settled()
        try:
            await self.client.get(Pod, name, namespace)
        except NotFound:
            return True
        return False

    async def events(self, name: str = "web", namespace: str = "default") -> list[str]:
        """ "Reason: message" of what was said about an object, oldest first."""
        await settled()
        found = (await self.client.list(Event, namespace)).items
        mine = [event for event in found if event.involved_object.name == name]
        mine.sort(key=lambda event: int(event.metadata.name.rpartition(".")[2], 16))
        return [f"{event.reason}: {event.message}" for event in mine]


@pytest.fixture
async def client(clock: Clock, random: Random) -> AsyncIterator[Client]:
    async with ApiServer(MemoryStore(), clock, random) as server:
        client = Client(MemoryHttpClient(server.handle))
        for name in ("default", "kube-system", "kube-node-lease"):
            await client.create(Namespace(metadata=ObjectMeta(name=name)))
        yield client


@pytest.fixture
async def node(client: Client, clock: Clock, random: Random) -> AsyncIterator[Node]:
    runtime = SimulatedRuntime(clock, random)
    yield Node(client, runtime, clock, random)
    runtime.check_invariants()


@pytest.fixture
async def kubelet(node: Node) -> AsyncIterator[Kubelet]:
    async with node.running() as kubelet:
        yield kubelet
