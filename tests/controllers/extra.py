"""Shorthands: controllers with other settings beside those of the cluster, and what tests ask."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pybernetes.controllers import ControllerContext, ControllerOptions, run_controllers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pybernetes.testing import Cluster


def context_of(cluster: Cluster, **options: Any) -> ControllerContext:
    """What controllers of this cluster are given; `options` are those of ControllerOptions."""
    plane = cluster.plane
    return ControllerContext(
        client_for=plane.controller_client,
        caches=plane.caches,
        clock=plane.clock,
        random=plane.random,
        recorder_for=plane.recorder,
        options=ControllerOptions(**options),
    )


@asynccontextmanager
async def running(
    cluster: Cluster, *controllers: Callable[[ControllerContext], Any], **options: Any
) -> AsyncIterator[None]:
    """More controllers, while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run_controllers(context_of(cluster, **options), controllers))
        await cluster.settled()
        yield
        task.cancel()


async def names(cluster: Cluster, kind: type[Any], namespace: str = "") -> list[str]:
    """Of all objects of a kind, sorted."""
    await cluster.settled()
    return sorted(obj.metadata.name for obj in (await cluster.client.list(kind, namespace)).items)


async def said_of(cluster: Cluster, name: str) -> list[str]:
    """ "Reason: message" of the events about an object of that name."""
    return [f"{event.reason}: {event.message}" for event in await cluster.events(name)]
