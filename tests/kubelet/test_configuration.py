"""What pods refer to, and what they are refused for. Containers are simulated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pybernetes.api.core.nodestate import is_ready
from pybernetes.api.types.core_v1 import (
    ConfigMapEnvSource,
    ConfigMapVolumeSource,
    ContainerPort,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    PersistentVolumeClaimVolumeSource,
    SecretKeySelector,
    Volume,
)
from pybernetes.api.types.core_v1 import Node as ApiNode
from pybernetes.testing.builders import config_map, container, secret

if TYPE_CHECKING:
    from pybernetes.kubelet import Kubelet
    from tests.kubelet.conftest import Node


async def test_a_missing_secret_is_waited_for(node: Node, kubelet: Kubelet) -> None:
    key = SecretKeySelector(name="word", key="it")
    variable = EnvVar(name="WORD", value_from=EnvVarSource(secret_key_ref=key))
    await node.create(containers=[container(env=(variable,))])
    (main,) = (await node.get()).status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "CreateContainerConfigError"
    assert main.state.waiting.message == 'secret "word" not found'
    assert 'Failed: Error: secret "word" not found' in await node.events()
    await node.client.create(secret("word", it="c2VzYW1l"))
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.container_statuses[0].restart_count == 0


async def test_a_missing_config_map_of_a_volume_is_waited_for(node: Node, kubelet: Kubelet) -> None:
    volume = Volume(name="config", config_map=ConfigMapVolumeSource(name="settings"))
    await node.create(volumes=(volume,))
    await asyncio.sleep(10)
    pod = await node.get()
    (main,) = pod.status.container_statuses
    assert main.state.waiting is not None
    assert main.state.waiting.reason == "ContainerCreating"
    said = await node.events()
    text = 'MountVolume.SetUp failed for volume "config" : configmap "settings" not found'
    assert f"FailedMount: {text}" in said
    await node.client.create(config_map("settings"))
    assert (await node.get()).status.phase == "Running"


async def test_a_volume_nobody_can_mount_is_said(node: Node, kubelet: Kubelet) -> None:
    claim = PersistentVolumeClaimVolumeSource(claim_name="data")
    await node.create(volumes=(Volume(name="data", persistent_volume_claim=claim),))
    await asyncio.sleep(1)
    text = "volumes of type persistentVolumeClaim are not supported by this node"
    said = f'FailedMount: MountVolume.SetUp failed for volume "data" : {text}'
    assert said in await node.events()
    assert (await node.get()).status.phase == "Pending"


async def test_the_environment_reaches_the_container(node: Node, kubelet: Kubelet) -> None:
    await node.client.create(config_map("settings", COLOUR="blue"))
    source = EnvFromSource(prefix="MY_", config_map_ref=ConfigMapEnvSource(name="settings"))
    await node.create(
        containers=[container(env_from=(source,), command=("run", "$(MY_COLOUR)", "$$(X)"))]
    )
    await node.get()
    (only,) = await node.runtime.list_containers()
    spec = node.runtime._world.containers[only.id].spec
    assert ("MY_COLOUR", "blue") in spec.env
    assert spec.command == ("run", "blue", "$(X)")


async def test_watches_end_with_their_last_pod(node: Node, kubelet: Kubelet) -> None:
    await node.client.create(config_map("settings"))
    volume = Volume(name="config", config_map=ConfigMapVolumeSource(name="settings"))
    pods = [await node.create(name, volumes=(volume,)) for name in ("a", "b")]
    await node.get("a")
    caches = kubelet.context.objects._caches
    assert any("settings" in name for name in caches.statistics())
    await node.client.delete(pods[0])
    assert await node.is_gone("a")
    assert any("settings" in name for name in caches.statistics())
    await node.client.delete(pods[1])
    assert await node.is_gone("b")
    assert not any("settings" in name for name in caches.statistics())


async def test_a_pod_the_node_has_no_room_for_fails(node: Node, kubelet: Kubelet) -> None:
    await node.create("first", requests={"cpu": "6"})
    await node.create("second", requests={"cpu": "6"})
    assert (await node.get("first")).status.phase == "Running"
    pod = await node.get("second")
    assert (pod.status.phase, pod.status.reason) == ("Failed", "OutOfcpu")
    assert pod.status.message == (
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 6000, used: 6000, "
        "capacity: 8000"
    )


async def test_a_pod_for_other_nodes_fails(node: Node, kubelet: Kubelet) -> None:
    await node.create(node_selector={"disk": "fast"})
    pod = await node.get()
    assert (pod.status.phase, pod.status.reason) == ("Failed", "NodeAffinity")


async def test_a_host_port_has_one_user(node: Node, kubelet: Kubelet) -> None:
    port = ContainerPort(container_port=80, host_port=8080, protocol="TCP")
    await node.create("first", containers=[container(ports=[port])])
    await node.create("second", containers=[container(ports=[port])])
    assert (await node.get("first")).status.phase == "Running"
    assert (await node.get("second")).status.reason == "NodePorts"


async def test_a_network_that_comes_late_is_noticed_soon(node: Node) -> None:
    node.runtime.set_condition("NetworkReady", "cni plugin not initialized")
    async with node.running():
        await asyncio.sleep(0.3)
        node.runtime.set_condition("NetworkReady")
        await asyncio.sleep(0.5)
        found = await node.client.get(ApiNode, "node-1")
        assert is_ready(found)


async def test_the_node_says_what_it_is(node: Node, kubelet: Kubelet) -> None:
    await asyncio.sleep(1)
    found = await node.client.get(ApiNode, "node-1")
    assert found.metadata.labels["kubernetes.io/hostname"] == "node-1"
    assert found.metadata.labels["kubernetes.io/os"] == "linux"
    assert found.status.capacity["pods"] == "110"
    assert found.status.allocatable["cpu"] == "8"
    assert found.status.node_info.container_runtime_version == "simulated://1"
    assert found.status.node_info.kubelet_version.startswith("v1.37.")
    assert [(a.type, a.address) for a in found.status.addresses] == [
        ("InternalIP", "192.0.2.7"),
        ("Hostname", "node-1"),
    ]
    assert [(c.type, c.status, c.reason) for c in found.status.conditions] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    before = found.metadata.resource_version
    await asyncio.sleep(120)
    found = await node.client.get(ApiNode, "node-1")
    assert found.metadata.resource_version == before, "only the lease is a sign of life"
