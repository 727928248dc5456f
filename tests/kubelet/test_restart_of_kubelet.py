"""The kubelet dies and comes back; its containers do not notice. Containers are simulated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pybernetes.aio.virtualtime import settled
from pybernetes.api.conditions import condition_of
from pybernetes.api.types.core_v1 import HTTPGetAction, Probe
from pybernetes.api.types.core_v1 import Node as ApiNode
from pybernetes.kubelet.runtime.interface import SandboxSpec
from pybernetes.kubelet.runtime.script import exits, ignores_stop
from pybernetes.testing.builders import container

if TYPE_CHECKING:
    from tests.kubelet.conftest import Node


async def test_what_runs_is_adopted(node: Node) -> None:
    probe = Probe(http_get=HTTPGetAction(port=80), period_seconds=10)
    async with node.running():
        await node.create(containers=[container(readiness_probe=probe)])
        await asyncio.sleep(1)
        node.runtime.kill("web")
        await asyncio.sleep(20)
        before = await node.get()
    async with node.running():
        await asyncio.sleep(1)
        after = await node.get()
        assert after.status == before.status
        await asyncio.sleep(60)
        assert (await node.get()).status == before.status
    assert len(node.runtime.starts("web")) == 2


async def test_what_died_meanwhile_is_restarted(node: Node) -> None:
    async with node.running():
        await node.create()
        await node.get()
    node.runtime.kill("web")
    async with node.running():
        await asyncio.sleep(1)
        (main,) = (await node.get()).status.container_statuses
        assert main.restart_count == 1
        assert main.ready
        assert main.last_state.terminated is not None


async def test_a_dead_sandbox_is_seen(node: Node) -> None:
    async with node.running():
        await node.create()
        await node.get()
    node.runtime.kill_sandbox("web")
    async with node.running():
        await asyncio.sleep(1)
        pod = await node.get()
        assert pod.status.phase == "Running"
        assert pod.status.container_statuses[0].restart_count == 1


async def test_pods_deleted_meanwhile_are_removed(node: Node) -> None:
    async with node.running():
        forced = await node.create("forced")
        gentle = await node.create("gentle")
        await node.get("gentle")
    await node.client.delete(forced, grace_seconds=0)
    await node.client.delete(gentle)
    async with node.running():
        await asyncio.sleep(2)
        assert await node.is_gone("gentle")
        await settled()
        assert not await node.runtime.list_sandboxes()


async def test_finished_pods_stay_finished(node: Node) -> None:
    node.runtime.script("web", exits(code=0))
    async with node.running():
        await node.create(restart_policy="Never")
        await asyncio.sleep(1)
        before = await node.get()
        assert before.status.phase == "Succeeded"
    async with node.running():
        await asyncio.sleep(10)
        assert (await node.get()).status == before.status
    assert len(node.runtime.starts("web")) == 1


async def test_everything_may_be_lost_by_a_reboot(node: Node) -> None:
    """The API remembers how often the container was restarted."""
    async with node.running():
        await node.create()
        await node.get()
        node.runtime.kill("web")
        await asyncio.sleep(1)
    for sandbox in await node.runtime.list_sandboxes():
        await node.runtime.remove_sandbox(sandbox.id)
    async with node.running():
        await asyncio.sleep(1)
        (main,) = (await node.get()).status.container_statuses
        assert main.restart_count == 2


async def test_a_runtime_that_goes_away_makes_the_node_unready(node: Node) -> None:
    async def ready() -> tuple[str, str, str]:
        await settled()
        found = await node.client.get(ApiNode, "node-1")
        condition = condition_of(found.status.conditions, "Ready")
        assert condition is not None
        return condition.status, condition.reason, condition.message

    async with node.running():
        await node.create()
        await asyncio.sleep(1)
        well = ("True", "KubeletReady", "kubelet is posting ready status")
        assert await ready() == well
        node.runtime.go_away()
        await asyncio.sleep(11)
        assert await ready() == ("False", "KubeletNotReady", "container runtime is down")
        # Nobody can tell, so nothing is said.
        assert (await node.get()).status.phase == "Running"
        node.runtime.kill("web")
        node.runtime.come_back()
        await asyncio.sleep(1)
        assert await ready() == well
        assert (await node.get()).status.container_statuses[0].restart_count == 1
        node.runtime.set_condition("NetworkReady", "no CNI configuration")
        await asyncio.sleep(11)
        assert "container runtime network not ready" in (await ready())[2]
    said = await node.events("node-1")
    # Each said once and counted.
    assert [text for text in said if "Ready" in text] == [
        "NodeReady: Node node-1 status is now: NodeReady",
        "NodeNotReady: Node node-1 status is now: NodeNotReady",
    ]


async def test_a_kubelet_may_start_before_its_runtime(node: Node) -> None:
    node.runtime.go_away()
    async with node.running():
        await node.create()
        await asyncio.sleep(5)
        assert (await node.get()).status.phase == "Pending"
        node.runtime.come_back()
        await asyncio.sleep(12)
        assert (await node.get()).status.phase == "Running"


async def test_why_a_pod_failed_is_not_forgotten(node: Node) -> None:
    async with node.running():
        await node.create(active_deadline_seconds=5)
        await asyncio.sleep(10)
        before = await node.get()
        assert before.status.reason == "DeadlineExceeded"
    for sandbox in await node.runtime.list_sandboxes():
        await node.runtime.remove_sandbox(sandbox.id)
    async with node.running():
        await asyncio.sleep(10)
        assert (await node.get()).status == before.status


async def test_what_was_deleted_and_runs_is_stopped(node: Node) -> None:
    """Also if the kubelet has nothing new to say of it."""
    node.runtime.script("web", ignores_stop())
    async with node.running():
        pod = await node.create()
        await node.get()
        await node.client.delete(pod)
        await asyncio.sleep(1)
    async with node.running():
        await asyncio.sleep(32)
        assert await node.is_gone()


async def test_other_people_s_pods_are_left_alone(node: Node) -> None:
    """A runtime may be shared: what does not carry our mark is none of our business."""
    foreign = SandboxSpec(name="foreign", namespace="default", uid="1234")
    id_ = await node.runtime.run_sandbox(foreign)
    async with node.running() as kubelet:
        await asyncio.sleep(400)
        await kubelet.relist()
        assert [s.id for s in await node.runtime.list_sandboxes()] == [id_]
