"""An API server and the controllers that a test starts.

Real: API server (anybody may do anything), caches, controllers. Nothing schedules or runs pods.
Time is virtual.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.core_v1 import Namespace
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apiserver import ApiServer
from pybernetes.client import Caches, Client, EventWriter, kind_of
from pybernetes.controllers import ControllerContext, run_controllers
from pybernetes.storage import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.controllers import Controller, SelfRunning


class World:
    """A server and its controllers, and shorthands for what tests ask."""

    def __init__(
        self, client: Client, tasks: asyncio.TaskGroup, clock: Clock, random: Random
    ) -> None:
        self.client, self.clock, self._tasks = client, clock, tasks
        caches = Caches(client, random=random, lifetime=None)
        events = EventWriter(client, clock=clock, random=random)
        self.context = ControllerContext(
            client_for=lambda name: client,
            caches=caches,
            clock=clock,
            random=random,
            recorder_for=events.recorder,
        )
        self._running = [tasks.create_task(caches.run()), tasks.create_task(events.run())]

    def run(self, *makers: Callable[[ControllerContext], Controller | SelfRunning]) -> None:
        """Start these controllers."""
        self._running.append(self._tasks.create_task(run_controllers(self.context, makers)))

    async def names(self, kind: Any, namespace: str = "default") -> list[str]:
        """Of all objects of a kind, sorted."""
        await settled()
        where = namespace if kind_of(kind).namespaced else ""
        return sorted(obj.metadata.name for obj in (await self.client.list(kind, where)).items)

    def stop(self) -> None:
        for task in self._running:
            task.cancel()


@pytest.fixture
async def world(clock: Clock, random: Random) -> AsyncIterator[World]:
    async with ApiServer(MemoryStore(clock=clock), clock, random) as server:
        client = Client(MemoryHttpClient(server.handle))
        for name in ("default", "kube-system", "kube-node-lease"):
            await client.create(Namespace(metadata=ObjectMeta(name=name)))
        async with asyncio.TaskGroup() as tasks:
            world = World(client, tasks, clock, random)
            try:
                yield world
            finally:
                world.stop()
