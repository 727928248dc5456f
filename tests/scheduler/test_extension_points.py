"""Plugins from elsewhere, at the extension points around binding, in a scheduler of their own.

Real: API server, caches, the scheduler's loop. The plugins are made here. The cluster's own
scheduler leaves these pods alone, for they name another one.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.core_v1 import Pod
from pybernetes.apimachinery.errors import ServiceUnavailable
from pybernetes.scheduler.config import SchedulerConfig, default_config
from pybernetes.scheduler.reasons import Refusal
from pybernetes.scheduler.scheduler import Scheduler
from pybernetes.testing.builders import pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pybernetes.client import Client
    from pybernetes.scheduler.framework import Cycle
    from pybernetes.testing import Cluster

REFUSED = Refusal("Licences", "NoLicence", "no licence is left")


@dataclass
class Licences:
    """Takes part in everything around binding; refuses where it is told to."""

    name: str = "Licences"
    refuse_at: str = ""
    bind_failures: int = 0
    # What was called, in order.
    calls: list[str] = field(default_factory=list)

    def _said(self, point: str) -> Refusal | None:
        self.calls.append(point)
        return REFUSED if point == self.refuse_at else None

    def pre_filter(self, cycle: Cycle) -> Refusal | None:
        return self._said("pre_filter")

    def reserve(self, pod: Pod, node: str) -> Refusal | None:
        return self._said("reserve")

    def unreserve(self, pod: Pod, node: str) -> None:
        self.calls.append("unreserve")

    async def permit(self, pod: Pod, node: str) -> Refusal | None:
        await asyncio.sleep(5)
        return self._said("permit")

    async def pre_bind(self, pod: Pod, node: str) -> Refusal | None:
        return self._said("pre_bind")

    async def bind(self, client: Client, pod: Pod, node: str) -> bool:
        self.calls.append("bind")
        if self.bind_failures:
            self.bind_failures -= 1
            raise ServiceUnavailable("the API server is on holiday")
        return False

    def post_bind(self, pod: Pod, node: str) -> None:
        self.calls.append("post_bind")


def config_with(plugin: Licences) -> SchedulerConfig:
    profile = default_config().profiles[0]
    return SchedulerConfig(
        (
            replace(
                profile,
                scheduler_name="mine",
                pre_filter=(plugin,),
                reserve=(plugin,),
                permit=(plugin,),
                pre_bind=(plugin,),
                bind=(plugin, *profile.bind),
                post_bind=(plugin,),
            ),
        )
    )


@asynccontextmanager
async def scheduler_of(cluster: Cluster, plugin: Licences) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(
        cluster.client,
        cluster.plane.caches,
        cluster.clock,
        Random(1),
        cluster.plane.recorder("mine"),
        config_with(plugin),
    )
    task = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    scheduler.columns.check_invariants()
    scheduler.queue.check_invariants()


@pytest.mark.cluster(nodes=1)
async def test_plugins_are_asked_in_upstreams_order(cluster: Cluster) -> None:
    plugin = Licences()
    async with scheduler_of(cluster, plugin):
        await cluster.apply(pod("web", scheduler_name="mine"))
        await cluster.run_for(seconds=6)
    assert (await cluster.get(Pod, "web")).spec.node_name
    assert plugin.calls == ["pre_filter", "reserve", "permit", "pre_bind", "bind", "post_bind"]


@pytest.mark.cluster(nodes=1)
async def test_a_pod_holds_its_place_while_a_permit_waits(cluster: Cluster) -> None:
    async with scheduler_of(cluster, Licences()) as scheduler:
        await cluster.apply(pod("web", scheduler_name="mine"))
        await cluster.run_for(seconds=2)
        found = await cluster.get(Pod, "web")
        assert not found.spec.node_name
        assert found.metadata.uid in scheduler.columns.pods


@pytest.mark.cluster(nodes=1)
@pytest.mark.parametrize("point", ["pre_filter", "reserve", "permit", "pre_bind"])
async def test_a_refusal_gives_the_place_back_and_says_why(cluster: Cluster, point: str) -> None:
    plugin = Licences(refuse_at=point)
    async with scheduler_of(cluster, plugin) as scheduler:
        await cluster.apply(pod("web", scheduler_name="mine"))
        await cluster.run_for(seconds=5.5)
        found = await cluster.get(Pod, "web")
        assert not found.spec.node_name
        assert found.metadata.uid not in scheduler.columns.pods
        explanation = scheduler.explain(found.metadata.uid)
        assert explanation is not None
        assert explanation.diagnosis is not None
        assert explanation.diagnosis.plugins == {"Licences"}
        (condition,) = (c for c in found.status.conditions if c.type == "PodScheduled")
        said = "no licence is left" if point == "pre_filter" else "1 no licence is left"
        assert condition.message == f"0/1 nodes are available: {said}."
        assert ("unreserve" in plugin.calls) == (point != "pre_filter")
        # Nothing happened since: giving its own place back is no reason to try again.
        calls = len(plugin.calls)
        await cluster.run_for(minutes=3)
        assert len(plugin.calls) == calls
        # Once there is one, the pod goes.
        plugin.refuse_at = ""
        await cluster.run_for(minutes=7)
    assert (await cluster.get(Pod, "web")).spec.node_name


@pytest.mark.cluster(nodes=1)
async def test_a_binding_that_fails_is_tried_again(cluster: Cluster) -> None:
    plugin = Licences(bind_failures=2)
    async with scheduler_of(cluster, plugin):
        await cluster.apply(pod("web", scheduler_name="mine"))
        await cluster.run_for(seconds=30)
    assert plugin.calls.count("bind") == 3
    assert plugin.calls.count("unreserve") == 2
    assert (await cluster.get(Pod, "web")).spec.node_name


@pytest.mark.cluster(nodes=1)
async def test_a_pod_deleted_while_it_is_bound_leaves_nothing(cluster: Cluster) -> None:
    async with scheduler_of(cluster, Licences()) as scheduler:
        await cluster.apply(pod("web", scheduler_name="mine"))
        await cluster.run_for(seconds=1)
        uid = (await cluster.get(Pod, "web")).metadata.uid
        await cluster.client.delete(Pod, "web", "default", grace_seconds=0)
        await cluster.run_for(seconds=20)
        assert uid not in scheduler.columns.pods
        assert scheduler.queue.get(uid) is None
