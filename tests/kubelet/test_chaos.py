"""Pods under bad luck: whatever happens for a while, in the end all is as it was asked for.

Real: kubelet and API server. The simulated runtime loses containers, sandboxes and itself; kubelets
die and come back; pods come and go. Chance is Hypothesis's, so a failure can be replayed.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pybernetes.aio.clock import LoopClock
from pybernetes.aio.virtualtime import settled
from pybernetes.api.core.podstate import is_ready
from pybernetes.api.types.core_v1 import HTTPGetAction, Namespace, Pod, Probe
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.server import ApiServer
from pybernetes.client import Client
from pybernetes.kubelet.runtime.script import exits, ignores_stop, missing, pulls, stops
from pybernetes.kubelet.runtime.simulated import SimulatedRuntime
from pybernetes.storage.memory import MemoryStore
from pybernetes.testing.builders import EPOCH, container
from pybernetes.wire.memory import MemoryHttpClient
from tests.kubelet.conftest import Node

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("a", "b", "c", "d")

# (what, which pod, how long to wait afterwards in tenths of seconds)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "create",
                "create",
                "create",
                "delete",
                "force",
                "kill",
                "kill sandbox",
                "away",
                "back",
                "restart",
                "wait",
            )
        ),
        st.sampled_from(NAMES),
        st.sampled_from((0, 0, 1, 5, 40, 300)),
    ),
    max_size=40,
)


class Chaos:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.restarting = False

    async def step(self, what: str, name: str) -> None:
        runtime, client = self.node.runtime, self.node.client
        actions: dict[str, Callable[[], object]] = {
            "kill": lambda: runtime.kill(name),
            "kill sandbox": lambda: runtime.kill_sandbox(name),
            "away": runtime.go_away,
            "back": runtime.come_back,
        }
        if what in actions:
            actions[what]()
        elif what == "create":
            await self.create(name)
        elif what in ("delete", "force"):
            try:
                grace = 0 if what == "force" else None
                await client.delete(Pod, name, "default", grace_seconds=grace)
            except NotFound:
                return

    async def create(self, name: str) -> None:
        if await self.node.client.get_or_none(Pod, name, "default") is not None:
            return
        probe = Probe(http_get=HTTPGetAction(port=80), period_seconds=3)
        inits = (container("init"),) if name == "b" else ()
        if name == "c":
            inits = (container("side", restart_policy="Always"),)
        await self.node.create(
            name,
            containers=[container(readiness_probe=probe), container("second")],
            init_containers=inits,
            termination_grace_period_seconds=20,
        )


async def live(steps: list[tuple[str, str, int]], chaos: Chaos) -> None:
    """Run the steps; each "restart" ends one kubelet and begins another."""
    waiting = list(steps)
    while waiting:
        async with chaos.node.running() as kubelet:
            while waiting:
                what, name, tenths = waiting.pop(0)
                if what == "restart":
                    break
                await chaos.step(what, name)
                await asyncio.sleep(tenths / 10)
                kubelet.check_invariants()


async def check_all_is_well(node: Node) -> None:
    pods = (await node.client.list(Pod, "default")).items
    for pod in pods:
        assert pod.metadata.deletion_timestamp is None, f"{pod.metadata.name} was not deleted"
        assert is_ready(pod), f"{pod.metadata.name} is not ready: {pod.status}"
    uids = {pod.metadata.uid for pod in pods}
    sandboxes = await node.runtime.list_sandboxes()
    assert sorted(s.uid for s in sandboxes) == sorted(uids), "a sandbox too many or too few"
    running = [c for c in await node.runtime.list_containers() if c.state.value == "running"]
    wanted = sorted(
        (pod.metadata.uid, status.name)
        for pod in pods
        for status in (*pod.status.container_statuses, *pod.status.init_container_statuses)
        if status.name != "init"
    )
    assert sorted((c.pod_uid, c.name) for c in running) == wanted


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, seed=st.integers(0, 1000))
async def test_all_is_well_in_the_end(steps: list[tuple[str, str, int]], seed: int) -> None:
    clock, random = LoopClock(EPOCH), Random(seed)
    async with ApiServer(MemoryStore(), clock, random) as server:
        client = Client(MemoryHttpClient(server.handle))
        for name in ("default", "kube-node-lease"):
            await client.create(Namespace(metadata=ObjectMeta(name=name)))
        runtime = SimulatedRuntime(
            clock, random, latency=timedelta(milliseconds=random.choice((0, 50)))
        )
        second = timedelta(seconds=1)
        runtime.script("*/init", stops())
        runtime.script("*/init", exits(code=0, after=second))
        runtime.script("a", ignores_stop())
        runtime.script("b", stops(2 * second))
        runtime.script_image("*", missing(failures=1) if seed % 3 else pulls(after=second))
        node = Node(client, runtime, clock, random)
        await live(steps, Chaos(node))
        runtime.come_back()
        async with node.running() as kubelet:
            # Longer than the longest back-off.
            await asyncio.sleep(1000)
            await settled()
            kubelet.check_invariants()
            await check_all_is_well(node)
        runtime.check_invariants()
